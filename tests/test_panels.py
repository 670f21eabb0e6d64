"""Panels: every kind of several series is read into the same numbers."""

from __future__ import annotations

import json
from datetime import date, datetime

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from long_tables import KINDS, as_kind, same, shops

from titans_ts.frames import Layout, Roles, read_panel, write_point

NAN = float("nan")


def test_a_cube_and_a_list_of_arrays_are_panels_by_position():
    cube = np.arange(24.0).reshape(2, 4, 3)
    panel, listed = read_panel(cube), read_panel(list(cube))
    assert same(panel, listed)
    assert [series.key for series in panel.series] == [0, 1]
    np.testing.assert_array_equal(panel.series[1].values, cube[1])
    unequal = read_panel([np.arange(5), np.arange(3)])
    assert [series.values.shape for series in unequal.series] == [(5, 1), (3, 1)]
    assert unequal.layout.ndim == 1


def test_nested_lists_of_numbers_are_one_series_and_three_levels_a_cube():
    assert read_panel([[1, 2], [3, 4]]).series[0].values.shape == (2, 2)
    assert [s.values.shape for s in read_panel([[[1, 2]], [[3, 4]]]).series] == [(1, 2), (1, 2)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_a_long_table_means_the_same_in_every_library_and_order(kind, seed):
    panel = read_panel(as_kind(shops(seed=seed), kind))
    assert [series.key for series in panel.series] == ["b", "a"]
    np.testing.assert_array_equal(panel.series[0].values[:, 0], [10, 11, 12, 13, 14, 15])
    np.testing.assert_array_equal(panel.series[1].values[:, 0], [20, 21, 22, 23])
    assert panel.series[1].first_time == "2024-01-02T00:00:00"
    assert panel.ends == [("b", "2024-01-06T00:00:00"), ("a", "2024-01-05T00:00:00")]
    assert panel.layout.long
    assert same(panel, read_panel(as_kind(shops(seed=9), "pandas")))


@settings(deadline=None, max_examples=25)
@given(
    rows=st.lists(st.integers(5, 12), min_size=1, max_size=5),
    seed=st.integers(0, 99),
    missing=st.integers(0, 4),
)
def test_any_long_table_round_trips_between_libraries_bit_for_bit(rows, seed, missing):
    table = shops(tuple(rows), seed=seed)
    table["y"] = [None if i and i <= missing else value / 3 for i, value in enumerate(table["y"])]
    table["note"] = ["x" if i % 2 else None for i in range(len(table["y"]))]
    roles = Roles(past_covariates=("note",))
    panels = [read_panel(as_kind(table, kind), roles) for kind in KINDS]
    assert all(same(panels[0], other) for other in panels[1:])


@pytest.mark.parametrize("kind", ["polars", "pyarrow", "lazy"])
def test_a_wide_table_means_the_same_in_every_library_as_its_array(kind):
    values = np.random.default_rng(0).normal(size=(50, 3))
    values[3, 1] = NAN
    columns = dict(zip("abc", values.T, strict=True))
    array = read_panel(values).series[0].values
    days = [d.to_pydatetime() for d in pd.date_range("2024-01-01", periods=50)]
    panel = read_panel(as_kind({"date": days, **columns}, kind))
    np.testing.assert_array_equal(panel.series[0].values, array)
    assert same(panel, read_panel(pd.DataFrame(columns, index=pd.DatetimeIndex(days))))
    assert panel.layout.columns == ("a", "b", "c")


@pytest.mark.parametrize("kind", KINDS)
def test_columns_of_a_long_table_may_have_any_names(kind):
    table = shops(more=range(10))
    names = {"unique_id": "shop", "ds": "day", "y": "sales"}
    renamed = {names.get(name, name): values for name, values in table.items()}
    roles = Roles(id_column="shop", time_column="day", target_columns=("more", "sales"))
    panel = read_panel(as_kind(renamed, kind), roles)
    assert panel.layout.columns == ("more", "sales")
    assert (panel.layout.id_name, panel.layout.time_name) == ("shop", "day")
    np.testing.assert_array_equal(panel.series[1].values[:, 1], [20, 21, 22, 23])
    np.testing.assert_array_equal(panel.series[1].values[:, 0], [6, 7, 8, 9])


def test_targets_of_a_long_table_are_y_or_all_numbers_without_a_role():
    table = as_kind(shops(temp=range(10), place=list("xyxyxyxyxy")), "polars")
    assert read_panel(table).layout.columns == ("y",)
    roles = Roles(past_covariates=("rain",))
    renamed = table.rename({"y": "sales"}).with_columns(rain=True)
    assert read_panel(renamed, roles).layout.columns == ("sales", "temp")


def test_the_times_of_a_long_table_are_its_only_column_of_stamps():
    table = as_kind(shops(), "polars").rename({"ds": "when"})
    assert read_panel(table).layout.time_name == "when"
    two = table.with_columns(seen=pl.col("when"))
    with pytest.raises(ValueError, match=r"several time columns, \['when', 'seen'\]\. Name one"):
        read_panel(two)
    with pytest.raises(ValueError, match=r"^y is a long table, .* no column 'ds' nor one of time"):
        read_panel(table.drop("when"))


@pytest.mark.parametrize("kind", KINDS)
def test_ids_and_times_may_be_integers(kind):
    table = shops()
    table["unique_id"] = [{"a": 7, "b": 3}[name] for name in table["unique_id"]]
    table["ds"] = [day.day * 5 for day in table["ds"]]
    panel = read_panel(as_kind(table, kind))
    assert [series.key for series in panel.series] == [3, 7]
    assert panel.layout.step == 5
    assert panel.ends == [(3, 30), (7, 25)]


@pytest.mark.parametrize(
    "y",
    [
        [1.0, None, 3.0],
        np.array([1.0, None, 3.0], dtype=object),
        np.ma.masked_equal([1, 2, 3], 2),
        pd.Series([1.0, NAN, 3.0]),
        pd.Series([1, pd.NA, 3], dtype="Int64"),
        pd.Series([1, None, 3], dtype=object),
        pd.DataFrame({"a": pd.array([1, None, 3], dtype="int64[pyarrow]")}),
        pl.DataFrame({"a": [1, None, 3]}),
        pl.DataFrame({"a": [1.0, NAN, 3.0]}),
        pa.table({"a": [1, None, 3]}),
    ],
)
def test_whatever_is_missing_is_nan(y):
    np.testing.assert_array_equal(read_panel(y).series[0].values[:, 0], [1, NAN, 3])


def test_a_pandas_column_of_arrow_times_is_read():
    times = pd.Series(pd.date_range("2024-01-01", periods=3)).astype("timestamp[us][pyarrow]")
    panel = read_panel(pd.DataFrame({"unique_id": "a", "ds": times, "y": [1, 2, 3]}))
    assert panel.ends == [("a", "2024-01-03T00:00:00")]


def test_a_lazily_scanned_file_is_read_in_pieces(tmp_path):
    frame = as_kind({"unique_id": ["a"] * 6, "ds": range(6), "y": [1.0] * 6}, "polars")
    frame = frame.with_columns(unused=pl.lit("text"))
    frame.write_parquet(tmp_path / "y.parquet", row_group_size=2)
    frame.write_csv(tmp_path / "y.csv")
    for lazy in (pl.scan_parquet(tmp_path / "y.parquet"), pl.scan_csv(tmp_path / "y.csv")):
        panel = read_panel(lazy)
        assert panel.layout.lazy
        assert same(panel, read_panel(frame))


def test_a_layout_survives_json():
    table = as_kind(shops(place=list("xyxyxyxyxy")), "polars")
    table = table.with_columns(pl.col("unique_id").cast(pl.Enum(["a", "b"])))
    layout = read_panel(table, Roles(past_covariates=("place",))).layout
    assert Layout.from_dict(json.loads(json.dumps(layout.to_dict()))) == layout
    assert hash(Layout.from_dict(layout.to_dict())) == hash(layout)


COVARIATES = {
    "temp": [1.5, None, 3.0, 4, 5, 6, 7, 8, 9, 10],
    "open": [True, False] * 5,
    "kind": ["fair", "rain", None, "fair", "snow"] * 2,
    "size": [3] * 6 + [5] * 4,
    "town": ["Ulm"] * 6 + ["Bonn"] * 4,
}
ROLES = Roles(
    past_covariates=("temp",),
    future_covariates=("kind", "open"),
    static_covariates=("town", "size"),
)


@pytest.mark.parametrize("kind", KINDS)
def test_covariates_are_numbers_and_categories_columns_of_zeros_and_ones(kind):
    panel = read_panel(as_kind(shops(**COVARIATES), kind), ROLES)
    b, a = panel.series
    assert panel.layout.past_names == ("temp",)
    assert panel.layout.future_names == ("kind=fair", "kind=rain", "kind=snow", "open")
    assert panel.layout.static_names == ("town=Bonn", "town=Ulm", "size")
    np.testing.assert_array_equal(b.past[:, 0], [1.5, NAN, 3, 4, 5, 6])
    np.testing.assert_array_equal(
        a.future, [[0, 1, 0, 1], [NAN, NAN, NAN, 0], [1, 0, 0, 1], [0, 0, 1, 0]]
    )
    np.testing.assert_array_equal(b.static, [0, 1, 3])
    np.testing.assert_array_equal(a.static, [1, 0, 5])


@pytest.mark.parametrize("dtype", [pl.Categorical, pl.Enum(["snow", "fair", "rain"])])
def test_categorical_dtypes_are_text(dtype):
    table = as_kind(shops(**COVARIATES), "polars")
    cast = table.with_columns(pl.col("kind").cast(dtype))
    assert same(read_panel(cast, ROLES), read_panel(table, ROLES))
    frame = as_kind(shops(**COVARIATES), "pandas").astype({"kind": "category"})
    assert same(read_panel(frame, ROLES), read_panel(table, ROLES))
    arrow = table.to_arrow()
    i = arrow.column_names.index("kind")
    arrow = arrow.set_column(i, "kind", arrow["kind"].dictionary_encode())
    assert same(read_panel(arrow, ROLES), read_panel(table, ROLES))


def test_a_category_that_was_not_learned_is_all_zeros():
    layout = read_panel(as_kind(shops(**COVARIATES), "polars"), ROLES).layout
    new = shops(**COVARIATES | {"kind": ["hail"] * 10})
    panel = read_panel(as_kind(new, "pyarrow"), name="y_new", layout=layout)
    assert panel.layout.categories == layout.categories
    np.testing.assert_array_equal(panel.series[0].future[:, :3], np.zeros((6, 3)))


def test_covariates_of_wide_tables_and_arrays_are_columns_too():
    values = np.arange(12.0).reshape(4, 3)
    values[:, 2] = 7
    roles = Roles(past_covariates=(0,), static_covariates=(2,))
    for y in (values, [values], values[None]):
        (series,) = read_panel(y, roles).series
        np.testing.assert_array_equal(series.values, values[:, 1:2])
        np.testing.assert_array_equal(series.past, values[:, :1])
        assert series.static == [7]
    frame = pd.DataFrame(values, columns=list("abc"))
    named = Roles(past_covariates=("a",), static_covariates=("c",), target_columns=("b",))
    for name in ("values", "past", "static"):
        found = [
            getattr(read_panel(y, r).series[0], name) for y, r in ((frame, named), (values, roles))
        ]
        np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("kind", KINDS)
def test_a_static_covariate_that_changes_is_a_value_error(kind):
    table = as_kind(shops(**COVARIATES | {"town": ["Ulm"] * 7 + ["Bonn"] * 3}), kind)
    message = r"^static covariate 'town' changes within series 'a' of y; it must be constant\. Name"
    with pytest.raises(ValueError, match=message):
        read_panel(table, ROLES)


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        (Roles(past_covariates=("tmp",)), r"^y has no past covariate column 'tmp'\. Did you mean"),
        (Roles(target_columns=("x",)), r"^y has no target column 'x'\. It has \['unique_id', 'ds'"),
        (Roles(id_column="shop"), r"^y has no id column 'shop'\. It has \['unique_id', 'ds'"),
        (Roles(time_column="day"), r"^y has no time column 'day'\."),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_column_that_is_not_there_is_a_value_error(kind, roles, message):
    with pytest.raises(ValueError, match=message):
        read_panel(as_kind(shops(**COVARIATES), kind), roles)


def test_a_column_has_one_role():
    with pytest.raises(ValueError, match=r"^column 'x' is named in past_.* and in future_.* once"):
        Roles(past_covariates=("x",), future_covariates=("x",))
    with pytest.raises(ValueError, match=r"^column 'ds' is named in time_column and in target_col"):
        Roles(time_column="ds", target_columns=("ds",))


def emptied(table, shop):
    ids = table["unique_id"]
    return table | {"y": [None if i == shop else y for i, y in zip(ids, table["y"], strict=True)]}


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (emptied(shops(), "a"), r"^series 'a' of y has only missing values; drop it or give it"),
        (
            shops() | {"unique_id": [*"bababab", None, "a", "a"]},
            r"^y has no 'unique_id' at row 7\.",
        ),
        (
            shops() | {"y": [float("inf"), *range(9)]},
            r"1 infinite value; .* 'y' at row 0 of series",
        ),
        (shops() | {"ds": [None, *shops()["ds"][1:]]}, r"^y has no time at row 0\. Drop such rows"),
        (
            {name: values + values[3:4] for name, values in shops().items()},
            r"^the times of y are duplicated: .* at row 3, then .* at row 10 of series '[ab]'\. K",
        ),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_long_table_that_is_not_sound_is_a_value_error(kind, y, message):
    with pytest.raises(ValueError, match=message):
        read_panel(as_kind(y, kind))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (as_kind(shops(), "polars").drop("y"), r"^y has no columns of values: 0 feature"),
        ([np.ones(3), np.ones((3, 1))], r"^the arrays of y must all have shape \(T,\), or all"),
        ([np.ones(3), np.ones(0)], r"^series 1 of y has no rows; leave it out\.$"),
        ([np.ones(3), np.full(3, NAN)], r"^series 1 of y has only missing values"),
        ([np.array([1, np.inf])], r"1 infinite value; first in column 0 at row 1 of series 0\."),
        ([[1, 2], [3]], r"equally long.* Series of unequal length go into a list of numpy arrays"),
        (
            as_kind(shops(), "pandas").set_index(["unique_id", "ds"]),
            r"^the index of y holds 'unique_id'; .* Pass y\.reset_index\(\)\.$",
        ),
    ],
)
def test_a_panel_that_is_not_sound_is_a_value_error(y, message):
    with pytest.raises(ValueError, match=message):
        read_panel(y)


