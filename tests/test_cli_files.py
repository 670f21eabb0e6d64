"""Files as ``titans-ts`` reads and writes them: ids, dates, what is no number, kinds of answers."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from forecast_cli import error_of, run

ROWS = 120
SIZES = ["--prediction-length", "4", "--context-length", "8", "--no-network", "-q"]
T = np.arange(ROWS)
WAVE = 10 + np.sin(T / 3) + np.random.default_rng(0).normal(size=ROWS) / 10


def model_of(table: pl.DataFrame, folder: Path, *options: object) -> Path:
    table.write_csv(folder / "rows.csv")
    run("fit", folder / "rows.csv", "-o", folder / "model", *SIZES, *options)
    return folder / "model"


def info(model: Path) -> dict[str, object]:
    return json.loads(run("info", model, "--json")[0])


@pytest.mark.parametrize("ids", [("01", "1"), ("1.0", "2.5"), ("02139", "90210")])
def test_ids_are_taken_as_they_are_written(ids: tuple[str, str], tmp_path: Path) -> None:
    parts = [pl.DataFrame({"unique_id": [name] * ROWS, "ds": T, "y": WAVE}) for name in ids]
    model = model_of(pl.concat(parts), tmp_path)
    found = json.loads(run("forecast", model, "--json")[0])
    assert [series["id"] for series in found["series"]] == list(ids)
    pl.concat(parts).with_columns(ds=T.max() + 1, y=10.0).unique(maintain_order=True).write_csv(
        tmp_path / "new.csv"
    )
    run("forecast", model, "--new", tmp_path / "new.csv", "-o", tmp_path / "answer.csv")
    written = pl.read_csv(tmp_path / "answer.csv", schema_overrides={"unique_id": pl.String})
    assert written["unique_id"].unique(maintain_order=True).to_list() == list(ids)


def test_ids_that_are_whole_numbers_stay_numbers(tmp_path: Path) -> None:
    parts = [pl.DataFrame({"shop": [i] * ROWS, "ds": T, "y": WAVE}) for i in (7, 10)]
    model = model_of(pl.concat(parts), tmp_path, "--id-column", "shop")
    assert [s["id"] for s in json.loads(run("forecast", model, "--json")[0])["series"]] == [7, 10]


def test_dates_without_dashes_are_dates(tmp_path: Path) -> None:
    days = pl.date_range(pl.date(2020, 1, 1), pl.date(2020, 4, 29), eager=True)
    table = pl.DataFrame({"Date": days.dt.strftime("%Y%m%d"), "y": WAVE})
    model = model_of(table, tmp_path)
    assert info(model)["channels"] == ["y"]
    assert run("forecast", model)[0].splitlines()[1].startswith("2020-04-30,")
    (tmp_path / "new.csv").write_text("Date,y\n20200430,10\n")
    answer = run("forecast", model, "--new", tmp_path / "new.csv")[0]
    assert answer.splitlines()[1].startswith("2020-05-01,")


@pytest.mark.parametrize("name", ["year", "timestamp"])
def test_rising_whole_numbers_of_that_name_are_times(name: str, tmp_path: Path) -> None:
    model = model_of(pl.DataFrame({name: 1700 + 10 * T, "y": WAVE}), tmp_path)
    assert info(model)["channels"] == ["y"]
    assert run("forecast", model)[0].splitlines()[1].startswith("2900,")


def test_what_does_not_rise_or_is_called_otherwise_is_a_channel(tmp_path: Path) -> None:
    table = pl.DataFrame({"time": T % 24, "count": T, "y": WAVE})
    assert info(model_of(table, tmp_path))["channels"] == ["time", "count", "y"]


def with_words(*words: str) -> list[str]:
    """Numbers as text, with words from the 18th on."""
    values = [f"{value:.3f}" for value in WAVE]
    values[17 : 17 + len(words)] = words
    return values


@pytest.mark.parametrize("word", ["?", "-", "NA", "N/A", "n/a", "#N/A", "NaN", "null", "None"])
def test_usual_spellings_of_missing_values_are_missing_values(word: str, tmp_path: Path) -> None:
    table = pl.DataFrame({"ds": T, "a": with_words(word)})
    spelled = run("forecast", model_of(table, tmp_path))[0]
    empty = table.with_columns(a=pl.Series(with_words("")))
    assert run("forecast", model_of(empty, tmp_path))[0] == spelled


def test_spellings_of_missing_values_stay_categories_of_text(tmp_path: Path) -> None:
    kinds = pl.DataFrame({"y": WAVE, "kind": ["-" if t % 3 else "dry" for t in T]})
    model = model_of(kinds, tmp_path, "--past-covariates", "kind")
    assert info(model)["covariates"]["past"] == ["kind=-", "kind=dry"]


def test_values_that_are_no_numbers_are_shown_counted_and_cured(tmp_path: Path) -> None:
    pl.DataFrame({"a": with_words("x", "x", "off"), "b": WAVE}).write_csv(tmp_path / "rows.csv")
    fit = ("fit", tmp_path / "rows.csv", "-o", tmp_path / "model", *SIZES)
    message = error_of(*fit)
    assert "'a' does not hold numbers alone but 'x' in row 18 and 2 more ('x' 2 times)" in message
    assert "an empty field is a missing value" in message
    assert "na_values='x'" in message
    assert message.endswith("or choose the channels, as in --columns b\n")
    message = error_of(*fit, "--columns", "a")
    assert "na_values='x'" in message
    assert "--columns" not in message


@pytest.mark.parametrize("words", [["3,5"], ["3,5"] * 100, ["1.234,5"] * 100, ["1,234"] * ROWS])
def test_decimal_commas_are_told_from_text(words: list[str], tmp_path: Path) -> None:
    values = with_words(*words)[-ROWS:]
    pl.DataFrame({"a": values, "b": WAVE}).write_csv(tmp_path / "rows.csv")
    message = error_of("fit", tmp_path / "rows.csv", "-o", tmp_path / "model", *SIZES)
    assert f"'a' does not hold numbers alone but '{words[0]}' in row" in message
    assert "write 3.5 with a point" in message
    assert message.endswith("--columns b\n")
    pl.DataFrame({"a": values, "b": values}).write_csv(tmp_path / "rows.csv")
    message = error_of("fit", tmp_path / "rows.csv", "-o", tmp_path / "model", *SIZES)
    assert "--columns" not in message


def test_text_is_no_channel_named_or_not(tmp_path: Path) -> None:
    pl.DataFrame({"a": ["w"] * ROWS, "b": WAVE}).write_csv(tmp_path / "rows.csv")
    fit = ("fit", tmp_path / "rows.csv", "-o", tmp_path / "model", *SIZES)
    message = error_of(*fit)
    assert "choose the channels, as in --columns b. If it holds the times, write them" in message
    assert "if it tells series apart, say --id-column a" in message
    assert "leave it out of --columns" in error_of(*fit, "--columns", "a,b")


@pytest.mark.parametrize("mark", [";", "\t"])
def test_other_marks_between_columns_are_named(mark: str, tmp_path: Path) -> None:
    pl.DataFrame({"a": WAVE, "b": WAVE}).write_csv(tmp_path / "rows.csv", separator=mark)
    message = error_of("fit", tmp_path / "rows.csv", "-o", tmp_path / "model", *SIZES)
    assert f"has its columns apart by {mark!r}; write it with commas" in message


def test_an_answer_is_what_its_name_says(tmp_path: Path) -> None:
    model = model_of(pl.DataFrame({"ds": T, "y": WAVE}), tmp_path)
    run("forecast", model, "-o", tmp_path / "answer.parquet")
    run("forecast", model, "-o", tmp_path / "answer.csv")
    parquet = pl.read_parquet(tmp_path / "answer.parquet")
    assert parquet.columns == ["ds", "y", "y_q0.1", "y_q0.9"]
    assert parquet.equals(pl.read_csv(tmp_path / "answer.csv"))
    run("forecast", model, "--json", "-o", tmp_path / "answer.json")
    assert json.loads((tmp_path / "answer.json").read_text())["channels"]["y"]["point"]
    run("forecast", model, "-o", tmp_path / "answer.tsv")
    run("forecast", model, "-o", tmp_path / "answer.csv.gz")
    tabs = pl.read_csv(tmp_path / "answer.tsv", separator="\t")
    assert tabs.equals(pl.read_csv(tmp_path / "answer.csv"))
    packed = gzip.decompress((tmp_path / "answer.csv.gz").read_bytes())
    assert packed == (tmp_path / "answer.csv").read_bytes()
    wrong_names = ["answer.json", "answer.json.gz", "answer.xlsx", "answer.csv.bz2"]
    for wrong in (*(["-o", name] for name in wrong_names), ["-o", "answer.parquet", "--json"]):
        stderr = run("forecast", model, *wrong, code=2)[1]
        assert "would hold" in stderr


def test_a_channel_with_the_name_of_a_quantile_is_refused_in_tables(tmp_path: Path) -> None:
    model = model_of(pl.DataFrame({"ds": T, "y": WAVE, "y_q0.1": 2 * WAVE}), tmp_path)
    assert "would be called 'y_q0.1'" in error_of("forecast", model)
    channels = json.loads(run("forecast", model, "--json")[0])["channels"]
    assert channels["y"]["point"][0] == pytest.approx(10, abs=1.5)
    assert channels["y_q0.1"]["point"][0] == pytest.approx(20, abs=3)
    assert channels["y_q0.1"]["quantiles"]["0.1"][0] == pytest.approx(20, abs=3)
