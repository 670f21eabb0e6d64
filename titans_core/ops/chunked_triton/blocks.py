"""Which tiles the kernels take: sizes that fit on the chip. They never change the result."""

from __future__ import annotations

from typing import NamedTuple

DIMS = (16, 32, 64, 128)
"""Channels of a head that there are kernels for."""


class Blocks(NamedTuple):
    """Tile of a kernel.

    Parameters
    ----------
    tokens : int
        BLOCK_T, tokens of a tile.
    rows : int
        BLOCK_R, rows of the last layer's weights that are taken at once.
    warps : int
    """

    tokens: int
    rows: int
    warps: int


def blocks(dim: int, width: int, chunk_size: int) -> Blocks:
    """For heads of ``dim`` channels and a memory whose last layer sees ``width``."""
    tokens = 16 if chunk_size <= 16 else 32
    rows = 32 if width % 32 == 0 else 16
    return Blocks(tokens, rows, 8 if dim == 128 else 4)
