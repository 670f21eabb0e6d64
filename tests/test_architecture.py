"""Imports go one way, and importing changes nothing: the layers of the house, enforced."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.util import resolve_name
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("titans_core", "titans_ts", "titans_dna")
FORBIDDEN = {
    "titans_core": {"titans_ts", "titans_dna", "pandas", "polars", "sklearn"},
    "titans_ts": {"titans_dna"},
    "titans_dna": {"titans_ts"},
}


def imported_modules(source: str, package: str) -> set[str]:
    """Every module that the source imports: at the top, lazily, relatively, by a string."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                found |= {alias.name for alias in names}
            case ast.ImportFrom(module=module, names=names, level=level):
                base = resolve_name("." * level + (module or ""), package)
                # `from package import x` imports the module package.x, if x is one
                found |= {base} | {f"{base}.{alias.name}" for alias in names}
            case ast.Call(
                func=ast.Name(id="__import__" | "import_module")
                | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                found.add(resolve_name(name, package))
    return found


def violations(path: str, source: str) -> list[str]:
    """Imports of the file at `path` (relative to the root) that break the layers."""
    file = PurePosixPath(path)
    ops = file.is_relative_to("titans_core/ops")
    broken = []
    for module in sorted(imported_modules(source, ".".join(file.parent.parts))):
        top = module.split(".")[0]
        in_ops = module == "titans_core.ops" or module.startswith("titans_core.ops.")
        allowed_in_ops = in_ops or top in {"torch", "triton"} or top in sys.stdlib_module_names
        if (
            top in {"tests", "examples", "benchmarks"} | FORBIDDEN[file.parts[0]]
            or (top == "triton" and file.parent.name != "chunked_triton")
            or (ops and not allowed_in_ops)
        ):
            broken.append(f"{path} imports {module}")
    return broken


def run_python(code: str) -> str:
    """Run code in a fresh interpreter that finds this checkout; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_imports_go_one_way():
    files = [file.relative_to(ROOT) for name in PACKAGES for file in (ROOT / name).rglob("*.py")]
    assert len(files) >= len(PACKAGES)
    broken = [v for f in files for v in violations(f.as_posix(), (ROOT / f).read_text("utf-8"))]
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize(
    ("path", "source", "offender"),
    [
        ("titans_core/ops/chunked.py", "import numpy as np", "numpy"),
        ("titans_core/ops/chunked.py", "from ..config import Config", "titans_core.config"),
        ("titans_core/ops/chunked.py", "import triton.language as tl", "triton.language"),
        ("titans_core/blocks.py", "def f():\n    import pandas", "pandas"),
        ("titans_core/blocks.py", "__import__('polars')", "polars"),
        (
            "titans_core/blocks.py",
            "import importlib\nimportlib.import_module('sklearn')",
            "sklearn",
        ),
        ("titans_ts/forecaster.py", "from titans_dna import fasta", "titans_dna.fasta"),
        ("titans_dna/classifier.py", "if TYPE_CHECKING:\n    import titans_ts", "titans_ts"),
        ("titans_ts/cli.py", "from benchmarks import long_horizon", "benchmarks.long_horizon"),
    ],
)
def test_the_checker_sees_a_broken_layer(path, source, offender):
    assert f"{path} imports {offender}" in violations(path, source)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("titans_core/ops/chunked.py", "import math, torch\nfrom .reference import step"),
        ("titans_core/ops/chunked_triton/read.py", "import triton"),
        ("titans_core/blocks.py", "from . import ops\nfrom lightning_fabric import Fabric"),
        ("titans_ts/frames.py", "import pandas, polars, titans_core"),
    ],
)
def test_the_checker_lets_a_sound_layer_pass(path, source):
    assert violations(path, source) == []


def test_importing_the_core_brings_no_triton_and_no_data_frames():
    # Only the difference to torch counts: a torch with triton installed may import it by itself.
    brought = run_python(
        "import sys, torch; before = set(sys.modules); from titans_core import *;"
        "print(*{name.split('.')[0] for name in set(sys.modules) - before})"
    ).split()
    assert "titans_core" in brought
    assert not {"triton", "pandas", "polars", "sklearn"} & set(brought)


def test_importing_leaves_the_process_as_it_was_found():
    # torch and numpy set up themselves; only what is changed on top of that is ours.
    printed = run_python("""
import os, random, warnings
import numpy, torch

def process():
    kind, keys, *rest = numpy.random.get_state()
    return {
        "default dtype": torch.get_default_dtype(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "torch generator": torch.get_rng_state().tolist(),
        "numpy generator": (kind, keys.tolist(), rest),
        "random generator": random.getstate(),
        "warning filters": list(warnings.filters),
        "environment": dict(os.environ),
    }

before = process()
import titans_core, titans_ts
from titans_ts import TitansForecaster, load_dataset
after = process()
changed = [key for key in before if before[key] != after[key]]
assert not changed, f"importing titans_core and titans_ts changed: {changed}"
""")
    assert printed == ""
