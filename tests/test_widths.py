"""Widths follow what intervals have held since the fit."""

from __future__ import annotations

import numpy as np
import pytest
from test_drift import fitted, season, wandering

from titans_ts import TitansForecaster
from titans_ts.widths import Widths


def held(forecaster: TitansForecaster, y: np.ndarray, *, learn: bool) -> tuple[float, float, float]:
    """Shares of the rows within interval, quantiles and paths that should hold 80 %."""
    inside = []
    for first in range(0, len(y) - 5, 6):
        rows = y[first : first + 6, None]
        ends = forecaster.predict_interval(0.8)[:, 0].reshape(6, 2)
        quantiles = forecaster.predict_quantiles([0.1, 0.9]).reshape(6, 2)
        paths = np.quantile(forecaster.sample_paths(400), [0.1, 0.9], axis=0).T
        bands = [ends, quantiles, paths.reshape(6, 2)]
        inside.append([((b[:, :1] <= rows) & (rows <= b[:, 1:])).mean() for b in bands])
        forecaster.update(rows[:, 0], learn=learn)
    late = np.array(inside[len(inside) // 2 :])
    return tuple(late.mean(axis=0))


@pytest.mark.parametrize("factor", [1 / 3, 1, 3])
def test_intervals_quantiles_and_paths_hold_what_they_should_when_noise_changes(
    factor: float,
) -> None:
    old, new = season(2016, 0, 1), season(1800, 0, 2)
    calm = 3 * np.sin(np.arange(1800) * 2 * np.pi / 24)
    new = calm + factor * (new - calm)
    assert held(fitted(old), new, learn=True) == pytest.approx([0.8] * 3, abs=0.07)
    if factor != 1:
        for share in held(fitted(old), new, learn=False):
            assert abs(share - 0.8) > 0.15


def test_what_is_not_learned_from_moves_no_widths() -> None:
    forecaster = fitted(wandering(1000, 1))
    for learn in (False, "memory"):
        forecaster.update(9 * wandering(100, 2), learn=learn)
    (stream,) = forecaster._standing.streams.values()
    assert stream.widths.factor.tolist() == [1.0]
    assert stream.widths.position == -1


def test_a_window_moves_the_logarithm_by_what_lay_outside_beyond_what_was_due() -> None:
    truth = np.tile([0.0, 3.0], 15)[None]
    noted = Widths.nothing(1).note(7, np.zeros((1, 30)), np.ones((1, 30)))
    assert noted.told(truth).logarithm == pytest.approx([0.2 * (0.5 - 0.2)])
    assert noted.told(truth).position == -1
    truth[:, 1::2] = np.nan  # what is missing lies nowhere
    assert noted.told(truth).logarithm == pytest.approx([-0.2 * 0.2])
    assert noted.told(np.full_like(truth, np.nan)).logarithm == pytest.approx([0.0])


def test_short_windows_count_for_less_and_widths_stay_within_bounds() -> None:
    widths = Widths.nothing(1)
    for _ in range(200):
        widths = widths.note(0, np.zeros((1, 6)), np.ones((1, 6))).told(np.full((1, 6), 9.0))
        assert widths.logarithm <= 2.0
    once = Widths.nothing(1).note(0, np.zeros((1, 6)), np.ones((1, 6))).told(np.full((1, 6), 9.0))
    assert once.logarithm == pytest.approx([0.2 * 0.8 / 4])
    assert widths.factor == pytest.approx([np.exp(2)])


def test_an_outage_tells_nothing_of_widths() -> None:
    forecaster = fitted(wandering(1000, 1))
    forecaster.update(np.full(40, np.nan))
    forecaster.update(9 * wandering(4, 2))
    (stream,) = forecaster._standing.streams.values()
    assert stream.widths.factor.tolist() == [1.0]
