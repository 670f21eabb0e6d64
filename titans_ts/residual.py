"""Fit the network on what the linear part leaves; forecast the validation part with it.

Origin t means: rows before t are known, rows t, t+1, ... are forecast. A window ends at its
origin; the memory holds the patches that end at or before the window's first row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from titans_core import BackboneConfig, BackboneState, map_state
from titans_core.training import TrainingConfig, TrainingHistory, fit_network
from titans_ts.admission import Forecasts, Residual, admit, median_index
from titans_ts.linear import LinearPart
from titans_ts.network import ForecastNetwork
from titans_ts.windows import Array, PatchClock, normalise, patches_ending, sliding_windows

# Patches before the window that training reads into the memory: as far as gradients reach back.
_HISTORY_PATCHES = 16
_BATCH_SEQUENCES = 256
_ADMISSION_VALUES = 50_000_000  # numbers that validation may hold at a time
_SCORED_ORIGINS = 64  # validation origins that choose the training step


class ResidualWindows:
    """Windows, patches and linear errors of one z-scored series, by origin, for the network."""

    def __init__(self, z: Array, linear: LinearPart, clock: PatchClock) -> None:
        self.z, self.linear, self.clock = z, linear, clock
        self.context_length, self.prediction_length = linear.weights.shape[1:]

    def __len__(self) -> int:
        return len(self.z)

    def first_origin(self, history: int) -> int:
        """First origin with a window and that many whole patches before it, all normalisable."""
        if history == 0:
            return self.context_length
        return 2 * self.context_length + (history - 1) * self.clock.patch_length

    def windows(self, origins: np.ndarray) -> tuple[Array, Array]:
        """Raw contexts ``(n, C, L)`` and targets ``(n, C, P)``."""
        length = self.context_length + self.prediction_length
        both = sliding_windows(self.z, length)[origins - self.context_length]
        return both[..., : self.context_length], both[..., self.context_length :]

    def sample(self, origins: np.ndarray, history: int) -> tuple[Tensor, ...]:
        """A batch: contexts, linear errors, scales, history patches, channels; ``N = n C`` rows."""
        raw, target = self.windows(origins)
        context, scale = normalise(raw)
        error = target - self.linear.predict(raw)
        n, channels = scale.shape[:2]
        steps = np.arange(history - 1, -1, -1) * self.clock.patch_length
        ends = (origins - self.context_length)[:, None] - steps
        past = patches_ending(self.z, ends, self.clock).transpose(0, 2, 1, 3)  # (n, C, history, p)
        batch = (context, error, scale, past)
        rows = (torch.from_numpy(x.reshape(n * channels, *x.shape[2:])).float() for x in batch)
        return (*rows, torch.arange(channels).repeat(n))


def fit_residual(
    z: Array,
    n_train: int,
    linear: LinearPart,
    levels: Array,
    *,
    clock: PatchClock,
    backbone: BackboneConfig | None,
    training: TrainingConfig,
    progress: bool,
) -> tuple[Residual, TrainingHistory | None]:
    """Train on origins whose targets end in the first ``n_train`` rows; admit on the others.

    Parameters
    ----------
    z : ndarray of shape (T, C)
        Z-scored training rows, then validation rows.
    linear : LinearPart
        As fitted on the training rows.
    levels : ndarray of shape (Q,)
        Ascending, with the median among them.
    clock : PatchClock
        Context and patch length.
    backbone : BackboneConfig, optional
        None: no network, only the quantiles of the linear part's errors.

    Returns
    -------
    Residual, TrainingHistory or None
    """
    data = ResidualWindows(z, linear, clock)
    spread = _error_spread(data, n_train, levels)
    network = history = None
    if backbone is not None:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(training.seed)
            network = ForecastNetwork(
                backbone,
                channels=z.shape[1],
                context_length=data.context_length,
                patch_length=clock.patch_length,
                median_index=median_index(levels),
                spread=torch.from_numpy(spread).float(),
            ).float()  # whatever the default dtype is
        history = _train(network, data, n_train, levels, training, progress)
    origins = _validation_origins(data, n_train, spread.size)
    fresh, carried = (
        admit(forecast_validation(network, data, origins, carry=carry), spread, levels)
        for carry in (False, True)
    )
    return Residual(network, spread, fresh, carried), history


def _error_spread(data: ResidualWindows, n_train: int, levels: Array) -> Array:
    """Quantiles of the linear part's training errors, in window scales, less their median."""
    last = n_train - data.prediction_length
    origins = np.unique(np.linspace(data.first_origin(0), last, 512).astype(int))
    _, error, scale, _, _ = data.sample(origins, 0)
    spread = np.quantile((error / scale).double().numpy(), levels, axis=0)
    return spread - spread[median_index(levels)]


