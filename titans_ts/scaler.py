"""Z-scores of one series, or of its logarithms, by its training rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from titans_ts.windows import Array

# Of the channel's standard deviation: what lies further out cannot be squared safely any more.
# (What lies further out than `moments.FARTHEST` is seen, but not learned.)
LARGEST = 1e50
# Logarithms are taken down to this share of the smallest training value, of the median: what lies
# below, zero and negative values among it, counts as no less.
_FLOORS = (0.1, 1e-3)
# A channel that stays within such a factor is much the same straight line in logarithms.
_LEAST_RANGE = 2.0
LARGEST_LOG = 700.0  # whose exponential is still a number


@dataclass(frozen=True)
class Scaler:
    """Z-scores by the known training rows, of the channels that are learned.

    Parameters
    ----------
    learned : boolean ndarray of shape (C,)
        False for channels that were constant: they are forecast to stay at their last value, and
        nothing is learned from them. (Of an entirely constant series the first one is kept.)
    level, scale : ndarray of shape (C',)
        Mean and standard deviation of the learned channels, or of their logarithms.
    floor : ndarray of shape (C',)
        What a channel counts as at least, if its logarithms are learned; else 0.
    future_level, past_level : ndarray of shape (Kf,) and (Kp,)
        Levels of the series' covariates that are taken relative to them (`relative.py`), 0 of the
        others; empty without any.
    """

    learned: np.ndarray
    level: Array
    scale: Array
    floor: Array
    future_level: Array = field(default_factory=lambda: np.empty(0))
    past_level: Array = field(default_factory=lambda: np.empty(0))

    @classmethod
    def fit(cls, y: Array, log: np.ndarray | None = None) -> Scaler:
        """Learn from training rows ``(T, C)``, NaN where a value is missing.

        ``log`` (C,) says of which channels the logarithms are taken; their values are positive.

        Raises
        ------
        ValueError
            A channel's values are so large that their squares overflow.
        """
        floor = np.zeros(y.shape[1])
        if log is not None and log.any():
            positive = np.where(y[:, log] > 0, y[:, log], np.nan)
            lowest, middle = np.nanmin(positive, axis=0), np.nanmedian(positive, axis=0)
            floor[log] = np.maximum(_FLOORS[0] * lowest, _FLOORS[1] * middle)
        y = _logarithms(y, floor)
        known = ~np.isnan(y)
        count = known.sum(axis=0)
        values = np.where(known, y, 0.0)
        with np.errstate(over="ignore", invalid="ignore"):
            level = values.sum(axis=0) / count.clip(1)
            deviations = np.where(known, y - level, 0.0)
            scale = np.sqrt(np.square(deviations).sum(axis=0) / count.clip(1))
        largest = np.abs(values).max(axis=0)
        overflown = np.flatnonzero(~np.isfinite(scale))
        if len(overflown):
            raise ValueError(
                f"channel {overflown[0]} holds values too large to be squared in float64 (up to "
                f"{largest[overflown[0]]:.3g}); divide it by a power of ten."
            )
        # Neither rounding errors nor a spread whose square underflows are variation.
        lowest, highest = (np.where(known, y, end) for end in (np.inf, -np.inf))
        spread = np.where(count, highest.max(axis=0) - np.where(count, lowest.min(axis=0), 0), 0.0)
        varies = (spread > 1e-12 * largest) & (scale > 1e-150)
        learned = varies if varies.any() else np.arange(len(varies)) == 0
        return cls(learned, level[learned], np.where(varies, scale, 1.0)[learned], floor[learned])

    def check(self, y: Array, name: str) -> None:
        """Refuse rows so far out that nothing could be computed from them any more.

        Raises
        ------
        ValueError
            Naming the first row and channel.
        """
        with np.errstate(over="ignore"):
            far = np.argwhere(np.abs(self.apply(y)) >= LARGEST)  # missing values are not far
        if len(far):
            row, channel = far[0][0], np.flatnonzero(self.learned)[far[0][1]]
            raise ValueError(
                f"{name} holds {y[row, channel]:.3g} at row {row} of channel {channel}, more than "
                f"{LARGEST:g} standard deviations of the training rows; correct or drop it."
            )

    def apply(self, y: Array) -> Array:
        """Original units to z-scores: ``(..., C) -> (..., C')``."""
        return (_logarithms(y[..., self.learned], self.floor) - self.level) / self.scale

    def relative_future(self, rows: Array) -> Array:
        """Future covariates ``(..., Kf)``, some as shares of their level less 1."""
        return _relative(rows, self.future_level)

    def relative_past(self, rows: Array) -> Array:
        """The same of past ones."""
        return _relative(rows, self.past_level)

    def undo(self, z: Array, last: Array) -> Array:
        """Z-scores ``(..., C')`` to original units ``(..., C)``; ``last`` (C,) fills the others."""
        y = np.broadcast_to(last, (*z.shape[:-1], len(last))).copy()
        y[..., self.learned] = self.undo_learned(z)
        return y

    def undo_learned(self, z: Array) -> Array:
        """The same of the learned channels alone: ``(..., C') -> (..., C')``."""
        x = np.asarray(z * self.scale + self.level)
        if self.floor.any():
            log = self.floor > 0
            x[..., log] = np.exp(np.minimum(x[..., log], LARGEST_LOG))
        return x


def borrow_scale(scaler: Scaler, rows: Array, others: Sequence[Scaler]) -> Scaler:
    """The scaler of rows ``(T, C)``: what has a single one gets the typical scale of the others.

    Typical is the median: of the share of the level, or of logarithms as it is.
    """
    single = (~np.isnan(rows[:, scaler.learned])).sum(axis=0) == 1
    if not single.any() or not others:
        return scaler
    level, scale, floor = (
        np.concatenate([getattr(other, name) for other in others])
        for name in ("level", "scale", "floor")
    )
    told = scale != 1  # which stands for none
    plain = told & (floor == 0) & (level != 0)
    found = scale[plain] / np.abs(level[plain]), scale[told & (floor > 0)]
    share, log = (np.median(x) if len(x) else 0.0 for x in found)
    typical = np.where(scaler.floor > 0, log, share * np.abs(scaler.level))
    return replace(scaler, scale=np.where(single & (typical > 0), typical, scaler.scale))


def suits_log(y: Array) -> np.ndarray:
    """Which channels of rows ``(T, C)`` are positive throughout, ``(C,)``."""
    known = ~np.isnan(y)
    return np.asarray(known.any(axis=0) & ((y > 0) | ~known).all(axis=0))


def may_gain_by_log(y: Array, ahead: int) -> np.ndarray:
    """Which of them also change by shares of their level rather than by amounts, ``(C,)``.

    Told by changes over so many rows ``ahead``, normal in either domain: Box and Cox's criterion.
    """
    may = suits_log(y)
    for c in np.flatnonzero(may):
        column = y[:, c]
        log = np.log(column)
        amounts, shares = column[ahead:] - column[:-ahead], log[ahead:] - log[:-ahead]
        known = ~np.isnan(amounts)
        wide = np.nanmax(column) >= _LEAST_RANGE * np.nanmin(column)
        may[c] = wide and known.any()
        if may[c]:
            level = np.exp(log[ahead:][known].mean())
            may[c] = level * shares[known].std() < amounts[known].std()
    return may


def _relative(rows: Array, level: Array) -> Array:
    if not level.any():
        return rows
    return np.asarray(np.where(level > 0, rows / np.where(level > 0, level, 1.0) - 1, rows))


def _logarithms(y: Array, floor: Array) -> Array:
    """Rows ``(..., C)`` with the logarithms of the channels that have a floor."""
    if not floor.any():
        return y
    log, y = floor > 0, y.copy()
    y[..., log] = np.log(np.maximum(y[..., log], floor[log]))
    return y
