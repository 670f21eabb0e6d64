"""The time axis: its step is found, and it goes on where it stopped."""

from __future__ import annotations

import json
from datetime import date, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from one_series import check_follows, read_table, write_point

from titans_ts.frames import Layout, advance_time

DAYS = pd.date_range("2012-01-01", periods=20, freq="D")
DATES = [date(2012, 1, 1) + timedelta(days=i) for i in range(20)]


def on(index):
    """A pandas frame with one column, 'temp', on an index."""
    return pd.DataFrame({"temp": np.arange(float(len(index)))}, index=index)


def at(times):
    """A polars frame with one column, 'temp', and the time column 'date' after it."""
    return pl.DataFrame({"temp": np.arange(float(len(times))), "date": times})


def forget_freq(index):
    """The same stamps as an index that does not know its step, as one read from a file."""
    return pd.DatetimeIndex(list(index), name=index.name).as_unit(index.unit)


def assert_same_index(got, expected):
    # Not pandas.testing.assert_index_equal: 3.1 warns where one of the two does not know its step.
    assert type(got) is type(expected)
    assert got.dtype == expected.dtype
    assert got.name == expected.name
    assert got.equals(expected)


INDEXES = {
    "hourly across the spring change": pd.date_range(
        "2024-03-30 12:00", periods=40, freq="h", tz="Europe/Berlin"
    ),
    "hourly across the autumn change": pd.date_range(
        "2024-10-26 12:00", periods=40, freq="h", tz="Europe/Berlin"
    ),
    "daily across the spring change": pd.date_range(
        "2024-03-27", periods=12, freq="D", tz="Europe/Berlin"
    ),
    "24 hours across the spring change": pd.date_range(
        "2024-03-27", periods=12, freq="24h", tz="Europe/Berlin"
    ),
    "daily": pd.date_range("2012-01-01", periods=12, freq="D", name="date"),
    "month ends": pd.date_range("2023-10-31", periods=12, freq="ME"),
    "last business days of months": pd.date_range("2023-10-31", periods=12, freq="BME"),
    "month starts": pd.date_range("2023-10-01", periods=12, freq="MS", tz="UTC"),
    "quarters": pd.date_range("2023-03-31", periods=12, freq="QE"),
    "years": pd.date_range("2016-12-31", periods=12, freq="YE"),
    "weeks to Wednesday": pd.date_range("2024-01-03", periods=12, freq="W-WED"),
    "business days": pd.date_range("2024-01-01", periods=16, freq="B"),
    "quarter hours in nanoseconds": pd.date_range("2024-01-01", periods=12, freq="15min").as_unit(
        "ns"
    ),
    "seconds in seconds": pd.date_range("2024-01-01", periods=12, freq="30s").as_unit("s"),
    "a fixed offset": pd.date_range(
        "2024-01-01", periods=12, freq="h", tz=timezone(timedelta(hours=5, minutes=30))
    ),
    "months as periods": pd.period_range("2023-11", periods=12, freq="M", name="month"),
    "weeks as periods": pd.period_range("2023-11-01", periods=12, freq="W-TUE"),
    "pairs of months as periods": pd.period_range("2023-11", periods=12, freq="2M"),
    "row numbers": pd.RangeIndex(12),
    "every fifth row number": pd.RangeIndex(100, 160, 5, name="row"),
    "integers that are no range": pd.Index(np.arange(7, 43, 3, dtype="int32"), name="t"),
}


@pytest.mark.parametrize("index", INDEXES.values(), ids=INDEXES)
@pytest.mark.parametrize("cut", [6, 8, 11])
def test_a_pandas_time_axis_goes_on_where_it_stopped(index, cut):
    table = read_table(on(index)[:cut])
    answer = write_point(table.layout, table.last_time, np.ones((len(index) - cut, 1)))
    assert_same_index(answer.index, index[cut:])


