"""An outage: the last rows are missing, and the forecast is what it would have been before them."""

from __future__ import annotations

import numpy as np
import pytest

from titans_ts import TitansForecaster

P, SEASON, ROWS = 7, 7, 400
SEEDS = range(8)


def seasonal(seed: int, rows: int = ROWS + 6 * P) -> np.ndarray:
    t = np.arange(rows)
    noise = np.random.default_rng(seed).normal(size=rows)
    return 10 + 3 * np.sin(2 * np.pi * t / SEASON) + 0.5 * noise


def fit(y: np.ndarray, **params: object) -> TitansForecaster:
    settings = {"use_network": False, "progress": False, **params}
    return TitansForecaster(P, 28, **settings).fit(y)


@pytest.fixture(scope="module")
def fitted() -> list[TitansForecaster]:
    return [fit(seasonal(seed)[:ROWS]) for seed in SEEDS]


@pytest.mark.parametrize("gap", [1, 5, 7, 20])
@pytest.mark.filterwarnings("ignore:prediction_length")
def test_an_outage_is_forecast_across(gap: int, fitted: list[TitansForecaster]) -> None:
    errors, inside, beforehand = [], [], []

    def covers(forecaster: TitansForecaster, truth: np.ndarray) -> np.ndarray:
        lower, upper = np.moveaxis(forecaster.predict_interval(0.8)[:, 0], -1, 0)
        return (lower <= truth) & (truth <= upper)

    for seed, before in zip(SEEDS, fitted, strict=True):
        truth = seasonal(seed)[ROWS + gap : ROWS + gap + P]
        kept = before.snapshot()
        rolled = before.predict(gap + P)[gap:]
        before.update(np.full(gap, np.nan))
        np.testing.assert_allclose(before.predict(), rolled, atol=0.8)
        errors.append([np.abs(y - truth).mean() for y in (before.predict(), rolled)])
        inside.append(covers(before, truth))
        before.restore(kept)
        beforehand.append(covers(before, seasonal(seed)[ROWS : ROWS + P]))
    ours, before_it = np.mean(errors, axis=0)
    assert ours < 1.1 * before_it + 0.02, "as good as the forecast that was made before the outage"
    assert np.mean(inside) > np.mean(beforehand) - 0.05


def test_what_lies_beyond_an_outage_is_as_uncertain_as_what_lies_so_far_ahead() -> None:
    walk = np.random.default_rng(0).normal(size=1200).cumsum()
    forecaster = fit(walk)
    with pytest.warns(UserWarning, match="beyond"):
        far = forecaster.predict_quantiles([0.1, 0.9], 3 * P)
    forecaster.update(np.full(P + 2, np.nan), learn=False)
    near = forecaster.predict_quantiles([0.1, 0.9])
    np.testing.assert_allclose(np.diff(near), np.diff(far)[P + 2 : 2 * P + 2], rtol=0.15)
    spread = forecaster.sample_paths(2000).std(axis=0)
    assert spread[0] > 2 * fit(walk).sample_paths(2000).std(axis=0)[0]


def test_stillness_during_an_outage_is_no_calm() -> None:
    walk = np.random.default_rng(0).normal(size=1200).cumsum()
    forecaster = fit(walk)
    before = np.diff(forecaster.predict_interval(0.8)).ravel()
    forecaster.update(np.full(28, np.nan))  # the whole window
    after = np.diff(forecaster.predict_interval(0.8)).ravel()
    np.testing.assert_allclose(after, np.hypot(2 * before[-1], before), rtol=1e-6)


def test_a_channel_out_of_order_leaves_the_others_as_they_are() -> None:
    y = np.column_stack([seasonal(0), seasonal(1)])
    whole, broken = fit(y[:ROWS]), fit(y[:ROWS])
    new = y[ROWS : ROWS + 4].copy()
    whole.update(new, learn=False)
    new[:, 0] = np.nan
    broken.update(new, learn=False)
    np.testing.assert_array_equal(broken.predict()[:, 1], whole.predict()[:, 1])
    np.testing.assert_allclose(broken.predict()[:, 0], whole.predict()[:, 0], atol=1.0)
    widths = [np.diff(f.predict_quantiles([0.1, 0.9]))[..., 0] for f in (broken, whole)]
    np.testing.assert_array_equal(widths[0][:, 1], widths[1][:, 1])
    assert widths[0][:, 0].mean() > widths[1][:, 0].mean()


def test_an_outage_at_the_end_of_a_context_is_one_too() -> None:
    y = seasonal(2)
    forecaster = fit(y[:ROWS])
    context = y[ROWS - 60 : ROWS + 3].copy()
    context[-3:] = np.nan
    forecaster.update(np.full(3, np.nan), learn=False)
    np.testing.assert_allclose(forecaster.predict(context=context), forecaster.predict(), atol=1e-9)
    short = forecaster.predict(context=context[-28:])  # a window, and nothing before it
    np.testing.assert_allclose(short, y[ROWS + 3 : ROWS + 3 + P], atol=2.5)


def test_after_an_outage_nothing_is_left_of_the_bridge() -> None:
    y = seasonal(3)
    y[ROWS - 20 : ROWS - 10] = np.nan
    whole, cut = fit(y[:300], refit=False), fit(y[:300], refit=False)
    whole.update(y[300:ROWS])
    for piece in np.split(y[300:ROWS], [70, 85, 86, 95]):
        cut.update(piece)
        cut.predict()
    np.testing.assert_array_equal(whole.predict(), cut.predict())


def test_a_long_outage_stays_within_reach_of_what_was_seen() -> None:
    y = seasonal(4)[:ROWS] + 0.05 * np.arange(ROWS)
    forecaster = fit(y).update(np.full(500, np.nan))
    recent = y[-28 - P :]
    span = np.ptp(recent)
    assert (forecaster.predict() > recent.min() - 3 * span).all()
    assert (forecaster.predict() < recent.max() + 3 * span).all()
    assert np.isfinite(forecaster.predict_interval(0.8)).all()


def test_paths_go_on_from_block_to_block() -> None:
    walk = np.random.default_rng(1).normal(size=3000).cumsum()
    with pytest.warns(UserWarning, match="beyond"):
        paths = fit(walk).sample_paths(3000, 3 * P)
    steps = np.diff(paths, axis=1).std(axis=0)
    assert steps.max() < 1.6 * steps.min(), "no jump where a block ends"
    assert np.corrcoef(paths[:, P - 1], paths[:, P])[0, 1] > 0.9
