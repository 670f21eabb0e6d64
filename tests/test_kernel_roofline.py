"""The model of ``benchmarks/_kernel_costs.py`` against what the interpreted kernels do."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from memory_inputs import random_inputs

from titans_core.ops import neural_memory

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
Counts = dict[str, dict[str, float]]
STATES = ("fast", "rest", "g_fast", "g_rest", "g_anchor")


@pytest.fixture
def roofline(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("kernel_roofline")


@pytest.fixture
def model(roofline: ModuleType) -> ModuleType:
    return importlib.import_module("_kernel_costs")


class Counter:
    """Listens to Triton's interpreter while kernels run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from triton.runtime.interpreter import InterpreterBuilder

        from titans_core.ops.chunked_triton.launch import Launch

        self.found: Counts = {}
        self.now: dict[str, float] = defaultdict(float)
        self.touched: dict[str, set[int]] = {}
        self.states: list[tuple[int, int]] = []
        originals = {
            name: getattr(InterpreterBuilder, name)
            for name in ("create_dot", "create_masked_load", "create_masked_store")
        }
        start = Launch._start

        def create_dot(builder: Any, a: Any, b: Any, *others: Any) -> Any:
            self.now["products"] += a.data.shape[0] * a.data.shape[1] * b.data.shape[1]
            return originals["create_dot"](builder, a, b, *others)

        def create_masked_load(builder: Any, at: Any, mask: Any, *others: Any) -> Any:
            self._touch("read", at, mask)
            return originals["create_masked_load"](builder, at, mask, *others)

        def create_masked_store(builder: Any, at: Any, value: Any, mask: Any, *others: Any) -> Any:
            self._touch("stored", at, mask)
            return originals["create_masked_store"](builder, at, value, mask, *others)

        def starting(launch: Any, kernel: Any, programs: int, tensors: Any, constants: Any) -> None:
            known = {**launch.tensors, **tensors}
            states = [x for name in STATES if (x := known.get(name)) is not None]
            self.states = [(x.data_ptr(), x.data_ptr() + x.nbytes) for x in states]
            self.now, self.touched = defaultdict(float), {"read": set(), "stored": set()}
            start(launch, kernel, programs, tensors, constants)
            name = kernel.__name__ + " KEEP" * constants.get("KEEP", False)
            assert name == "gates_kernel" or name not in self.found
            self.found[name] = self.now

        for replacement in (create_dot, create_masked_load, create_masked_store):
            monkeypatch.setattr(InterpreterBuilder, replacement.__name__, replacement)
        monkeypatch.setattr(Launch, "_start", starting)

    def _touch(self, how: str, at: Any, mask: Any) -> None:
        size = at.get_element_ty().primitive_bitwidth // 8
        addresses = np.asarray(at.data)[np.broadcast_to(mask.data, np.shape(at.data))]
        new = set(addresses.ravel().tolist()) - self.touched[how]
        if how == "read":  # what the kernel stored itself need not be brought
            new -= self.touched["stored"]
        self.touched[how] |= new
        self.now["least"] += size * len(new)
        of_states = (x for x in new if any(begin <= x < end for begin, end in self.states))
        self.now["states"] += size * sum(1 for _ in of_states)


def counted(monkeypatch: pytest.MonkeyPatch, case: Any) -> Counts:
    pytest.importorskip("triton")
    from titans_core.ops.chunked_triton.pieces import INTERPRETED

    if not INTERPRETED:
        pytest.skip("counts what the interpreter does, which is off where there is a GPU")
    deep = case.depth == 2
    inputs = random_inputs(
        case.tokens,
        depth=case.depth,
        norm=deep,
        batch=case.batch,
        heads=case.heads,
        dim=case.dim,
        hidden=case.expansion * case.dim,
        dtype=torch.float32,
    )
    inputs = {name: x for name, x in inputs.items() if x is not None}
    half = {name: inputs[name].to(getattr(torch, case.dtype)) for name in "qkv"}
    options: dict[str, Any] = {"chunk_size": case.chunk, "residual": deep}
    counter = Counter(monkeypatch)
    y, _ = neural_memory(
        **(inputs | half), **options, forget_toward="initial", implementation="triton"
    )
    y.sum().backward()
    return counter.found


@pytest.mark.parametrize(
    ("dim", "depth", "chunk", "dtype"),
    [(16, 2, 32, "float32"), (16, 2, 16, "bfloat16"), (32, 1, 48, "bfloat16")],
)
def test_the_formulas_count_what_the_kernels_do(
    model: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    dim: int,
    depth: int,
    chunk: int,
    dtype: str,
) -> None:
    case = model.Case(dim, depth, chunk, dtype, batch=2, heads=1, tokens=32)
    found = counted(monkeypatch, case)
    passes = model.costs(case)
    expected = {cost.kernel: cost for cost in passes["forward + backward"]}
    assert set(found) == set(expected) - {"torch between"}
    for kernel, now in found.items():
        cost = expected[kernel]
        assert now["products"] == cost.products + cost.exact, kernel
        assert now["least"] == cost.least, kernel
        assert now["states"] == cost.states, kernel


