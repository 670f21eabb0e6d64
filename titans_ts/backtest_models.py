"""What a backtest runs side by side: a forecaster and the floors, on the same rows."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from titans_ts.backtest_plan import cut_panel
from titans_ts.floors import repeat_season, season_errors
from titans_ts.outlook import at_levels
from titans_ts.windows import Array

__all__ = ["ForecasterRunner", "Runner", "SeasonRunner"]


class Runner(Protocol):
    """One model of a backtest. ``known`` says how many rows of each series it may have seen."""

    def fit(self, known: list[int]) -> None:
        """Learn from scratch; a series of which nothing is known is no member until a next fit."""

    def reveal(self, known: list[int], *, learn: bool) -> None:
        """Take in the rows that came since."""

    def forecast(self) -> tuple[Array, Array]:
        """Point (N, P, C) and quantiles (N, P, C, Q) of the members, in the order of the panel."""


class ForecasterRunner:
    """A `TitansForecaster` with the parameters of another one, which is left alone."""

    def __init__(self, forecaster: Any, panel: Any, quantiles: Array, **changes: Any) -> None:
        self._panel, self._quantiles = panel, quantiles
        self._forecaster = type(forecaster)(**forecaster.get_params())
        self._forecaster.set_params(progress=False, **changes)
        self._known = [0] * len(panel.series)
        self._members: list[int] = []

    def fit(self, known: list[int]) -> None:  # noqa: D102  # as in Runner
        self._members = [i for i, rows in enumerate(known) if rows]
        self._known = list(known)
        self._forecaster._fit_panel(cut_panel(self._panel, [0] * len(known), known))

    def reveal(self, known: list[int], *, learn: bool) -> None:  # noqa: D102
        stops = [rows if i in self._members else 0 for i, rows in enumerate(known)]
        fresh = cut_panel(self._panel, self._known, stops)
        self._known = list(known)
        if fresh.series:  # all members may have ended
            self._forecaster._update_panel(fresh, learn=learn or "memory")

    def forecast(self) -> tuple[Array, Array]:  # noqa: D102
        point, quantiles = self._forecaster._forecast_all(*self._covariates())
        levels = np.asarray(self._forecaster.quantile_levels, dtype=float)
        return point, at_levels(quantiles, levels, self._quantiles)

    def _covariates(self) -> list[list[Array]]:
        """What is known ahead by its nature: no look into the future, it is part of the question.

        NaN after the end of a series, whose forecasts nobody scores.
        """
        rows = self._forecaster.prediction_length
        found = []
        for i in self._members:
            future = self._panel.series[i].future
            ahead = np.full((rows, future.shape[1]), np.nan)
            said = future[self._known[i] : self._known[i] + rows]
            ahead[: len(said)] = said
            found.append(ahead)
        return [found] if found[0].size else []


class SeasonRunner:
    """Repeat the last season (with ``season_length=1`` the last row), with quantiles of its errors.

    The point stands on all rows that are known; the errors are those within the rows that a
    forecaster would have learned from.
    """

    def __init__(
        self, panel: Any, prediction_length: int, quantiles: Array, season_length: int
    ) -> None:
        self._values = [series.values for series in panel.series]
        self._rows, self._quantiles, self._season = prediction_length, quantiles, season_length
        self._known: list[int] = []
        self._errors: dict[int, Array] = {}

    def fit(self, known: list[int]) -> None:  # noqa: D102
        self._known, self._errors = known, {}
        for i, rows in enumerate(known):
            if rows:
                self._errors[i] = season_errors(
                    self._values[i][:rows], self._season, self._rows, self._quantiles
                )

    def reveal(self, known: list[int], *, learn: bool) -> None:  # noqa: D102
        members = set(self._errors)
        if learn:
            self.fit([rows if i in members else 0 for i, rows in enumerate(known)])
        self._known = known

    def forecast(self) -> tuple[Array, Array]:  # noqa: D102
        point = np.stack(
            [
                repeat_season(self._values[i][: self._known[i]], self._season, self._rows)
                for i in self._errors
            ]
        )
        return point, point[..., None] + np.stack(list(self._errors.values()))
