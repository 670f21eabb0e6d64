"""Covariates in files: the numbers that Python gives, or one line that says what is missing."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pandas as pd
import polars as pl
import pytest
from covariate_inputs import sales, shops
from forecast_cli import error_of, run

from titans_ts import TitansForecaster

P, ROWS = 7, 230
SIZES = ["--prediction-length", P, "--context-length", 28, "--no-network"]
ROLES = {
    "past_covariates": ("visits",),
    "future_covariates": ("temp", "kind"),
    "static_covariates": ("town",),
}
OPTIONS = [
    *("--past-covariates", "visits", "--future-covariates", "temp,kind"),
    *("--static-covariates", "town"),
]


def fitted(roles, y, **options):
    return TitansForecaster(P, 28, use_network=False, **roles, **options).fit(y)


def in_csv_order(forecaster, future):
    """Point and quantiles from Python, as the columns of the file."""
    point = forecaster.predict(future=future)
    fan = forecaster.predict_quantiles([0.1, 0.9], future=future)
    return np.column_stack([point["y"], fan["y_q0.1"], fan["y_q0.9"]])


def numbers(stdout, begin):
    return np.array([row[begin:] for row in csv.reader(io.StringIO(stdout))][1:], dtype=float)


@pytest.fixture(scope="module")
def table():
    """A long table with a covariate of each sort, and a category that looks like a number."""
    kinds = pl.col("kind").replace_strict({"holiday": "1", "plain": "no"})
    return pl.from_pandas(shops()).with_columns(kinds, pl.col("ds").dt.date())


@pytest.fixture(scope="module")
def files(table, tmp_path_factory):
    """The table in pieces, and a model of the first."""
    folder = tmp_path_factory.mktemp("a folder")
    day = table["ds"].unique().sort()
    table.filter(pl.col("ds") < day[ROWS]).write_csv(folder / "seen.csv")
    new = table.filter(pl.col("ds").is_between(day[ROWS], day[ROWS + 3]))
    new.write_csv(folder / "new.csv")
    ahead = table.filter(pl.col("ds") >= day[ROWS]).drop("y", "visits", "town")
    ahead.write_csv(folder / "ahead.csv")
    run("fit", folder / "seen.csv", "-o", folder / "model", *OPTIONS, *SIZES, "-q")
    return folder


@pytest.fixture(scope="module")
def long_model(files):
    return fitted(ROLES, pl.read_csv(files / "seen.csv", try_parse_dates=True))


def test_a_long_table_with_covariates_is_forecast_as_in_python(files, long_model):
    future = pl.read_csv(files / "ahead.csv", try_parse_dates=True)
    stdout, stderr = run("forecast", files / "model", "--future", files / "ahead.csv")
    assert stderr == ""
    assert stdout.startswith("unique_id,ds,y,y_q0.1,y_q0.9\n")
    np.testing.assert_array_equal(numbers(stdout, 2), in_csv_order(long_model, future))
    answer = json.loads(
        run("forecast", files / "model", "--future", files / "ahead.csv", "--json")[0]
    )
    point = long_model.predict(future=future)["y"].to_list()
    assert [x for s in answer["series"] for x in s["channels"]["y"]["point"]] == point


def test_new_rows_bring_their_covariates_and_the_rows_ahead_move_on(files, long_model, table):
    day = table["ds"].unique().sort()
    # Only holidays, whose category is then a number as far as the file can tell.
    ahead = table.filter(pl.col("ds") > day[ROWS + 3]).with_columns(kind=pl.lit("1"))
    ahead.drop("y", "visits").write_csv(files / "holidays.csv")
    moved = ["--new", files / "new.csv", "--future", files / "holidays.csv"]
    snapshot = long_model.snapshot()
    long_model.update(pl.read_csv(files / "new.csv", try_parse_dates=True))
    expected = in_csv_order(long_model, ahead)
    long_model.restore(snapshot)
    stdout, _ = run("forecast", files / "model", *moved, "--save", files / "moved")
    np.testing.assert_array_equal(numbers(stdout, 2), expected)
    again, _ = run("forecast", files / "moved", "--future", files / "holidays.csv")
    assert again == stdout


def test_info_shows_the_covariates_and_what_they_are_worth(files, long_model):
    facts = json.loads(run("info", files / "model", "--json")[0])
    assert facts["covariates"]["future"] == ["temp", "kind=1", "kind=no"]
    assert facts["covariates"]["past"] == ["visits"]
    assert facts["covariates"]["static"] == ["town=A", "town=B"]
    assert facts["covariates"]["future_gain"] > 0.2
    assert facts["parameters"]["future_covariates"] == ["temp", "kind"]
    assert "future: temp, kind=1, kind=no" in run("info", files / "model")[0]


def test_a_wide_table_takes_every_other_column_as_a_channel(tmp_path):
    table = pl.from_pandas(sales(400).reset_index()).with_columns(z=pl.col("y") * 2 + 1)
    table[:380].write_parquet(tmp_path / "seen.parquet")
    table[380:].drop("y", "z").write_csv(tmp_path / "ahead.csv")
    options = ["--future-covariates", "temp, holiday", *SIZES, "-q"]
    run("fit", tmp_path / "seen.parquet", "-o", tmp_path / "model", *options)
    roles = {"future_covariates": ("temp", "holiday"), "time_column": "ds"}
    ours = fitted(roles, table[:380])
    stdout, _ = run("forecast", tmp_path / "model", "--future", tmp_path / "ahead.csv")
    assert stdout.startswith("ds,y,y_q0.1,y_q0.9,z,z_q0.1,z_q0.9\n")
    point = ours.predict(future=table[380:])
    np.testing.assert_array_equal(numbers(stdout, 1)[:, [0, 3]], point.select("y", "z"))


@pytest.mark.parametrize("kind", ["pandas", "numpy", "pyarrow"])
def test_a_model_fitted_in_python_takes_a_file_of_what_is_known_ahead(kind, tmp_path):
    table = sales(300)
    table["kind"] = np.where(table["holiday"] > 0, "off", "on")
    table[290:].reset_index().drop(columns="y").to_csv(tmp_path / "ahead.csv", index=False)
    table[280:290].reset_index().to_csv(tmp_path / "new.csv", index=False)
    y, roles = table, {"future_covariates": ("temp", "kind"), "target_columns": ("y",)}
    if kind == "numpy":
        y, roles = table[["y", "temp"]].to_numpy(), {"future_covariates": (1,)}
        table[290:][["temp"]].to_csv(tmp_path / "ahead.csv", index=False)
        table[280:290][["y", "temp"]].to_csv(tmp_path / "new.csv", index=False)
    if kind == "pyarrow":
        long = table.reset_index().assign(unique_id="a")
        long[290:].to_csv(tmp_path / "ahead.csv", index=False)
        long[280:290].to_csv(tmp_path / "new.csv", index=False)
        y = pl.from_pandas(long).to_arrow()
    ours = fitted(roles, y[:280])
    ours.save(tmp_path / "model")
    stdout, _ = run(
        *("forecast", tmp_path / "model", "--new", tmp_path / "new.csv"),
        *("--future", tmp_path / "ahead.csv"),
    )
    ahead = y[290:, 1:] if kind == "numpy" else y[290:]
    expected = ours.update(y[280:290]).predict(future=ahead)
    expected = expected["y"] if kind == "pandas" else expected
    expected = expected[:, 0] if kind == "numpy" else expected
    expected = expected["y"].to_numpy() if kind == "pyarrow" else expected
    begin = {"pandas": 1, "numpy": 0, "pyarrow": 2}[kind]
    np.testing.assert_array_equal(numbers(stdout, begin)[:, 0], expected)


def test_a_backtest_with_covariates_is_that_of_python(files):
    data = files / "seen.csv"
    options = ["--n-windows", 2, "-q"]
    stdout, _ = run("backtest", data, *OPTIONS, *SIZES, *options)
    ours = TitansForecaster(P, 28, use_network=False, **ROLES)
    rows = pl.read_csv(data, try_parse_dates=True)
    assert stdout == f"{ours.backtest(rows, n_windows=2, progress=False)}\n"
    facts = json.loads(run("backtest", data, *OPTIONS, *SIZES, *options, "--json")[0])
    assert facts["covariates"] == {
        "past": ["visits"],
        "future": ["temp", "kind"],
        "static": ["town"],
    }
    plain = json.loads(run("backtest", data, *SIZES, *options, "--json", "--columns", "y")[0])
    assert plain["covariates"] is None
    assert facts["models"][0]["mse"] < 0.8 * plain["models"][0]["mse"]  # they are used


def test_what_is_missing_in_a_covariate_of_numbers_may_be_spelled_out(tmp_path):
    table = pl.from_pandas(sales(300).reset_index())
    gone = np.arange(300) % 9 == 4
    table = table.with_columns(temp=pl.when(pl.Series(gone)).then(None).otherwise(pl.col("temp")))
    table[:290].write_csv(tmp_path / "seen.csv", null_value="NA")
    table[290:].write_csv(tmp_path / "ahead.csv", null_value="NA")
    options = ["--future-covariates", "temp,holiday", *SIZES, "-q"]
    run("fit", tmp_path / "seen.csv", "-o", tmp_path / "model", *options)
    ours = fitted({"future_covariates": ("temp", "holiday"), "time_column": "ds"}, table[:290])
    stdout, _ = run("forecast", tmp_path / "model", "--future", tmp_path / "ahead.csv")
    expected = ours.predict(future=table[290:])["y"]
    np.testing.assert_array_equal(numbers(stdout, 1)[:, 0], expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--past-covariates rain", "there is no column 'rain' for --past-covariates; name some of"),
        (
            "--past-covariates temp --future-covariates temp",
            "column 'temp' is named more than once; name each covariate once, in --future-cov",
        ),
        ("--columns y,temp --static-covariates temp", "column 'temp' is named more than once"),
        ("--future-covariates ds", "column 'ds' holds the times; name each covariate once"),
        ("--static-covariates temp", "static covariate 'temp' changes within series 'shop0' of y"),
    ],
)
def test_a_covariate_that_cannot_be_one_is_named_with_the_cure(files, options, message):
    for command in (
        ["fit", files / "seen.csv", "-o", files / "x"],
        ["backtest", files / "seen.csv"],
    ):
        assert message in error_of(*command, *options.split(), *SIZES, "-q")
    assert not (files / "x").exists()


def test_what_is_not_known_ahead_is_asked_for_in_one_line(files, tmp_path):
    model = files / "model"
    message = error_of("forecast", model)
    assert "the future covariates temp, kind; give a file" in message
    assert "--future" in message
    assert "no file 'none.csv'" in error_of("forecast", model, "--future", "none.csv")
    ahead = pl.read_csv(files / "ahead.csv", try_parse_dates=True)
    cases = {
        "future has no row of series 'shop0' at 2019-08-22": ahead.filter(
            pl.col("ds").dt.day() != 22
        ),
        "future has no row of series 'shop2' at 2019-08-19": ahead.filter(
            pl.col("unique_id") != "shop2"
        ),
        "'kind'": ahead.drop("kind"),
        "there is no column 'unique_id'": ahead.drop("unique_id"),
        "there is no column 'ds'": ahead.drop("ds"),
        "2 rows of series 'shop0' at 2019-08-19": pl.concat([ahead, ahead[:1]]),
    }
    for message, rows in cases.items():
        rows.write_csv(tmp_path / "ahead.csv")
        out = ["--new", files / "new.csv", "--save", tmp_path / "x"] if "row" not in message else []
        assert message in error_of("forecast", model, "--future", tmp_path / "ahead.csv", *out)
    assert not (tmp_path / "x").exists()


def test_a_model_without_covariates_refuses_what_is_known_ahead(files, tmp_path):
    run("fit", files / "seen.csv", "-o", tmp_path / "plain", *SIZES, "-q")
    message = error_of("forecast", tmp_path / "plain", "--future", files / "ahead.csv")
    assert "fitted without future covariates; leave out --future, or name its columns" in message


def test_a_forecast_does_not_overwrite_what_is_known_ahead(files, tmp_path):
    ahead = tmp_path / "ahead.csv"
    ahead.write_bytes((files / "ahead.csv").read_bytes())
    for option in ("--output", "--save"):
        message = error_of("forecast", files / "model", "--future", ahead, option, ahead)
        assert "would overwrite the future covariates" in message


def test_new_rows_without_a_covariate_are_refused(files, tmp_path):
    rows = pl.read_csv(files / "new.csv", try_parse_dates=True).drop("visits")
    rows.write_csv(tmp_path / "new.csv")
    options = ["--new", tmp_path / "new.csv", "--future", files / "ahead.csv"]
    assert "'visits'" in error_of("forecast", files / "model", *options)


def test_offsets_of_text_are_the_zone_of_the_model(tmp_path):
    table = sales(300)
    table.index = pd.date_range("2019-01-01", periods=300, tz="Europe/Berlin", name="ds")
    ours = fitted({"future_covariates": ("temp", "holiday")}, table[:290])
    ours.save(tmp_path / "model")
    table[290:].reset_index().to_csv(tmp_path / "ahead.csv", index=False)
    stdout, _ = run("forecast", tmp_path / "model", "--future", tmp_path / "ahead.csv")
    expected = ours.predict(future=table[290:])["y"]
    np.testing.assert_array_equal(numbers(stdout, 1)[:, 0], expected)
