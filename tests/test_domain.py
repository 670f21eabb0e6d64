"""Logarithms: taken where validation backs them, and the same forecaster through and through."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm

from titans_core import BackboneConfig, NeuralMemoryConfig
from titans_core.training import TrainingConfig
from titans_ts import TitansForecaster, load_dataset
from titans_ts.channels import Channels
from titans_ts.describe import describe_html, fitted_facts
from titans_ts.domain_scores import Judged, log_likelihood_gain, smearing
from titans_ts.evaluation import actual_windows, rolling_forecasts
from titans_ts.linear_choice import LinearChoice, choose_linear, refit_linear
from titans_ts.scaler import Scaler, may_gain_by_log
from titans_ts.windows import sliding_windows

P, L = 6, 24
LINEAR: dict[str, Any] = {"prediction_length": P, "context_length": L, "use_network": False}
LOG = {**LINEAR, "target_transform": "log"}


def shares(rows: int = 500, *, seed: int = 0, channels: int = 2, noise: float = 0.3) -> np.ndarray:
    """A season and noise that multiply a growing level."""
    t = np.arange(rows)[:, None]
    rng = np.random.default_rng(seed)
    season = 0.8 * np.sin(t / 6 + np.arange(channels))
    return 50 * np.exp(0.004 * t + season + noise * rng.normal(size=(rows, channels)))


def amounts(rows: int = 500, *, seed: int = 0, noise: float = 3.0) -> np.ndarray:
    """The same that add to a level; positive, and ranging as far as a factor of two."""
    t = np.arange(rows)[:, None]
    rng = np.random.default_rng(seed)
    return 50 + 0.05 * t + 12 * np.sin(t / 6 + [0, 1]) + noise * rng.normal(size=(rows, 2))


def differ(forecaster: TitansForecaster, other: TitansForecaster) -> bool:
    return any(
        not np.array_equal(getattr(forecaster, ask)(), getattr(other, ask)())
        for ask in ("predict", "predict_quantiles")
    )


def test_what_is_scaled_comes_back() -> None:
    y = np.column_stack([shares(), amounts()])
    y[3, 0] = np.nan
    scaler = Scaler.fit(y[:300], np.array([True, False, False, True]))
    np.testing.assert_allclose(scaler.undo(scaler.apply(y), y[-1]), y, rtol=1e-12)
    z = scaler.apply(y[:300])
    np.testing.assert_allclose(np.nanmean(z, axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(np.nanstd(z, axis=0), 1, atol=1e-12)


def test_values_without_a_logarithm_count_as_the_floor() -> None:
    y = shares(200)
    y[5] = [0.02, 40.0]  # one far below its median
    scaler = Scaler.fit(y, np.array([True, True]))
    np.testing.assert_allclose(scaler.floor, [0.001 * np.median(y[:, 0]), 0.1 * y[:, 1].min()])
    low = scaler.apply(np.array([[0.0, 0.0], [-7.0, -1e9], scaler.floor]))
    np.testing.assert_array_equal(low, low[[2, 2, 2]])
    huge = scaler.undo(np.full((1, 2), 1e9), y[-1])
    assert np.isfinite(huge).all()


@pytest.mark.parametrize("seed", range(3))
def test_logarithms_are_chosen_where_shares_make_the_series(seed: int) -> None:
    forecaster = TitansForecaster(**LINEAR).fit(shares(seed=seed))
    facts = fitted_facts(forecaster)["logarithms"]
    assert facts["channels"] == ["0", "1"]
    assert facts["gain"] > 0.01
    assert f"of 2 channels, save {facts['gain']:.1%} of the" in describe_html(forecaster)


def test_short_look_backs_choose_the_domain_of_long_ones() -> None:
    y = shares(1200)
    forecaster = TitansForecaster(**LINEAR | {"context_length": 240}).fit(y)
    asked_for = TitansForecaster(**LOG | {"context_length": 240}).fit(y)
    assert forecaster.context_length_ == 240
    assert fitted_facts(forecaster)["logarithms"]["gain"] > 0.01
    assert not differ(forecaster, asked_for)
    wind = load_dataset("seattle-weather")["wind"].to_numpy()  # changes by shares, gains nothing
    assert may_gain_by_log(wind[:, None], P).all()
    auto, none = (
        TitansForecaster(**LINEAR | {"context_length": 240, "target_transform": how}).fit(wind)
        for how in ("auto", "none")
    )
    assert not auto.model_.domain.logarithms
    assert not differ(auto, none)


@pytest.mark.parametrize("seed", range(3))
def test_elsewhere_nothing_changes_bit_for_bit(seed: int) -> None:
    walk = np.abs(np.random.default_rng(seed).normal(size=(500, 2)).cumsum(axis=0)) + 1
    for y in (amounts(seed=seed), walk, shares(seed=seed) - 100):
        auto, none = (
            TitansForecaster(**LINEAR, target_transform=target_transform).fit(y)
            for target_transform in ("auto", "none")
        )
        assert fitted_facts(auto)["logarithms"] is None
        assert not differ(auto, none)


def test_a_channel_of_amounts_stays_as_it_is_beside_one_of_shares() -> None:
    y = np.column_stack([amounts()[:, 0], shares()[:, 0]])
    forecaster = TitansForecaster(**LINEAR).fit(y)
    assert forecaster.model_.domain.columns.tolist() == [False, True]
    assert (forecaster.model_.scalers[0].floor > 0).tolist() == [False, True]


@pytest.mark.parametrize("seed", range(3))
def test_the_choice_pays_on_rows_that_were_not_looked_at(seed: int) -> None:
    y = shares(700, seed=seed)
    errors = []
    for target_transform in ("auto", "none"):
        forecaster = TitansForecaster(**LINEAR, target_transform=target_transform).fit(y[:500])
        forecasts = rolling_forecasts(forecaster, y, 500, learn=None)
        errors.append(np.mean(np.square(forecasts - actual_windows(y, 500, P))))
    assert errors[0] < 0.95 * errors[1]


def test_changes_tell_shares_from_amounts() -> None:
    y = np.column_stack([shares(), amounts(), -shares(), np.full(500, 3.0)])
    y[7, 0] = np.nan
    assert may_gain_by_log(y, P).tolist() == [True, True, False, False, False, False, False]
    narrow = 1000 + shares(channels=1) / 1000
    assert not may_gain_by_log(narrow, P).any()


def test_the_likelihood_is_that_of_normal_errors_in_either_domain() -> None:
    rng = np.random.default_rng(0)
    y = np.exp(rng.normal(size=(40, P)))
    plain_forecast, log_forecast = (
        y + rng.normal(size=y.shape),
        np.log(y) + rng.normal(size=y.shape),
    )
    y[3, 2] = np.nan
    channel, known = np.zeros(40, dtype=int), ~np.isnan(y)
    plain = Judged(channel, plain_forecast, y, np.zeros((40, 1), dtype=bool))
    logs = Judged(channel, log_forecast, np.log(y), np.ones((40, 1), dtype=bool))
    errors = (y - plain_forecast)[known], (np.log(y) - log_forecast)[known]
    sizes = [np.sqrt(np.mean(np.square(error))) for error in errors]
    density = norm.logpdf(errors[1], scale=sizes[1]) - np.log(y[known])
    expected = np.mean(density) - np.mean(norm.logpdf(errors[0], scale=sizes[0]))
    assert log_likelihood_gain(plain, logs) == pytest.approx(expected)


def test_the_point_forecast_is_a_mean_and_the_median_is_not() -> None:
    y = np.exp(0.8 * np.random.default_rng(1).normal(size=4000))
    forecaster = TitansForecaster(**LOG).fit(y)
    assert forecaster.predict().mean() == pytest.approx(np.exp(0.32), rel=0.1)
    assert forecaster.predict_quantiles([0.5]).mean() == pytest.approx(1.0, rel=0.1)


def test_smearing_makes_the_forecasts_sum_to_the_values() -> None:
    rng = np.random.default_rng(0)
    forecast, truth = rng.normal(size=(2, 60, P))
    truth[4, 1] = np.nan
    channel = np.arange(60) % 3
    log = (channel != 1)[:, None]
    judged = Judged(channel, forecast, truth, log)
    shift = smearing(judged, 3)
    np.testing.assert_array_equal(shift[1], 0)
    for k in (0, 2):
        mine = channel == k
        made = np.where(np.isnan(truth[mine]), np.nan, np.exp(forecast[mine] + shift[k]))
        np.testing.assert_allclose(np.nansum(made, 0), np.nansum(np.exp(truth[mine]), 0))


def test_a_fit_with_a_drift_is_least_squares_with_an_intercept() -> None:
    y = np.cumsum(np.random.default_rng(0).normal(0.1, 1, size=(300, 1)), axis=0)
    y = (y - y.mean()) / y.std()
    choice = LinearChoice((L,), np.array([3.0]), None, np.ones(1), drifts=True)
    part = refit_linear(Channels.join([y], [300]), choice, P)
    windows = sliding_windows(y, L + P)[:, 0]
    level = windows[:, :L].mean(axis=1, keepdims=True)
    x, target = windows[:, :L] - level, windows[:, L:] - level
    # The intercept is not penalised.
    rows = np.hstack([x, np.ones((len(x), 1))])
    penalty = 3.0 * np.eye(L + 1)
    penalty[-1, -1] = 0
    solved = np.linalg.solve(rows.T @ rows + penalty, rows.T @ target)
    centred = [matrix - matrix.mean(axis=0) for matrix in (part.weights[0], solved[:L])]
    np.testing.assert_allclose(*centred, atol=1e-8)  # of centred rows no more is told
    np.testing.assert_allclose(part.drift[0], solved[L], atol=1e-8)


def test_a_drift_is_chosen_by_the_errors_it_leaves_on_validation() -> None:
    y = np.cumsum(np.random.default_rng(0).normal(0.1, 1, size=(500, 2)), axis=0)
    y = (y - y.mean(axis=0)) / y.std(axis=0)
    channels = Channels.join([y], [400])
    part, choice = choose_linear(channels, (L,), P, drifts=True)
    assert choice.drifts
    again = refit_linear(Channels.join([y[:400]], [400]), choice, P)
    for name in ("weights", "drift"):
        for one, other in zip(getattr(part, name), getattr(again, name), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-9)


@pytest.mark.parametrize("network", [False, True])
def test_rows_one_by_one_are_rows_at_once_whatever_their_sign(network: bool) -> None:
    y = shares()
    y[460:463] = [[0, -3], [np.nan, 0], [-1e6, 1e-300]]
    options = LOG | {
        "use_network": network,
        "progress": False,
        "patch_length": 5,
        "training": TrainingConfig(max_steps=6, validate_every=3),
        "backbone": BackboneConfig(memory=NeuralMemoryConfig(dim=8, chunk_size=4), num_blocks=1),
    }
    at_once, one_by_one = (TitansForecaster(**options).fit(y[:400]) for _ in range(2))
    at_once.update(y[400:])
    for t in range(400, len(y)):
        one_by_one.update(y[t : t + 1])
    assert not differ(at_once, one_by_one)
    assert (at_once.predict() > 0).all()
    assert np.isfinite(at_once.predict_quantiles()).all()


def test_after_rows_without_a_logarithm_a_stream_finds_back() -> None:
    y = shares()
    broken = y.copy()
    broken[420:424] = 0
    calm, upset = (
        TitansForecaster(**LOG).fit(rows[:400]).update(rows[400:]) for rows in (y, broken)
    )
    ratio = upset.predict() / calm.predict()
    assert ((ratio > 0.5) & (ratio < 2)).all()


def test_what_comes_after_does_not_reach_a_forecast() -> None:
    y = shares()
    garbage = y.copy()
    garbage[450:] = np.random.default_rng(0).normal(size=garbage[450:].shape) * 1e6
    one, other = (TitansForecaster(**LOG).fit(y[:400]) for _ in range(2))
    one.update(y[400:450])
    other.update(garbage[400:450])
    assert not differ(one, other)
    seen = one.predict()
    one.update(garbage[450:])
    np.testing.assert_array_equal(seen, other.predict())


def test_quantiles_intervals_and_paths_are_positive_and_in_order() -> None:
    forecaster = TitansForecaster(**LOG).fit(shares(noise=0.6))
    quantiles = forecaster.predict_quantiles(prediction_length=None)
    assert (quantiles > 0).all()
    assert (np.diff(quantiles, axis=-1) >= 0).all()
    interval = forecaster.predict_interval([0.5, 0.9])
    assert (interval[..., 0] > 0).all()
    assert (interval[..., 0] <= interval[..., 1]).all()
    paths = forecaster.sample_paths(400)
    assert (paths > 0).all()
    inside = paths < forecaster.predict_quantiles([0.8])[..., 0]
    assert inside.mean() == pytest.approx(0.8, abs=0.03)


def test_a_file_and_an_exported_program_say_the_same(tmp_path) -> None:
    y = np.column_stack([shares(), amounts(), np.full(500, 4.0)])[:, [0, 4, 2]]
    forecaster = TitansForecaster(**LINEAR).fit(y)
    assert forecaster.model_.domain.columns.tolist() == [True, False, False]
    forecaster.save(tmp_path / "log.titans")
    loaded = TitansForecaster.load(tmp_path / "log.titans")
    assert not differ(forecaster, loaded)
    assert not differ(forecaster.update(y[:50]), loaded.update(y[:50]))
    windows = np.stack([y[i : i + forecaster.context_length_] for i in (0, 50, 300)])
    windows[1, 3, 0] = -2.0
    point, quantiles = forecaster.export().module()(torch.from_numpy(windows))
    for i, window in enumerate(windows):
        np.testing.assert_allclose(point[i], forecaster.predict(context=window), rtol=1e-9)
        expected = forecaster.predict_quantiles(context=window)
        np.testing.assert_allclose(quantiles[i], expected, rtol=1e-9)


def test_contributions_sum_to_the_forecast() -> None:
    forecaster = TitansForecaster(**LOG).fit(shares())
    explanation = forecaster.explain()
    np.testing.assert_allclose(explanation.values.sum(axis=-1)[0], forecaster.predict())
    assert (explanation.values[..., 0] > 0).all()


def test_a_series_that_was_not_fitted_is_read_by_its_own_logarithms() -> None:
    days = pd.date_range("2024-01-01", periods=400)
    table = pd.concat(
        pd.DataFrame({"unique_id": f"s{k}", "ds": days, "y": shares(400, seed=k)[:, 0] * 10**k})
        for k in range(4)
    )
    new = table["unique_id"] == "s3"
    forecaster = TitansForecaster(**LINEAR).fit(table[~new])
    assert forecaster.model_.domain.logarithms
    larger = table[new].assign(y=lambda rows: 1000 * rows["y"])
    one, other = (forecaster.predict(context=rows)["y"] for rows in (table[new], larger))
    np.testing.assert_allclose(1000 * one, other)
    zeros = table[new].assign(y=lambda rows: rows["y"].where(rows["y"].index % 50 > 0, 0.0))
    assert (forecaster.predict(context=zeros)["y"] > 0).all()


def test_covariates_act_on_the_logarithms() -> None:
    rng = np.random.default_rng(0)
    price = rng.choice([0.0, 1.0], size=506)
    y = shares(506, channels=1, noise=0.1)[:, 0] * np.exp(-0.7 * price)
    rows = np.column_stack([y, price])[:500]
    options = LOG | {"target_columns": (0,), "future_covariates": (1,)}
    forecaster = TitansForecaster(**options).fit(rows)
    dear, cheap = (
        forecaster.predict(future=np.full((P, 1), price)).reshape(-1) for price in (1.0, 0.0)
    )
    np.testing.assert_allclose(dear / cheap, np.exp(-0.7), rtol=0.05)


def test_values_without_a_logarithm_in_training_are_refused() -> None:
    y = shares()
    y[17, 1] = -2.5
    message = (
        "target_transform='log' needs positive training rows; channel 1 of y holds -2.5. Take targ"
    )
    with pytest.raises(ValueError, match=message):
        TitansForecaster(**LOG).fit(y)
    assert fitted_facts(TitansForecaster(**LINEAR).fit(y))["logarithms"]["channels"] == ["0"]
