"""What bounds the Triton kernels of the neural memory, and how near to that they come.

    python benchmarks/kernel_roofline.py            # a CPU shows the model, a GPU times beside it
    python benchmarks/kernel_roofline.py --quick    # two cases

The model is in ``_kernel_costs.py``. GFLOP are of products; "again" are those of them that a kernel
repeats, which no floor counts. MB are what must come and go; "states" of them are W and S at the
edges of tiles, and their gradients. Floor: max(operations / rate, bytes / bandwidth). Writing has
one program per memory, so its products have min(B H, SMs) SMs ("seq."); in brackets: if bandwidth,
too, came in that share. Times are medians of 20 runs, one after the other; the fraction is that of
the floor of our kernels, whoever is timed. Layers hold projections, too; fla's TTT has a LayerNorm,
no momentum.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from importlib import import_module
from itertools import pairwise, product
from typing import Any

import _core_worker
import _record
import torch
from _kernel_costs import BOTH, FORWARD, GPUS, Case, Cost, costs
from torch import Tensor

OURS, TTT = ("triton", "chunked"), "flash-linear-attention TTT"
PEER = "titans-pytorch 0.5.5 layer"
LAYERS = ("titans_core layer", f"{PEER}, faithful", f"{PEER}, fast default")
CASES = [Case(*x) for x in product((32, 64, 128), (1, 2), (16, 64), ("bfloat16", "float32"))]
QUICK = [Case(64, 1, 64, "bfloat16"), Case(64, 2, 64, "bfloat16")]


def show(case: Case) -> None:
    def line(name: str, parts: list[Cost]) -> None:
        flops = sum(c.products + c.exact for c in parts), sum(c.again for c in parts)
        moved = (sum(getattr(c, x) for c in parts) for x in ("least", "states"))
        cells = [f"{2e-9 * x:.2f}" for x in flops] + [f"{1e-6 * x:.1f}" for x in moved]
        for gpu in GPUS:
            floors, binds, shared = zip(*(c.floor(case, gpu) for c in parts), strict=True)
            both = f"{1e6 * sum(floors):.1f} ({1e6 * sum(shared):.1f})"
            cells.append(f"{both} {'+'.join(dict.fromkeys(binds))}")
        print(" | ".join([name, *cells]))

    heads = ["GFLOP", "again", "MB", "states", *(f"{gpu}, us" for gpu in GPUS)]
    print(" | ".join([f"\n{case}\nkernel", *heads]))
    passes = costs(case)
    for cost in passes[BOTH]:
        line(cost.kernel, [cost])
    for name, parts in passes.items():
        line(name, parts)
        line(f"{name}, no states", [replace(c, least=c.least - c.states, states=0) for c in parts])


def build(provider: str, case: Case) -> tuple[Callable[[], Any], list[Tensor]]:
    """A forward, and the tensors to differentiate it by."""
    D, H, half, deep = case.dim, case.heads, getattr(torch, case.dtype), case.depth == 2

    def leaf(*shape: int, mean: float = 0, std: float = 0, dtype: Any = torch.float32) -> Tensor:
        return (mean + std * torch.randn(*shape, device="cuda")).to(dtype).requires_grad_()

    if "layer" in provider:
        shape = {"dim": H * D, "heads": H, "chunk": case.chunk, "expansion": case.expansion}
        module = _core_worker.build(provider, faithful="faithful" in provider, **shape)
        x = leaf(case.batch, case.tokens, H * D, std=0.5, dtype=half)
        return partial(module.to("cuda", half), x), [x, *module.parameters()]
    tokens = (case.batch, case.tokens, H)
    qkv = [leaf(*tokens, D, std=D**-0.5, dtype=half) for _ in range(3)]  # keys of about unit length
    if provider == TTT:
        ttt = import_module("fla.ops.ttt").chunk_ttt_linear
        slow = [leaf(H, D, mean=x, dtype=half) for x in (1, 0)]
        slow.append(leaf(*tokens, 1, mean=0.5 / case.chunk, dtype=half))
        return partial(ttt, *qkv, *slow, chunk_size=case.chunk), [*qkv, *slow]
    gates = [leaf(*tokens, mean=x) for x in (0.05 / case.chunk, 0.9, 0.01)]
    widths = [D, *[case.expansion * D] * (case.depth - 1), D]
    start = [leaf(H, i, o, std=i**-0.5) for i, o in pairwise(widths)]
    norm = [leaf(H, D, mean=x) for x in (1, 0)] if deep else []
    options = {"residual": deep, "norm": tuple(norm) or None, "forget_toward": "initial"}
    run = partial(import_module("titans_core.ops").neural_memory, *qkv, *gates, start, **options)
    leaves = [*qkv, *gates, *start, *norm]
    return partial(run, chunk_size=case.chunk, implementation=provider), leaves


def milliseconds(run: Callable[[], Any]) -> float:
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(4 + 21)]  # 4 runs warm up
    for mark in marks:
        run()
        mark.record()
    torch.cuda.synchronize()
    return statistics.median(a.elapsed_time(b) for a, b in pairwise(marks[4:]))


def measure(case: Case, gpu: str | None) -> list[dict[str, Any]]:
    rows = []
    for provider in (*OURS, *(LAYERS if case.depth == 2 else [TTT])):
        try:
            run, leaves = build(provider, case)
            g_y = torch.randn_like(run()[0])
            with torch.no_grad():
                times = {FORWARD: milliseconds(run)}
            grad = partial(torch.autograd.grad, inputs=leaves, grad_outputs=g_y, allow_unused=True)
            times[BOTH] = milliseconds(lambda run=run, grad=grad: grad(run()[0]))
        except Exception as error:
            if provider in OURS:
                raise
            print(f"{provider} is left out: {type(error).__name__}: {str(error)[:200]}")
            continue
        found = [(name, value, "ms") for name, value in times.items()]
        for name in times if gpu else ():
            floor = sum(cost.floor(case, gpu)[0] for cost in costs(case)[name])
            found.append((f"{name}, fraction of floor", 1e3 * floor / times[name], "1"))
        for metric, x, unit in found:
            print(f"{case} | {provider} | {metric} | {x:.4g} {unit}", flush=True)
            row = {"case": case, "provider": provider, "metric": metric, "value": f"{x:.4g}"}
            rows.append({**row, "unit": unit, "seed": 0})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two cases")
    parser.add_argument("--only", default="", help="cases with this in their name")
    options = parser.parse_args()
    cases = [case for case in (QUICK if options.quick else CASES) if options.only in str(case)]
    for case in cases:
        show(case)
    if not torch.cuda.is_available():
        print("\nThere is no GPU here: nothing was measured, and nothing recorded.")
        return
    device = torch.cuda.get_device_name()
    gpu = next((name for name in GPUS if name in device), None)
    rows = [row for case in cases for row in measure(case, gpu)]
    path = _record.record("kernel_roofline", rows, device=device)
    model = [{"case": str(case), **asdict(x)} for case in cases for x in costs(case)[BOTH]]
    found = {"model": model, "rows": _record.read("kernel_roofline")}
    path.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
