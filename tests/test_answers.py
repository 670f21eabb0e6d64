"""Answers have the kind of the question: type, names, order, ids and time stamps."""

from __future__ import annotations

import json
from datetime import date, datetime

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from long_tables import KINDS, as_kind, shops

from titans_ts.frames import (
    Layout,
    Roles,
    read_panel,
    write_intervals,
    write_paths,
    write_point,
    write_quantiles,
)

DAYS = pd.date_range("2024-01-01", periods=6, freq="D", name="day")
WIDE = {
    "numpy": np.ones((6, 2)),
    "flat": np.ones(6),
    "cube": np.ones((3, 6, 2)),
    "arrays": [np.ones((6, 2)), np.ones((5, 2))],
    "flat arrays": [np.ones(6), np.ones(4)],
    "series": pd.Series(np.ones(6), index=DAYS, name="temp"),
    "pandas": pd.DataFrame(1.0, index=DAYS, columns=["temp", "wind"]),
    "polars": pl.DataFrame({"day": DAYS.to_list(), "temp": [1.0] * 6, "wind": [1.0] * 6}),
    "pyarrow": pa.table({"day": DAYS.to_list(), "temp": [1.0] * 6, "wind": [1.0] * 6}),
}


def asked(y, roles=None):
    """The layout, by way of JSON, the ends, and the numbers of series and channels."""
    panel = read_panel(y, roles)
    layout = Layout.from_dict(json.loads(json.dumps(panel.layout.to_dict())))
    return layout, panel.ends, (len(panel.ends), len(layout.columns))


def counted(*shape):
    return np.arange(float(np.prod(shape))).reshape(shape)


def collected(frame):
    """Any table as a dict of lists, its columns in order."""
    if isinstance(frame, pl.LazyFrame):
        frame = frame.collect()
    if isinstance(frame, pl.DataFrame):
        return frame.to_dict(as_series=False)
    return frame.to_pydict() if isinstance(frame, pa.Table) else frame.to_dict("list")


@pytest.mark.parametrize("name", ["numpy", "flat", "cube", "arrays", "flat arrays"])
def test_arrays_are_answered_by_arrays(name):
    layout, ends, (n, c) = asked(WIDE[name])
    flat, listed = "flat" in name, "arrays" in name

    def shaped(values):
        return values if listed or name == "cube" else values[0]

    point, quantiles, paths = counted(n, 4, c), counted(n, 4, c, 3), counted(n, 5, 4, c)
    both = np.stack([quantiles, quantiles + 1], axis=-1)
    answers = {
        "point": (write_point(layout, ends, point), point[:, :, 0] if flat else point),
        "quantiles": (
            write_quantiles(layout, ends, quantiles, [0.1, 0.5, 0.9]),
            quantiles[:, :, 0] if flat else quantiles,
        ),
        "intervals": (
            write_intervals(layout, ends, quantiles, quantiles + 1, [0.5, 0.8, 0.9]),
            both[:, :, 0] if flat else both,
        ),
        "paths": (write_paths(layout, ends, paths), paths[..., 0] if flat else paths),
    }
    for answer, expected in answers.values():
        assert isinstance(answer, list if listed else np.ndarray)
        np.testing.assert_array_equal(np.asarray(answer), np.asarray(shaped(expected)))


TYPES = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "pyarrow": pa.Table, "lazy": pl.LazyFrame}


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_table_is_answered_by_a_long_table(kind):
    layout, ends, _ = asked(as_kind(shops(), kind))
    answer = write_point(layout, ends, counted(2, 2, 1))
    assert isinstance(answer, TYPES[kind])
    table = collected(answer)
    assert list(table) == ["unique_id", "ds", "y"]
    assert table["unique_id"] == ["b", "b", "a", "a"]
    assert table["ds"] == [datetime(2024, 1, day) for day in (7, 8, 6, 7)]
    assert table["y"] == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", KINDS)
def test_names_and_order_of_a_long_answer_are_those_of_the_question(kind):
    names = {"ds": "day", "unique_id": "shop", "y": "sales"}
    table = {names.get(k, k): v for k, v in shops(temp=range(10)).items()}
    table = {name: table[name] for name in ("temp", "day", "sales", "shop")}
    roles = Roles(id_column="shop", time_column="day", target_columns=("sales", "temp"))
    layout, ends, _ = asked(as_kind(table, kind), roles)
    answer = collected(write_point(layout, ends, counted(2, 2, 2)))
    assert list(answer) == ["day", "shop", "sales", "temp"]
    assert answer["temp"] == [1, 3, 5, 7]


