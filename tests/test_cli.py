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
import polars as pl
import pytest
from typer.testing import CliRunner

import titans_core
from titans_ts import TitansForecaster, TrainingConfig, load_dataset
from titans_ts.cli import app
from titans_ts.forecaster import DEFAULT_TRAINING

ROOT = Path(__file__).parent.parent
LINES = (ROOT / "datasets" / "seattle-weather.csv").read_text("utf-8").splitlines(keepends=True)
CHANNELS = ["precipitation", "temp_max", "temp_min", "wind"]
SEEN, NEW = 1400, 9
SIZES = ["--prediction-length", "6", "--context-length", "24"]


def run(*arguments, code=0):
    """Run the command in this process; return what it wrote to (stdout, stderr)."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.stdout, result.stderr


def error_of(*arguments):
    """The one line that a user's mistake is answered with."""
    stdout, stderr = run(*arguments, code=1)
    assert stdout == ""
    assert stderr.startswith("titans-ts: error: ")
    assert stderr.count("\n") == 1
    return stderr


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
        "rows_seen": SEEN,
        "last_time": "2015-10-31T00:00:00",
        "linear_part": "per channel" if len(fitted._stream.linear.weights) > 1 else "shared",
        "network": None,
        "version": titans_core.__version__,
    }
    assert parameters["context_length"] == 24
    assert set(parameters) == set(fitted.get_params())
    stdout, stderr = run("info", files / "model")
    assert "precipitation, temp_max, temp_min, wind" in stdout
    assert "context length: 24" in stdout
    assert stderr == ""


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
        "gate_fresh": residual.fresh.gate,
        "gate_carried": residual.carried.gate,
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
        *("forecast", files / "model", "--new", files / "later.csv"),
        *("-o", tmp_path / "out.csv", "--save", tmp_path / "moved"),
    )
    assert "later.csv: y_new must start at 2015-11-01" in message
    assert "got 2015-11-06" in message
    assert list(tmp_path.iterdir()) == []


def test_new_rows_without_a_channel_are_refused(files, tmp_path):
    rows(SEEN, SEEN + 2).drop("wind").write_csv(tmp_path / "new.csv")
    message = error_of("forecast", files / "model", "--new", tmp_path / "new.csv")
    assert "missing ['wind']" in message


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

    monkeypatch.setattr("titans_ts.forecaster.fit_residual", interrupt)
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
    done = in_a_process("forecast", files / "model", "--new", files / "later.csv")
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
