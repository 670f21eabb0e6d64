"""The exact dual form: a whole chunk at once, no per-token weights (``ops/README.md``, section 2).

Inside a chunk every surprise is taken at the same anchor and is an outer product, so what token
t reads is a gated mix of three products: with the chunk's start weights, with its start momentum,
and a causal linear attention over the chunk's own keys and errors.
"""

from __future__ import annotations

import torch
from torch import Tensor

from titans_core.ops.memory_mlp import ACTIVATIONS, MemoryForm, Weights, apply_memory, backward_signals, finish
from titans_core.ops.state import MemoryTrace, NeuralMemoryState

# Added to a decay before its logarithm: invisible beside 1 in that dtype, and it keeps value and
# gradient right where a gate is exactly 0 or 1.
_TINY = {torch.float32: 1e-20, torch.float64: 1e-60}
# Decays below exp(floor) become exact zeros: subnormal numbers would make a CPU several times
# slower, and what they would add is far below rounding. The product of two decays stays normal.
_LOG_FLOOR = {torch.float32: -36.0, torch.float64: -330.0}


def neural_memory_chunked(
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
    read: str,
    trace: list[MemoryTrace] | None,
) -> tuple[Tensor, NeuralMemoryState]:
    """Same contract and result as the reference, in plain torch; differentiable by autograd."""
    tiny = _TINY[q.dtype]
    has_momentum = momentum_decay is not None
    log_carry = torch.log((momentum_decay if has_momentum else 0 * memory_lr) + tiny)
    if write_mask is None: write_mask=torch.ones_like(q[...,0,0],dtype=torch.bool)
    log_keep = torch.log(1 - forget_gate + tiny)
    # (B, H, T, D) and (B, H, T): matrix products want time beside channels.
    streams = [x.transpose(1, 2) for x in (q, k, v, memory_lr, log_carry, log_keep, write_mask[...,None])]

    outputs = []
    start, end = 0, q.shape[1]
    while start < end:
        # The first piece may only complete a chunk that an earlier call opened.
        stop = min(start + chunk_size - state.offset, end)
        piece = [x[:, :, start:stop] for x in streams]
        y, state = _advance(piece, state, chunk_size, form, rest, read, trace, has_momentum)
        outputs.append(y)
        start = stop
    return torch.cat(outputs, dim=2).transpose(1, 2), state


def _advance(
    piece: list[Tensor],
    state: NeuralMemoryState,
    chunk_size: int,
    form: MemoryForm,
    rest: Weights | None,
    read, trace, has_momentum
) -> tuple[Tensor, NeuralMemoryState]:
    """Take b tokens that share one anchor: read them all, then move weights and momentum by b."""
    q, k, v, theta, log_carry, log_keep, mask = piece
    keep = _decay_matrix(log_keep) * mask[..., None, :]  # D: what is left at token t of what was in M after token k
    carry = _decay_matrix(log_carry) * theta[..., None, :]  # E diag(theta)
    keep_start = _exp(log_keep.cumsum(-1))  # beta
    carry_start = _exp(log_carry.cumsum(-1))  # m
    momentum_read = (keep @ carry_start[..., None]).squeeze(-1)  # f = D m
    token_read = keep @ carry  # G = D E diag(theta), lower triangular

    inputs, deltas = backward_signals(state.anchor, k, v, form)
    activate, _ = ACTIVATIONS[form.activation]
    if trace is not None:
        with torch.no_grad():
            sur = sum((a.square().sum(-1) * d.square().sum(-1) for a, d in zip(inputs, deltas, strict=True))).sqrt()
            nor = sum(w.square().sum((-2, -1)) for w in state.anchor).sqrt()[..., None].expand_as(sur)
            trace.append(MemoryTrace(sur.transpose(1, 2), nor.transpose(1, 2)))
    momenta = state.momentum if has_momentum else tuple(torch.zeros_like(w) for w in state.weights)
    rests = (None,) * len(inputs) if rest is None else rest
    hidden, weights, momentum = q, [], []
    for layer, (w, s, r, a, delta) in enumerate(
        zip(state.weights, momenta, rests, inputs, deltas, strict=True)
    ):
        if layer > 0:
            hidden = activate(hidden)
        # Forgetting acts on what the memory holds beyond its rest; the rest itself stays.
        beyond, read_rest, rest_weights = (w, 0, 0) if r is None else (w - r, hidden @ r, r)
        hidden = (
            read_rest
            + keep_start[..., None] * (hidden @ beyond)
            + momentum_read[..., None] * (hidden @ s)
            - (hidden @ a.mT * token_read) @ delta
        )
        weights.append(
            rest_weights
            + keep_start[..., -1:, None] * beyond
            + momentum_read[..., -1:, None] * s
            - a.mT @ (token_read[..., -1, :, None] * delta)
        )
        momentum.append(carry_start[..., -1:, None] * s - a.mT @ (carry[..., -1, :, None] * delta))

    offset = state.offset + q.shape[2]
    closed = offset == chunk_size
    new_weights = tuple(weights)
    anchor = new_weights if closed else state.anchor
    new_state = NeuralMemoryState(anchor, new_weights, tuple(momentum) if has_momentum else (), 0 if closed else offset)
    if read == "chunk_start":
        return apply_memory(state.anchor, q, form), new_state
    return finish(hidden, q, form), new_state


def _decay_matrix(log_decay: Tensor) -> Tensor:
    """``(..., b)`` -> ``(..., b, b)``: entry (t, k) is the decay over tokens k+1..t, 0 above.

    Each column sums its own segment, so that no difference of long sums loses digits.
    """
    b = log_decay.shape[-1]
    below = torch.ones(b, b, dtype=torch.bool, device=log_decay.device).tril(-1)
    segments = log_decay[..., None].expand(*log_decay.shape, b).masked_fill(~below, 0).cumsum(-2)
    return _exp(segments).tril()


def _exp(log_decay: Tensor) -> Tensor:
    """Exponential with an exact zero in place of anything that might be subnormal."""
    floor = _LOG_FLOOR[log_decay.dtype]
    return torch.exp(log_decay.masked_fill(log_decay < floor, -torch.inf))
