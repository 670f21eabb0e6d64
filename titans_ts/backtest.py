"""How well a forecaster would have forecast: cutoffs in the past, floors beside, nothing ahead."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from titans_core import parameters
from titans_ts.backtest_frame import channel_names
from titans_ts.backtest_models import ForecasterRunner, Runner, SeasonRunner
from titans_ts.backtest_plan import Plan, make_plan, times_of
from titans_ts.backtest_result import BacktestResult
from titans_ts.backtest_scores import Forecasts
from titans_ts.floors import detect_season
from titans_ts.settings import is_count
from titans_ts.windows import Array

__all__ = ["backtest"]

Refit = bool | int | Literal["update"]

DEFAULT_COVERAGES = (80, 90)


def backtest(
    forecaster: Any,
    panel: Any,
    *,
    n_windows: int = 5,
    step: int | None = None,
    refit: Refit = False,
    season_length: int | None = None,
    levels: Sequence[float] | None = None,
    progress: bool = True,
) -> BacktestResult:
    """Forecast from the last cutoffs of a panel, each with the rows before it alone.

    Parameters
    ----------
    forecaster : TitansForecaster
        Its parameters are taken, fitted or not; it is not changed.
    panel : Panel
        A series ends where it ends: cutoffs are moments, the same for all.
    n_windows : int
        Cutoffs.
    step : int, optional
        Rows between cutoffs; None takes ``prediction_length``, so that no target comes twice.
    refit : bool, int or "update"
        False: fit before the first cutoff; the memories read later rows, nothing else learns.
        "update": they are learned by ``update``. True or k: fit again at every (k-th) cutoff.
    season_length : int, optional
        Rows of the season that the seasonal floor repeats and MASE divides by; None finds it in
        the rows before the first cutoff (`titans_ts.floors.detect_season`; 1 if there is none,
        which makes both floors one).
    levels : sequence of float, optional
        Coverages of the intervals in percent; None takes 80 and 90, as far as ``quantile_levels``
        reach, else their widest.
    progress : bool
        Show a bar of cutoffs on standard error.

    Returns
    -------
    BacktestResult

    Raises
    ------
    ValueError
        An argument is not as described; too few rows before the first cutoff.
    """
    parameters.check_params(forecaster, forecaster._parameter_constraints)
    rows = int(forecaster.prediction_length)
    step = rows if step is None else step
    every = _check(n_windows, step, refit, season_length)
    coverages = _coverages(levels, forecaster.quantile_levels)
    plan = make_plan(panel, rows, n_windows, step)
    before = [s.values[:n] for s, n in zip(panel.series, plan.known(0), strict=True)]
    season = detect_season(before) if season_length is None else int(season_length)
    if season >= (most := max(map(len, before))):
        raise ValueError(
            f"`season_length` is {season} rows, but only {most} lie before the first cutoff. Give "
            "more rows, fewer n_windows or a shorter season."
        )
    tails = (100 - np.array(coverages, dtype=float)) / 200
    quantiles = np.concatenate([tails[::-1], 1 - tails])
    runners: dict[str, Runner] = {
        "TitansForecaster": ForecasterRunner(forecaster, panel, quantiles),
        "Ridge": ForecasterRunner(
            forecaster, panel, quantiles, use_memory=False, use_network=False
        ),
        "Naive": SeasonRunner(panel, rows, quantiles, 1),
        "SeasonalNaive": SeasonRunner(panel, rows, quantiles, season),
    }

    from tqdm import tqdm

    parts, n_fits = [], 0
    for window in tqdm(range(n_windows), "backtest", disable=not progress, unit="cutoff"):
        known = plan.known(window)
        if window == 0 or (every and window % every == 0):
            members, n_fits = [i for i, n in enumerate(known) if n], n_fits + 1
            _fit(runners, known, n_windows)
        else:
            for runner in runners.values():
                runner.reveal(known, learn=refit == "update")
        answers = {name: runner.forecast() for name, runner in runners.items()}
        parts.append(_score(panel, plan, window, members, answers, season))
    names = channel_names(panel)
    forecasts = _together(parts, _spread(before))
    result = BacktestResult(
        forecasts=forecasts,
        channels=names,
        levels=coverages,
        season_length=season,
        n_windows=n_windows,
        step=step,
        prediction_length=rows,
        refit=refit,
        n_fits=n_fits,
        panel=panel,
        times=tuple(times_of(panel)),
    )
    if result.left_out:
        few = ", ".join(map(repr, result.left_out[:5])) + ", ..." * (len(result.left_out) > 5)
        warnings.warn(
            f"the backtest says nothing about {few}: {len(result.left_out)} of {len(names)} have "
            "no row to learn from before a cutoff, or no target behind one. Cutoffs are moments "
            "that all share, counted back from the latest row: series that ended earlier are "
            "scored with more n_windows or a longer step, or by a backtest of those that end "
            "together.",
            UserWarning,
            stacklevel=2,
        )
    return result


def _check(n_windows: Any, step: Any, refit: Any, season_length: Any) -> int:
    """Refuse what is not as described; return at every how many cutoffs to fit, 0 for once."""
    for name, value in {"n_windows": n_windows, "step": step}.items():
        if not is_count(value):
            raise ValueError(f"`{name}` must be an int >= 1; got {value!r}.")
    if season_length is not None and not is_count(season_length):
        raise ValueError(f"`season_length` must be an int >= 1 or None; got {season_length!r}.")
    if not (isinstance(refit, bool) or refit == "update" or is_count(refit)):
        raise ValueError(f"`refit` must be False, True, an int >= 1 or 'update'; got {refit!r}.")
    return 0 if refit == "update" else int(refit)


def _coverages(levels: Any, quantile_levels: Sequence[float]) -> tuple[float, ...]:
    """Coverages in percent, ascending."""
    reach = 100 * min(1 - 2 * quantile_levels[0], 2 * quantile_levels[-1] - 1)
    reach = round(reach, 6)  # levels may have been given in float32
    if levels is None:
        return tuple(level for level in DEFAULT_COVERAGES if level <= reach) or (
            (reach,) if reach > 0 else ()
        )
    numbers = isinstance(levels, list | tuple | np.ndarray) and all(
        isinstance(level, int | float | np.number) for level in levels
    )
    # Below 1 % it is a share that is meant, as `predict_interval` takes them.
    if not numbers or not all(1 <= level <= reach for level in levels):
        raise ValueError(
            f"`levels` must be a list of coverages in percent, such as [80], in [1, {reach:g}] as "
            f"quantile_levels reach from {quantile_levels[0]:g} to {quantile_levels[-1]:g}; got "
            f"{levels!r}."
        )
    return tuple(sorted({float(level) for level in levels}))


def _fit(runners: dict[str, Runner], known: list[int], n_windows: int) -> None:
    try:
        for runner in runners.values():
            runner.fit(known)
    except ValueError as error:
        raise ValueError(
            f"{error} (Here y is what comes before a cutoff, {max(known)} rows at most, for "
            f"n_windows = {n_windows}.)"
        ) from error


def _score(
    panel: Any,
    plan: Plan,
    window: int,
    members: list[int],
    answers: dict[str, tuple[Array, Array]],
    season: int,
) -> list[Forecasts]:
    """Lay the answers of one cutoff beside what came, channel by channel."""
    known, found = plan.known(window), []
    for member, i in enumerate(members):
        values, seen = panel.series[i].values, known[i]
        came = values[seen : seen + len(answers["Naive"][0][0])]
        scale = _naive_error(values[:seen], season)
        for c in range(values.shape[1]):
            # A channel of which nothing is known yet has no forecast that could be compared.
            sound = np.isfinite(came[:, c]) & np.isfinite(answers["Naive"][0][member, 0, c])
            ahead = np.flatnonzero(sound)
            n = len(ahead)
            found.append(
                Forecasts(
                    unit=np.full(n, i * values.shape[1] + c),
                    window=np.full(n, window),
                    known=np.full(n, seen),
                    place=seen + ahead,
                    actual=came[ahead, c],
                    naive_error=np.full(n, scale[c]),
                    point={m: point[member, ahead, c] for m, (point, _) in answers.items()},
                    quantiles={m: levels[member, ahead, c] for m, (_, levels) in answers.items()},
                    spread=np.empty(0),
                )
            )
    return found


def _together(parts: list[list[Forecasts]], spread: Array) -> Forecasts:
    """All cutoffs in one, ordered by channel, cutoff and time."""
    flat = [part for window in parts for part in window]
    if not sum(len(part.actual) for part in flat):
        raise ValueError("y has no value behind any cutoff: all targets are missing.")
    flat.sort(key=lambda part: int(part.unit[0]) if len(part.unit) else -1)
    names = ("unit", "window", "known", "place", "actual", "naive_error")
    stacked: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in flat]) for name in names
    }
    for name in ("point", "quantiles"):
        stacked[name] = {
            model: np.concatenate([getattr(part, name)[model] for part in flat])
            for model in flat[0].point
        }
    return Forecasts(**stacked, spread=spread)


def _naive_error(values: Array, season: int) -> Array:
    """What MASE divides by; NaN where the rows are no more than a season."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of an empty mean, which is NaN
        error: Array = np.nanmean(np.abs(values[season:] - values[: len(values) - season]), axis=0)
    return error


def _spread(values: list[Array]) -> Array:
    """Of each channel: what does not vary has no scale to weigh its errors by, unless none has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        spread = np.concatenate(
            [np.nanstd(y, axis=0) if len(y) else np.ones(y.shape[1]) for y in values]
        )
    varies = spread > 0
    return np.where(varies, spread, np.inf) if varies.any() else np.ones_like(spread)
