"""Benchmarks run, record tidy rows, and the README says what the rows say."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parent.parent


def run(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, script.name, *arguments]
    return subprocess.run(command, cwd=script.parent, capture_output=True, text=True, check=False)


@pytest.fixture
def benchmarks(tmp_path: Path) -> Path:
    """A copy that may write its own results."""
    return Path(
        shutil.copytree(
            ROOT / "benchmarks", tmp_path / "benchmarks", ignore=shutil.ignore_patterns("results")
        )
    )


def test_the_table_of_the_readme_is_that_of_the_results() -> None:
    answer = run(ROOT / "benchmarks" / "_tables.py", "--check")
    assert answer.returncode == 0, answer.stderr


def test_every_committed_row_can_be_reproduced_by_its_command() -> None:
    for path in (ROOT / "benchmarks" / "results").glob("*.csv"):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                script = row["command"].split()[1]
                assert (ROOT / script).exists(), row
                assert all(row.values()), row
                assert not row["commit"].endswith("+"), f"{path.name}: measured with local changes"


def test_long_horizon_scores_the_forecaster_beside_floors_and_ablations(benchmarks: Path) -> None:
    case = ["--dataset", "seattle-weather", "--context", "28", "--horizon", "7", "--quick"]
    for _ in range(2):  # the second time there is nothing left to do
        answer = run(benchmarks / "long_horizon.py", *case, "--ablation")
        assert answer.returncode == 0, answer.stderr
    assert "1/4" not in answer.stdout
    with (benchmarks / "results" / "long_horizon.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    errors = {row["provider"]: float(row["value"]) for row in rows if row["metric"] == "MSE"}
    assert set(errors) == {
        "naive", "seasonal naive", "ridge", "titans", "titans, memory",
        "titans, memory frozen", "titans, attention only", "titans, no memory",
    }  # fmt: skip
    assert len(rows) == len({(r["provider"], r["metric"], r["seed"]) for r in rows})
    assert max(errors["ridge"], errors["titans"]) < errors["naive"] < errors["seasonal naive"]


def rows_of(benchmarks: Path, name: str) -> list[dict[str, str]]:
    with (benchmarks / "results" / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_one_model_is_scored_on_the_windows_of_those_for_each_horizon(benchmarks: Path) -> None:
    case = ["--dataset", "seattle-weather", "--context", "28", "--horizon", "7", "3", "--quick"]
    answer = run(benchmarks / "one_model.py", *case)
    assert answer.returncode == 0, answer.stderr
    found: dict[str, dict[str, str]] = {}
    for row in rows_of(benchmarks, "one_model"):
        if row["metric"] in ("MSE", "windows"):
            found.setdefault(f"{row['case']}, {row['metric']}", {})[row["provider"]] = row["value"]
    three, seven = (f"seattle-weather, look-back 28, horizon {h}, quick" for h in (3, 7))
    every = {"one for all", "one for all, memory", "one for each", "one for each, memory"}
    for case_of in (three, seven):
        assert set(found[f"{case_of}, MSE"]) == every
        assert len(set(found[f"{case_of}, windows"].values())) == 1
    longest = found[f"{seven}, MSE"]  # there it is the same model
    assert longest["one for all"] == longest["one for each"]
    assert found[f"{three}, MSE"]["one for all"] != found[f"{three}, MSE"]["one for each"]


def test_the_forecaster_is_there_beside_peers_that_are_not_installed(benchmarks: Path) -> None:
    case = ["--dataset", "seattle-weather", "--context", "28", "--horizon", "7", "--quick"]
    answer = run(benchmarks / "neural_peers.py", *case, "--peers")
    assert answer.returncode == 0, answer.stderr
    rows = rows_of(benchmarks, "neural_peers")
    assert {row["provider"] for row in rows} == {"titans", "ridge"}


def test_long_horizon_takes_any_csv(benchmarks: Path, tmp_path: Path) -> None:
    from titans_ts import load_dataset

    load_dataset("seattle-weather").to_csv(tmp_path / "mine.csv")
    case = ["--dataset", str(tmp_path / "mine.csv"), "--horizon", "7", "--quick"]
    answer = run(benchmarks / "long_horizon.py", *case)
    assert "say how to split the file" in answer.stderr
    answer = run(benchmarks / "long_horizon.py", *case, "--split", "0.6/0.2/0.2", "--context", "14")
    assert answer.returncode == 0, answer.stderr
    assert "mine.csv (0.6/0.2/0.2), look-back 14, quick" in answer.stdout
    assert "ridge" in answer.stdout


def test_long_horizon_finds_the_season_of_a_file(benchmarks: Path, tmp_path: Path) -> None:
    days, noise = np.arange(300), np.random.default_rng(0).normal(0, 0.1, 300)
    y = {"load": np.sin(2 * np.pi * days / 7) + noise, "wind": np.cos(2 * np.pi * days / 7)}
    date = pd.date_range("2020-01-01", periods=300)
    pd.DataFrame({"date": date, **y}).to_csv(tmp_path / "weekly.csv", index=False)
    case = ["--dataset", str(tmp_path / "weekly.csv"), "--split", "0.6/0.2/0.2", "--horizon", "7"]
    answer = run(benchmarks / "long_horizon.py", *case, "--context", "14", "--quick")
    assert answer.returncode == 0, answer.stderr
    rows = [r for r in rows_of(benchmarks, "long_horizon") if r["case"].startswith("weekly.csv")]
    error = {r["provider"]: float(r["value"]) for r in rows if r["metric"] == "MSE"}
    windows = {r["provider"]: int(r["value"]) for r in rows if r["metric"] == "windows"}
    assert error["seasonal naive"] < 0.1 * error["naive"]
    # The noise of a season ago and its own, of one channel in two, in units of its spread.
    assert 0.01 < error["seasonal naive"] < 0.04
    assert len(set(windows.values())) == 1


def test_ili_is_scored_on_the_windows_of_published_figures_too(benchmarks: Path) -> None:
    if not os.environ.get("TITANS_DATA"):
        pytest.skip("needs national_illness.csv in the folder that TITANS_DATA names")
    case = ["--dataset", "ILI", "--context", "36", "--horizon", "24"]
    for script, more in (("long_horizon", ["--seeds", "1"]), ("neural_peers", ["--peers"])):
        answer = run(benchmarks / f"{script}.py", *case, "--quick", *more)
        assert answer.returncode == 0, answer.stderr
        rows = [row for row in rows_of(benchmarks, script) if row["provider"] == "ridge"]
        found = {(row["case"], row["metric"]): float(row["value"]) for row in rows}
        case_of = "ILI, look-back 36{}, horizon 24, quick".format
        every, published = case_of(""), case_of(", whole batches of 16")
        assert found[published, "windows"] == found[every, "windows"] // 16 * 16
        assert found[published, "MSE"] != found[every, "MSE"]


def test_long_series_fits_the_first_rows_and_scores_the_others_beside_floors(
    benchmarks: Path,
) -> None:
    case = ["--dataset", "seattle-weather", "--rows", "1100", "--horizon", "7", "--quick"]
    answer = run(benchmarks / "long_series.py", *case, "--linear")
    assert answer.returncode == 0, answer.stderr
    with (benchmarks / "results" / "long_series.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    errors = {row["provider"]: float(row["value"]) for row in rows if row["metric"] == "MSE"}
    assert set(errors) == {"titans, linear part", "scikit-learn Ridge", "seasonal naive", "naive"}
    assert errors["titans, linear part"] < min(errors["seasonal naive"], errors["naive"])
    assert {row["value"] for row in rows if row["metric"] == "windows"} == {"51"}  # of 361 rows
    costs = {row["metric"] for row in rows if row["unit"] in ("CPU s", "MiB", "ms")}
    assert costs == {"load", "load peak", "fit", "fit peak", "one window"}


def test_dna_accuracy_scores_files_beside_the_floor_and_the_parts(
    benchmarks: Path, tmp_path: Path
) -> None:
    from titans_dna import load_dataset

    windows = load_dataset("chloroplast")
    for part in ("train", "test"):
        windows[windows["split"] == part].to_csv(tmp_path / f"{part}.csv", index=False)
    files = ["--train", str(tmp_path / "train.csv"), "--test", str(tmp_path / "test.csv")]
    for _ in range(2):  # the second time there is nothing left to do
        answer = run(benchmarks / "dna_accuracy.py", *files, "--quick")
        assert answer.returncode == 0, answer.stderr
    assert "1/1" not in answer.stdout
    with (benchmarks / "results" / "dna_accuracy.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    accuracy = {row["provider"]: float(row["value"]) for row in rows if row["metric"] == "accuracy"}
    assert set(accuracy) == {"titans", "its networks alone", "its linear parts alone", "k-mer LR"}
    assert min(accuracy["titans"], accuracy["k-mer LR"]) > 0.6  # of two even classes
    counted = {row["value"] for row in rows if row["metric"] == "test rows"}
    assert counted == {"135"}
