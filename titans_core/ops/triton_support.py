"""When the fused kernels can be taken, and why not; imports no triton itself."""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from titans_core.ops.memory_mlp import Weights

TRITON_DIMS = (16, 32, 64, 128)
"""Channels of a head that there are kernels for."""


def why_not_triton(q: Tensor, weights: Weights, read: str, traced: bool) -> str | None:
    """What keeps the kernels from these inputs; None if nothing does."""
    dim, widths = q.shape[-1], [w.shape[-1] for w in weights]
    reasons = {
        "triton is not installed": not _installed(),
        f"its kernels need tensors on a GPU (got {q.device}), or TRITON_INTERPRET=1": not (
            q.is_cuda or _interpreted()
        ),
        f"its kernels are for memories of depth 1 and 2, not {len(weights)}": len(weights) > 2,
        f"its kernels are for heads of {TRITON_DIMS} channels, not {dim}": dim not in TRITON_DIMS,
        f"the hidden width must be a multiple of 16, not {widths[0]}": widths[0] % 16 != 0,
        f"q must be float32 or bfloat16, not {q.dtype}": q.dtype
        not in (torch.float32, torch.bfloat16),
        "read='chunk_start' has no kernel": read != "inclusive",
        "a trace is not written by its kernels": traced,
    }
    return next((reason for reason, applies in reasons.items() if applies), None)


@cache
def _installed() -> bool:
    return find_spec("triton") is not None


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"
