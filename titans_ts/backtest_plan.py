"""Where a backtest stops to forecast, and what of a panel is known there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from titans_ts.time_axis import advance_time, times_from

__all__ = ["Plan", "cut_panel", "make_plan", "times_of"]


@dataclass(frozen=True)
class Plan:
    """Cutoffs on the rows that all series of a panel share.

    Parameters
    ----------
    cutoffs : tuple of int
        Shared rows before each cutoff, ascending: what may be known there.
    offsets, lengths : tuple of int
        The shared row that each series begins at, and how many rows it has.
    """

    cutoffs: tuple[int, ...]
    offsets: tuple[int, ...]
    lengths: tuple[int, ...]

    def known(self, window: int) -> list[int]:
        """How many rows of each series lie before the cutoff of a window."""
        cutoff = self.cutoffs[window]
        return [
            min(max(cutoff - offset, 0), length)
            for offset, length in zip(self.offsets, self.lengths, strict=True)
        ]


def make_plan(panel: Any, prediction_length: int, n_windows: int, step: int) -> Plan:
    """Place the last cutoffs, ``step`` rows apart, so that all targets lie within the panel.

    Cutoffs are moments, the same for all series: what one series tells of a later time cannot help
    with another. Without times the series are taken to end together.

    Raises
    ------
    ValueError
        No row lies before the first cutoff.
    """
    lengths = tuple(len(series.values) for series in panel.series)
    if panel.series[0].last_time is None:
        ends = (max(lengths),) * len(lengths)
    else:
        ends = tuple(_rows_until([series.last_time for series in panel.series], panel.layout))
    starts = [end - length for end, length in zip(ends, lengths, strict=True)]
    offsets = tuple(start - min(starts) for start in starts)
    rows = max(ends) - min(starts)
    first = rows - prediction_length - (n_windows - 1) * step
    if first < 1:
        raise ValueError(
            f"y has {rows} rows; {n_windows} windows of {prediction_length} rows, {step} apart, "
            f"take {rows - first} and leave none to learn from. Give more rows, fewer n_windows "
            "or a shorter step."
        )
    return Plan(tuple(range(first, first + n_windows * step, step)), offsets, lengths)


def _rows_until(times: list[Any], layout: Any) -> Iterable[int]:
    """By how many steps each time lies behind the earliest."""
    if isinstance(times[0], int):
        return [(time - min(times)) // int(layout.step or 1) for time in times]
    # Looked up among times that were counted on, which knows month ends and changes of clocks.
    stamps = [times_from(layout, time, 1)[0] for time in times]
    earliest, latest = int(np.argmin(stamps)), max(stamps)
    n = 1
    while (grid := times_from(layout, times[earliest], n))[-1] < latest:
        n *= 2
    return np.searchsorted(grid, stamps).tolist()


def cut_panel(panel: Any, starts: list[int], stops: list[int]) -> Any:
    """Keep the rows ``starts[i] <= row < stops[i]`` of each series; one of no rows is left out."""
    kept = [
        replace(
            series,
            values=series.values[start:stop].copy(),
            past=series.past[start:stop].copy(),
            future=series.future[start:stop].copy(),
            first_time=advance_time(panel.layout, series.first_time, start),
            last_time=advance_time(panel.layout, series.first_time, stop - 1),
        )
        for series, start, stop in zip(panel.series, starts, stops, strict=True)
        if stop > start
    ]
    return replace(panel, series=tuple(kept))


def times_of(panel: Any) -> list[Any]:
    """The times of each series, a pandas index; row numbers where there are none."""
    import pandas as pd

    found: list[Any] = []
    for series in panel.series:
        n = len(series.values)
        if series.first_time is None:
            found.append(pd.RangeIndex(n))
            continue
        times = times_from(panel.layout, series.first_time, n)
        found.append(times.to_timestamp() if isinstance(times, pd.PeriodIndex) else times)
    return found
