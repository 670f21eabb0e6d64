"""From tensors to kernels: tiles, constants and arguments by the names that kernels give them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from titans_core.ops.chunked_triton.blocks import BLOCK_T, LAUNCH, blocks
from titans_core.ops.chunked_triton.gates import gates_kernel
from titans_core.ops.chunked_triton.pieces import INTERPRETED

TENSORS = ("q", "k", "v", "theta", "eta", "alpha", "write", "rest", "gain", "bias")


class Form(NamedTuple):
    """What is no tensor; as in `neural_memory`."""

    chunk_size: int
    offset: int
    activation: str
    residual: bool
    huber_delta: float | None


class Launch:
    """One call's tokens and memories; starts the kernels on them.

    Parameters
    ----------
    tensors : sequence of Tensor or None
        ``TENSORS``, as ``memory_op`` has them.
    shape : torch.Size
        ``(N, P, L, S)``.
    form : Form
    """

    def __init__(
        self, tensors: Sequence[Tensor | None], shape: torch.Size, form: Form
    ) -> None:
        q = tensors[0]
        assert q is not None
        _, time, heads, self.dim = q.shape
        self.memories, parts, depth, size = shape
        self._width = size // self.dim
        per_chunk = -(-form.chunk_size // BLOCK_T)
        before, position = form.offset // BLOCK_T, form.offset + time - 1
        chunk, within = position // form.chunk_size, position % form.chunk_size
        self.tiles = chunk * per_chunk + within // BLOCK_T - before + 1
        self.opened = 0 if chunk == 0 else 1 + chunk * per_chunk - before
        """The row of ``fast`` with the anchor of the last token."""
        self._device = q.device
        self.tensors = {
            name: None if x is None else x.contiguous() for name, x in zip(TENSORS, tensors, strict=True)
        }
        self._numbers = {
            "T": time,
            "H": heads,
            "tiles": self.tiles,
            "offset": form.offset,
            "chunk_size": form.chunk_size,
            "huber": form.huber_delta or 0.0,
        }
        present = {name: x is not None for name, x in self.tensors.items()}
        self._constants = {
            "D": self.dim,
            "WIDTH": self._width,
            "DEPTH": depth,
            "HAS_MOMENTUM": parts == 2,
            "HAS_WRITE": present["write"],
            "HAS_REST": present["rest"],
            "HAS_NORM": present["gain"],
            "HAS_HUBER": form.huber_delta is not None,
            "RESIDUAL": form.residual,
            "GELU": form.activation == "gelu",
            "PRECISION": "bf16" if q.dtype == torch.bfloat16 and not INTERPRETED else "tf32x3",
            "BLOCK_T": BLOCK_T,
        }

    def gates(self) -> dict[str, Tensor]:
        """What gates leave at the end of each tile."""
        found = {"shares": self.room(2), "ends": self.room(3)[:, :, 0].contiguous()}
        self(gates_kernel, self.tiles * self.memories, **found)
        return found

    def room(self, width: int) -> Tensor:
        """``(tiles, N, BLOCK_T, width)`` in float32, uninitialised."""
        shape = (self.tiles, self.memories, BLOCK_T, width)
        return torch.empty(shape, dtype=torch.float32, device=self._device)

    def __call__(
        self, kernel: Any, programs: int, keep: bool = False, **tensors: Tensor
    ) -> None:
        """Start a kernel. What is None it does not touch, but its addresses are computed."""
        block = blocks(kernel.__name__, self.dim, self._constants["PRECISION"])
        known = {**self.tensors, **tensors, **self._numbers, **self._constants}
        known |= {"KEEP": keep, "BLOCK_R": block.rows if self._width % block.rows == 0 else 16}
        unused = self.tensors["theta"]
        arguments = {
            name: unused if known.get(name) is None else known[name] for name in kernel.arg_names
        }
        kernel[(programs,)](**arguments, num_warps=block.warps, **LAUNCH)
