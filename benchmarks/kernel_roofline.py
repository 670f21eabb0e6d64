"""What bounds the Triton kernels of the neural memory, and how near to that they come.

    python benchmarks/kernel_roofline.py            # a CPU shows the model, a GPU times beside it
    python benchmarks/kernel_roofline.py --quick    # two cases

Counted from the loops of ``ops/chunked_triton``, with momentum and forgetting toward M_0, at depth
2 with norm and residual; ``tests/test_kernel_roofline.py`` compares with what the interpreter does.
GFLOP are of products ("again": what a kernel had computed already). "Least" bytes bring each
address that a kernel reads and take each that it stores once; "states" of them are W and S at the
edges of tiles, and their gradients. "Written" are all loads and stores of the source, mostly served
by L2. Floor: max(least operations / rate, least bytes / bandwidth). Writing has one program per
memory, so its products have min(B H, SMs) SMs ("seq."); in brackets: if bandwidth, too, came in
that share. Times are medians of 20 runs, one after the other; the fraction is that of the floor of
our kernels, whoever is timed. Layers hold projections, too; fla's TTT has a LayerNorm, no momentum.
"""

from __future__ import annotations

import argparse
import json
import runpy
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import _core_worker
import _record
import torch
from torch import Tensor

OPS = Path(find_spec("titans_core").origin).parent / "ops"  # importing the kernels takes triton
BLOCKS = runpy.run_path(str(OPS / "chunked_triton" / "blocks.py"))
BLOCK_T: int = BLOCKS["BLOCK_T"]
PARTS, SOURCES = 2, 3  # W and S; W, S and M_0
FORWARD, BOTH = "forward", "forward + backward"
OURS, TTT = ("triton", "chunked"), "flash-linear-attention TTT"
PEER = "titans-pytorch 0.5.5 layer"
LAYERS = ("titans_core layer", f"{PEER}, faithful", f"{PEER}, fast default")
# SXM, the A100 with 80 GB: TFLOP/s in bf16 and TF32, dense; TB/s; SMs.
A100, H100, H200 = (312, 156, 2.039, 108), (989, 495, 3.35, 132), (989, 495, 4.8, 132)
GPUS = {"A100": A100, "H100": H100, "H200": H200}


@dataclass(frozen=True)
class Case:
    dim: int
    depth: int
    chunk: int
    dtype: str
    batch: int = 8
    heads: int = 8
    tokens: int = 2048
    expansion: int = 2

    def __str__(self) -> str:
        shape = f"batch {self.batch}, heads {self.heads}, T {self.tokens}, d {self.dim}, "
        return shape + f"depth {self.depth}, chunk {self.chunk}, {self.dtype}"


CASES = [Case(*x) for x in product((32, 64, 128), (1, 2), (16, 64), ("bfloat16", "float32"))]
QUICK = [Case(64, 1, 64, "bfloat16"), Case(64, 2, 64, "bfloat16")]


@dataclass(frozen=True)
class Cost:
    """Of a kernel: multiply-adds and bytes."""

    kernel: str
    products: float
    again: float  # of these
    exact: float  # products that are tf32x3 always
    least: float
    states: float  # of these
    written: float

    def floor(self, case: Case, gpu: str) -> tuple[float, str, float]:
        """Seconds, what binds, and seconds if a share of the SMs had no more of the bandwidth."""
        bf16, tf32, bandwidth, processors = GPUS[gpu]
        share = min(case.batch * case.heads / processors, 1) if "write" in self.kernel else 1
        rate = bf16 if case.dtype == "bfloat16" else tf32 / 3  # three products make one
        work = 2e-12 * ((self.products - self.again) / rate + self.exact / (tf32 / 3))
        move = 1e-12 * self.least / bandwidth
        binds = "HBM" if move > work / share else "products" if share == 1 else "seq."
        return max(work / share, move), binds, max(work, move) / share


