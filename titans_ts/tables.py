"""Tables of pandas, polars and pyarrow taken apart, wide or long, eager or lazy.

What the three have in common goes through narwhals, column by column; only times and categories
are asked for in each library's own words. A LazyFrame is read in pieces, never whole.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from titans_ts.parts import Parts, real_numbers
from titans_ts.series_kinds import Kind, Label, Layout, Roles, cure
from titans_ts.table_columns import check_label, codes, column_of, dtype_of, id_type, read_times
from titans_ts.windows import Array


def read_table(y: Any, kind: Kind, roles: Roles, known: Layout | None, name: str) -> Parts:
    """Take apart a Series or a table; `known` is the layout of the panel fitted on, if any."""
    if kind == "series":
        _check_not_a_row(y, name, known)
        labels: tuple[Label, ...] = (check_label(y.name, name),)
        for column in (*(roles.target_columns or ()), *roles.covariates):
            if column not in labels or column in roles.covariates:
                raise ValueError(
                    f"{name} is a pandas Series, named {labels[0]!r}, and has no column {column!r} "
                    "beside it. Pass a DataFrame with all columns."
                )
        layout = Layout(kind=kind, columns=labels, ndim=1, roles=roles)
        y = y.to_frame(name=0)  # whatever its name: it is the only column
        chosen, positions = _Chosen(targets=labels), {labels[0]: 0}
    else:
        labels = _labels(y, kind, name)
        layout = _layout(y, kind, labels, roles, name)
        chosen = _choose(y, layout, labels, known, name)
        positions = {label: i for i, label in enumerate(labels)}
        layout = replace(
            layout,
            columns=chosen.targets,
            columns_name=check_label(y.columns.name, name) if kind == "pandas" else None,
            time_name=chosen.time,
            time_first=layout.long and positions[chosen.time] < positions[layout.id_name],
        )
    ids = [layout.id_name] if layout.long else []
    wanted = [*ids, *([] if chosen.time is None else [chosen.time]), *chosen.targets]
    wanted += [c for c in roles.covariates if c not in wanted]
    reader = _Reader(layout, chosen, name)
    for piece in _pieces(y, kind, [positions[label] for label in wanted]):
        reader.take(piece, {label: i for i, label in enumerate(wanted)})
    return reader.parts(y)


class _Chosen:
    """Which columns are read: the targets, and the times if a column holds them."""

    def __init__(self, targets: tuple[Any, ...], time: Any = None) -> None:
        self.targets, self.time = targets, time


def _check_not_a_row(y: Any, name: str, known: Layout | None) -> None:
    """``df.iloc[i]`` has channels where a Series has its rows."""
    if known is not None and known.kind == "pandas" and set(known.columns) <= set(y.index):
        raise ValueError(
            f"{name} is a single row, whose time would be lost as the Series' name. Pass it as a "
            "table: df.iloc[[i]], or row.to_frame().T with the name of the index."
        )


def _labels(y: Any, kind: Kind, name: str) -> tuple[Label, ...]:
    if kind == "pandas":
        labels = tuple(check_label(label, name) for label in y.columns.tolist())
    elif kind == "pyarrow":
        labels = tuple(y.column_names)
    else:
        labels = tuple(y.collect_schema().names())
    for i, label in enumerate(labels):
        if label in labels[:i]:
            raise ValueError(
                f"{name} must have a name of its own for each column; got {label!r} at positions "
                f"{labels.index(label)} and {i}. Rename or drop one."
            )
    return labels


def _layout(y: Any, kind: Kind, labels: tuple[Label, ...], roles: Roles, name: str) -> Layout:
    ids = roles.id_column
    if kind == "pandas" and ids in y.index.names:
        raise ValueError(
            f"the index of {name} holds {ids!r}; a long table has it in a column. Pass "
            f"{name}.reset_index()."
        )
    if ids not in labels and ids != Roles.id_column:
        raise ValueError(_no_column("id", ids, labels, name))
    layout = Layout(kind=kind, columns=(), roles=roles, lazy=type(y).__name__ == "LazyFrame")
    return replace(layout, long=True, id_name=ids) if ids in labels else layout


def _choose(
    y: Any, layout: Layout, labels: tuple[Label, ...], known: Layout | None, name: str
) -> _Chosen:
    """Find out which column is what."""
    roles = layout.roles
    for role in ("past_covariates", "future_covariates", "static_covariates", "target_columns"):
        for column in getattr(roles, role) or ():
            if column not in labels:
                what = role.removesuffix("_columns").removesuffix("s").replace("_", " ")
                raise ValueError(_no_column(what, column, labels, name))
    time: Any = roles.time_column
    if layout.kind == "pandas" and not layout.long:
        if time is not None and known is None:
            raise ValueError(
                f"`time_column` is not for a wide pandas DataFrame, such as {name}, which has the "
                f"times in the index, e.g. by {name}.set_index({time!r})."
            )
        time = None
    else:
        if time is None and known is not None and known.time_name is not None:
            same = known.kind == layout.kind and known.long == layout.long
            time = known.time_name if same else None
        if time is None:
            time = _find_times(y, layout, labels, name)
        elif time not in labels:
            raise ValueError(_no_column("time", time, labels, name))
    if roles.target_columns is not None:
        return _Chosen(roles.target_columns, time)
    taken = {time, layout.id_name, *roles.covariates} - {None}
    free = [label for label in labels if label not in taken]
    if layout.long and known is not None and known.long:
        for column in known.columns:
            if column not in free:
                raise ValueError(_no_column("target", column, labels, name))
        free = list(known.columns)
    elif layout.long and "y" in free:
        free = ["y"]
    elif layout.long:
        free = [label for label, kind in _schema(y, free).items() if kind.is_numeric()]
    elif known is not None and known.long and known.time_name in free:  # no context of one series
        raise ValueError(_no_column("id", known.id_name, labels, name))
    return _Chosen(tuple(free), time)


def _find_times(y: Any, layout: Layout, labels: tuple[Label, ...], name: str) -> Label:
    taken = (layout.id_name, *layout.roles.covariates, *(layout.roles.target_columns or ()))
    free = [label for label in labels if label not in taken]
    if layout.long and "ds" in free:
        return "ds"
    stamps = [label for label, kind in _schema(y, free).items() if kind.is_temporal()]
    stamps = [label for label in stamps if "Duration" not in str(_schema(y, [label])[label])]
    if len(stamps) > 1:
        raise ValueError(
            f"{name} has several time columns, {stamps}. Name one with `time_column` and drop the "
            "others."
        )
    if layout.long and not stamps:
        raise ValueError(
            f"{name} is a long table, as it has a column {layout.id_name!r}, but has no column "
            f"'ds' nor one of time stamps; it has {list(labels)}. Name one with `time_column`."
        )
    return stamps[0] if stamps else None


def _schema(y: Any, labels: list[Any]) -> dict[Any, Any]:
    import narwhals.stable.v2 as nw

    if hasattr(y, "iloc"):
        return {label: nw.from_native(y[label], series_only=True).dtype for label in labels}
    schema = nw.from_native(y).collect_schema()
    return {label: schema[label] for label in labels}


def _is_object(column: Any) -> bool:
    return str(dtype_of(column)) == "object" and hasattr(column, "to_numpy")


def _no_column(role: str, column: Any, labels: tuple[Label, ...], name: str) -> str:
    near = difflib.get_close_matches(str(column), [str(label) for label in labels])
    guess = f"Did you mean {near[0]!r}? " if near else ""
    return f"{name} has no {role} column {column!r}. {guess}It has {list(labels)}."


def _pieces(y: Any, kind: Kind, positions: list[int]) -> Iterator[Any]:
    """The columns at the positions; those of a LazyFrame row by row in bounded pieces."""
    if kind in ("pandas", "series"):
        yield y.iloc[:, positions]
    elif type(y).__name__ != "LazyFrame":
        yield y.select([(y.column_names if kind == "pyarrow" else y.columns)[i] for i in positions])
    else:
        names = y.collect_schema().names()
        lazy = y.select([names[i] for i in positions])
        yield lazy.clear().collect()  # the dtypes, even if there are no rows
        if hasattr(lazy, "collect_batches"):  # polars 1.34
            yield from lazy.collect_batches(maintain_order=True, engine="streaming")
        else:
            yield lazy.collect(engine="streaming")


class _Reader:
    """Takes pieces of a table one after the other, each column as numbers."""

    def __init__(self, layout: Layout, chosen: _Chosen, name: str) -> None:
        self.layout, self.chosen, self.name = layout, chosen, name
        self.targets = np.empty((0, len(chosen.targets)))
        self.times: list[Any] = []
        self.owner: list[Any] = []
        self.keys: dict[Any, int] = {}
        self.words: dict[Label, dict[str, int]] = {}
        self.columns: dict[Label, list[Array]] = {c: [] for c in layout.roles.covariates}

    def take(self, piece: Any, position: dict[Label, int]) -> None:
        begun, rows = len(self.targets), len(piece)
        # In place where the operating system can: the rows read so far are not held twice.
        self.targets.resize((begun + rows, self.targets.shape[1]), refcheck=False)
        columns = {label: column_of(piece, i) for label, i in position.items()}
        for i, label in enumerate(self.chosen.targets):
            self.targets[begun:, i] = self._target(label, columns[label])
        for label, parts in self.columns.items():
            parts.append(self._covariate(label, columns[label]))
        if self.layout.long:
            self.owner.append(self._owners(columns[self.layout.id_name], begun))
        if self.chosen.time is not None:
            index, self.layout = read_times(columns[self.chosen.time], self.layout, self.name)
            if index.hasnans:
                row = begun + int(np.argmax(index.isna()))
                raise self._error(ValueError, f"{self.name} has no time at row {row}", "untimed")
            self.times.append(index)

    def parts(self, y: Any) -> Parts:
        layout, times = self.layout, None
        if self.times:
            times = self.times[0].append(self.times[1:]) if len(self.times) > 1 else self.times[0]
        elif layout.kind in ("pandas", "series"):
            times, layout = read_times(y.index, layout, self.name)
            layout = replace(layout, time_name=check_label(y.index.name, self.name))
            if times.hasnans:
                row = int(np.argmax(times.isna()))
                raise self._error(ValueError, f"{self.name} has no time at row {row}", "untimed")
        return Parts(
            layout=layout,
            targets=self.targets,
            columns={label: np.concatenate(parts) for label, parts in self.columns.items()},
            words={label: list(words) for label, words in self.words.items()},
            times=times,
            owner=np.concatenate(self.owner) if layout.long else None,
            keys=list(self.keys) if layout.long else [None],
        )

    def _target(self, label: Label, column: Any) -> Array:
        if self.layout.kind in ("pandas", "series") and column.dtype == np.float64:
            return np.asarray(column)  # no detour for the usual case: one window is read in no time

        import narwhals.stable.v2 as nw

        series = nw.from_native(column, series_only=True)
        if series.dtype.is_numeric():
            return series.cast(nw.Float64).to_numpy()
        values = real_numbers(column.to_numpy()) if _is_object(column) else None
        if values is None:
            which = self.name if label is None else f"column {label!r} of {self.name}"
            text = f"{which} must hold real numbers; got dtype "
            raise self._error(TypeError, text + str(dtype_of(column)), "text", label)
        return values

    def _covariate(self, label: Label, column: Any) -> Array:
        import narwhals.stable.v2 as nw

        series = nw.from_native(column, series_only=True)
        if series.dtype.is_numeric() or series.dtype == nw.Boolean:
            return series.cast(nw.Float64).to_numpy()
        is_object = _is_object(column)
        # Booleans with a missing one among them, as `reindex` leaves them, are objects.
        values = real_numbers(column.to_numpy(), booleans=True) if is_object else None
        if values is not None:
            return values
        if not (is_object or series.dtype in (nw.String, nw.Categorical, nw.Enum)):
            text = f"column {label!r} of {self.name} must hold numbers, booleans or text to be a "
            raise self._error(
                TypeError, f"{text}covariate; got dtype {dtype_of(column)}", "text", label
            )
        found, texts = codes(column)
        words = self.words.setdefault(label, {})
        known = [words.setdefault(str(value), len(words)) for value in texts]
        return np.array([*known, np.nan])[found]  # a missing one has the code -1

    def _owners(self, column: Any, begun: int) -> Any:
        if self.layout.id_dtype is None:
            dtype, categories = id_type(column)
            self.layout = replace(self.layout, id_dtype=dtype, id_categories=categories)
        layout = self.layout
        found, values = codes(column)
        if (found < 0).any():
            row = begun + int(np.argmax(found < 0))
            raise ValueError(
                f"{self.name} has no {layout.id_name!r} at row {row}. Say which series it is of, "
                "or drop such rows."
            )
        values = [value.item() if isinstance(value, np.generic) else value for value in values]
        if bad := [v for v in values if not isinstance(v, (str, int)) or isinstance(v, bool)]:
            raise TypeError(
                f"the ids in {layout.id_name!r} of {self.name} must be text or integers; got "
                f"{bad[0]!r}. Convert them, e.g. to text."
            )
        known = [self.keys.setdefault(value, len(self.keys)) for value in values]
        return np.array(known, dtype=np.int64)[found]

    def _error(
        self, error: type[Exception], text: str, problem: str, column: Any = None
    ) -> Exception:
        column = self.chosen.time if column is None else column
        return error(f"{text}. {cure(problem, self.layout, self.name, column)}")