@pytest.mark.parametrize(
    ("y", "roles", "message"),
    [
        ([pd.Series([1.0])], Roles(), r"^y is a list that holds pandas objects\. Make it one long"),
        ([pl.DataFrame({"a": [1]})], Roles(), r"^y is a list that holds polars objects"),
        (
            as_kind(shops() | {"ds": ["2024-01-01"] * 10}, "pandas"),
            Roles(),
            r"^the time column 'ds' of y must be time stamps, periods or integers; got .* pandas\.",
        ),
        (
            as_kind(shops() | {"ds": ["2024-01-01"] * 10}, "pyarrow"),
            Roles(),
            r"^the time column 'ds' of y must be dates, time stamps or integers; got string\.",
        ),
        (
            as_kind(shops() | {"y": list("abcdefghij")}, "lazy"),
            Roles(),
            r"^column 'y' of y must hold real numbers; got dtype String\. Cast it to a number, or",
        ),
        (
            as_kind(shops() | {"unique_id": np.arange(10) / 2}, "polars"),
            Roles(),
            r"^the ids in 'unique_id' of y must be text or integers; got 0\.0\. Convert",
        ),
        (
            as_kind(shops(seen=[date(2024, 1, 1)] * 10), "polars"),
            Roles(past_covariates=("seen",)),
            r"^column 'seen' of y must hold numbers, booleans or text to be a covariate; got dty",
        ),
        (
            as_kind(shops(place=["x"] * 10), "pyarrow"),
            Roles(target_columns=("place",)),
            r"^column 'place' of y must hold real numbers; got dtype string\. Cast it",
        ),
    ],
)
def test_what_is_no_panel_is_a_type_error(y, roles, message):
    with pytest.raises(TypeError, match=message):
        read_panel(y, roles)


