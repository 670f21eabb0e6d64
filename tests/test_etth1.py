"""The published protocol on ETTh1: every test window, and the floor that others have measured."""

from __future__ import annotations

import os

import numpy as np
import pytest

from titans_ts import TitansForecaster, dataset_info, load_dataset
from titans_ts.evaluation import actual_windows, rolling_forecasts

pytestmark = pytest.mark.skipif(
    "TITANS_DATA" not in os.environ,
    reason="needs ETTh1.csv in the folder that TITANS_DATA names",
)


@pytest.mark.parametrize(("context_length", "published"), [(96, 0.383), (512, 0.367)])
def test_the_linear_part_reaches_the_ridge_that_was_measured(
    context_length: int, published: float
) -> None:
    y = load_dataset("ETTh1").to_numpy()
    train_end, validation_end, test_end = dataset_info("ETTh1").split_borders(len(y))
    assert (train_end, validation_end, test_end) == (8640, 11520, 14400)
    y = y[:test_end]
    forecaster = TitansForecaster(
        96, context_length, use_network=False, validation_size=2880, refit=False
    ).fit(y[:validation_end])
    forecasts = rolling_forecasts(forecaster, y, validation_end, learn=None)
    assert len(forecasts) == 2785
    scale = y[:train_end].std(axis=0)
    error = (forecasts - actual_windows(y, validation_end, 96)) / scale
    assert np.square(error).mean() <= published
