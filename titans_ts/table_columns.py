"""Single columns of pandas, polars and pyarrow: times as a pandas index, text as codes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from titans_ts.series_kinds import Label, Layout, cure


def column_of(piece: Any, i: int) -> Any:
    """The column at a position, in the library's own type."""
    if hasattr(piece, "iloc"):
        return piece.iloc[:, i]
    return piece.to_series(i) if hasattr(piece, "to_series") else piece.column(i)


def dtype_of(column: Any) -> Any:
    """The dtype of a column, in the library's own words."""
    return column.dtype if hasattr(column, "dtype") else column.type


def check_label(label: Any, name: str) -> Label:
    """Check that a label survives JSON, so that a saved forecaster matches the same columns."""
    label = label.item() if isinstance(label, np.generic) else label
    if label is not None and not isinstance(label, (str, int)):
        raise TypeError(
            f"the names of columns and index of {name} must be str or int; got {label!r}. Rename, "
            f"e.g. {name}.columns = {name}.columns.map(str)."
        )
    return label


def codes(column: Any) -> tuple[Any, list[Any]]:
    """Number the values of a column in order of appearance, -1 for missing; return the values."""
    library = type(column).__module__.split(".")[0]
    if library == "pandas":
        import pandas as pd

        found, values = pd.factorize(column)
        return found, list(values.tolist())
    if library == "pyarrow":
        import pyarrow as pa

        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        array = column.combine_chunks().dictionary_encode()
        return array.indices.fill_null(-1).to_numpy(zero_copy_only=False), (
            array.dictionary.to_pylist()
        )
    import polars as pl

    if column.dtype == pl.String:
        column = column.cast(pl.Categorical)
    numbers = column.to_physical()
    found = np.full(len(column), -1)
    there = numbers.is_not_null().to_numpy()
    _, first, inverse = np.unique(
        numbers.drop_nulls().to_numpy(), return_index=True, return_inverse=True
    )
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    found[there] = rank[inverse]
    return found, column.drop_nulls().gather(first[order]).to_list()


def id_type(column: Any) -> tuple[str, tuple[Any, ...] | None]:
    """The dtype of a column of ids by name, and its categories if it has some of its own."""
    dtype = dtype_of(column)
    if str(dtype) == "category":
        return "category", tuple(dtype.categories.tolist())
    if type(dtype).__name__ == "Enum":
        return "Enum", tuple(dtype.categories.to_list())
    return str(dtype), None


def read_times(column: Any, layout: Layout, name: str) -> tuple[Any, Layout]:
    """Return the times as a pandas index, and the layout with what they are besides."""
    library = type(column).__module__.split(".")[0]
    if library == "pandas":
        return _pandas_times(column, layout, name)
    import pandas as pd

    if library == "polars":
        import polars as pl

        dtype = column.dtype
        if dtype.is_integer():
            return pd.Index(column.to_numpy()), replace(layout, time=str(dtype))
        if dtype not in (pl.Date, pl.Datetime):
            raise TypeError(_no_times(column, layout, name, "Date, Datetime or integer"))
        unit: Any = getattr(dtype, "time_unit", "us")  # a date is a time stamp at midnight
        zone, dated = getattr(dtype, "time_zone", None), dtype == pl.Date
        stamps = column.cast(pl.Datetime(unit)).to_numpy()
    else:
        import pyarrow as pa

        kind = column.type
        if pa.types.is_integer(kind):
            array = column.to_numpy()
            return pd.Index(array), replace(layout, time=str(kind))
        dated = pa.types.is_date(kind)
        if not (dated or pa.types.is_timestamp(kind)):
            raise TypeError(_no_times(column, layout, name, "dates, time stamps or integers"))
        unit, zone = ("us", None) if dated else (kind.unit, kind.tz)
        stamps = column.cast(pa.timestamp(unit, zone)).to_numpy().astype(f"M8[{unit}]")
    index = pd.DatetimeIndex(stamps)
    if zone is not None:
        index = index.tz_localize("UTC").tz_convert(zone)
    time = "date" if dated else "datetime"
    return index, replace(layout, time=time, unit=unit, timezone=zone)


def _pandas_times(column: Any, layout: Layout, name: str) -> tuple[Any, Layout]:
    import pandas as pd

    times = pd.Index(column)
    if isinstance(times.dtype, pd.ArrowDtype) and times.dtype.kind == "M":
        times = pd.DatetimeIndex(times)
    if times.dtype.kind in "iu" and not isinstance(times.dtype, np.dtype):
        times = (
            pd.Index(times.to_numpy(dtype="float64", na_value=np.nan))
            if times.hasnans
            else (pd.Index(times.to_numpy(dtype="int64")))
        )
    if isinstance(times, pd.PeriodIndex):
        return times, replace(layout, time="period", step=times.freqstr)
    if isinstance(times, pd.DatetimeIndex):
        zone = None if times.tz is None else str(times.tz)
        try:
            pd.Timestamp(0, tz=zone)  # finds the zone by its name, or does not
        except (KeyError, ValueError) as error:
            raise TypeError(
                f"the time zone of {name}, {times.tz}, has no name to find it by again. Convert "
                f"it, e.g. {name}.tz_convert('UTC')."
            ) from error
        return times, replace(layout, time="datetime", unit=times.unit, timezone=zone)
    if isinstance(times, pd.RangeIndex):
        return times, replace(layout, time="range")
    if times.dtype.kind in "iu" or (times.hasnans and times.dtype.kind == "f"):
        return times, replace(layout, time=str(times.dtype))
    if layout.long:
        raise TypeError(_no_times(column, layout, name, "time stamps, periods or integers"))
    if len(times) and isinstance(times[0], tuple):
        raise TypeError(
            f"the index of {name} has {len(times[0])} levels; a long table has ids and times in "
            f"columns: {name}.reset_index(), and `id_column` and `time_column` by their names."
        )
    raise TypeError(
        f"the index of {name} must be a DatetimeIndex, a PeriodIndex or integers; got dtype "
        f"{times.dtype}. Parse it, {name}.index = pandas.to_datetime({name}.index), or number "
        f"the rows, {name}.reset_index(drop=True)."
    )


def _no_times(column: Any, layout: Layout, name: str, allowed: str) -> str:
    return (
        f"the time column {layout.time_name!r} of {name} must be {allowed}; got "
        f"{dtype_of(column)}. {cure('time', layout, name, layout.time_name)}"
    )
