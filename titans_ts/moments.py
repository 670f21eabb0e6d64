"""Second moments of all windows of a channel: all that least squares needs of them.

Windows that slide row by row share almost all products. With ``n`` rows a window and
``M[i, j] = sum over windows of w_i w_j``, the next entry along a diagonal differs by two products::

    M[i + 1, j + 1] = M[i, j] - y[i] y[j] + y[i + m] y[j + m]          (m windows)

so that all entries cost ``O(T n + n^2)`` instead of ``O(T n^2)``, and no window is ever copied.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from titans_ts.channels import LEAST_KNOWN, Channels
from titans_ts.windows import Array, sliding_windows

# Of a channel's standard deviation: squares of what lies further out leave no digits of anything
# else in the moments. Windows that hold such a value are passed over.
FARTHEST = 1e6
_BLOCK = 2048  # windows gathered at a time, where they must be
_MOST_WINDOWS = 100_000  # of a channel with missing values: so many, evenly spread, are enough


def window_moments(y: Array, n: int) -> Array:
    """Sum of ``w w^T`` over every window w of n rows of y ``(T,)``: ``(n, n)``; zeros if none.

    Examples
    --------
    >>> window_moments(np.array([1.0, 2.0, 3.0]), 2)
    array([[ 5.,  8.],
           [ 8., 13.]])
    """
    m = len(y) - n + 1
    if m <= 0:
        return np.zeros((n, n))
    # First row: lag k's products over the first m rows; then down each diagonal.
    steps = np.zeros((n, n))
    steps[0] = np.correlate(y, y[:m], mode="valid")
    entering, leaving = y[m:], y[: n - 1]  # y[i + m] and y[i] for i < n - 1
    steps[1:, 1:] = np.outer(entering, entering) - np.outer(leaving, leaving)
    moments = np.empty((n, n))
    for lag in range(n):
        diagonal = np.cumsum(np.diagonal(steps, lag))
        rows = np.arange(n - lag)
        moments[rows, rows + lag] = moments[rows + lag, rows] = diagonal
    return moments


def channel_moments(
    channels: Channels, before: int, after: int, first: int, last: int
) -> tuple[Array, int]:
    """Moments of one channel's windows with origins from ``first`` to ``last``, and their number.

    A window is ``before`` rows of context and ``after`` of target. Without missing or far values
    every window counts. Else windows that are not known enough, or hold a far value, are left out;
    a missing value of a context is the last known one, of a target the line between its neighbours.

    Returns
    -------
    ndarray of shape (before + after, before + after), int
    """
    n = before + after
    if last < first:
        return np.zeros((n, n)), 0
    rows = slice(first - before, last + after)
    y, known = channels.values[rows], channels.known[rows]
    near = np.abs(y) < FARTHEST
    if known.all() and near.all():
        return window_moments(y, n), last - first + 1

    count = np.concatenate([[0], np.cumsum(known)])
    far = np.concatenate([[0], np.cumsum(~near)])
    starts = np.arange(len(y) - n + 1)
    useful = count[starts + before] - count[starts] >= LEAST_KNOWN * before
    useful &= count[starts + n] - count[starts + before] >= LEAST_KNOWN * after
    starts = starts[useful & (far[starts + n] == far[starts])]
    weight = 1.0
    if len(starts) > _MOST_WINDOWS:
        weight = len(starts) / _MOST_WINDOWS
        starts = starts[np.linspace(0, len(starts) - 1, _MOST_WINDOWS).astype(int)]
    position = np.arange(len(y))
    between = np.interp(position, position[known], y[known]) if known.any() else y
    moments = np.zeros((n, n))
    for start in range(0, len(starts), _BLOCK):
        block = starts[start : start + _BLOCK]
        context = sliding_windows(y[:, None], before)[block, 0]
        target = sliding_windows(between[:, None], after)[block + before, 0]
        window = np.hstack([context, target])
        moments += window.T @ window
    return weight * moments, round(weight * len(starts))


def training_moments(channels: Channels, k: int, before: int, after: int) -> tuple[Array, int]:
    """Moments of the windows of channel k's training part, and their number."""
    first, last = channels.starts[k] + before, channels.trained[k] - after
    return channel_moments(channels, before, after, int(first), int(last))


def validation_moments(
    channels: Channels, k: int, before: int, after: int, half: int | None = None
) -> tuple[Array, int]:
    """Mean moments of the windows of channel k's validation part, and the windows' number.

    Of one half (0 or 1) of it, if that is given.
    """
    first = int(max(channels.trained[k], channels.starts[k] + before))
    last = int(channels.starts[k + 1] - after)
    if half is not None:
        middle = (first + last) // 2
        first, last = (first, middle) if half == 0 else (middle + 1, last)
    moments, count = channel_moments(channels, before, after, first, last)
    return np.asarray(moments / max(count, 1)), count


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
