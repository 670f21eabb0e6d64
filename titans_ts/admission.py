"""Admit only as much of the network as validation backs: a gate, and calibrated levels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from titans_ts.network import ForecastNetwork
from titans_ts.windows import Array

MAX_GATE = 1.2


@dataclass(frozen=True)
class Admission:
    """How much of the network validation admits, for one way of using its memory.

    Parameters
    ----------
    gate : float
        Factor of the network's correction of the point forecast, in [0, ``MAX_GATE``], by least
        squares; 0 leaves the linear part alone.
    learned_levels : bool
        Whether the levels are the network's (they had the smaller pinball loss) or those of the
        linear part's training errors around the point forecast.
    shift : ndarray of shape (C, Q)
        What each level is moved by, in window scales, to have its coverage on validation.
    loss, pinball : float
        Mean squared and mean pinball error on validation, of z-scored values.
    """

    gate: float
    learned_levels: bool
    shift: Array
    loss: float
    pinball: float

    @property
    def uses_network(self) -> bool:
        """Whether anything of the network is left."""
        return self.gate > 0 or self.learned_levels


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

    def __post_init__(self) -> None:
        admitted = self.fresh.uses_network or self.carried.uses_network
        assert self.network is not None or not admitted

    @property
    def uses_memory(self) -> bool:
        """Whether a stream forecasts with its carried memory (validation found it no worse)."""
        fresh, carried = self.fresh, self.carried
        no_worse = carried.loss <= fresh.loss and carried.pinball <= fresh.pinball
        return carried.uses_network and no_worse

    @property
    def streaming(self) -> Admission:
        """What a stream uses."""
        return self.carried if self.uses_memory else self.fresh


@dataclass(frozen=True)
class Forecasts:
    """Forecasts at validation origins, with the truth, as ``(n, C, ...)`` arrays.

    ``error`` (n, C, P) is what the linear part leaves, z-scored; ``scale`` (n, C, 1) the windows'
    own; ``answer`` (n, C, Q, P) what the network says of the error, in these scales; None without
    a network.
    """

    error: Array
    scale: Array
    answer: Array | None


def admit(forecasts: Forecasts, spread: Array, levels: Array) -> Admission:
    """Gate the correction, choose and calibrate the levels, all on validation."""
    error, scale, answer = forecasts.error, forecasts.scale, forecasts.answer
    gate = 0.0
    left = error
    if answer is not None:
        correction = scale * answer[:, :, median_index(levels)]
        power = float(np.square(correction).sum())
        gate = float((error * correction).sum()) / power if power > 0 else 0.0
        gate = min(max(gate, 0.0), MAX_GATE)
        left = error - gate * correction
    loss = float(np.square(left).mean())

    shift, pinball = _calibrate((left / scale)[:, :, None] - spread, scale, levels)
    if answer is not None:
        learned = _calibrate((error / scale)[:, :, None] - answer, scale, levels)
        if learned[1] < pinball:
            return Admission(gate, True, learned[0], loss, learned[1])
    return Admission(gate, False, shift, loss, pinball)


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


def median_index(levels: Array) -> int:
    """Position of the level 0.5."""
    return int(np.flatnonzero(levels == 0.5)[0])
