"""What the machine code of a Triton kernel needs, from compiling it ahead of time: no GPU needed.

Registers and the stack are what ``cuobjdump`` reads from the binary, spills and tensor core
instructions are counted in what ``nvdisasm`` makes of it, and the shared memory is what Triton will
ask for at the launch. The compiler and both tools come with Triton; its disk cache is used.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

# Per multiprocessor, the same on both: 64 warps of 32 threads, 32 programs and 65,536 registers,
# given to warps by 256, a quarter of them to each of its four schedulers.
WARPS, PROGRAMS, REGISTERS, REGISTER_UNIT, SCHEDULERS = 64, 32, 65_536, 256, 4
SHARED = {80: 164 * 1024, 90: 228 * 1024}  # bytes, in units of 128
SHARED_RESERVED, SHARED_UNIT = 1024, 128  # the system's part of what a program takes
INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?\w+\s+)?([A-Z][A-Z0-9]*)")


@dataclass(frozen=True)
class Resources:
    """What one program of a compiled kernel needs.

    Attributes
    ----------
    registers : int
        Registers per thread.
    stack : int
        Bytes of local memory per thread, where registers are spilled to.
    spills : int
        Instructions that store to or load from it (``STL``, ``LDL``), however often they run.
    shared : int
        Bytes of shared memory.
    tensor_core : int
        Matrix instructions of the tensor cores (``HMMA``, on sm_90 ``HGMMA``, too).
    num_warps : int
        Warps of 32 threads.
    occupancy : int
        Upper bound on the programs that one multiprocessor can hold; 0 if it cannot be launched.
    """

    registers: int
    stack: int
    spills: int
    shared: int
    tensor_core: int
    num_warps: int
    occupancy: int


def occupancy(registers: int, shared: int, num_warps: int, *, capability: int) -> int:
    """How many programs one multiprocessor can hold."""
    per_warp = -(-32 * registers // REGISTER_UNIT) * REGISTER_UNIT
    warps = min(WARPS, SCHEDULERS * (REGISTERS // SCHEDULERS // max(per_warp, 1)))
    per_program = -(-shared // SHARED_UNIT) * SHARED_UNIT + SHARED_RESERVED
    return min(PROGRAMS, warps // num_warps, SHARED[capability] // per_program)


def resources(
    kernel: JITFunction[Any],
    signature: dict[str, str],
    constants: dict[str, Any],
    *,
    capability: int,
    num_warps: int,
    num_stages: int = 1,
    maxnreg: int | None = None,
    enable_fp_fusion: bool = True,
    aligned: Collection[str] = (),
) -> Resources:
    """Compile a kernel for a GPU that need not be there, and read what its machine code needs.

    Parameters
    ----------
    kernel : JITFunction
        A function under ``triton.jit``; it may call others.
    signature : dict
        The Triton type of each argument that is not in ``constants``: "*bf16", "i32", "fp32".
    constants : dict
        The value of each argument fixed at compile time: every ``tl.constexpr``, an optional
        pointer left out (None) and, as a launch would have it, an integer that is 1.
    capability : int
        80 (A100) or 90 (H100).
    num_warps, num_stages, maxnreg, enable_fp_fusion : int
        As for a launch. Where 255 registers do not suffice, ptxas may settle for 32 and spill the
        rest, unless maxnreg=255 tells it that more programs at a time are not wanted.
    aligned : collection of str
        The arguments that are multiples of 16, as a launch finds out by itself: pointers (all that
        PyTorch allocates), most strides and sizes.

    Raises
    ------
    RuntimeError
        If Triton is in interpreter mode (``TRITON_INTERPRET``), which compiles nothing.
    """
    if triton.knobs.runtime.interpret or not isinstance(kernel, JITFunction):
        raise RuntimeError("need a function under triton.jit, defined without TRITON_INTERPRET")
    if capability not in SHARED:
        raise ValueError(f"capability must be 80 or 90, not {capability}")
    names = kernel.arg_names
    given = [*signature, *constants]
    if sorted(given) != sorted(names) or not set(aligned) <= set(signature):
        raise ValueError(f"{kernel.__name__} takes {names}; given {given}, aligned {[*aligned]}")
    # Constants must be in the signature: Triton's cache key tells them apart by their place there.
    source = ASTSource(
        fn=kernel,
        signature={name: signature.get(name, "constexpr") for name in names},
        constexprs=constants,
        attrs={(i,): [["tt.divisibility", 16]] for i, n in enumerate(names) if n in aligned},
    )
    compiled = triton.compile(
        source,
        target=GPUTarget("cuda", capability, 32),
        options={
            "num_warps": num_warps,
            "num_stages": num_stages,
            "maxnreg": maxnreg,
            "enable_fp_fusion": enable_fp_fusion,
        },
    )
    metadata = compiled.metadata
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(compiled.asm["cubin"])
        usage = _output(triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", cubin)
        sass = _output(triton.knobs.nvidia.nvdisasm.path, "-c", cubin)
    found = re.search(rf"Function {re.escape(metadata.name)}:\s*REG:(\d+) STACK:(\d+)", usage)
    count = Counter(INSTRUCTION.findall(sass))
    if found is None or not count["EXIT"]:
        raise RuntimeError(f"cannot read what the tools say about {metadata.name}:\n{usage}")
    registers, stack = map(int, found.groups())
    return Resources(
        registers=registers,
        stack=stack,
        spills=count["STL"] + count["LDL"],
        shared=metadata.shared,
        tensor_core=count["HMMA"] + count["HGMMA"],
        num_warps=metadata.num_warps,
        occupancy=occupancy(registers, metadata.shared, metadata.num_warps, capability=capability),
    )


def _output(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
