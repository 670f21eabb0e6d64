"""sktime's own suite on the adapter, and the adapter's numbers beside the forecaster's.

python -m pytest tests/test_sktime.py
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

from titans_core import BackboneConfig, NeuralMemoryConfig
from titans_core.training import TrainingConfig
from titans_ts import TitansForecaster

pytest.importorskip("sktime", reason="sktime is an extra: pip install 'titans-stream[sktime]'")

from sktime.forecasting.base import ForecastingHorizon
from sktime.forecasting.model_evaluation import evaluate
from sktime.forecasting.model_selection import ForecastingGridSearchCV
from sktime.split import ExpandingWindowSplitter, SlidingWindowSplitter
from sktime.utils.estimator_checks import check_estimator, parametrize_with_checks

from titans_ts.sktime import TitansSktimeForecaster

# Check of sktime's suite -> why it fails. None does.
EXPECTED: dict[str, str] = {}

MONTHS = pd.period_range("2005-01", periods=150, freq="M")
DAYS = pd.date_range("2024-01-01", periods=150, freq="D")
COUNTS = pd.RangeIndex(150)
LINEAR: dict[str, Any] = {"prediction_length": 4, "context_length": 20, "use_network": False}
NETWORK: dict[str, Any] = {
    **LINEAR,
    "use_network": True,
    "patch_length": 5,
    "backbone": BackboneConfig(memory=NeuralMemoryConfig(dim=8), num_blocks=1),
    "training": TrainingConfig(max_steps=4, validate_every=2),
}


def series(index: pd.Index = DAYS, channels: int = 2) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    season = np.sin(np.arange(len(index)) / 3)[:, None]
    values = season + rng.normal(size=(len(index), channels)).cumsum(axis=0) / 4
    return pd.DataFrame(values, index=index, columns=list("abcdef")[:channels])


@pytest.fixture
def fitted() -> TitansSktimeForecaster:
    return TitansSktimeForecaster(**LINEAR).fit(series()[:100], fh=[1, 2, 3, 4])


# With a network too: what is fitted, moved, copied and stored. The rest of the suite is about what
# the adapter does with time stamps, columns and horizons, which a network has no part in.
OF_FITTED_STATE = {
    "test_clone",
    "test_fit_returns_self",
    "test_non_state_changing_method_contract",
    "test_persistence_via_pickle",
    "test_save_estimators_to_file",
}
# They run for every kind of time stamp, or of horizon and coverage, on both of `get_test_params`:
# the first will do.
OF_MANY_CASES = {
    "test_predict_interval",
    "test_predict_time_index",
    "test_predict_time_index_in_sample_full",
    "test_predict_time_index_with_X",
    "test_update_predict_predicted_index",
}
TINY: dict[str, Any] = {
    "patch_length": 8,
    "backbone": BackboneConfig(memory=NeuralMemoryConfig(dim=4), num_blocks=1),
    "training": TrainingConfig(max_steps=1, validate_every=1),
}


def run_check(obj: Any, name: str) -> None:
    with warnings.catch_warnings():
        # What sktime warns its own users of is not ours to answer for.
        warnings.simplefilter("ignore")
        check_estimator(obj, tests_to_run=name, raise_exceptions=True, verbose=False)


@parametrize_with_checks([TitansSktimeForecaster])
def test_the_whole_suite_of_sktime(obj: Any, test_name: str) -> None:
    if test_name in EXPECTED:
        pytest.xfail(EXPECTED[test_name])
    run_check(obj.create_test_instance() if test_name in OF_MANY_CASES else obj, test_name)


@pytest.mark.parametrize("name", sorted(OF_FITTED_STATE))
def test_its_checks_of_what_is_fitted_with_a_network(name: str) -> None:
    run_check(TitansSktimeForecaster(**TINY), name)


@pytest.mark.parametrize("params", [LINEAR, NETWORK], ids=["linear", "network"])
@pytest.mark.parametrize("index", [DAYS, MONTHS, COUNTS], ids=["days", "months", "counts"])
def test_its_numbers_are_those_of_the_forecaster(params: dict[str, Any], index: pd.Index) -> None:
    y = series(index)
    adapter = TitansSktimeForecaster(**params).fit(y[:100])
    forecaster = TitansForecaster(**params, progress=False).fit(y[:100])
    levels = [0.1, 0.5, 0.8]
    for rows in (slice(100, 101), slice(101, 130)):
        y_pred = adapter.predict(fh=[1, 2, 3, 4])
        pd.testing.assert_frame_equal(y_pred, forecaster.predict(), check_freq=False)
        quantiles = adapter.predict_quantiles(fh=[1, 2, 3, 4], alpha=levels)
        np.testing.assert_array_equal(quantiles, forecaster.predict_quantiles(levels))
        # Bit for bit what the forecaster's own update learns: no refit.
        model = adapter.forecaster_.model_
        adapter.update(y[rows])
        forecaster.update(y[rows])
        assert adapter.forecaster_.model_ is model
    pd.testing.assert_frame_equal(
        adapter.predict(fh=[1, 2, 3, 4]), forecaster.predict(), check_freq=False
    )


def test_a_series_stays_one_with_its_name() -> None:
    y = series()["a"]
    adapter = TitansSktimeForecaster(**LINEAR).fit(y[:100])
    forecaster = TitansForecaster(**LINEAR).fit(y[:100])
    pd.testing.assert_series_equal(adapter.predict(fh=[1, 2]), forecaster.predict(2))


def test_an_array_is_answered_with_an_array() -> None:
    y = series().to_numpy()
    y_pred = TitansSktimeForecaster(**LINEAR).fit(y).predict(fh=[1, 4])
    np.testing.assert_array_equal(y_pred, TitansForecaster(**LINEAR).fit(y).predict()[[0, 3]])


def test_without_parameters_updated_only_the_origin_moves(fitted: TitansSktimeForecaster) -> None:
    forecaster = TitansForecaster(**LINEAR).fit(series()[:100]).update(series()[100:110], False)
    y_pred = fitted.update(series()[100:110], update_params=False).predict()
    np.testing.assert_array_equal(y_pred, forecaster.predict())


def test_any_part_of_the_horizon_is_that_part_of_the_forecast(
    fitted: TitansSktimeForecaster,
) -> None:
    whole = fitted.predict(fh=[1, 2, 3, 4])
    for fh in ([3], [2, 4], ForecastingHorizon(DAYS[[101, 103]], is_relative=False)):
        part = fitted.predict(fh=fh)
        pd.testing.assert_frame_equal(part, whole.loc[part.index], check_freq=False)
    assert list(part.index) == [DAYS[101], DAYS[103]]


@pytest.mark.parametrize(
    ("given", "fh", "rows"),
    [(None, [-3, 2, 7], 7), (None, [-3, 0], 1), (9, 1, 9), (None, None, 24)],
)
def test_the_longest_horizon_at_fit_is_what_is_fitted(given: Any, fh: Any, rows: int) -> None:
    adapter = TitansSktimeForecaster(given, use_network=False).fit(series(), fh=fh)
    assert adapter.forecaster_.prediction_length == rows
    assert adapter.predict(fh=[rows]).index == [DAYS[-1] + rows * DAYS.freq]


def test_rows_are_forecast_in_sample_from_the_rows_before_them(
    fitted: TitansSktimeForecaster,
) -> None:
    y = series()
    inside = fitted.predict(fh=[-1, 0, 1])
    for row in (98, 99):
        expected = fitted.forecaster_.predict(1, context=y[row - 20 : row])
        pd.testing.assert_frame_equal(inside.loc[[DAYS[row]]], expected, check_freq=False)
    whole = fitted.predict(fh=-np.arange(100))
    assert whole[:20].isna().all(axis=None)  # less than the look-back lies before them
    assert whole[20:].notna().all(axis=None)
    residuals = fitted.predict_residuals()
    np.testing.assert_array_equal(residuals, y[:100] - whole)
    inner = fitted.predict_interval(fh=[-5, 0], coverage=0.8)
    assert inner.notna().all(axis=None)


def test_intervals_are_the_conformal_ones(fitted: TitansSktimeForecaster) -> None:
    coverage = [0.2, 0.93, 0.5]  # in the order asked for; quantile levels reach 0.9 only
    interval = fitted.predict_interval(coverage=coverage)
    assert list(interval["a"].columns.get_level_values(0).unique()) == coverage
    np.testing.assert_array_equal(interval, fitted.forecaster_.predict_interval(coverage))
    for channel in "ab":
        low = [interval[channel, c, "lower"] for c in (0.93, 0.5, 0.2)]
        high = [interval[channel, c, "upper"] for c in (0.2, 0.5, 0.93)]
        assert (np.diff([*low, *high], axis=0) >= 0).all()
    np.testing.assert_array_equal(
        fitted.predict_interval(fh=[0], coverage=0.8),
        fitted.forecaster_.predict_interval(0.8, 1, context=series()[79:99]),
    )


def test_intervals_that_validation_cannot_vouch_for_are_quantiles() -> None:
    adapter = TitansSktimeForecaster(**LINEAR).fit(series(channels=1)[:50], fh=[1, 2, 3, 4])
    # Ten rows of validation are seven windows of four rows, which vouch for 7/8 = 0.875.
    conformal = adapter.forecaster_.predict_interval(7 / 8)
    np.testing.assert_array_equal(adapter.predict_interval(coverage=7 / 8), conformal)
    with pytest.warns(
        UserWarning, match=r"coverage 0\.9 .* vouch for at most 0\.875: the bounds are"
    ):
        interval = adapter.predict_interval(coverage=0.9)
    quantiles = adapter.forecaster_.predict_quantiles([0.05, 0.95])
    np.testing.assert_array_equal(interval, quantiles)
    with pytest.raises(ValueError, match=r"coverage 0\.99 needs more validation windows"):
        adapter.predict_interval(coverage=0.99)


@pytest.mark.parametrize("index", [DAYS, MONTHS, COUNTS], ids=["days", "months", "counts"])
def test_values_and_rows_may_be_missing(index: pd.Index) -> None:
    y = series(index)
    y.iloc[40:43, 0] = np.nan
    y.iloc[104] = np.nan
    kept = np.setdiff1d(np.arange(150), [60, 61, 100, 101, 120, 125])
    holes = y.iloc[kept]
    adapter = TitansSktimeForecaster(**LINEAR).fit(holes[kept < 100], fh=[1, 2, 3, 4])
    for rows in (slice(102, 110), slice(110, 130)):  # the first leaves two rows out in front
        adapter.update(holes[(kept >= rows.start) & (kept < rows.stop)])
    whole = y.copy()
    whole.iloc[[60, 61, 100, 101, 120, 125]] = np.nan
    forecaster = TitansForecaster(**LINEAR).fit(whole[:100]).update(whole[100:130])
    pd.testing.assert_frame_equal(adapter.predict(), forecaster.predict(), check_freq=False)
    pd.testing.assert_frame_equal(
        adapter.predict(fh=[-7]),
        forecaster.predict(1, context=whole[102:122]),
        check_freq=False,
    )


def test_a_look_back_without_any_value_has_no_forecast() -> None:
    y = series()
    y.iloc[50:75] = np.nan
    adapter = TitansSktimeForecaster(**LINEAR).fit(y, fh=[1])
    inside = adapter.predict(fh=np.arange(len(y)) - len(y) + 1)
    assert np.flatnonzero(inside["a"].isna()).tolist() == [*range(20), *range(70, 76)]


def test_beyond_the_horizon_fitted_the_forecast_rolls_on(fitted: TitansSktimeForecaster) -> None:
    with pytest.warns(UserWarning, match=r"prediction_length = 9 is beyond the 4 rows fitted for"):
        rolled = fitted.predict(fh=[2, 9])
    with pytest.warns(UserWarning, match=r"rolls on"):
        expected = fitted.forecaster_.predict(9)
    np.testing.assert_array_equal(rolled, expected.iloc[[1, 8]])


def promotions(index: pd.Index = DAYS) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two channels, the first of which falls by 5 at promotions and the second rises."""
    rng = np.random.default_rng(7)
    X = pd.DataFrame(
        {
            "price": rng.normal(size=len(index)),
            "promotion": rng.random(len(index)) < 0.3,
            "kind": pd.Categorical(rng.choice(["big", "none", "small"], size=len(index))),
        },
        index=index,
    )
    effect = X["promotion"].to_numpy()[:, None] * [-5, 3] + X["price"].to_numpy()[:, None]
    return series(index) + effect + 2 * (X[["kind"]].to_numpy() == "big"), X


