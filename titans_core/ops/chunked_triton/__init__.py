"""The chunked update as one fused pass on a GPU; the only folder that imports triton.

``chunked.py`` has the same contract; the kernels read like ``ops/README.md``, which has the maths.
"""

from __future__ import annotations

from math import isqrt

import torch
from torch import Tensor

from titans_core.ops.chunked_triton.op import memory_op
from titans_core.ops.chunked_triton.plan import BLOCK_T, KEPT_BYTES, SEGMENT_BYTES
from titans_core.ops.memory_mlp import MemoryForm, Weights
from titans_core.ops.state import NeuralMemoryState


def neural_memory_triton(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    memory_lr: Tensor,
    momentum_decay: Tensor | None,
    forget_gate: Tensor,
    state: NeuralMemoryState,
    *,
    chunk_size: int,
    form: MemoryForm,
    rest: Weights | None,
    write_mask: Tensor | None,
) -> tuple[Tensor, NeuralMemoryState]:
    """Same contract as ``neural_memory_chunked``, for what ``why_not_triton`` has nothing against.

    q, k and v may be in bfloat16 and then take half-precision products; all that is summed and
    kept is float32.
    """
    tokens = (q, k, v, memory_lr, momentum_decay, forget_gate, write_mask)
    slow = (
        None if rest is None else _pack(tuple(w[None] for w in rest)),
        *(form.norm or (None, None)),
    )
    anchor, start = _pack(state.anchor), _pack(state.weights)[:, None]
    if state.momentum:
        start = torch.cat([start, _pack(state.momentum)[:, None]], dim=1)
    needs_grad = torch.is_grad_enabled() and any(
        x is not None and x.requires_grad for x in (*tokens, *slow, anchor, start)
    )
    per_segment, keep = _segments(q.shape[1], 4 * start.numel(), chunk_size, needs_grad)
    outputs, offset = [], state.offset
    for first in range(0, q.shape[1], per_segment):
        piece = [None if x is None else x[:, first : first + per_segment] for x in tokens]
        y, start, opened, _ = memory_op(
            *piece,
            *slow,
            anchor,
            start,
            chunk_size,
            offset,
            form.activation,
            form.residual,
            form.huber_delta,
            keep,
        )
        offset = (offset + y.shape[1]) % chunk_size
        anchor = opened if offset else start[:, 0]
        outputs.append(y)
    anchor_end, weights = (_unpack(x, state.weights) for x in (anchor, start[:, 0]))
    momentum = _unpack(start[:, 1], state.weights) if state.momentum else ()
    y = torch.cat(outputs, dim=1) if len(outputs) > 1 else outputs[0]
    return y, NeuralMemoryState(anchor_end, weights, momentum, offset)


def _segments(
    n_tokens: int, tile_bytes: int, chunk_size: int, needs_grad: bool
) -> tuple[int, bool]:
    """Tokens to take at once, and whether to keep what was written of them for the backward.

    Weights and momentum are written down for every tile. Without gradients they are needed no
    longer than until they were read. With gradients they are kept while they fit into
    ``KEPT_BYTES``; beyond, only the start of each segment is, and the backward writes them again.
    """
    per_chunk = -(-chunk_size // BLOCK_T)  # tiles; a tile of a short chunk is not full
    tiles = -(-n_tokens * per_chunk // chunk_size)
    if needs_grad and tiles * tile_bytes <= KEPT_BYTES:
        return n_tokens, True
    at_once = SEGMENT_BYTES // tile_bytes
    if needs_grad:
        at_once = max(at_once, isqrt(tiles))
    return max(1, at_once * chunk_size // per_chunk), False


def _pack(weights: Weights) -> Tensor:
    """Per layer ``(B, H, d_in, d_out)`` -> ``(B H, L, WIDTH D)``, the first of two transposed."""
    *first, last = weights
    return torch.stack([w.flatten(2).flatten(0, 1) for w in (*(w.mT for w in first), last)], dim=1)


def _unpack(packed: Tensor, like: Weights) -> Weights:
    """Inverse of ``_pack``."""
    *first, last = packed.unbind(1)
    turned = [x.view(w.mT.shape).mT.contiguous() for x, w in zip(first, like[:-1], strict=True)]
    return *turned, last.reshape(like[-1].shape)
