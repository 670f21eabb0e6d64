"""The kinds of series that the forecaster takes; it answers in the kind of the question.

Inside, a series is a float64 array of shape (T, C): rows in time order, one column per channel.
Its `Layout` is what turns such an array back into what the user gave. Every time axis, that of
polars too, is continued by pandas, which knows month ends, business days and daylight saving. Both
libraries are imported only when a series needs them, so that importing this module is cheap.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NoReturn

import numpy as np

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

Kind = Literal["numpy", "series", "pandas", "polars"]
Label = str | int | None
Time = str | int | None  # ISO 8601 (of a period: its start), a row number, or no time at all

_KINDS = {
    "numpy": "a numpy array",
    "series": "a pandas Series",
    "pandas": "a pandas DataFrame",
    "polars": "a polars DataFrame",
}
# What to do about it, in the words of the user's library. {y} is the name of the argument, {column}
# the offending column or the one of the times.
_PANDAS_CURES = {
    "long": "{y}.pivot(index='ds', columns='unique_id', values='y')",
    "text": "Convert it with astype(float), drop it or, if it holds the times, make it the index "
    "(pandas.to_datetime, then set_index)",
    "missing": "Fill them, e.g. {y}.ffill() or {y}.interpolate()",
    "infinite": "Replace them, e.g. {y}.replace([inf, -inf], nan).interpolate()",
    "untimed": "Drop such rows: {y}[{y}.index.notna()]",
    "unsorted": "Sort the rows: {y}.sort_index()",
    "duplicated": "Keep one row of each, e.g. {y}[~{y}.index.duplicated(keep='last')]",
    "uneven": "Fill the grid with {y}.asfreq(...) or {y}.resample(...), or number the rows "
    "instead: {y}.reset_index(drop=True)",
    "single": "Give more rows, or say the step, e.g. {y}.asfreq('D')",
}
_POLARS_CURES = {
    "long": "{y}.pivot(on='unique_id', index='ds', values='y')",
    "text": "Cast it to a number, drop it or, if it holds the times, parse it: "
    "{y}.with_columns(pl.col({column!r}).str.to_datetime())",
    "missing": "Fill them, e.g. {y}.fill_nan(None).interpolate()",
    "infinite": "Replace them, e.g. using pl.col(...).is_finite()",
    "untimed": "Drop such rows: {y}.drop_nulls({column!r})",
    "unsorted": "Sort the rows: {y}.sort({column!r})",
    "duplicated": "Keep one row of each, e.g. {y}.unique({column!r}, keep='last')",
    "uneven": "Fill the grid with {y}.upsample({column!r}, every=...), or drop the times: "
    "{y}.drop({column!r})",
    "single": "Give more rows, or drop the times: {y}.drop({column!r})",
}
_NUMPY_CURES = {
    "missing": "Fill them, e.g. pandas.DataFrame({y}).interpolate().to_numpy()",
    "infinite": "Replace them by finite numbers",
}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """All that a series is besides its values: what two series must share, and how one looks.

    Parameters
    ----------
    kind : {"numpy", "series", "pandas", "polars"}
        What the series was given as.
    columns : tuple of str or int
        One label per channel: positions for numpy, (None,) for a pandas Series without a name.
    columns_name : str or int, optional
        Name of the pandas column index.
    ndim : {1, 2}
        1 for an array of shape (T,) and for a Series.
    time : str, optional
        None (no time axis), "range" (RangeIndex), an integer dtype, "date", "datetime", "period".
    time_name : str or int, optional
        Name of the pandas index, or of the polars time column.
    step : str or int, optional
        From one row to the next: a pandas offset alias, or a number on an integer axis.
    unit, timezone : str, optional
        Resolution and time zone of time stamps.
    """

    kind: Kind
    columns: tuple[Label, ...]
    columns_name: Label = None
    ndim: Literal[1, 2] = 2
    time: str | None = None
    time_name: Label = None
    step: str | int | None = None
    unit: Any = None
    timezone: str | None = None

    @property
    def axis(self) -> str:
        """Kind of time axis, in words: equal for series that can follow each other."""
        if self.time in ("date", "datetime"):
            return f"time stamps in {self.timezone}" if self.timezone else "time stamps"
        return {None: "no times", "period": f"periods of {self.step!r}"}.get(self.time, "counts")

    def to_dict(self) -> dict[str, Any]:
        """Return JSON scalars by field, and the columns as a list."""
        return asdict(self) | {"columns": list(self.columns)}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Layout:
        """Rebuild what `to_dict` returned."""
        return cls(**stored | {"columns": tuple(stored["columns"])})


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
    kind = _kind_of(y, name)
    if kind == "polars":
        if time_column is None and layout is not None and layout.kind == "polars":
            time_column = str(layout.time_name) if layout.time else None
        values, times, found = _read_polars(y, time_column, name)
    elif time_column is not None:
        raise ValueError(
            f"`time_column` is for polars; {name} is {_KINDS[kind]}. pandas has the times in the "
            f"index, e.g. by {name}.set_index({time_column!r})."
        )
    else:
        values, times, found = (_read_numpy if kind == "numpy" else _read_pandas)(y, name)
    if not values.size:
        lacking = "rows" if found.columns else "columns of values"
        raise ValueError(f"{name} has no {lacking}; needs at least one.")
    first = last = None
    if times is not None:
        known = layout.step if layout is not None and layout.axis == found.axis else None
        found = _check_times(times, found, known, name)
        first, last = _scalar(times[0]), _scalar(times[-1])
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
            f"{name} is {_KINDS[table.layout.kind]}; the forecaster was fitted on "
            f"{_KINDS[layout.kind]}. Pass the same kind."
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
            f"{name} must start at {_show(expected)}, one step after the last row seen; got "
            f"{_show(table.first_time)}. Drop rows seen before, fill in rows left out, or number "
            "the rows on from there."
        )
    return table


def advance_time(layout: Layout, last_time: Time, n: int) -> Time:
    """Return the time `n` steps after `last_time`; None if there is no time axis.

    Examples
    --------
    >>> layout = Layout(kind="pandas", columns=("a",), time="datetime", step="ME", unit="us")
    >>> advance_time(layout, "2024-01-31T00:00:00", 1)
    '2024-02-29T00:00:00'
    """
    return None if last_time is None else _scalar(_times(layout, last_time, n + 1)[-1])


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
    for a Series. polars: columns ``"{column}_q{level:g}"`` after the time column.
    """
    if layout.kind == "numpy":
        return values[:, 0] if layout.ndim == 1 else values
    flat = values.reshape(len(values), -1)
    if layout.kind == "polars":
        names = [f"{column}_q{level:g}" for column in layout.columns for level in levels]
        return _polars_frame(layout, last_time, names, flat)

    import pandas as pd

    columns = pd.Index(levels, name="quantile")
    if layout.kind == "pandas":
        both = [layout.columns_name, "quantile"]
        columns = pd.MultiIndex.from_product([layout.columns, levels], names=both)
    return pd.DataFrame(flat, index=_pandas_index(layout, last_time, len(values)), columns=columns)


