"""Frames: what is read comes back in the kind it was given, with its time axis continued."""

from __future__ import annotations

import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from dateutil.tz import tzoffset
from one_series import (
    check_follows,
    check_same_columns,
    read_table,
    write_point,
    write_quantiles,
)
from pandas.testing import assert_frame_equal, assert_series_equal

from titans_ts.frames import Layout, advance_time

ROOT = Path(__file__).parent.parent
LEVELS = [0.1, 0.5, 0.975]
NAN, INF = float("nan"), float("inf")
DAYS = pd.date_range("2012-01-01", periods=20, freq="D")
DATES = [date(2012, 1, 1) + timedelta(days=i) for i in range(20)]


def numbers(rows, columns=2):
    return np.arange(1.0, rows * columns + 1).reshape(rows, columns)


def on(index):
    """A pandas frame with the columns 'temp' and 'wind' on an index."""
    return pd.DataFrame(numbers(len(index)), index=index, columns=["temp", "wind"])


def at(times):
    """A polars frame with the time column 'date', 'temp' and 'wind'."""
    values = numbers(len(times))
    return pl.DataFrame({"date": times, "temp": values[:, 0], "wind": values[:, 1]})


def continued(y, rows):
    """The forecast frame of `rows` rows after `y`."""
    table = read_table(y)
    return write_point(table.layout, table.last_time, numbers(rows, table.values.shape[1]))


def test_an_array_comes_back_as_an_array_of_its_dimensions():
    one, two = read_table(np.arange(5, dtype=np.float32)), read_table(numbers(5, 3))
    assert one.values.dtype == two.values.dtype == np.float64
    assert one.values.shape == (5, 1)
    assert two.values.shape == (5, 3)
    assert two.values.flags.c_contiguous
    assert (one.first_time, one.last_time) == (None, None)
    assert advance_time(one.layout, one.last_time, 3) is None
    point, quantiles = numbers(2, 1), numbers(2, 3).reshape(2, 1, 3)
    np.testing.assert_array_equal(write_point(one.layout, None, point), [1, 2])
    np.testing.assert_array_equal(
        write_quantiles(one.layout, None, quantiles, LEVELS), quantiles[:, 0]
    )
    np.testing.assert_array_equal(write_point(two.layout, None, numbers(2, 3)), numbers(2, 3))
    assert write_quantiles(two.layout, None, np.zeros((2, 3, 4)), LEVELS).shape == (2, 3, 4)


@pytest.mark.parametrize(
    "y",
    [
        [[1, 2], [3, 4]],
        ((1, 2), (3, 4)),
        np.array([[1, 2], [3, 4]], dtype=np.uint8),
        np.asfortranarray([[1.0, 2.0], [3.0, 4.0]]),
    ],
)
def test_lists_and_numbers_of_any_width_are_arrays(y):
    table = read_table(y)
    assert table.layout == Layout(kind="numpy", columns=(0, 1))
    np.testing.assert_array_equal(table.values, [[1, 2], [3, 4]])


def test_reading_copies():
    arrays = np.ones((4, 2)), np.ones(4)
    frame = pd.DataFrame(arrays[0])
    tables = [read_table(y) for y in (*arrays, frame)]
    for array in arrays:
        array[:] = 7
    assert all((table.values == 1).all() for table in tables)


def test_a_pandas_frame_comes_back_as_a_frame():
    index = pd.date_range("2024-01-31", periods=5, freq="ME", name="month")
    expected = pd.DataFrame(numbers(2), index=index[3:], columns=["temp", "wind"])
    assert_frame_equal(continued(on(index)[:3], 2), expected)


def test_a_polars_frame_comes_back_as_a_frame_with_the_times_in_front():
    y = at(DATES[:3]).select("temp", "date", "wind")
    np.testing.assert_array_equal(read_table(y).values, numbers(3))
    assert continued(y, 2).equals(at(DATES[3:5]))


