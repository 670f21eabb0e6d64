"""When the fused kernels can be taken, and why not; imports no triton itself."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import Tensor

from titans_core.ops.memory_mlp import Weights

TRITON_DIMS = (16, 32, 64, 128)
"""Channels of a head that there are kernels for."""

_OLDEST = (3, 7)


def why_not_triton(q: Tensor, weights: Weights, read: str, traced: bool) -> str | None:
    """What keeps the kernels from these inputs; None if nothing does."""
    if not (q.is_cuda or os.environ.get("TRITON_INTERPRET") == "1"):
        return f"its kernels need tensors on a GPU, or TRITON_INTERPRET=1; q is on {q.device}"
    if q.is_cuda and (torch.version.hip or torch.cuda.get_device_capability(q.device) < (8, 0)):
        return "its kernels need a GPU of NVIDIA with compute capability 8.0 (A100) or newer"
    dim, width = q.shape[-1], weights[-1].shape[-2]
    unsupported = {
        f"its kernels are for memories of depth 1 and 2, not {len(weights)}": len(weights) > 2,
        f"its kernels are for heads of {TRITON_DIMS} channels, not {dim}": dim not in TRITON_DIMS,
        f"the memory's hidden width must be a multiple of 16, not {width}": width % 16 != 0,
        f"q must be float32 or bfloat16, not {q.dtype}": q.dtype
        not in (torch.float32, torch.bfloat16),
        "read='chunk_start' has no kernel": read != "inclusive",
        "its kernels write no trace": traced,
    }
    return next((reason for reason, applies in unsupported.items() if applies), _NO_TRITON)


def _no_triton() -> str | None:
    needed = ".".join(map(str, _OLDEST))
    try:
        found = version("triton")
    except PackageNotFoundError:
        return f"triton is not installed (pip install 'triton>={needed}', Linux only)"
    if tuple(int(x) for x in found.split(".")[:2]) < _OLDEST:
        return f"its kernels need triton >= {needed}; installed is {found}"
    return None


_NO_TRITON = _no_triton()
