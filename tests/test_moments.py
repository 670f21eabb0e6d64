"""Second moments of sliding windows are those of summing over every window."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from titans_ts import moments
from titans_ts.channels import LEAST_KNOWN, Channels
from titans_ts.drift import (
    centred_training,
    centred_validation,
    summed_training,
    summed_validation,
)
from titans_ts.moments import (
    FARTHEST,
    Quadratic,
    channel_moments,
    level_error,
    summed_products,
    training_moments,
    validation_moments,
    validation_span,
)


def sliding_products(
    x: np.ndarray, y: np.ndarray, rows: int, columns: int, windows: int
) -> np.ndarray:
    """Those of one x and one y, of more entries than are needed."""
    xs, ys = [x[: windows + rows - 1]], [y[: windows + columns - 1]]
    return summed_products(xs, xs if x is y and rows == columns else ys, rows, columns, [1.0])


def window_moments(y: np.ndarray, n: int) -> np.ndarray:
    return sliding_products(y, y, n, n, len(y) - n + 1)


def summed(y: np.ndarray, n: int) -> np.ndarray:
    total = np.zeros((n, n))
    for start in range(len(y) - n + 1):
        total += np.outer(y[start : start + n], y[start : start + n])
    return total


@given(
    windows=st.integers(1, 60),
    rows=st.integers(1, 25),
    columns=st.integers(1, 25),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_sliding_products_are_sums_over_all_windows(
    windows: int, rows: int, columns: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=windows + rows - 1) + 3, rng.normal(size=windows + columns - 1) + 3
    expected = sum(np.outer(x[t : t + rows], y[t : t + columns]) for t in range(windows))
    found = sliding_products(x, y, rows, columns, windows)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-9)


def by_hand(
    y: np.ndarray, before: int, after: int, first: int, last: int
) -> tuple[np.ndarray, int]:
    """Window by window: ``y`` (T,) with NaN, origins from ``first`` to ``last``."""
    known = np.flatnonzero(~np.isnan(y[first - before : last + after])) + first - before
    total, count = np.zeros((before + after, before + after)), 0
    for origin in range(first, last + 1):
        context, target = y[origin - before : origin], y[origin : origin + after]
        if (~np.isnan(context)).mean() < LEAST_KNOWN or (~np.isnan(target)).mean() < LEAST_KNOWN:
            continue
        # The last value known above, or the first there is.
        past = []
        for row in range(origin - before, origin):
            seen = np.flatnonzero(~np.isnan(y[: row + 1]))
            past.append(y[seen[-1]] if len(seen) else y[~np.isnan(y)][0])
        ahead = np.interp(np.arange(origin, origin + after), known, y[known])
        window = np.concatenate([past, ahead])
        if np.abs(window).max() < FARTHEST:
            total += np.outer(window, window)
            count += 1
    return total, count


@given(
    rows=st.integers(20, 70),
    before=st.integers(1, 8),
    after=st.integers(1, 5),
    share=st.sampled_from([0.0, 0.1, 0.5]),
    far=st.integers(0, 2),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=80, deadline=None)
def test_missing_and_far_values_are_passed_over_as_by_hand(
    rows: int, before: int, after: int, share: float, far: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    other, y = rng.normal(size=9), rng.normal(size=rows)
    y[rng.random(rows) < share] = np.nan
    y[rng.integers(rows, size=far)] = 2 * FARTHEST
    y[rng.integers(rows)] = 1.0  # something is known
    channels = Channels.join([other[:, None], y[:, None]], [9, rows])
    first, last = 9 + before, 9 + rows - after
    found, count = channel_moments(channels, before, after, first, last)
    expected, n = by_hand(y, before, after, before, rows - after)
    assert count == n
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def panel(seed: int, series: int) -> Channels:
    """Series of several lengths, some too short for a window, with missing and far values."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(5, 60, size=series)
    values = [rng.normal(size=(n, 2)) + 3 for n in lengths]
    for y in values:
        y[rng.random(y.shape) < rng.choice([0.0, 0.0, 0.2])] = np.nan
        y[0, 0] = rng.choice([1.0, 2 * FARTHEST, 2e3])
    return Channels.join(values, [int(0.7 * n) for n in lengths])


