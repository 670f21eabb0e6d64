"""Rolling evaluation and floors: right by hand, and blind to the future."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from titans_ts import TitansForecaster, evaluation
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


@pytest.mark.parametrize("levels", [None, [0.1, 0.42]])
@pytest.mark.parametrize("learn", [None, False, "memory", True, np.True_])
def test_rolling_forecasts_are_those_made_by_hand(
    learn: Any, levels: list[float] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "_WINDOWS_AT_ONCE", 5)  # several batches, the last one short
    t = np.arange(280)[:, None]
    rng = np.random.default_rng(0)
    y = np.sin(t * 2 * np.pi / 12) * [1, 2] + 0.3 * rng.normal(size=(280, 2)).cumsum(axis=0)
    forecaster = TitansForecaster(3, 8, use_network=False).fit(y[:268])
    assert forecaster.model_.seasonal_memory is not None  # what "memory" moves
    start = forecaster.snapshot()
    forecasts = rolling_forecasts(forecaster, y, 268, learn=learn, levels=levels)
    assert forecasts.shape == ((10, 3, 2) if levels is None else (10, 3, 2, 2))
    end = forecaster.predict()
    forecaster.restore(start)
    for n, forecast in enumerate(forecasts):
        if learn is not None and n:
            forecaster.update(y[267 + n : 268 + n], learn=learn)
        context = {"context": y[260 + n : 268 + n]} if learn is None else {}
        wanted = (
            forecaster.predict(**context)
            if levels is None
            else forecaster.predict_quantiles(levels, **context)
        )
        np.testing.assert_allclose(forecast, wanted, rtol=1e-12)
    np.testing.assert_array_equal(end, forecaster.predict())  # it is left at the last origin


@pytest.mark.parametrize("learn", [None, "memory", True])
def test_levels_that_were_not_fitted_are_refused(learn: Any) -> None:
    y = np.random.default_rng(0).normal(size=(140, 2)).cumsum(axis=0)
    forecaster = TitansForecaster(3, 8, use_network=False).fit(y[:130])
    with pytest.raises(ValueError, match="levels must lie within the fitted quantile_levels"):
        rolling_forecasts(forecaster, y, 130, learn=learn, levels=[0.999])