def costs(case: Case) -> dict[str, list[Cost]]:
    """Of the kernels of a pass. Terms stand in the order of the kernel's source, for one tile."""
    D, L, H, N, deep = case.dim, case.depth, case.heads, case.batch * case.heads, case.depth == 2
    W, b, half = D * case.expansion if deep else D, BLOCK_T, case.dtype == "bfloat16"
    whole, left = divmod(case.tokens, case.chunk)
    tiles, chunks = whole * -(-case.chunk // b) + -(-left // b), whole + (left > 0)
    X, near, far = b * D * W, b * b * D, b * b * W  # tokens with a layer, with tokens D or W wide
    tok, wide, hid = b * D * (2 if half else 4), b * D * 4, b * W * 4  # inputs, float32 rows
    layer, norm = D * W * 4, D * 4 * deep  # norm: gain or bias, where there is one
    slow, fast, per_head = L * layer, PARTS * L * layer, H * (L * layer + 2 * norm)
    gates, shares, pairs, sums = 3 * b * 4, (2 * b + 3) * 4, b * b * 4, 2 * b * 4

    def of(kernel: str, least: float, states: float, written: float, again: float = 0,
           products: float = 0, exact: float = 0) -> Cost:  # fmt: skip
        work = [tiles * N * x for x in (products, again, exact, least, written)]
        return Cost(kernel, *work[:3], least=work[3] + states, states=states, written=work[4])

    def blocks(kernel: str) -> int:
        return W // min(BLOCKS["blocks"](kernel, D, "bf16" if half else "tf32x3").rows, W)

    def key_block(n: int) -> int:  # for each of n blocks of W_1 all keys
        return n * tok + layer if deep else tok

    def read(keep: bool) -> Cost:
        n = blocks("read_kernel")
        return of(
            "read_kernel" + " KEEP" * keep, exact=b**3,  # read_gates
            products=keep * L * X + near  # key_product; compare q, k
            + deep * (X + X + SOURCES * X + far)  # in the loop: key_block, delta_block, read_first
            + far + SOURCES * X + near,  # in the loop: scores, read_last; after it: with errors
            again=keep * X if deep else near,  # key_block; at depth 1, scores are what was compared
            # q, k, deltas; v and the KEEP stores, or y
            least=gates + 2 * tok + wide + tok + keep * (2 * wide + (2 * L - 1) * hid + pairs),
            states=N * (tiles * fast + (deep or keep) * slow) + per_head,  # with the first anchor
            written=gates + keep * (key_block(n) + layer + 2 * tok + 2 * norm + 2 * wide)
            + 2 * tok + key_block(n)  # compare; in the loop:
            + (n * wide + layer + SOURCES * (n * tok + layer) if deep else tok)  # up to h
            + keep * (2 * L - 1) * hid + SOURCES * layer  # stores, read_last
            + wide + (pairs + wide if keep else 2 * norm + deep * tok + tok),  # errors; y
        )  # fmt: skip

    n = blocks("write_kernel")
    write = of(
        "write_kernel", again=deep * X,  # key_block
        # key_product; in the loop: key_block, delta_block, write_block of each layer
        products=L * X + deep * (X + X) + L * PARTS * X,
        least=shares + 2 * tok + wide,  # k, v; deltas
        states=N * (tiles * fast + fast + slow) + per_head,  # stores; start, first anchor
        written=shares + key_block(n) + layer + 2 * tok + 2 * norm + wide  # up to deltas
        + key_block(n) + deep * (n * wide + layer + n * tok)  # in the loop: up to k
        + n * wide + L * (SOURCES + PARTS) * layer,  # errors; write_block, in and out
    )  # fmt: skip
    n = blocks("read_backward_kernel")
    read_backward = of(
        "read_backward_kernel", exact=b**3,  # read_gates
        products=near + near  # g_delta, g_weighted
        + SOURCES * 2 * X + far + far  # first loop: read_block_backward, g_h, g_a
        + deep * (near + 2 * far + SOURCES * 3 * X)  # compare; second loop: with W, twice, and g_W
        + deep * 2 * near,  # g_q, g_k
        again=deep * SOURCES * X,  # second loop: g_beta has its sum in n W, too, as n W . w
        least=gates + tok + (1 + deep) * wide + pairs + 2 * wide  # g_y, y in and out, up to g_delta
        + L * tok + 2 * (2 * L - 1) * hid + L * wide  # q, k; hidden in and out; g_q, g_k
        + 2 * norm + pairs + sums,  # g_gain, g_bias, g_G, g_read
        states=N * tiles * (2 * fast + slow) + per_head - H * norm,  # fast, g_fast, g_rest
        written=gates + tok + deep * wide + 3 * norm + wide + pairs + wide + 2 * wide  # to compare
        + (hid if deep else tok) + SOURCES * 2 * (n * wide + layer)  # first loop: z_1, the block
        + 2 * hid + (hid if deep else wide)  # a and g_a, g_z_1 or g_q
        + deep * (2 * tok + 3 * hid + SOURCES * (2 * n * tok + 3 * layer))  # to second loop's end
        + deep * (3 * tok + 2 * wide) + pairs + sums,
    )  # fmt: skip
    n = blocks("write_backward_kernel")
    add = 2 * layer  # in and out
    block = PARTS * 2 * layer + 3 * add  # write_block_backward: project, g_delta; adds for W, S, S
    write_backward = of(
        "write_backward_kernel",
        products=deep * X + PARTS * 2 * X  # first loop: key_block, write_block_backward
        + deep * (X + X + PARTS * 2 * X + X + X)  # second: with delta_block, g_errors, g_anchor
        + deep * X + X + X + deep * (X + X),  # third: key_block; of each layer g_anchor, g_a
        again=deep * 2 * X,  # key_block
        least=shares + 2 * tok + 2 * wide + 2 * wide  # k, v; deltas, products; g_delta in and out
        + (1 + L) * hid + sums + 3 * wide,  # hidden; g_write; g_v, g_k in and out
        # g_fast in and out; anchors; g_anchor, g_gain and g_bias in and out
        states=N * ((2 * tiles + 1) * fast + (chunks + 2) * slow + 4 * norm) + per_head - H * slow,
        written=shares + key_block(n) + PARTS * n * wide + block + n * 2 * wide + 2 * hid
        + deep * (key_block(n) + n * wide + layer + PARTS * n * tok + block)  # second loop: block
        + deep * (n * 2 * wide + 3 * hid + layer + n * 2 * wide + n * wide + add)  # its rest
        + sums + wide + 2 * tok + wide + 3 * norm  # surprise_backward
        + wide + 4 * norm + wide + deep * 2 * wide  # g_z, g_gain and g_bias, g_v, g_keys
        + key_block(n) + n * wide + add + n * wide + layer + hid  # third loop: up to g_through
        + (layer + n * 2 * wide + n * tok + add if deep else 2 * wide)
        + (chunks - 1) / tiles * 2 * L * add,  # where a chunk begins
    )  # fmt: skip
    # _of_ends: g_W with W and M_0, S with g_W and g_S; g_rest: its sum, and ends with g_W
    between = of("torch between", 0, N * tiles * (2 * fast + slow), written=7 * slow + 2 * slow)
    back = gates + pairs + sums + sums + 3 * 4 + gates  # g_G, g_read, g_write, g_ends; out
    first = of("gates_kernel", gates + shares, 0, gates + shares, exact=b**3)  # read_gates
    final = of("gates_backward_kernel", back, 0, back, exact=2 * b**3)  # g_Dw, g_E_theta
    forward = [first, write, read(keep=False)]
    after = [first, read(keep=True), read_backward, write_backward, between, final]
    return {FORWARD: forward, BOTH: forward + after}


def show(case: Case) -> None:
    def line(name: str, parts: list[Cost]) -> None:
        flops = sum(c.products + c.exact for c in parts), sum(c.again for c in parts)
        moved = (sum(getattr(c, x) for c in parts) for x in ("least", "states", "written"))
        cells = [f"{2e-9 * x:.2f}" for x in flops] + [f"{1e-6 * x:.1f}" for x in moved]
        for gpu in GPUS:
            floors, binds, shared = zip(*(c.floor(case, gpu) for c in parts), strict=True)
            both = f"{1e6 * sum(floors):.1f} ({1e6 * sum(shared):.1f})"
            cells.append(f"{both} {'+'.join(dict.fromkeys(binds))}")
        print(" | ".join([name, *cells]))

    heads = ["GFLOP", "again", "MB least", "states", "written", *(f"{gpu}, us" for gpu in GPUS)]
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
