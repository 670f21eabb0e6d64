"""The command line: what Python answers, on the right stream, or one line that says why not."""

from __future__ import annotations

import csv
import importlib.metadata
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from forecast_cli import error_of, run
from typer.testing import CliRunner

import titans_core
from titans_ts import TitansForecaster, TrainingConfig, load_dataset
from titans_ts.cli import app
from titans_ts.settings import DEFAULT_TRAINING

ROOT = Path(__file__).parent.parent
LINES = (ROOT / "datasets" / "seattle-weather.csv").read_text("utf-8").splitlines(keepends=True)
CHANNELS = ["precipitation", "temp_max", "temp_min", "wind"]
SEEN, NEW = 1400, 9
SIZES = ["--prediction-length", "6", "--context-length", "24"]


def read_csv(text):
    """Header, times and numbers (P, columns) of a forecast."""
    header, *rows = csv.reader(io.StringIO(text))
    return header, [row[0] for row in rows], np.array([row[1:] for row in rows], dtype=float)


def in_csv_order(forecaster, levels, prediction_length=None):
    """The same numbers from the Python API: each channel's median, then its quantiles."""
    points = forecaster.predict(prediction_length).drop("date").to_numpy()
    fans = forecaster.predict_quantiles(levels, prediction_length).drop("date").to_numpy()
    fans = fans.reshape(*points.shape, len(levels))
    return np.concatenate([points[..., None], fans], axis=2).reshape(len(points), -1)


