"""One long table in each library that has tables, for tests that they mean the same."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

KINDS = ("pandas", "polars", "pyarrow", "lazy")


def as_kind(columns, kind):
    """The same columns as a table of a library."""
    if kind == "pandas":
        return pd.DataFrame(columns)
    if kind == "pyarrow":
        return pa.table({name: pa.array(list(values)) for name, values in columns.items()})
    frame = pl.DataFrame({name: list(values) for name, values in columns.items()})
    return frame.lazy() if kind == "lazy" else frame


def shops(rows=(6, 4), seed=0, **more):
    """Daily sales of shops 'b', 'a', ... in an order of no kind."""
    ids, ds, y = [], [], []
    for i, (name, n) in enumerate(zip("bacdefgh", rows, strict=False)):
        ids += [name] * n
        ds += [datetime(2024, 1, 1 + i + day) for day in range(n)]
        y += [10.0 * (i + 1) + day for day in range(n)]
    order = np.random.default_rng(seed).permutation(len(y))
    order = [0, *order[order != 0]]  # shop 'b' comes first
    table = {"unique_id": ids, "ds": ds, "y": y, **more}
    return {name: [values[i] for i in order] for name, values in table.items()}


def same(panel, other):
    """Whether two panels hold the same series, bit for bit."""
    assert len(panel.series) == len(other.series)
    for ours, theirs in zip(panel.series, other.series, strict=True):
        assert (ours.key, ours.first_time, ours.last_time) == (
            theirs.key,
            theirs.first_time,
            theirs.last_time,
        )
        for name in ("values", "past", "future", "static"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    return True
