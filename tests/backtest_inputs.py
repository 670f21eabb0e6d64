"""Panels of arrays, and a forecaster that keeps what a backtest asks of it."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from titans_ts.frames import Panel, Roles, Series, read_panel
from titans_ts.series_kinds import Layout


def series_of(values, key=None, first_time=None, last_time=None, future=None):
    rows = len(values)
    future = np.empty((rows, 0)) if future is None else future
    values = np.array(values, dtype=float)
    times = {"first_time": first_time, "last_time": last_time}
    past, static = np.empty((rows, 0)), np.empty(0)
    return Series(key=key, values=values, past=past, future=future, static=static, **times)


def panel_of(y, time_column=None):
    """The panel of whatever a user may give."""
    return read_panel(y, Roles(time_column=time_column))


def panel_of_arrays(*arrays):
    """A list of arrays, targets that are all missing among them."""
    columns = tuple(range(arrays[0].shape[1]))
    layout = Layout(kind="arrays", columns=columns)
    return Panel(
        series=tuple(series_of(values, key) for key, values in enumerate(arrays)), layout=layout
    )


class Recorder:
    """What a backtest asks of a forecaster, in small: repeats the last row, and keeps the calls."""

    _parameter_constraints: ClassVar = {}
    calls: ClassVar[list] = []

    def __init__(
        self, prediction_length=4, *, use_memory=True, use_network=True, progress=True, shift=0.0
    ):
        self.prediction_length, self.use_network = prediction_length, use_network
        self.use_memory = use_memory
        self.progress, self.shift = progress, shift
        self.quantile_levels = (0.1, 0.5, 0.9)

    def get_params(self):
        names = ("prediction_length", "use_memory", "use_network", "progress", "shift")
        return {name: getattr(self, name) for name in names}

    def set_params(self, **params):
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def _note(self, call, panel, *more):
        if self.use_network:  # the ridge floor is asked the same
            seen = {s.key: s.values[:, 0].tolist() for s in panel.series}
            self.calls.append((call, seen, *more))

    def _fit_panel(self, panel):
        self._note("fit", panel)
        self.last = {series.key: series.values[-1] for series in panel.series}

    def _update_panel(self, panel, learn=True):
        self._note("update", panel, learn)
        assert {series.key for series in panel.series} <= set(self.last)
        self.last |= {series.key: series.values[-1] for series in panel.series}

    def _forecast_all(self, future=None):
        if self.use_network:
            self.calls.append(("forecast", future))
        rows = np.stack(list(self.last.values()))[:, None]
        point = np.repeat(np.nan_to_num(rows), self.prediction_length, axis=1) + self.shift
        return point, point[..., None] + np.array([-1.0, 0.0, 1.0])
