"""The kinds of series: what each is called, which column is what, what to advise in its words.

pandas, polars and pyarrow are not imported here: what comes from them was imported before.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

Kind = Literal["numpy", "arrays", "series", "pandas", "polars", "pyarrow"]
Label = str | int | None
Key = str | int | None

KINDS: dict[Kind, str] = {
    "numpy": "a numpy array",
    "arrays": "a list of arrays",
    "series": "a pandas Series",
    "pandas": "a pandas DataFrame",
    "polars": "a polars DataFrame",
    "pyarrow": "a pyarrow Table",
}
# What to do about it, in the words of the user's library. {y} is the name of the argument, {column}
# the offending column or the one of the times, {id} that of the ids.
_NUMPY_CURES = {"infinite": "Replace them by finite numbers, or by nan if they are unknown"}
_PANDAS_CURES = {
    "text": "Convert it with astype(float), drop it, say id_column={column!r} if it tells series "
    "apart or, if it holds the times, make it the index (pandas.to_datetime, then set_index)",
    "time": "Parse it: {y}[{column!r}] = pandas.to_datetime({y}[{column!r}])",
    "infinite": "Replace them, e.g. {y}.replace([inf, -inf], nan)",
    "untimed": "Drop such rows: {y}[{y}.index.notna()]",
    "unsorted": "Sort the rows: {y}.sort_index()",
    "duplicated": "Keep one row of each, e.g. {y}[~{y}.index.duplicated(keep='last')]",
    "uneven": "Resample it, e.g. {y}.resample(...).mean(), or number the rows instead: "
    "{y}.reset_index(drop=True)",
    "single": "Give more rows, or say the step, e.g. {y}.asfreq('D')",
}
_POLARS_CURES = {
    "text": "Cast it to a number, drop it, say id_column={column!r} if it tells series apart or, "
    "if it holds the times, parse it: {y}.with_columns(pl.col({column!r}).str.to_datetime())",
    "time": "Parse it: {y}.with_columns(pl.col({column!r}).str.to_datetime())",
    "infinite": "Replace them, e.g. using pl.col(...).is_finite()",
    "untimed": "Drop such rows: {y}.drop_nulls({column!r})",
    "unsorted": "Sort the rows: {y}.sort({column!r})",
    "duplicated": "Keep one row of each, e.g. {y}.unique({column!r}, keep='last', "
    "maintain_order=True)",
    "uneven": "Resample it, e.g. {y}.group_by_dynamic({column!r}, every=...), or drop the times: "
    "{y}.drop({column!r})",
    "single": "Give more rows, or drop the times: {y}.drop({column!r})",
}
_PYARROW_CURES = {
    "text": "Cast it to a number, drop it or, if it holds the times, parse it with "
    "pyarrow.compute.strptime",
    "time": "Parse it with pyarrow.compute.strptime",
    "infinite": "Replace them, e.g. using pyarrow.compute.if_else and is_finite",
    "untimed": "Drop such rows: {y}.filter(pyarrow.compute.field({column!r}).is_valid())",
    "unsorted": "Sort the rows: {y}.sort_by({column!r})",
    "duplicated": "Keep one row of each, e.g. {y}.group_by({column!r}, use_threads=False)"
    ".aggregate(...)",
    "uneven": "Resample it, e.g. with pyarrow.compute.floor_temporal and group_by, or drop the "
    "times: {y}.drop_columns({column!r})",
    "single": "Give more rows, or drop the times: {y}.drop_columns({column!r})",
}
_LONG_CURES: dict[str, dict[str, str]] = {
    "pandas": {
        "text": "Convert it with astype(float), or leave it out of the roles",
        "untimed": "Drop such rows: {y}.dropna(subset=[{column!r}])",
        "duplicated": "Keep one row of each, e.g. {y}.drop_duplicates([{id!r}, {column!r}], "
        "keep='last')",
        "uneven": "Resample it, e.g. {y}.groupby({id!r}).resample(..., on={column!r}).mean()",
    },
    "polars": {
        "text": "Cast it to a number, or leave it out of the roles",
        "duplicated": "Keep one row of each, e.g. {y}.unique([{id!r}, {column!r}], keep='last', "
        "maintain_order=True)",
        "uneven": "Resample it, e.g. {y}.sort({column!r}).group_by_dynamic({column!r}, every=..., "
        "group_by={id!r})",
    },
    "pyarrow": {
        "duplicated": "Keep one row of each, e.g. {y}.group_by([{id!r}, {column!r}], "
        "use_threads=False).aggregate(...)",
        "uneven": "Resample it, e.g. with pyarrow.compute.floor_temporal and group_by",
    },
}
_ANY_LONG_CURE = {"single": "Give at least one series with two rows or more"}


@dataclass(frozen=True, kw_only=True)
class Roles:
    """Which column is what. Labels are column names; of arrays, positions.

    Parameters
    ----------
    time_column : str, optional
        The times; None takes "ds" of a long table, else the only column of time stamps. A wide
        pandas frame has them in the index.
    id_column : str
        What tells the series of a long table apart; a table is long if it has this column.
    target_columns : tuple of str or int, optional
        The channels to forecast. None: "y" of a long table that has it, else every numeric column
        of a long one, every column of a wide one, that has no other role.
    past_covariates, future_covariates, static_covariates : tuple of str or int
        Columns known up to now, known ahead, and constant within a series.

    Raises
    ------
    ValueError
        If a column has two roles.
    """

    time_column: str | None = None
    id_column: str = "unique_id"
    target_columns: tuple[str | int, ...] | None = None
    past_covariates: tuple[str | int, ...] = ()
    future_covariates: tuple[str | int, ...] = ()
    static_covariates: tuple[str | int, ...] = ()

    def __post_init__(self) -> None:
        taken: dict[Any, str] = {self.id_column: "id_column"}
        if self.time_column is not None:
            taken.setdefault(self.time_column, "time_column")
        for role in ("target_columns", *COVARIATES):
            given = getattr(self, role)
            if given is None:
                continue
            given = (given,) if isinstance(given, (str, int)) else tuple(given)
            object.__setattr__(self, role, given)
            for column in given:
                if column in taken:
                    raise ValueError(
                        f"column {column!r} is named in {taken[column]} and in {role}; a column "
                        "has one role. Name it once."
                    )
                taken[column] = role

    @property
    def covariates(self) -> tuple[str | int, ...]:
        """All covariates: past, then future, then static."""
        return self.past_covariates + self.future_covariates + self.static_covariates


COVARIATES = ("past_covariates", "future_covariates", "static_covariates")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """All that a panel is besides its values: what two must share, and how the answer looks.

    Parameters
    ----------
    kind : {"numpy", "arrays", "series", "pandas", "polars", "pyarrow"}
        What it was given as.
    columns : tuple of str or int
        One label per channel: positions for arrays, (None,) for a pandas Series without a name.
    columns_name : str or int, optional
        Name of the pandas column index.
    ndim : {1, 2, 3}
        Dimensions of an array, or of each in a list; 1 for a Series.
    count : int, optional
        How many series a list or a cube of arrays holds, which have no other names.
    long, lazy : bool
        A table with a row per series and time; a polars LazyFrame.
    id_name : str, optional
        The id column of a long table.
    id_dtype, id_categories : str, tuple of str, optional
        Its dtype in the words of its library, and the categories if that has any.
    time_first : bool
        A long table has the times before the ids.
    time : str, optional
        None (no time axis), "range" (RangeIndex), an integer dtype, "date", "datetime", "period".
    time_name : str or int, optional
        Name of the pandas index, or of the time column.
    step : str or int, optional
        From one row to the next: a pandas offset alias, or a number on an integer axis.
    unit, timezone : str, optional
        Resolution and time zone of time stamps.
    clock : str, optional
        Time of day of all stamps in a zone, if steps are days or longer: where clocks are put
        forward, a stamp may be later than that.
    roles : Roles
        What was asked for; the covariates are those of the panel.
    categories : tuple of (label, tuple of str)
        Of each covariate that is text: the categories learned, sorted. One that was not learned is
        all zeros.
    """

    kind: Kind
    columns: tuple[Label, ...]
    columns_name: Label = None
    ndim: Literal[1, 2, 3] = 2
    count: int | None = None
    long: bool = False
    lazy: bool = False
    id_name: str | None = None
    id_dtype: str | None = None
    id_categories: tuple[str, ...] | None = None
    time_first: bool = False
    time: str | None = None
    time_name: Label = None
    step: str | int | None = None
    unit: Any = None
    timezone: str | None = None
    clock: str | None = None
    roles: Roles = field(default_factory=Roles)
    categories: tuple[tuple[str | int, tuple[str, ...]], ...] = ()

    @property
    def axis(self) -> str:
        """Kind of time axis, in words: equal for series that can follow each other."""
        if self.time in ("date", "datetime"):
            return f"time stamps in {self.timezone}" if self.timezone else "time stamps"
        return {None: "no times", "period": f"periods of {self.step!r}"}.get(self.time, "counts")

    @property
    def described(self) -> str:
        """What it was given as, in words."""
        if self.kind == "numpy" and self.ndim == 3:
            return "a numpy array of three dimensions"
        if self.lazy:
            return "a long polars LazyFrame" if self.long else "a polars LazyFrame"
        return KINDS[self.kind].replace("a ", "a long " if self.long else "a ", 1)

    @property
    def past_names(self) -> tuple[str, ...]:
        """A name for each column of `Series.past`, such as "wind" or "place=Ulm"."""
        return self._encoded(self.roles.past_covariates)

    @property
    def future_names(self) -> tuple[str, ...]:
        """A name for each column of `Series.future`, such as "holiday=yes"."""
        return self._encoded(self.roles.future_covariates)

    @property
    def static_names(self) -> tuple[str, ...]:
        """A name for each entry of `Series.static`."""
        return self._encoded(self.roles.static_covariates)

    def _encoded(self, columns: tuple[str | int, ...]) -> tuple[str, ...]:
        known = dict(self.categories)
        return tuple(
            name
            for column in columns
            for name in (
                [f"{column}={category}" for category in known[column]]
                if column in known
                else [str(column)]
            )
        )

    def to_dict(self) -> dict[str, Any]:
        """Return JSON scalars and lists by field."""
        return {name: _listed(value) for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Layout:
        """Rebuild what `to_dict` returned."""
        tupled = {name: _tupled(value) for name, value in stored.items()}
        roles = {name: _tupled(value) for name, value in stored["roles"].items()}
        return cls(**tupled | {"roles": Roles(**roles)})


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _listed(entry) for name, entry in value.items()}
    return [_listed(entry) for entry in value] if isinstance(value, (tuple, list)) else value


def _tupled(value: Any) -> Any:
    return tuple(_tupled(entry) for entry in value) if isinstance(value, (tuple, list)) else value


def kind_of(y: Any, name: str) -> Kind:
    """Return the kind of a panel, TypeError if it is none; imports nothing to find out."""
    classes: list[tuple[Kind, str, str]] = [
        ("pandas", "pandas", "DataFrame"),
        ("series", "pandas", "Series"),
        ("polars", "polars", "DataFrame"),
        ("polars", "polars", "LazyFrame"),
        ("pyarrow", "pyarrow", "Table"),
    ]
    for kind, library, class_name in classes:
        module = sys.modules.get(library)  # were `y` of this library, it would have been imported
        if module is not None and isinstance(y, getattr(module, class_name)):
            return kind
    library = type(y).__module__.split(".")[0]
    if isinstance(y, (list, tuple)):
        inner = {type(entry).__module__.split(".")[0] for entry in y}
        if frames := inner & {"pandas", "polars", "pyarrow"} - {"builtins"}:
            if any(hasattr(entry, "shape") for entry in y):
                raise TypeError(
                    f"{name} is a list that holds {frames.pop()} objects. Make it one long table, "
                    "with a row per series and time and a column 'unique_id'."
                )
        elif y and all(isinstance(entry, np.ndarray) and entry.ndim for entry in y):
            return "arrays"
        return "numpy"
    if hasattr(y, "__array__") and library not in ("pandas", "polars", "pyarrow"):
        return "numpy"
    got = type(y).__name__
    hint = f" Pass {name}.to_frame()." if library == "polars" and got == "Series" else ""
    if type(y).__module__.startswith("scipy.sparse"):
        got, hint = f"a sparse {got}", f" Pass {name}.toarray()."
    raise TypeError(
        f"{name} must be a numpy array, a list of numbers or arrays, a pandas Series or DataFrame, "
        f"a polars DataFrame or LazyFrame, or a pyarrow Table; got {got}.{hint}"
    )


def cure(problem: str, layout: Layout, name: str, column: Label = None) -> str:
    """Return the sentence that says what to do about a problem."""
    wide = {"polars": _POLARS_CURES, "pyarrow": _PYARROW_CURES}.get(layout.kind, _PANDAS_CURES)
    cures = dict(_NUMPY_CURES if layout.kind in ("numpy", "arrays") else wide)
    if layout.long:
        cures |= _LONG_CURES[layout.kind] | _ANY_LONG_CURE
    return cures[problem].format(y=name, column=column, id=layout.id_name) + "."