def rows(start, stop):
    """Rows of the bundled file as the forecaster of the API gets them."""
    frame = pl.read_csv("".join([LINES[0], *LINES[1 + start : 1 + stop]]).encode())
    return frame.select(pl.col("date").str.to_date("%Y/%m/%d"), *CHANNELS)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with data in every shape that the tests need, and a model fitted on it."""
    folder = tmp_path_factory.mktemp("a folder")
    (folder / "seen.csv").write_text("".join(LINES[: 1 + SEEN]))
    (folder / "new.csv").write_text("".join([LINES[0], *LINES[1 + SEEN : 1 + SEEN + NEW]]))
    (folder / "later.csv").write_text("".join([LINES[0], *LINES[1 + SEEN + 5 : 1 + SEEN + NEW]]))
    (folder / "again.csv").write_text("".join([LINES[0], *LINES[1 + SEEN - 2 : 1 + SEEN + NEW]]))
    rows(0, SEEN).write_parquet(folder / "seen.parquet")
    columns = ["--columns", ",".join(CHANNELS)]
    run("fit", folder / "seen.csv", "-o", folder / "model", *columns, *SIZES, "--no-network", "-q")
    return folder


@pytest.fixture(scope="module")
def fitted():
    """The same model, from Python."""
    return TitansForecaster(6, 24, use_network=False, time_column="date").fit(rows(0, SEEN))


def test_a_forecast_on_stdout_is_what_python_forecasts(files, fitted):
    stdout, stderr = run("forecast", files / "model")
    header, times, values = read_csv(stdout)
    assert stderr == ""
    assert header[:4] == ["date", "precipitation", "precipitation_q0.1", "precipitation_q0.9"]
    assert times == [f"2015-11-{day:02}" for day in range(1, 7)]
    np.testing.assert_array_equal(values, in_csv_order(fitted, [0.1, 0.9]))


def test_length_and_levels_can_be_chosen(files, fitted):
    stdout, _ = run(
        "forecast", files / "model", "--prediction-length", 2, "--levels", "0.9,0.25,0.5"
    )
    header, _, values = read_csv(stdout)
    assert header[5:9] == ["temp_max", "temp_max_q0.25", "temp_max_q0.5", "temp_max_q0.9"]
    np.testing.assert_array_equal(values, in_csv_order(fitted, [0.25, 0.5, 0.9], 2))


def test_json_holds_the_same_forecast(files, fitted):
    answer = json.loads(run("forecast", files / "model", "--json")[0])
    assert answer["time_column"] == "date"
    assert answer["times"][0] == "2015-11-01"
    assert list(answer["channels"]) == CHANNELS
    wind = answer["channels"]["wind"]
    assert wind["point"] == fitted.predict()["wind"].to_list()
    assert wind["quantiles"]["0.9"] == fitted.predict_quantiles([0.9])["wind_q0.9"].to_list()


def test_new_rows_are_learned_and_the_moved_on_model_is_saved(files, fitted, tmp_path):
    out, moved = tmp_path / "forecast.csv", tmp_path / "moved"
    before = (files / "model").read_bytes()
    stdout, _ = run(
        "forecast", files / "model", "--new", files / "new.csv", "-o", out, "--save", moved
    )
    assert stdout == ""
    assert (files / "model").read_bytes() == before

    snapshot = fitted.snapshot()
    expected = in_csv_order(fitted.update(rows(SEEN, SEEN + NEW)), [0.1, 0.9])
    fitted.restore(snapshot)
    _, times, values = read_csv(out.read_text())
    assert times[0] == "2015-11-10"
    np.testing.assert_array_equal(values, expected)
    assert run("forecast", moved)[0] == out.read_text()
    facts = json.loads(run("info", moved, "--json")[0])
    assert (facts["rows_seen"], facts["last_time"]) == (SEEN + NEW, "2015-11-09T00:00:00")


def test_a_model_can_be_moved_on_in_place(files, tmp_path):
    model = tmp_path / "model"
    model.write_bytes((files / "model").read_bytes())
    stdout, _ = run("forecast", model, "--new", files / "new.csv", "--save", model)
    assert run("forecast", model)[0] == stdout
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_info_tells_what_the_model_is(files, fitted):
    facts = json.loads(run("info", files / "model", "--json")[0])
    parameters = facts.pop("parameters")
    assert facts == {
        "channels": CHANNELS,
        "series": 1,
        "rows_seen": SEEN,
        "last_time": "2015-10-31T00:00:00",
        "context_length": 24,
        "logarithms": None,
        "seasonal_memory": None,
        "linear_part": "per channel" if fitted._standing.linear.per_channel else "shared",
        "network": None,
        "covariates": None,
        "version": titans_core.__version__,
    }
    assert parameters["context_length"] == 24
    assert set(parameters) == set(fitted.get_params())
    stdout, stderr = run("info", files / "model")
    assert "precipitation, temp_max, temp_min, wind" in stdout
    assert "context length: 24" in stdout
    assert stderr == ""


def test_domain_and_memory_are_those_of_the_options(files, tmp_path):
    options = ["--columns", "wind", "--target-transform", "log", "--no-memory"]
    run("fit", files / "seen.csv", "-o", tmp_path / "model", *SIZES, *options, "--no-network", "-q")
    told = TitansForecaster.load(tmp_path / "model").get_params()
    assert (told["target_transform"], told["use_memory"]) == ("log", False)
    facts = json.loads(run("info", tmp_path / "model", "--json")[0])
    assert facts["logarithms"]["channels"] == ["wind"]


def test_a_parquet_file_gives_the_same_model_as_csv(files, tmp_path):
    run("fit", files / "seen.parquet", "-o", tmp_path / "model", *SIZES, "--no-network", "-q")
    assert run("forecast", tmp_path / "model") == run("forecast", files / "model")


def test_a_data_set_is_fitted_by_name(tmp_path):
    _, stderr = run("fit", "seattle-weather", "-o", tmp_path / "model", *SIZES, "--no-network")
    assert "1461" in stderr
    y = load_dataset("seattle-weather", engine="polars")
    expected = TitansForecaster(6, 24, use_network=False).fit(y)
    _, times, values = read_csv(run("forecast", tmp_path / "model")[0])
    assert times[0] == "2016-01-01T00:00:00"
    np.testing.assert_array_equal(values, in_csv_order(expected, [0.1, 0.9]))


def test_a_network_is_trained_as_in_python(tmp_path):
    (tmp_path / "few.csv").write_text("".join(LINES[:301]))
    stdout, stderr = run(
        *("fit", tmp_path / "few.csv", "-o", tmp_path / "model", "--columns", "wind,temp_max"),
        *("--max-steps", 5, "--seed", 3, "--validation-size", 40, *SIZES),
    )
    assert stdout == ""
    assert "training steps: 5" in stderr
    assert "5/5" in stderr  # the progress bar
    y = rows(0, 300).select("date", "wind", "temp_max")
    training = TrainingConfig(**{**vars(DEFAULT_TRAINING), "max_steps": 5})
    expected = TitansForecaster(
        6, 24, validation_size=40, training=training, random_state=3, progress=False
    ).fit(y)
    facts = json.loads(run("info", tmp_path / "model", "--json")[0])
    residual = expected.model_.residual
    assert facts["network"] == {
        "weights": sum(weight.numel() for weight in residual.network.parameters()),
        "training_steps": 5,
        "gate_fresh": round(float(residual.fresh.gate.mean()), 4),
        "gate_carried": round(float(residual.carried.gate.mean()), 4),
        "memory_carried": residual.uses_memory,
    }
    assert facts["parameters"]["training"]["max_steps"] == 5
    values = read_csv(run("forecast", tmp_path / "model")[0])[2]
    np.testing.assert_array_equal(values, in_csv_order(expected, [0.1, 0.9]))


def test_the_rows_may_have_no_times(tmp_path):
    rows(0, 200).drop("date").write_csv(tmp_path / "y.csv")
    rows(200, 203).drop("date").write_csv(tmp_path / "new.csv")
    run("fit", tmp_path / "y.csv", "-o", tmp_path / "model", *SIZES, "--no-network", "-q")
    stdout, _ = run("forecast", tmp_path / "model", "--new", tmp_path / "new.csv")
    assert stdout.startswith("precipitation,precipitation_q0.1")
    assert json.loads(run("forecast", tmp_path / "model", "--json")[0])["times"] is None


@pytest.mark.parametrize("kind", ["pandas", "numpy"])
def test_a_model_fitted_in_python_on_other_kinds_goes_on_here(kind, files, fitted, tmp_path):
    y = load_dataset("seattle-weather")[:SEEN]
    forecaster = TitansForecaster(6, 24, use_network=False)
    forecaster.fit(y if kind == "pandas" else y.to_numpy()).save(tmp_path / "model")
    rows(SEEN, SEEN + NEW).write_csv(tmp_path / "new.csv")
    stdout, _ = run("forecast", tmp_path / "model", "--new", tmp_path / "new.csv")
    expected, _ = run("forecast", files / "model", "--new", files / "new.csv")
    if kind == "pandas":
        assert read_csv(stdout)[0] == read_csv(expected)[0]
    got = [line.split(",") for line in stdout.splitlines()[1:]]
    assert [row[-12:] for row in got] == [
        row.split(",")[-12:] for row in expected.splitlines()[1:]
    ]  # three numbers of four channels


def test_times_keep_their_zone_through_text(tmp_path):
    stamps = pl.col("date").cast(pl.Datetime("us")).dt.replace_time_zone("Europe/Berlin")
    y = rows(0, 200).with_columns(stamps)
    y[:190].write_parquet(tmp_path / "y.parquet")
    y[190:].write_csv(tmp_path / "new.csv")
    run("fit", tmp_path / "y.parquet", "-o", tmp_path / "model", *SIZES, "--no-network", "-q")
    stdout, _ = run("forecast", tmp_path / "model", "--new", tmp_path / "new.csv")
    last = y["date"][-1]
    assert read_csv(stdout)[1][0] == last.replace(day=last.day + 1).isoformat()


def test_a_missing_file_is_named(files):
    assert "no file 'nothing.csv'" in error_of("fit", "nothing.csv", "-o", files / "x")
    assert "no file 'nothing'" in error_of("forecast", "nothing")
    assert "no file 'nothing'" in error_of("info", "nothing")
    assert "'nothing.csv'" in error_of("forecast", files / "model", "--new", "nothing.csv")
    assert not (files / "x").exists()


def test_a_foreign_model_file_is_refused(files):
    for command in ("forecast", "info"):
        assert "is not a titans-stream file" in error_of(command, files / "new.csv")


def test_columns_that_are_not_numbers_are_named_with_the_cure(files):
    message = error_of("fit", files / "seen.csv", "-o", files / "x", "--no-network")
    assert "seen.csv: 'weather' does not hold numbers" in message
    assert f"--columns {','.join(CHANNELS)}" in message
    message = error_of("fit", files / "seen.csv", "-o", files / "x", "--columns", "wind,rain")
    assert "there is no column 'rain'; name some of ['date', 'precipitation'" in message


def test_times_that_cannot_be_read_are_shown(tmp_path):
    (tmp_path / "y.csv").write_text("when,a\nJan 24,1\nFeb 24,2\n")
    message = error_of("fit", tmp_path / "y.csv", "-o", tmp_path / "x", "--time-column", "when")
    assert "the times in 'when' cannot be read, such as 'Jan 24'" in message


def test_new_rows_that_do_not_follow_change_nothing(files, tmp_path):
    message = error_of(
        *("forecast", files / "model", "--new", files / "again.csv"),
        *("-o", tmp_path / "out.csv", "--save", tmp_path / "moved"),
    )
    assert "again.csv: y_new must start at 2015-11-01" in message
    assert "got 2015-10-30" in message
    assert list(tmp_path.iterdir()) == []


def test_new_rows_that_begin_late_follow_rows_that_are_missing(files, fitted):
    stdout, _ = run("forecast", files / "model", "--new", files / "later.csv")
    snapshot = fitted.snapshot()
    gone = rows(SEEN, SEEN + 5).with_columns(pl.lit(None, pl.Float64).alias(c) for c in CHANNELS)
    fitted.update(pl.concat([gone, rows(SEEN + 5, SEEN + NEW)]))
    np.testing.assert_array_equal(read_csv(stdout)[2], in_csv_order(fitted, [0.1, 0.9]))
    fitted.restore(snapshot)


def test_new_rows_without_a_channel_are_refused(files, tmp_path):
    rows(SEEN, SEEN + 2).drop("wind").write_csv(tmp_path / "new.csv")
    message = error_of("forecast", files / "model", "--new", tmp_path / "new.csv")
    assert "missing ['wind']" in message
    rows(SEEN, SEEN + 2).drop("date").write_csv(tmp_path / "new.csv")
    message = error_of("forecast", files / "model", "--new", tmp_path / "new.csv")
    assert "y_new has no time column 'date'. It has ['precipitation'" in message


def test_an_unknown_data_set_is_answered_with_the_nearest(files):
    message = error_of("fit", "seatle-weather", "-o", files / "x")
    assert "Did you mean 'seattle-weather'" in message
    assert "must end in .csv" in error_of("fit", "weather.txt", "-o", files / "x")


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty"), (b"date,a\n", "no rows"), (b"date,a\n2024-01-01,1,2\n", "cannot read")],
)
def test_a_file_without_a_table_is_refused(content, reason, tmp_path):
    (tmp_path / "y.csv").write_bytes(content)
    assert reason in error_of("fit", tmp_path / "y.csv", "-o", tmp_path / "x")


def test_too_few_rows_are_explained(tmp_path):
    rows(0, 20).write_csv(tmp_path / "y.csv")
    message = error_of("fit", tmp_path / "y.csv", "-o", tmp_path / "x", *SIZES)
    assert "y.csv: y has 20 rows" in message


def test_levels_outside_the_fitted_ones_are_refused(files):
    assert "levels must lie within" in error_of("forecast", files / "model", "--levels", "0.001")


def test_usage_errors_end_with_2(files):
    for arguments in (
        ("forecast", files / "model", "--levels", "low,high"),
        ("forecast", files / "model", "--prediction-length", "0"),
        ("fit", "seattle-weather"),
        ("fit", "seattle-weather", "-o", files / "x", "--no-network", "--max-steps", "5"),
    ):
        assert run(*arguments, code=2)[0] == ""


def test_an_output_that_cannot_be_written_is_refused_before_the_work(files, monkeypatch):
    monkeypatch.setattr(TitansForecaster, "fit", lambda *_: pytest.fail("was fitted"))
    message = error_of("fit", "seattle-weather", "-o", files / "absent" / "model")
    assert "cannot write to folder" in message
    assert "no regular file" in error_of("fit", "seattle-weather", "-o", files)
    assert "no regular file" in error_of("forecast", files / "model", "-o", "/dev/null")


@pytest.fixture
def own_files(files, tmp_path, monkeypatch):
    """A folder to work in: the data, new rows and a model of its own, and two names for them."""
    for name in ("seen.csv", "new.csv", "model"):
        (tmp_path / name).write_bytes((files / name).read_bytes())
    (tmp_path / "soft").symlink_to("model")
    (tmp_path / "hard").hardlink_to(tmp_path / "new.csv")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("fit seen.csv -o seen.csv", "'seen.csv' would overwrite the data 'seen.csv'; name"),
        ("fit seen.csv -o ../{folder}/seen.csv", "/seen.csv' would overwrite the data 'seen.csv'"),
        ("forecast model -o model", "'model' would overwrite the model 'model'"),
        ("forecast soft -o model", "'model' would overwrite the model 'soft'"),
        ("forecast model -o soft --save model", "'soft' would overwrite the model 'model'"),
        ("forecast model --new new.csv -o ./new.csv", "would overwrite the new rows 'new.csv'"),
        ("forecast model --new new.csv -o hard", "'hard' would overwrite the new rows 'new.csv'"),
        ("forecast model --new new.csv --save new.csv", "would overwrite the new rows 'new.csv'"),
        ("forecast model -o x --save ./y/../x", "'x' would overwrite the file of --save"),
    ],
)
def test_a_command_does_not_overwrite_what_it_reads(own_files, monkeypatch, command, message):
    for name in ("fit", "load"):
        monkeypatch.setattr(TitansForecaster, name, lambda *_: pytest.fail("work was begun"))
    before = {file: file.read_bytes() for file in own_files.iterdir()}
    assert message in error_of(*command.format(folder=own_files.name).split())
    assert {file: file.read_bytes() for file in own_files.iterdir()} == before


def test_a_model_may_be_saved_over_itself_by_another_name(own_files):
    stdout, _ = run("forecast", "model", "--new", "new.csv", "--save", "soft")
    assert run("forecast", "model")[0] == stdout


def test_a_channel_can_be_named_only_once(files):
    fit = ("fit", files / "seen.csv", "-o", files / "x", "--columns")
    message = error_of(*fit, "wind,temp_min,wind")
    assert "seen.csv: column 'wind' is named more than once; name each channel once" in message
    assert "column 'date' holds the times" in error_of(*fit, "date,wind")


def test_an_interrupted_write_leaves_the_old_file(files, tmp_path, monkeypatch):
    out = tmp_path / "out.csv"
    out.write_text("old")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    result = CliRunner().invoke(app, ["forecast", str(files / "model"), "-o", str(out)])
    assert result.exit_code != 0
    assert out.read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]


def test_an_interrupted_fit_leaves_no_model(files, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("titans_ts.fitting.fit_residual", interrupt)
    arguments = ["fit", "seattle-weather", "-o", str(tmp_path / "model"), "-q"]
    assert CliRunner().invoke(app, arguments).exit_code != 0
    assert list(tmp_path.iterdir()) == []


def in_a_process(*arguments):
    command = [sys.executable, "-m", "titans_ts.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_real_process_keeps_the_streams_apart(files):
    done = in_a_process("forecast", files / "model")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == run("forecast", files / "model")[0]
    done = in_a_process("forecast", files / "model", "--new", files / "again.csv")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("titans-ts: error: ")
    assert "Traceback" not in done.stderr


def test_the_version_is_that_of_the_package(monkeypatch):
    expected = f"titans-ts {titans_core.__version__}\n"
    assert run("--version")[0] == expected

    def not_installed(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", not_installed)
    assert run("--version")[0] == expected


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_import_nothing_heavy(option):
    code = (
        f"import sys; from titans_ts.cli import app; app([{option!r}], standalone_mode=False);"
        "print(*{'torch', 'polars', 'pandas', 'numpy', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == ""


def long_rows(first=0, last=120, ids=("north", "south", "new")):
    """A long table of three places, the last of which begins later; some values are missing."""
    days = pl.date_range(pl.date(2024, 1, 1), pl.date(2024, 12, 31), eager=True)
    rng = np.random.default_rng(0)
    parts = []
    for i, name in enumerate(ids):
        y = 10 * i + np.sin(np.arange(len(days)) / 3) + 0.1 * rng.normal(size=len(days))
        begin = max(first, 60 if i == 2 else 0)
        rows = pl.DataFrame({"unique_id": name, "ds": days, "y": y, "z": -y, "note": "x"})
        parts.append(rows[begin:last])
    table = pl.concat(parts)
    gone = np.arange(len(table)) % 17 == 3
    return table.with_columns(y=pl.when(pl.Series(gone)).then(None).otherwise(pl.col("y")))


@pytest.fixture
def long_files(tmp_path):
    """A long table, what came after it, and a model of it."""
    long_rows().write_csv(tmp_path / "seen.csv", null_value="NA")
    long_rows(120, 123).write_parquet(tmp_path / "new.parquet")
    run("fit", tmp_path / "seen.csv", "-o", tmp_path / "model", *SIZES, "--no-network", "-q")
    return tmp_path


def fitted_on_long_rows(**options):
    options = {"use_network": False, "time_column": "ds", "target_columns": ("y",), **options}
    return TitansForecaster(6, 24, **options).fit(long_rows().drop("note"))


def test_a_long_table_is_forecast_series_by_series(long_files):
    forecaster = fitted_on_long_rows()
    header, *got = csv.reader(io.StringIO(run("forecast", long_files / "model")[0]))
    assert header == ["unique_id", "ds", "y", "y_q0.1", "y_q0.9"]
    assert [row[0] for row in got] == ["north"] * 6 + ["south"] * 6 + ["new"] * 6
    assert [row[1] for row in got[:6]] == [f"2024-04-{30}", *(f"2024-05-0{i}" for i in range(1, 6))]
    expected = forecaster.predict_quantiles([0.1, 0.9])
    numbers = np.array([row[2:] for row in got], dtype=float)
    np.testing.assert_array_equal(numbers[:, 0], forecaster.predict()["y"])
    np.testing.assert_array_equal(numbers[:, 1:], expected.select("y_q0.1", "y_q0.9"))


def test_json_of_a_long_table_lists_its_series(long_files):
    answer = json.loads(run("forecast", long_files / "model", "--json")[0])
    assert (answer["id_column"], answer["time_column"]) == ("unique_id", "ds")
    assert [series["id"] for series in answer["series"]] == ["north", "south", "new"]
    point = fitted_on_long_rows().predict()["y"].to_list()
    assert [series["channels"]["y"]["point"] for series in answer["series"]] == [
        point[:6],
        point[6:12],
        point[12:],
    ]
    assert {series["times"][0] for series in answer["series"]} == {"2024-04-30"}


def test_new_rows_of_some_series_of_a_long_table_are_learned(long_files):
    rows = pl.read_parquet(long_files / "new.parquet").filter(pl.col("unique_id") != "south")
    rows.write_csv(long_files / "new.csv")
    moved = long_files / "moved"
    stdout, _ = run(
        "forecast", long_files / "model", "--new", long_files / "new.csv", "--save", moved
    )
    expected = fitted_on_long_rows().update(rows.drop("note"))
    got = list(csv.reader(io.StringIO(stdout)))[1:]
    np.testing.assert_array_equal([float(row[2]) for row in got], expected.predict()["y"])
    assert [row[1] for row in got[::6]] == ["2024-05-03", "2024-04-30", "2024-05-03"]
    facts = json.loads(run("info", moved, "--json")[0])
    assert (facts["series"], facts["rows_seen"]) == (3, 120 + 120 + 60 + 3 + 3)
    assert facts["last_time"] == "2024-05-02T00:00:00"
    assert facts["channels"] == ["y"]


def test_ids_times_and_channels_of_a_long_table_can_be_named(tmp_path):
    table = long_rows(ids=(7, 8, 9)).rename({"unique_id": "shop", "ds": "day"})
    table.write_parquet(tmp_path / "seen.parquet")
    options = ["--id-column", "shop", "--columns", "z,y", *SIZES, "--no-network", "-q"]
    run("fit", tmp_path / "seen.parquet", "-o", tmp_path / "model", *options)
    header, *got = csv.reader(io.StringIO(run("forecast", tmp_path / "model")[0]))
    assert header[:2] == ["shop", "day"]
    assert header[2::3] == ["z", "y"]
    assert [row[0] for row in got[::6]] == ["7", "8", "9"]
    message = error_of("fit", tmp_path / "seen.parquet", "-o", tmp_path / "x", "--id-column", "id")
    assert "there is no column 'id'" in message
    message = error_of(
        *("fit", tmp_path / "seen.parquet", "-o", tmp_path / "x"),
        *("--id-column", "shop", "--columns", "shop,y"),
    )
    assert "column 'shop' holds the ids" in message
    table.drop("day").write_parquet(tmp_path / "untimed.parquet")
    message = error_of("fit", tmp_path / "untimed.parquet", "-o", tmp_path / "x", *options[:2])
    assert "needs times; name their column with --time-column" in message


def test_ids_that_are_names_stay_so_where_a_file_has_only_numbers(tmp_path):
    long_rows(ids=("1", "2", "A")).write_csv(tmp_path / "seen.csv")
    long_rows(120, 123, ids=("1", "2", "A")).filter(pl.col("unique_id") == "1").write_csv(
        tmp_path / "new.csv"
    )
    run("fit", tmp_path / "seen.csv", "-o", tmp_path / "model", *SIZES, "--no-network", "-q")
    got = run("forecast", tmp_path / "model", "--new", tmp_path / "new.csv", "--json")[0]
    assert json.loads(got)["series"][0]["times"][0] == "2024-05-03"
    long_rows(120, 123, ids=("3",)).write_csv(tmp_path / "other.csv")
    message = error_of("forecast", tmp_path / "model", "--new", tmp_path / "other.csv")
    assert "series that the forecaster was not fitted on: '3'" in message


@pytest.mark.parametrize("kind", ["pandas", "pyarrow", "lazy"])
def test_a_model_fitted_in_python_on_a_long_table_goes_on_here(kind, long_files):
    table = long_rows().drop("note")
    y = {
        "pandas": lambda: pd.DataFrame({c: table[c].to_list() for c in table.columns}).assign(
            ds=lambda frame: pd.to_datetime(frame["ds"])
        ),
        "pyarrow": table.to_arrow,
        "lazy": table.lazy,
    }[kind]()
    forecaster = TitansForecaster(6, 24, use_network=False).fit(y)
    forecaster.save(long_files / "python")
    options = ["--new", long_files / "new.parquet"]
    expected = csv.reader(io.StringIO(run("forecast", long_files / "model", *options)[0]))
    got = csv.reader(io.StringIO(run("forecast", long_files / "python", *options)[0]))
    for ours, theirs in zip(got, expected, strict=True):
        assert ours[:1] + ours[2:] == theirs[:1] + theirs[2:]
        assert ours[1].removesuffix("T00:00:00") == theirs[1]


def test_arrays_of_several_series_are_numbered(tmp_path):
    y = np.random.default_rng(0).normal(size=(2, 80, 1)).cumsum(axis=1)
    for name, data in {"cube": y, "list": list(y[..., 0])}.items():
        TitansForecaster(6, 24, use_network=False).fit(data).save(tmp_path / name)
        stdout, _ = run("forecast", tmp_path / name)
        assert stdout.startswith("series,0,0_q0.1,0_q0.9\n0,")
        rows(0, 3).write_csv(tmp_path / "new.csv")
        message = error_of("forecast", tmp_path / name, "--new", tmp_path / "new.csv")
        assert "fitted on a" in message


def test_missing_values_of_a_file_are_left_out(files, tmp_path):
    gone = np.arange(SEEN) % 9 == 4
    holes = rows(0, SEEN).with_columns(
        wind=pl.when(pl.Series(gone)).then(None).otherwise(pl.col("wind"))
    )
    holes = holes.filter(pl.Series(np.arange(SEEN) != 700))  # and a whole day
    fit = ["-o", tmp_path / "model", *SIZES, "--no-network", "-q"]
    expected = TitansForecaster(6, 24, use_network=False, time_column="date").fit(holes)
    for word in ("", "NA", "NaN"):
        holes.write_csv(tmp_path / "holes.csv", null_value=word)
        run("fit", tmp_path / "holes.csv", *fit)
        values = read_csv(run("forecast", tmp_path / "model")[0])[2]
        np.testing.assert_array_equal(values, in_csv_order(expected, [0.1, 0.9]))
    later = rows(SEEN, SEEN + NEW).with_columns(wind=pl.lit(None, dtype=pl.Float64))
    later.write_csv(tmp_path / "new.csv", null_value="NA")
    values = read_csv(run("forecast", tmp_path / "model", "--new", tmp_path / "new.csv")[0])[2]
    np.testing.assert_array_equal(values, in_csv_order(expected.update(later), [0.1, 0.9]))
    text = holes.with_columns(wind=pl.when(pl.col("wind") > 9).then(pl.lit("strong")).otherwise(1))
    text.write_csv(tmp_path / "text.csv")
    assert "'wind' does not hold numbers" in error_of("fit", tmp_path / "text.csv", *fit)


@pytest.mark.filterwarnings("default")
def test_a_longer_forecast_rolls_on_with_one_warning(files, fitted):
    stdout, stderr = run("forecast", files / "model", "--prediction-length", 9)
    assert stderr.startswith("titans-ts: warning: prediction_length = 9 is beyond the 6 rows")
    assert stderr.count("\n") == 1
    with pytest.warns(UserWarning, match="rolls on"):
        expected = in_csv_order(fitted, [0.1, 0.9], 9)
    np.testing.assert_array_equal(read_csv(stdout)[2], expected)


def test_the_look_back_is_chosen_from_the_data_unless_it_is_said(files, tmp_path):
    fit = ("fit", files / "seen.csv", "--columns", "wind", "--prediction-length", 6, "--no-network")
    run(*fit, "-o", tmp_path / "model", "-q")
    facts = json.loads(run("info", tmp_path / "model", "--json")[0])
    assert facts["parameters"]["context_length"] == "auto"
    auto = TitansForecaster(6, use_network=False).fit(rows(0, SEEN).select("date", "wind"))
    assert facts["context_length"] == auto.context_length_
    for wrong in ("long", "1", "-3"):
        stderr = run(*fit, "-o", tmp_path / "x", "--context-length", wrong, code=2)[1]
        assert "is not auto or a number of rows" in " ".join(stderr.replace("│", " ").split())
