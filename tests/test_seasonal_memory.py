"""The seasonal memory is the core's linear memory, may be cut anywhere, and looks not ahead."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from titans_core.ops import neural_memory
from titans_ts.channels import Channels, fill_forward
from titans_ts.seasonal_memory import HUBER_DELTA, RATES, SeasonalMemory, SeasonReads


def rows_of(length, channels=1, missing=0.0, seed=0):
    """Random rows ``(T, K)`` and which of them are known."""
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(length, channels))
    known = generator.random((length, channels)) >= missing
    return fill_forward(np.where(known, rows, np.nan)), known


def one_by_one(memory, rows, known):
    profile = memory.empty(rows.shape[1])
    for row, seen in zip(rows, known, strict=True):
        profile = memory.write(profile, row, seen)
    return profile


def same(a, b):
    for name, value in vars(a).items():
        np.testing.assert_array_equal(value, vars(b)[name])


def test_it_is_the_linear_memory_of_the_core_with_one_hot_keys() -> None:
    season, length = 6, 40
    memory = SeasonalMemory(season)
    rows, known = rows_of(length)
    rows[[9, 20]] *= 10  # surprises beyond Huber's delta
    profile = one_by_one(memory, rows, known)
    key = torch.eye(season, dtype=torch.float64)[torch.arange(length) % season]
    keys = key[None, :, None].expand(1, length, len(RATES), season)
    values = torch.zeros(1, length, len(RATES), season, dtype=torch.float64)
    values[..., 0] = torch.from_numpy(rows[:, 0])[None, :, None]
    seen = torch.arange(length, dtype=torch.float64) // season + 1
    rate = torch.maximum(torch.tensor(RATES, dtype=torch.float64), 1 / seen[:, None])
    empty = torch.zeros(len(RATES), season, season, dtype=torch.float64)
    for implementation in ("reference", "chunked"):
        _, state = neural_memory(
            keys,
            keys,
            values,
            rate[None] / 2,  # the core's loss has no 1/2
            None,
            None,
            [empty],
            chunk_size=1,
            huber_delta=HUBER_DELTA,
            implementation=implementation,
        )
        expected = state.weights[0][0, :, :, 0].numpy()  # (heads, slots)
        np.testing.assert_allclose(profile.values[0], expected, rtol=1e-12, atol=1e-12)


@given(
    season=st.sampled_from([2, 5, 7, 24, 100, 120, 200]),
    length=st.integers(0, 450),
    missing=st.sampled_from([0.0, 0.3]),
)
@settings(max_examples=30, deadline=None)
def test_a_series_read_whole_is_bitwise_the_series_read_row_by_row(season, length, missing) -> None:
    memory = SeasonalMemory(season)
    rows, known = rows_of(length, channels=2, missing=missing, seed=length)
    same(memory.begin(rows, known), one_by_one(memory, rows, known))


@pytest.mark.parametrize("season", [2, 7, 24, 100, 144])
def test_reads_at_an_origin_are_those_of_the_rows_before_it(season) -> None:
    memory = SeasonalMemory(season)
    rows, known = rows_of(500, channels=2, missing=0.2, seed=season)
    channels = Channels(
        rows.T.reshape(-1), known.T.reshape(-1), np.array([0, 500, 1000]), np.array([400, 900])
    )
    reads = SeasonReads(memory, channels)
    local = np.array([0, 1, season - 1, season, 250, 499, 500])
    for k in range(2):
        found = reads.at(np.minimum(local + 500 * k, 500 * (k + 1) - 1))
        for row, origin in zip(found, np.minimum(local, 499), strict=True):
            profile = memory.begin(rows[:origin], known[:origin])
            np.testing.assert_array_equal(row, memory.read(profile)[k])


def test_a_read_ahead_is_the_season_turned_on() -> None:
    memory = SeasonalMemory(24)
    rows, known = rows_of(24 * 5)
    profile = memory.begin(rows, known)
    heads = memory.read(profile).reshape(len(RATES), 24)
    later = memory.read(profile, ahead=7).reshape(len(RATES), 24)
    np.testing.assert_array_equal(later, np.roll(heads, -7, axis=1))


def test_a_head_is_the_plain_mean_until_it_has_seen_enough_seasons() -> None:
    memory = SeasonalMemory(8)
    rows, known = rows_of(8 * 5)
    slow = memory.begin(rows, known).values[0, RATES.index(0.01)]
    np.testing.assert_allclose(slow, rows[:, 0].reshape(5, 8).mean(axis=0), rtol=1e-12)


def test_an_outlier_moves_it_by_a_bounded_surprise() -> None:
    memory = SeasonalMemory(8)
    rows, known = rows_of(8 * 5)
    expected = memory.begin(rows, known).values
    rows[20] = 1e40
    moved = np.abs(memory.begin(rows, known).values - expected)
    assert 0 < moved.max() <= 2 * HUBER_DELTA


def test_what_is_missing_is_not_written_and_time_passes() -> None:
    memory = SeasonalMemory(4)
    rows, known = rows_of(4 * 6)
    before = memory.begin(rows, known)
    after = before
    for _ in range(4):
        after = memory.write(after, np.array([1e30]), np.array([False]))
    np.testing.assert_array_equal(after.values, before.values)
    assert after.rows == before.rows + 4
    nothing = memory.begin(rows, np.zeros_like(known))
    assert np.isnan(memory.read(nothing)).all()


def test_a_long_season_is_kept_as_patches() -> None:
    memory = SeasonalMemory(1440)
    assert (memory.patch, memory.slots, memory.reads) == (15, 96, 4 * 24)
    assert SeasonalMemory(101).patch == 1  # a prime number of rows does not divide
