"""Panels of a single series, as tests of what each kind looks like see them."""

from __future__ import annotations

from titans_ts import frames
from titans_ts.frames import Panel, Roles


class Table:
    """The one series of a panel, and its layout."""

    def __init__(self, panel: Panel) -> None:
        (series,) = panel.series
        self.panel, self.layout, self.values = panel, panel.layout, series.values
        self.first_time, self.last_time = series.first_time, series.last_time


def read_table(y, *, time_column=None, name="y", layout=None):
    roles = Roles(time_column=time_column)
    return Table(frames.read_panel(y, roles, name=name, layout=layout))


def check_same_columns(layout, table, name="context"):
    return Table(frames.check_same_columns(layout, table.panel, name))


def check_follows(layout, last_time, table, name="y_new"):
    return Table(frames.check_follows(layout, {None: last_time}, table.panel, name))


def write_point(layout, last_time, values):
    return frames.write_point(layout, [(None, last_time)], values[None])


def write_quantiles(layout, last_time, values, levels):
    return frames.write_quantiles(layout, [(None, last_time)], values[None], levels)
