"""Tiles of the kernels: sizes at which nothing is spilled. They never change the result.

``docs/kernels.md`` has what the compiler makes of each; ``make kernels`` writes it.
"""

from __future__ import annotations

from typing import NamedTuple

BLOCK_T = 16
"""Tokens of a tile: the least that a tensor core takes, as registers are what is scarce."""

# The compiler, left alone, would rather spill a few registers than run fewer programs at a time.
LAUNCH = {"num_stages": 1, "maxnreg": 255}


class Blocks(NamedTuple):
    """Tile of a kernel.

    Parameters
    ----------
    rows : int
        BLOCK_R, hidden units of the memory that are taken at once.
    warps : int
    """

    rows: int
    warps: int


def blocks(kernel: str, dim: int, precision: str) -> Blocks:
    """For a kernel by its name and heads of ``dim`` channels."""
    del precision
    wide = kernel in ("write_kernel", "write_backward_kernel") and dim >= 64
    return Blocks(32 if wide else 16, 8 if dim == 128 else 4)
