"""Forecast from the last rows and from what the seasonal memory holds of all rows before them.

A ridge on both, ``level + [window - level, memory - level] W``, closed form. What it says enters a
forecast as far as validation backs it, channel by channel: ``ahead + gate (recollected - ahead)``.
Only a memory that goes on along its series takes part, never a window by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from titans_ts.seasonal_memory import SeasonalMemory
from titans_ts.windows import Array, centre

WINDOW_ROWS = 96  # of the window that stand beside the memory, at most
_SEASONS = 4  # that the memory must have seen before the window, to be asked


@dataclass(frozen=True)
class Recollection:
    """Weights of what is remembered, and how far they are trusted.

    Parameters
    ----------
    memory : SeasonalMemory
    weights : ndarray of shape (K, F, P) or (1, F, P)
        Of each channel, or shared: rows of the window, then what the memory reads.
    gate : ndarray of shape (K,) or (1,)
        In [0, 1].
    penalties : ndarray of shape (1 + K,) or (1,)
        Of the ridge shared by all channels, then of each one's own; to fit it again.
    rows : int
        Of the window.
    """

    memory: SeasonalMemory
    weights: Array
    gate: Array
    penalties: Array
    rows: int

    def correct(self, ahead: Array, context: Array, reads: Array, channel: np.ndarray) -> Array:
        """Draw forecasts ``(n, P)`` of windows ``(n, L)`` toward what is remembered.

        Parameters
        ----------
        ahead, context : ndarray
        reads : ndarray of shape (n, R)
            Of the memory at these origins.
        channel : int ndarray of shape (n,)
            -1 for one that was not fitted: it has the mean of all weights.
        """
        answer = ahead.copy()
        x, level = features(context[:, -self.rows :], reads)
        for k in np.unique(channel):
            mine = channel == k
            gate, weights = (_of_channel(each, k) for each in (self.gate, self.weights))
            if gate:
                recollected = level[mine] + x[mine] @ weights
                answer[mine] += gate * (recollected - ahead[mine])
        return answer


def _of_channel(values: Array, k: int) -> Array:
    """What belongs to a channel, if each has its own; of one that was not fitted the mean."""
    return np.asarray(values[k] if k >= 0 and len(values) > 1 else values.mean(axis=0))


def rows_before(memory: SeasonalMemory, context_length: int) -> int:
    """Rows that a series needs before an origin for the memory to be asked there."""
    return context_length + _SEASONS * memory.season


def features(window: Array, reads: Array) -> tuple[Array, Array]:
    """Last rows and reads ``(n, F)``, less the rows' level ``(n, 1)``; what is unknown is 0."""
    x, level = centre(window)
    return np.concatenate([x, np.nan_to_num(reads - level)], axis=1), level