def _kind_of(y: Any, name: str) -> Kind:
    kinds: dict[Kind, tuple[str, str]] = {
        "pandas": ("pandas", "DataFrame"),
        "series": ("pandas", "Series"),
        "polars": ("polars", "DataFrame"),
    }
    for kind, (library, class_name) in kinds.items():
        module = sys.modules.get(library)  # were `y` of this library, it would have been imported
        if module is not None and isinstance(y, getattr(module, class_name)):
            return kind
    in_polars = type(y).__module__.startswith("polars")  # its Series has __array__ too
    if isinstance(y, (list, tuple)) or (hasattr(y, "__array__") and not in_polars):
        return "numpy"
    got = type(y).__name__
    cures = {"Series": f" Pass {name}.to_frame().", "LazyFrame": f" Pass {name}.collect()."}
    raise TypeError(
        f"{name} must be a numpy array, a list of numbers, a pandas Series or DataFrame, or a "
        f"polars DataFrame; got {got}." + (cures.get(got, "") if in_polars else "")
    )


def _cure(problem: str, layout: Layout, name: str, column: Label = None) -> str:
    cures = {"numpy": _NUMPY_CURES, "polars": _POLARS_CURES}.get(layout.kind, _PANDAS_CURES)
    return cures[problem].format(y=name, column=column) + "."