@pytest.mark.parametrize(
    "name", [n for n, i in INDEXES.items() if isinstance(i, pd.DatetimeIndex) and "24" not in n]
)
def test_a_step_that_the_index_does_not_know_is_inferred(name):
    index = INDEXES[name]
    table = read_table(on(forget_freq(index))[:8])
    answer = write_point(table.layout, table.last_time, np.ones((len(index) - 8, 1)))
    assert_same_index(answer.index, index[8:])


@pytest.mark.parametrize("index", INDEXES.values(), ids=INDEXES)
def test_a_layout_survives_json(index):
    table = read_table(on(index))
    stored = json.loads(json.dumps([table.layout.to_dict(), table.first_time, table.last_time]))
    assert Layout.from_dict(stored[0]) == table.layout
    assert stored[1:] == [table.first_time, table.last_time]
    assert hash(Layout.from_dict(stored[0])) == hash(table.layout)


@settings(deadline=None, max_examples=50)  # machines that run tests are busy machines
@given(
    freq=st.sampled_from(["h", "D", "7h", "B", "ME", "MS", "W", "QE", "YE", "90min", "2D"]),
    zone=st.sampled_from([None, "UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"]),
    start=st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1)),
    rows=st.lists(st.integers(1, 40), min_size=2, max_size=4),
)
def test_any_cut_of_a_time_axis_equals_no_cut(freq, zone, start, rows):
    start = start.replace(hour=0, minute=0, second=0, microsecond=0)
    index = pd.date_range(start, periods=3 + sum(rows), freq=freq, tz=zone)
    y, seen = on(index), 3
    first = read_table(y[:seen])
    layout, last_time = first.layout, first.last_time
    assert layout.step == index.freqstr
    for n in rows:
        new = on(forget_freq(index))[seen : seen + n]
        table = check_follows(layout, last_time, read_table(new, layout=layout))
        np.testing.assert_array_equal(table.values, new)
        assert advance_time(layout, last_time, n) == table.last_time
        assert_same_index(write_point(layout, last_time, np.ones((n, 1))).index, new.index)
        seen, last_time = seen + n, table.last_time


POLARS_TIMES = {
    "dates": pl.date_range(date(2024, 2, 25), date(2024, 3, 7), "1d", eager=True),
    "month ends as dates": pl.date_range(
        date(2023, 11, 1), date(2024, 10, 1), "1mo", eager=True
    ).dt.month_end(),
    "month starts": pl.datetime_range(
        datetime(2023, 11, 1), datetime(2024, 10, 1), "1mo", eager=True
    ),
    "years": pl.date_range(date(2016, 1, 1), date(2027, 1, 1), "1y", eager=True),
    "hours": pl.datetime_range(
        datetime(2024, 1, 1), datetime(2024, 1, 1, 11), "1h", time_unit="ms", eager=True
    ),
    "quarter hours in nanoseconds": pl.datetime_range(
        datetime(2024, 1, 1), datetime(2024, 1, 1, 3), "15m", time_unit="ns", eager=True
    ),
    "hours across the spring change": pl.datetime_range(
        datetime(2024, 3, 30, 20),
        datetime(2024, 3, 31, 8),
        "1h",
        time_zone="Europe/Berlin",
        eager=True,
    ),
    "days across the autumn change": pl.datetime_range(
        datetime(2024, 10, 20), datetime(2024, 11, 2), "1d", time_zone="Europe/Berlin", eager=True
    ),
    "integers": pl.Series(range(100, 160, 5), dtype=pl.Int32),
    "small integers": pl.Series(range(12), dtype=pl.UInt8),
}


@pytest.mark.parametrize("times", POLARS_TIMES.values(), ids=POLARS_TIMES)
def test_a_polars_time_axis_goes_on_where_it_stopped(times):
    table = read_table(at(times)[:7], time_column="date")
    answer = write_point(table.layout, table.last_time, np.ones((len(times) - 7, 1)))
    expected = pl.DataFrame({"date": times[7:], "temp": 1.0})
    assert answer.schema == expected.schema
    assert answer.equals(expected)


