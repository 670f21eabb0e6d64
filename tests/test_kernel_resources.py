"""What the compiler makes of the Triton kernels for A100 and H100, without either."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")
ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "benchmarks" / "kernel_resources.py"
SHARED = {80: 163 * 1024, 90: 227 * 1024}


@pytest.mark.parametrize("dim", [16, 32, 64, 128])
def test_every_kernel_that_can_be_picked_is_healthy(dim: int) -> None:
    rows = compiled(dim)
    assert_healthy(rows)
    documented = (ROOT / "docs" / "kernels.md").read_text()
    for row in rows:
        if row["dtype"] != "any":
            assert f"| `{row['kernel']}` | {row['dtype']} | {dim} | {row['depth']} |" in documented


def test_the_widest_heads_of_the_narrowest_memory_are_healthy() -> None:
    assert_healthy(compiled(128, "--hidden", "32"))


def assert_healthy(rows: list[dict[str, Any]]) -> None:
    assert len(rows) == 2 * (2 + 2 * 2 * 5)  # sm_80, sm_90; gates; dtypes, depths, kernels
    assert [row for row in rows if row["spills"] or row["stack"]] == []
    assert all(row["shared"] <= SHARED[row["capability"]] for row in rows)
    assert all(row["occupancy"] >= 1 for row in rows)
    assert all(row["tensor_core"] > 0 for row in rows)


def compiled(dim: int, *options: str) -> list[dict[str, Any]]:
    """Rows of ``kernel_resources.py``, in a process that interprets nothing."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, str(SCRIPT), "--json", "--dim", str(dim), "--jobs", "2", *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found
