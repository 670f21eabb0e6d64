"""The kinds of series that the forecaster takes; it answers in the kind of the question.

Inside, a series is a float64 array of shape (T, C): rows in time order, one column per channel.
Its `Layout` is what turns such an array back into what the user gave. `series_kinds` takes a series
apart, `time_axis` checks and continues its times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from titans_ts.series_kinds import (
    KINDS,
    Layout,
    cure,
    kind_of,
    read_numpy,
    read_pandas,
    read_polars,
)
from titans_ts.time_axis import Time, advance_time, check_times, scalar, show, times_from
from titans_ts.windows import Array

__all__ = [
    "Layout",
    "Table",
    "advance_time",
    "check_follows",
    "check_same_columns",
    "read_table",
    "write_point",
    "write_quantiles",
]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A series that passed the checks: values (T, C), layout, times of the first and last row.

    The values are a finite copy of their own, in C order; the times are JSON scalars.
    """

    values: Array
    layout: Layout
    first_time: Time = None
    last_time: Time = None


def read_table(
    y: Any, *, time_column: str | None = None, name: str = "y", layout: Layout | None = None
) -> Table:
    """Check a series and take it apart.

    Parameters
    ----------
    y : array-like, pandas Series or DataFrame, or polars DataFrame
        Shape (T,) or (T, C), wide: one row per time step, one column per channel. pandas has the
        times in the index; polars in a Date, Datetime or, if named, integer column, or nowhere.
    time_column : str, optional
        The time column of a polars frame; by default its only Date or Datetime column.
    name : str
        What the user calls `y`, for messages.
    layout : Layout, optional
        Of the series fitted on. Its step holds for `y` too, which may then be a single row, and
        its time column is the default.

    Raises
    ------
    TypeError
        If `y` is none of these kinds, or holds other things than real numbers.
    ValueError
        If it is empty or not wide, its values are not finite, or its times not evenly spaced.

    Notes
    -----
    The step is that of the index, else inferred: from two stamps a fixed duration, from Monday to
    Friday a day. For months and business days show more rows, or give the index a `freq`.

    Examples
    --------
    >>> read_table([1, 2, 3]).values.shape
    (3, 1)
    """
    kind = kind_of(y, name)
    if kind == "polars":
        if time_column is None and layout is not None and layout.kind == "polars":
            time_column = str(layout.time_name) if layout.time else None
        values, times, found = read_polars(y, time_column, name)
    elif time_column is not None:
        raise ValueError(
            f"`time_column` is for polars; {name} is {KINDS[kind]}. pandas has the times in the "
            f"index, e.g. by {name}.set_index({time_column!r})."
        )
    else:
        values, times, found = (read_numpy if kind == "numpy" else read_pandas)(y, name)
    if not values.size:
        if found.columns:
            raise ValueError(f"{name} has no rows; needs at least one.")
        # The numbers in scikit-learn's words, which its suite looks for.
        raise ValueError(
            f"{name} has no columns of values: 0 feature(s) (shape={values.shape}) while a minimum "
            "of 1 is required."
        )
    first = last = None
    if times is not None:
        known = layout if layout is not None and layout.axis == found.axis else None
        found = check_times(times, found, known, name)
        first, last = scalar(times[0]), scalar(times[-1])
    _check_finite(values, times, found, name)
    return Table(values=values, layout=found, first_time=first, last_time=last)


def check_same_columns(layout: Layout, table: Table, name: str = "context") -> Table:
    """Return `table` with its columns in the order of `layout`; ValueError if they are others.

    Frames are matched by name; arrays, and Series without a name, have only positions.
    """
    ours, theirs = layout.columns, table.layout.columns
    if "numpy" in (layout.kind, table.layout.kind) or None in ours + theirs:
        if len(ours) == len(theirs):
            return table
        flat = table.layout.kind == "numpy" and table.layout.ndim == 1
        hint = f" For a single row, pass {name}[None, :]." if flat else ""
        raise ValueError(
            f"{name} has {len(theirs)} column(s); the forecaster was fitted on {len(ours)}.{hint}"
        )
    if set(ours) != set(theirs):
        raise ValueError(
            f"{name} has other columns than the series fitted on: missing "
            f"{[label for label in ours if label not in theirs]}, unexpected "
            f"{[label for label in theirs if label not in ours]}. Make them {list(ours)}."
        )
    values = np.ascontiguousarray(table.values[:, [theirs.index(label) for label in ours]])
    return replace(table, values=values, layout=replace(table.layout, columns=ours))