def _read_numpy(y: Any, name: str) -> tuple[Array, Any, Layout]:
    if isinstance(y, np.ma.MaskedArray) and y.dtype.kind in "iuf":
        # What is masked must not count as data.
        y = y.astype(float).filled(np.nan)  # type: ignore[attr-defined]  # numpy 2.4 has it untyped
    try:
        array = np.asarray(y)
    except ValueError as error:
        raise ValueError(f"the rows of {name} must be equally long: {error}") from error
    if array.ndim not in (1, 2):
        raise ValueError(
            f"{name} must have shape (T,) or (T, C); got {array.shape}. Fit one series at a time."
        )
    if array.dtype.kind not in "iuf":
        raise TypeError(
            f"{name} must hold real numbers; got dtype {array.dtype}. Convert it, e.g. "
            f"numpy.asarray({name}, dtype=float)."
        )
    values = np.array(array, dtype=np.float64, order="C")
    values = values[:, None] if array.ndim == 1 else values
    columns = tuple(range(values.shape[1]))
    return values, None, Layout(kind="numpy", columns=columns, ndim=1 if array.ndim == 1 else 2)


def _read_pandas(y: Any, name: str) -> tuple[Array, Any, Layout]:
    import pandas as pd

    one, times = isinstance(y, pd.Series), y.index
    found = Layout(
        kind="series" if one else "pandas",
        columns=tuple(_label(c, name) for c in ([y.name] if one else y.columns.tolist())),
        columns_name=None if one else _label(y.columns.name, name),
        ndim=1 if one else 2,
        time_name=_label(times.name, name),
    )
    dtypes = [y.dtype] if one else list(y.dtypes)
    _check_columns(found, dtypes, [dtype.kind in "iuf" for dtype in dtypes], name)
    values = y.to_numpy(dtype="float64", na_value=np.nan).reshape(y.shape[0], len(found.columns))

    if isinstance(times, pd.PeriodIndex):
        found = replace(found, time="period", step=times.freqstr)
    elif isinstance(times, pd.DatetimeIndex):
        zone = None if times.tz is None else str(times.tz)
        try:
            times.tz_convert(zone) if zone else None
        except (KeyError, ValueError) as error:
            raise TypeError(
                f"the time zone of {name}, {times.tz}, has no name to find it by again. Convert "
                f"it, e.g. {name}.tz_convert('UTC')."
            ) from error
        found = replace(found, time="datetime", unit=times.unit, timezone=zone)
    elif getattr(times.dtype, "kind", "O") in "iu":
        is_range = isinstance(times, pd.RangeIndex)
        found = replace(found, time="range" if is_range else str(times.dtype))
    else:
        raise TypeError(
            f"the index of {name} must be a DatetimeIndex, a PeriodIndex or integers; got dtype "
            f"{times.dtype}. Parse it, {name}.index = pandas.to_datetime({name}.index), or number "
            f"the rows, {name}.reset_index(drop=True)."
        )
    return np.array(values, order="C"), times, found


