"""A stream that drifts from what was fitted: what was chosen once must not hold it back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from titans_ts import TitansForecaster
from titans_ts.linear import LinearPart
from titans_ts.shares import Asked, no_evidence, shares, with_windows


def wandering(rows: int, seed: int) -> np.ndarray:
    """A series that returns to 0 by a fifth of the way each row."""
    noise = np.random.default_rng(seed).normal(size=rows)
    for t in range(1, rows):
        noise[t] += 0.8 * noise[t - 1]
    return noise


def season(rows: int, phase: float, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=rows)
    return 3 * np.sin(np.arange(rows) * 2 * np.pi / 24 + phase) + 0.3 * noise


def fitted(y: np.ndarray, **changes: object) -> TitansForecaster:
    settings = {"use_network": False, "progress": False, **changes}
    return TitansForecaster(6, 48, **settings).fit(y)


def errors(forecaster: TitansForecaster, y: np.ndarray) -> np.ndarray:
    """Of forecasts of six rows each, then learned from."""
    found = []
    for first in range(0, len(y) - 5, 6):
        rows = y[first : first + 6]
        found.append(forecaster.predict() - rows)
        forecaster.update(rows)
    return np.array(found)


@pytest.mark.parametrize("moved", [10.0, 0.05 * np.arange(1300)], ids=["level", "trend"])
def test_a_level_that_has_moved_for_good_is_not_forecast_back(moved: np.ndarray) -> None:
    old, new = wandering(2000, 1), wandering(1300, 2) + moved
    forecaster = fitted(old)
    assert np.any(forecaster._standing.linear.reversion), "it had a mean to return to"
    forecaster.update(new[:1000])
    found = errors(forecaster, new[1000:])
    again = errors(fitted(np.concatenate([old, new[:1000]])), new[1000:])
    assert np.square(found).mean() < 1.25 * np.square(again).mean()


def test_a_level_that_stays_keeps_its_reversion() -> None:
    forecaster = fitted(wandering(2000, 1))
    forecaster.update(wandering(600, 2))
    (share,) = shares(forecaster._standing.linear.evidence)
    assert share > 0.7


def test_a_season_that_has_moved_is_not_forecast_where_it_was() -> None:
    old, new = season(2400, 0, 1), season(480, 2, 2)
    later = {}
    for use_memory in (True, False):
        found = np.square(errors(fitted(old, use_memory=use_memory), new)).mean(axis=1)
        later[use_memory] = found[len(found) // 2 :].mean()
    assert later[True] < 1.3 * later[False]


def test_a_memory_that_helps_stays() -> None:
    rng = np.random.default_rng(3)
    shape = rng.normal(size=48)

    def rows(days: int) -> np.ndarray:
        return np.concatenate([shape + 0.3 * rng.normal(size=48) for _ in range(days)])

    forecaster = TitansForecaster(24, 24, use_network=False, progress=False).fit(rows(60))
    assert forecaster.model_.seasonal_memory is not None
    forecaster.update(rows(20))
    (stream,) = forecaster._standing.streams.values()
    assert stream.asked.evidence[0, 3] > 10
    assert stream.asked.share[0] > 0.9


def test_a_jump_far_out_does_not_send_forecasts_beyond_all_that_was_seen() -> None:
    y = 0.1 * wandering(700, 4)
    y[400:] += 20.0
    forecaster = fitted(y[:300])
    for first in range(300, 600, 6):
        ahead = forecaster.predict()
        seen = y[max(0, first - 96) : first]
        span = seen.max() - seen.min()
        assert ahead.max() < seen.max() + 0.5 * span
        assert ahead.min() > seen.min() - 0.5 * span
        forecaster.update(y[first : first + 6])


def test_a_stream_saved_while_the_memory_is_being_judged_goes_on_as_it_would(
    tmp_path: Path,
) -> None:
    forecaster = fitted(season(1200, 0, 1))
    new = season(200, 2, 2)
    forecaster.update(new[:100])
    forecaster.save(tmp_path / "model")
    loaded = TitansForecaster.load(tmp_path / "model")
    (stream,) = loaded._standing.streams.values()
    assert 0 < stream.position - stream.asked.position < 6
    for each in (forecaster, loaded):
        each.update(new[100:])
    np.testing.assert_array_equal(forecaster.predict(), loaded.predict())


# The share itself


def test_a_share_is_what_would_have_served_best() -> None:
    rng = np.random.default_rng(0)
    sums = no_evidence(3)
    np.testing.assert_array_equal(shares(sums), 1)
    for _ in range(200):
        c = rng.normal(size=(3, 6))
        r = np.array([[1.0], [0.4], [-1.0]]) * c + 0.5 * rng.normal(size=(3, 6))
        sums = with_windows(sums, c, r, rows=24)
    np.testing.assert_allclose(shares(sums), [1, 0.4, 0], atol=0.1)


def test_rows_that_are_missing_say_nothing() -> None:
    c, r = np.ones((2, 4)), np.array([[0.0, np.nan, 0.0, np.nan], [np.nan] * 4])
    sums = with_windows(no_evidence(2), c, r, rows=4)
    np.testing.assert_array_equal(sums[1], 0)
    np.testing.assert_array_equal(sums[0, :3], [0, sums[0, 3], 0])


def test_an_answer_is_weighed_once_its_rows_have_come() -> None:
    asked = Asked.nothing(1).ask(7, np.zeros((1, 30)), np.ones((1, 30)))
    told = asked.told(np.zeros((1, 30)))  # it said 1, and 0 came
    assert told.position == -1
    assert told.share[0] < 1e-6
    assert asked.told(np.ones((1, 30))).share[0] == 1


def test_windows_far_out_move_the_weights_less() -> None:
    def learned(size: float) -> np.ndarray:
        part = LinearPart([np.zeros((4, 1))], [np.eye(4)], [np.zeros(1)], [np.zeros(1)])
        window = np.array([[1.0, -1.0, 1.0, -1.0]])
        part.learn(window, np.array([[size]]), np.array([0]))
        return part.weights[0]

    assert np.abs(learned(3.0)).max() == pytest.approx(3 * np.abs(learned(1.0)).max())
    assert np.abs(learned(400.0)).max() < 10 * np.abs(learned(4.0)).max()