@pytest.fixture
def promoted() -> TitansSktimeForecaster:
    y, X = promotions()
    return TitansSktimeForecaster(**LINEAR).fit(y[:100], X[:100], fh=[1, 2, 3, 4])


def errors(use_x: bool) -> float:
    y, X = promotions()
    cv = ExpandingWindowSplitter(fh=[1, 2, 3, 4], initial_window=100, step_length=4)
    result = evaluate(
        TitansSktimeForecaster(**LINEAR),
        cv,
        y,
        X if use_x else None,
        strategy="update",
        return_data=True,
        error_score="raise",
    )
    assert len(result) == 12
    misses = [y.loc[y_pred.index] - y_pred for y_pred in result["y_pred"]]
    return float(np.square(misses).mean())


def test_x_matters() -> None:
    assert errors(use_x=True) < 0.3 * errors(use_x=False)


@pytest.mark.parametrize("params", [LINEAR, NETWORK], ids=["linear", "network"])
@pytest.mark.parametrize("index", [DAYS, MONTHS, COUNTS], ids=["days", "months", "counts"])
def test_x_are_the_future_covariates_of_the_forecaster(
    params: dict[str, Any], index: pd.Index
) -> None:
    y, X = promotions(index)
    adapter = TitansSktimeForecaster(**params).fit(y[:100], X[:100])
    forecaster = TitansForecaster(**params, progress=False, future_covariates=tuple(X.columns))
    table = pd.concat([y, X], axis=1)
    forecaster.fit(table[:100])
    assert forecaster.model_.covariates.future_gain > 0
    for end in (100, 101, 130):
        if end > 100:
            adapter.update(y[:end], X[:end])  # rows that come again are passed over
            forecaster.update(table[{101: 100, 130: 101}[end] : end])
        ahead, fh = X[end : end + 4], [1, 2, 3, 4]
        y_pred = adapter.predict(fh=fh, X=ahead)
        expected = forecaster.predict(future=ahead)
        pd.testing.assert_frame_equal(y_pred, expected, check_freq=False)
        np.testing.assert_array_equal(
            adapter.predict_quantiles(fh=fh, X=ahead, alpha=[0.2, 0.5]),
            forecaster.predict_quantiles([0.2, 0.5], future=ahead),
        )
        np.testing.assert_array_equal(
            adapter.predict_interval(fh=fh, X=X, coverage=0.5),
            forecaster.predict_interval(0.5, future=ahead),
        )
        # X at the rows of fh alone is as good: an effect is that of its own row.
        part = adapter.predict(fh=[2, 4], X=ahead.iloc[[1, 3]])
        pd.testing.assert_frame_equal(part, expected.iloc[[1, 3]], check_freq=False)


