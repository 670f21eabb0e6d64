"""What a kernel is compiled for: the memory's form, precision, and tiles at which nothing spills.

``docs/kernels.md`` has what the compiler makes of each; ``make kernels`` writes it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

BLOCK_T = 16
"""Tokens of a tile: the least that a tensor core takes, as registers are what is scarce."""

# Of weights and momentum at tiles' edges: how many bytes are written before they are read, and how
# many of a call are kept for the backward. Neither changes the result.
SEGMENT_BYTES = 2**29
KEPT_BYTES = 2**30

# The compiler, left alone, would rather spill a few registers than run fewer programs at a time.
LAUNCH = {"num_stages": 1, "maxnreg": 255, "enable_fp_fusion": True}


@dataclass(frozen=True)
class Plan:
    """Constants of a kernel; it takes them as one argument, and sees the properties, too.

    Parameters
    ----------
    D, WIDTH, DEPTH : int
        Channels of a head, width of what the last layer sees, layers.
    MOMENTUM, MASK, REST, NORM, HUBER, RESIDUAL, GELU : bool
        Whether there is momentum, a write mask, an M_0 that forgetting leads to, a LayerNorm, a
        clipped loss, a residual; and whether the activation is GELU.
    PRECISION : {"tf32x3", "bf16"}
        Of products, but for those of gates, which are always of three TF32 terms. Sums are float32.
    BLOCK_T, BLOCK_R, BLOCK_C : int
        Tokens of a tile; hidden units of the memory that are taken at once; and channels of a
        factor, where they are summed over.
    """

    D: int
    WIDTH: int
    DEPTH: int
    MOMENTUM: bool
    MASK: bool
    REST: bool
    NORM: bool
    HUBER: bool
    RESIDUAL: bool
    GELU: bool
    PRECISION: str
    BLOCK_T: int = BLOCK_T
    BLOCK_R: int = 16
    BLOCK_C: int = 16

    @property
    def LAYERS(self) -> int:  # noqa: N802  # a constant, to a kernel
        """Weights of all layers together; momentum comes after them."""
        return self.DEPTH * self.WIDTH * self.D

    @property
    def STATE(self) -> int:  # noqa: N802
        """Weights and momentum of one memory."""
        return (1 + self.MOMENTUM) * self.LAYERS

    @property
    def LAST(self) -> int:  # noqa: N802
        """Where the last layer begins."""
        return (self.DEPTH - 1) * self.WIDTH * self.D

    @property
    def ROOM(self) -> int:  # noqa: N802
        """Numbers of a token in ``hidden``: see ``read_kernel``."""
        return (2 * self.DEPTH - 1) * self.WIDTH


def fitted(plan: Plan, kernel: str) -> Plan:
    """The plan with the tiles at which a kernel, by its name, spills nothing."""
    if kernel.startswith("gates"):  # they see no channels: one program for all
        off = dict.fromkeys(("REST", "NORM", "HUBER", "RESIDUAL", "GELU"), False)
        return replace(plan, D=16, WIDTH=16, DEPTH=1, PRECISION="tf32x3", **off)
    roomy_from = {"write_kernel": 64, "write_backward_kernel": 128}.get(kernel, 256)
    rows = 32 if roomy_from <= plan.D and plan.WIDTH % 32 == 0 else 16
    # Three TF32 terms of a number take more room than one of bfloat16.
    lean = plan.PRECISION == "bf16" or kernel == "write_backward_kernel"
    channels = 64 if plan.D == 128 and lean else min(plan.D, 32)
    return replace(plan, BLOCK_R=rows, BLOCK_C=channels)


def warps(dim: int) -> int:
    """Warps of a program, for heads of ``dim`` channels."""
    return {16: 2, 128: 8}.get(dim, 4)
