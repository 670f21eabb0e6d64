"""How much further off a forecast is that knows fewer rows than the look-back.

Validation windows are cut to their last rows and treated as a series of so few rows is: scaled by
these alone, and padded in front. What that makes of the errors widens the intervals of short
series, and of channels that have only begun. A single row has no scale: it borrows that of others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from titans_ts.channels import Channels
from titans_ts.linear import LinearPart
from titans_ts.validation_gain import thin
from titans_ts.windows import Array, PatchClock, normalise

_WINDOWS = 1024  # validation windows that are cut
_QUANTILE = 0.9  # of the absolute errors that are compared: outer levels matter most


@dataclass(frozen=True)
class Shortness:
    """Errors of cut windows as multiples of those of whole ones, in window scales.

    Parameters
    ----------
    rows : ndarray of shape (G,)
        Rows left, ascending; the last is the look-back.
    growth : ndarray of shape (G, P)
        At each step ahead; from two rows on it never rises with their number, and ends at 1. A
        single row has another scale.
    """

    rows: Array
    growth: Array

    @classmethod
    def fit(cls, channels: Channels, linear: LinearPart, clock: PatchClock) -> Shortness:
        """Cut validation windows to 1, 2, 4, ... rows; ``linear`` has not learned from them."""
        length, ahead = linear.context_length, linear.prediction_length
        origins = thin(channels.validation_origins(length, ahead), _WINDOWS)
        cuts = [2**i for i in range(length.bit_length()) if 2**i < length]
        growth = np.ones((len(cuts) + 1, ahead))
        if len(origins):
            context, target = channels.windows(origins, length, ahead)
            whole = _typical(context, target, linear, channels.of(origins), clock)
            unknown = np.full(len(origins), -1)
            for i, rows in enumerate(cuts):
                cut = context[:, -rows:]
                level, scale = cut.mean(axis=1, keepdims=True), cut.std(axis=1, keepdims=True)
                scale = scale if rows > 1 else np.ones_like(scale)
                varies = scale[:, 0] > 0
                z, y = ((x - level)[varies] / scale[varies] for x in (cut, target))
                z = np.pad(z, ((0, 0), (length - rows, 0)), mode="edge")
                if len(z):
                    with np.errstate(divide="ignore", invalid="ignore"):  # no error, no width
                        growth[i] = _typical(z, y, linear, unknown[varies], clock) / whole
        growth = np.where(np.isfinite(growth), growth, 1.0)
        growth[1:] = np.maximum.accumulate(growth[:0:-1], axis=0)[::-1]
        return cls(np.array([*cuts, length], float), growth.clip(1))

    def of(self, rows: np.ndarray) -> Array:
        """What windows ``(K,)`` of so many rows multiply their widths by, ``(K, P)``."""
        found = np.log2(rows.clip(1))
        known = np.log2(self.rows)
        return np.stack([np.interp(found, known, step) for step in self.growth.T], axis=1)


def _typical(
    context: Array, target: Array, linear: LinearPart, channel: np.ndarray, clock: PatchClock
) -> Array:
    """A high quantile of the absolute errors, in window scales, of each step ``(P,)``."""
    _, scale = normalise(context[:, -clock.context_length :])
    errors = np.abs(target - linear.predict(context, channel)) / scale
    known = np.where(np.isnan(errors).all(axis=0), 0.0, errors)
    return np.asarray(np.nanquantile(known, _QUANTILE, axis=0))
