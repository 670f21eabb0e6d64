"""The grid: holes in the times are filled, small shifts taken back, and all else refused."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from titans_ts.frames import advance_time, read_panel, write_point


def on(index):
    """A pandas frame of one column, the row numbers, on an index that does not know its step."""
    index = index._with_freq(None) if isinstance(index, pd.DatetimeIndex) else index
    return pd.DataFrame({"temp": np.arange(float(len(index)))}, index=index)


def long(series):
    """A long pandas table of named indexes."""
    frames = [pd.DataFrame({"unique_id": k, "ds": i, "y": 1.0}) for k, i in series.items()]
    return pd.concat(frames, ignore_index=True)


INDEXES = {
    "days": pd.date_range("2024-01-01", periods=60, freq="D"),
    "hours": pd.date_range("2024-01-01", periods=60, freq="h"),
    "hours over a change of clocks": pd.date_range(
        "2024-03-30", periods=60, freq="h", tz="Europe/Berlin"
    ),
    "days over a change of clocks": pd.date_range(
        "2024-03-01", periods=60, freq="D", tz="Europe/Berlin"
    ),
    "nine past each quarter of an hour": pd.date_range(
        "2024-01-01 00:09", periods=60, freq="15min"
    ),
    "business days": pd.bdate_range("2024-01-01", periods=60),
    "business days at five": pd.bdate_range("2024-01-01 17:00", periods=60),
    "Wednesdays": pd.date_range("2024-01-03", periods=60, freq="W-WED"),
    "month starts": pd.date_range("2020-01-01", periods=60, freq="MS"),
    "month ends": pd.date_range("2020-01-31", periods=60, freq="ME"),
    "last business days of months": pd.date_range("2020-01-31", periods=60, freq="BME"),
    "quarter ends": pd.date_range("2000-03-31", periods=60, freq="QE"),
    "years": pd.date_range("1960-01-01", periods=60, freq="YS"),
    "months as periods": pd.period_range("2020-01", periods=60, freq="M"),
    "pairs of months as periods": pd.period_range("2020-01", periods=60, freq="2M"),
    "every fifth number": pd.Index(np.arange(10, 310, 5)),
}


@pytest.mark.parametrize("index", INDEXES.values(), ids=INDEXES)
@pytest.mark.parametrize("seed", range(4))
def test_holes_are_filled_with_nan_and_the_step_is_found(index, seed):
    holes = np.sort(np.random.default_rng(seed).choice(np.arange(1, 59), 8, replace=False))
    y = on(index)
    panel = read_panel(y.drop(index[holes]))
    (series,) = panel.series
    expected = np.arange(60.0)
    expected[holes] = np.nan
    np.testing.assert_array_equal(series.values[:, 0], expected)
    assert advance_time(panel.layout, series.first_time, 59) == series.last_time


@settings(deadline=None, max_examples=40)
@given(
    step=st.sampled_from(["h", "D", "15min", "90min", "30s"]),
    seed=st.integers(0, 999),
    share=st.floats(0.0, 0.24),
)
def test_any_shift_of_less_than_a_quarter_of_a_step_is_taken_back(step, seed, share):
    rng = np.random.default_rng(seed)
    index = pd.date_range("2024-01-01", periods=50, freq=step)
    width = (
        pd.Timedelta(1, "D")
        if step == "D"
        else pd.Timedelta(pd.tseries.frequencies.to_offset(step))
    )
    shift = np.zeros(50)
    some = rng.choice(50, 20, replace=False)
    shift[some] = rng.uniform(-share, share, 20)
    moved = index + pd.to_timedelta((shift * width.value).astype("int64"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        panel = read_panel(on(moved))
    (series,) = panel.series
    np.testing.assert_array_equal(series.values[:, 0], np.arange(50))
    assert pd.Timestamp(series.first_time) == index[0]
    assert pd.Timestamp(series.last_time) == index[-1]
    assert len(caught) <= 1


def test_moved_times_are_told_with_their_number_and_the_largest_shift():
    index = pd.date_range("2024-01-01", periods=20, freq="h").to_series()
    index.iloc[[3, 7]] += pd.to_timedelta([2, -9], unit="min")
    message = (
        r"^2 times of y lie off the grid with a step of 'h' by up to 0 days 00:09:00 and were "
        r"moved to it\.$"
    )
    with pytest.warns(UserWarning, match=message):
        read_panel(on(pd.DatetimeIndex(index)))


def test_a_logger_that_never_hits_the_second_is_on_its_round_step():
    rng = np.random.default_rng(0)
    index = pd.date_range("2024-01-01", periods=500, freq="10min")
    moved = index + pd.to_timedelta(rng.uniform(-20, 20, 500), unit="s").round("us")
    with pytest.warns(
        UserWarning, match=r"^500 times of y lie off .* '10min' by up to 0 days 00:0"
    ):
        panel = read_panel(on(moved))
    assert pd.Timestamp(panel.series[0].last_time) == index[-1]
    assert panel.layout.step == "10min"


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (
            pd.date_range("2024-01-01", periods=9, freq="h")
            .delete(4)
            .insert(4, pd.Timestamp("2024-01-01 04:20")),
            r"with a step of 'h' 2024-01-01 04:00:00 is due, got 2024-01-01 04:20:00 at row 4\. R",
        ),
        (
            pd.date_range("2024-01-01", periods=9, freq="h").insert(
                5, pd.Timestamp("2024-01-01 04:05")
            ),
            (
                r"^two rows of y fall on one time of the grid with a step of 'h', 2024-01-01 "
                r"04:00:00: 2024-01-01 04:00:00 and 2024-01-01 04:05:00 at row 5\. Resample"
            ),
        ),
        (
            pd.date_range("2024-01-01", periods=20, freq="D").append(
                pd.DatetimeIndex(["2204-01-21"])
            ),
            (
                r"^y has 21 rows, but spans \d+ steps of 'D'; the largest gap is from 2024-01-20 "
                r"to 2204-01-21\. Is a time mistyped\?"
            ),
        ),
        (
            pd.date_range("2024-01-01", periods=10, freq="D").append(
                pd.date_range("2024-03-01", periods=5, freq="D")
            ),
            r"^y has 15 rows, but spans 65 steps of 'D'; .*: more than half is missing\. Resample",
        ),
        (
            pd.bdate_range("2024-01-01", periods=30)
            .delete(7)
            .insert(7, pd.Timestamp("2024-01-10 09:00")),
            r"with a step of .* is due, got 2024-01-10 09:00:00 at row 7",
        ),
        (
            pd.Index([0, 10, 20, 31, 40]),
            r"with a step of 10 30 is due, got 31 at row 3",
        ),
    ],
)
def test_times_that_are_on_no_grid_are_a_value_error(index, message):
    with pytest.raises(ValueError, match=message):
        read_panel(on(index))


def test_an_hour_that_comes_twice_a_year_is_told_from_rows_that_do():
    hours = pd.date_range("2023-10-01", "2024-11-30", freq="h", tz="Europe/Berlin")
    local = hours.tz_localize(None)
    halves = pd.date_range("2024-10-27", periods=40, freq="30min", tz="Europe/Berlin")
    for y in (on(local), on(halves.tz_localize(None)), long({"a": local[:99], "b": local})):
        with pytest.raises(ValueError, match=r"; they may be local times, .*: write them in UTC"):
            read_panel(y)
    for twice in (pd.Timestamp("2024-02-25 02:00"), pd.Timestamp("2024-10-27 12:00")):
        once = local.drop_duplicates()
        with pytest.raises(ValueError, match=r" at row \d+\. Keep one row of each"):
            read_panel(on(once.append(pd.DatetimeIndex([twice])).sort_values()))
    days = pd.date_range("2024-10-01", periods=31)
    with pytest.raises(ValueError, match=r"duplicated: 2024-10-27 at row 26, .*\. Keep one row"):
        read_panel(on(days.insert(26, days[26])))


@pytest.mark.parametrize("ids", [None, "unique_id"], ids=["wide", "long"])
def test_the_cure_of_duplicated_times_keeps_the_order(ids):
    days = pl.date_range(pl.date(2020, 1, 1), pl.date(2022, 12, 31), eager=True)
    y = pl.DataFrame({"ds": [*days, days[-1]], "y": 1.0})
    if ids is not None:
        y = pl.concat([y.select(pl.lit(name).alias(ids), "ds", "y") for name in "ba"])
    with pytest.raises(ValueError, match="are duplicated") as error:
        read_panel(y)
    cured = eval(str(error.value).split("e.g. ")[1].rstrip("."), {"y": y})
    assert cured["ds"].to_list() == (1 if ids is None else 2) * days.to_list()
    assert len(read_panel(cured).series) == (1 if ids is None else 2)


@pytest.mark.parametrize("freq", ["MS", "QS"])
def test_days_that_may_be_months_are_told(freq):
    meant = pd.date_range("2015-01-01", periods=40, freq=freq).delete(7)
    read = pd.DatetimeIndex([time.replace(month=1, day=time.month) for time in meant])
    for y in (on(read), long({"a": read, "b": read})):
        with pytest.raises(ValueError, match=r"\. With days and months exchanged, they are months"):
            read_panel(y)
    apart = pd.DatetimeIndex(["2015-01-01", "2015-01-02", "2015-01-03", "2019-01-02"])
    with pytest.raises(ValueError, match=r"Is a time mistyped\?"):
        read_panel(on(apart))


@pytest.mark.parametrize(
    ("y", "cure"),
    [
        ("pandas", r"y\.groupby\('unique_id'\)\.resample\(\.\.\., on='ds'\)"),
        (
            "polars",
            r"y\.sort\('ds'\)\.group_by_dynamic\('ds', every=\.\.\., group_by='unique_id'\)",
        ),
        ("pyarrow", r"pyarrow\.compute\.floor_temporal and group_by"),
    ],
)
def test_a_long_table_is_told_how_to_resample_in_its_library(y, cure):
    days = pd.date_range("2024-01-01", periods=9, freq="D")
    table = long({"a": days, "b": days.delete(4).insert(4, pd.Timestamp("2024-01-05 10:00"))})
    if y != "pandas":
        columns = {name: table[name].to_list() for name in table}
        table = pl.DataFrame(columns) if y == "polars" else pa.table(columns)
    with pytest.raises(
        ValueError, match=r"at row 13 of series 'b'\. Resample it, e\.g\. .*" + cure
    ):
        read_panel(table)


def test_all_series_share_a_step_that_the_others_tell():
    days = pd.date_range("2024-01-01", periods=9, freq="B")
    panel = read_panel(long({"a": days[:1], "b": days, "c": days[[2, 4, 5]]}))
    assert panel.layout.step == "B"
    assert [len(series.values) for series in panel.series] == [1, 9, 4]


def test_series_may_begin_at_other_times_of_the_day():
    days = pd.date_range("2024-01-01", periods=9, freq="D")
    panel = read_panel(long({"a": days, "b": days + pd.Timedelta(hours=6)}))
    assert panel.series[1].last_time == "2024-01-09T06:00:00"


def test_a_series_with_another_step_is_named():
    days = pd.date_range("2024-01-01", periods=40, freq="D")
    message = r"^series 'b' of y has another step than the others: its rows are 2 or more steps of"
    with pytest.raises(ValueError, match=message):
        read_panel(long({"a": days, "b": days[::2]}))
    hours = pd.date_range("2024-01-01", periods=30, freq="12h")
    with pytest.raises(ValueError, match=r"of 'D' 2024-01-.* is due, got .* of series 'b'"):
        read_panel(long({"a": days, "b": hours}))


def test_single_rows_alone_tell_no_step():
    day = pd.DatetimeIndex(["2024-01-01"])
    with pytest.raises(ValueError, match=r"^y has series of a single row only, which do not tell"):
        read_panel(long({"a": day, "b": day}))


def test_weekends_are_no_holes_unless_one_is_there():
    week = pd.date_range("2024-01-01", periods=30, freq="D")
    assert read_panel(on(week[week.day_of_week < 5])).layout.step == "B"
    some = week[(week.day_of_week < 5) | (week == "2024-01-13")]
    panel = read_panel(on(some))
    assert panel.layout.step == "1D"
    assert len(panel.series[0].values) == 30
    holidays = week[(week.day_of_week < 5)].delete([3, 9, 14])
    assert read_panel(on(holidays)).layout.step == "B"


def test_a_forecast_goes_on_from_the_grid():
    index = pd.date_range("2024-01-01", periods=20, freq="D").delete([3, 8])
    panel = read_panel(on(index))
    answer = write_point(panel.layout, panel.ends, np.ones((1, 2, 1)))
    assert list(answer.index) == [pd.Timestamp("2024-01-21"), pd.Timestamp("2024-01-22")]