def _read_polars(y: Any, time_column: str | None, name: str) -> tuple[Array, Any, Layout]:
    import polars as pl

    stamps = [c for c, dtype in y.schema.items() if dtype in (pl.Date, pl.Datetime)]
    if time_column is None and len(stamps) > 1:
        raise ValueError(
            f"{name} has several time columns, {stamps}. Name one with `time_column` and drop the "
            "others."
        )
    time_column = stamps[0] if time_column is None and stamps else time_column
    if time_column is not None and time_column not in y.columns:
        near = difflib.get_close_matches(time_column, y.columns)
        guess = f"Did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"{name} has no time column {time_column!r}. {guess}It has {y.columns}.")
    columns = tuple(c for c in y.columns if c != time_column)
    found = Layout(kind="polars", columns=columns, time_name=time_column)
    dtypes = [y.schema[c] for c in columns]
    _check_columns(found, dtypes, [dtype.is_numeric() for dtype in dtypes], name)
    values = np.empty((y.height, len(columns)))
    for i, column in enumerate(columns):
        values[:, i] = y[column].cast(pl.Float64).to_numpy()
    if time_column is None:
        return values, None, found

    import pandas as pd

    times, dtype = y[time_column], y.schema[time_column]
    if not (dtype.is_integer() or time_column in stamps):
        raise TypeError(
            f"the time column {time_column!r} of {name} must be Date, Datetime or integer; got "
            f"{dtype}. {_cure('text', found, name, time_column)}"
        )
    if dtype.is_integer():
        return values, pd.Index(times.to_numpy()), replace(found, time=str(dtype))
    unit: Any = getattr(dtype, "time_unit", "us")  # a date is a time stamp at midnight
    zone = getattr(dtype, "time_zone", None)
    index = pd.DatetimeIndex(times.cast(pl.Datetime(unit)).to_numpy())
    index = index if zone is None else index.tz_localize("UTC").tz_convert(zone)
    time = "date" if dtype == pl.Date else "datetime"
    return values, index, replace(found, time=time, unit=unit, timezone=zone)


def _label(label: Any, name: str) -> Label:
    """Check that a label survives JSON, so that a saved forecaster matches the same columns."""
    label = label.item() if isinstance(label, np.generic) else label
    if label is not None and not isinstance(label, (str, int)):
        raise TypeError(
            f"the names of columns and index of {name} must be str or int; got {label!r}. Rename, "
            f"e.g. {name}.columns = {name}.columns.map(str)."
        )
    return label


def _check_columns(layout: Layout, dtypes: list[Any], numeric: list[bool], name: str) -> None:
    columns = layout.columns
    if "unique_id" in columns:
        raise ValueError(
            f"{name} is a long table: it has a column 'unique_id'. A wide one is needed, with one "
            f"column per series: {_cure('long', layout, name)}"
        )
    for i, (column, dtype) in enumerate(zip(columns, dtypes, strict=True)):
        if column in columns[:i]:
            raise ValueError(
                f"{name} must have a name of its own for each column; got {column!r} at positions "
                f"{columns.index(column)} and {i}. Rename or drop one."
            )
        if not numeric[i]:
            raise TypeError(
                f"column {column!r} of {name} must hold real numbers; got dtype {dtype}. "
                f"{_cure('text', layout, name, column)}"
            )


def _check_finite(values: Array, times: Any, layout: Layout, name: str) -> None:
    for problem, bad in {"missing": np.isnan(values), "infinite": np.isinf(values)}.items():
        if count := np.count_nonzero(bad):
            row, column = np.argwhere(bad)[0]
            when = "" if times is None else f" ({_show(_scalar(times[row]))})"
            raise ValueError(
                f"{name} has {count} {problem} value{'s' if count > 1 else ''}; first in column "
                f"{layout.columns[column]!r} at row {row}{when}. {_cure(problem, layout, name)}"
            )


