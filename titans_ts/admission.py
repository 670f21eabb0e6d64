"""Admit only as much of the network as validation backs: a gate, and calibrated levels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from titans_ts.network import ForecastNetwork
from titans_ts.recollection import Recollection
from titans_ts.windows import Array

# Errors of z-scores below this count no more than this when channels are weighed for the gate.
_LEAST_ERROR = 0.2
# Independent validation windows at which half of the gate is let in that validation chose.
_HALF_TRUSTED = 4
# Channels with fewer validation windows than this are calibrated together with all others.
_LEAST_WINDOWS = 20
# What a channel may lose, of its squared error on validation, by a gate that others share with it.
_MOST_LOSS = 0.05
_LEAST_GAIN = 0.002  # of the squared error, for which the memory is asked
_MOST_ERRORS = 2_000_000  # numbers that intervals and sample paths are made of, about


@dataclass(frozen=True)
class Admission:
    """How much of the network validation admits, for one way of using its memory.

    Parameters
    ----------
    asks_memory : bool
        Whether the network answers with its memory, or without.
    gate : ndarray of shape (K,), or (1,)
        Factors of the network's correction of the point forecast, in [0, 1], of each channel or of
        a panel as a whole; 0 leaves the linear part alone.
    learned_levels : bool
        Whether the levels are the network's (they had the smaller pinball loss) or those of the
        linear part's training errors around the point forecast.
    shift : ndarray of shape (K, Q), or (1, Q)
        What each level is moved by, in window scales, to have its coverage on validation: of each
        channel, or of a panel as a whole.
    loss, pinball : float
        Mean squared and mean pinball error on validation, of z-scored values.
    errors : ndarray of shape (n, K, P), or (n, 1, P)
        What the point forecast left at validation origins, in window scales, NaN where unknown:
        what intervals and sample paths are made of. Of a panel, windows of all its channels.
    """

    asks_memory: bool
    gate: Array
    learned_levels: bool
    shift: Array
    loss: float
    pinball: float
    errors: Array

    @property
    def uses_network(self) -> bool:
        """Whether anything of the network is left."""
        return bool(self.gate.any()) or self.learned_levels


@dataclass(frozen=True)
class Residual:
    """What is added to the linear forecast: a gated correction, and calibrated levels.

    Parameters
    ----------
    spread : ndarray of shape (Q, P)
        Distances from the median to each level of the linear part's training errors, in window
        scales.
    fresh, carried : Admission
        Of a window by itself, with a memory that begins with it if that did better; and of memories
        that hold what came before: the recollection's, and the network's if it is asked.
    recollection : Recollection or None
        What the seasonal memory of a stream adds before the network corrects; None without one.
    """

    network: ForecastNetwork | None
    spread: Array
    fresh: Admission
    carried: Admission
    recollection: Recollection | None = None

    def __post_init__(self) -> None:
        admitted = self.fresh.uses_network or self.carried.uses_network
        assert self.network is not None or not admitted

    @property
    def uses_memory(self) -> bool:
        """Whether a stream forecasts with its carried memory (validation found it worth it)."""
        carried = self.carried
        has_one = self.recollection is not None or (carried.asks_memory and carried.uses_network)
        return has_one and better(carried, self.fresh) is carried

    @property
    def streaming(self) -> Admission:
        """What a stream uses."""
        return self.carried if self.uses_memory else self.fresh


@dataclass(frozen=True)
class Forecasts:
    """Forecasts of validation windows, with the truth.

    Parameters
    ----------
    error : ndarray of shape (n, P)
        What the linear part leaves, z-scored; NaN where the truth is missing.
    scale : ndarray of shape (n, 1)
        The windows' own.
    channel : int ndarray of shape (n,)
        If every channel of K is there at every time: times outside, channels 0 to K - 1 inside.
    late : boolean ndarray of shape (n,)
        Whether the window lies in the second half of the validation part.
    windows : float
        Windows that the validation part holds one after the other: how independent they are.
    answer : ndarray of shape (n, Q, P) or None
        What the network says of the error, in these scales; None without a network.
    """

    error: Array
    scale: Array
    channel: np.ndarray
    late: np.ndarray
    windows: float
    answer: Array | None


def better(costly: Admission, cheap: Admission) -> Admission:
    """The first, if validation found it worth its cost: squared error by a bit, no worse levels."""
    gains = costly.loss <= (1 - _LEAST_GAIN) * cheap.loss and costly.pinball <= cheap.pinball
    return costly if gains else cheap


def admit(
    forecasts: Forecasts, spread: Array, levels: Array, channels: int, *, asks_memory: bool
) -> Admission:
    """Gate the correction, choose and calibrate the levels, all on validation."""
    error, scale, answer = forecasts.error, forecasts.scale, forecasts.answer
    by_channel = _by_channel(forecasts, channels)
    gate = np.zeros(len(by_channel))
    left = error
    if answer is not None:
        correction = scale * answer[:, median_index(levels)]
        gate = least_squares_gate(error, correction, by_channel, forecasts.late, forecasts.windows)
        left = error - np.take(gate, _group_of(by_channel))[:, None] * correction
    loss = float(np.nanmean(np.square(left)))

    shift, pinball = _calibrate((left / scale)[:, None] - spread, scale, by_channel, levels)
    learned_levels = False
    if answer is not None:
        learned = _calibrate((error / scale)[:, None] - answer, scale, by_channel, levels)
        learned_levels = learned[1] < pinball
        shift, pinball = learned if learned_levels else (shift, pinball)
    errors = (left / scale).reshape(-1, len(by_channel), left.shape[-1])
    most = max(_MOST_ERRORS // errors[0].size, 64)
    if len(errors) > most:
        errors = errors[np.linspace(0, len(errors) - 1, most).astype(int)]
    return Admission(asks_memory, gate, learned_levels, shift, loss, pinball, errors)


def least_squares_gate(
    error: Array,
    correction: Array,
    by_channel: list[np.ndarray],
    late: np.ndarray,
    windows: float,
    prior: float = 0.0,
) -> Array:
    """Least squares in [0, 1], held back where the halves of validation disagree or it is short.

    That of a channel is drawn halfway to that of all channels together; all, the shorter validation
    is, toward the prior: what a correction is worth of which nothing is known. A channel that would
    be clearly the worse for it keeps its own.

    Parameters
    ----------
    error, correction : ndarray of shape (n, P)
        The error is NaN where the truth is missing.
    by_channel : list of int ndarray
        Windows of each channel; one gate for each.
    late : boolean ndarray of shape (n,)
    windows : float
        As in `Forecasts`.
    """
    product, power = np.nan_to_num(error * correction), np.square(correction)
    power = np.where(np.isnan(error), 0.0, power)
    gates = []
    for part in (np.ones_like(late), ~late, late):
        sums = np.zeros((2, len(by_channel)))
        for k, rows in enumerate(by_channel):
            squares = np.square(error[rows][~np.isnan(error[rows])])
            weight = 1 / max(squares.mean() if squares.size else 1.0, _LEAST_ERROR)
            chosen = rows[part[rows]]
            sums[:, k] = weight * product[chosen].sum(), weight * power[chosen].sum()
        sums += sums.mean(axis=1, keepdims=True)
        gates.append(sums[0] / np.where(sums[1] > 0, sums[1], np.inf))
    both, first, second = gates
    gate = (both + np.minimum(first, second)) / 2
    trust = windows / (windows + _HALF_TRUSTED)
    gate = np.asarray(trust * gate.clip(0, 1) + (1 - trust) * prior)
    for k, rows in enumerate(by_channel):
        gained, lost = product[rows].sum(), power[rows].sum()
        loss = gate[k] ** 2 * lost - 2 * gate[k] * gained
        if loss > _MOST_LOSS * np.nansum(np.square(error[rows])):
            gate[k] = np.clip(gained / lost, 0, gate[k])
    return gate


def _group_of(by_channel: list[np.ndarray]) -> np.ndarray:
    """The group of each window."""
    group = np.empty(sum(map(len, by_channel)), dtype=int)
    for k, rows in enumerate(by_channel):
        group[rows] = k
    return group


def _by_channel(forecasts: Forecasts, channels: int) -> list[np.ndarray]:
    """Windows of each channel, if all have enough and are there at every time; else all as one."""
    n = len(forecasts.channel)
    each = np.tile(np.arange(channels), n // channels)
    if not np.array_equal(each, forecasts.channel):
        return [np.arange(n)]
    return channel_groups(forecasts.channel, channels)


def channel_groups(channel: np.ndarray, channels: int) -> list[np.ndarray]:
    """Windows of each channel, if all have enough of them; else all windows together."""
    if np.bincount(channel, minlength=channels).min() < _LEAST_WINDOWS:
        return [np.arange(len(channel))]
    return [np.flatnonzero(channel == k) for k in range(channels)]


def _calibrate(
    excess: Array, scale: Array, by_channel: list[np.ndarray], levels: Array
) -> tuple[Array, float]:
    """Shifts ``(K, Q)`` of the levels to their coverage, and the pinball loss after it.

    ``excess`` (n, Q, P) is by how much the truth exceeds each level, in scales.
    """
    shift = np.zeros((len(by_channel), len(levels)))
    losses = []
    for q, level in enumerate(levels):
        rest = excess[:, q].copy()
        for k, rows in enumerate(by_channel):
            seen = rest[rows][~np.isnan(rest[rows])]
            if len(seen):
                shift[k, q] = np.quantile(seen, level)
            rest[rows] -= shift[k, q]
        rest *= scale
        losses.append(np.nanmean(np.maximum(level * rest, (level - 1) * rest)))
    return shift, float(np.mean(losses))


def median_index(levels: Array) -> int:
    """Position of the level 0.5."""
    return int(np.flatnonzero(levels == 0.5)[0])
