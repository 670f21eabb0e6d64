"""Fit the network on what the linear part leaves, and admit only as much of it as validation backs.

Origin t means: rows before t are known, rows t, t+1, ... are forecast. A window ends at its
origin; the memory holds the patches that end at or before the window's first row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from titans_core import BackboneConfig, BackboneState, map_state
from titans_core.training import TrainingConfig, TrainingHistory, fit_network
from titans_ts.linear import LinearPart
from titans_ts.network import ForecastNetwork
from titans_ts.windows import Array, PatchClock, normalise, patches_ending, sliding_windows

MAX_GATE = 1.2
# Patches before the window that training reads into the memory: as far as gradients reach back.
_HISTORY_PATCHES = 16
_BATCH_SEQUENCES = 256
_ADMISSION_VALUES = 50_000_000  # numbers that validation may hold at a time
_SCORED_ORIGINS = 64  # validation origins looked at during training; the gate sees all of them


@dataclass(frozen=True)
class Admission:
    """How much of the network validation admits, for one way of using its memory.

    Parameters
    ----------
    gate : float
        Factor of the network's correction of the point forecast, in [0, ``MAX_GATE``], by least
        squares; 0 leaves the linear part alone.
    quantiles : bool
        Whether the levels are the network's (they had the smaller pinball loss) or those of the
        linear part's training errors around the point forecast.
    shift : ndarray of shape (C, Q)
        What each level is moved by, in window scales, to have its coverage on validation.
    loss, pinball : float
        Mean squared and mean pinball error on validation, of z-scored values.
    """

    gate: float
    quantiles: bool
    shift: Array
    loss: float
    pinball: float

    @property
    def uses_network(self) -> bool:
        """Whether anything of the network is left."""
        return self.gate > 0 or self.quantiles


@dataclass(frozen=True)
class Residual:
    """What is added to the linear forecast: a gated correction, and calibrated levels.

    Parameters
    ----------
    spread : ndarray of shape (Q, P)
        Distances from the median to each level of the linear part's training errors, in window
        scales.
    fresh, carried : Admission
        For a memory that begins with the window, and for one that holds what came before.
    """

    network: ForecastNetwork | None
    spread: Array
    fresh: Admission
    carried: Admission

    @property
    def uses_memory(self) -> bool:
        """Whether a stream forecasts with its carried memory (validation found it no worse)."""
        fresh, carried = self.fresh, self.carried
        no_worse = (carried.loss, carried.pinball) <= (fresh.loss, fresh.pinball)
        return carried.uses_network and no_worse

    @property
    def streaming(self) -> Admission:
        """What a stream uses."""
        return self.carried if self.uses_memory else self.fresh


class Residuals:
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
    backbone : BackboneConfig, optional
        None: no network, only the quantiles of the linear part's errors.
    """
    data = Residuals(z, linear, clock)
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
            )
        history = _train(network, data, n_train, levels, training, progress)
    origins = _validation_origins(data, n_train, spread.size)
    fresh = _admit(_forecast(network, data, origins, spread, carry=False), spread, levels)
    carried = fresh
    if network is not None:
        carried = _admit(_forecast(network, data, origins, spread, carry=True), spread, levels)
    return Residual(network, spread, fresh, carried), history


def median_index(levels: Array) -> int:
    """Position of the level 0.5."""
    return int(np.flatnonzero(levels == 0.5)[0])


def _error_spread(data: Residuals, n_train: int, levels: Array) -> Array:
    """Quantiles of the linear part's training errors, in window scales, less their median."""
    last = n_train - data.prediction_length
    origins = np.unique(np.linspace(data.first_origin(0), last, 512).astype(int))
    _, error, scale, _, _ = data.sample(origins, 0)
    spread = np.quantile((error / scale).double().numpy(), levels, axis=0)
    return spread - spread[median_index(levels)]