def test_x_may_be_an_array_from_the_first_row_on() -> None:
    y, X = (t.to_numpy(dtype=float) for t in (promotions()[0], promotions()[1][["price"]]))
    adapter = TitansSktimeForecaster(**LINEAR).fit(y[:100], X[:100])
    forecaster = TitansForecaster(**LINEAR, future_covariates=(2,)).fit(np.hstack([y, X])[:100])
    expected = forecaster.predict(future=X[100:104])
    np.testing.assert_array_equal(adapter.predict(fh=[1, 2, 3, 4], X=X), expected)
    with pytest.raises(ValueError, match=r"X has no row at 100; .* An array counts from row 0"):
        adapter.predict(fh=[1], X=X[100:])


def test_in_sample_x_is_as_seen(promoted: TitansSktimeForecaster) -> None:
    y, X = promotions()
    table = pd.concat([y, X], axis=1)
    inside = promoted.predict(fh=[-200, -90, -1, 0])
    assert inside[:2].isna().all(axis=None)
    for row in (98, 99):
        expected = promoted.forecaster_.predict(
            1, context=table[row - 20 : row], future=X[row : row + 1]
        )
        pd.testing.assert_frame_equal(inside.loc[[DAYS[row]]], expected, check_freq=False)
    residuals = promoted.predict_residuals()
    assert residuals[20:].notna().all(axis=None)
    np.testing.assert_array_equal(residuals[-1:], y[99:100] - inside[-1:])
    both = promoted.predict(fh=[0, 1], X=X[100:101])
    pd.testing.assert_frame_equal(both[:1], inside[-1:], check_freq=False)
    # From a cutoff that was taken back, with what X was then.
    promoted.update(y[60:90], X[60:90])
    back = promoted.forecaster_.predict(context=table[70:90], future=X[90:94])
    for given in (None, X):
        y_pred = promoted.predict(fh=[1, 2, 3, 4], X=given)
        pd.testing.assert_frame_equal(y_pred, back, check_freq=False)


