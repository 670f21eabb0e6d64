"""Every Triton kernel that can be picked, compiled without a GPU: nothing is spilled.

    python benchmarks/kernel_resources.py            # also writes docs/kernels.md; make kernels
    python benchmarks/kernel_resources.py --json     # prints rows instead, for the tests

For heads of 16 to 128 channels, memories of depth 1 and 2 (expansion 2; the tests add the narrowest
memory of the widest heads), float32 and bfloat16, on sm_80 (A100) and sm_90 (H100, H200), with
every option on: momentum, forgetting to M_0, norm, residual, Huber's loss, write mask. Claims: no
instruction spills, no stack; shared memory within 163 KiB (sm_80) and 227 KiB (sm_90); products on
tensor cores.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.pop("TRITON_INTERPRET", None)  # before triton looks: an interpreted kernel has no code

import triton
from _kernel_resources import resources

from titans_core.ops.chunked_triton.gates import gates_backward_kernel, gates_kernel
from titans_core.ops.chunked_triton.plan import BLOCK_T, LAUNCH, Plan, fitted, warps
from titans_core.ops.chunked_triton.read import read_backward_kernel, read_kernel
from titans_core.ops.chunked_triton.write import write_backward_kernel, write_kernel
from titans_core.ops.triton_support import TRITON_DIMS

DOC = Path(__file__).parent.parent / "docs" / "kernels.md"
# The forward's read, and that of the backward, which keeps what it made.
KERNELS = (
    (write_kernel, {}),
    (read_kernel, {"KEEP": False}),
    (read_kernel, {"KEEP": True}),
    (read_backward_kernel, {}),
    (write_backward_kernel, {}),
)
GATES = (gates_kernel, gates_backward_kernel)  # they see no channels and no memory
CAPABILITIES = (80, 90)
PRECISIONS = {"float32": "tf32x3", "bfloat16": "bf16"}
SHARED_LIMIT = {80: 163 * 1024, 90: 227 * 1024}

TEXT = """# What the Triton kernels need

Written by `make kernels`, from the machine code that Triton {version} makes without a GPU. A
program is one memory (a batch entry's head), or one tile of {tokens} of its tokens. Every option is
on; the memory of two layers has expansion 2. Programs: how many a multiprocessor can hold at most.
None of these spills a register or has a stack. `read_kernel` is the forward's,
`read_kernel, KEEP` that of the backward.

| kernel | inputs | channels | depth | GPU | warps | registers | shared, bytes | programs |
|---|---|---|---|---|---|---|---|---|"""

# Kernel and its constants, dtype, channels, width of what the last layer sees, depth, capability.
Case = tuple[Any, dict[str, bool], str, int, int, int, int]


def cases(dims: tuple[int, ...] = TRITON_DIMS, hidden: int | None = None) -> Iterator[Case]:
    """Every kernel at every shape; ``hidden`` units in place of expansion 2."""
    for capability in CAPABILITIES:
        yield from ((kernel, {}, "float32", 16, 16, 1, capability) for kernel in GATES)
        for dtype in PRECISIONS:
            for dim in dims:
                for depth, width in ((1, dim), (2, hidden or 2 * dim)):
                    for kernel, keep in KERNELS:
                        yield kernel, keep, dtype, dim, width, depth, capability


def measure(case: Case) -> dict[str, Any]:
    """One row: what was compiled, and what its code needs."""
    kernel, keep, dtype, dim, width, depth, capability = case
    plan = Plan(
        D=dim,
        WIDTH=width,
        DEPTH=depth,
        MOMENTUM=True,
        MASK=True,
        REST=True,
        NORM=True,
        HUBER=True,
        RESIDUAL=True,
        GELU=False,
        PRECISION=PRECISIONS[dtype],
    )
    plan = fitted(plan, kernel.__name__)
    constants = {"plan": plan, **keep}
    given = ("q", "k", "v", "g_y", *([] if keep.get("KEEP") else ["y"]))  # in the type of q
    signature = {n: _type(n, dtype, given) for n in kernel.arg_names if n not in constants}
    found = resources(
        kernel,
        signature,
        constants,
        capability=capability,
        num_warps=warps(plan.D),
        aligned=[name for name, kind in signature.items() if kind.startswith("*")],
        **LAUNCH,
    )
    return {
        "kernel": kernel.__name__ + ", KEEP" * keep.get("KEEP", False),
        "dtype": "any" if kernel in GATES else dtype,
        "dim": dim,
        "depth": depth,
        "capability": capability,
        "rows": plan.BLOCK_R,
        **asdict(found),
    }


def _type(name: str, dtype: str, given: tuple[str, ...]) -> str:
    """Triton's type of an argument, as ``op.py`` passes it."""
    if name in given:
        return {"float32": "*fp32", "bfloat16": "*bf16"}[dtype]
    numbers = dict.fromkeys(("T", "H", "tiles", "offset", "chunk_size"), "i32")
    return {"write": "*i1", "huber": "fp32", **numbers}.get(name, "*fp32")


def page(rows: list[dict[str, Any]]) -> str:
    """The table as a page of the documentation."""
    lines = [TEXT.format(version=triton.__version__, tokens=BLOCK_T)]
    for row in rows:
        shape = ("any", "any") if row["dtype"] == "any" else (row["dim"], row["depth"])
        cells = [f"`{row['kernel']}`", row["dtype"], *shape, f"sm_{row['capability']}"]
        cells += [row[name] for name in ("num_warps", "registers", "shared", "occupancy")]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print rows, write nothing")
    parser.add_argument("--dim", type=int, nargs="+", default=[*TRITON_DIMS], choices=TRITON_DIMS)
    parser.add_argument("--hidden", type=int, help="in place of expansion 2; only with --json")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--quick", action="store_true", help="the narrowest heads; writes nothing")
    options = parser.parse_args()
    dims = (16,) if options.quick else tuple(options.dim)
    with ThreadPoolExecutor(options.jobs) as pool:
        rows = list(pool.map(measure, cases(dims, options.hidden if options.json else None)))
    if options.json:
        print(json.dumps(rows))
        return
    spilled = [row for row in rows if row["spills"] or row["stack"]]
    for row in spilled:
        print("spills:", row)
    if spilled:
        raise SystemExit(1)
    print(page(rows))
    if dims == TRITON_DIMS:
        DOC.write_text(page(rows))
        print(f"wrote {DOC}")


if __name__ == "__main__":
    main()
