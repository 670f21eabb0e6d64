"""A panel and the private methods of the facade, as long as they are not there themselves.

What stands in for them uses only the public forecaster: one wide series without missing values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from titans_ts import TitansForecaster
from titans_ts.backtest import backtest
from titans_ts.frames import read_table
from titans_ts.series_kinds import Layout


@dataclass(frozen=True, kw_only=True)
class Series:
    key: str | int | None
    values: Any
    past: Any
    future: Any
    static: Any
    first_time: Any = None
    last_time: Any = None


@dataclass(frozen=True, kw_only=True)
class Panel:
    series: tuple[Series, ...]
    layout: Any


def series_of(values, key=None, first_time=None, last_time=None, future=None):
    rows = len(values)
    future = np.empty((rows, 0)) if future is None else future
    values = np.array(values, dtype=float)
    times = {"first_time": first_time, "last_time": last_time}
    past, static = np.empty((rows, 0)), np.empty(0)
    return Series(key=key, values=values, past=past, future=future, static=static, **times)


def panel_of(y, time_column=None):
    """The panel of one wide series."""
    table = read_table(y, time_column=time_column)
    one = series_of(table.values, None, table.first_time, table.last_time)
    return Panel(series=(one,), layout=table.layout)


def panel_of_arrays(*arrays):
    columns = tuple(range(arrays[0].shape[1]))
    layout = Layout(kind="numpy", columns=columns)
    return Panel(
        series=tuple(series_of(values, key) for key, values in enumerate(arrays)), layout=layout
    )


def lend(monkeypatch):
    """Give the forecaster what it lacks of the contract between it and a backtest."""

    def fit_panel(self, panel):
        self.time_column = None  # values have none
        return self.fit(panel.series[0].values)

    def update_panel(self, panel, learn=True):
        return self.update(panel.series[0].values, learn=learn)

    def forecast_all(self):
        return self.predict()[None], self.predict_quantiles()[None]

    def backtest_of(self, y, **options):
        return backtest(self, panel_of(y, self.time_column), **options)

    methods = {
        "_fit_panel": fit_panel,
        "_update_panel": update_panel,
        "_forecast_all": forecast_all,
        "backtest": backtest_of,
    }
    for name, method in methods.items():
        if not hasattr(TitansForecaster, name):
            monkeypatch.setattr(TitansForecaster, name, method, raising=False)


class Recorder:
    """What a backtest asks of a forecaster, in small: repeats the last row, and keeps the calls."""

    _parameter_constraints: ClassVar = {}
    calls: ClassVar[list] = []

    def __init__(self, prediction_length=4, *, use_network=True, progress=True, shift=0.0):
        self.prediction_length, self.use_network = prediction_length, use_network
        self.progress, self.shift = progress, shift
        self.quantile_levels = (0.1, 0.5, 0.9)

    def get_params(self):
        names = ("prediction_length", "use_network", "progress", "shift")
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
