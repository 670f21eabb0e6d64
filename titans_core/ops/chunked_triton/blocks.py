"""Tiles of the kernels: sizes at which nothing is spilled. They never change the result.

``docs/kernels.md`` has what the compiler makes of each; ``make kernels`` writes it.
"""

from __future__ import annotations

from typing import NamedTuple

BLOCK_T = 16
"""Tokens of a tile: the least that a tensor core takes, as registers are what is scarce."""


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
    del kernel, precision
    return Blocks(min(dim, 32), 8 if dim == 128 else 4)
