"""Tidy rows of benchmark results, kept in ``benchmarks/results/<benchmark>.csv``."""

from __future__ import annotations

import csv
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

RESULTS = Path(__file__).parent / "results"
FIELDS = [
    "case",
    "provider",
    "metric",
    "value",
    "unit",
    "seed",
    "device",
    "versions",
    "commit",
    "command",
]


def record(
    benchmark: str, rows: list[dict[str, Any]], device: str | None = None, more_versions: str = ""
) -> Path:
    """Add rows that hold case, provider, metric, value, unit and seed; the rest is filled in.

    Where case, provider, metric and seed agree with an older row, the new one takes its place. The
    device is this CPU unless it is named.
    """
    path = RESULTS / f"{benchmark}.csv"
    path.parent.mkdir(exist_ok=True)
    run = {
        "device": device or f"cpu, {torch.get_num_threads()} threads",
        "versions": f"python {platform.python_version()}, torch {torch.__version__}, "
        f"numpy {np.__version__}{more_versions}",
        "commit": _commit(),
        "command": "python " + shlex.join(sys.argv),
    }
    table = {_key(row): row for row in read(benchmark)}
    for row in rows:
        table[_key(row)] = {**{k: str(v) for k, v in row.items()}, **run}
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table.values())
    return path


def read(benchmark: str) -> list[dict[str, str]]:
    """All rows of a benchmark; none if it has not been run."""
    path = RESULTS / f"{benchmark}.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _key(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[field]) for field in ("case", "provider", "metric", "seed"))


def _commit() -> str:
    """Short hash of the checkout, with a + if there are changes that it does not hold.

    Rows and figures that a benchmark has just written are no changes to what it measures.
    """

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        answer = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=RESULTS.parent
        )
        return answer.stdout.strip()

    changes = git("diff", "--name-only", "HEAD", "--", ":/", ":(exclude,top)benchmarks/results")
    commit = git("describe", "--always", "--exclude=*")
    return f"{commit}+" if commit and changes else commit or "unknown"
