"""``titans-ts backtest``: what Python finds, on the right stream, or one line that says why not."""

from __future__ import annotations

import json
import math

import forecast_cli
import polars as pl
import pytest

from titans_ts import TitansForecaster, load_dataset

SIZES = ["--prediction-length", "6", "--context-length", "24", "--no-network"]
COLUMNS = ["--columns", "temp_max,wind"]


def run(*arguments, code=0):
    return forecast_cli.run("backtest", *arguments, code=code)


def error_of(*arguments):
    return forecast_cli.error_of("backtest", *arguments)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    rows = load_dataset("seattle-weather", engine="polars")[-400:]
    path = tmp_path_factory.mktemp("a folder") / "rows.csv"
    rows.write_csv(path)
    return path


def in_python(data, **options):
    rows = pl.read_csv(data, try_parse_dates=True).select("date", "temp_max", "wind")
    forecaster = TitansForecaster(6, 24, use_network=False, time_column="date")
    return forecaster.backtest(rows, progress=False, **options)


def test_the_summary_is_on_stdout_and_the_bar_on_stderr(data):
    stdout, stderr = run(data, *SIZES, *COLUMNS)
    assert stdout == f"{in_python(data)}\n"
    assert "5/5" in stderr
    assert run(data, *SIZES, *COLUMNS, "--quiet") == (stdout, "")


def test_a_data_set_is_taken_by_name():
    stdout, _ = run("seattle-weather", *SIZES, "--columns", "wind", "--season-length", 365, "-q")
    assert "season of 365 rows" in stdout


@pytest.mark.parametrize(("refit", "expected"), [("no", False), ("update", "update"), ("2", 2)])
def test_windows_step_and_refit_are_passed_on(data, refit, expected):
    options = ["--n-windows", 4, "--step", 3, "--refit", refit, "-q"]
    stdout, _ = run(data, *SIZES, *COLUMNS, *options)
    assert stdout == f"{in_python(data, n_windows=4, step=3, refit=expected)}\n"


def test_json_holds_the_same_numbers(data):
    answer = json.loads(run(data, *SIZES, *COLUMNS, "--json", "-q")[0])
    found = in_python(data)
    assert answer["channels"] == ["temp_max", "wind"]
    assert (answer["n_windows"], answer["refit"], answer["n_fits"]) == (5, False, 1)
    assert len(answer["by_channel"]) == 8
    for table, expected in {
        "models": found.summary(),
        "by_channel": found.summary(by_channel=True),
    }.items():
        for row, known in zip(answer[table], expected.to_dicts(), strict=True):
            for name, value in known.items():
                undefined = value is None or (isinstance(value, float) and math.isnan(value))
                assert row[name] == (None if undefined else value)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_every_forecast_is_written(data, tmp_path, suffix):
    output = tmp_path / f"forecasts{suffix}"
    stdout, _ = run(data, *SIZES, *COLUMNS, "-q", "-o", output)
    assert stdout.startswith("model")
    read = pl.read_csv(output) if suffix == ".csv" else pl.read_parquet(output)
    expected = in_python(data).frame
    assert read.columns == expected.columns
    assert read["TitansForecaster-lo-90"].equals(expected["TitansForecaster-lo-90"])
    assert [file.name for file in tmp_path.iterdir()] == [output.name]


def test_a_network_is_trained(data):
    stdout, _ = run(data, *SIZES[:4], *COLUMNS, "--max-steps", 2, "--n-windows", 1, "--json", "-q")
    ours, ridge, *_ = json.loads(stdout)["models"]
    assert ours["model"] == "TitansForecaster"
    assert ridge["model"] == "Ridge"


def test_what_cannot_be_done_is_said_in_one_line(data, tmp_path):
    assert "there is no file 'none.csv'" in error_of("none.csv")
    assert "'Wind'" in error_of(data, "--columns", "Wind")
    error = error_of(data, *SIZES, *COLUMNS, "--n-windows", 99)
    assert f"{data}: y has 400 rows; 99 windows of 6 rows, 6 apart, take 594" in error
    assert "would overwrite the data" in error_of(data, "-o", data)
    assert "cannot write to folder" in error_of(data, "-o", tmp_path / "none" / "out.csv")


def test_nothing_is_written_if_it_fails(data, tmp_path):
    error_of(data, *SIZES, *COLUMNS, "--n-windows", 99, "-o", tmp_path / "out.csv")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--refit", "yes"], "'yes' is not no, update or a number"),
        (["--refit", "0"], "'0' is not no, update or a number"),
        (["--no-network", "--max-steps", "3"], "goes with a network only"),
        (["--output", "out.txt"], "must end in .csv or .parquet"),
        (["--n-windows", "0"], "--n-windows"),
    ],
)
def test_a_command_that_makes_no_sense_is_refused_with_code_2(data, options, text):
    stdout, stderr = run(data, *options, code=2)
    assert stdout == ""
    assert text in " ".join(stderr.replace("│", " ").split())


@pytest.mark.filterwarnings("default")
def test_a_long_table_is_backtested_series_by_series(data, tmp_path):
    table = pl.read_csv(data, try_parse_dates=True).select(
        unique_id=pl.lit("Seattle"), ds="date", y="temp_max", wind="wind"
    )
    other = table[:-100].with_columns(unique_id=pl.lit("elsewhere"), y=pl.col("y") * 2)
    table = pl.concat([table, other, table.with_columns(unique_id=pl.lit("x"), y=pl.col("wind"))])
    table = table.with_columns(y=pl.when(pl.col("y") > 30).then(None).otherwise(pl.col("y")))
    for name in ("long.csv", "long.parquet"):
        write = table.write_csv if name.endswith("csv") else table.write_parquet
        write(tmp_path / name)
        stdout, stderr = run(
            tmp_path / name, *SIZES, "--json", "-q", "--n-windows", 2, "-o", tmp_path / "out.csv"
        )
        found = json.loads(stdout)
        assert found["channels"] == ["Seattle", "elsewhere", "x"]
        assert found["not_scored"] == ["elsewhere"]
        assert "says nothing about 'elsewhere'" in stderr
        written = pl.read_csv(tmp_path / "out.csv")
        assert written["unique_id"].unique(maintain_order=True).to_list() == ["Seattle", "x"]
    renamed = table.rename({"unique_id": "place"})
    renamed.write_csv(tmp_path / "named.csv")
    options = ["--json", "-q", "--n-windows", 2, "--id-column", "place", "--columns", "y"]
    assert json.loads(run(tmp_path / "named.csv", *SIZES, *options)[0]) == found