@pytest.mark.parametrize("depth", [1, 2])
def test_what_must_be_multiplied_is_what_the_equations_say(model: ModuleType, depth: int) -> None:
    case = model.Case(64, depth, 64, "bfloat16")
    of = {cost.kernel: cost for cost in model.costs(case)["forward"]}
    every = case.batch * case.heads * case.tokens
    first = 64 * 64 * (case.expansion if depth == 2 else 1)
    p, c = depth * first, 2 * 64 + (depth - 1) * 2 * 128  # c: d_in + d_out of all layers
    # The table of section 9 in ops/README.md; reading makes the first layer's deltas once more.
    writing = p + (p - first) + 2 * p
    reading = 3 * p + model.BLOCK_T * c + 2 * (p - first)
    needed = {name: cost.products - cost.again for name, cost in of.items()}
    assert needed["write_kernel"] == every * writing
    assert needed["read_kernel"] == every * reading


def test_what_is_not_kept_is_written_again(model: ModuleType) -> None:
    tile = 2 * 2 * 64 * 128 * 4  # W and S of two layers
    tokens = 16 * model.KEPT_BYTES // tile  # with one memory and whole tiles, all that is kept
    for more, times in ((0, 1), (16, 2)):
        case = model.Case(64, 2, 16, "float32", batch=1, heads=1, tokens=tokens + more)
        names = [cost.kernel for cost in model.costs(case)["forward + backward"]]
        assert names.count("write_kernel") == times


def test_costs_grow_with_the_stream_and_parts_are_no_more_than_the_whole(
    roofline: ModuleType,
) -> None:
    for case in roofline.CASES:
        longer = replace(case, tokens=2 * case.tokens)
        for name, parts in roofline.costs(case).items():
            later = {more.kernel: more for more in roofline.costs(longer)[name]}
            for cost in parts:
                more = later[cost.kernel]
                assert 0 <= cost.again < max(cost.products, 1)
                assert 0 <= cost.states <= cost.least
                for field in fields(cost)[1:]:
                    a, b = getattr(cost, field.name), getattr(more, field.name)
                    assert b > a or a == b == 0
                for gpu in roofline.GPUS:
                    seconds, binds, shared = cost.floor(case, gpu)
                    assert 0 < seconds <= shared
                    assert seconds < more.floor(longer, gpu)[0]
                    assert binds in {"HBM", "products", "seq."}


def test_only_as_many_processors_write_as_there_are_memories(model: ModuleType) -> None:
    cost = model.Cost("write_kernel", products=1e12, again=0, exact=0, least=1, states=0)
    lone, many = (model.Case(64, 1, 16, "bfloat16", batch=n, heads=1) for n in (1, 1000))
    assert cost.floor(lone, "H100")[:2] == (pytest.approx(132 * 2 / 989), "seq.")
    assert cost.floor(many, "H100")[:2] == (pytest.approx(2 / 989), "products")
    assert replace(cost, kernel="read_kernel").floor(lone, "H100")[0] == pytest.approx(2 / 989)
    assert replace(cost, least=4.8e12).floor(many, "H200") == (1, "HBM", 1)


def test_without_a_gpu_it_prints_the_model_and_records_nothing(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("results")
    folder = Path(shutil.copytree(BENCHMARKS, tmp_path / "benchmarks", ignore=ignored))
    answer = subprocess.run(
        [sys.executable, "kernel_roofline.py", "--quick"],
        cwd=folder,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert "nothing was measured" in answer.stdout
    assert answer.stdout.count("write_backward_kernel") == 2
    assert not (folder / "results").exists()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="measures on a GPU")
@pytest.mark.parametrize("depth", [1, 2])
def test_with_a_gpu_it_measures_both_of_our_implementations(
    roofline: ModuleType, depth: int
) -> None:
    rows = roofline.measure(roofline.Case(16, depth, 16, "bfloat16", tokens=64), "H100")
    ours = [row for row in rows if row["provider"] in {"triton", "chunked"}]
    assert len(ours) == 2 * 2 * 2  # implementations, passes, time and fraction
    assert all(float(row["value"]) > 0 for row in rows)


def test_rows_name_the_device_that_they_were_measured_on(
    roofline: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    record = importlib.import_module("_record")
    monkeypatch.setattr(record, "RESULTS", tmp_path / "results")
    row = {"provider": "a", "metric": "forward", "value": 1, "unit": "ms", "seed": 0}
    record.record("some", [{"case": "on a GPU", **row}], device="NVIDIA H200")
    record.record("some", [{"case": "here", **row}])
    there, here = record.read("some")
    assert there["device"] == "NVIDIA H200"
    assert here["device"].startswith("cpu, ")