def test_a_series_comes_back_as_a_series():
    index = pd.date_range("2024-01-31", periods=4, freq="ME", name="month")
    y = pd.Series([1, 2, 3, 4], index=index, name="load", dtype="Int64")
    table = read_table(y)
    np.testing.assert_array_equal(table.values, [[1], [2], [3], [4]])
    expected = pd.date_range("2024-05-31", periods=2, freq="ME", name="month")
    answer = write_point(table.layout, table.last_time, numbers(2, 1))
    assert_series_equal(answer, pd.Series([1.0, 2.0], index=expected, name="load"))
    answer = write_quantiles(table.layout, table.last_time, numbers(2, 3)[:, None], LEVELS)
    columns = pd.Index(LEVELS, name="quantile")
    assert_frame_equal(answer, pd.DataFrame(numbers(2, 3), index=expected, columns=columns))
    unnamed = read_table(y.rename(None))
    assert write_point(unnamed.layout, unnamed.last_time, numbers(2, 1)).name is None


def test_pandas_quantiles_have_columns_of_column_and_level():
    y = on(pd.RangeIndex(5)).rename_axis(columns="station")
    table = read_table(y)
    answer = write_quantiles(table.layout, table.last_time, numbers(2, 6).reshape(2, 2, 3), LEVELS)
    assert list(answer.columns[2:4]) == [("temp", 0.975), ("wind", 0.1)]
    assert list(answer.columns.names) == ["station", "quantile"]
    assert list(answer.index) == [5, 6]
    np.testing.assert_array_equal(answer["wind"][0.5], [5, 11])
    assert write_point(table.layout, table.last_time, numbers(2)).columns.name == "station"


def test_polars_quantiles_are_columns_of_their_own():
    table = read_table(at([date(2024, 1, 1), date(2024, 1, 2)]))
    answer = write_quantiles(table.layout, table.last_time, numbers(2, 6).reshape(2, 2, 3), LEVELS)
    names = ["temp_q0.1", "temp_q0.5", "temp_q0.975", "wind_q0.1", "wind_q0.5", "wind_q0.975"]
    assert answer.columns == ["date", *names]
    assert answer["date"].to_list() == [date(2024, 1, 3), date(2024, 1, 4)]
    assert answer["wind_q0.1"].to_list() == [4, 10]


@pytest.mark.parametrize("y", [numbers(9), on(DAYS), on(DAYS)["temp"], at(DATES)])
def test_levels_must_be_distinct(y):
    table = read_table(y)
    values = np.ones((2, len(table.layout.columns), 2))
    with pytest.raises(ValueError, match=r"^levels must be distinct; got \[0\.1, 0\.1\]\.$"):
        write_quantiles(table.layout, table.last_time, values, np.array([0.1, 0.1]))


@pytest.mark.parametrize(
    ("time_column", "levels"), [("temp_q0.5", [0.5, 0.9]), ("date", [0.5, 0.50000001])]
)
def test_polars_columns_of_one_name_are_a_value_error(time_column, levels):
    table = read_table(at(DATES).rename({"date": time_column}))
    with pytest.raises(ValueError, match=r"^two columns .* called 'temp_q0\.5'\. Rename the"):
        write_quantiles(table.layout, table.last_time, np.ones((2, 2, 2)), levels)


def test_a_polars_frame_without_times_gets_an_answer_without_times():
    y = pl.DataFrame({"temp": [1, 2, 3], "wind": [4.0, 5.0, 6.0]})
    table = read_table(y)
    assert table.layout.axis == "no times"
    np.testing.assert_array_equal(table.values, [[1, 4], [2, 5], [3, 6]])
    answer = continued(y, 2)
    assert answer.equals(pl.DataFrame({"temp": [1.0, 3.0], "wind": [2.0, 4.0]}))
    new = check_follows(table.layout, None, read_table(y[:1], layout=table.layout))
    assert new.values.shape == (1, 2)


