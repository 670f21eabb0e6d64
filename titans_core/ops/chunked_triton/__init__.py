"""The chunked update as one fused pass on a GPU; the only folder that imports triton.

``chunked.py`` has the same contract; the kernels read like ``ops/README.md``, which has the maths.
"""

from __future__ import annotations

import torch
from torch import Tensor

from titans_core.ops.chunked_triton.op import memory_op
from titans_core.ops.chunked_triton.plan import BLOCK_T
from titans_core.ops.memory_mlp import MemoryForm, Weights
from titans_core.ops.state import NeuralMemoryState

# Weights and momentum are written down for every tile, and needed no longer where there are no
# gradients; so a long stream is taken in segments, which changes nothing.
SEGMENT_BYTES = 512 * 2**20


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
    n_tokens = q.shape[1]
    tile_bytes = 4 * len(q) * sum(w[0].numel() for w in (*state.weights, *state.momentum))
    at_once = max(1, SEGMENT_BYTES // tile_bytes) * BLOCK_T
    if n_tokens > at_once:
        outputs = []
        for first in range(0, n_tokens, at_once):
            part = slice(first, first + at_once)
            y, state = neural_memory_triton(
                q[:, part],
                k[:, part],
                v[:, part],
                memory_lr[:, part],
                None if momentum_decay is None else momentum_decay[:, part],
                forget_gate[:, part],
                state,
                chunk_size=chunk_size,
                form=form,
                rest=rest,
                write_mask=None if write_mask is None else write_mask[:, part],
            )
            outputs.append(y)
        return torch.cat(outputs, dim=1), state
    gain, bias = form.norm or (None, None)
    anchor, start = _pack(state.anchor), _pack(state.weights)[:, None]
    if state.momentum:
        start = torch.cat([start, _pack(state.momentum)[:, None]], dim=1)
    y, end, opened, _ = memory_op(
        q,
        k,
        v,
        memory_lr,
        momentum_decay,
        forget_gate,
        write_mask,
        None if rest is None else _pack(tuple(w[None] for w in rest)),
        gain,
        bias,
        anchor,
        start,
        chunk_size,
        state.offset,
        form.activation,
        form.residual,
        form.huber_delta,
    )
    weights = _unpack(end[:, 0], state.weights)
    momentum = _unpack(end[:, 1], state.weights) if state.momentum else ()
    offset = (state.offset + n_tokens) % chunk_size
    anchor_end = _unpack(opened, state.weights) if offset else weights
    return y, NeuralMemoryState(anchor_end, weights, momentum, offset)


def _pack(weights: Weights) -> Tensor:
    """Per layer ``(B, H, d_in, d_out)`` -> ``(B H, L, WIDTH D)``, the first of two transposed."""
    *first, last = weights
    return torch.stack([w.flatten(2).flatten(0, 1) for w in (*(w.mT for w in first), last)], dim=1)


def _unpack(packed: Tensor, like: Weights) -> Weights:
    """Inverse of ``_pack``."""
    *first, last = packed.unbind(1)
    turned = [x.view(w.mT.shape).mT.contiguous() for x, w in zip(first, like[:-1], strict=True)]
    return *turned, last.reshape(like[-1].shape)
