"""From tensors to kernels: tiles, constants, and arguments by the names that kernels give them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from titans_core.ops.chunked_triton.gates import gates_kernel
from titans_core.ops.chunked_triton.pieces import INTERPRETED
from titans_core.ops.chunked_triton.plan import BLOCK_T, LAUNCH, Plan, fitted, warps

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

    Attributes
    ----------
    tiles : int
        Tiles of one memory.
    opened : int
        The row of ``fast`` with the anchor of the last token.
    """

    def __init__(self, tensors: Sequence[Any], shape: torch.Size, form: Form) -> None:
        q = tensors[0]
        _, time, heads, dim = q.shape
        self.memories, parts, depth, size = shape
        self.tensors: dict[str, Any] = dict(zip(TENSORS, map(_contiguous, tensors), strict=True))
        per_chunk = -(-form.chunk_size // BLOCK_T)
        before, position = form.offset // BLOCK_T, form.offset + time - 1
        chunk, within = position // form.chunk_size, position % form.chunk_size
        self.tiles = chunk * per_chunk + within // BLOCK_T - before + 1
        self.opened = 0 if chunk == 0 else 1 + chunk * per_chunk - before
        self._numbers = {
            "T": time,
            "H": heads,
            "tiles": self.tiles,
            "offset": form.offset,
            "chunk_size": form.chunk_size,
            "huber": form.huber_delta or 0.0,
        }
        self.plan = Plan(
            D=dim,
            WIDTH=size // dim,
            DEPTH=depth,
            MOMENTUM=parts == 2,
            MASK=self.tensors["write"] is not None,
            REST=self.tensors["rest"] is not None,
            NORM=self.tensors["gain"] is not None,
            HUBER=form.huber_delta is not None,
            RESIDUAL=form.residual,
            GELU=form.activation == "gelu",
            PRECISION="bf16" if q.dtype == torch.bfloat16 and not INTERPRETED else "tf32x3",
        )

    def room(self, *width: int) -> Tensor:
        """``(tiles, N, *width)`` in float32, uninitialised."""
        shape = (self.tiles, self.memories, *width)
        return torch.empty(shape, dtype=torch.float32, device=self.tensors["q"].device)

    def gates(self) -> dict[str, Tensor]:
        """What ``gates_kernel`` finds."""
        found = {"shares": self.room(2, BLOCK_T), "ends": self.room(3)}
        self(gates_kernel, found)
        return found

    def __call__(self, kernel: Any, tensors: dict[str, Tensor], **constants: bool) -> None:
        """Start a kernel for every tile of every memory.

        What is None it does not touch, but the address must be one.
        """
        self._start(kernel, self.tiles * self.memories, tensors, constants)

    def in_turn(self, kernel: Any, tensors: dict[str, Tensor]) -> None:
        """Start a kernel that walks through the tiles of each memory."""
        self._start(kernel, self.memories, tensors, {})

    def _start(
        self, kernel: Any, programs: int, tensors: dict[str, Tensor], constants: dict[str, bool]
    ) -> None:
        plan = fitted(self.plan, kernel.__name__)
        known = {**self.tensors, **tensors, **self._numbers, **constants, "plan": plan}
        some = self.tensors["theta"]
        arguments = {n: some if known[n] is None else known[n] for n in kernel.arg_names}
        with torch.cuda.device_of(some):  # a kernel starts on the current GPU
            kernel[(programs,)](**arguments, num_warps=warps(plan.D), **LAUNCH)


def _contiguous(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.contiguous()
