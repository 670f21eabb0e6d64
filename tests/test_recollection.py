"""What a seasonal memory adds to forecasts: what lies before the look-back, as far as it helps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from titans_ts import TitansForecaster
from titans_ts.evaluation import actual_windows, rolling_forecasts
from titans_ts.recollection import Recollection, features, rows_before
from titans_ts.seasonal_memory import SeasonalMemory

S, L, P = 24, 8, 12  # a season is three times as long as the look-back
FIRST = 24 * 60
OPTIONS = {"prediction_length": P, "context_length": L, "use_network": False}


def seasons(length: int = 24 * 80, channels: int = 2, seed: int = 0) -> np.ndarray:
    """Days of a shape of their own for each channel, that drifts, in noise of half its size."""
    generator = np.random.default_rng(seed)
    shape = generator.normal(size=(S, channels))
    shape = shape + 0.3 * generator.normal(size=(length // S, S, channels)).cumsum(axis=0)
    return shape.reshape(length, channels) + 0.5 * generator.normal(size=(length, channels))


def fitted(y: np.ndarray, **options) -> TitansForecaster:
    return TitansForecaster(**OPTIONS | options).fit(y)


@pytest.fixture(scope="module")
def forecaster() -> TitansForecaster:
    return fitted(seasons()[:FIRST])


def error_of(forecaster: TitansForecaster, y: np.ndarray, learn) -> float:
    start = forecaster.snapshot()
    forecasts = rolling_forecasts(forecaster, y, FIRST, learn=learn)
    forecaster.restore(start)
    return float(np.square(forecasts - actual_windows(y, FIRST, P)).mean())


def test_a_memory_that_learns_beats_a_frozen_one_and_none(forecaster: TitansForecaster) -> None:
    y = seasons()
    assert forecaster.model_.residual.uses_memory
    assert forecaster.model_.residual.recollection.memory.season == S
    none = error_of(fitted(y[:FIRST], use_memory=False), y, learn="memory")
    learning, frozen = (error_of(forecaster, y, learn) for learn in ("memory", False))
    assert learning < 0.7 * none
    assert learning < 0.8 * frozen


def test_where_there_is_no_season_no_memory_is_used() -> None:
    noise = np.random.default_rng(0).normal(size=(1000, 1)).cumsum(axis=0)
    assert fitted(noise).model_.residual.recollection is None


def test_validation_refuses_a_memory_of_a_season_that_ended() -> None:
    y = seasons(channels=1)[:FIRST]
    late = FIRST * 4 // 5
    y[late:] = np.random.default_rng(1).normal(size=(FIRST - late, 1))
    assert fitted(y).model_.residual.recollection is None


def test_a_window_by_itself_asks_no_memory(forecaster: TitansForecaster) -> None:
    y = seasons()
    blind = fitted(y[:FIRST], use_memory=False)
    window = y[FIRST - L : FIRST]
    np.testing.assert_array_equal(forecaster.predict(context=window), blind.predict(context=window))
    enough = rows_before(SeasonalMemory(S), L)
    long = y[FIRST - enough : FIRST]
    assert not np.allclose(forecaster.predict(context=long), blind.predict(context=long))
    short = forecaster.predict(context=long[1:])
    np.testing.assert_array_equal(short, forecaster.predict(context=window))


def test_a_context_is_read_as_a_stream_is(forecaster: TitansForecaster) -> None:
    y, start = seasons(), forecaster.snapshot()
    forecaster.update(y[FIRST : FIRST + 50], learn="memory")
    expected = forecaster.predict()
    forecaster.restore(start)
    answer = forecaster.predict(context=y[: FIRST + 50])
    np.testing.assert_allclose(answer, expected, rtol=1e-12)


def test_only_the_memory_learns_where_only_it_is_to(forecaster: TitansForecaster) -> None:
    y, start = seasons(), forecaster.snapshot()
    weights = [w.copy() for w in forecaster._standing.linear.weights]
    forecaster.update(y[FIRST : FIRST + 60], learn="memory")
    for before, after in zip(weights, forecaster._standing.linear.weights, strict=True):
        np.testing.assert_array_equal(before, after)
    forecaster.restore(start)
    with pytest.raises(ValueError, match="learn must be True, False or 'memory'; got 'all'"):
        forecaster.update(y[FIRST:], learn="all")


@pytest.mark.parametrize("learn", [True, "memory", False])
def test_row_by_row_saved_and_loaded_is_bitwise_all_at_once(
    forecaster: TitansForecaster, tmp_path: Path, learn
) -> None:
    y, start = seasons(), forecaster.snapshot()
    expected = forecaster.update(y[FIRST : FIRST + 40], learn=learn).predict()
    forecaster.restore(start)
    for t in range(FIRST, FIRST + 40):
        if t == FIRST + 17:
            forecaster.save(tmp_path / "model")
            other = TitansForecaster.load(tmp_path / "model")
            other.update(y[t : FIRST + 40], learn=learn)
        forecaster.update(y[t : t + 1], learn=learn)
    np.testing.assert_array_equal(forecaster.predict(), expected)
    np.testing.assert_array_equal(other.predict(), expected)
    forecaster.restore(start)


def test_missing_rows_neither_write_nor_poison() -> None:
    y = seasons()
    holes = y.copy()
    holes[np.random.default_rng(2).random(y.shape) < 0.2] = np.nan
    answer = fitted(holes[:FIRST])
    assert answer.model_.residual.uses_memory
    assert np.isfinite(answer.predict()).all()
    gone = answer.update(np.full((5 * S, 2), np.nan)).predict()
    assert np.isfinite(gone).all()


def test_beyond_the_prediction_length_the_season_turns_on(forecaster: TitansForecaster) -> None:
    with pytest.warns(UserWarning, match="rolls on"):
        far = forecaster.predict(prediction_length=2 * S)
    seen = seasons()[FIRST - 10 * S : FIRST].reshape(10, S, 2)[-4:].mean(axis=0)
    # Every hour of the second day is nearer to that hour's mean than half a day aside.
    near, aside = (np.square(far[S:] - np.roll(seen, k, axis=0)).mean() for k in (0, S // 2))
    assert near < 0.5 * aside


def test_the_parts_of_a_forecast_sum_to_it(forecaster: TitansForecaster) -> None:
    told = forecaster.explain()
    assert "seasonal memory" in told.parts
    np.testing.assert_allclose(told.values.sum(axis=-1)[0], forecaster.predict(), rtol=1e-9)
    assert told.share()["seasonal memory"] > 0.05


def test_each_channel_has_its_own_weights_whatever_the_gates() -> None:
    memory = SeasonalMemory(2)
    weights = np.stack([np.full((1 + memory.reads, 1), k) for k in (1.0, 3.0)])
    whole = Recollection(memory, weights, np.ones(1), np.ones(3), 1)
    reads = np.full((3, memory.reads), 2.0)
    context, channel = np.ones((3, 4)), np.array([0, 1, -1])
    x, level = features(context[:, -1:], reads)
    answer = whole.correct(np.zeros((3, 1)), context, reads, channel)
    expected = level + x.sum(axis=1, keepdims=True) * np.array([[1.0], [3.0], [2.0]])
    np.testing.assert_allclose(answer, expected)


def test_a_panel_of_many_short_series_shares_what_is_remembered() -> None:
    series = [seasons(24 * 30, 1, seed=k)[:, 0] for k in range(70)]
    forecaster = fitted([each[: 24 * 25] for each in series])
    recollection = forecaster.model_.residual.recollection
    assert recollection is not None
    assert len(recollection.weights) == 1
    cold = forecaster.predict(context=seasons(24 * 20, 1, seed=99)[:, 0])
    assert np.isfinite(cold).all()


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_a_channel_that_needs_no_memory_is_left_alone_by_those_that_do(noise: float) -> None:
    rng, t = np.random.default_rng(0), np.arange(1000.0)
    season = 10 + 3 * np.sin(t * 2 * np.pi / 7) + 0.5 * rng.normal(size=len(t))
    y = np.column_stack([t + noise * rng.normal(size=len(t)), season])
    options = {"use_network": False, "progress": False}
    with_memory, without = (
        TitansForecaster(7, 28, use_memory=used, **options).fit(y[:-7]) for used in (True, False)
    )
    assert with_memory.model_.seasonal_memory is not None, "the other channel gains"
    ours, theirs = (np.abs(f.predict()[:, 0] - y[-7:, 0]).mean() for f in (with_memory, without))
    assert ours < 1.25 * theirs + 0.01
