"""The kinds of series: what each is called, how it is taken apart, what to advise in its words.

pandas and polars are imported only when a series needs them: importing this module is cheap.
"""

from __future__ import annotations

import difflib
import sys
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from titans_ts.windows import Array

Kind = Literal["numpy", "series", "pandas", "polars"]
Label = str | int | None

KINDS: dict[Kind, str] = {
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
    clock : str, optional
        Time of day of all stamps in a zone, if steps are days or longer: where clocks are put
        forward, a stamp may be later than that.
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
    clock: str | None = None

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


# Values (T, C), times as a pandas index or None, and the layout, of which the step is yet to find.
Parts = tuple[Array, Any, Layout]


def kind_of(y: Any, name: str) -> Kind:
    """Return the kind of a series, TypeError if it is none; imports nothing to find out."""
    classes: dict[Kind, tuple[str, str]] = {
        "pandas": ("pandas", "DataFrame"),
        "series": ("pandas", "Series"),
        "polars": ("polars", "DataFrame"),
    }
    for kind, (library, class_name) in classes.items():
        module = sys.modules.get(library)  # were `y` of this library, it would have been imported
        if module is not None and isinstance(y, getattr(module, class_name)):
            return kind
    in_polars = type(y).__module__.startswith("polars")  # its Series has __array__ too
    if isinstance(y, (list, tuple)) or (hasattr(y, "__array__") and not in_polars):
        return "numpy"
    got = type(y).__name__
    if type(y).__module__.startswith("scipy.sparse"):
        got = f"a sparse {got}. Pass {name}.toarray()"
    cures = {"Series": f" Pass {name}.to_frame().", "LazyFrame": f" Pass {name}.collect()."}
    raise TypeError(
        f"{name} must be a numpy array, a list of numbers, a pandas Series or DataFrame, or a "
        f"polars DataFrame; got {got}." + (cures.get(got, "") if in_polars else "")
    )


def cure(problem: str, layout: Layout, name: str, column: Label = None) -> str:
    """Return the sentence that says what to do about a problem."""
    cures = {"numpy": _NUMPY_CURES, "polars": _POLARS_CURES}.get(layout.kind, _PANDAS_CURES)
    return cures[problem].format(y=name, column=column) + "."


def read_numpy(y: Any, name: str) -> Parts:
    """Take apart an array, or lists that make one."""
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
    if array.dtype.kind == "c":  # in scikit-learn's words
        raise ValueError(
            f"Complex data not supported; {name} has dtype {array.dtype}. Make channels of its "
            f"parts: numpy.column_stack([{name}.real, {name}.imag])."
        )
    if array.dtype.kind not in "iuf":
        raise TypeError(
            f"{name} must hold real numbers; got dtype {array.dtype}. Convert it, e.g. "
            f"numpy.asarray({name}, dtype=float)."
        )
    one = array.ndim == 1
    values = np.array(array[:, None] if one else array, dtype=np.float64, order="C")
    columns = tuple(range(values.shape[1]))
    return values, None, Layout(kind="numpy", columns=columns, ndim=1 if one else 2)


def read_pandas(y: Any, name: str) -> Parts:
    """Take apart a Series or a DataFrame, with the times in its index."""
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
    values = y.to_numpy(dtype="float64", na_value=np.nan)
    values = np.array(values[:, None] if one else values, order="C")  # a copy

    if isinstance(times, pd.PeriodIndex):
        found = replace(found, time="period", step=times.freqstr)
    elif isinstance(times, pd.DatetimeIndex):
        zone = None if times.tz is None else str(times.tz)
        try:
            pd.Timestamp(0, tz=zone)  # finds the zone by its name, or does not
        except (KeyError, ValueError) as error:
            raise TypeError(
                f"the time zone of {name}, {times.tz}, has no name to find it by again. Convert "
                f"it, e.g. {name}.tz_convert('UTC')."
            ) from error
        found = replace(found, time="datetime", unit=times.unit, timezone=zone)
    elif isinstance(times, pd.RangeIndex):
        found = replace(found, time="range")
    elif times.dtype.kind in "iu":
        found = replace(found, time=str(times.dtype))
    else:
        raise TypeError(
            f"the index of {name} must be a DatetimeIndex, a PeriodIndex or integers; got dtype "
            f"{times.dtype}. Parse it, {name}.index = pandas.to_datetime({name}.index), or number "
            f"the rows, {name}.reset_index(drop=True)."
        )
    return values, times, found


def read_polars(y: Any, time_column: str | None, name: str) -> Parts:
    """Take apart a DataFrame, its times in the column named or in the only one of time stamps."""
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
    if dtype.is_integer():
        return values, pd.Index(times.to_numpy()), replace(found, time=str(dtype))
    if time_column not in stamps:
        raise TypeError(
            f"the time column {time_column!r} of {name} must be Date, Datetime or integer; got "
            f"{dtype}. {cure('text', found, name, time_column)}"
        )
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
            f"column per series: {cure('long', layout, name)}"
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
                f"{cure('text', layout, name, column)}"
            )