def test_x_may_have_holes_and_names_that_y_has() -> None:
    y, X = promotions()
    X = X.set_axis(["a", 0, "unique_id"], axis=1).iloc[:, :2]
    holes = X.astype({0: "boolean"})
    holes.iloc[[30, 31, 104]] = None
    fewer = np.setdiff1d(np.arange(110), [60, 61, 100, 106])
    adapter = TitansSktimeForecaster(**LINEAR).fit(y.iloc[fewer[fewer < 100]], holes, fh=[1, 4])
    adapter.update(y.iloc[fewer[fewer >= 100]], holes)
    table = pd.concat([y, X.astype(float).set_axis(["x", "z"], axis=1)], axis=1)
    table.iloc[[30, 31, 104], 2:] = np.nan
    table.iloc[[60, 61, 100, 106]] = np.nan
    forecaster = TitansForecaster(**LINEAR, future_covariates=("x", "z")).fit(table[:100])
    expected = forecaster.update(table[100:110]).predict(future=table[110:114])
    np.testing.assert_array_equal(adapter.predict(X=X[110:]), expected.iloc[[0, 3]])
    inside = forecaster.predict(1, context=table[85:105], future=table[105:106])
    np.testing.assert_array_equal(adapter.predict(fh=[-4]), inside)


def test_moving_cutoffs_and_panels_take_x(promoted: TitansSktimeForecaster) -> None:
    y, X = promotions()
    cv = SlidingWindowSplitter(fh=1, window_length=3, step_length=2)
    y_pred = promoted.update_predict(y[100:111], cv, X)
    by_hand = promoted.clone().fit(y[:100], X[:100], fh=[1]).update(y[100:103], X[100:103])
    np.testing.assert_array_equal(y_pred[:1], by_hand.predict(X=X[103:104]))
    names = ["id", "day"]
    panel, known = (pd.concat({"one": t, "two": t}, names=names) for t in (y[:100], X[:100]))
    ahead = pd.concat({"one": X[100:102], "two": X[102:104].set_axis(DAYS[100:102])}, names=names)
    both = promoted.clone().fit(panel, known, fh=[1, 2]).predict(X=ahead)
    single = promoted.clone().fit(y[:100], X[:100], fh=[1, 2])
    for key in ("one", "two"):
        np.testing.assert_array_equal(both.loc[key], single.predict(X=ahead.loc[key]))


