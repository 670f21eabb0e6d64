"""When the fused kernels can be taken, and why not; imports no triton itself."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from titans_core.ops.memory_mlp import Weights

TRITON_DIMS = (16, 32, 64, 128)
"""Channels of a head that there are kernels for."""

_OLDEST = (3, 7)


def why_not_triton(q: Tensor, weights: Weights, read: str, traced: bool) -> str | None:
    """What keeps the kernels from these inputs; None if nothing does."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if not (q.is_cuda or interpreted):
        return f"its kernels need tensors on a GPU, or TRITON_INTERPRET=1; q is on {q.device}"
    if q.is_cuda and (torch.version.hip or torch.cuda.get_device_capability(q.device) < (8, 0)):
        return "its kernels need a GPU of NVIDIA with compute capability 8.0 (A100) or newer"
    dim, width = q.shape[-1], weights[-1].shape[-2]
    step = 32 if dim == 128 else 16  # hidden units at a time; of 128 channels, 16 would spill
    unsupported = {
        f"its kernels are for memories of depth 1 and 2, not {len(weights)}": len(weights) > 2,
        f"its kernels are for heads of {TRITON_DIMS} channels, not {dim}": dim not in TRITON_DIMS,
        f"the memory's hidden width must be a multiple of {step}, not {width}": width % step != 0,
        f"q must be float32 or bfloat16, not {q.dtype}": q.dtype
        not in (torch.float32, torch.bfloat16),
        "read='chunk_start' has no kernel": read != "inclusive",
        "its kernels write no trace": traced,
    }
    reason = next((reason for reason, applies in unsupported.items() if applies), None)
    return reason or _no_triton(interpreted)


def _no_triton(interpreted: bool) -> str | None:
    """What is wrong with triton itself; imports it, with the kernels."""
    needed = ".".join(map(str, _OLDEST))
    try:
        from titans_core.ops.chunked_triton.pieces import INTERPRETED, VERSION
    except Exception as error:  # whatever a broken installation raises: torch's path still works
        return f"triton cannot be imported ({error}): pip install 'triton>={needed}', Linux only"
    if tuple(int(x) for x in VERSION.split(".")[:2]) < _OLDEST:
        return f"its kernels need triton >= {needed}; installed is {VERSION}"
    if interpreted != INTERPRETED:
        return "TRITON_INTERPRET has changed since triton was imported: set it before Python starts"
    return None