def test_a_covariate_stays_what_it_was():
    layout = read_panel(as_kind(shops(**COVARIATES), "polars"), ROLES).layout
    table = as_kind(shops(**COVARIATES | {"kind": list(range(10))}), "polars")
    with pytest.raises(ValueError, match=r"^covariate 'kind' holds numbers; .* fitted on text\."):
        read_panel(table, layout=layout)


def test_a_series_has_but_one_column():
    y = pd.Series([1.0, 2.0], name="a")
    assert read_panel(y, Roles(target_columns=("a",))).layout.columns == ("a",)
    for roles in (Roles(target_columns=("b",)), Roles(past_covariates=("b",))):
        with pytest.raises(
            ValueError, match=r"^y is a pandas Series, named 'a', and has no column"
        ):
            read_panel(y, roles)


def test_a_context_may_have_its_times_elsewhere_than_the_table_fitted_on():
    times = pd.date_range("2024-01-01", periods=4)
    table = pl.DataFrame({"date": times.to_list(), "a": [1.0, 2, 3, 4]})
    layout = read_panel(table, Roles(time_column="date")).layout
    frame = pd.DataFrame({"a": [1.0, 2, 3, 4]}, index=times)
    assert same(read_panel(frame, layout=layout), read_panel(table, layout=layout))


