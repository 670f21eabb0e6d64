"""What past covariates say of the rows ahead: a ridge on what the linear part leaves.

A window of each is summed up by its last values and by means of blocks that grow with their
distance, less the mean of the window. The same of the target's own window takes part in the
regression, so that a covariate is credited with what the target's rows do not tell already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from titans_ts.channels import Channels
from titans_ts.linear import LinearPart
from titans_ts.moments import FARTHEST
from titans_ts.validation_gain import mean_squares, thin, validation_gain
from titans_ts.windows import Array, sliding_windows

MOST_ROWS = 512  # of a window of past covariates
_LAST_VALUES = 8
_PENALTIES = (1e-3, 1e-2, 0.1, 1.0, 10.0)  # shares of each feature's own variance
_NUMBERS = 20_000_000  # that are held at a time


@dataclass(frozen=True)
class PastEffect:
    """Additions to the linear forecast, of each target column.

    Parameters
    ----------
    length : int
        Rows of a window.
    own : ndarray of shape (C, m, P)
        On the m features of the target's own window.
    weights : ndarray of shape (C, Kp m, P)
        On those of the covariates.
    """

    length: int
    own: Array
    weights: Array

    def of_covariates(self, windows: Array, column: np.ndarray) -> Array:
        """What windows ``(n, Kp, length)`` add to forecasts of these target columns: ``(n, P)``."""
        return _apply(summarise(windows).reshape(len(windows), -1), self.weights, column)

    def of_target(self, context: Array, column: np.ndarray) -> Array:
        """What the target's windows ``(n, L)`` add besides: ``(n, P)``."""
        return _apply(summarise(context[:, -self.length :]), self.own, column)


def summarise(windows: Array) -> Array:
    """Last values and block means less the mean of each window: ``(..., l) -> (..., m)``.

    Examples
    --------
    >>> summarise(np.arange(12.0)).round(1)
    array([ 5.5,  4.5,  3.5,  2.5,  1.5,  0.5, -0.5, -1.5, -4. ])
    """
    length = windows.shape[-1]
    edges = list(range(min(_LAST_VALUES, length) + 1))
    while edges[-1] < length:  # two blocks an octave
        power = 2 ** int(np.log2(edges[-1]))
        edges.append(min(edges[-1] + power // 2, length))
    average = np.zeros((length, len(edges) - 1))
    for i, (near, far) in enumerate(pairwise(edges)):
        average[length - far : length - near, i] = 1 / (far - near)
    return np.asarray(windows @ (average - 1 / length))


def fit_past(
    channels: Channels,
    linear: LinearPart,
    past: Sequence[Array],
    column: np.ndarray,
    series: np.ndarray,
) -> tuple[PastEffect | None, float]:
    """Learn from training windows, choose penalties and what is let in on validation.

    Parameters
    ----------
    channels : Channels
    linear : LinearPart
        As fitted on the training rows.
    past : sequence of ndarray of shape (T_n, Kp)
        Scaled, as long as the channels of each series.
    column, series : int ndarray of shape (K,)
        Target column and series of each channel.

    Returns
    -------
    PastEffect or None, float
        None where validation does not back it; the share of the validation error that it saves.
    """
    data = PastWindows(channels, past, series, min(linear.context_length, MOST_ROWS))
    before, after = linear.context_length, linear.prediction_length
    width = data.past.shape[1] + 1
    most = _NUMBERS // (before + after + width * 40)
    train = thin(channels.training_origins(before, after), most)
    held_out = thin(channels.validation_origins(before, after), most)
    x, error = _regression(data, linear, train)
    x_held, error_held = _regression(data, linear, held_out)
    columns = int(column.max()) + 1
    weights = np.zeros((columns, x.shape[1], after))
    added = np.zeros_like(error_held)
    for c in range(columns):
        mine, judged = (column[channels.of(o)] == c for o in (train, held_out))
        gain = 0.0
        for tried in _ridges(x[mine], error[mine]):
            extra = x_held[judged] @ tried
            without, with_it = (mean_squares(error_held[judged] - add) for add in (0.0, extra))
            better = validation_gain(channels, held_out[judged], without, with_it)
            if better > gain:
                gain, weights[c], added[judged] = better, tried, extra
    gain = validation_gain(
        channels, held_out, mean_squares(error_held), mean_squares(error_held - added)
    )
    if not gain:
        return None, 0.0
    m = x.shape[1] // width
    return PastEffect(data.length, weights[:, :m], weights[:, m:]), gain


class PastWindows:
    """Windows of past covariates that end at origins of channels."""

    def __init__(
        self, channels: Channels, past: Sequence[Array], series: np.ndarray, length: int
    ) -> None:
        self.channels, self.length = channels, length
        self.past = np.concatenate(past)
        starts = np.concatenate([[0], np.cumsum([len(rows) for rows in past])])
        self._shift = starts[series] - channels.starts[:-1]  # from origin to row

    def at(self, origins: np.ndarray) -> Array:
        """``(n, Kp, length)``."""
        rows = origins + self._shift[self.channels.of(origins)] - self.length
        return sliding_windows(self.past, self.length)[rows]


def _regression(data: PastWindows, linear: LinearPart, origins: np.ndarray) -> tuple[Array, Array]:
    """Features, the target's own first, and what the linear part leaves; NaN where unknown."""
    channels = data.channels
    context, target = channels.windows(origins, linear.context_length, linear.prediction_length)
    error = target - linear.predict(context, channels.of(origins))
    features = summarise(data.at(origins)).reshape(len(origins), -1)
    far = np.abs(context).max(axis=1, initial=0.0) >= FARTHEST
    error[far | (np.abs(error) >= FARTHEST).any(axis=1)] = np.nan
    return np.hstack([summarise(context[:, -data.length :]), features]), error


def _ridges(x: Array, error: Array) -> list[Array]:
    """Weights ``(features, P)`` for each penalty. Errors that are unknown teach 0."""
    useful = ~np.isnan(error).all(axis=1)
    x, error = x[useful], np.nan_to_num(error[useful])
    gram, cross = x.T @ x, x.T @ error
    own = np.diagonal(gram)
    if not own.max(initial=0.0) > 0:
        return []
    floor = 1e-9 * own.max()
    return [
        np.asarray(np.linalg.solve(gram + np.diag(penalty * own + floor), cross))
        for penalty in _PENALTIES
    ]


def _apply(x: Array, weights: Array, column: np.ndarray) -> Array:
    answer = np.empty((len(x), weights.shape[-1]))
    for c in np.unique(column):
        answer[column == c] = x[column == c] @ weights[c]
    return answer
