"""What the README shows runs, and what it points to exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def test_the_python_of_the_readme_runs_from_top_to_bottom(tmp_path, monkeypatch):
    blocks = list(re.finditer(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL))
    assert blocks, "README.md shows no python"
    monkeypatch.chdir(tmp_path)  # examples may write files
    monkeypatch.setenv("MPLBACKEND", "Agg")  # and plot, where there is no screen
    namespace = {"__name__": "readme"}
    for block in blocks:
        # Blank lines before the code make a traceback show the line of README.md.
        code = "\n" * README.count("\n", 0, block.start(1)) + block[1]
        exec(compile(code, str(ROOT / "README.md"), "exec"), namespace)


def test_every_make_target_of_the_readme_exists():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    # in code only: after a backtick, or at the start of a line of a code block
    named = set(re.findall(r"(?:`|^ *(?:\$ )?)make ([a-z]+)", README, re.MULTILINE))
    assert {"demo", "test"} <= named
    assert named <= targets


def test_every_file_that_the_readme_links_exists():
    links = re.findall(r"\]\(([^)\s]+)\)", README) + re.findall(r'(?:src|href)="([^"]+)"', README)
    local = [link.split("#")[0] for link in links if not re.match(r"[a-z]+:|#", link)]
    missing = [link for link in local if not (ROOT / link).exists()]
    assert not missing