@pytest.mark.parametrize("dtype", ["int8", "uint16", "float32", "Int64", "Float32"])
def test_pandas_columns_may_hold_any_real_numbers(dtype):
    y = on(pd.RangeIndex(4)).astype({"temp": dtype})
    np.testing.assert_array_equal(read_table(y).values, numbers(4))


def test_frames_are_matched_by_name_and_arrays_by_position():
    layout = read_table(on(pd.RangeIndex(3))).layout
    swapped = on(pd.RangeIndex(3))[["wind", "temp"]]
    for other in (swapped, pl.DataFrame({c: swapped[c].to_numpy() for c in swapped})):
        table = check_same_columns(layout, read_table(other, layout=layout))
        np.testing.assert_array_equal(table.values, numbers(3))
        assert table.values.flags.c_contiguous
        assert list(write_point(table.layout, table.last_time, numbers(1)).columns) == [
            "temp",
            "wind",
        ]
    array = check_same_columns(layout, read_table(swapped.to_numpy(), layout=layout))
    np.testing.assert_array_equal(array.values, swapped)
    assert isinstance(write_point(array.layout, array.last_time, numbers(1)), np.ndarray)
    unnamed = read_table(pd.Series([1.0]))
    named = read_table(pd.Series([1.0], name="a"))
    assert check_same_columns(named.layout, unnamed).panel is unnamed.panel


def test_a_context_may_have_another_time_axis_than_the_series_fitted_on():
    layout = read_table(on(pd.RangeIndex(5))).layout
    daily = on(pd.date_range("2024-01-01", periods=3, freq="D"))
    table = check_same_columns(layout, read_table(daily, name="context", layout=layout))
    assert write_point(table.layout, table.last_time, numbers(1)).index[0] == pd.Timestamp(
        "2024-01-04"
    )


def holed(y, row, value):
    y = y.copy()
    y.iloc[row, 0] = value
    return y


