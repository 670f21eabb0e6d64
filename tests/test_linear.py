"""The linear part: closed form, chosen on validation, continued exactly by recursion."""

from __future__ import annotations

import numpy as np
import pytest

from titans_ts.linear import LinearChoice, LinearPart, choose_linear, refit_linear
from titans_ts.windows import centre, sliding_windows

L, P = 12, 5


def series(rows: int, *, seed: int = 0, alike: bool = True) -> np.ndarray:
    """Three noisy autoregressive channels; alike, or each with a law of its own."""
    rng = np.random.default_rng(seed)
    coefficients = np.array([0.8, 0.8, 0.8] if alike else [0.95, -0.9, 0.3])
    y = np.zeros((rows, 3))
    for t in range(1, rows):
        y[t] = coefficients * y[t - 1] + rng.normal(size=3)
    return y / y.std(axis=0)


def by_least_squares(y: np.ndarray, penalty: float) -> np.ndarray:
    """The shared ridge matrix, from the augmented least-squares problem."""
    windows = sliding_windows(y, L + P).reshape(-1, L + P)
    x, level = centre(windows[:, :L])
    x = np.vstack([x, np.sqrt(penalty) * np.eye(L)])
    target = np.vstack([windows[:, L:] - level, np.zeros((L, P))])
    return np.linalg.lstsq(x, target, rcond=None)[0]


def test_the_shared_matrix_is_the_ridge_solution() -> None:
    y = series(900)
    part, choice = choose_linear(y, 700, L, P)
    assert not part.per_channel
    np.testing.assert_allclose(part.weights[0], by_least_squares(y[:700], choice.shared_penalty))


@pytest.mark.parametrize("alike", [True, False])
def test_channels_get_matrices_of_their_own_only_where_that_helps(alike: bool) -> None:
    y = series(900, alike=alike)
    part, _ = choose_linear(y, 700, L, P)
    assert part.per_channel is not alike
    windows = sliding_windows(y[700 - L :], L + P)
    context, target = windows[..., :L], windows[..., L:]
    naive = np.square(target - context[..., -1:]).mean()
    assert np.square(target - part.predict(context)).mean() < 0.9 * naive


@pytest.mark.parametrize("alike", [True, False])
def test_learning_windows_one_by_one_equals_fitting_with_all_of_them(alike: bool) -> None:
    y = series(900, alike=alike)
    _, choice = choose_linear(y[:500], 400, L, P)
    part = refit_linear(y[:500], choice, L, P)
    # The recursion keeps the centre that per-channel matrices were shrunk toward at the fit.
    shared = refit_linear(y[:500], LinearChoice(choice.shared_penalty), L, P).weights[0]
    for t in range(501, 901):
        window = y[t - L - P : t].T
        part.learn(window[:, :L], window[:, L:])

    for c in range(3):
        windows = sliding_windows(y, L + P)[:, c]
        x, level = centre(windows[:, :L])
        target = windows[:, L:] - level
        if part.per_channel:
            penalty = part.penalty[c] * np.eye(L)
            expected = np.linalg.solve(x.T @ x + penalty, x.T @ target + penalty @ shared)
            np.testing.assert_allclose(part.weights[c], expected, atol=1e-9)
        else:
            expected = by_least_squares(y, part.penalty[0])
            np.testing.assert_allclose(part.weights[0], expected, atol=1e-9)


def test_the_recursion_stays_exact_over_a_long_stream() -> None:
    y = series(12_000)
    choice = LinearChoice(shared_penalty=1e-3)
    part = refit_linear(y[:200], choice, L, P)
    for t in range(201, len(y) + 1):
        window = y[t - L - P : t].T
        part.learn(window[:, :L], window[:, L:])
    np.testing.assert_allclose(
        part.weights[0], by_least_squares(y, choice.shared_penalty), atol=1e-8
    )


def test_a_series_without_variation_is_forecast_to_stay() -> None:
    part, _ = choose_linear(np.zeros((60, 2)), 40, L, P)
    assert isinstance(part, LinearPart)
    np.testing.assert_array_equal(part.predict(np.full((2, L), 7.0)), np.full((2, P), 7.0))
