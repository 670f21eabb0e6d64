"""The gates of whole chunks, in closed form: what each token, and each chunk's end, is a mix of.

Everything here depends on the gates only, not on the memory, so it is made for many chunks at once.
``ops/README.md``, section 2, has the derivation.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from titans_core.ops.decay import decay_matrix, exp_decay, log_decay


class ChunkGates(NamedTuple):
    """Coefficients of a chunk's b tokens; P is 2 (memory and momentum), or 1 without momentum.

    Parameters
    ----------
    start_read : Tensor
        ``(..., b, P)``: how much of the chunk's start weights (beta) and of its start momentum
        (f) is in the memory that token t reads.
    token_read : Tensor
        ``(..., b, b)``, lower triangular: how much of the surprise of token j (G).
    start_end : Tensor
        ``(..., P, P)``: from start weights and momentum to those at the chunk's end.
    token_end : Tensor
        ``(..., b, P)``: how much of the surprise of token j is in the weights and in the momentum
        at the chunk's end.
    """

    start_read: Tensor
    token_read: Tensor
    start_end: Tensor
    token_end: Tensor


def chunk_gates(
    memory_lr: Tensor, momentum_decay: Tensor | None, forget_gate: Tensor, write: Tensor | None
) -> ChunkGates:
    """Solve the recurrences of ``M`` and ``S`` for chunks of gates ``(..., b)``.

    ``write`` is 1 for a token that writes and 0 for a masked one, which must not let the
    momentum into the memory a second time.
    """
    log_keep = log_decay(1 - forget_gate)
    keep = decay_matrix(log_keep)  # D: what is left at token t of what was in M after token k
    keep_start = exp_decay(log_keep.cumsum(-1))  # beta
    if momentum_decay is None:
        token_read = keep * memory_lr[..., None, :]
        return ChunkGates(
            keep_start[..., None],
            token_read,
            keep_start[..., -1:, None],
            token_read[..., -1, :, None],
        )
    if write is not None:
        keep = keep * write[..., None, :]
    log_carry = log_decay(momentum_decay)
    carry = decay_matrix(log_carry) * memory_lr[..., None, :]  # E diag(theta)
    carry_start = exp_decay(log_carry.cumsum(-1))  # m
    token_read = keep @ carry  # G = D E diag(theta)
    momentum_read = (keep @ carry_start[..., None]).squeeze(-1)  # f = D m
    zero = torch.zeros_like(keep_start[..., -1])
    start_end = [keep_start[..., -1], momentum_read[..., -1], zero, carry_start[..., -1]]
    return ChunkGates(
        torch.stack([keep_start, momentum_read], dim=-1),
        token_read,
        torch.unflatten(torch.stack(start_end, dim=-1), -1, (2, 2)),
        torch.stack([token_read[..., -1, :], carry[..., -1, :]], dim=-1),
    )
