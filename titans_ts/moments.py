"""Second moments of all windows of a channel: all that least squares needs of them.

Windows that slide row by row share almost all products. With ``n`` rows a window and
``M[i, j] = sum over windows of w_i w_j``, the next entry along a diagonal differs by two products::

    M[i + 1, j + 1] = M[i, j] - y[i] y[j] + y[i + m] y[j + m]          (m windows)

so that all entries cost ``O(T n + n^2)`` instead of ``O(T n^2)``, and no window is ever copied; but
for those that must not count, which are taken off again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from titans_ts.channels import LEAST_KNOWN, Channels
from titans_ts.windows import Array, sliding_windows

# Of a channel's standard deviation: squares of what lies further out leave no digits of anything
# else in the moments. Windows that hold such a value are passed over.
FARTHEST = 1e6
# Squares of what lies further out leave too few digits where they are taken off again.
_LARGE = 1e3
_LONG = 100_000  # rows from which lagged products are taken by FFT
_BLOCK = 2048  # windows gathered at a time, where they must be
_MOST_KEPT = 2**28  # bytes of moments that are kept for who asks again


def sliding_products(x: Array, y: Array, rows: int, columns: int, windows: int) -> Array:
    """``M[i, j] = sum over t < windows of x[t + i] y[t + j]``, for i < rows and j < columns.

    ``x`` needs ``windows + rows - 1`` entries, ``y`` ``windows + columns - 1``.

    Examples
    --------
    >>> y = np.array([1.0, 2.0, 3.0])
    >>> sliding_products(y, y, 2, 2, 2)
    array([[ 5.,  8.],
           [ 8., 13.]])
    """
    steps = np.empty((rows, columns))
    steps[0] = _correlate(y[: windows + columns - 1], x[:windows])
    steps[:, 0] = _correlate(x[: windows + rows - 1], y[:windows])
    i, j = slice(rows - 1), slice(columns - 1)
    steps[1:, 1:] = np.outer(x[windows:][i], y[windows:][j]) - np.outer(x[i], y[j])
    for lag in range(1 - rows, columns):
        length = min(rows, columns - lag) - max(0, -lag)
        along = max(0, -lag) + np.arange(length)
        steps[along, along + lag] = np.cumsum(steps[along, along + lag])
    return steps


def _correlate(y: Array, x: Array) -> Array:
    """``sum over t of y[k + t] x[t]`` for every lag k at which x lies within y."""
    if len(x) < _LONG:
        return np.correlate(y, x, mode="valid")
    from scipy.fft import irfft, next_fast_len, rfft  # not at the top: importing this is cheap

    size = next_fast_len(len(y), real=True)
    return np.asarray(irfft(rfft(y, size) * rfft(x, size).conj(), size)[: len(y) - len(x) + 1])


def channel_moments(
    channels: Channels, before: int, after: int, first: int, last: int
) -> tuple[Array, int]:
    """Moments of one channel's windows with origins from ``first`` to ``last``, and their number.

    A window is ``before`` rows of context, ``after`` of target. Those not known enough, or with a
    value further out than ``FARTHEST``, are left out. A missing value of a context is the last one
    known before, of a target it lies on the line between its neighbours.

    Returns
    -------
    ndarray of shape (before + after, before + after), int
    """
    n, windows = before + after, last - first + 1
    if windows <= 0:
        return np.zeros((n, n)), 0
    x, y, useful = _window_rows(channels, before, after, first, last)
    if useful.sum() < windows / 2 or max(np.abs(x).max(), np.abs(y).max()) > _LARGE:
        return _gathered(x, y, before, after, np.flatnonzero(useful)), int(useful.sum())
    moments = np.empty((n, n))
    moments[:before, :before] = sliding_products(x, x, before, before, windows)
    moments[:before, before:] = sliding_products(x, y[before:], before, after, windows)
    moments[before:, before:] = sliding_products(y[before:], y[before:], after, after, windows)
    moments[before:, :before] = moments[:before, before:].T
    left_out = np.flatnonzero(~useful)
    return moments - _gathered(x, y, before, after, left_out), int(useful.sum())


def channel_means(channels: Channels, before: int, after: int, first: int, last: int) -> Array:
    """The mean of the windows that `channel_moments` is of, ``(before + after,)``."""
    if last < first:
        return np.zeros(before + after)
    x, y, useful = _window_rows(channels, before, after, first, last)
    weight = useful / max(useful.sum(), 1)
    context = _correlate(x[: len(weight) + before - 1], weight)
    return np.concatenate([context, _correlate(y[before:], weight)])


def _window_rows(
    channels: Channels, before: int, after: int, first: int, last: int
) -> tuple[Array, Array, np.ndarray]:
    """Rows of contexts and of targets, and which windows on them count."""
    n, windows = before + after, last - first + 1
    rows = slice(first - before, last + after)
    x, known = channels.values[rows], channels.known[rows]
    y = x
    if not known.all() and known.any():
        position = np.arange(len(x))
        y = np.interp(position, position[known], x[known])
    far_x, far_y = np.abs(x) >= FARTHEST, np.abs(y) >= FARTHEST

    starts = np.arange(windows)
    context, target = (starts, starts + before), (starts + before, starts + n)
    useful = _count(known, *context) >= LEAST_KNOWN * before
    useful &= _count(known, *target) >= LEAST_KNOWN * after
    useful &= (_count(far_x, *context) == 0) & (_count(far_y, *target) == 0)
    # What is left out must not overflow.
    return np.where(far_x, 0.0, x), np.where(far_y, 0.0, y), useful


def _count(where: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """How many are true from each ``first`` to before each ``last``."""
    total = np.concatenate([[0], np.cumsum(where)])
    return total[last] - total[first]


def _gathered(x: Array, y: Array, before: int, after: int, starts: np.ndarray) -> Array:
    """Moments of the windows that start at these rows: contexts of x, targets of y."""
    moments = np.zeros((before + after, before + after))
    for block in np.array_split(starts, -(-len(starts) // _BLOCK) or 1):
        context = sliding_windows(x[:, None], before)[block, 0]
        target = sliding_windows(y[:, None], after)[block + before, 0]
        window = np.hstack([context, target])
        moments += window.T @ window
    return moments


def training_moments(channels: Channels, k: int, before: int, after: int) -> tuple[Array, int]:
    """Moments of the windows of channel k's training part, and their number.

    They are kept with the channels, as far as they fit, for who asks again: they are read-only.
    """
    kept, key = channels.kept, (k, before, after)
    if key in kept:
        return kept[key]
    first, last = channels.starts[k] + before, channels.trained[k] - after
    moments, count = channel_moments(channels, before, after, int(first), int(last))
    moments.flags.writeable = False
    if sum(each.nbytes for each, _ in kept.values()) + moments.nbytes <= _MOST_KEPT:
        kept[key] = moments, count
    return moments, count


def validation_moments(
    channels: Channels, k: int, before: int, after: int, half: int | None = None
) -> tuple[Array, int]:
    """Mean moments of the windows of channel k's validation part, and the windows' number.

    Of one half (0 or 1) of it, if that is given.
    """
    span = validation_span(channels, k, before, after, half)
    moments, count = channel_moments(channels, before, after, *span)
    return np.asarray(moments / max(count, 1)), count


def validation_span(
    channels: Channels, k: int, before: int, after: int, half: int | None = None
) -> tuple[int, int]:
    """First and last origin of the validation windows of channel k, or of one half of them."""
    first = int(max(channels.trained[k], channels.starts[k] + before))
    last = int(channels.starts[k + 1] - after)
    if half is None:
        return first, last
    middle = (first + last) // 2
    return (first, middle) if half == 0 else (middle + 1, last)


@dataclass(frozen=True)
class Quadratic:
    """Mean squared error over windows as a function of the matrix, from their mean moments."""

    moments: Array
    prediction_length: int

    def of(self, weights: Array) -> float:
        """Error of ``level + (x - level) W`` by the last rows of the context; W is ``(l, P)``."""
        return self.of_map(weights + (1 - weights.sum(axis=0)) / len(weights))

    def of_map(self, matrix: Array) -> float:
        """Error of ``x A`` by the last rows of the context; A is ``(l, P)``."""
        end = len(self.moments) - self.prediction_length
        rows = slice(end - len(matrix), end)
        inner = self.moments[rows, rows] @ matrix - 2 * self.moments[rows, end:]
        power = np.trace(self.moments[end:, end:])
        return float((np.sum(inner * matrix) + power) / self.prediction_length)
