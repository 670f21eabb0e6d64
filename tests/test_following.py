"""New rows of a panel, and covariates known ahead: where they go on, and what is missing."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pandas as pd
import polars as pl
import pytest
from long_tables import KINDS, as_kind, shops

from titans_ts.frames import Roles, check_follows, check_same_columns, read_future, read_panel

NAN = float("nan")


def followed(fitted, new, roles=None):
    panel = read_panel(fitted, roles)
    more = read_panel(new, name="y_new", layout=panel.layout)
    return check_follows(panel.layout, dict(panel.ends), more)


def days(*rows):
    """A long table of (id, day of January, y)."""
    ids, day, y = zip(*rows, strict=True)
    return {"unique_id": ids, "ds": [datetime(2024, 1, d) for d in day], "y": y}


@pytest.mark.parametrize("kind", KINDS)
def test_some_series_may_go_on_without_the_others(kind):
    panel = followed(as_kind(shops(), kind), as_kind(days(("a", 6, 1.0), ("a", 7, 2.0)), kind))
    assert [series.key for series in panel.series] == ["a"]
    np.testing.assert_array_equal(panel.series[0].values[:, 0], [1, 2])


def test_a_long_table_may_go_on_in_another_library():
    new = as_kind(days(("b", 7, 1.0)), "pandas")
    for kind in KINDS:
        assert followed(as_kind(shops(), kind), new).series[0].first_time == "2024-01-07T00:00:00"


def test_rows_that_begin_later_than_due_have_rows_of_nan_in_front():
    table = shops(temp=range(10))
    roles = Roles(past_covariates=("temp",))
    new = as_kind(days(("b", 7, 1.0), ("a", 8, 2.0)) | {"temp": [1, 2]}, "polars")
    panel = followed(as_kind(table, "polars"), new, roles)
    b, a = panel.series
    assert b.values.tolist() == [[1.0]]
    np.testing.assert_array_equal(a.values[:, 0], [NAN, NAN, 2])
    np.testing.assert_array_equal(a.past[:, 0], [NAN, NAN, 2])
    assert (a.first_time, a.last_time) == ("2024-01-06T00:00:00", "2024-01-08T00:00:00")


@pytest.mark.parametrize("freq", ["h", "D", "B", "ME", "QS", "W-WED"])
@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_a_wide_frame_goes_on_after_a_hole_of_any_step(freq, zone):
    index = pd.date_range("2024-02-20", periods=40, freq=freq, tz=zone)
    y = pd.DataFrame({"temp": np.arange(40.0)}, index=index)
    (series,) = followed(y[:10], y[14:20]).series
    np.testing.assert_array_equal(series.values[:, 0], [NAN] * 4 + list(range(14, 20)))
    assert pd.Timestamp(series.first_time) == index[10]


def test_periods_and_numbers_go_on_after_a_hole():
    for index in (pd.period_range("2020-01", periods=20, freq="M"), pd.RangeIndex(0, 100, 5)):
        y = pd.DataFrame({"temp": np.arange(20.0)}, index=index)
        (series,) = followed(y[:10], y[12:13]).series
        np.testing.assert_array_equal(series.values[:, 0], [NAN, NAN, 12])


def test_a_row_a_little_late_is_moved_to_the_grid():
    index = pd.date_range("2024-01-01", periods=10, freq="h")
    y = pd.DataFrame({"temp": np.arange(10.0)}, index=index)
    late = pd.DataFrame({"temp": [1.0]}, index=index[-1:] + pd.Timedelta(minutes=62))
    with pytest.warns(
        UserWarning, match=r"^the times of y_new lie off .* by 0 days 00:02:00 and w"
    ):
        (series,) = followed(y, late).series
    assert series.first_time == series.last_time == "2024-01-01T10:00:00"


def test_an_empty_array_stands_for_a_series_without_new_rows():
    panel = followed([np.ones(4), np.ones(5)], [np.empty(0), np.full(2, 7.0)])
    assert [series.key for series in panel.series] == [1]
    assert len(followed(np.ones((2, 4, 1)), np.ones((2, 1, 1))).series) == 2


HOURS = pd.date_range("2024-01-01", periods=10, freq="h")
HOURLY = pd.DataFrame({"temp": np.arange(10.0)}, index=HOURS)


def hour(text):
    return pd.DataFrame({"temp": [1.0]}, index=pd.DatetimeIndex([text]))


@pytest.mark.parametrize(
    ("fitted", "new", "message"),
    [
        (
            as_kind(shops(), "polars"),
            as_kind(days(("c", 7, 1.0), ("b", 7, 1.0)), "polars"),
            (
                r"^y_new has series that the forecaster was not fitted on: 'c'\. Fit it on them, "
                r"or forecast them from their own rows with predict\(context=\.\.\.\)\.$"
            ),
        ),
        (
            as_kind(shops(), "polars"),
            as_kind(days(("a", 5, 1.0)), "polars"),
            r"^series 'a' of y_new must start at 2024-01-06, one step .*; got 2024-01-05\. Drop",
        ),
        (
            as_kind(shops(), "polars"),
            pl.DataFrame({"ds": [datetime(2024, 1, 7)], "y": [1.0]}),
            (
                r"^y_new is a polars DataFrame; the forecaster was fitted on a long polars "
                r"DataFrame\. Pass the same kind, with a column 'unique_id'\.$"
            ),
        ),
        (
            as_kind(shops(), "polars"),
            as_kind(days(("a", 6, 1.0)) | {"y2": [1.0]}, "polars").drop("y"),
            r"^y_new has no target column 'y'\. Did you mean 'y2'\? It has",
        ),
        (
            [np.ones(4), np.ones(4)],
            [np.ones(2)],
            r"^y_new holds 1 series; the forecaster was fitted on 2\. Pass as many, empty arrays",
        ),
        (
            [np.ones(4), np.ones(4)],
            np.ones(2),
            r"^y_new is a numpy array; the forecaster was fitted on a list of arrays\.",
        ),
        (
            HOURLY,
            hour("2024-01-01 10:20"),
            r"at 2024-01-01 10:00:00, .* no number of steps later\.",
        ),
        (HOURLY, hour("2023-01-01 10:00"), r"got 2023-01-01 10:00:00\. Drop rows seen before"),
        (
            HOURLY,
            hour("2034-01-01 10:00"),
            r"^y_new starts at 2034-.*, \d+ steps later than due; at most 1000 may .* mistyped\?",
        ),
        (
            HOURLY.set_axis(pd.RangeIndex(0, 20, 2)),
            HOURLY[:1].set_axis(pd.Index([23])),
            r"must start at 20, .*; got 23, which is no number of steps later\.",
        ),
        (
            HOURLY.set_axis(pd.bdate_range("2024-01-01", periods=10)),
            pd.DataFrame({"temp": [1.0]}, index=pd.DatetimeIndex(["2024-01-17 09:00"])),
            r"got 2024-01-17 09:00:00, which is no number of steps later\.",
        ),
    ],
)
def test_rows_that_do_not_continue_the_panel_are_refused(fitted, new, message):
    with pytest.raises(ValueError, match=message):
        followed(fitted, new)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ids", ["unique_id", "shop"])
def test_a_table_without_the_ids_of_the_long_one_fitted_on_is_told_so(kind, ids):
    table = {ids if name == "unique_id" else name: part for name, part in shops().items()}
    roles = Roles(id_column=ids)
    known = read_panel(as_kind(table, kind), roles).layout
    new = {"ds": [str(time) for time in table["ds"]], "y": table["y"]}
    with pytest.raises(ValueError, match=rf"^y_new has no id column '{ids}'\. It has \['ds', 'y'"):
        read_panel(as_kind(new, kind), name="y_new", layout=known)


def test_a_context_of_one_series_needs_no_ids():
    known = read_panel(as_kind(shops(), "polars")).layout
    one = {name: values[:1] for name, values in shops().items() if name != "unique_id"}
    panel = read_panel(as_kind(one, "polars"), name="context", layout=known)
    assert panel.layout.columns == ("y",)


def test_a_context_may_hold_series_that_are_new():
    layout = read_panel(as_kind(shops(), "polars")).layout
    new = as_kind(days(("z", 1, 1.0), ("z", 2, 3.0)), "pandas")
    panel = check_same_columns(layout, read_panel(new, name="context", layout=layout))
    assert panel.ends == [("z", "2024-01-02T00:00:00")]
    empty = read_panel(as_kind(days(("z", 1, NAN)), "pandas"), name="context", layout=layout)
    with pytest.raises(ValueError, match=r"^series 'z' of context has only missing values"):
        check_same_columns(layout, empty)


ROLES = Roles(future_covariates=("open", "kind"))
COVARIATES = {"open": [True] * 10, "kind": list("xyxyxyxyxy")}


def known_ahead(first=1, last=10, **more):
    """The covariates of January's days for shops 'a' and 'b'."""
    rows = [(key, day, NAN) for day in range(first, last) for key in "ab"]
    table = days(*rows)
    del table["y"]
    return (
        table
        | {
            "open": [day.day % 2 == 0 for day in table["ds"]],
            "kind": ["x" if key == "a" else "new" for key in table["unique_id"]],
        }
        | more
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fitted", KINDS)
def test_the_covariates_of_the_steps_to_forecast_are_found_among_others(fitted, kind):
    panel = read_panel(as_kind(shops(**COVARIATES), fitted), ROLES)
    future = as_kind(known_ahead(), kind)
    found = read_future(future, panel.layout, dict(panel.ends), 3)
    assert list(found) == ["b", "a"]
    np.testing.assert_array_equal(found["a"], [[1, 1, 0], [0, 1, 0], [1, 1, 0]])  # 6, 7, 8 January
    np.testing.assert_array_equal(found["b"], [[0, 0, 0], [1, 0, 0], [0, 0, 0]])  # 7, 8, 9


def test_future_covariates_of_a_wide_frame_are_found_by_their_times():
    index = pd.date_range("2024-01-01", periods=30, freq="D")
    table = pd.DataFrame({"temp": 1.0, "open": np.arange(30.0)}, index=index)
    roles = Roles(future_covariates=("open",))
    panel = read_panel(table[:20], roles)
    found = read_future(table[["open"]][::-1], panel.layout, dict(panel.ends), 4)
    np.testing.assert_array_equal(found[None][:, 0], [20, 21, 22, 23])
    series = read_future(table["open"], panel.layout, dict(panel.ends), 4)
    np.testing.assert_array_equal(series[None], found[None])
    array = read_future(table[["open"]].to_numpy()[20:], panel.layout, dict(panel.ends), 4)
    np.testing.assert_array_equal(array[None], found[None])
    wide = pl.DataFrame({"date": index.to_list(), "temp": 1.0, "open": np.arange(30.0)})
    panel = read_panel(wide[:20], roles)
    found = read_future(wide.drop("temp"), panel.layout, dict(panel.ends), 4)
    np.testing.assert_array_equal(found[None][:, 0], [20, 21, 22, 23])


def test_future_covariates_without_times_begin_one_step_after_the_end():
    roles = Roles(future_covariates=(1,))
    cube = np.arange(24.0).reshape(2, 6, 2)
    panel = read_panel(cube, roles)
    found = read_future(cube[:, :, 1:], panel.layout, dict(panel.ends), 3)
    np.testing.assert_array_equal(found[1], cube[1, :3, 1:])
    listed = read_future(list(cube[:, :, 1:]), panel.layout, dict(panel.ends), 3)
    np.testing.assert_array_equal(listed[0], found[0])
    one = read_panel(cube[0], roles)
    assert read_future([1.0, 2.0], one.layout, dict(one.ends), 2)[None].tolist() == [[1], [2]]
    frame = pl.DataFrame({"a": [1.0, 2], "b": [3.0, 4]})
    panel = read_panel(frame, Roles(future_covariates=("b",)))
    assert read_future(frame, panel.layout, dict(panel.ends), 1)[None].tolist() == [[3.0]]


def test_without_future_covariates_there_is_nothing_to_read():
    panel = read_panel(as_kind(shops(), "polars"))
    assert read_future(None, panel.layout, dict(panel.ends), 3)["a"].shape == (3, 0)
    with pytest.raises(
        ValueError, match=r"^future was given, but .* without future_covariates\. N"
    ):
        read_future(np.ones((3, 1)), panel.layout, dict(panel.ends), 3)


@pytest.mark.parametrize(
    ("future", "message"),
    [
        (None, r"^future is needed: .* future covariates \['open', 'kind'\]\. Pass a table with"),
        (
            known_ahead(last=8),
            (
                r"^future has no row of series 'b' at 2024-01-08; needs one for each of the 3 "
                r"steps from 2024-01-07 to 2024-01-09, with \['open', 'kind'\]\.$"
            ),
        ),
        (
            {name: [*values, values[-1]] for name, values in known_ahead().items()},
            r"^future has 2 rows of series 'b' at 2024-01-09; needs one for each",
        ),
        (
            {k: v for k, v in known_ahead().items() if k != "open"},
            r"^future has no future covariate column 'open'\.",
        ),
        (known_ahead(ds=list(range(18))), r"^future has counts as its time axis; .* time stamps\."),
    ],
)
def test_covariates_that_are_missing_ahead_are_named(future, message):
    panel = read_panel(as_kind(shops(**COVARIATES), "polars"), ROLES)
    table = future if future is None else as_kind(future, "polars")
    with pytest.raises(ValueError, match=message):
        read_future(table, panel.layout, dict(panel.ends), 3)


def test_future_covariates_must_have_the_shape_of_the_panel():
    panel = read_panel(as_kind(shops(**COVARIATES), "polars"), ROLES)
    with pytest.raises(ValueError, match=r"^future must be a table, since .* 'kind' is text; got"):
        read_future(np.ones((2, 3, 2)), panel.layout, dict(panel.ends), 3)
    wide = as_kind(known_ahead(), "polars").drop("unique_id")
    with pytest.raises(
        ValueError, match=r"^future is a polars DataFrame; .* Give it a column 'uni"
    ):
        read_future(wide, panel.layout, dict(panel.ends), 3)
    panel = read_panel(np.ones((2, 6, 2)), Roles(future_covariates=(1,)))
    for array, message in [
        (
            np.ones((2, 3, 2)),
            r"^future must have a column for each .* \[1\], in this order: \(rows",
        ),
        (np.ones((3, 3, 1)), r"^future holds 3 series; 2 are forecast\."),
        (np.ones((2, 2, 1)), r"^future has 2 rows of series 0; needs 3, one for each step to fore"),
    ]:
        with pytest.raises(ValueError, match=message):
            read_future(array, panel.layout, dict(panel.ends), 3)