def test_x_that_is_missing_is_asked_for(promoted: TitansSktimeForecaster) -> None:
    y, X = promotions()
    for ask in (promoted.predict, promoted.predict_interval, lambda: promoted.update(y[100:101])):
        with pytest.raises(ValueError, match=r"X is needed: .*\['price', 'promotion', 'kind'\]"):
            ask()
    assert promoted.cutoff[0] == DAYS[99]
    with pytest.raises(ValueError, match=r"X has no row at 2024-04-12.*; needs one for each time"):
        promoted.predict(X=X[100:102])
    with pytest.raises(ValueError, match=r"X has no column 'kind', .*\['price', 'promotion'\]"):
        promoted.predict(X=X[["price", "promotion"]][100:])
    with pytest.raises(ValueError, match=r"not contained .* extra indices are: .*2024-01-01"):
        TitansSktimeForecaster(**LINEAR).fit(y[:100], X[1:100])  # in the words of sktime
    without = TitansSktimeForecaster(**LINEAR).fit(y[:100], fh=[1])
    with pytest.raises(ValueError, match=r"X was given, but the forecaster was fitted without it"):
        without.predict(X=X[100:])
    pd.testing.assert_frame_equal(
        promoted.update(y[100:101], X[100:101]).predict(X=X[101:]),
        promoted.clone().fit(y[:100], X, fh=[1, 2, 3, 4]).update(y[100:101], X).predict(X=X),
    )


