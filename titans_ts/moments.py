"""Second moments of all windows of a channel: all that least squares needs of them.

Windows that slide row by row share almost all products. With ``n`` rows a window and
``M[i, j] = sum over windows of w_i w_j``, the next entry along a diagonal differs by two products::

    M[i + 1, j + 1] = M[i, j] - y[i] y[j] + y[i + m] y[j + m]          (m windows)

so that all entries cost ``O(T n + n^2)`` instead of ``O(T n^2)``, and no window is ever copied; but
for those that must not count, which are taken off again. The sum over many channels obeys the same
recurrence (`summed_moments`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from titans_ts.channels import LEAST_KNOWN, Channels
from titans_ts.windows import Array, sliding_windows

# Of a channel's standard deviation: squares of what lies further out leave no digits of anything
# else in the moments. Windows that hold such a value are passed over.
FARTHEST = 1e6
# Squares of what lies further out leave too few digits where they are taken off again.
_LARGE = 1e3
_LONG = 8192  # rows from which lagged products are taken by FFT
_POOLED = 64  # channels whose first and last rows are multiplied at a time
_MOST_POOLED = 2**22  # rows that are copied at a time, about
_BLOCK = 2048  # windows gathered at a time, where they must be
_MOST_KEPT = 2**28  # bytes of moments that are kept for who asks again


def summed_products(
    xs: Sequence[Array], ys: Sequence[Array], rows: int, columns: int, weights: Sequence[float]
) -> Array:
    """``M[i, j] = sum over k, t of weights[k] x[k][t + i] y[k][t + j]``, i < rows, j < columns.

    With n windows (t < n; any number for each k) ``x[k]`` has ``n + rows - 1`` entries and ``y[k]``
    ``n + columns - 1``. However many there are, one walk along the diagonals does.

    Examples
    --------
    >>> y = np.array([1.0, 2.0, 3.0])
    >>> summed_products([y], [y], 2, 2, [1.0])
    array([[ 5.,  8.],
           [ 8., 13.]])
    """
    if rows > columns:  # fewer and longer steps
        return summed_products(ys, xs, columns, rows, weights).T
    symmetric = xs is ys
    products, steps = np.zeros((rows, columns)), np.zeros((rows - 1, columns - 1))
    left = np.zeros(rows)
    for x, y, weight in zip(xs, ys, weights, strict=True):
        windows = len(x) - rows + 1
        products[0] += weight * _correlate(y, x[:windows])
        if not symmetric:
            left += weight * _correlate(x, y[:windows])
    if not symmetric:
        products[:, 0] = left
    for begin in range(0, len(xs), _POOLED):
        some = slice(begin, begin + _POOLED)
        for sign, head in ((-1.0, True), (1.0, False)):  # what goes, and what comes
            x_ends, y_ends = _ends(xs[some], rows - 1, head), _ends(ys[some], columns - 1, head)
            steps += (x_ends.T * (sign * np.asarray(weights[some]))) @ y_ends
    for i in range(1, rows):
        first = i if symmetric else 1  # what lies before is known by symmetry
        products[i, first:] = products[i - 1, first - 1 : -1] + steps[i - 1, first - 1 :]
        if symmetric:
            products[i, :i] = products[:i, i]
    return products


def _ends(arrays: Sequence[Array], length: int, head: bool) -> Array:
    """The first entries of each, or the last, ``(n, length)``."""
    return np.stack([x[:length] if head else x[len(x) - length :] for x in arrays])


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
    moments, counts = summed_moments(channels, before, after, [(first, last)], None)
    return moments, int(counts[0])


def summed_moments(
    channels: Channels,
    before: int,
    after: int,
    spans: Sequence[tuple[int, int]],
    weights: Array | None,
) -> tuple[Array, np.ndarray]:
    """Sum of the `channel_moments` of spans of origins, and the number of windows of each.

    With ``weights`` the weighted sum of mean moments: each is divided by its number of windows.
    """
    moments, counts = np.zeros((before + after,) * 2), np.zeros(len(spans), dtype=int)
    contexts: list[Array] = []
    targets: list[Array] = []
    shares: list[float] = []
    for i, (first, last) in enumerate(spans):
        if last < first:
            continue
        x, y, useful = _window_rows(channels, before, after, first, last)
        counts[i] = useful.sum()
        share = 1.0 if weights is None else weights[i] / max(counts[i], 1)
        if counts[i] < len(useful) / 2 or max(np.abs(x).max(), np.abs(y).max()) > _LARGE:
            moments += share * _gathered(x, y, before, after, np.flatnonzero(useful))
            continue
        moments -= share * _gathered(x, y, before, after, np.flatnonzero(~useful))
        contexts.append(x[: len(x) - after])
        targets.append(y[before:])
        shares.append(share)
        if sum(map(len, contexts)) > _MOST_POOLED:
            moments += _pooled(contexts, targets, before, after, shares)
            contexts, targets, shares = [], [], []
    return moments + _pooled(contexts, targets, before, after, shares), counts


def _pooled(
    contexts: Sequence[Array],
    targets: Sequence[Array],
    before: int,
    after: int,
    shares: Sequence[float],
) -> Array:
    """Moments of all windows on these rows."""
    cross = summed_products(contexts, targets, before, after, shares)
    return np.block(
        [
            [summed_products(contexts, contexts, before, before, shares), cross],
            [cross.T, summed_products(targets, targets, after, after, shares)],
        ]
    )


def channel_means(channels: Channels, before: int, after: int, first: int, last: int) -> Array:
    """The mean of the windows that `channel_moments` is of, ``(before + after,)``."""
    if last < first:
        return np.zeros(before + after)
    x, y, useful = _window_rows(channels, before, after, first, last)
    weight = useful / max(useful.sum(), 1)
    context = _correlate(x[: len(weight) + before - 1], weight)
    return np.concatenate([context, _correlate(y[before:], weight)])


def level_error(
    channels: Channels, before: int, after: int, first: int, last: int
) -> tuple[float, int]:
    """Mean squared error of the windows' level as their forecast, and the windows' number."""
    if last < first:
        return 0.0, 0
    x, y, useful = _window_rows(channels, before, after, first, last)
    level = _sums(x[: len(x) - after], before) / before
    squares = _sums(np.square(y[before:]), after) - 2 * level * _sums(y[before:], after)
    squares += after * np.square(level)
    count = int(useful.sum())
    return float(squares[useful].sum() / (max(count, 1) * after)), count


def _sums(x: Array, length: int) -> Array:
    """Of every window of so many entries."""
    total = np.concatenate([[0.0], np.cumsum(x)])
    return np.asarray(total[length:] - total[:-length])


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
    span = training_span(channels, k, before, after)
    moments, count = channel_moments(channels, before, after, *span)
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


def training_span(channels: Channels, k: int, before: int, after: int) -> tuple[int, int]:
    """First and last origin of the training windows of channel k."""
    return int(channels.starts[k] + before), int(channels.trained[k] - after)


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
