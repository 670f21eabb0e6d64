"""A fitted forecaster as one torch module, frozen: for ``torch.export`` and what runs its programs.

It forecasts windows of the one series fitted as ``predict(context=window)`` does, in float64 but
for the network. Nothing in it learns any more; a carried memory is not part of it.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from titans_ts.admission import median_index
from titans_ts.scaler import LARGEST_LOG
from titans_ts.windows import SCALE_FLOOR, Array

if TYPE_CHECKING:
    from titans_ts.linear import LinearPart
    from titans_ts.model import Model


class FrozenPredictor(nn.Module):
    """Windows in, point forecast and quantiles out, all in original units.

    Parameters
    ----------
    model : Model
        Of one series.
    linear : LinearPart
        As far as it has learned.
    """

    learned: Tensor
    level: Tensor
    scale: Tensor
    weights: Tensor
    reversion: Tensor
    drift: Tensor
    to_mean: Tensor
    floor: Tensor
    gate: Tensor
    shift: Tensor
    spread: Tensor

    def __init__(self, model: Model, linear: LinearPart) -> None:
        super().__init__()
        (scaler,), admission = model.scalers, model.residual.fresh
        channels = len(scaler.level)

        def each(values: Array) -> Tensor:
            """One row for each channel."""
            tensor = torch.as_tensor(values, dtype=torch.float64)
            return tensor.expand(channels, *tensor.shape[1:]).clone()

        network = copy.deepcopy(model.residual.network) if admission.uses_network else None
        self.network = network if network is None else network.requires_grad_(False)
        self.asks_memory, self.learned_levels = admission.asks_memory, admission.learned_levels
        self.rows, self.middle = model.clock.context_length, median_index(model.levels)
        self.context_length = linear.context_length
        self.register_buffer("learned", torch.as_tensor(scaler.learned.nonzero()[0]))
        self.register_buffer("level", torch.as_tensor(scaler.level))
        self.register_buffer("scale", torch.as_tensor(scaler.scale))
        self.register_buffer("weights", torch.stack([torch.as_tensor(w) for w in linear.weights]))
        self.register_buffer(
            "reversion", torch.stack([torch.as_tensor(v) for v in linear.standing_reversion])
        )
        self.register_buffer("drift", torch.stack([torch.as_tensor(d) for d in linear.drift]))
        self.register_buffer("to_mean", torch.as_tensor(model.domain.to_mean))
        self.register_buffer("floor", torch.as_tensor(scaler.floor))
        self.logarithms = bool(scaler.floor.any())
        self.register_buffer("gate", each(admission.gate[:, None]))
        self.register_buffer("shift", each(admission.shift)[..., None])
        self.register_buffer("spread", torch.as_tensor(model.residual.spread))

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Forecast windows ``(B, L, C)``: point ``(B, P, C)`` and quantiles ``(B, P, C, Q)``.

        ``y`` is float64, without missing values.
        """
        batch = y.shape[0]
        z = (self._domain(y.index_select(2, self.learned)) - self.level) / self.scale
        z = z.transpose(1, 2)  # (B, C', L)
        level = z.mean(dim=-1, keepdim=True)
        x = (z - level)[:, :, None]  # (B, C', 1, L)
        ahead = (x @ self.weights)[:, :, 0] + level * (1 + self.reversion) + self.drift
        seen = z[..., -self.rows :]
        centred = seen - seen.mean(dim=-1, keepdim=True)
        scale = (centred.square().mean(dim=-1, keepdim=True) + SCALE_FLOOR**2).sqrt()
        levels: Tensor = self.spread.expand(batch, z.shape[1], -1, -1)
        correction = torch.zeros_like(ahead)
        if self.network is not None:
            window = (centred / scale).flatten(0, 1).float()
            channel = torch.arange(z.shape[1], device=y.device).repeat(batch)
            answer = self.network(window, channel, ask_memory=self.asks_memory).double()
            answer = answer.unflatten(0, (batch, z.shape[1]))  # (B, C', Q, P)
            correction = self.gate * answer[:, :, self.middle]
            levels = answer if self.learned_levels else correction[:, :, None] + levels
        point = ahead + scale * correction + self.to_mean
        fan = (ahead[:, :, None] + scale[:, :, None] * (levels + self.shift)).sort(dim=2).values
        point = self._units(point.transpose(1, 2) * self.scale + self.level)  # (B, P, C')
        fan = self._units(fan.permute(0, 3, 2, 1) * self.scale + self.level)  # (B, P, Q, C')
        last = y[:, -1:]  # what a channel that was constant goes on with
        point = last.repeat(1, point.shape[1], 1).index_copy(2, self.learned, point)
        fan = last[:, :, None].repeat(1, *fan.shape[1:3], 1).index_copy(3, self.learned, fan)
        return point, fan.transpose(2, 3)

    def _domain(self, y: Tensor) -> Tensor:
        """The logarithms of channels ``(..., C')`` that are learned by them."""
        if not self.logarithms:
            return y
        log = self.floor > 0
        return torch.where(log, y.maximum(torch.where(log, self.floor, 1.0)).log(), y)

    def _units(self, x: Tensor) -> Tensor:
        """What `_domain` was given."""
        if not self.logarithms:
            return x
        return torch.where(self.floor > 0, x.clamp(max=LARGEST_LOG).exp(), x)


def export_predictor(model: Model, linear: LinearPart, batch_size: int | None) -> ExportedProgram:
    """Trace the predictor; the number of windows is left open if none is said."""
    if len(model.scalers) > 1:
        raise ValueError(
            f"export needs a forecaster of one series; this one was fitted on {len(model.scalers)}."
        )
    if model.covariates.future_gain or model.covariates.past_effect is not None:
        raise ValueError(
            "export takes windows of the channels alone; in this forecaster past or future "
            "covariates have a part. Fit without them."
        )
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be None or an int >= 1; got {batch_size!r}.")
    predictor = FrozenPredictor(model, linear).eval()
    if batch_size is None and predictor.network is not None and predictor.asks_memory:
        raise ValueError(
            "batch_size must be said where the memory takes part, as in this forecaster: its "
            "states are laid out for so many windows. Try export(batch_size=1)."
        )
    channels = len(model.scalers[0].learned)
    windows = torch.zeros(batch_size or 2, linear.context_length, channels, dtype=torch.float64)
    free = {"y": {0: Dim("batch", min=1)}} if batch_size is None else None
    with torch.no_grad():
        return torch.export.export(predictor, (windows,), dynamic_shapes=free)