def test_rows_that_count_by_more_than_one_are_refused() -> None:
    with pytest.raises(ValueError, match=r"in steps of 2; .* y\.reset_index\(drop=True\)"):
        TitansSktimeForecaster(**LINEAR).fit(series(pd.RangeIndex(0, 200, 2)), fh=[1])


def test_moving_cutoffs_equal_updates_by_hand(fitted: TitansSktimeForecaster) -> None:
    y = series()
    cv = SlidingWindowSplitter(fh=1, window_length=3, step_length=2)  # windows overlap by a row
    y_pred = fitted.update_predict(y[100:111], cv)
    forecaster = TitansForecaster(**LINEAR).fit(y[:100]).update(y[100:103])
    for row in y_pred.index:
        np.testing.assert_array_equal(y_pred.loc[row], forecaster.predict(1).loc[row])
        last = y.index.get_loc(row)
        forecaster.update(y[last : last + 2])
    # The forecaster that was asked has not moved.
    assert fitted.cutoff[0] == DAYS[99]
    np.testing.assert_array_equal(
        fitted.predict(), TitansForecaster(**LINEAR).fit(y[:100]).predict()
    )


@pytest.mark.parametrize("strategy", ["refit", "update", "no-update_params"])
def test_it_is_evaluated_by_sktime(strategy: str) -> None:
    y = series()
    cv = ExpandingWindowSplitter(fh=[1, 2], initial_window=120, step_length=10)
    result = evaluate(
        TitansSktimeForecaster(**LINEAR),
        cv,
        y,
        strategy=strategy,
        return_data=True,
        error_score="raise",
    )
    assert len(result) == 3
    forecaster = TitansForecaster(**LINEAR).fit(y[:120])
    for i, end in enumerate((120, 130, 140)):
        if strategy == "refit":
            forecaster.fit(y[:end])
        elif i:
            forecaster.update(y[end - 10 : end], learn=strategy == "update")
        np.testing.assert_array_equal(result["y_pred"][i], forecaster.predict(2))


@pytest.mark.filterwarnings("ignore:The default of config ``remember_data``:FutureWarning")
def test_a_search_finds_the_look_back_that_holds_the_season() -> None:
    t = np.arange(200)
    noise = np.random.default_rng(0).normal(size=200)
    y = pd.Series(10 + np.sin(np.pi * t / 6) + noise / 10, pd.period_range("2000", None, 200, "M"))
    fh = list(range(1, 7))
    cv = ExpandingWindowSplitter(fh=fh, initial_window=150, step_length=12)
    forecaster = TitansSktimeForecaster(use_network=False, use_memory=False)
    search = ForecastingGridSearchCV(forecaster, cv, {"context_length": [3, 24]}).fit(y, fh=fh)
    assert search.best_params_ == {"context_length": 24}
    best = forecaster.set_params(context_length=24).fit(y, fh=fh)
    pd.testing.assert_series_equal(search.predict(), best.predict())


def test_panels_are_forecast_series_by_series() -> None:
    y = series()
    panel = pd.concat({"one": y, "two": y * 2 + y.shift(1, fill_value=0)}, names=["id", "day"])
    adapter = TitansSktimeForecaster(**LINEAR).fit(panel, fh=[1, 2])
    y_pred = adapter.predict()
    for key in ("one", "two"):
        expected = TitansForecaster(**LINEAR).fit(panel.loc[key].asfreq("D")).predict(2)
        np.testing.assert_array_equal(y_pred.loc[key], expected)


