"""Rolling evaluation and floors: right by hand, and blind to the future."""

from __future__ import annotations

import numpy as np
import pytest

from titans_ts import TitansForecaster
from titans_ts.evaluation import actual_windows, naive_forecasts, rolling_forecasts
from titans_ts.metrics import mean_absolute_scaled_error

COUNT = np.arange(10.0)[:, None]


def test_every_origin_whose_targets_are_known_is_scored() -> None:
    windows = actual_windows(COUNT, 6, 3)
    assert windows[..., 0].tolist() == [[6, 7, 8], [7, 8, 9]]


def test_the_naive_forecast_repeats_the_last_row() -> None:
    assert naive_forecasts(COUNT, 6, 3)[..., 0].tolist() == [[5, 5, 5], [6, 6, 6]]


def test_the_seasonal_naive_forecast_repeats_the_last_season() -> None:
    assert naive_forecasts(COUNT, 6, 3, 2)[..., 0].tolist() == [[4, 5, 4], [5, 6, 5]]
    assert naive_forecasts(COUNT, 6, 3, 5)[..., 0].tolist() == [[1, 2, 3], [2, 3, 4]]


def test_a_season_longer_than_the_past_is_refused() -> None:
    with pytest.raises(ValueError, match="season_length = 7 needs as many rows; got 6"):
        naive_forecasts(COUNT, 6, 3, 7)


def test_the_scaled_error_of_the_naive_forecast_on_its_own_training_rows_is_one() -> None:
    y = np.cumsum(np.random.default_rng(0).normal(size=(50, 2)), axis=0)
    actual, forecast = y[1:, None], y[:-1, None]
    np.testing.assert_allclose(mean_absolute_scaled_error(actual, forecast, y, 1), 1)


def test_the_scaled_error_needs_more_than_a_season() -> None:
    with pytest.raises(ValueError, match="training has 10 rows; needs more than season_length"):
        mean_absolute_scaled_error(COUNT[None], COUNT[None], COUNT, 10)


@pytest.mark.parametrize("learn", [None, False, True])
def test_rolling_forecasts_are_those_made_by_hand(learn: bool | None) -> None:
    y = np.random.default_rng(0).normal(size=(140, 2)).cumsum(axis=0)
    options = {"prediction_length": 3, "context_length": 8, "use_network": False}
    forecasts = rolling_forecasts(TitansForecaster(**options).fit(y[:130]), y, 130, learn=learn)
    assert forecasts.shape == (8, 3, 2)
    by_hand = TitansForecaster(**options).fit(y[:130])
    if learn is not None:
        by_hand.update(y[130:137], learn=learn)
    np.testing.assert_array_equal(forecasts[7], by_hand.predict(context=y[129:137]))
