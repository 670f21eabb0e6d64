"""Covariates: their effects are found, those without any refused, and nothing later leaks."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest
from covariate_inputs import EFFECTS, autoregression, sales, shops

from titans_ts import TitansForecaster, TrainingConfig, load_dataset
from titans_ts.channels import Channels
from titans_ts.covariates import CovariateScaler
from titans_ts.describe import describe_html, fitted_facts
from titans_ts.past_effect import PastWindows

P = 7
LINEAR = {"prediction_length": P, "context_length": 28, "use_network": False}
KNOWN = ("temp", "holiday")
SHOPS = {
    "future_covariates": ("temp", "kind"),
    "past_covariates": ("visits",),
    "static_covariates": ("town",),
}


def unit_effects(forecaster):
    """Effects in units of the first channel per unit of the covariate."""
    covariates, scaler = forecaster.model_.covariates, forecaster.model_.scalers[0]
    return covariates.weights[0] * scaler.scale[0] / covariates.future.scale


def squared_errors(forecaster, table, origins, *, future):
    errors = []
    for t in origins:
        ahead = table[t : t + P]
        given = {"future": ahead} if future else {}
        forecast = forecaster.predict(context=table[:t], **given)
        errors.append(np.square(forecast["y"] - ahead["y"]).mean())
    return np.mean(errors)


def test_effects_known_ahead_are_recovered_and_lower_the_error_as_they_should():
    table = sales()
    with_them = TitansForecaster(**LINEAR, future_covariates=KNOWN).fit(table[:1200])
    without = TitansForecaster(**LINEAR).fit(table[["y"]][:1200])
    np.testing.assert_allclose(unit_effects(with_them), list(EFFECTS.values()), rtol=0.06)
    origins = range(1200, 1490, P)
    errors = [
        squared_errors(with_them, table, origins, future=True),
        squared_errors(without, table[["y"]], origins, future=False),
    ]
    # An oracle is left with the errors of the autoregression ahead, weighed over the steps.
    power = np.cumsum(0.8 ** (2 * np.arange(P))).mean()
    assert errors[0] < 1.2 * power
    assert errors[0] < 0.4 * errors[1]
    gain = fitted_facts(with_them)["covariates"]["future_gain"]
    assert gain == pytest.approx(1 - errors[0] / errors[1], abs=0.1)
    assert "of the squared validation error" in describe_html(with_them)


def test_an_effect_on_real_weather_is_recovered():
    weather = load_dataset("seattle-weather")[["temp_max", "wind"]]
    holiday = np.random.default_rng(0).random(len(weather)) < 0.06
    table = weather.assign(y=weather["temp_max"] + 6.0 * holiday, holiday=holiday * 1.0)
    table = table[["y", "holiday"]]
    forecaster = TitansForecaster(**LINEAR, future_covariates=("holiday",)).fit(table[:1200])
    assert unit_effects(forecaster) == pytest.approx([6.0], rel=0.1)


def test_a_leading_indicator_is_used_where_it_tells():
    rng = np.random.default_rng(0)
    x, y = autoregression(rng, 1500, 0.9), autoregression(rng, 1500, 0.5)
    y[5:] += x[:-5]
    table = pd.DataFrame({"y": y, "x": x})
    with_it = TitansForecaster(**LINEAR, past_covariates=("x",)).fit(table[:1200])
    without = TitansForecaster(**LINEAR).fit(table[["y"]][:1200])
    origins = range(1200, 1490, 3)
    assert squared_errors(with_it, table, origins, future=False) < 0.6 * squared_errors(
        without, table[["y"]], origins, future=False
    )
    assert fitted_facts(with_it)["covariates"]["past_gain"] > 0.3


def test_irrelevant_covariates_are_refused_in_most_seeds_and_do_no_harm_in_any():
    gains = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        y = autoregression(rng, 900)
        noise = np.cumsum(rng.normal(size=(900, 2)), axis=0) * 0.1 + rng.normal(size=(900, 2))
        table = np.column_stack([y, noise])
        for role in ("future_covariates", "past_covariates"):
            fitted = TitansForecaster(**LINEAR, **{role: (1, 2)}).fit(table)
            gains += [fitted.model_.covariates.future_gain + fitted.model_.covariates.past_gain]
    assert np.count_nonzero(gains) <= len(gains) / 4
    assert max(gains) < 0.05


def test_covariates_that_help_are_used_beside_others_that_do_not():
    rng = np.random.default_rng(5)
    t = np.arange(700)
    slow = np.column_stack([np.sin(t / 50), np.cos(t / 50)])
    walks = np.stack([rng.normal(size=700).cumsum() / 5 for _ in range(8)], axis=1)
    y = slow[:, 0] + rng.normal(size=700)
    settings = {**LINEAR, "prediction_length": 14, "future_covariates": tuple(range(1, 11))}
    fitted = TitansForecaster(**settings).fit(np.column_stack([y, slow, walks]))
    covariates = fitted.model_.covariates
    assert covariates.future_gain > 0.05
    (effects,) = covariates.weights / covariates.future.scale
    assert effects[0] > 0.3
    assert np.count_nonzero(effects) < 10


def test_refused_covariates_change_nothing_at_all():
    table = sales(500)
    table["dull"] = 3.0
    plain = TitansForecaster(**LINEAR).fit(table[["y"]])
    dull = TitansForecaster(**LINEAR, future_covariates=("dull",)).fit(table[["y", "dull"]])
    # What was constant in training has no effect, whatever it does later.
    ahead = pd.DataFrame(
        {"dull": 1e9}, pd.date_range(table.index[-1], periods=P + 1, name="ds")[1:]
    )
    pd.testing.assert_frame_equal(dull.predict(future=ahead), plain.predict())
    assert fitted_facts(dull)["covariates"]["future_gain"] == 0
    assert "not let in" in describe_html(dull)


def test_what_is_missing_counts_as_the_mean_and_what_is_far_out_is_held():
    rows = np.array([[0.0, 1e308], [2.0, -1e308], [np.nan, 0.0], [4.0, 0.0]])
    scaler = CovariateScaler.fit(rows)
    assert scaler.level[0] == 2
    scaled = scaler.apply(np.array([[np.nan, np.nan], [1e9, 1e300], [8.0, 0.0]]))
    assert scaled[0].tolist() == [0, 0]
    assert scaled[1, 0] == scaled[2, 0]
    assert np.isfinite(scaled).all()


@pytest.fixture(scope="module")
def table():
    return shops()


@pytest.fixture(scope="module")
def fitted(table):
    return TitansForecaster(**LINEAR, **SHOPS).fit(table[table.ds < "2019-08-20"])


def ahead_of(table, days=P, start="2019-08-20"):
    when = (table.ds >= start) & (table.ds < pd.Timestamp(start) + pd.Timedelta(days=days))
    return table[when].drop(columns=["y", "visits"])


def test_categories_have_effects_and_an_unknown_one_has_none(table, fitted):
    facts = fitted_facts(fitted)["covariates"]
    assert facts["future"] == ["temp", "kind=holiday", "kind=plain"]
    assert facts["future_gain"] > 0.2
    assert facts["past_gain"] > 0.05
    assert not facts["static_used"]
    effects = fitted.model_.covariates.shared[0]
    assert effects[1] < 0 < effects[0]
    future = ahead_of(table)
    unknown = fitted.predict(future=future.assign(kind="strike"))
    known = fitted.predict(future=future)
    assert np.isfinite(unknown["y"]).all()
    assert not np.allclose(unknown["y"], known["y"])


def test_a_longer_forecast_takes_covariates_all_the_way(table, fitted):
    with pytest.warns(UserWarning, match="rolls on"):
        longer = fitted.predict(2 * P, future=ahead_of(table, 2 * P))
    shorter = fitted.predict(future=ahead_of(table))
    merged = shorter.merge(longer, on=["unique_id", "ds"])
    np.testing.assert_array_equal(merged["y_x"], merged["y_y"])


def test_quantiles_intervals_and_paths_move_with_the_point(table, fitted):
    future = ahead_of(table)
    other = future.assign(temp=future["temp"] + 1)
    by = fitted.predict(future=other)["y"] - fitted.predict(future=future)["y"]
    assert (by > 1).all()
    for method in ("predict_quantiles", "predict_interval", "sample_paths"):
        here, there = (getattr(fitted, method)(future=f) for f in (future, other))
        for column in here.columns.difference(["unique_id", "ds", "path"]):
            moved = (there[column] - here[column]).to_numpy()
            if method == "sample_paths":
                moved = moved.reshape(3, -1, P)[:, 0].reshape(-1)
            np.testing.assert_allclose(moved, by)


def test_row_by_row_is_at_once_and_files_and_snapshots_go_on(table, tmp_path):
    begun = table[table.ds < "2019-07-01"]
    new = table[(table.ds >= "2019-07-01") & (table.ds < "2019-07-20")]
    at_once, one_by_one = (TitansForecaster(**LINEAR, **SHOPS).fit(begun) for _ in range(2))
    start = at_once.snapshot()
    at_once.update(new)
    at_once.save(tmp_path / "half.titans")
    loaded = TitansForecaster.load(tmp_path / "half.titans")
    for _, rows in new.groupby("ds"):
        one_by_one.update(rows)
    future = ahead_of(table, start="2019-07-20")
    expected = at_once.predict(future=future)
    for other in (one_by_one, loaded, at_once.restore(start).update(new)):
        pd.testing.assert_frame_equal(other.predict(future=future), expected)


def kinds():
    """One series of sales as each kind, with how to name its covariates."""
    table = sales(400)
    table["visits"] = np.roll(table["y"].to_numpy(), -2)
    named = {"future_covariates": KNOWN, "past_covariates": ("visits",)}
    flat = table.reset_index()
    placed = {"future_covariates": (1, 2), "past_covariates": (3,)}
    long = pd.concat([flat.assign(unique_id=key, y=flat["y"] + i) for i, key in enumerate("ab")])
    return {
        "numpy": (table.to_numpy(), placed),
        "pandas": (table, named),
        "long": (long, named),
        "polars": (pl.from_pandas(flat), named),
    }


def garbled(y, kind, cutoff):
    """The same with garbage after the cutoff, but for what is known of the next P rows."""
    if kind == "numpy":
        y = y.copy()
        y[cutoff:, [0, 3]] = 1e3
        y[cutoff + P :] = -1e3
        return y
    if kind == "long":
        return pd.concat([garbled(g, "rows", cutoff) for _, g in y.groupby("unique_id")])
    if kind == "polars":
        return pl.from_pandas(garbled(y.to_pandas(), "rows", cutoff))
    y = y.copy()
    y.iloc[cutoff:, [y.columns.get_loc(name) for name in ("y", "visits")]] = 1e3
    y.iloc[cutoff + P :, [y.columns.get_loc(name) for name in KNOWN]] = -1e3
    return y


@pytest.mark.parametrize("kind", ["numpy", "pandas", "long", "polars"])
def test_nothing_after_t_reaches_a_forecast_at_t(kind):
    y, roles = kinds()[kind]
    forecaster = TitansForecaster(**LINEAR, **roles)
    forecasts = []
    for rows in (y, garbled(y, kind, 400 - 3 * P)):
        frame = forecaster.backtest(rows, n_windows=3, refit="update", progress=False).frame
        cutoffs, at = np.unique(frame["cutoff"].to_numpy(), return_inverse=True)
        assert len(cutoffs) == 3
        forecasts.append([frame["TitansForecaster"].to_numpy()[at == i] for i in range(3)])
    np.testing.assert_array_equal(forecasts[0][0], forecasts[1][0])
    assert not np.allclose(forecasts[0][1], forecasts[1][1])  # which has seen the garbage


def test_all_kinds_forecast_the_same_numbers():
    forecasts = {}
    for kind, (y, roles) in kinds().items():
        if kind != "long":
            forecaster = TitansForecaster(**LINEAR, **roles).fit(y[: 400 - P])
            known = y[400 - P :, 1:3] if kind == "numpy" else y[400 - P :]
            forecasts[kind] = np.asarray(forecaster.predict(future=known))[:, -1].astype(float)
    np.testing.assert_array_equal(forecasts["numpy"], forecasts["pandas"])
    np.testing.assert_array_equal(forecasts["numpy"], forecasts["polars"])


def test_a_window_of_past_covariates_ends_at_its_origin():
    rows = [np.arange(10.0)[:, None], np.arange(100.0, 108.0)[:, None]]
    channels = Channels.join([np.zeros((10, 2)), np.zeros((8, 2))], [6, 5])
    windows = PastWindows(channels, rows, np.array([0, 0, 1, 1]), 3)
    origins = np.array([4, 14, 20 + 5, 28 + 8])  # the fourth row of both, the fifth, the end
    assert windows.at(origins[:3])[:, 0].tolist() == [[1, 2, 3], [1, 2, 3], [102, 103, 104]]


def reflections(count, rows, seed):
    """Series that turn by their own size, one way or the other by their kind."""
    rng, frames = np.random.default_rng(seed), []
    for i in range(count):
        way, y = (-1.0, 1.0)[i % 2], np.zeros(rows)
        for t in range(1, rows):
            y[t] = way * (1.2 * abs(y[t - 1]) - 0.8) + 0.4 * rng.normal()
        frames.append(pd.DataFrame({"ds": range(rows), "y": y, "kind": "ab"[i % 2]}))
        frames[-1].insert(0, "unique_id", f"{seed}-{i}")
    return pd.concat(frames, ignore_index=True)


def test_series_that_were_not_fitted_are_told_apart_by_static_covariates():
    train, new = reflections(16, 300, 0), reflections(40, 101, 1)
    forecaster = TitansForecaster(
        1,
        4,
        patch_length=2,
        validation_size=0.3,
        training=TrainingConfig(max_steps=150, validate_every=25),
        progress=False,
        target_columns=("y",),
        static_covariates=("kind",),
    ).fit(train)
    floor = TitansForecaster(1, 4, use_network=False, target_columns=("y",)).fit(train)
    swapped = new.assign(kind=new["kind"].map({"a": "b", "b": "a"}))
    errors = np.zeros(3)
    for end in range(40, 100, 4):
        known = new["ds"] < end
        forecasts = [forecaster.predict(context=table[known]) for table in (new, swapped)]
        forecasts.append(floor.predict(context=new[known]))
        for i, forecast in enumerate(forecasts):
            both = forecast.merge(new, on=["unique_id", "ds"])
            errors[i] += np.square(both["y_x"] - both["y_y"]).mean() / 15
    assert errors[0] < 0.95 * errors[2]
    assert errors[0] < 0.7 * errors[1]
    assert fitted_facts(forecaster)["covariates"]["static_used"]
    assert "in the network" in describe_html(forecaster)


def test_booleans_stay_booleans_where_one_is_missing():
    table = sales(400).assign(holiday=lambda t: t["holiday"] > 0)
    forecaster = TitansForecaster(**LINEAR, future_covariates=("holiday",)).fit(
        table[["y", "holiday"]][:-P]
    )
    ahead = table[["holiday"]][-P:]
    known = forecaster.predict(future=ahead)
    pd.testing.assert_frame_equal(forecaster.predict(future=ahead.astype(object)), known)
    late = ahead.iloc[:-1].reindex(ahead.index)
    assert late["holiday"].dtype == object
    pd.testing.assert_frame_equal(forecaster.predict(future=late)[:-1], known[:-1])


@pytest.mark.parametrize("to_array", [False, True])
def test_what_is_known_ahead_must_be_finite(to_array):
    table = sales(400)[["y", "temp"]]
    forecaster = TitansForecaster(**LINEAR, future_covariates=("temp",)).fit(table[:-P])
    ahead = table[["temp"]][-P:].copy()
    ahead.iloc[2] = -np.inf
    with pytest.raises(ValueError, match=r"future has an infinite value, 3 step\(s\) ahead"):
        forecaster.predict(future=ahead.to_numpy() if to_array else ahead)


def test_what_is_known_ahead_must_be_given(fitted):
    with pytest.raises(ValueError, match="future is needed: "):
        fitted.predict()
    with pytest.raises(ValueError, match="`past_covariates` of TitansForecaster must be a seq"):
        TitansForecaster(past_covariates="x").fit(np.ones(9))


def test_a_covariate_that_stands_still_where_it_is_judged_is_named() -> None:
    events = np.isin(np.arange(986), [60, 150, 240, 330, 420, 510, 600])
    y = np.random.default_rng(0).normal(size=986) + 20 * events
    rows = pd.DataFrame({"y": y, "event": events})
    forecaster = TitansForecaster(
        14, 56, use_network=False, progress=False, future_covariates=["event"]
    )
    with pytest.warns(UserWarning, match=r"future covariates 'event' help cannot be told") as found:
        forecaster.fit(rows)
    assert found[0].filename == __file__


def test_events_of_one_half_of_the_validation_part_are_enough() -> None:
    events = np.isin(np.arange(1000), [60, 150, 240, 330, 420, 510, 600, 850, 990])
    y = np.random.default_rng(0).normal(size=1000) + 5 * events
    rows = pd.DataFrame({"y": y, "event": events})
    forecaster = TitansForecaster(
        14, 56, use_network=False, progress=False, future_covariates=["event"]
    ).fit(rows[:986])
    ahead = forecaster.predict(future=rows[["event"]][986:])["y"].to_numpy()
    assert ahead[4] - np.delete(ahead, 4).mean() == pytest.approx(5, abs=1.5)
