"""THE SPECIFICATION: one token at a time, surprise by autograd of the written loss.

Never optimised. Every other implementation is compared with this one, in float64, on outputs,
final state and every gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import grad

from titans_core.ops.memory_mlp import MemoryForm, Weights, apply_memory
from titans_core.ops.state import NeuralMemoryState


def associative_loss(weights: Weights, key: Tensor, value: Tensor, form: MemoryForm) -> Tensor:
    """``||M(k) - v||^2``, summed over channels, no 1/2 (paper, eq. 12); ``(B, H, 1, D)`` inputs."""
    return (apply_memory(weights, key, form) - value).square().sum()


def neural_memory_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    memory_lr: Tensor,
    momentum_decay: Tensor,
    forget_gate: Tensor,
    state: NeuralMemoryState,
    *,
    chunk_size: int,
    form: MemoryForm,
    rest: Weights | None,
) -> tuple[Tensor, NeuralMemoryState]:
    """Run the recurrence of ``ops/README.md``, section 1, literally. Shapes as the dispatcher's.

    ``rest`` is what forgetting leads to: None for zero, or M_0.
    """
    if rest is None:
        rest = tuple(torch.zeros_like(w) for w in state.weights)
    anchor, weights, momentum, offset = state
    outputs = []
    for t in range(q.shape[1]):
        query, key, value = (x[:, t, :, None] for x in (q, k, v))  # (B, H, 1, D)
        theta, eta, alpha = (
            gate[:, t, :, None, None] for gate in (memory_lr, momentum_decay, forget_gate)
        )
        surprise = grad(associative_loss)(anchor, key, value, form)
        momentum = tuple(eta * s - theta * u for s, u in zip(momentum, surprise, strict=True))
        weights = tuple(
            (1 - alpha) * w + alpha * r + s for w, r, s in zip(weights, rest, momentum, strict=True)
        )
        outputs.append(apply_memory(weights, query, form).squeeze(-2))
        offset += 1
        if offset == chunk_size:
            anchor, offset = weights, 0
    return torch.stack(outputs, dim=1), NeuralMemoryState(anchor, weights, momentum, offset)