def _train(
    network: ForecastNetwork,
    data: Residuals,
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
        state = network.remember(past, channel) if past.shape[1] else None
        excess = error[:, None] - network(context, channel, state) * scale[:, None]
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


@dataclass(frozen=True)
class _Forecasts:
    """Forecasts at validation origins, with the truth, as ``(n, C, ...)`` arrays.

    ``error`` (n, C, P) is what the linear part leaves, z-scored; ``scale`` (n, C, 1) the windows'
    own; ``answer`` (n, C, Q, P) what the network says of the error, in these scales.
    """

    error: Array
    scale: Array
    answer: Array


def _validation_origins(data: Residuals, n_train: int, answers: int) -> np.ndarray:
    """Every origin whose targets are validation rows, thinned evenly where memory would not do."""
    last = len(data) - data.prediction_length
    affordable = max(64, _ADMISSION_VALUES // (answers * data.z.shape[1]))
    return np.unique(np.linspace(n_train, last, min(last - n_train + 1, affordable)).astype(int))


def _forecast(
    network: ForecastNetwork | None,
    data: Residuals,
    origins: np.ndarray,
    spread: Array,
    *,
    carry: bool,
) -> _Forecasts:
    """Forecast at every origin, in time order if the memory is carried along."""
    clock = data.clock
    channels = data.z.shape[1]
    due = clock.due(origins) if carry else np.zeros(len(origins), dtype=int)
    blocks = np.split(np.arange(len(origins)), np.flatnonzero(np.diff(due)) + 1)
    silence = torch.from_numpy(spread).float()
    parts: list[list[Array]] = []
    state, written = None, clock.first
    for block in blocks:
        if network is not None and due[block[0]] > written:
            ends = clock.end(np.arange(written, due[block[0]]))
            state = remember(network, patches_ending(data.z, ends, clock).transpose(1, 0, 2), state)
            written = due[block[0]]
        for some in np.array_split(block, -(-len(block) * channels // _BATCH_SEQUENCES)):
            context, error, scale, _, channel = data.sample(origins[some], 0)
            answer = silence.expand(len(error), -1, -1)
            if network is not None:
                with torch.no_grad():
                    tiled = None if state is None else tile_state(state, len(some))
                    answer = network(context, channel, tiled)
            shape = (len(some), channels)
            parts.append([x.unflatten(0, shape).numpy() for x in (error, scale, answer)])
    joined = [np.concatenate(x) for x in zip(*parts, strict=True)]
    return _Forecasts(joined[0], joined[1], joined[2])


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


def _admit(forecasts: _Forecasts, spread: Array, levels: Array) -> Admission:
    """Gate the correction, choose and calibrate the levels, all on validation."""
    error, scale = forecasts.error, forecasts.scale
    correction = scale * forecasts.answer[:, :, median_index(levels)]
    power = float(np.square(correction).sum())
    gate = float((error * correction).sum()) / power if power > 0 else 0.0
    gate = min(max(gate, 0.0), MAX_GATE)
    left = error - gate * correction

    plain = _calibrate((left / scale)[:, :, None] - spread, scale, levels)
    learned = _calibrate((error / scale)[:, :, None] - forecasts.answer, scale, levels)
    quantiles = learned[1] < plain[1]
    shift, pinball = learned if quantiles else plain
    return Admission(gate, quantiles, shift, float(np.square(left).mean()), pinball)


def _calibrate(excess: Array, scale: Array, levels: Array) -> tuple[Array, float]:
    """Shifts ``(C, Q)`` of the levels to their coverage, and the pinball loss after it.

    ``excess`` (n, C, Q, P) is by how much the truth exceeds each level, in scales.
    """
    shift = np.empty(excess.shape[1:3])
    losses = []
    for q, level in enumerate(levels):
        shift[:, q] = np.quantile(excess[:, :, q], level, axis=(0, 2))
        rest = scale * (excess[:, :, q] - shift[:, q, None])
        losses.append(np.maximum(level * rest, (level - 1) * rest).mean())
    return shift, float(np.mean(losses))