def test_text_that_is_no_series_is_refused_even_if_pandas_was_never_imported():
    code = (
        "import sys; from titans_ts.frames import read_panel\n"
        "print(*({'pandas', 'polars', 'narwhals', 'pyarrow'} & set(sys.modules)))\n"
        "print(read_panel([1, 2]).series[0].values.tolist())\n"
        "print(*({'pandas', 'polars', 'narwhals', 'pyarrow'} & set(sys.modules)))\n"
        "try: read_panel('y.csv')\n"
        "except TypeError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "",
        "[[1.0], [2.0]]",
        "",
        (
            "y must be a numpy array, a list of numbers or arrays, a pandas Series or DataFrame, a "
            "polars DataFrame or LazyFrame, or a pyarrow Table; got str."
        ),
    ]


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, r"^y must be a numpy array, .* or a pyarrow Table; got NoneType\.$"),
        ({"a": [1.0]}, r"got dict\.$"),
        (3.5, r"got float\."),
        (pl.Series([1.0]), r"got Series\. Pass y\.to_frame\(\)\."),
        (np.array([True, False]), r"y must hold real numbers; got dtype bool\. Convert it"),
        (np.array([1.0, "2"], dtype=object), r"got dtype object"),
        (["a", "b"], r"got dtype <U1"),
        (np.array(["2020-01-01"], dtype="M8[D]"), r"got dtype datetime64\[D\]"),
        (np.ma.MaskedArray([True]), r"got dtype bool"),
        (
            on(DAYS).assign(rain=True),
            r"^column 'rain' of y must hold real numbers; got dtype bool\. Convert it",
        ),
        (on(DAYS).assign(place="Ulm"), r"column 'place' .* got dtype (object|str)\."),
        (on(DAYS).assign(phase=1j), r"column 'phase' .* got dtype complex128\."),
        (on(DAYS).assign(kind=pd.Categorical(["a"] * 20)), r"column 'kind' .* dtype category\."),
        (
            on(DAYS).rename_axis("date").reset_index(),
            r"column 'date' .* got dtype datetime64.* make it the index",
        ),
        (pd.Series([True]), r"^y must hold real numbers; got dtype bool"),
        (at(DATES).with_columns(rain=True), r"column 'rain' .* got dtype Boolean\. Cast it"),
        (at([str(d) for d in DATES]), r"column 'date' .* String.*pl\.col\('date'\)\.str\.to_dat"),
        (at(DATES).with_columns(t=pl.duration(days=1)), r"column 't' .* got dtype Duration"),
        (
            on(pd.MultiIndex.from_tuples([("a", 0), ("a", 1)])),
            r"the index of y has 2 levels; .* y\.reset_index\(\), and `id_column`",
        ),
        (on(pd.Index(["a", "b"])), r"the index of y must be a DatetimeIndex, .* pandas\.to_dat"),
        (on(pd.Index([0.5, 1.5])), r"the index of y .* got dtype float64"),
        (on(pd.to_timedelta([1, 2], unit="h")), r"the index of y .* got dtype timedelta64"),
        (
            on(DAYS).set_axis(pd.MultiIndex.from_tuples([("a", 1), ("a", 2)]), axis=1),
            r"names of columns and index of y must be str or int; got \('a', 1\)\. Rename",
        ),
        (on(DAYS).set_axis([0.5, 1.5], axis=1), r"must be str or int; got 0\.5"),
        (on(DAYS).set_axis(["a", NAN], axis=1), r"must be str or int; got nan"),
        (on(DAYS.rename(0.5)), r"must be str or int; got 0\.5"),
        (
            on(DAYS.tz_localize(tzoffset(None, 3600))),
            r"the time zone of y, .* has no name .* y\.tz_convert\('UTC'\)",
        ),
    ],
)
def test_what_is_no_series_of_real_numbers_is_a_type_error(y, message):
    with pytest.raises(TypeError, match=message):
        read_table(y)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.array(1.0), r"must have shape \(T,\), \(T, C\) or \(N, T, C\); got \(\)\. Series of"),
        (np.zeros((2, 3, 4, 5)), r"must have shape .*; got \(2, 3, 4, 5\)"),
        ([[1, 2], [3]], r"the rows of y must be equally long"),
        ([], r"^y has no rows; needs at least one\.$"),
        (np.zeros((0, 3)), r"y has no rows"),
        (
            np.zeros((3, 0)),
            r"y has no columns of values: 0 feature\(s\) \(shape=\(3, 0\)\) while a minimum",
        ),
        (on(DAYS)[:0], r"y has no rows"),
        (on(DAYS)[[]], r"y has no columns of values"),
        (at(DATES)[:0], r"y has no rows"),
        (at(DATES)[["date"]], r"y has no columns of values"),
        (pl.DataFrame(), r"y has no columns of values"),
        (
            on(DAYS).set_axis(["a", "a"], axis=1),
            r"a name of its own for each column; got 'a' at positions 0 and 1\. Rename or drop",
        ),
        ([NAN, None], r"^y has only missing values; drop it or give it some\.$"),
        (np.array([[1.0, NAN], [2, NAN]]), r"^column 1 of y has only missing values; drop it\.$"),
        ([1.0, INF], r"^y has 1 infinite value; first in column 0 at row 1\. Replace them"),
        (holed(on(DAYS), 3, -INF), r"1 infinite value; .* 'temp' at row 3 \(2012-01-04\)\. Rep"),
        (at(DATES).with_columns(pl.col("temp") / 0), r"20 infinite values; .*is_finite\(\)"),
        (
            at(DATES).with_columns(seen=pl.col("date")),
            r"y has several time columns, \['date', 'seen'\]\. Name one with `time_column`",
        ),
    ],
)
def test_a_series_that_is_not_sound_is_a_value_error(y, message):
    with pytest.raises(ValueError, match=message):
        read_table(y)


