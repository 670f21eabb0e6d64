"""Whether intervals have held what they should since the fit: widths follow.

Validation says how far off forecasts are, and a stream may have drifted from that, too. Once in P
rows an interval that should hold 80 % is noted. When its rows have come, all widths grow by the
share that lay outside beyond the 20 % due, or shrink by what was lacking: adaptive conformal
inference, on the logarithm of the width. In the long run 80 % lie inside, however errors drift.

Notes
-----
Gibbs and Candès (2021), Adaptive conformal inference under distribution shift.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from titans_ts.windows import Array

COVERAGE = 0.8  # of the interval that is noted
_STEP = 0.2  # of the logarithm, for a window that lies outside beyond what is due
_LEAST_ROWS = 24  # that count as a window: of fewer the errors are one event
_FARTHEST = 2.0  # that the logarithm may go


@dataclass(frozen=True)
class Widths:
    """What widths are multiplied by, and the interval that is open until the rows come that tell.

    Parameters
    ----------
    logarithm : ndarray of shape (K,)
        Of the factor of each channel.
    position : int
        Of the stream when the interval was noted; -1 if none is open.
    point, half : ndarray of shape (K, P)
        Its centre and half its width, NaN where nothing is vouched for; of shape (K, 0) if none is
        open.
    """

    logarithm: Array
    position: int
    point: Array
    half: Array

    @classmethod
    def nothing(cls, channels: int) -> Widths:
        """As validation has them."""
        none = np.zeros((channels, 0))
        return cls(np.zeros(channels), -1, none, none)

    @property
    def factor(self) -> Array:
        """What widths are multiplied by in each channel ``(K,)``."""
        return np.asarray(np.exp(self.logarithm))

    def note(self, position: int, point: Array, half: Array) -> Widths:
        """With an interval that is open from here on."""
        return replace(self, position=position, point=point, half=half)

    def told(self, truth: Array) -> Widths:
        """Once the rows ``(K, P)`` have come, NaN where they are missing: they teach nothing."""
        known = ~np.isnan(truth) & ~np.isnan(self.half)
        outside = (known & (np.abs(truth - self.point) > self.half)).sum(axis=1)
        missed = outside / known.sum(axis=1).clip(1) - (1 - COVERAGE)
        step = _STEP * min(1.0, truth.shape[1] / _LEAST_ROWS) * known.any(axis=1)
        logarithm = (self.logarithm + step * missed).clip(-_FARTHEST, _FARTHEST)
        return replace(Widths.nothing(len(truth)), logarithm=logarithm)