@pytest.mark.parametrize("kind", KINDS)
def test_quantiles_intervals_and_paths_of_a_long_table_are_columns_and_rows(kind):
    layout, ends, _ = asked(as_kind(shops(), kind))
    quantiles = collected(write_quantiles(layout, ends, counted(2, 2, 1, 2), [0.1, 0.975]))
    assert list(quantiles) == ["unique_id", "ds", "y_q0.1", "y_q0.975"]
    assert quantiles["y_q0.1"] == [0, 2, 4, 6]
    lower = counted(2, 2, 1, 2)
    intervals = collected(write_intervals(layout, ends, lower, lower + 100, [0.9, 0.29]))
    assert list(intervals) == ["unique_id", "ds", "y_lo90", "y_hi90", "y_lo29", "y_hi29"]
    assert intervals["y_hi29"] == [101, 103, 105, 107]
    paths = collected(write_paths(layout, ends, counted(2, 3, 2, 1)))
    assert list(paths) == ["unique_id", "path", "ds", "y"]
    assert paths["unique_id"] == ["b"] * 6 + ["a"] * 6
    assert paths["path"] == [0, 0, 1, 1, 2, 2] * 2
    assert paths["ds"][:3] == [datetime(2024, 1, 7), datetime(2024, 1, 8), datetime(2024, 1, 7)]
    assert paths["y"] == list(range(12))


def test_wide_pandas_intervals_and_paths():
    layout, ends, _ = asked(WIDE["pandas"].rename_axis(columns="station"))
    lower = counted(1, 2, 2, 2)
    answer = write_intervals(layout, ends, lower, lower + 100, [0.8, 0.9])
    assert list(answer.columns[:3]) == [
        ("temp", 0.8, "lower"),
        ("temp", 0.8, "upper"),
        ("temp", 0.9, "lower"),
    ]
    assert list(answer.columns.names) == ["station", "coverage", "bound"]
    np.testing.assert_array_equal(answer["wind"][0.9]["upper"], [103, 107])
    assert list(answer.index) == list(pd.date_range("2024-01-07", periods=2))
    paths = write_paths(layout, ends, counted(1, 3, 2, 2))
    assert list(paths.index.names) == ["path", "day"]
    np.testing.assert_array_equal(paths.loc[1, "wind"], [5, 7])
    assert paths.columns.name == "station"


def test_a_series_is_answered_by_its_name_or_by_columns_of_levels():
    layout, ends, _ = asked(WIDE["series"])
    lower = counted(1, 2, 1, 1)
    answer = write_intervals(layout, ends, lower, lower + 1, [0.9])
    assert list(answer.columns) == [(0.9, "lower"), (0.9, "upper")]
    paths = write_paths(layout, ends, counted(1, 3, 2, 1))
    assert isinstance(paths, pd.Series)
    assert paths.name == "temp"
    np.testing.assert_array_equal(paths.loc[2], [4, 5])


@pytest.mark.parametrize("kind", ["polars", "pyarrow"])
def test_wide_tables_without_levels_of_columns_have_names_for_them(kind):
    layout, ends, _ = asked(WIDE[kind])
    lower = counted(1, 2, 2, 1)
    intervals = collected(write_intervals(layout, ends, lower, lower + 1, [0.9]))
    assert list(intervals) == [
        "day",
        "temp_lower90",
        "temp_upper90",
        "wind_lower90",
        "wind_upper90",
    ]
    paths = collected(write_paths(layout, ends, counted(1, 2, 2, 2)))
    assert list(paths) == ["path", "day", "temp", "wind"]
    assert paths["path"] == [0, 0, 1, 1]
    assert paths["wind"] == [1, 3, 5, 7]


def test_a_lazy_question_has_a_lazy_answer_wide_too():
    layout, ends, _ = asked(WIDE["polars"].lazy())
    answer = write_point(layout, ends, counted(1, 2, 2))
    assert isinstance(answer, pl.LazyFrame)
    assert answer.collect().schema == WIDE["polars"].schema