@pytest.mark.parametrize("times", POLARS_TIMES.values(), ids=POLARS_TIMES)
def test_a_polars_stream_is_taken_row_by_row_and_its_layout_survives_json(times):
    y = at(times)
    first = read_table(y[:6], time_column="date")
    layout = Layout.from_dict(json.loads(json.dumps(first.layout.to_dict())))
    assert layout == first.layout
    last_time = first.last_time
    for row in range(6, len(y)):
        table = check_follows(layout, last_time, read_table(y[row], layout=layout))
        np.testing.assert_array_equal(table.values[0], [row])
        last_time = table.last_time


def in_zone(start, zone, rows=20, freq="D"):
    """Stamps as users get them by `tz_localize`, across what the zone leaves out or repeats."""
    walls = pd.date_range(start, periods=rows, freq=freq)
    return walls.tz_localize(zone, ambiguous=np.ones(rows, bool), nonexistent="shift_forward")


CHANGES = {
    "midnight left out in Santiago": (in_zone("2022-09-01", "America/Santiago"), 10),
    "midnight left out in Sao Paulo": (in_zone("2017-10-05", "America/Sao_Paulo"), 10),
    "midnight left out in Cairo": (in_zone("2023-04-18", "Africa/Cairo"), 10),
    "half past one left out in London": (in_zone("2024-03-21 01:30", "Europe/London"), 10),
    "half past one twice in London": (in_zone("2023-10-19 01:30", "Europe/London"), 10),
    "eleven at night left out in Nuuk": (in_zone("2024-03-20 23:00", "America/Nuuk"), 10),
    "Sundays in Santiago": (in_zone("2022-07-03", "America/Santiago", freq="W-SUN"), 10),
}


