"""Covariates that are known ahead, read for the steps of a forecast."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from titans_ts.array_series import future_arrays
from titans_ts.covariate_columns import encode
from titans_ts.parts import Parts
from titans_ts.series_kinds import Key, Layout, Roles, kind_of
from titans_ts.tables import read_table
from titans_ts.time_axis import Time, fixed_width, scalar, show, times_from
from titans_ts.windows import Array


def read_future(
    future: Any, layout: Layout, ends: Mapping[Key, Time], rows: int, name: str = "future"
) -> dict[Key, Array]:
    """Return the covariates known ahead for the steps after the end of each series.

    Parameters
    ----------
    future : table, array or list of arrays
        A table with the future covariates by name, and ids and times as fitted on; other rows and
        columns are passed over. Arrays: (rows, K) or (N, rows, K), the columns in the order of
        ``future_covariates``, the first row one step after the end. None if there are none.
    layout : Layout
        Of the panel fitted on, or of the context.
    ends : mapping of key to time
        The last time of every series to forecast.
    rows : int
        Steps to forecast.
    name : str
        What the user calls it, for messages.

    Returns
    -------
    dict of key to ndarray of shape (rows, Kf)
        Categories one-hot, NaN where missing.

    Raises
    ------
    ValueError
        If a step or column is missing, or nothing of this sort is of use.
    """
    columns = layout.roles.future_covariates
    if not columns:
        if future is not None:
            raise ValueError(
                f"{name} was given, but the forecaster was fitted without future_covariates. Name "
                "its columns there and fit again, or leave it out."
            )
        return {key: np.empty((rows, 0)) for key in ends}
    if future is None:
        raise ValueError(
            f"{name} is needed: the forecaster was fitted with the future covariates "
            f"{list(columns)}. Pass a table with them for the {rows} steps to forecast."
        )
    found = _rows_ahead(future, layout, ends, rows, name)
    for key, values in found.items():
        if np.isinf(values).any():
            step = int(np.isinf(values).any(axis=1).argmax()) + 1
            whose = "" if key is None else f" of series {key!r}"
            raise ValueError(
                f"{name} has an infinite value{whose}, {step} step(s) ahead; correct it, or make "
                "it missing."
            )
    return found


def _rows_ahead(
    future: Any, layout: Layout, ends: Mapping[Key, Time], rows: int, name: str
) -> dict[Key, Array]:
    """What ``read_future`` returns, of whatever kind it was given."""
    columns = layout.roles.future_covariates
    kind = kind_of(future, name)
    if kind in ("numpy", "arrays"):
        return _by_position(future, layout, ends, rows, name)
    if kind == "series":
        future, kind = future.to_frame(), "pandas"
    roles = Roles(
        id_column=layout.id_name or Roles.id_column,
        time_column=_time_column(layout, kind),
        target_columns=(),
        future_covariates=columns,
    )
    parts = read_table(future, kind, roles, None, name)
    if parts.layout.long != layout.long:
        raise ValueError(
            f"{name} is {parts.layout.described}; the forecaster was fitted on "
            f"{layout.described}. "
            + (
                f"Give it a column {layout.id_name!r}, a row for each series and time."
                if layout.long
                else "Leave out the ids."
            )
        )
    if parts.layout.axis != layout.axis:
        raise ValueError(
            f"{name} has {parts.layout.axis} as its time axis; the forecaster was fitted on "
            f"{layout.axis}. Pass the same kind of time axis."
        )
    parts.arrange()
    values = encode(parts, columns, layout.categories)
    if parts.times is None:
        return {key: _first(values, rows, layout, key, name) for key in ends}
    return _by_time(parts, values, layout, ends, rows, name)


def _time_column(layout: Layout, kind: str) -> Any:
    """The time column by the name fitted on, unless the table has its times elsewhere."""
    named = layout.roles.time_column or (layout.time_name if layout.kind == kind else None)
    return named if layout.long or (layout.kind == kind and kind != "pandas") else None


def _by_position(
    future: Any, layout: Layout, ends: Mapping[Key, Time], rows: int, name: str
) -> dict[Key, Array]:
    columns = layout.roles.future_covariates
    if text := [column for column, _ in layout.categories if column in columns]:
        raise ValueError(
            f"{name} must be a table, since the future covariate {text[0]!r} is text; got arrays."
        )
    blocks = future_arrays(future, columns, name)
    if len(blocks) != len(ends):
        raise ValueError(f"{name} holds {len(blocks)} series; {len(ends)} are forecast.")
    return {
        key: _first(block, rows, layout, key, name) for key, block in zip(ends, blocks, strict=True)
    }


def _first(values: Array, rows: int, layout: Layout, key: Key, name: str) -> Array:
    if len(values) < rows:
        whose = "" if key is None else f" of series {key!r}"
        raise ValueError(
            f"{name} has {len(values)} rows{whose}; needs {rows}, one for each step to forecast, "
            f"with {list(layout.roles.future_covariates)}."
        )
    return values[:rows]


def _by_time(
    parts: Parts,
    values: Array,
    layout: Layout,
    ends: Mapping[Key, Time],
    rows: int,
    name: str,
) -> dict[Key, Array]:
    times = parts.times.as_unit(layout.unit) if hasattr(parts.times, "as_unit") else parts.times
    ticks = np.asarray(times.astype("int64"))
    if parts.owner is None and len(ticks) and (np.diff(ticks) < 0).any():
        order = np.argsort(ticks, kind="stable")
        ticks, values = ticks[order], values[order]
    width = fixed_width(layout) if layout.time in ("date", "datetime") else None
    slack = 0 if width is None else (width - 1) // 4
    places = {key: i for i, key in enumerate(parts.keys)}
    due: dict[Time, Any] = {}
    found = {}
    for key, end in ends.items():
        if end not in due:
            due[end] = times_from(layout, end, rows + 1)[1:]  # type: ignore[arg-type]  # has times
        wanted = np.asarray(due[end].astype("int64"))
        place = places.get(key, -1)
        part = slice(*parts.bounds[place : place + 2]) if place >= 0 else slice(0, 0)
        begin = np.searchsorted(ticks[part], wanted - slack, "left")
        count = np.searchsorted(ticks[part], wanted + slack, "right") - begin
        if (count != 1).any():
            at = int(np.argmax(count != 1))
            time = show(scalar(due[end][at]))
            whose = "" if key is None else f" of series {key!r}"
            problem = "no row" if count[at] == 0 else f"{count[at]} rows"
            span = [show(scalar(due[end][i])) for i in (0, -1)]
            raise ValueError(
                f"{name} has {problem}{whose} at {time}; needs one for each of the {rows} steps "
                f"from {span[0]} to {span[1]}, with {list(layout.roles.future_covariates)}."
            )
        found[key] = values[part][begin]
    return found
