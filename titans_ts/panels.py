"""A panel: series on complete, evenly spaced time grids, of whatever the user gave."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from titans_ts.array_series import read_arrays
from titans_ts.covariate_columns import encode, learn_categories
from titans_ts.parts import Parts
from titans_ts.series_kinds import COVARIATES, Key, Label, Layout, Roles, cure, kind_of
from titans_ts.tables import read_table
from titans_ts.time_axis import Time, scalar, show
from titans_ts.time_grid import Grid, lay_on_grid
from titans_ts.windows import Array


@dataclass(frozen=True, kw_only=True)
class Series:
    """One series of a panel, on its own complete, evenly spaced time grid.

    Parameters
    ----------
    key : str or int, optional
        Its id; its position in a list of arrays; None for the one series of a wide table.
    values : ndarray of shape (T, C)
        The channels in C order, NaN where missing, in rows that were left out too.
    past, future : ndarray of shape (T, Kp), (T, Kf)
        Covariates known up to now, and known ahead; categories one-hot, NaN where missing.
    static : ndarray of shape (Ks,)
        Covariates of the series as a whole.
    first_time, last_time : str or int, optional
        JSON scalars; None without a time axis.
    """

    key: Key
    values: Array
    past: Array
    future: Array
    static: Array
    first_time: Time = None
    last_time: Time = None


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Series that share channels, covariates and step, in order of first appearance."""

    series: tuple[Series, ...]
    layout: Layout

    @property
    def ends(self) -> list[tuple[Key, Time]]:
        """Key and last time of each series, which `write_point` goes on from."""
        return [(series.key, series.last_time) for series in self.series]


def read_panel(
    y: Any, roles: Roles | None = None, *, name: str = "y", layout: Layout | None = None
) -> Panel:
    """Check series of any kind and bring them into one form.

    Parameters
    ----------
    y : array-like, list of arrays, or table of pandas, polars (lazy, too) or pyarrow
        Arrays: (T,), (T, C), (N, T, C), or a list of (T_i,) or (T_i, C). Wide tables: one row per
        time step, one column per channel; pandas has the times in the index, the others in a
        column or nowhere. Long tables: one row per series and time, in any order.
    roles : Roles, optional
        Which column is what; those of the `layout`, if that is given.
    name : str
        What the user calls `y`, for messages.
    layout : Layout, optional
        Of the panel fitted on: its step, roles and categories hold for `y` too, which may then be
        a single row or have nothing but missing values.

    Returns
    -------
    Panel
        A copy. Missing values are NaN, as are the rows that were left out.

    Raises
    ------
    TypeError
        If `y` is none of these kinds, or holds other things than real numbers.
    ValueError
        If it is empty, a value is infinite, a series or channel has no value, or the times are
        not on one grid.

    Warns
    -----
    UserWarning
        If times were moved by less than a quarter of a step.

    Notes
    -----
    The step is that of the index, else inferred from all series: from Monday to Friday alone it is
    a day; for business days show a weekend, or give the index a `freq`. A table whose rows end
    with missing targets ends there: what is known ahead goes to `read_future`.

    Examples
    --------
    >>> panel = read_panel([1, 2, None])
    >>> panel.series[0].values.ravel()
    array([ 1.,  2., nan])
    """
    kind = kind_of(y, name)
    roles = roles or Roles()
    if layout is not None:
        roles = layout.roles
        arrays = ("numpy", "arrays")
        if (kind in arrays) != (layout.kind in arrays) and not roles.covariates:
            roles = Roles(id_column=roles.id_column)  # names and positions: in order, then
    if kind in ("numpy", "arrays", "series") and roles.time_column is not None and layout is None:
        raise ValueError(
            f"`time_column` is for tables; {name} is {Layout(kind=kind, columns=()).described}. "
            f"A pandas object has the times in the index, e.g. by {name}.set_index"
            f"({roles.time_column!r})."
        )
    if kind in ("numpy", "arrays"):
        parts = read_arrays(y, kind, roles, name)
    else:
        parts = read_table(y, kind, roles, layout, name)
    if not parts.targets.size:
        if parts.layout.columns:
            raise ValueError(f"{name} has no rows; needs at least one.")
        # The numbers in scikit-learn's words, which its suite looks for.
        raise ValueError(
            f"{name} has no columns of values: 0 feature(s) (shape={parts.targets.shape}) while a "
            "minimum of 1 is required."
        )
    parts.arrange()
    if layout is None and (bare := np.flatnonzero(np.diff(parts.bounds) == 0)).size:
        raise ValueError(f"series {parts.keys[bare[0]]!r} of {name} has no rows; leave it out.")
    _check_finite(parts, name)
    grid = lay_on_grid(parts, layout, name)
    learned = learn_categories(parts) if layout is None else layout.categories
    found = replace(grid.layout, categories=learned)
    panel = Panel(series=_series(parts, grid, found, name), layout=found)
    if layout is None:
        check_not_empty(panel, name)
    return panel


