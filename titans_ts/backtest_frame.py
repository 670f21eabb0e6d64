"""The tables of a backtest, as utilsforecast reads them: unique_id, ds, cutoff, y, then models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from titans_ts.backtest_scores import Forecasts
from titans_ts.windows import Array

__all__ = ["channel_names", "forecast_frame", "history_frame", "interval_names", "to_kind"]


def channel_names(panel: Any) -> tuple[str | int, ...]:
    """What ``unique_id`` is: the column of a wide table, the id of a long one.

    With several targets a series it is ``id/target``.
    """
    columns = ["y" if name is None else name for name in panel.layout.columns]
    width = panel.series[0].values.shape[1]
    names: list[str | int] = []
    for series in panel.series:
        if series.key is None:
            names += columns
        elif width == 1:
            names.append(series.key)
        else:
            names += [f"{series.key}/{name}" for name in columns]
    return tuple(names)


def interval_names(model: str, levels: Sequence[float]) -> list[str]:
    """Columns of quantiles, ascending: ``model-lo-90, model-lo-80, model-hi-80, model-hi-90``.

    Parameters
    ----------
    model : str
    levels : sequence of float
        Coverages in percent, ascending.
    """
    low = [f"{model}-lo-{level:g}" for level in reversed(levels)]
    return [*low, *(f"{model}-hi-{level:g}" for level in levels)]


def forecast_frame(
    forecasts: Forecasts, times: Sequence[Any], names: Sequence[str | int], levels: Sequence[float]
) -> Any:
    """One row a forecast, a pandas frame.

    ``cutoff`` is the time of the last row that was known. Rows whose target is missing are left
    out, as there is nothing to compare with.

    Parameters
    ----------
    forecasts : Forecasts
    times : sequence of pandas Index
        Of all rows of each series.
    names : sequence
        Of the channels, numbered as `Forecasts.unit` is.
    levels : sequence of float
        Coverages in percent, ascending.
    """
    import pandas as pd

    series = forecasts.unit // (len(names) // len(times))
    table = {
        "unique_id": _labels(names)[forecasts.unit],
        "ds": _take(times, series, forecasts.place),
        "cutoff": _take(times, series, forecasts.known - 1),
        "y": forecasts.actual,
    }
    for model, point in forecasts.point.items():
        table[model] = point
        columns = interval_names(model, levels)
        table |= zip(columns, forecasts.quantiles[model].T, strict=True)
    return pd.DataFrame(table)


def history_frame(values: Sequence[Array], times: Sequence[Any], names: Sequence[str | int]) -> Any:
    """Every row that the backtest was given, long, a pandas frame: unique_id, ds, y."""
    import pandas as pd

    width = values[0].shape[1]
    lengths = np.repeat([len(y) for y in values], width)
    series = np.repeat(np.arange(len(lengths)) // width, lengths)
    place = np.concatenate([np.arange(length) for length in lengths])
    return pd.DataFrame(
        {
            "unique_id": _labels(names)[np.repeat(np.arange(len(names)), lengths)],
            "ds": _take(times, series, place),
            "y": np.concatenate([y.T.ravel() for y in values]),
        }
    )


def to_kind(frame: Any, layout: Any) -> Any:
    """Turn a pandas frame of a backtest into polars, if the panel was; what is missing, to null."""
    if layout.kind != "polars":
        return frame
    import polars as pl

    columns = {}
    for name, column in frame.items():
        if column.dtype.kind == "M":
            unit = column.dt.unit
            stamps = pl.Series(np.asarray(column.astype("int64")))
            found = stamps.cast(pl.Datetime(unit, layout.timezone))
            columns[name] = found.cast(pl.Date) if layout.time == "date" else found
        elif column.dtype.kind == "f":
            columns[name] = pl.Series(column.to_numpy(), nan_to_null=True)
        else:
            columns[name] = pl.Series(column.tolist())
    return pl.DataFrame(columns)


def _labels(names: Sequence[str | int]) -> Any:
    """Numbers stay numbers, if all are."""
    import pandas as pd

    return pd.Index(names if len({type(name) for name in names}) == 1 else list(map(str, names)))


def _take(times: Sequence[Any], series: np.ndarray, place: np.ndarray) -> Any:
    """``times[series[r]][place[r]]`` for each row r."""
    together = times[0].append(list(times[1:])) if len(times) > 1 else times[0]
    first = np.cumsum([0, *(len(index) for index in times)])
    return together.take(first[series] + place)