def test_rows_that_come_again_are_passed_over(fitted: TitansSktimeForecaster) -> None:
    y = series()
    once = TitansForecaster(**LINEAR).fit(y[:100]).update(y[100:110])
    fitted.update(y[:105]).update(y[103:110])
    np.testing.assert_array_equal(fitted.predict(), once.predict())
    # Only old rows: sktime takes its cutoff back, and asks for forecasts from there.
    fitted.update(y[60:90])
    assert fitted.cutoff[0] == DAYS[89]
    back = once.predict(context=y[70:90])
    pd.testing.assert_frame_equal(fitted.predict(), back, check_freq=False)
    with pytest.warns(UserWarning, match=r"other values than before at rows up to 2024-04-19; th"):
        fitted.update(y[100:111] + 1)
    np.testing.assert_array_equal(fitted.predict(), once.update(y[110:111] + 1).predict())


def test_rows_that_do_not_follow_are_refused_and_nothing_has_moved(
    fitted: TitansSktimeForecaster,
) -> None:
    before = fitted.predict()
    much_later = series().set_axis(DAYS + pd.Timedelta(days=9_000))
    with pytest.raises(ValueError, match=r"y starts at .* steps later than due"):
        fitted.update(much_later[:5])
    assert fitted.cutoff[0] == DAYS[99]
    pd.testing.assert_frame_equal(fitted.predict(), before)
    fitted.update(series()[100:105])


def test_one_row_at_a_time_is_all_rows_at_once(fitted: TitansSktimeForecaster) -> None:
    other = fitted.clone().fit(series()[:100], fh=[1, 2, 3, 4]).update(series()[100:120])
    for row in range(100, 120):
        fitted.update(series()[row : row + 1])
    pd.testing.assert_frame_equal(fitted.predict(), other.predict(), check_freq=False)
    np.testing.assert_array_equal(fitted.predict_residuals(), other.predict_residuals())


@pytest.mark.parametrize("rows", [10, 14, 24, 50])
def test_short_series_get_a_look_back_that_fits(rows: int) -> None:
    y = series(MONTHS[:rows])
    adapter = TitansSktimeForecaster(use_network=False).fit(y, fh=[1, 2, 3])
    assert 2 <= adapter.context_length_ < rows / 2
    assert adapter.predict().notna().all(axis=None)
    assert TitansSktimeForecaster(use_network=False).fit(y).predict(fh=1).shape == (1, 2)


@pytest.mark.parametrize("given", ["auto", None])
def test_long_series_get_the_look_back_of_the_forecaster(given: Any) -> None:
    y = pd.DataFrame(np.random.default_rng(0).normal(size=(400, 1)).cumsum(axis=0))
    adapter = TitansSktimeForecaster(1, given, use_network=False).fit(y, fh=1)
    forecaster = TitansForecaster(1, use_network=False).fit(y)
    assert adapter.context_length_ == forecaster.context_length_ == 48
    np.testing.assert_array_equal(adapter.predict(), forecaster.predict())


def test_pickles_and_files_go_on_bit_for_bit(fitted: TitansSktimeForecaster, tmp_path: Any) -> None:
    y = series()
    fitted.save(tmp_path / "adapter")
    loaded = TitansSktimeForecaster.load_from_path(tmp_path / "adapter.zip")
    for other in (pickle.loads(pickle.dumps(fitted)), loaded):
        other.update(y[100:104])
        expected = TitansForecaster(**LINEAR).fit(y[:100]).update(y[100:104]).predict()
        np.testing.assert_array_equal(other.predict(), expected)


def test_wrong_parameters_are_refused_in_the_forecasters_words() -> None:
    with pytest.raises(ValueError, match=r"`context_length` of TitansForecaster must be an int"):
        TitansSktimeForecaster(context_length=1).fit(series(), fh=1)
    with pytest.raises(ValueError, match=r"y has 5 rows .*training needs at least"):
        TitansSktimeForecaster().fit(series()[:5], fh=[3])


def test_it_says_what_is_missing_where_sktime_is_not_installed() -> None:
    code = (
        "import sys; sys.modules['sktime'] = None\n"
        "import titans_ts\n"
        "try:\n    import titans_ts.sktime\n"
        "except ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'titans-stream[sktime]'" in done.stdout
