"""Forecast every window of a test part, without looking ahead; the floors beside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from titans_ts.forecaster import TitansForecaster
from titans_ts.outlook import at_levels
from titans_ts.windows import Array, sliding_windows

_WINDOWS_AT_ONCE = 128


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
    """
    origins = range(first, len(y) - forecaster.prediction_length + 1)
    if learn is None:
        return _from_windows(forecaster, y, origins, levels)
    forecasts = []
    for origin in origins:
        if origin > first:
            forecaster.update(y[origin - 1 : origin], learn=learn)
        forecasts.append(
            forecaster.predict() if levels is None else forecaster.predict_quantiles(levels)
        )
    return np.stack(forecasts)


def _from_windows(
    forecaster: TitansForecaster, y: Array, origins: range, levels: Sequence[float] | None
) -> Array:
    """What ``predict(context=...)`` answers window by window, many at a time."""
    length, known = forecaster.context_length_, forecaster.model_.levels
    found = []
    for start in range(origins.start, origins.stop, _WINDOWS_AT_ONCE):
        some = range(start, min(start + _WINDOWS_AT_ONCE, origins.stop))
        point, quantiles = forecaster._forecast_windows([y[o - length : o] for o in some])
        wanted = point if levels is None else at_levels(quantiles, known, np.asarray(levels))
        found.append(wanted)
    return np.concatenate(found)


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