IDS = {
    "pandas text": lambda t: as_kind(t, "pandas"),
    "pandas objects": lambda t: as_kind(t, "pandas").astype({"unique_id": object}),
    "pandas strings": lambda t: as_kind(t, "pandas").astype({"unique_id": "string"}),
    "pandas categories": lambda t: as_kind(t, "pandas").astype({"unique_id": "category"}),
    "polars text": lambda t: as_kind(t, "polars"),
    "polars categories": lambda t: as_kind(t, "polars").with_columns(
        pl.col("unique_id").cast(pl.Categorical)
    ),
    "polars enum": lambda t: as_kind(t, "polars").with_columns(
        pl.col("unique_id").cast(pl.Enum(["z", "a", "b"]))
    ),
    "polars integers": lambda t: as_kind(t, "polars").with_columns(
        pl.col("unique_id").replace_strict({"a": 1, "b": 2}, return_dtype=pl.Int16)
    ),
    "pyarrow text": lambda t: as_kind(t, "pyarrow"),
    "pyarrow large text": lambda t: as_kind(t, "polars").to_arrow(),
    "pyarrow dictionary": lambda t: as_kind(t, "pyarrow").set_column(
        0, "unique_id", pa.chunked_array([t["unique_id"]]).dictionary_encode()
    ),
}


@pytest.mark.parametrize("make", IDS.values(), ids=IDS)
def test_the_dtypes_of_ids_and_times_come_back(make):
    y = make(shops())
    layout, ends, _ = asked(y)
    answer = write_point(layout, ends, counted(2, 2, 1))
    if isinstance(y, pd.DataFrame):
        pd.testing.assert_series_equal(answer.dtypes, y.dtypes)
    else:
        assert answer.schema == y.schema
    assert collected(answer)["unique_id"][::2] == [ends[0][0], ends[1][0]]


@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_units_and_zones_of_times_come_back(unit, zone):
    table = as_kind(shops(), "polars").with_columns(
        pl.col("ds").dt.replace_time_zone(zone).dt.cast_time_unit(unit)
    )
    for y in (table, table.to_arrow(), table.to_pandas()):
        layout, ends, _ = asked(y)
        answer = write_point(layout, ends, counted(2, 2, 1))
        same = (
            answer.dtypes.equals(y.dtypes)
            if isinstance(y, pd.DataFrame)
            else (answer.schema == y.schema)
        )
        assert same
        assert collected(answer)["ds"][0].date() == date(2024, 1, 7)


@pytest.mark.parametrize("kind", ["polars", "pyarrow", "lazy"])
def test_dates_and_small_integers_are_answered_by_their_like(kind):
    dates = shops() | {"ds": [day.date() for day in shops()["ds"]]}
    answer = write_point(*asked(as_kind(dates, kind))[:2], counted(2, 1, 1))
    assert collected(answer)["ds"] == [date(2024, 1, 7), date(2024, 1, 6)]
    frame = as_kind(shops(), "polars").with_columns(pl.col("ds").dt.day().cast(pl.Int8))
    y = frame.to_arrow() if kind == "pyarrow" else frame
    answer = write_point(*asked(y)[:2], counted(2, 1, 1))
    assert answer.schema == y.schema
    far = frame.with_columns(pl.col("ds") + 120)
    answer = write_point(*asked(far.to_arrow() if kind == "pyarrow" else far)[:2], counted(2, 3, 1))
    assert collected(answer)["ds"] == [127, 128, 129, 126, 127, 128]


def test_pandas_periods_come_back_as_a_column():
    table = as_kind(shops(), "pandas").assign(ds=lambda t: t["ds"].dt.to_period("D"))
    layout, ends, _ = asked(table)
    answer = write_point(layout, ends, counted(2, 2, 1))
    assert answer["ds"].tolist() == [pd.Period(f"2024-01-0{d}", "D") for d in (7, 8, 6, 7)]
    assert answer["ds"].dtype == table["ds"].dtype


@pytest.mark.parametrize("y", [*WIDE.values(), as_kind(shops(), "pandas")])
def test_coverages_must_be_distinct(y):
    layout, ends, (n, c) = asked(y)
    with pytest.raises(ValueError, match=r"^coverage must be distinct; got \[0\.9, 0\.9\]\.$"):
        write_intervals(layout, ends, np.ones((n, 2, c, 2)), np.ones((n, 2, c, 2)), [0.9, 0.9])


def test_columns_of_one_name_are_a_value_error():
    table = as_kind(shops(), "pandas").rename(columns={"unique_id": "path"})
    layout, ends, _ = asked(table, Roles(id_column="path"))
    with pytest.raises(
        ValueError, match=r"^two columns of the answer would be called 'path'\. Ren"
    ):
        write_paths(layout, ends, np.ones((2, 3, 2, 1)))


def test_many_series_are_written_at_once():
    table = pd.DataFrame(
        {
            "unique_id": np.repeat(np.arange(2000), 3),
            "ds": np.tile(pd.date_range("2024-01-01", periods=3), 2000),
            "y": 1.0,
        }
    )
    layout, ends, _ = asked(table)
    assert write_point(layout, ends, counted(2000, 24, 1)).shape == (48000, 3)