@pytest.mark.parametrize(("index", "change"), CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_days_go_on_by_the_clock_over_a_stamp_that_is_left_out_or_comes_twice(kind, index, change):
    # By way of numpy and UTC: straight from pandas, polars would ask for pyarrow.
    utc = pl.Series(index.tz_convert(None).to_numpy()).dt.replace_time_zone("UTC")
    y = on(index) if kind == "pandas" else at(utc.dt.convert_time_zone(str(index.tz)))
    times = index if kind == "pandas" else y["date"]
    for cut in range(change - 3, change + 4):  # the changed row in front of, at and after the cut
        table = read_table(y[:cut])
        layout = Layout.from_dict(json.loads(json.dumps(table.layout.to_dict())))
        for last_time in (table.last_time, advance_time(layout, table.first_time, cut - 1)):
            answer = write_point(layout, last_time, np.ones((20 - cut, 1)))
            got = answer.index if kind == "pandas" else answer["date"]
            assert got.equals(times[cut:])
        for rows in (1, 2, 5):
            new = read_table(y[cut : cut + rows], layout=layout)
            check_follows(layout, table.last_time, new)
            assert advance_time(layout, table.last_time, rows) == new.last_time


def test_hours_stay_absolute_where_midnight_is_left_out():
    index = pd.date_range("2022-09-10", periods=48, freq="h", tz="America/Santiago")
    table = read_table(on(index)[:20])
    assert table.layout.clock is None
    assert_same_index(
        write_point(table.layout, table.last_time, np.ones((28, 1))).index, index[20:]
    )


def test_a_stamp_of_the_second_pass_is_where_a_series_may_begin():
    index = in_zone("2023-10-29 01:30", "Europe/London", 8)
    second = index.delete(0).insert(0, index[0] + pd.Timedelta(hours=1))
    table = read_table(on(second)[:6])
    assert list(write_point(table.layout, table.last_time, np.ones((2, 1))).index) == list(
        index[6:]
    )


def test_a_forecast_in_a_zone_knows_its_step():
    for zone in ("UTC", "Europe/Berlin"):
        table = read_table(on(pd.date_range("2024-06-01", periods=5, freq="D", tz=zone)))
        assert write_point(table.layout, table.last_time, np.ones((3, 1))).index.freqstr == "D"


def test_a_day_that_a_zone_left_out_is_a_value_error():
    table = read_table(on(pd.date_range("2011-12-20", periods=9, freq="D", tz="Pacific/Apia")))
    message = r"^steps of 'D' from 2011-12-28.* meet a day that Pacific/Apia left out\. Convert"
    with pytest.raises(ValueError, match=message):
        advance_time(table.layout, table.last_time, 3)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_row_numbers_that_outgrow_their_type_go_on_in_int64(dtype):
    last = int(np.iinfo(dtype).max)
    numbers = np.arange(last - 9, last + 1).astype(dtype)
    table = read_table(on(pd.Index(numbers)))
    index = write_point(table.layout, table.last_time, np.ones((3, 1))).index
    assert index.equals(pd.Index([last + 1, last + 2, last + 3], dtype="int64"))
    check_follows(table.layout, table.last_time, read_table(on(index), layout=table.layout))
    table = read_table(at(numbers), time_column="date")
    times = write_point(table.layout, table.last_time, np.ones((3, 1)))["date"]
    assert (times.dtype, times.to_list()) == (pl.Int64, [last + 1, last + 2, last + 3])


def test_two_stamps_tell_a_step():
    assert read_table(on(pd.to_datetime(["2024-01-01", "2024-01-08"]))).layout.step == "7D"
    assert read_table(on(pd.to_datetime(["2024-01-01 00:00", "2024-01-01 01:30"]))).layout.step in (
        "90min",
        "1h30min",
    )
    days = pd.DatetimeIndex(["2024-03-31", "2024-04-01"], tz="Europe/Berlin")  # 23 hours apart
    assert read_table(on(days)).layout.step == "1D"


def test_one_row_of_numbers_or_with_a_freq_is_enough():
    assert read_table(on(pd.RangeIndex(3, 4))).layout.step == 1
    assert read_table(on(pd.date_range("2024-01-31", periods=1, freq="ME"))).layout.step == "ME"


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (
            on(DAYS[[0, 1, 3, 2, 4]]),
            (
                r"the times of y are unsorted: 2012-01-04 at row 2, then 2012-01-03 at row 3\. "
                r"Sort .*y\.sort_index\(\)"
            ),
        ),
        (on(pd.RangeIndex(5, 0, -1)), r"the times of y are unsorted: 5 at row 0, then 4 at row 1"),
        (at(DATES[:3] + DATES[:3]), r"are unsorted: 2012-01-03 at row 2.* y\.sort\('date'\)"),
        (
            on(DAYS[[0, 1, 2, 2, 3, 3]]),
            r"the times of y are duplicated: 2012-01-03 at row 2, then 2012-01-03 at row 3\. Keep",
        ),
        (at(DATES[:3] + DATES[2:]), r"are duplicated: 2012-01-03 .* y\.unique\('date', keep='las"),
        (on(DAYS.insert(2, pd.NaT)), r"y has no time at row 2\. Drop .* y\[y\.index\.notna\(\)\]"),
        (at([*DATES, None]), r"y has no time at row 20\. Drop such rows: y\.drop_nulls\('date'\)"),
        (
            on(DAYS.delete(17).insert(17, pd.Timestamp("2012-01-18 09:00"))),
            (
                r"^the times of y are not evenly spaced: with a step of 'D' 2012-01-18 is due, got "
                r"2012-01-18 09:00:00 at row 17\. Resample .*y\.resample.* y\.reset_index\(.*\)\.$"
            ),
        ),
        (
            on(
                pd.date_range("2020-01-31", periods=24, freq="ME")
                .delete(5)
                .shift(1, "D")[:9]
                .append(pd.DatetimeIndex(["2020-11-02"]))
            ),
            r"with a step of 'MS' 2020-12-01 is due, got 2020-11-02 at row 9",
        ),
        (
            on(pd.Index([0, 2, 4, 7])),
            r"with a step of 2 8 is due, got 7 at row 3",
        ),
        (on(DAYS[[3]]), r"y has a single row, which does not tell the time step\. .*asfreq\('D'\)"),
        (at(DATES[:1]), r"y has a single row, .* or drop the times: y\.drop\('date'\)"),
    ],
)
def test_times_that_do_not_advance_evenly_are_a_value_error(y, message):
    with pytest.raises(ValueError, match=message):
        read_table(y)
