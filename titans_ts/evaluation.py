"""Forecast every window of a test part, without looking ahead; the floors beside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from titans_ts.adaptation import fits_on
from titans_ts.forecaster import TitansForecaster
from titans_ts.frames import read_future
from titans_ts.question import Asked, ask_streams, ask_windows, look_ahead_given
from titans_ts.windows import Array, sliding_windows

_WINDOWS_AT_ONCE = 128
_VALUES_AT_ONCE = 2**23  # of forecasts: tables of hundreds of channels go in smaller blocks


def actual_windows(y: Array, first: int, prediction_length: int) -> Array:
    """What came after every origin from row ``first`` on: ``(T, C) -> (n, P, C)``."""
    return sliding_windows(y[first:], prediction_length).transpose(0, 2, 1)


def rolling_forecasts(
    forecaster: TitansForecaster,
    y: Array,
    first: int,
    *,
    learn: bool | Literal["memory"] | None,
    levels: Sequence[float] | None = None,
) -> Array:
    """Forecast at every origin from row ``first`` on whose targets end within y.

    Parameters
    ----------
    forecaster : TitansForecaster
        Fitted on numpy rows ``y[:first]``. If it streams, it is left at the last origin.
    y : ndarray of shape (T, C)
    learn : bool, "memory" or None
        True: the rows before each origin are revealed by ``update``, which learns from them.
        "memory": only the memories do. False: nothing does. None: each forecast is made from its
        ``context_length_`` rows alone, as in the published long-horizon benchmarks.
    levels : sequence of float, optional
        Forecast these quantiles; None forecasts the point.

    Returns
    -------
    ndarray of shape (n, P, C), or (n, P, C, Q) with levels

    Raises
    ------
    ValueError
        A level lies outside the fitted ones, or the forecaster needs future covariates.
    """
    return np.concatenate(list(iter_forecasts(forecaster, y, first, learn=learn, levels=levels)))


def iter_forecasts(
    forecaster: TitansForecaster,
    y: Array,
    first: int,
    *,
    learn: bool | Literal["memory"] | None,
    levels: Sequence[float] | None = None,
) -> Iterator[Array]:
    """`rolling_forecasts`, some origins at a time, for what is too large as a whole."""
    origins = range(first, len(y) - forecaster.prediction_length + 1)
    if learn is None:
        yield from _from_windows(forecaster, y, origins, levels)
        return
    asked: list[Asked] = []
    at_once = _windows_at_once(forecaster, y)
    for origin in origins:
        if origin > first:
            forecaster.update(y[origin - 1 : origin], learn=learn)
        asked += ask_streams(forecaster._standing, forecaster.model_)
        # What only memories have learned is in the streams: they can be asked together, later.
        if fits_on(learn) or len(asked) == at_once or origin == origins[-1]:
            yield _wanted(forecaster, asked, levels)
            asked = []


def _from_windows(
    forecaster: TitansForecaster, y: Array, origins: range, levels: Sequence[float] | None
) -> Iterator[Array]:
    """What ``predict(context=...)`` answers window by window, many at a time."""
    length, at_once = forecaster.context_length_, _windows_at_once(forecaster, y)
    for start in range(origins.start, origins.stop, at_once):
        some = range(start, min(start + at_once, origins.stop))
        windows = [y[o - length : o] for o in some]
        asked = ask_windows(forecaster._standing, forecaster.model_, windows)
        yield _wanted(forecaster, asked, levels)


def _windows_at_once(forecaster: TitansForecaster, y: Array) -> int:
    values = forecaster.prediction_length * y.shape[1]
    return max(1, min(_WINDOWS_AT_ONCE, _VALUES_AT_ONCE // values))


def _wanted(
    forecaster: TitansForecaster, asked: list[Asked], levels: Sequence[float] | None
) -> Array:
    model, standing, layout = forecaster.model_, forecaster._standing, forecaster._layout
    ends = {each.key: each.end for each in asked}
    known = read_future(None, layout, ends, forecaster.prediction_length)
    future = [known[each.key] for each in asked]
    ahead = look_ahead_given(model, standing, layout, asked, future)
    if levels is None:
        return ahead.in_units(lambda outlook: outlook.mean)
    return ahead.quantiles(model.levels, levels)[0]


def naive_forecasts(y: Array, first: int, prediction_length: int, season_length: int = 1) -> Array:
    """Repeat the last season before every origin; with ``season_length=1`` the last row.

    Raises
    ------
    ValueError
        There is no whole season before the first origin.
    """
    if first < season_length:
        raise ValueError(f"season_length = {season_length} needs as many rows; got {first}.")
    origins = np.arange(first, len(y) - prediction_length + 1)
    back = season_length - np.arange(prediction_length) % season_length
    return y[origins[:, None] - back]
