"""Forecasts as JSON and tables, of one series or many."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    from titans_ts.forecaster import TitansForecaster
    from titans_ts.frames import Layout

__all__ = ["forecast_facts", "forecast_table"]


def forecast_facts(
    forecaster: TitansForecaster,
    prediction_length: int | None,
    levels: list[float],
    future: Any = None,
) -> dict[str, Any]:
    """Times, if there are any, and by channel the point forecast and the quantiles.

    Of several series, a list of such: ``id_column, time_column, series``.
    """
    layout, ends = forecaster._layout, forecaster._standing.ends
    point = forecaster.predict(prediction_length, future=future)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # which `predict` has given already
        quantiles = forecaster.predict_quantiles(levels, prediction_length, future=future)
    points = _numbers(point, layout).reshape(len(ends), -1, len(layout.columns))
    fans = _numbers(quantiles, layout).reshape(*points.shape, len(levels))
    series = []
    for i, (key, end) in enumerate(ends.items()):
        channels = {
            "y" if label is None else str(label): {
                "point": points[i, :, c].tolist(),
                "quantiles": {f"{q:g}": fans[i, :, c, j].tolist() for j, q in enumerate(levels)},
            }
            for c, label in enumerate(layout.columns)
        }
        times = _times(layout, end, points.shape[1])
        series.append({"id": key, "times": times, "channels": channels})
    if list(ends) == [None]:
        (only,) = series
        del only["id"]
        return {"time_column": layout.time_name, **only}
    id_column = layout.id_name or "series"
    return {"id_column": id_column, "time_column": layout.time_name, "series": series}


def forecast_table(forecast: dict[str, Any]) -> pl.DataFrame:
    """A row per time; the forecast of a channel has its name, a quantile ``channel_qlevel``.

    Times are text, as in JSON.

    Raises
    ------
    ValueError
        If a channel has the name of another's quantile.

    Examples
    --------
    >>> wind = {"point": [3.0], "quantiles": {"0.1": [2.0], "0.9": [5.0]}}
    >>> forecast = {"time_column": "day", "times": ["2024-12-31"], "channels": {"wind": wind}}
    >>> print(forecast_table(forecast).write_csv(), end="")
    day,wind,wind_q0.1,wind_q0.9
    2024-12-31,3.0,2.0,5.0
    """
    import polars as pl

    tables = []
    for series in forecast.get("series", [forecast]):
        channels = series["channels"]
        rows = len(next(iter(channels.values()))["point"])
        columns: list[tuple[str, Any]] = []
        if "id" in series:
            columns.append((forecast["id_column"], [series["id"]] * rows))
        if series["times"] is not None:
            columns.append((forecast["time_column"] or "time", series["times"]))
        for name, channel in channels.items():
            columns.append((name, channel["point"]))
            columns += [(f"{name}_q{level}", q) for level, q in channel["quantiles"].items()]
        names = [name for name, _ in columns]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(
                f"two columns of the forecast would be called {twice[0]!r}: a channel has the name "
                "that quantiles or times get; rename it, or write JSON with --json"
            )
        tables.append(pl.DataFrame(dict(columns)))
    return pl.concat(tables)


def _numbers(answer: Any, layout: Layout) -> np.ndarray:
    """The values of an answer of any kind, without ids and times."""
    import numpy as np

    if layout.kind in ("numpy", "arrays", "series") or (
        layout.kind == "pandas" and not layout.long
    ):
        return np.asarray(answer)
    own = {layout.id_name, layout.time_name}
    if layout.kind == "pandas":
        return np.asarray(answer[[name for name in answer.columns if name not in own]])
    if layout.lazy:
        answer = answer.collect()
    names = answer.column_names if layout.kind == "pyarrow" else answer.columns
    return np.column_stack([answer[name].to_numpy() for name in names if name not in own])


def _times(layout: Layout, end: Any, rows: int) -> list[Any] | None:
    """The times after the end, as JSON takes them."""
    from titans_ts.time_axis import times_from

    if layout.time is None:
        return None
    times: Any = times_from(layout, end, rows + 1)[1:]
    times = times.to_timestamp() if layout.time == "period" else times
    if layout.time == "date":
        times = times.date
    return [t.isoformat() if hasattr(t, "isoformat") else int(t) for t in times]