def _check_times(times: Any, layout: Layout, known: str | int | None, name: str) -> Layout:
    """Return the layout with its step, if the times really advance by it, row by row."""

    def fail(problem: str, text: str) -> NoReturn:
        raise ValueError(f"{text}. {_cure(problem, layout, name, layout.time_name)}")

    def show(row: int) -> str:
        return f"{_show(_scalar(times[row]))} at row {row}"

    if times.hasnans:
        fail("untimed", f"{name} has no time at row {np.argmax(times.isna())}")
    ticks = np.asarray(times.astype("int64"))
    gaps = np.diff(ticks)
    for problem, bad in {"unsorted": gaps < 0, "duplicated": gaps == 0}.items():
        if bad.any():
            row = int(np.argmax(bad))
            fail(problem, f"the times of {name} are {problem}: {show(row)}, then {show(row + 1)}")
    step = known if known is not None else _infer_step(times, layout, gaps)
    if step is None:
        fail("single", f"{name} has a single row, which does not tell the time step")
    layout = replace(layout, step=step)
    expected = _times(layout, _scalar(times[0]), len(times))
    off = np.asarray(expected.astype("int64")) != ticks
    if off.any():
        row = int(np.argmax(off))
        due = _show(_scalar(expected[row]))
        fail(
            "uneven",
            f"the times of {name} are not evenly spaced: with a step of {step!r} {due} is due, "
            f"got {show(row)}",
        )
    return layout


def _infer_step(times: Any, layout: Layout, gaps: Any) -> str | int | None:
    """Return the step, the likeliest one if the times are uneven, None if they tell none."""
    if layout.time == "period":
        return layout.step
    if layout.axis == "counts":
        return int(np.median(gaps)) if len(gaps) else 1

    import pandas as pd
    from pandas.tseries.frequencies import to_offset

    # An alias says all of a step, unless it is a calendar with holidays of its own.
    if times.freq is not None and times.freqstr[0] not in "<C":
        return str(times.freqstr)
    if len(times) < 2:
        return None
    # If there is one gap, one half tells the step, and the gap is what does not fit it.
    middle = len(times) // 2
    for part in (times, times[:middle], times[middle:]):
        # Not `pandas.infer_freq`, whose answer pandas 3.1 begins to warn about.
        freq = pd.DatetimeIndex(part, freq="infer").freq if len(part) > 2 else None
        if freq is not None:
            return str(freq.freqstr)
    wall, true = ((t[1:] - t[:-1]).median() for t in (times.tz_localize(None), times))
    if wall.days and wall % pd.Timedelta(days=1) == pd.Timedelta(0):
        return f"{wall.days}D"  # on the clock, which 24 hours are not where clocks change
    return str(to_offset(true).freqstr)


def _times(layout: Layout, start: str | int, n: int) -> Any:
    """Return a pandas index of `n` times, the first of them `start`."""
    import pandas as pd

    if isinstance(start, int):
        step = int(layout.step or 1)
        return pd.RangeIndex(start, start + n * step, step)
    step_name = str(layout.step)
    if layout.time == "period":
        return pd.period_range(pd.Period(start, freq=step_name), periods=n, freq=step_name)
    stamp = pd.Timestamp(start)
    stamp = stamp if layout.timezone is None else stamp.tz_convert(layout.timezone)
    return pd.date_range(stamp, periods=n, freq=step_name).as_unit(layout.unit)


def _scalar(time: Any) -> str | int:
    """One entry of an index as a JSON scalar; a period as its start."""
    time = getattr(time, "start_time", time)
    return time.isoformat() if hasattr(time, "isoformat") else int(time)


def _show(time: Time) -> str:
    return str(time).removesuffix("T00:00:00").replace("T", " ")


def _pandas_index(layout: Layout, last_time: Any, n: int) -> Any:
    index = _times(layout, last_time, n + 1)[1:]
    if layout.axis == "counts" and layout.time != "range":
        index = index.astype(layout.time)
    return index.rename(layout.time_name)


def _polars_frame(layout: Layout, last_time: Time, names: list[str], values: Array) -> Any:
    import polars as pl

    frame = pl.DataFrame(values, schema=names, orient="row")
    if last_time is None:
        return frame
    times = _times(layout, last_time, len(values) + 1)[1:]
    column = pl.Series(str(layout.time_name), np.asarray(times.astype("int64")))
    if layout.axis == "counts":
        return frame.insert_column(0, column.cast(getattr(pl, str(layout.time))))
    column = column.cast(pl.Datetime(layout.unit, layout.timezone))
    return frame.insert_column(0, column.cast(pl.Date) if layout.time == "date" else column)
