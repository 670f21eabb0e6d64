"""Intervals that hold the truth as often as they say, and floors right by hand."""

from __future__ import annotations

import numpy as np
import pytest

from titans_ts.backtest_scores import block_length_for, bootstrap_skill
from titans_ts.evaluation import naive_forecasts
from titans_ts.floors import detect_season, repeat_season, season_errors

COUNT = np.arange(1.0, 11.0)[:, None]


def simulated(windows, persistence, units=400, rows=12):
    """Summed squared errors of two models; that of the second is 1.44 times as large.

    Errors share a level within a window, which goes on to the next by its persistence.
    """
    generator = np.random.default_rng(0)

    def levels():
        noise = generator.normal(size=(units, windows + 20))
        found = np.zeros_like(noise)
        for w in range(1, noise.shape[1]):
            step = np.sqrt(1 - persistence**2) * noise[:, w]
            found[:, w] = persistence * found[:, w - 1] + step
        return found[:, 20:, None]

    def errors(common):
        noise = generator.normal(size=(units, windows, rows))
        return common + 0.5 * levels() + 0.5 * noise

    common = levels()
    return (np.square(scale * errors(common)).sum(axis=2) for scale in (1, 1.2))


@pytest.mark.parametrize(
    ("windows", "persistence", "least"),
    [(5, 0, 0.84), (8, 0, 0.92), (20, 0, 0.92), (60, 0, 0.92), (60, 0.6, 0.87)],
)
def test_intervals_hold_the_truth_as_often_as_the_docstring_says(windows, persistence, least):
    low, high = bootstrap_skill(*simulated(windows, persistence), block_length_for(windows, 12, 12))
    truth = 1 - 1 / 1.44
    assert least < np.mean((low <= truth) & (truth <= high)) < 0.985


def test_more_confidence_is_wider_and_a_seed_draws_the_same():
    ours, theirs = simulated(20, 0, units=3)
    narrow, wide = (bootstrap_skill(ours, theirs, 2, confidence=c) for c in (0.5, 0.99))
    assert (wide[0] < narrow[0]).all()
    assert (narrow[1] < wide[1]).all()
    again = bootstrap_skill(ours, theirs, 2, confidence=0.5)
    np.testing.assert_array_equal(again, narrow)
    other = bootstrap_skill(ours, theirs, 2, confidence=0.5, random_state=1)
    assert (np.asarray(other) != narrow).any()


def test_units_are_redrawn_alike():
    ours, theirs = simulated(20, 0, units=1)
    low, high = bootstrap_skill(np.repeat(ours, 3, axis=0), np.repeat(theirs, 3, axis=0), 2)
    np.testing.assert_allclose(low, low[0])
    np.testing.assert_allclose(high, high[0])


def test_there_is_no_interval_where_there_is_nothing_to_redraw():
    few = bootstrap_skill(np.ones((2, 7)), np.ones((2, 7)), 2)
    perfect = bootstrap_skill(np.ones((2, 9)), np.array([np.zeros(9), np.full(9, 4.0)]), 1)
    assert np.isnan(few).all()
    assert np.isnan(perfect[0]).tolist() == [True, False]
    assert perfect[0][1] == perfect[1][1] == 0.75


@pytest.mark.parametrize(
    ("windows", "length", "step", "expected"),
    [
        (5, 24, 24, 1),
        (8, 24, 24, 2),
        (26, 24, 48, 2),
        (27, 24, 24, 3),
        (50, 24, 8, 3),
        (3, 9, 1, 3),
    ],
)
def test_windows_that_share_targets_are_redrawn_together(windows, length, step, expected):
    assert block_length_for(windows, length, step) == expected


@pytest.mark.parametrize("season", [1, 3, 10])
def test_the_last_season_is_repeated(season):
    repeated = repeat_season(COUNT, season, 7)
    y = np.concatenate([COUNT, np.zeros((7, 1))])
    np.testing.assert_array_equal(repeated, naive_forecasts(y, 10, 7, season)[0])


def test_a_season_longer_than_the_past_falls_back_on_the_last_row():
    assert repeat_season(COUNT[:2], 4, 5)[:, 0].tolist() == [2, 2, 1, 2, 2]


def test_a_missing_row_is_that_of_the_season_before():
    y = COUNT.copy()
    y[[8, 9]] = np.nan
    assert repeat_season(y, 5, 5)[:, 0].tolist() == [6, 7, 8, 4, 5]
    assert repeat_season(y, 1, 2)[:, 0].tolist() == [8, 8]
    assert np.isnan(repeat_season(np.full((4, 1), np.nan), 2, 3)).all()


def test_the_errors_of_a_season_are_those_that_it_made():
    y = np.random.default_rng(0).normal(size=(40, 2)).cumsum(axis=0)
    levels = np.array([0.1, 0.9])
    errors = season_errors(y, 4, 10, levels)
    assert errors.shape == (10, 2, 2)
    for ahead, lag in [(0, 4), (3, 4), (4, 8), (9, 12)]:
        expected = np.quantile(y[lag:] - y[:-lag], levels, axis=0).T
        np.testing.assert_allclose(errors[ahead], expected)


def test_errors_further_ahead_than_the_past_are_those_of_the_longest_lag():
    y = np.random.default_rng(0).normal(size=(10, 1))
    errors = season_errors(y, 4, 20, np.array([0.5]))
    np.testing.assert_allclose(errors[8:, 0, 0], np.median(y[8:] - y[:-8]))
    assert not season_errors(y[:3], 4, 5, np.array([0.1, 0.9])).any()


def test_what_is_missing_makes_no_error():
    y = COUNT.copy()
    y[4] = np.nan
    assert season_errors(y, 1, 2, np.array([0.0, 1.0]))[:, 0].tolist() == [[1, 1], [2, 2]]


@pytest.mark.parametrize("season", [4, 12, 24])
def test_a_season_is_found_in_noise_on_a_slope(season):
    t = np.arange(400)
    noise = np.random.default_rng(0).normal(size=400)
    y = np.sin(2 * np.pi * t / season) + 0.05 * t + 0.5 * noise
    assert detect_season([y[:, None]]) == season


def test_of_two_seasons_the_shorter_is_taken_unless_the_longer_says_more():
    t = np.arange(24 * 7 * 8)
    day, week = np.sin(2 * np.pi * t / 24), t // 24 % 7 >= 5
    assert detect_season([(3 * day + 0.3 * week)[:, None]]) == 24
    assert detect_season([(day + 2.0 * week)[:, None]]) == 168
    # A week that fits in few times: fewer pairs of rows tell of it, and more of what they tell.
    assert detect_season([(day + 0.7 * week)[: 24 * 7 * 4, None]]) == 168


def test_there_is_no_season_in_noise_or_in_what_does_not_vary():
    noise = np.random.default_rng(0).normal(size=(500, 2))
    assert detect_season([noise]) == 1
    assert detect_season([np.ones((50, 1))]) == 1
    assert detect_season([np.full((50, 1), np.nan)]) == 1
    assert detect_season([np.ones((1, 1))]) == 1


def test_missing_values_and_short_series_do_not_hide_a_season():
    t = np.arange(200)
    y = np.sin(2 * np.pi * t / 10)[:, None] + [0.0, 50.0]
    y[::7] = np.nan
    assert detect_season([y, np.ones((3, 2)), y[:60]]) == 10
