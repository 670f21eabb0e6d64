"""What the memory operation carries from call to call, and what it can show of itself."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from titans_core.ops.memory_mlp import Weights


class NeuralMemoryState(NamedTuple):
    """All that a stream needs to go on, of fixed size: no token is ever buffered.

    Parameters
    ----------
    anchor, weights, momentum : tuple of Tensor
        Per layer ``(B, H, d_in, d_out)``: the weights at the start of the open chunk (where
        surprise is measured), the memory now, and the past surprise carried on (empty for a
        memory without momentum).
    offset : int
        Tokens already taken into the open chunk, ``0 <= offset < chunk_size``.
    """

    anchor: Weights
    weights: Weights
    momentum: Weights
    offset: int


class MemoryTrace(NamedTuple):
    """What the memory went through, token by token; see ``neural_memory(..., trace=...)``.

    Parameters
    ----------
    surprise : Tensor
        ``(B, T, H)``: norm of each token's momentary gradient, over all layers; 0 where the
        token is masked.
    memory_norm : Tensor
        ``(B, T, H)``: norm of the weights that the surprise was measured at.
    """

    surprise: Tensor
    memory_norm: Tensor


def full_precision(like: Tensor) -> torch.autocast:
    """Keep autocast off, where a state is worked on: it stays in float32, always."""
    device = like.device.type
    return torch.autocast("cpu" if device == "meta" else device, enabled=False)
