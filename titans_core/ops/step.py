"""One token: the recurrence as it is written, with surprise in factored form.

What a stream that is fed token by token needs. A chunk of one token would give the same at several
times the cost, nearly all of it the overhead of small operations.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from titans_core.ops.layer_norm import Normalised, normalise
from titans_core.ops.memory_mlp import MemoryForm, Weights
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
    """Same contract and result as the reference, for T = 1 and without gradients."""
    batch, _, heads, dim = q.shape
    query, key, value = (x.reshape(-1, 1, dim) for x in (q, k, v))  # (B H, 1, D)
    theta, alpha = (gate.reshape(batch, heads, 1, 1) for gate in (memory_lr, forget_gate))
    eta = None if momentum_decay is None else momentum_decay.reshape(batch, heads, 1, 1)
    activation = getattr(functional, form.activation)
    norm = None
    if form.norm is not None:
        gain, bias = (x.expand(batch, heads, dim).reshape(-1, 1, dim) for x in form.norm)
        norm = (gain, bias)

    anchor = [w.flatten(0, 1) for w in state.anchor]
    inputs, products, answer, normalised = _forward(anchor, key, activation, form.residual, norm)
    delta = 2 * (answer - value)
    if form.huber_delta is not None:
        delta = delta.clamp(-2 * form.huber_delta, 2 * form.huber_delta)
    if norm is not None and normalised is not None:
        delta = normalised.pull(delta * norm[0])
    deltas = [delta]
    for weight, product in zip(reversed(anchor[1:]), reversed(products[:-1]), strict=True):
        deltas.insert(0, _BACKWARD[form.activation](torch.bmm(deltas[0], weight.mT), product))
    if trace is not None:
        trace.append(_trace(inputs, deltas, anchor, batch))

    weights, momentum = _write(inputs, deltas, theta, eta, alpha, state, rest, write_mask)

    readable = [w.flatten(0, 1) for w in weights] if read == "inclusive" else anchor
    y = _forward(readable, query, activation, form.residual, norm)[2]
    offset = (state.offset + 1) % chunk_size
    state = NeuralMemoryState(state.anchor if offset else weights, weights, momentum, offset)
    return y.view(q.shape), state


def _write(
    inputs: list[Tensor],
    deltas: list[Tensor],
    theta: Tensor,
    eta: Tensor | None,
    alpha: Tensor,
    state: NeuralMemoryState,
    rest: Weights | None,
    write_mask: Tensor | None,
) -> tuple[Weights, Weights]:
    """Weights and momentum after this token, per layer ``(B, H, d_in, d_out)``."""
    weights, momentum = [], []
    scale = -theta.flatten(0, 1)
    for layer, before in enumerate(state.weights):
        a, step = inputs[layer].mT, deltas[layer] * scale
        after = before * (1 - alpha) if rest is None else torch.lerp(before, rest[layer], alpha)
        after = after.contiguous()
        if eta is None:
            after.view(-1, *after.shape[2:]).baddbmm_(a, step)
        else:
            s = (state.momentum[layer] * eta).contiguous()
            s.view(-1, *s.shape[2:]).baddbmm_(a, step)
            if write_mask is None:
                after += s
            else:  # a masked token must not let momentum in a second time
                after.addcmul_(s, write_mask[..., None, None])
            momentum.append(s)
        weights.append(after)
    return tuple(weights), tuple(momentum)


def _forward(
    weights: list[Tensor],
    x: Tensor,
    activation: Callable[[Tensor], Tensor],
    residual: bool,
    norm: tuple[Tensor, Tensor] | None,
) -> tuple[list[Tensor], list[Tensor], Tensor, Normalised | None]:
    """What each layer sees and makes of x, the memory's output, and its LayerNorm."""
    inputs, products = [x], [torch.bmm(x, weights[0])]
    for weight in weights[1:]:
        inputs.append(activation(products[-1]))
        products.append(torch.bmm(inputs[-1], weight))
    answer, normalised = products[-1], None
    if norm is not None:
        normalised = normalise(answer)
        answer = torch.addcmul(norm[1], normalised.unit, norm[0])
    return inputs, products, answer + x if residual else answer, normalised


def _trace(
    inputs: list[Tensor], deltas: list[Tensor], anchor: list[Tensor], batch: int
) -> MemoryTrace:
    """Norms of the surprise and of the anchor, ``(B, 1, H)``."""
    pairs = zip(inputs, deltas, strict=True)
    squares = [a.square().sum((1, 2)) * d.square().sum((1, 2)) for a, d in pairs]
    norms = [w.square().sum((1, 2)) for w in anchor]
    surprise, norm = (torch.stack(x).sum(0).sqrt().detach() for x in (squares, norms))
    return MemoryTrace(surprise.view(batch, 1, -1), norm.view(batch, 1, -1))