@given(seed=st.integers(0, 2**32 - 1), drifts=st.booleans(), half=st.sampled_from([None, 0, 1]))
@settings(max_examples=40, deadline=None)
def test_the_moments_of_all_channels_are_the_sum_of_those_of_each(
    seed: int, drifts: bool, half: int | None
) -> None:
    channels, shape = panel(seed, series=5), (6, 3)
    each = [centred_training(channels, k, *shape, drifts) for k in range(len(channels))]
    close = {"rtol": 1e-9, "atol": 1e-6}  # of values of up to 2000
    total = summed_training(channels, *shape, drifts)
    np.testing.assert_allclose(total, sum(m for m, _ in each), **close)
    mean = summed_training(channels, *shape, drifts, mean=True)
    np.testing.assert_allclose(mean, sum(m / max(n, 1) for m, n in each), **close)
    weights = np.random.default_rng(seed).random(len(channels))
    expected = sum(
        weight * centred_validation(channels, k, *shape, drifts, half)
        for k, weight in enumerate(weights)
    )
    found = summed_validation(channels, weights, *shape, drifts, half)
    np.testing.assert_allclose(found, expected, **close)


def test_channels_are_summed_in_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    channels = panel(0, series=9)
    whole = summed_training(channels, 6, 3, drifts=False)
    monkeypatch.setattr(moments, "_POOLED", 4)
    monkeypatch.setattr(moments, "_MOST_POOLED", 100)
    np.testing.assert_allclose(summed_training(channels, 6, 3, drifts=False), whole, rtol=1e-9)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_the_error_of_the_level_is_that_of_weights_of_zero(seed: int) -> None:
    channels = panel(seed, series=3)
    for k in range(len(channels)):
        expected, count = validation_moments(channels, k, 6, 3)
        found = level_error(channels, 6, 3, *validation_span(channels, k, 6, 3))
        error = Quadratic(expected, 3).of(np.zeros((6, 3)))
        assert found == (pytest.approx(error, rel=1e-6, abs=1e-6), count)


def test_products_by_fft_are_those_without(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 900)) + 3
    direct = sliding_products(x, y, 20, 30, 800)
    monkeypatch.setattr(moments, "_LONG", 100)
    np.testing.assert_allclose(sliding_products(x, y, 20, 30, 800), direct, rtol=1e-12)


def test_windows_that_do_not_count_are_taken_off_in_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    y = np.random.default_rng(0).normal(size=(3000, 1))
    y[1000:1200] = np.nan
    channels = Channels.join([y], [3000])
    whole, count = channel_moments(channels, 6, 3, 6, 2990)
    expected, n = by_hand(y[:, 0], 6, 3, 6, 2990)
    assert count == n
    np.testing.assert_allclose(whole, expected, atol=1e-9)
    monkeypatch.setattr(moments, "_BLOCK", 7)
    np.testing.assert_allclose(channel_moments(channels, 6, 3, 6, 2990)[0], whole, atol=1e-9)


def test_training_moments_are_computed_once_as_far_as_they_may_be_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    y = np.random.default_rng(0).normal(size=(60, 2))
    channels = Channels.join([y], [50])
    monkeypatch.setattr(moments, "_MOST_KEPT", 8 * 8**2)  # those of one channel
    first, second = (training_moments(channels, k, 5, 3) for k in (0, 1))
    assert training_moments(channels, 0, 5, 3)[0] is first[0]
    assert training_moments(channels, 1, 5, 3)[0] is not second[0]
    np.testing.assert_array_equal(training_moments(channels, 1, 5, 3)[0], second[0])
    with pytest.raises(ValueError, match="read-only"):
        first[0][0, 0] = 0.0


def test_training_and_validation_share_no_target_and_halves_no_origin() -> None:
    y = np.arange(40.0)[:, None]
    channels = Channels.join([y[:10], y], [8, 30])
    training, n = training_moments(channels, 1, 5, 3)
    np.testing.assert_allclose(training, summed(y[:30, 0], 8))
    assert n == 30 - 8 + 1
    validation, m = validation_moments(channels, 1, 5, 3)
    np.testing.assert_allclose(validation * m, summed(y[25:, 0], 8))
    assert m == 10 - 3 + 1
    early, late = (validation_moments(channels, 1, 5, 3, half) for half in (0, 1))
    assert (early[1], late[1]) == (4, 4)
    np.testing.assert_allclose(early[0] * 4 + late[0] * 4, validation * m)


@given(seed=st.integers(0, 2**32 - 1), length=st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_the_quadratic_is_the_mean_squared_error_of_all_windows(seed: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    y, weights = rng.normal(size=30) + 5, rng.normal(size=(length, 3))
    errors = []
    for origin in range(6, 28):
        context = y[origin - length : origin]
        forecast = context.mean() + (context - context.mean()) @ weights
        errors.append(np.square(y[origin : origin + 3] - forecast))
    mean = window_moments(y, 9) / 22
    assert Quadratic(mean, 3).of(weights) == pytest.approx(np.mean(errors))
