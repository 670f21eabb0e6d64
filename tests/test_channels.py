"""Channels end to end on one axis: no window straddles two, nothing later is looked at."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from titans_ts.channels import LEAST_KNOWN, Channels, fill_forward, last_known

VALUES = st.one_of(st.just(np.nan), st.floats(-5, 5))
SERIES = hnp.arrays(float, st.tuples(st.integers(1, 20), st.integers(1, 3)), elements=VALUES)


@given(y=SERIES, cut=st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_filling_looks_at_nothing_later(y: np.ndarray, cut: int) -> None:
    before = np.full(y.shape[1], 9.0)
    filled = fill_forward(y, before)
    np.testing.assert_array_equal(filled[:cut], fill_forward(y[:cut], before))
    assert not np.isnan(filled).any()
    for c in range(y.shape[1]):
        last = 9.0
        for row, value in enumerate(y[:, c]):
            last = last if np.isnan(value) else value
            assert filled[row, c] == last


@given(y=SERIES)
def test_what_comes_before_the_first_value_is_filled_by_it(y: np.ndarray) -> None:
    filled = fill_forward(y)
    for c in range(y.shape[1]):
        known = np.flatnonzero(~np.isnan(y[:, c]))
        first = y[known[0], c] if len(known) else 0.0
        assert (filled[: known[0] if len(known) else None, c] == first).all()
    np.testing.assert_array_equal(filled[~np.isnan(y)], y[~np.isnan(y)])


@given(y=SERIES)
def test_the_last_row_is_the_same_without_filling_the_others(y: np.ndarray) -> None:
    np.testing.assert_array_equal(last_known(y), fill_forward(y)[-1])


@st.composite
def panels(draw: st.DrawFn) -> tuple[list[np.ndarray], list[int]]:
    series = draw(st.lists(SERIES, min_size=1, max_size=4))
    return series, [draw(st.integers(0, len(y))) for y in series]


@given(panel=panels(), before=st.integers(1, 8), after=st.integers(1, 5))
@settings(max_examples=100, deadline=None)
def test_no_window_straddles_two_channels_or_the_parts(
    panel: tuple[list[np.ndarray], list[int]], before: int, after: int
) -> None:
    series, n_train = panel
    channels = Channels.join(series, n_train)
    columns = [column for y in series for column in y.T]
    parts = [rows for y, rows in zip(series, n_train, strict=True) for _ in range(y.shape[1])]
    assert len(channels) == len(columns)
    expected: dict[str, list[int]] = {"training": [], "validation": []}
    start = 0
    for column, trained in zip(columns, parts, strict=True):
        known = ~np.isnan(column)
        for origin in range(before, len(column) - after + 1):
            enough = known[origin - before : origin].mean() >= LEAST_KNOWN
            enough &= known[origin : origin + after].mean() >= LEAST_KNOWN
            if enough and origin + after <= trained:
                expected["training"].append(start + origin)
            if enough and origin >= trained:
                expected["validation"].append(start + origin)
        start += len(column)
    found = {
        "training": channels.training_origins(before, after),
        "validation": channels.validation_origins(before, after),
    }
    for part, origins in found.items():
        assert origins.tolist() == expected[part]
        if not len(origins):
            continue
        context, target = channels.windows(origins, before, after)
        for i, origin in enumerate(origins):
            k = channels.of(origin)
            row = origin - channels.starts[k]
            filled = fill_forward(columns[k][:, None])[:, 0]
            np.testing.assert_array_equal(context[i], filled[row - before : row])
            np.testing.assert_array_equal(target[i], columns[k][row : row + after])
