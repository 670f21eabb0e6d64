"""The linear part: closed form, chosen on validation, continued exactly by recursion."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from titans_ts import linear_choice, reversion
from titans_ts.channels import Channels
from titans_ts.linear import HUBER_DELTA, LinearPart
from titans_ts.linear_choice import (
    LEAST_WEIGHT,
    SHARPNESS,
    LinearChoice,
    choose_linear,
    look_backs_within,
    refit_linear,
)
from titans_ts.moments import FARTHEST, channel_moments
from titans_ts.reversion import full_reversion
from titans_ts.windows import centre, sliding_windows

L, P = 12, 5
LOOK_BACKS = (4, 7, L)


def series(rows: int, *, seed: int = 0, alike: bool = True) -> np.ndarray:
    """Three noisy autoregressive channels; alike, or each with a law of its own."""
    rng = np.random.default_rng(seed)
    coefficients = np.array([0.8, 0.8, 0.8] if alike else [0.95, -0.9, 0.3])
    y = np.zeros((rows, 3))
    for t in range(1, rows):
        y[t] = coefficients * y[t - 1] + rng.normal(size=3)
    return y / y.std(axis=0)


def joined(y: np.ndarray, n_train: int | None = None) -> Channels:
    """The channels of one series, of which so many rows are for training."""
    return Channels.join([y], [len(y) if n_train is None else n_train])


def only(penalty: float, length: int = L) -> LinearChoice:
    """The shared ridge of one look-back, with this penalty."""
    return LinearChoice((length,), np.array([penalty]), None, np.array([1.0]))


def least_squares(x: np.ndarray, target: np.ndarray, penalty: Any, toward: Any = 0.0) -> np.ndarray:
    """``argmin |target - x W|^2 + penalty |W - toward|^2``, as an augmented problem."""
    root = np.sqrt(penalty) * np.eye(x.shape[1])
    toward = np.broadcast_to(toward, (x.shape[1], target.shape[1]))
    found: np.ndarray = np.linalg.lstsq(
        np.vstack([x, root]), np.vstack([target, root @ toward]), rcond=None
    )[0]
    return found


def windows_of(y: np.ndarray, length: int = L) -> tuple[np.ndarray, np.ndarray]:
    """Centred contexts and targets of every window of the columns."""
    windows = sliding_windows(y, length + P).transpose(1, 0, 2).reshape(-1, length + P)
    x, level = centre(windows[:, :length])
    return x, windows[:, length:] - level


def candidates(y: np.ndarray, choice: LinearChoice) -> list[tuple[int, Any]]:
    """Each look-back, with the matrix of each channel."""
    found = []
    for i, length in enumerate(choice.look_backs):
        matrix = least_squares(*windows_of(y, length), choice.shared[i])
        matrices = [matrix] * y.shape[1]
        if choice.own is not None:
            matrices = [
                least_squares(*windows_of(y[:, [c]], length), choice.own[i, c], matrix)
                for c in range(y.shape[1])
            ]
        found.append((length, matrices))
    return found


def errors_of(y: np.ndarray, first: int, length: int, matrices: Any) -> np.ndarray:
    """Mean squared error of each channel, window by window, at origins from ``first`` on."""
    found = np.zeros(y.shape[1])
    for c in range(y.shape[1]):
        losses = []
        for origin in range(first, len(y) - P + 1):
            context = y[origin - length : origin, c]
            forecast = context.mean() + (context - context.mean()) @ matrices[c]
            losses.append(np.mean(np.square(y[origin : origin + P, c] - forecast)))
        found[c] = np.mean(losses)
    return found


@pytest.mark.parametrize("alike", [True, False])
def test_the_mix_is_that_of_losses_computed_window_by_window(alike: bool) -> None:
    y, n_train = series(500, alike=alike), 400
    _, choice = choose_linear(joined(y, n_train), LOOK_BACKS, P)
    parts = candidates(y[:n_train], choice)
    calm = [np.zeros((length, P)) for length in LOOK_BACKS]
    weight = 1 / errors_of(y, n_train, L, [calm[-1]] * 3).clip(1.0)
    weight /= weight.sum()
    losses = np.array([errors_of(y, n_train, *part) @ weight for part in parts])
    expected = np.exp(-SHARPNESS * (losses / losses.min() - 1))
    expected[expected < LEAST_WEIGHT] = 0
    np.testing.assert_allclose(choice.mix, expected / expected.sum(), atol=1e-7)


@pytest.mark.parametrize("alike", [True, False])
def test_no_penalty_of_the_grid_would_have_done_better_on_validation(alike: bool) -> None:
    y, n_train = series(500, alike=alike), 400
    channels = joined(y, n_train)
    _, choice = choose_linear(channels, (L,), P)
    x, target = windows_of(y[:n_train])
    unit = np.linalg.eigvalsh(x.T @ x).mean()
    weight = 1 / errors_of(y, n_train, L, [np.zeros((L, P))] * 3).clip(1.0)
    grid = np.array(linear_choice.PENALTY_GRID) * unit
    losses = [
        errors_of(y, n_train, L, [least_squares(x, target, penalty)] * 3) @ weight
        for penalty in grid
    ]
    assert choice.shared[0] == pytest.approx(grid[np.argmin(losses)])
    assert choice.own is not None
    shared = least_squares(x, target, choice.shared[0])
    for c in range(3):
        x, target = windows_of(y[:n_train, [c]])
        grid = np.array(linear_choice.PENALTY_GRID) * np.linalg.eigvalsh(x.T @ x).mean()
        losses = [
            errors_of(y[:, [c]], n_train, L, [least_squares(x, target, penalty, shared)]).sum()
            for penalty in grid
        ]
        assert choice.own[0, c] == pytest.approx(grid[np.argmin(losses)])


@pytest.mark.parametrize("alike", [True, False])
def test_the_folded_matrix_forecasts_the_weighted_mean_of_the_candidates(alike: bool) -> None:
    y, n_train = series(500, alike=alike), 400
    part, choice = choose_linear(joined(y, n_train), LOOK_BACKS, P)
    assert np.count_nonzero(choice.mix) > 1
    assert choice.mix.sum() == pytest.approx(1)
    context = np.random.default_rng(1).normal(size=(3, part.context_length)) + 10
    expected = np.zeros((3, P))
    for share, (length, matrices) in zip(choice.mix, candidates(y[:n_train], choice), strict=True):
        x, level = centre(context[:, -length:])
        expected += share * (np.stack([x[c] @ matrices[c] for c in range(3)]) + level)
    expected += context.mean(axis=1, keepdims=True) * np.stack(part.reversion)
    np.testing.assert_allclose(part.predict(context), expected, atol=1e-9)
    assert part.predict(context, np.array([2, 2, 0])).shape == (3, P)


def test_look_backs_that_take_no_part_are_not_carried_along() -> None:
    y = series(400)  # the last row is all there is to know
    part, choice = choose_linear(joined(y, 300), (2, 60), P)
    assert choice.look_backs in ((2,), (2, 60))
    assert part.context_length == choice.look_backs[-1]
    assert choice.mix[-1] > 0
    assert len(choice.shared) == len(choice.mix) == len(choice.look_backs)
    assert look_backs_within(100) == (24, 48, 96, 100)
    assert look_backs_within(96) == (24, 48, 96)
    assert look_backs_within(5) == (5,)


def test_the_shared_matrix_is_the_ridge_solution() -> None:
    y = series(900)
    part = refit_linear(joined(y, 700), only(3.0), P)
    assert not part.per_channel
    np.testing.assert_allclose(part.weights[0], folded(least_squares(*windows_of(y), 3.0)))


def folded(matrix: np.ndarray) -> np.ndarray:
    """The matrix that forecasts the same and whose columns sum to one."""
    return matrix + (1 - matrix.sum(axis=0)) / len(matrix)


@pytest.mark.parametrize("alike", [True, False])
def test_channels_are_drawn_to_the_shared_matrix_where_they_are_alike(alike: bool) -> None:
    y = series(900, alike=alike)
    part, choice = choose_linear(joined(y, 700), (L,), P)
    assert part.per_channel
    shared = folded(least_squares(*windows_of(y[:700]), choice.shared[0]))
    apart = max(np.abs(own - shared).max() for own in part.weights)
    assert apart < 0.05 if alike else apart > 0.2
    windows = sliding_windows(y[700 - L :], L + P)
    context, target = windows[..., :L], windows[..., L:]
    naive = np.square(target - context[..., -1:]).mean()
    forecast = np.stack([part.predict(rows) for rows in context])
    assert np.square(target - forecast).mean() < 0.9 * naive


def level_left(y: np.ndarray, part: LinearPart, c: int) -> tuple[np.ndarray, np.ndarray]:
    """Levels of the windows of a channel, and what the matrix leaves of their targets."""
    windows = sliding_windows(y[:, [c]], L + P)[:, 0]
    level = windows[:, :L].mean(axis=1)
    matrix = part.weights[c if part.per_channel else 0]
    return level, windows[:, L:] - windows[:, :L] @ folded(matrix)


@pytest.mark.parametrize("per_channel", [True, False])
def test_the_reversion_is_the_regression_of_what_is_left_on_the_level(per_channel: bool) -> None:
    y = series(500, alike=False)
    own = np.array([[1.0, 2.0, 3.0]]) if per_channel else None
    part = refit_linear(joined(y), LinearChoice((L,), np.ones(1), own, np.ones(1)), P)
    assert not np.any(part.reversion)
    found = full_reversion(joined(y), part)
    left = [level_left(y, part, c) for c in range(3)]
    mean = [level @ rest / len(level) for level, rest in left]
    power = [level @ level / len(level) for level, _ in left]
    shared = np.sum(mean, axis=0) / sum(power)
    if not per_channel:
        np.testing.assert_allclose(found, [shared], atol=1e-9)
        return
    for c in range(3):  # drawn to the shared one as by a channel's worth of it
        level, rest = left[c]
        n = len(level)
        tried = least_squares(level[:, None], rest, reversion._SHRINKAGE * n, shared)
        np.testing.assert_allclose(found[c], tried[0], atol=1e-9)


def test_levels_that_return_are_expected_to_and_others_are_not() -> None:
    rng = np.random.default_rng(0)
    swings = np.zeros(4000)
    for t in range(1, 4000):
        swings[t] = 0.9 * swings[t - 1] + rng.normal()
    rising = np.arange(4000) + rng.normal(size=4000)
    for y, returns in ((swings, True), (rising, False)):
        z = ((y - y[:3000].mean()) / y[:3000].std())[:, None]
        part, choice = choose_linear(joined(z, 3000), (L,), P)
        assert (choice.reversion > 0) is returns
        high = np.full((1, L), 2.0)
        assert (part.predict(high) < 2.0).all() if returns else (part.predict(high) == 2.0).all()
        again = refit_linear(joined(z), choice, P)
        expected = full_reversion(joined(z), refit_linear(joined(z), only(choice.shared[0]), P))
        np.testing.assert_allclose(again.reversion, choice.reversion * np.stack(expected))


def test_a_panel_of_many_channels_shares_one_matrix() -> None:
    y = np.random.default_rng(0).normal(size=(60, linear_choice.MOST_OWN_MATRICES + 1))
    part, choice = choose_linear(joined(y, 40), (L,), P)
    assert choice.own is None
    assert len(part.weights) == len(part.covariance) == len(part.reversion) == 1


def test_a_channel_that_was_not_fitted_is_forecast_with_the_mean_matrix() -> None:
    part, _ = choose_linear(joined(series(500, alike=False), 400), (L,), P)
    assert part.per_channel
    context = np.random.default_rng(0).normal(size=(2, L))
    part.reversion = [np.full(P, v) for v in (0.1, -0.2, -0.5)]
    x, level = centre(context)
    unknown = x[0] @ np.mean(part.weights, axis=0) + 0.8 * level[0]
    known = x[1] @ part.weights[1] + 0.8 * level[1]
    np.testing.assert_allclose(part.predict(context, np.array([-1, 1])), [unknown, known])


@st.composite
def windows(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Contexts and targets, some of which are missing."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(1, 25))
    context, target = rng.normal(size=(n, L)) + 5, rng.normal(size=(n, P)) + 5
    target[rng.random((n, P)) < draw(st.sampled_from([0.0, 0.3]))] = np.nan
    return context, target


@given(
    data=windows(),
    per_channel=st.booleans(),
    batch=st.integers(1, 3),
    adapted=st.sampled_from([3, L]),
)
@settings(max_examples=40, deadline=None)
def test_learning_is_the_least_squares_that_starts_from_the_fit(
    data: tuple[np.ndarray, np.ndarray], per_channel: bool, batch: int, adapted: int
) -> None:
    """The closed form: ``argmin sum h |y - x W|^2 + tr((W - W0)' C0^-1 (W - W0))``.

    h is 1, or less for a window that was further out than Huber's delta when it came.
    """
    context, target = data
    rng = np.random.default_rng(0)
    start = [rng.normal(size=(L, P)) for _ in range(3 if per_channel else 1)]
    root = rng.normal(size=(adapted, adapted))
    covariance = [root @ root.T / L + 0.1 * np.eye(adapted) for _ in start]
    reversion = [np.zeros(P) for _ in start]  # its share learns, too: tests/test_drift.py
    drift = [rng.normal(size=P) for _ in start]
    part = LinearPart(list(start), list(covariance), reversion, drift)
    channel = np.arange(len(context)) % 3
    calls = np.array_split(np.arange(len(context)), -(-len(context) // batch))
    for rows in calls:
        part.learn(context[rows], target[rows], channel[rows])
    x, level = centre(context)
    x, older = x[:, L - adapted :], x[:, : L - adapted]  # whose weights stay as they are
    for k, first in enumerate(start):
        y = target - level - drift[k] - older @ first[: L - adapted]
        mine = (channel == k if per_channel else channel >= 0) & ~np.isnan(target).all(axis=1)
        # A missing target counts as forecast exactly by what was known when its window came.
        before, inverse = first[L - adapted :], np.linalg.inv(covariance[k])
        weights, gram = before, inverse
        filled, h = y.copy(), np.zeros(len(y))
        for rows in calls:
            # The channels' windows of a call come one by one, where each has its own matrix.
            for new in rows[mine[rows], None] if per_channel else [rows[mine[rows]]]:
                filled[new] = np.where(np.isnan(y[new]), x[new] @ weights, y[new])
                error = filled[new] - x[new] @ weights
                h[new] = 1 / np.maximum(np.sqrt((error**2).mean(axis=1)) / HUBER_DELTA, 1)
                gram = gram + (x[new].T * h[new]) @ x[new]
                weights = weights + np.linalg.solve(gram, (x[new].T * h[new]) @ error)
        weighed = x[mine].T * h[mine]
        at_once = np.linalg.solve(
            inverse + weighed @ x[mine], inverse @ before + weighed @ filled[mine]
        )
        np.testing.assert_allclose(part.weights[k][L - adapted :], at_once, atol=1e-7)
        np.testing.assert_array_equal(part.weights[k][: L - adapted], first[: L - adapted])
        np.testing.assert_allclose(part.covariance[k], np.linalg.inv(gram), atol=1e-7)


@pytest.mark.parametrize("alike", [True, False])
def test_learning_windows_one_by_one_equals_fitting_with_all_of_them(alike: bool) -> None:
    y = series(900, alike=alike)
    own = None if alike else np.array([[1.0, 2.0, 3.0]])
    choice = LinearChoice((L,), np.array([2.0]), own, np.ones(1))
    part = refit_linear(joined(y[:500]), choice, P)
    first = [matrix.copy() for matrix in part.weights]
    for t in range(501, 901):
        window = y[t - L - P : t].T
        part.learn(window[:, :L], window[:, L:], np.arange(3))

    for k in range(len(part.weights)):
        mine = slice(None) if alike else [k]
        seen, _ = windows_of(y[:500, mine])
        penalty = 2.0 if alike else own[0, k]  # type: ignore[index]
        gram = seen.T @ seen + penalty * np.eye(L)
        new, wanted = windows_of(y[500 - L - P + 1 :, mine])
        assert len(new) == 400 * (3 if alike else 1)
        expected = np.linalg.solve(gram + new.T @ new, gram @ first[k] + new.T @ wanted)
        np.testing.assert_allclose(part.weights[k], expected, atol=1e-9)


def test_the_recursion_stays_exact_over_a_long_stream() -> None:
    y = series(12_000)
    part = refit_linear(joined(y[:200]), only(1e-3), P)
    first = part.weights[0].copy()
    for t in range(201, len(y) + 1):
        window = y[t - L - P : t].T
        part.learn(window[:, :L], window[:, L:], np.arange(3))
    seen, _ = windows_of(y[:200])
    gram = seen.T @ seen + 1e-3 * np.eye(L)
    new, wanted = windows_of(y[200 - L - P + 1 :])
    expected = np.linalg.solve(gram + new.T @ new, gram @ first + new.T @ wanted)
    np.testing.assert_allclose(part.weights[0], expected, atol=1e-8)
    np.testing.assert_array_equal(part.covariance[0], part.covariance[0].T)


def test_far_values_and_missing_targets_teach_nothing() -> None:
    part = refit_linear(joined(series(200)), only(1.0), P)
    before = part.copy()
    context, target = np.ones((3, L)), np.ones((3, P))
    context[0, 3], target[1, 2], target[2] = 2 * FARTHEST, -2 * FARTHEST, np.nan
    part.learn(context, target, np.arange(3))
    np.testing.assert_array_equal(part.weights[0], before.weights[0])
    np.testing.assert_array_equal(part.covariance[0], before.covariance[0])


def test_a_copy_learns_for_itself() -> None:
    part = refit_linear(joined(series(200)), only(1.0), P)
    kept, copied = part.weights[0].copy(), part.copy()
    copied.learn(np.random.default_rng(0).normal(size=(1, L)), np.ones((1, P)), np.zeros(1, int))
    np.testing.assert_array_equal(part.weights[0], kept)
    assert not np.array_equal(copied.weights[0], kept)


def test_a_series_without_variation_is_forecast_to_stay() -> None:
    part, _ = choose_linear(joined(np.zeros((60, 2)), 40), (L,), P)
    assert isinstance(part, LinearPart)
    np.testing.assert_array_equal(part.predict(np.full((2, L), 7.0)), np.full((2, P), 7.0))


def test_a_validation_part_that_is_all_missing_is_refused() -> None:
    y = series(100)
    y[60:] = np.nan
    with pytest.raises(ValueError, match="no window of the validation part has enough known"):
        choose_linear(joined(y, 70), (L,), P)


def test_values_under_a_mask_and_far_ones_do_not_choose() -> None:
    y = series(500)
    y[450:455, 1] = np.nan
    masked = choose_linear(joined(y, 400), LOOK_BACKS, P)[0]
    y[450:455, 1] = 3 * FARTHEST
    far = choose_linear(joined(y, 400), LOOK_BACKS, P)[0]
    y[450:455, 1] = -7 * FARTHEST
    farther = choose_linear(joined(y, 400), LOOK_BACKS, P)[0]
    for one, other in zip(far.weights, farther.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    # Only the windows of one channel that touch these rows differ.
    assert np.abs(masked.predict(np.eye(3, L)) - far.predict(np.eye(3, L))).max() < 0.1
    assert channel_moments(joined(y), L, P, L, 400)[1] == 400 - L + 1
