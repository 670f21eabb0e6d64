"""Whether new rows go with the panel fitted on: the same columns, and where they go on."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from titans_ts.panels import Panel, Series, check_not_empty
from titans_ts.series_kinds import Key, Layout
from titans_ts.time_axis import Time, advance_time, fixed_width, index_at, show
from titans_ts.time_grid import MAX_HOLE, MAX_TYPO
from titans_ts.time_step import calendar


def check_same_columns(layout: Layout, panel: Panel, name: str = "context") -> Panel:
    """Return a panel read with this layout, its channels in the order of the one fitted on.

    Frames are matched by name; arrays, and Series without a name, have only positions. Its series
    may be others than those fitted on.

    Raises
    ------
    ValueError
        If it has other channels, or a series has no value at all; or it is a list of other length.
    """
    if layout.count is not None and panel.layout.count not in (None, layout.count):
        raise ValueError(
            f"{name} holds {panel.layout.count} arrays; the forecaster was fitted on "
            f"{layout.count}, and each stands for the one in its place. Pass as many; or, of a "
            "series that was not fitted, its array by itself, or a long table with its own id."
        )
    panel = _order_columns(layout, panel, name)
    check_not_empty(panel, name, channels=False)
    return panel


def check_follows(
    layout: Layout, ends: Mapping[Key, Time], panel: Panel, name: str = "y_new"
) -> Panel:
    """Return a panel read with this layout if it continues known series, holes in front filled.

    Parameters
    ----------
    layout : Layout
        Of the panel fitted on.
    ends : mapping of key to time
        The last time seen of every series.
    panel : Panel
        Rows of some or all of them. Those that begin later than due get rows of NaN in front; in a
        list of arrays, one that is empty stands for a series without new rows.
    name : str
        What the user calls it, for messages.

    Raises
    ------
    ValueError
        If it is of another kind, has other columns or series, begins too early, off the grid, or
        more than `MAX_HOLE` steps late.
    """
    if _family(panel.layout) != _family(layout):
        without = f", with a column {layout.id_name!r}" if layout.long else ""
        raise ValueError(
            f"{name} is {panel.layout.described}; the forecaster was fitted on "
            f"{layout.described}. Pass the same kind{without}."
        )
    if panel.layout.count != layout.count:
        raise ValueError(
            f"{name} holds {panel.layout.count} series; the forecaster was fitted on "
            f"{layout.count}. Pass as many, empty arrays for those without new rows."
        )
    panel = _order_columns(layout, panel, name)
    if panel.layout.axis != layout.axis:
        raise ValueError(
            f"{name} has {panel.layout.axis} as its time axis; the forecaster was fitted on "
            f"{layout.axis}. Pass the same kind of time axis."
        )
    if unknown := [series.key for series in panel.series if series.key not in ends]:
        shown = ", ".join(map(repr, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
        raise ValueError(
            f"{name} has series that the forecaster was not fitted on: {shown}. Fit it on them, "
            "or forecast them from their own rows with predict(context=...)."
        )
    if layout.time is None:
        return panel
    due = {time: advance_time(layout, time, 1) for time in {ends[s.key] for s in panel.series}}
    return replace(
        panel,
        series=tuple(
            s if s.first_time == due[ends[s.key]] else _late(layout, ends[s.key], s, name)
            for s in panel.series
        ),
    )


def _family(layout: Layout) -> str:
    """What must be equal of a panel and its continuation: only columns with names can be moved."""
    if layout.long:
        return "long"
    return "arrays" if layout.kind == "numpy" and layout.ndim == 3 else layout.kind


def _order_columns(layout: Layout, panel: Panel, name: str) -> Panel:
    ours, theirs = layout.columns, panel.layout.columns
    arrays = ("numpy", "arrays")
    if layout.kind in arrays or panel.layout.kind in arrays or None in ours + theirs:
        if len(ours) == len(theirs):
            return panel
        flat = panel.layout.kind == "numpy" and panel.layout.ndim == 1
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
    if ours == theirs:
        return panel
    order = [theirs.index(label) for label in ours]
    series = tuple(
        replace(s, values=np.ascontiguousarray(s.values[:, order])) for s in panel.series
    )
    return Panel(series=series, layout=replace(panel.layout, columns=ours))


def _late(layout: Layout, end: Time, series: Series, name: str) -> Series:
    """A series that does not begin one step after the end: later on the grid, or refused."""
    whose = name if series.key is None else f"series {series.key!r} of {name}"
    steps, shift = _steps_between(layout, end, series.first_time)
    if steps is None or steps < 1:
        raise ValueError(
            f"{whose} must start at {show(advance_time(layout, end, 1))}, one step after the last "
            f"row seen; got {show(series.first_time)}"
            + (", which is no number of steps later" if steps is None else "")
            + ". Drop rows seen before, or number the rows on from there."
        )
    hole, rows = steps - 1, len(series.values)
    if hole > max(MAX_HOLE, MAX_TYPO * rows):
        raise ValueError(
            f"{whose} starts at {show(series.first_time)}, {hole} steps later than due; at most "
            f"{max(MAX_HOLE, MAX_TYPO * rows)} may be left out. Is a time mistyped? Else fit again."
        )
    last = series.last_time
    if shift:
        last = advance_time(layout, end, hole + rows)
        warnings.warn(
            f"the times of {whose} lie off the grid of the series fitted on by {shift} and were "
            "moved to it.",
            UserWarning,
            stacklevel=5,  # the line that called update
        )

    def later(values: Any) -> Any:
        return np.vstack([np.full((hole, values.shape[1]), np.nan), values]) if hole else values

    return replace(
        series,
        values=later(series.values),
        past=later(series.past),
        future=later(series.future),
        first_time=advance_time(layout, end, 1),
        last_time=last,
    )


def _steps_between(layout: Layout, end: Time, first: Time) -> tuple[int | None, Any]:
    """Steps from one time to another, None if they do not add up; by how much the other is off."""
    import pandas as pd

    both = index_at(layout, [end, first])
    begun, ended = (int(tick) for tick in both.astype("int64"))
    width = fixed_width(layout)
    if width is None:
        if ended <= begun:
            return 0, None
        grid = calendar(both, layout)
        place = grid.get_indexer(both[1:])[0]
        return (None if place < 0 else int(place)), None
    steps = (ended - begun + width // 2) // width
    shift = ended - begun - steps * width
    if layout.time not in ("date", "datetime"):
        return (None if shift and steps > 0 else steps), None
    if 4 * abs(shift) >= width:
        return (None if ended > begun else 0), None
    return steps, pd.Timedelta(abs(shift), layout.unit) if shift else None