def check_not_empty(panel: Panel, name: str, *, channels: bool = True) -> None:
    """ValueError if a series has no value at all, or no series has one in a channel."""
    seen = np.array([~np.isnan(series.values).all(axis=0) for series in panel.series])
    for series, some in zip(panel.series, seen, strict=True):
        if not some.any():
            whose = name if series.key is None else f"series {series.key!r} of {name}"
            raise ValueError(f"{whose} has only missing values; drop it or give it some.")
    if channels and not seen.any(axis=0).all():
        column = panel.layout.columns[int(np.argmin(seen.any(axis=0)))]
        which = name if column is None else f"column {column!r} of {name}"
        raise ValueError(f"{which} has only missing values; drop it.")


def _check_finite(parts: Parts, name: str) -> None:
    columns: list[tuple[Label, Array]] = [
        *zip(parts.layout.columns, parts.targets.T, strict=True),
        *parts.columns.items(),
    ]
    for label, values in columns:
        bad = np.isinf(values)
        if count := np.count_nonzero(bad):
            row = int(np.argmax(bad))
            when = "" if parts.times is None else f" ({show(scalar(parts.times[row]))})"
            where = "" if label is None else f"in column {label!r} "
            raise ValueError(
                f"{name} has {count} infinite value{'s' if count > 1 else ''}; first {where}"
                f"at {parts.place(row)}{when}. {cure('infinite', parts.layout, name)}"
            )


def _series(parts: Parts, grid: Grid, layout: Layout, name: str) -> tuple[Series, ...]:
    past, future, static = (
        encode(parts, getattr(layout.roles, role), layout.categories) for role in COVARIATES
    )
    found = []
    for i, key in enumerate(parts.keys):
        part = slice(parts.bounds[i], parts.bounds[i + 1])
        if part.start == part.stop:
            continue  # an empty array in a list: nothing new of this series
        row, rows = grid.row[part], int(grid.rows[i])
        found.append(
            Series(
                key=key,
                values=_spread(parts.targets[part], row, rows),
                past=_spread(past[part], row, rows),
                future=_spread(future[part], row, rows),
                static=_constant(parts, static[part], layout, key, name),
                first_time=grid.first[i],
                last_time=grid.last[i],
            )
        )
    return tuple(found)


def _spread(values: Array, row: Any, rows: int) -> Array:
    """Put rows on their grid, NaN in between."""
    if len(values) == rows:
        return values
    spread = np.full((rows, values.shape[1]), np.nan)
    spread[row] = values
    return spread


def _constant(parts: Parts, rows: Array, layout: Layout, key: Key, name: str) -> Array:
    """The one value of each static covariate; rows without one do not count."""
    there = ~np.isnan(rows)
    first = rows[there.argmax(axis=0), np.arange(rows.shape[1])]
    changed = ((rows != first) & there).any(axis=0)
    if changed.any():
        column = layout.static_names[int(np.argmax(changed))]
        label = column if column in parts.columns else column.split("=")[0]
        whose = name if key is None else f"series {key!r} of {name}"
        raise ValueError(
            f"static covariate {label!r} changes within {whose}; it must be constant. Name it in "
            "past_covariates or future_covariates if it is meant to change."
        )
    return first
