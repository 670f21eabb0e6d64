"""Forecasts written in the kind of the question: its type, names, ids and time stamps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from titans_ts.series_kinds import Key, Layout
from titans_ts.time_axis import Time, times_from
from titans_ts.windows import Array

Ends = Sequence[tuple[Key, Time]]


def write_point(layout: Layout, ends: Ends, values: Array) -> Any:
    """Return forecasts (N, P, C) of the series with these ends in the kind of the question.

    Long tables: ids, times, a column per channel, series by series.
    """
    if layout.kind in ("numpy", "arrays"):
        return _arrays(layout, values, 2)
    if layout.kind == "series":
        import pandas as pd

        index = _pandas_index(layout, ends, values.shape[1])
        return pd.Series(values[0, :, 0], index=index, name=layout.columns[0])
    return _table(layout, ends, values, [(label,) for label in layout.columns], [])


def write_quantiles(
    layout: Layout, ends: Ends, values: Array, levels: Sequence[float] | Array
) -> Any:
    """Return quantiles (N, P, C, Q) in the kind of the question.

    An array stays one, (P, Q) if the series is 1-d. Wide pandas: columns (column, level), or the
    levels for a Series. Other tables: columns ``"{column}_q{level:g}"``. ValueError if two levels
    are equal, or two columns would have one name.
    """
    levels = [float(level) for level in levels]
    if len(set(levels)) < len(levels):
        raise ValueError(f"levels must be distinct; got {levels}.")
    if layout.kind in ("numpy", "arrays"):
        return _arrays(layout, values, 2)
    names = list(product(layout.columns, levels))
    if _named(layout):
        return _table(
            layout, ends, _flat(values, 3), [(f"{c}_q{q:g}",) for c, q in names], ["quantile"]
        )
    return _table(layout, ends, _flat(values, 3), names, ["quantile"])


def write_intervals(
    layout: Layout, ends: Ends, lower: Array, upper: Array, coverages: Sequence[float] | Array
) -> Any:
    """Return intervals, the bounds (N, P, C, K) each, in the kind of the question.

    Arrays: (P, C, K, 2), lower before upper. Wide pandas: columns (column, coverage, "lower" or
    "upper"), as sktime's. Long tables: ``y_lo90``, ``y_hi90``; other wide ones ``y_lower90``,
    ``y_upper90``. ValueError if two coverages are equal, or two columns would have one name.
    """
    coverages = [float(coverage) for coverage in coverages]
    if len(set(coverages)) < len(coverages):
        raise ValueError(f"coverage must be distinct; got {coverages}.")
    values = np.stack([lower, upper], axis=-1)
    if layout.kind in ("numpy", "arrays"):
        return _arrays(layout, values, 2)
    names: list[tuple[Any, ...]] = list(product(layout.columns, coverages, ("lower", "upper")))
    if _named(layout):
        short = {"lower": "lo", "upper": "hi"} if layout.long else {}
        names = [(f"{c}_{short.get(b, b)}{100 * k:g}",) for c, k, b in names]
    return _table(layout, ends, _flat(values, 3), names, ["coverage", "bound"])


def write_paths(layout: Layout, ends: Ends, values: Array) -> Any:
    """Return sample paths (N, S, P, C) in the kind of the question.

    Arrays: (S, P, C). Wide pandas: an index (path, time). Other tables: a column "path", numbered
    from 0, after the ids.
    """
    if layout.kind in ("numpy", "arrays"):
        return _arrays(layout, values, 3)
    names = [(label,) for label in layout.columns]
    return _table(layout, ends, values, names, [], paths=values.shape[1])


def _named(layout: Layout) -> bool:
    """Whether columns have but one name: pandas alone has several levels of them."""
    return layout.long or layout.kind not in ("pandas", "series")


def _flat(values: Array, axes: int) -> Array:
    return values.reshape(*values.shape[: axes - 1], -1)


def _arrays(layout: Layout, values: Array, channel_axis: int) -> Any:
    """Series by series, without the axis of channels if the question had none."""
    if layout.ndim == 1:
        values = np.asarray(values.take(0, axis=channel_axis))
    if layout.kind == "arrays":
        return list(values)
    return values if layout.ndim == 3 else values[0]


def _table(
    layout: Layout,
    ends: Ends,
    values: Array,
    names: list[tuple[Any, ...]],
    levels: list[str],
    paths: int = 0,
) -> Any:
    """A table with these columns; values (N, P, K), or with paths (N, S, P, K)."""
    steps = values.shape[-2]
    if layout.kind in ("pandas", "series") and not layout.long:
        return _wide_pandas(layout, ends, values.reshape(-1, len(names)), names, levels, paths)
    columns: dict[str, Any] = {}
    times = _time_column(layout, ends, steps, paths) if layout.time is not None else None
    if layout.time_first and times is not None:
        columns[str(layout.time_name)] = times
    if layout.long:
        keys = [key for key, _ in ends]
        columns[str(layout.id_name)] = _id_column(layout, keys, steps * max(paths, 1))
    if paths:
        columns["path"] = np.tile(np.repeat(np.arange(paths), steps), len(ends))
    if times is not None:
        columns.setdefault(str(layout.time_name), times)
    own_names = [layout.id_name, layout.time_name, "path" if paths else None]
    taken: list[Any] = [name for name in own_names if name is not None]
    taken += [name for (name,) in names]
    if twice := [name for name in taken if taken.count(name) > 1]:
        raise ValueError(
            f"two columns of the answer would be called {twice[0]!r}. Rename the channels, "
            "ids or times, or choose levels that differ in their first six digits."
        )
    flat = values.reshape(-1, len(names))
    own: dict[Any, Any] = {name: flat[:, i] for i, (name,) in enumerate(names)}
    if layout.kind == "pandas":
        import pandas as pd

        return pd.DataFrame(columns | own)
    if layout.kind == "pyarrow":
        import pyarrow as pa

        return pa.table({str(name): column for name, column in (columns | own).items()})
    import polars as pl

    frame = pl.DataFrame({str(name): column for name, column in (columns | own).items()})
    return frame.lazy() if layout.lazy else frame


def _wide_pandas(
    layout: Layout,
    ends: Ends,
    values: Array,
    names: list[tuple[Any, ...]],
    levels: list[str],
    paths: int,
) -> Any:
    import pandas as pd

    index = _pandas_index(layout, ends, len(values) // max(paths, 1))
    if paths:
        index = pd.MultiIndex.from_product([range(paths), index], names=["path", index.name])
    if layout.kind == "series":
        if not levels:
            return pd.Series(values[:, 0], index=index, name=layout.columns[0])
        names = [name[1:] for name in names]
    else:
        levels = [layout.columns_name, *levels]  # type: ignore[list-item]  # a label is no str
    columns: Any = (
        pd.Index([name for (name,) in names], name=levels[0])
        if len(levels) == 1
        else pd.MultiIndex.from_tuples(names, names=levels)
    )
    return pd.DataFrame(values, index=index, columns=columns)


def _pandas_index(layout: Layout, ends: Ends, steps: int) -> Any:
    index = _times(layout, ends[0][1], steps)
    if layout.axis == "counts" and layout.time != "range":
        index = _narrow(index, layout)
    return index.rename(layout.time_name)


def _narrow(index: Any, layout: Layout) -> Any:
    narrow = index.astype(layout.time)
    return narrow if (narrow == index).all() else index  # int64, if outgrown


def _times(layout: Layout, end: Time, steps: int) -> Any:
    return times_from(layout, end, steps + 1)[1:]  # type: ignore[arg-type]  # not None: has times


def _time_column(layout: Layout, ends: Ends, steps: int, paths: int) -> Any:
    """The times of all series one below the other, as a column of the question's library."""
    known = {end: _times(layout, end, steps) for end in {end for _, end in ends}}
    parts = [known[end] for _, end in ends for _ in range(max(paths, 1))]
    times = parts[0].append(parts[1:]) if len(parts) > 1 else parts[0]
    if layout.kind == "pandas":
        return _narrow(times, layout) if layout.axis == "counts" else times
    ticks = np.asarray(times.astype("int64"))
    dated = layout.time == "date"
    if layout.kind == "pyarrow":
        import pyarrow as pa

        if layout.axis == "counts":
            try:
                return pa.array(ticks).cast(str(layout.time))
            except pa.ArrowInvalid:
                return pa.array(ticks)
        stamps = pa.array(ticks).cast(pa.timestamp(layout.unit, layout.timezone))
        return stamps.cast(pa.date32()) if dated else stamps
    import polars as pl

    column = pl.Series(ticks)
    if layout.axis == "counts":
        narrow = column.cast(getattr(pl, str(layout.time)), strict=False)
        return column if narrow.has_nulls() else narrow
    column = column.cast(pl.Datetime(layout.unit, layout.timezone))
    return column.cast(pl.Date) if dated else column


def _id_column(layout: Layout, keys: list[Key], each: int) -> Any:
    """The ids, each so many times, in the dtype that they came in."""
    dtype, place = str(layout.id_dtype), np.repeat(np.arange(len(keys)), each)
    if layout.kind == "pandas":
        import pandas as pd

        if dtype == "category":
            known = list(layout.id_categories or ())
            categories = known + [key for key in keys if key not in known]
            return pd.Categorical(keys, categories=categories).take(place)
        ids: Any = pd.Series(keys, dtype=dtype)
        return ids.take(place).reset_index(drop=True)
    if layout.kind == "pyarrow":
        import pyarrow as pa

        if dtype.startswith("dictionary"):
            return pa.DictionaryArray.from_arrays(pa.array(place, pa.int32()), pa.array(keys))
        return pa.array(keys, pa.type_for_alias(dtype)).take(pa.array(place))
    import polars as pl

    kind = pl.Enum(layout.id_categories or ()) if dtype == "Enum" else getattr(pl, dtype)
    return pl.Series(keys, dtype=kind).gather(place)