def check_follows(layout: Layout, last_time: Time, table: Table, name: str = "y_new") -> Table:
    """Return `table`, its columns in the order of `layout`, if it continues the series.

    ValueError if it is of another kind, has other columns, or does not begin one step later.
    `table` must have been read with this layout.
    """
    if table.layout.kind != layout.kind:
        raise ValueError(
            f"{name} is {KINDS[table.layout.kind]}; the forecaster was fitted on "
            f"{KINDS[layout.kind]}. Pass the same kind."
        )
    table = check_same_columns(layout, table, name)
    if table.layout.axis != layout.axis:
        raise ValueError(
            f"{name} has {table.layout.axis} as its time axis; the forecaster was fitted on "
            f"{layout.axis}. Pass the same kind of time axis."
        )
    expected = advance_time(layout, last_time, 1)
    if table.first_time != expected:
        raise ValueError(
            f"{name} must start at {show(expected)}, one step after the last row seen; got "
            f"{show(table.first_time)}. Drop rows seen before, fill in rows left out, or number "
            "the rows on from there."
        )
    return table


def write_point(layout: Layout, last_time: Time, values: Array) -> Any:
    """Return a forecast (P, C) in the kind of the series, its times continued from `last_time`."""
    if layout.kind == "numpy":
        return values[:, 0] if layout.ndim == 1 else values
    if layout.kind == "polars":
        return _polars_frame(layout, last_time, [str(label) for label in layout.columns], values)

    import pandas as pd

    index = _pandas_index(layout, last_time, len(values))
    if layout.kind == "series":
        return pd.Series(values[:, 0], index=index, name=layout.columns[0])
    columns = pd.Index(layout.columns, name=layout.columns_name)
    return pd.DataFrame(values, index=index, columns=columns)


def write_quantiles(
    layout: Layout, last_time: Time, values: Array, levels: Sequence[float] | Array
) -> Any:
    """Return quantiles (P, C, Q) in the kind of the series, its times continued.

    An array stays one, (P, Q) if the series is 1-d. pandas: columns (column, level), or the levels
    for a Series. polars: columns ``"{column}_q{level:g}"`` after the time column. ValueError if
    two levels are equal, or two polars columns would have one name.
    """
    if len(set(map(float, levels))) < len(levels):
        raise ValueError(f"levels must be distinct; got {list(map(float, levels))}.")
    if layout.kind == "numpy":
        return values[:, 0] if layout.ndim == 1 else values
    flat = values.reshape(len(values), -1)
    if layout.kind == "polars":
        names = [f"{column}_q{level:g}" for column in layout.columns for level in levels]
        taken = [*names, layout.time_name]
        if twice := [name for name in names if taken.count(name) > 1]:
            raise ValueError(
                f"two columns of the answer would be called {twice[0]!r}. Rename the time column "
                "or the channels, or choose levels that differ in their first six digits."
            )
        return _polars_frame(layout, last_time, names, flat)

    import pandas as pd

    columns = pd.Index(levels, name="quantile")
    if layout.kind == "pandas":
        both = [layout.columns_name, "quantile"]
        columns = pd.MultiIndex.from_product([layout.columns, levels], names=both)
    return pd.DataFrame(flat, index=_pandas_index(layout, last_time, len(values)), columns=columns)


def _check_finite(values: Array, times: Any, layout: Layout, name: str) -> None:
    for problem, bad in {"missing": np.isnan(values), "infinite": np.isinf(values)}.items():
        if count := np.count_nonzero(bad):
            row, column = np.argwhere(bad)[0]
            when = "" if times is None else f" ({show(scalar(times[row]))})"
            raise ValueError(
                f"{name} has {count} {problem} value{'s' if count > 1 else ''}; first in column "
                f"{layout.columns[column]!r} at row {row}{when}. {cure(problem, layout, name)}"
            )


def _pandas_index(layout: Layout, last_time: Any, n: int) -> Any:
    index = times_from(layout, last_time, n + 1)[1:]
    if layout.axis == "counts" and layout.time != "range":
        narrow = index.astype(layout.time)
        index = narrow if (narrow == index).all() else index  # int64, if outgrown
    return index.rename(layout.time_name)


def _polars_frame(layout: Layout, last_time: Time, names: list[str], values: Array) -> Any:
    import polars as pl

    frame = pl.DataFrame(values, schema=names, orient="row")
    if last_time is None:
        return frame
    times = times_from(layout, last_time, len(values) + 1)[1:]
    column = pl.Series(str(layout.time_name), np.asarray(times.astype("int64")))
    if layout.axis == "counts":
        narrow = column.cast(getattr(pl, str(layout.time)), strict=False)
        return frame.insert_column(0, column if narrow.has_nulls() else narrow)
    column = column.cast(pl.Datetime(layout.unit, layout.timezone))
    return frame.insert_column(0, column.cast(pl.Date) if layout.time == "date" else column)
