"""One token: the recurrence as it is written, with surprise in factored form.

What a stream that is fed token by token needs. A chunk of one token would give the same at several
times the cost, nearly all of it the overhead of small operations.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from titans_core.ops.layer_norm import normalise
from titans_core.ops.memory_mlp import MemoryForm, Weights, apply_memory
from titans_core.ops.state import MemoryTrace, NeuralMemoryState

_BACKWARD = {"silu": torch.ops.aten.silu_backward, "gelu": torch.ops.aten.gelu_backward}


def neural_memory_step(
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
    """Same contract and result as the reference, for T = 1."""
    query, key, value = (x.transpose(1, 2) for x in (q, k, v))  # (B, H, 1, D)
    theta, alpha = memory_lr.mT[..., None], forget_gate.mT[..., None]  # (B, H, 1, 1)
    inputs, deltas = _surprise(state.anchor, key, value, form)
    if trace is not None:
        trace.append(_trace(inputs, deltas, state.anchor))
    scaled = [a.mT * -theta for a in inputs]
    if momentum_decay is None:
        step = tuple(torch.matmul(a, d) for a, d in zip(scaled, deltas, strict=True))
        momentum: Weights = ()
    else:
        eta = momentum_decay.mT[..., None]
        step = momentum = tuple(
            torch.addcmul(a @ d, s, eta)
            for a, d, s in zip(scaled, deltas, state.momentum, strict=True)
        )
    if write_mask is not None:  # a masked token must not let momentum in a second time
        step = tuple(s * write_mask[..., None, None] for s in step)
    if rest is None:
        keep = 1 - alpha
        weights = tuple(torch.addcmul(s, w, keep) for w, s in zip(state.weights, step, strict=True))
    else:
        weights = tuple(
            torch.lerp(w, r, alpha) + s for w, r, s in zip(state.weights, rest, step, strict=True)
        )
    y = apply_memory(weights if read == "inclusive" else state.anchor, query, form)
    offset = (state.offset + 1) % chunk_size
    anchor = state.anchor if offset else weights
    return y.transpose(1, 2), NeuralMemoryState(anchor, weights, momentum, offset)


def _surprise(
    anchor: Weights, keys: Tensor, values: Tensor, form: MemoryForm
) -> tuple[list[Tensor], list[Tensor]]:
    """Per layer what it sees of the keys, and the error propagated back to its output."""
    activate, backward = getattr(functional, form.activation), _BACKWARD[form.activation]
    inputs, products = [keys], [keys @ anchor[0]]
    for weight in anchor[1:]:
        inputs.append(activate(products[-1]))
        products.append(inputs[-1] @ weight)
    answer, normalised = products[-1], None
    if form.norm is not None:
        gain, bias = form.norm[0][:, None], form.norm[1][:, None]
        normalised = normalise(answer)
        answer = torch.addcmul(bias, normalised.unit, gain)
    delta = 2 * (answer + keys - values if form.residual else answer - values)
    if form.huber_delta is not None:
        delta = delta.clamp(-2 * form.huber_delta, 2 * form.huber_delta)
    if normalised is not None:
        delta = normalised.pull(delta * gain)
    deltas = [delta]
    for weight, product in zip(reversed(anchor[1:]), reversed(products[:-1]), strict=True):
        deltas.append(backward(deltas[-1] @ weight.mT, product))
    return inputs, deltas[::-1]


def _trace(inputs: list[Tensor], deltas: list[Tensor], anchor: Weights) -> MemoryTrace:
    """Norms of the surprise and of the anchor, ``(B, 1, H)``."""
    pairs = zip(inputs, deltas, strict=True)
    surprise = (
        torch.stack([a.square().sum(-1) * d.square().sum(-1) for a, d in pairs]).sum(0).sqrt()
    )
    norm = torch.stack([w.square().sum((-2, -1)) for w in anchor]).sum(0).sqrt()
    return MemoryTrace(surprise.mT.detach(), norm[:, None].detach())