def test_a_time_column_must_be_there_and_hold_times():
    y = at(DATES)
    with pytest.raises(ValueError, match=r"no time column 'dat'\. Did you mean 'date'\? It has"):
        read_table(y, time_column="dat")
    with pytest.raises(ValueError, match=r"no time column 'zzz'\. It has \['date', 'temp', 'wind'"):
        read_table(y, time_column="zzz")
    with pytest.raises(TypeError, match=r"the time column 'date' of y must be .*; got String\. Pa"):
        read_table(at([str(d) for d in DATES]), time_column="date")
    with pytest.raises(ValueError, match=r"y has no time at row 1\."):
        read_table(at([0, None, 2]), time_column="date")
    with pytest.raises(ValueError, match=r"is not for a wide pandas DataFrame, .*set_index\('da"):
        read_table(on(DAYS), time_column="date")
    with pytest.raises(ValueError, match=r"`time_column` is for tables; y is a numpy array\."):
        read_table([1.0], time_column="date")


@pytest.mark.parametrize(
    ("fitted", "new", "message"),
    [
        (
            on(DAYS),
            numbers(2),
            r"^y_new is a numpy array; the forecaster was fitted on a pandas DataFrame\.",
        ),
        (on(DAYS)["temp"], on(DAYS)[["temp"]], r"y_new is a pandas DataFrame; .* a pandas Series"),
        (
            on(DAYS),
            on(DAYS).rename(columns={"wind": "wnd"}),
            (
                r"^y_new has other columns than the series fitted on: missing \['wind'\], "
                r"unexpected \['wnd'\]\. Make them \['temp', 'wind'\]\.$"
            ),
        ),
        (on(DAYS), on(DAYS).assign(x=1.0), r"missing \[\], unexpected \['x'\]"),
        (at(DATES), at(DATES).drop("wind"), r"missing \['wind'\], unexpected \[\]"),
        (on(DAYS)["temp"], on(DAYS)["wind"], r"missing \['temp'\], unexpected \['wind'\]"),
        (
            numbers(5, 3),
            numbers(2, 4),
            r"^y_new has 4 column\(s\); the forecaster was fitted on 3\.$",
        ),
        (numbers(5, 3), np.ones(3), r"y_new has 1 column\(s\); .* pass y_new\[None, :\]\."),
        (
            on(DAYS[:10]),
            on(DAYS[9:12]),
            (
                r"^y_new must start at 2012-01-11, one step after the last row seen; got "
                r"2012-01-10\. Drop rows seen before, or number the rows on"
            ),
        ),
        (on(pd.RangeIndex(10)), on(pd.RangeIndex(2)), r"y_new must start at 10, .*; got 0\."),
        (
            on(pd.bdate_range("2024-01-01", periods=12)),
            on(pd.DatetimeIndex(["2024-01-20"])),
            r"with a step of 'B' 2024-01-22 is due, got 2024-01-20 at row 0",
        ),
        (
            on(DAYS[:10]),
            on(pd.RangeIndex(10, 12)),
            r"^y_new has counts as its time axis; the forecaster was fitted on time stamps\.",
        ),
        (
            on(DAYS[:10]),
            on(DAYS[10:].tz_localize("UTC")),
            r"has time stamps in UTC as its time axis; the forecaster was fitted on time stamps\.",
        ),
        (at(DATES[:10]), at(DATES[10:]).drop("date"), r"y_new has no time column 'date'\."),
        (at(DATES[:10]).drop("date"), at(DATES[10:]), r"y_new has time stamps as its time axis; "),
        (
            on(pd.period_range("2020-01", periods=3, freq="M")),
            on(pd.period_range("2020-04", periods=3, freq="Q")),
            r"y_new has periods of 'Q-DEC' as its time axis; .* fitted on periods of 'M'",
        ),
    ],
)
def test_rows_that_do_not_continue_the_series_are_refused(fitted, new, message):
    table = read_table(fitted)
    with pytest.raises(ValueError, match=message):
        check_follows(
            table.layout, table.last_time, read_table(new, name="y_new", layout=table.layout)
        )
