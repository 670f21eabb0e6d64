"""The door between users' data and the forecaster, which answers in the kind of the question.

Inside, data are a `Panel`: series, each a float64 array (T, C) on a complete grid of times, and the
`Layout` that turns such arrays back into what the user gave. `series_kinds` says which kinds there
are; `array_series` and `tables` take them apart, `time_step` and `time_grid` put the rows on a
grid, `panels` assembles; `following` and `future_rows` check what comes later, `answers` writes.
"""

from __future__ import annotations

from titans_ts.answers import write_intervals, write_paths, write_point, write_quantiles
from titans_ts.following import check_follows, check_same_columns
from titans_ts.future_rows import read_future
from titans_ts.panels import Panel, Series, read_panel
from titans_ts.series_kinds import Layout, Roles
from titans_ts.time_axis import advance_time

__all__ = [
    "Layout",
    "Panel",
    "Roles",
    "Series",
    "advance_time",
    "check_follows",
    "check_same_columns",
    "read_future",
    "read_panel",
    "write_intervals",
    "write_paths",
    "write_point",
    "write_quantiles",
]