def _train(
    network: ForecastNetwork,
    data: ResidualWindows,
    n_train: int,
    levels: Array,
    training: TrainingConfig,
    progress: bool,
) -> TrainingHistory:
    channels = data.z.shape[1]
    last = n_train - data.prediction_length
    # Where the training rows are few, history must leave room for origins to choose from.
    room = (last - data.first_origin(1)) // 2
    history = int(np.clip(room // data.clock.patch_length, 0, _HISTORY_PATCHES))
    size = -(-_BATCH_SEQUENCES // channels)
    level = torch.from_numpy(levels).float()[:, None]

    def sample_batch(generator: torch.Generator) -> tuple[Tensor, ...]:
        # Half of the batches begin with the window, the others carry a memory into it.
        past = history * int(torch.randint(2, (), generator=generator))
        first = data.first_origin(past)
        origins = torch.randint(first, last + 1, (size,), generator=generator)
        return data.sample(origins.numpy(), past)

    def pinball(network: Any, batch: tuple[Tensor, ...]) -> Tensor:
        context, error, scale, past, channel = batch
        excess = error[:, None] - network(context, channel, past=past) * scale[:, None]
        q = level.to(excess.device)
        return torch.maximum(q * excess, (q - 1) * excess).mean()

    last_scored = len(data) - data.prediction_length
    scored = np.unique(np.linspace(n_train, last_scored, _SCORED_ORIGINS).astype(int))
    held_out = [data.sample(scored, past) for past in sorted({0, history})]

    def validate(network: nn.Module) -> float:
        device = next(network.parameters()).device
        losses = [pinball(network, tuple(x.to(device) for x in batch)).item() for batch in held_out]
        return float(np.mean(losses))

    return fit_network(
        network,
        sample_batch,
        pinball,
        validate,
        training,
        progress=progress,
        description="training the network",
    )


def _validation_origins(data: ResidualWindows, n_train: int, answers: int) -> np.ndarray:
    """Every origin whose targets are validation rows, thinned evenly where memory would not do."""
    last = len(data) - data.prediction_length
    affordable = max(64, _ADMISSION_VALUES // (answers * data.z.shape[1]))
    return np.unique(np.linspace(n_train, last, min(last - n_train + 1, affordable)).astype(int))


def forecast_validation(
    network: ForecastNetwork | None, data: ResidualWindows, origins: np.ndarray, *, carry: bool
) -> Forecasts:
    """Forecast at every origin, in time order if the memory is carried along."""
    clock, channels = data.clock, data.z.shape[1]
    due = clock.due(origins) if carry else np.zeros(len(origins), dtype=int)
    parts: list[list[Array]] = []
    state, written = None, clock.first
    for block in np.split(np.arange(len(origins)), np.flatnonzero(np.diff(due)) + 1):
        if network is not None and due[block[0]] > written:
            ends = clock.end(np.arange(written, due[block[0]]))
            patches = patches_ending(data.z, ends, clock).transpose(1, 0, 2)
            state = remember(network, patches, state)
            written = due[block[0]]
        for batch in np.array_split(block, -(-len(block) * channels // _BATCH_SEQUENCES)):
            context, error, scale, _, channel = data.sample(origins[batch], 0)
            tensors = [error, scale]
            if network is not None:
                with torch.no_grad():
                    tiled = None if state is None else tile_state(state, len(batch))
                    tensors.append(network(context, channel, tiled))
            parts.append([x.unflatten(0, (len(batch), channels)).numpy() for x in tensors])
    joined = [np.concatenate(x) for x in zip(*parts, strict=True)]
    return Forecasts(joined[0], joined[1], joined[2] if network is not None else None)


def remember(
    network: ForecastNetwork, patches: Array, state: BackboneState | None
) -> BackboneState:
    """Write patches ``(C, n, p)``, one stream per channel, into the memory; no gradients."""
    with torch.no_grad():
        return network.remember(
            torch.from_numpy(patches).float(), torch.arange(len(patches)), state
        )


def tile_state(state: BackboneState, n: int) -> BackboneState:
    """The state of C streams for n windows of each: ``C -> n C``, channels fastest."""
    return map_state(lambda x: x.repeat(n, *[1] * (x.ndim - 1)), state)
