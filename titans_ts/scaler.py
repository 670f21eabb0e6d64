"""Z-scores of one series by its training rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from titans_ts.windows import Array

# Of the channel's standard deviation: what lies further out cannot be squared safely any more.
# (What lies further out than `moments.FARTHEST` is seen, but not learned.)
LARGEST = 1e50


@dataclass(frozen=True)
class Scaler:
    """Z-scores by the known training rows, of the channels that are learned.

    Parameters
    ----------
    learned : boolean ndarray of shape (C,)
        False for channels that were constant: they are forecast to stay at their last value, and
        nothing is learned from them. (Of an entirely constant series the first one is kept.)
    level, scale : ndarray of shape (C',)
        Mean and standard deviation of the learned channels.
    """

    learned: np.ndarray
    level: Array
    scale: Array

    @classmethod
    def fit(cls, y: Array) -> Scaler:
        """Learn from training rows ``(T, C)``, NaN where a value is missing.

        Raises
        ------
        ValueError
            A channel's values are so large that their squares overflow.
        """
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
        return cls(learned, level[learned], np.where(varies, scale, 1.0)[learned])

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
        return (y[..., self.learned] - self.level) / self.scale

    def undo(self, z: Array, last: Array) -> Array:
        """Z-scores ``(..., C')`` to original units ``(..., C)``; ``last`` (C,) fills the others."""
        y = np.broadcast_to(last, (*z.shape[:-1], len(last))).copy()
        y[..., self.learned] = z * self.scale + self.level
        return y