def test_names_mean_nothing_in_an_array():
    with pytest.raises(ValueError, match=r"^y has no column 'a': .* positions, here 0 to 1\. Name"):
        read_panel(np.ones((3, 2)), Roles(past_covariates=("a",)))


def test_a_context_in_an_array_is_taken_by_position_where_there_are_no_covariates():
    frame = pd.DataFrame(np.ones((4, 2)), columns=["a", "b"])
    layout = read_panel(frame, Roles(target_columns=("b", "a"))).layout
    panel = read_panel(np.arange(6).reshape(3, 2), name="context", layout=layout)
    np.testing.assert_array_equal(panel.series[0].values, [[0, 1], [2, 3], [4, 5]])


def test_the_rows_of_a_new_panel_may_be_missing_and_its_series_a_single_row():
    layout = read_panel(as_kind(shops(), "polars")).layout
    new = {"unique_id": ["a", "b"], "ds": [datetime(2024, 1, 7)] * 2, "y": [None, 1.0]}
    panel = read_panel(as_kind(new, "polars"), name="y_new", layout=layout)
    assert panel.layout.step == "D"
    assert np.isnan(panel.series[0].values).all()


def test_reading_a_panel_copies():
    arrays = [np.ones((4, 2)), np.ones((3, 2))]
    frame = as_kind(shops(), "pandas").sort_values(["unique_id", "ds"])
    panels = [read_panel(arrays), read_panel(np.stack([arrays[0]] * 2)), read_panel(frame)]
    before = [panel.series[0].values.copy() for panel in panels]
    arrays[0][:] = 7
    frame.loc[:, "y"] = 7
    for panel, values in zip(panels, before, strict=True):
        np.testing.assert_array_equal(panel.series[0].values, values)
        assert panel.series[0].values.flags.c_contiguous


def test_an_answer_needs_nothing_but_the_layout_and_the_ends():
    panel = read_panel(as_kind(shops(), "pandas"))
    layout = Layout.from_dict(json.loads(json.dumps(panel.layout.to_dict())))
    answer = write_point(layout, panel.ends[1:], np.ones((1, 2, 1)))
    assert answer["unique_id"].tolist() == ["a", "a"]
