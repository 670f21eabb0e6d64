"""What a backtest found: a tidy frame, a summary with skill over the floors, a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from titans_ts.backtest_frame import forecast_frame, history_frame, to_kind
from titans_ts.backtest_scores import Forecasts, block_length_for
from titans_ts.backtest_summary import METRICS, OURS, Metric, summarize

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["BacktestResult"]


@dataclass(frozen=True, repr=False, eq=False, kw_only=True)
class BacktestResult:
    """Forecasts at past cutoffs beside what came, and beside the floors; made by ``backtest``.

    Attributes
    ----------
    forecasts : Forecasts
        The same as ``frame``, as arrays.
    channels : tuple
        What ``unique_id`` is, by number.
    levels : tuple of float
        Coverages of the intervals in percent, ascending.
    season_length : int
        As given or found.
    n_windows, step, prediction_length : int
    refit : bool, int or "update"
    n_fits : int
        How many times the forecaster was fitted.
    panel : Panel
    times : tuple of pandas Index
        Of each series.
    """

    forecasts: Forecasts
    channels: tuple[str | int, ...]
    levels: tuple[float, ...]
    season_length: int
    n_windows: int
    step: int
    prediction_length: int
    refit: bool | int | str
    n_fits: int
    panel: Any
    times: tuple[Any, ...]

    @cached_property
    def frame(self) -> Any:
        """Every forecast, for ``utilsforecast.evaluation.evaluate``.

        Columns ``unique_id, ds, cutoff, y``, then for each model the point and its intervals, as
        ``TitansForecaster, TitansForecaster-lo-90, ..., TitansForecaster-hi-90``. ``cutoff`` is
        the time of the last row that was known. polars if the series were, else pandas. Rows
        whose target is missing are left out.
        """
        return to_kind(self._frame, self.panel.layout)

    @cached_property
    def history(self) -> Any:
        """All rows, long: for ``evaluate`` as ``train_df``, read up to each cutoff alone."""
        return to_kind(self._history, self.panel.layout)

    @cached_property
    def _frame(self) -> Any:
        return forecast_frame(self.forecasts, self.times, self.channels, self.levels)

    @cached_property
    def _history(self) -> Any:
        return history_frame([s.values for s in self.panel.series], self.times, self.channels)

    @property
    def left_out(self) -> tuple[str | int, ...]:
        """Channels without any forecast that could be compared."""
        found = set(self.forecasts.unit.tolist())
        return tuple(name for i, name in enumerate(self.channels) if i not in found)

    def summary(
        self,
        metric: Metric = "mse",
        *,
        by_channel: bool = False,
        confidence: float = 0.95,
        n_resamples: int = 2000,
        random_state: int = 0,
    ) -> Any:
        """Errors of each model, and the forecaster's skill over each floor.

        ``skill = 1 - error / error of the floor``: 0.1 is an error smaller by a tenth. Its interval
        is that of a circular block bootstrap over whole windows, in blocks of as many as share
        targets (at least the cube root of their number); it covers the choice of cutoffs, not of
        seeds. It is a little too narrow below eight windows, and NaN below four blocks.

        Parameters
        ----------
        metric : {"mse", "mae", "mase", "pinball"}
            What skill is of.
        by_channel : bool
            A row for each channel and model, with ``unique_id`` first.
        confidence : float
            Of the interval, in (0, 1).
        n_resamples, random_state : int
            Of the bootstrap.

        Returns
        -------
        data frame
            Columns model, mse, mae, mase, pinball (mean over the quantiles), a coverage for each
            of ``levels``, skill, skill_low, skill_high; of the kind of ``frame``. Errors are in
            units of the data, mean over all rows. Skill over all channels counts each in units of
            its standard deviation before the first cutoff, so that none drowns the others.

        Raises
        ------
        ValueError
            An argument is not as described.
        """
        if metric not in METRICS:
            raise ValueError(f"`metric` must be one of {', '.join(METRICS)}; got {metric!r}.")
        if not 0 < confidence < 1:
            raise ValueError(f"`confidence` must be in (0, 1); got {confidence!r}.")
        options = {"n_resamples": n_resamples, "random_state": random_state}
        names = self.channels if by_channel else None
        found = self._summarize(metric, names, confidence=confidence, **options)
        return to_kind(found, self.panel.layout)

    def _summarize(self, metric: Metric, names: Any, **options: Any) -> Any:
        n = self.n_windows
        block = block_length_for(n, self.prediction_length, self.step)
        return summarize(self.forecasts, names, self.levels, n, block, metric, **options)

    def plot(
        self, channels: Sequence[Any] | None = None, *, model: str = OURS, **options: Any
    ) -> Figure:
        """Draw history, what came, and the forecasts at each cutoff: `plots.plot_backtest`.

        Parameters
        ----------
        channels : sequence, optional
            Which to draw, by ``unique_id``; None takes the first six.
        model : str
            Whose forecasts.
        **options
            To `plots.plot_backtest`.
        """
        from titans_ts.plots_backtest import plot_backtest

        return plot_backtest(self._frame, self._history, channels=channels, model=model, **options)

    def plot_errors(self, metric: Metric = "mse") -> Figure:
        """Draw the skill over each floor, channel by channel: `plots.plot_channel_skill`."""
        from titans_ts.plots_backtest import plot_channel_skill

        return plot_channel_skill(self._summarize(metric, self.channels), metric=metric)

    def _table(self) -> list[list[str]]:
        """The summary as cells, the first row being its head."""
        frame = self._summarize("mse", None)
        shown = [name for name in frame if not str(name).startswith("skill")]
        rows = [[*map(str, shown), "skill of TitansForecaster"]]
        for row in frame.to_dict("records"):
            cells = [str(row["model"]), *(f"{row[name]:.4g}" for name in shown[1:])]
            interval = f" [{row['skill_low']:.1%}, {row['skill_high']:.1%}]"
            known = np.isfinite(row["skill_low"])
            skill = f"{row['skill']:.1%}" + interval * bool(known)
            rows.append([*cells, skill if np.isfinite(row["skill"]) else ""])
        return rows

    def _caption(self) -> str:
        how = {"update": "learning as rows came", "False": f"fitted {self.n_fits} time"}
        told = how.get(str(self.refit), f"fitted {self.n_fits} times")
        same = all(
            np.array_equal(answers[OURS], answers["Ridge"])
            for answers in (self.forecasts.point, self.forecasts.quantiles)
        )
        # Else one would take a skill of exactly nothing for a mistake.
        note = " TitansForecaster is Ridge here: no network, or none that validation let in." * same
        scored = np.unique(self.forecasts.unit)
        unlike = len(scored) < len(self.channels)
        channels = f"{len(scored)} of " * unlike + f"{len(self.channels)} channels"
        still = int(np.isinf(self.forecasts.spread[scored]).sum())
        if still:
            note += f" Skill is without {still} that did not vary before the first cutoff."
        return (
            f"{self.n_windows} cutoffs, {self.step} rows apart, {self.prediction_length} rows "
            f"ahead; {channels}; {told}; season of {self.season_length} rows. "
            "Skill: share of the mean squared error saved; in brackets a 95 % interval." + note
        )

    def __str__(self) -> str:
        table = self._table()
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(
                f"{cell:<{width}}" if i == 0 else f"{cell:>{width}}"
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in table
        ]
        return "\n".join([*lines, "", self._caption()])

    def __repr__(self) -> str:
        return (
            f"<BacktestResult: {self.n_windows} cutoffs, {len(self.channels)} channels, "
            f"{len(self.forecasts.actual)} forecasts; print it, or see .frame and .summary()>"
        )

    def _repr_html_(self) -> str:
        def cells(row: list[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) + "</tr>"

        head, *rows = self._table()
        body = "".join(cells(row, "td") for row in rows)
        return f"<table>{cells(head, 'th')}{body}</table><p>{escape(self._caption())}</p>"
