"""Surprise of a forecaster's memory: it falls as the memory learns, unless the series changes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from titans_core import BackboneConfig, NeuralMemoryConfig
from titans_core.training import TrainingConfig
from titans_ts import TitansForecaster

ROWS, BREAK = 600, 400


def seasonal() -> pd.DataFrame:
    """Two seasonal channels; from a day on, the first one has another season."""
    t = np.arange(ROWS)
    noise = np.random.default_rng(0).normal(scale=0.05, size=(2, ROWS))
    turned = np.where(t < BREAK, np.sin(t / 4), np.sign(np.sin(t / 1.3)))
    index = pd.date_range("2024-01-01", periods=ROWS, freq="h")
    return pd.DataFrame({"turned": turned + noise[0], "steady": np.sin(t / 4) + noise[1]}, index)


@pytest.fixture(scope="module")
def forecaster() -> TitansForecaster:
    return TitansForecaster(
        4,
        32,
        use_memory=False,  # the network's is asked
        patch_length=8,
        backbone=BackboneConfig(memory=NeuralMemoryConfig(dim=16, chunk_size=4), num_blocks=1),
        training=TrainingConfig(max_steps=80, validate_every=40),
        progress=False,
    ).fit(seasonal()[:BREAK])


def test_a_patch_has_the_time_of_its_last_row_and_a_column_for_each_channel(forecaster) -> None:
    y = seasonal()
    surprise = forecaster.memory_surprise(y)
    assert surprise.columns.tolist() == ["turned", "steady"]
    assert surprise.index.equals(y.index[31::8])
    assert (surprise > 0).all(axis=None)


def test_the_memory_is_surprised_by_what_it_has_not_seen() -> None:
    y = seasonal()
    forecaster = TitansForecaster(
        4,
        32,
        use_memory=False,
        patch_length=8,
        training=TrainingConfig(max_steps=40),
        progress=False,
    ).fit(y[:BREAK])
    surprise = forecaster.memory_surprise(y)
    turn = (BREAK - 32) // 8
    before, after = surprise.iloc[10:turn].mean(), surprise.iloc[turn + 1 : turn + 7].mean()
    assert after["steady"] < 0.7 * before["steady"]  # what goes on is learned
    assert after["turned"] > 0.9 * before["turned"]  # what turns has to be learned anew


def test_of_a_panel_a_column_has_the_key_of_its_series(forecaster) -> None:
    y = seasonal()["steady"].to_numpy()
    panel = TitansForecaster(
        4,
        32,
        use_memory=False,
        backbone=forecaster.backbone,
        training=TrainingConfig(max_steps=2),
        progress=False,
    ).fit([y, y[:300]])
    surprise = panel.memory_surprise([y, y[:300]])
    assert surprise.columns.tolist() == [(0, 0), (1, 0)]
    assert surprise[1, 0].last_valid_index() < surprise[0, 0].last_valid_index()


def test_without_a_memory_there_is_no_surprise() -> None:
    y = seasonal()
    linear = TitansForecaster(4, 32, use_memory=False, use_network=False).fit(y)
    with pytest.raises(ValueError, match="no memory to be surprised"):
        linear.memory_surprise(y)


def test_the_seasonal_memory_is_surprised_where_the_season_turns() -> None:
    t, noise = np.arange(1200), np.random.default_rng(0).normal(scale=0.1, size=(1200, 2))
    day, turned = np.sin(2 * np.pi * t / 24), np.sin(2 * np.pi * (t + 9) / 24)
    y = pd.DataFrame(
        {"turned": np.where(t < 1000, day, turned), "steady": day}, pd.RangeIndex(1200)
    )
    y += noise
    forecaster = TitansForecaster(6, 8, use_network=False).fit(y[:900])
    surprise = forecaster.memory_surprise(y)
    assert surprise.index.equals(y.index)  # a token is a row here
    early, late = surprise[500:1000].mean(), surprise[1000:1024].mean()
    assert late["turned"] > 5 * early["turned"]
    assert late["steady"] < 1.5 * early["steady"]
    assert surprise.loc[:23].min().min() >= 0
    holes = y.copy()
    holes.iloc[700, 0] = np.nan
    assert forecaster.memory_surprise(holes)["turned"].isna().sum() == 1
