"""Fit the recollection: ridges on moments of training windows, all choices on validation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from titans_ts.admission import channel_groups, least_squares_gate
from titans_ts.channels import Channels
from titans_ts.linear import LinearPart
from titans_ts.linear_choice import MOST_OWN_MATRICES, PENALTY_GRID
from titans_ts.moments import FARTHEST
from titans_ts.recollection import WINDOW_ROWS, Recollection, features, rows_before
from titans_ts.seasonal_memory import SeasonalMemory, SeasonReads
from titans_ts.validation_gain import mean_squares, thin, validation_gain
from titans_ts.windows import Array

_LEAST_SEASONS = 8  # of training rows, for a season to be more than chance
_MOST_SLOTS = 400  # of a season that does not divide into patches
_MOST_WINDOWS = 40_000  # of a channel that teach or judge
_ALL_WINDOWS = 400_000  # of all channels together
_AT_ONCE = 4096
_SCORED_NUMBERS = 20_000_000  # of validation windows that decide on the gate


class Recollected:
    """A recollection at origins of channels, whose memories have read each from its start."""

    def __init__(self, recollection: Recollection, reads: SeasonReads) -> None:
        self.recollection, self.reads = recollection, reads

    def correct(self, ahead: Array, context: Array, origins: np.ndarray) -> Array:
        """Draw forecasts toward what was remembered there; not where it was too early to ask."""
        channels = self.reads.channels
        channel = channels.of(origins)
        needed = rows_before(self.recollection.memory, context.shape[1])
        asked = origins - channels.starts[channel] >= needed
        answer = ahead.copy()
        answer[asked] = self.recollection.correct(
            ahead[asked], context[asked], self.reads.at(origins[asked]), channel[asked]
        )
        return answer


@dataclass
class _Moments:
    """Second moments of features and targets, sums over windows."""

    gram: Array
    cross: Array
    power: float
    windows: int

    def times(self, factor: float) -> _Moments:
        """Every window counting so much."""
        return _Moments(factor * self.gram, factor * self.cross, factor * self.power, self.windows)

    def error(self, weights: Array) -> float:
        """Mean squared error of weights ``(F, P)``, up to what does not depend on them."""
        found = np.sum((self.gram @ weights - 2 * self.cross) * weights) + self.power
        return float(found / max(self.windows, 1) / weights.shape[1])


def fit_recollection(
    channels: Channels,
    linear: LinearPart,
    season: int,
    added: Callable[[np.ndarray], Array] | None,
) -> Recollected | None:
    """Learn on training windows, choose on validation; None where validation does not back it.

    Parameters
    ----------
    channels : Channels
    linear : LinearPart
        As fitted on the training rows.
    season : int
        Rows of a season; 1 if there is none.
    added : callable, optional
        What is added to the linear forecast at origins ``(n,)``: ``(n, P)``.
    """
    memory = SeasonalMemory(season)
    trained = (channels.trained - channels.starts[:-1]).max()
    if season < 2 or memory.slots > _MOST_SLOTS or trained < _LEAST_SEASONS * season:
        return None
    before, after = rows_before(memory, linear.context_length), linear.prediction_length
    train = _enough(channels, channels.training_origins(linear.context_length, after), before)
    held_out = _enough(channels, channels.validation_origins(linear.context_length, after), before)
    rows = min(linear.context_length, WINDOW_ROWS)
    if len(train) < rows + memory.reads or not len(held_out):
        return None
    reads = SeasonReads(memory, channels)
    own = 1 < len(channels) <= MOST_OWN_MATRICES
    taught = _all_moments(reads, linear, rows, train, own=own)
    judged = _all_moments(reads, linear, rows, held_out, own=own, weigh=True)
    penalties = [_search(_sum(taught), _sum(judged), 0.0)]
    if own:
        shared = _solve(_sum(taught), penalties[0], 0.0)
        penalties += [_search(*each, shared) for each in zip(taught, judged, strict=True)]
    weights = _weights(taught, np.array(penalties))
    found = Recollection(memory, weights, np.ones(1), np.array(penalties), rows)
    return _admit(found, reads, linear, held_out, added)


def refit_recollection(found: Recollected, linear: LinearPart) -> Recollection:
    """Fit again on all rows of the channels with what was chosen before."""
    recollection, channels = found.recollection, found.reads.channels
    whole = Channels(channels.values, channels.known, channels.starts, channels.starts[1:])
    before = rows_before(recollection.memory, linear.context_length)
    origins = whole.training_origins(linear.context_length, linear.prediction_length)
    own = len(recollection.penalties) > 1
    taught = _all_moments(
        found.reads, linear, recollection.rows, _enough(whole, origins, before), own=own
    )
    return replace(recollection, weights=_weights(taught, recollection.penalties))


def _admit(
    found: Recollection,
    reads: SeasonReads,
    linear: LinearPart,
    held_out: np.ndarray,
    added: Callable[[np.ndarray], Array] | None,
) -> Recollected | None:
    """Gate what is recollected by how it does on validation windows."""
    channels = reads.channels
    before, after = linear.context_length, linear.prediction_length
    origins = thin(held_out, _SCORED_NUMBERS // (before + after + found.weights.shape[1]))
    context, target = channels.windows(origins, before, after)
    channel = channels.of(origins)
    ahead = linear.predict(context, channel)
    if added is not None:
        ahead = ahead + added(origins)
    error = target - ahead
    correction = found.correct(ahead, context, reads.at(origins), channel) - ahead
    groups = [np.arange(len(channel))]
    if len(found.weights) > 1:
        groups = channel_groups(channel, len(channels))
    middle = (channels.trained + channels.starts[1:]) / 2
    windows = (channels.starts[1:] - channels.trained).max() / after
    late = origins >= middle[channel]
    # The mean of two forecasts of equal standing, where validation is too short to tell.
    gate = least_squares_gate(error, correction, groups, late, windows, prior=0.5)
    admitted = replace(found, gate=gate)
    rest = target - admitted.correct(ahead, context, reads.at(origins), channel)
    if not validation_gain(channels, origins, mean_squares(error), mean_squares(rest)):
        return None
    return Recollected(admitted, reads)


def _enough(channels: Channels, origins: np.ndarray, before: int) -> np.ndarray:
    return origins[origins - channels.starts[channels.of(origins)] >= before]


def _by_channel(channels: Channels, origins: np.ndarray) -> list[np.ndarray]:
    """Origins of each channel, thinned to what is affordable."""
    most = min(_MOST_WINDOWS, max(_ALL_WINDOWS // len(channels), 1))
    edges = np.searchsorted(origins, channels.starts)
    return [thin(origins[a:b], most) for a, b in pairwise(edges)]


def _all_moments(
    reads: SeasonReads,
    linear: LinearPart,
    rows: int,
    origins: np.ndarray,
    *,
    own: bool,
    weigh: bool = False,
) -> list[_Moments]:
    """Of each channel, or of all together; weighed, so that none that breaks out decides alone."""
    found = (_moments(reads, linear, rows, mine) for mine in _by_channel(reads.channels, origins))
    if weigh:
        found = (each.times(1 / max(each.error(np.zeros_like(each.cross)), 1.0)) for each in found)
    return list(found) if own else [_sum(found)]


def _moments(reads: SeasonReads, linear: LinearPart, rows: int, origins: np.ndarray) -> _Moments:
    """Of one channel. A target that is missing is taken as the linear part forecasts it."""
    channels, after = reads.channels, linear.prediction_length
    width = rows + reads.memory.reads
    total = _Moments(np.zeros((width, width)), np.zeros((width, after)), 0.0, 0)
    for some in np.array_split(origins, -(-len(origins) // _AT_ONCE)) if len(origins) else []:
        context, target = channels.windows(some, rows, after)
        gaps = np.isnan(target).any(axis=1)
        if gaps.any():
            whole, _ = channels.windows(some[gaps], linear.context_length, after)
            filled = linear.predict(whole, channels.of(some[gaps]))
            target = target.copy()
            target[gaps] = np.where(np.isnan(target[gaps]), filled, target[gaps])
        x, level = features(context, reads.at(some))
        y = target - level
        near = (np.abs(x).max(axis=1) < FARTHEST) & (np.abs(y).max(axis=1) < FARTHEST)
        x, y = x[near], y[near]
        total.gram += x.T @ x
        total.cross += x.T @ y
        total.power += float(np.sum(np.square(y)))
        total.windows += len(x)
    return total


def _sum(moments: Iterable[_Moments]) -> _Moments:
    rest = iter(moments)
    total = next(rest).times(1.0)
    for each in rest:
        total.gram += each.gram
        total.cross += each.cross
        total.power += each.power
        total.windows += each.windows
    return total


def _solve(moments: _Moments, penalty: float, toward: Array | float) -> Array:
    """``argmin |Y - X W|^2 + penalty |W - toward|^2``, the penalty in mean eigenvalues."""
    start = np.broadcast_to(np.asarray(toward, dtype=float), moments.cross.shape)
    unit = np.trace(moments.gram) / len(moments.gram)
    if not unit > 0:
        return start
    gram = moments.gram + penalty * unit * np.eye(len(moments.gram))
    return np.asarray(start + np.linalg.solve(gram, moments.cross - moments.gram @ start))


def _search(taught: _Moments, judged: _Moments, toward: Array | float) -> float:
    """The penalty of least validation error."""
    losses = {p: judged.error(_solve(taught, p, toward)) for p in PENALTY_GRID}
    return min(losses, key=losses.__getitem__)


def _weights(taught: list[_Moments], penalties: Array) -> Array:
    """Shared ``(1, F, P)``, or of each channel ``(K, F, P)``."""
    shared = _solve(_sum(taught), penalties[0], 0.0)
    if len(penalties) == 1:
        return shared[None]
    own = zip(taught, penalties[1:], strict=True)
    return np.stack([_solve(moments, penalty, shared) for moments, penalty in own])
