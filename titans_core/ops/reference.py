"""THE SPECIFICATION: one token at a time, surprise by autograd of the written loss.

Never optimised. Every other implementation is compared with this one, in float64, on outputs,
final state and every gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import grad

from titans_core.ops.memory_mlp import MemoryForm, Weights, apply_memory
from titans_core.ops.state import MemoryTrace, NeuralMemoryState


def associative_loss(weights: Weights, key: Tensor, value: Tensor, form: MemoryForm) -> Tensor:
    """``||M(k) - v||^2``, summed over channels, no 1/2 (paper, eq. 12); ``(B, H, 1, D)`` inputs.

    Huber: beyond ``delta`` a channel's error counts ``2 delta |error| - delta^2``.
    """
    error = apply_memory(weights, key, form) - value
    if form.huber_delta is None:
        return error.square().sum()
    delta = form.huber_delta
    linear = 2 * delta * error.abs() - delta**2
    return torch.where(error.abs() <= delta, error.square(), linear).sum()


def neural_memory_reference(
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
    """Run the recurrence of ``ops/README.md``, section 1, literally. Shapes as the dispatcher's.

    ``rest`` is what forgetting leads to: None for zero, or M_0. ``momentum_decay`` None is a
    memory without momentum.
    """
    if rest is None:
        rest = tuple(torch.zeros_like(w) for w in state.weights)
    anchor, weights, momentum, offset = state
    outputs, surprises, norms = [], [], []
    for t in range(q.shape[1]):
        query, key, value = (x[:, t, :, None] for x in (q, k, v))  # (B, H, 1, D)
        theta, alpha = (gate[:, t, :, None, None] for gate in (memory_lr, forget_gate))
        surprise = grad(associative_loss)(anchor, key, value, form)
        surprises.append(_norm(surprise))
        norms.append(_norm(anchor))

        step = tuple(-theta * u for u in surprise)
        if momentum_decay is not None:
            eta = momentum_decay[:, t, :, None, None]
            step = tuple(eta * s + now for s, now in zip(momentum, step, strict=True))
        moved = tuple(
            (1 - alpha) * w + alpha * r + s for w, r, s in zip(weights, rest, step, strict=True)
        )
        if write_mask is not None:  # a masked token leaves everything as it was
            written = write_mask[:, t, None, None, None]
            moved = _where(written, moved, weights)
            step = _where(written, step, momentum) if momentum_decay is not None else step
        weights = moved
        momentum = momentum if momentum_decay is None else step

        readable = weights if read == "inclusive" else anchor
        outputs.append(apply_memory(readable, query, form).squeeze(-2))
        offset += 1
        if offset == chunk_size:
            anchor, offset = weights, 0
    if trace is not None:
        trace.append(MemoryTrace(torch.stack(surprises, dim=1), torch.stack(norms, dim=1)))
    return torch.stack(outputs, dim=1), NeuralMemoryState(anchor, weights, momentum, offset)


def _where(condition: Tensor, new: Weights, old: Weights) -> Weights:
    return tuple(torch.where(condition, a, b) for a, b in zip(new, old, strict=True))


def _norm(weights: Weights) -> Tensor:
    """Frobenius norm over all layers, ``(B, H)``."""
    squares = [w.detach().square().sum((-2, -1)) for w in weights]
    return torch.stack(squares).sum(0).sqrt()
