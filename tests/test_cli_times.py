"""Times in files as ``titans-ts`` reads them: how they may be written, what is said if not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from forecast_cli import error_of, run

ROWS = 120
SIZES = ["--prediction-length", "4", "--context-length", "8", "--no-network", "-q"]
WAVE = 10 + np.sin(np.arange(ROWS) / 3) + np.random.default_rng(0).normal(size=ROWS) / 10
DAYS = pd.date_range("2020-01-01", periods=ROWS)
HOURS = pd.date_range("2024-01-01", periods=ROWS, freq="h")


def write(folder: Path, table: dict[str, object], *, first: int = 0, last: int = ROWS) -> Path:
    """A file of these columns beside channel y."""
    path = folder / f"rows{first}.csv"
    pd.DataFrame({**table, "y": WAVE})[first:last].to_csv(path, index=False)
    return path


def next_times(folder: Path, table: dict[str, object], *options: str) -> list[str]:
    """The first two times that are forecast after all rows, the last two of which come as new."""
    seen, new = write(folder, table, last=ROWS - 1), write(folder, table, first=ROWS - 1)
    run("fit", seen, "-o", folder / "model", *SIZES, *options)
    answer = run("forecast", folder / "model", "--new", new)[0].splitlines()
    assert [len(line.split(",")) for line in answer] == [4] * 5  # times, y and two quantiles
    return [line.split(",")[0] for line in answer[1:3]]


def fit_error(folder: Path, table: dict[str, object], *options: str) -> str:
    return error_of("fit", write(folder, table), "-o", folder / "model", *SIZES, *options)


@pytest.mark.parametrize("name", ["date", "first"])
@pytest.mark.parametrize("form", ["%Y-%m-%d", "%Y/%m/%d", "%d/%m/%Y", "%d.%m.%Y", "%d-%m-%Y"])
def test_days_may_be_written_in_these_ways(name: str, form: str, tmp_path: Path) -> None:
    assert next_times(tmp_path, {name: DAYS.strftime(form)}) == ["2020-04-30", "2020-05-01"]


@pytest.mark.parametrize("name", ["month", "Date/Time", "first"])
def test_months_are_their_first_days(name: str, tmp_path: Path) -> None:
    months = pd.period_range("2010-01", periods=ROWS, freq="M").astype(str)
    assert next_times(tmp_path, {name: months}) == ["2020-01-01", "2020-02-01"]


@pytest.mark.parametrize("form", ["%YQ%q", "%Y-Q%q", "%Yq%q"])
def test_quarters_are_their_first_days(form: str, tmp_path: Path) -> None:
    quarters = pd.period_range("1990Q1", periods=ROWS, freq="Q").strftime(form)
    expected = ["2020-01-01", "2020-04-01"]
    assert next_times(tmp_path, {"quarter": quarters}) == expected
    named = {"note": WAVE, "when": quarters}
    assert next_times(tmp_path, named, "--time-column", "when", "--columns", "y") == expected


def test_dates_and_times_of_day_are_joined(tmp_path: Path) -> None:
    table = {"Date": HOURS.strftime("%d/%m/%Y"), "Time": HOURS.strftime("%H:%M:%S")}
    assert next_times(tmp_path, table) == ["2024-01-06T00:00:00", "2024-01-06T01:00:00"]


@pytest.mark.parametrize(
    "clock", [{"clock": "%H:%M"}, {"Time": "%H.%M.%S"}, {"at": "%I:%M %p"}, {"hr": "int"}]
)
def test_dates_that_come_twice_beside_times_of_day_are_to_be_joined(
    clock: dict[str, str], tmp_path: Path
) -> None:
    [(name, form)] = clock.items()
    beside = HOURS.hour if form == "int" else HOURS.strftime(form)
    table = {"day": HOURS.strftime("%Y-%m-%d"), name: beside}
    message = fit_error(tmp_path, table, "--columns", "y")
    assert "the times in 'day' are duplicated: 2024-01-01 is in row 1 and in row 2; " in message
    assert f"column {name!r} tells the time of day: join the two" in message


def test_times_that_come_twice_are_cured_in_the_file(tmp_path: Path) -> None:
    again = [*DAYS[:50], DAYS[49], *DAYS[51:]]
    message = fit_error(tmp_path, {"date": again})
    assert "2020-02-19 is in row 50 and in row 51; keep one row of each, or, if" in message
    assert "--id-column" in message
    shops = {"shop": ["a"] * 60 + ["b"] * 60, "date": [*DAYS[:60], *DAYS[:59], DAYS[58]]}
    message = fit_error(tmp_path, shops, "--id-column", "shop")
    assert "2020-02-28 is in row 119 and in row 120 of series 'b'; keep one row" in message
    assert message.endswith("of each\n")
    run("fit", write(tmp_path, {"date": DAYS}), "-o", tmp_path / "model", *SIZES)
    (tmp_path / "new.csv").write_text("date,y\n2020-04-30,10\n2020-04-30,10\n")
    message = error_of("forecast", tmp_path / "model", "--new", tmp_path / "new.csv")
    assert "new.csv: the times in 'date' are duplicated: 2020-04-30 is in row 1" in message


@pytest.mark.parametrize("freq", ["h", "30min"])
@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Sydney"])
def test_an_hour_that_comes_twice_may_be_local_time(freq: str, zone: str, tmp_path: Path) -> None:
    begin = {"E": "2024-10-26", "A": "2024-11-02"}[zone[0]]
    begin = "2024-04-06" if zone == "Australia/Sydney" else begin
    stamps = pd.date_range(begin, periods=ROWS, freq=freq, tz=zone)
    message = fit_error(tmp_path, {"date": stamps.tz_localize(None)})
    assert "they may be local times" in message
    assert next_times(tmp_path, {"date": stamps.map(pd.Timestamp.isoformat)})[0].endswith("+00:00")


@pytest.mark.parametrize("name", ["date", "utc_timestamp", "first"])
@pytest.mark.parametrize("options", [[], ["--columns", "y"], ["--time-column", "named"]])
def test_times_that_cannot_be_read_are_never_left_out(
    name: str, options: list[str], tmp_path: Path
) -> None:
    options = [name if option == "named" else option for option in options]
    message = fit_error(tmp_path, {name: DAYS.strftime("%m/%d/%Y")}, *options)
    assert f"the times in {name!r} cannot be read, such as '01/13/2020' in row 13; " in message
    assert "the day comes first" in message


def test_the_one_time_that_is_no_time_is_shown(tmp_path: Path) -> None:
    days = [*DAYS.astype(str)[:50], "?", *DAYS.astype(str)[51:]]
    message = fit_error(tmp_path, {"date": days}, "--columns", "y")
    assert "the times in 'date' cannot be read, such as '?' in row 51" in message
    assert "the day comes first" not in message
    run("fit", write(tmp_path, {"date": DAYS}), "-o", tmp_path / "model", *SIZES)
    (tmp_path / "new.csv").write_text("date,y\ntoday,10\n")
    message = error_of("forecast", tmp_path / "model", "--new", tmp_path / "new.csv")
    assert "the times in 'date' cannot be read, such as 'today'" in message


def test_times_of_day_alone_are_no_times(tmp_path: Path) -> None:
    message = fit_error(tmp_path, {"time": HOURS.strftime("%H:%M:%S")}, "--columns", "y")
    assert "the times in 'time' cannot be read, such as '00:00:00'" in message


def test_text_that_only_sounds_like_times_is_left_out(tmp_path: Path) -> None:
    table = {"n": ["v1.0"] * ROWS, "day": DAYS.day_name(), "day_type": ["type 1"] * ROWS}
    run("fit", write(tmp_path, table), "-o", tmp_path / "model", *SIZES, "--columns", "y")
    assert run("forecast", tmp_path / "model")[0].startswith("y,y_q0.1")


@pytest.mark.parametrize("freq", ["MS", "QS", "2MS"])
def test_months_that_were_read_as_days_are_told(freq: str, tmp_path: Path) -> None:
    months = pd.date_range("2000-01-01", periods=ROWS + 1, freq=freq).delete(5)
    message = fit_error(tmp_path, {"date": months.strftime("%m/%d/%Y")})
    assert "With days and months exchanged, they are months in a row" in message
