"""Every example runs, says something, and is short."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("[0-9]*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs_and_prints(path: Path, tmp_path: Path) -> None:
    if "ETTh1" in path.read_text("utf-8") and "TITANS_DATA" not in os.environ:
        pytest.skip("needs ETTh1 in the folder that TITANS_DATA names")
    answer = subprocess.run(
        [sys.executable, "-W", "error", path],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "MPLBACKEND": "Agg"},
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert any(character.isdigit() for character in answer.stdout)
    assert path.read_text("utf-8").count("\n") < 80
