"""The memory as a pure function: a small bias-free MLP whose weights are the memory.

``M(x) = x + LN(W_L act(... act(W_1 x)))``; the residual and the LayerNorm are optional, and the
LayerNorm's gain and bias are slow weights (they are trained, the memory update never moves them).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

Weights = tuple[Tensor, ...]
"""One tensor per layer, ``(..., d_in, d_out)``; a layer maps ``a`` to ``a @ W``."""

NORM_EPS = 1e-5


class Activation(NamedTuple):
    """An activation with the derivatives that surprise and its gradient need; ``out`` as in torch.

    Parameters
    ----------
    value : callable
        ``(z, *, out) -> act(z)``.
    backward : callable
        ``(g, z, *, grad_input) -> g * act'(z)``, in one pass.
    curvature : callable
        ``z -> act''(z)``.
    """

    value: Callable[..., Tensor]
    backward: Callable[..., Tensor]
    curvature: Callable[[Tensor], Tensor]


def _silu_curvature(z: Tensor) -> Tensor:
    gate = torch.sigmoid(z)
    bell = gate * (1 - gate)
    return bell.mul_((1 - 2 * gate).mul_(z).add_(2))


def _gelu_curvature(z: Tensor) -> Tensor:
    squared = z * z
    density = torch.exp(-0.5 * squared) * 0.3989422804014327  # 1 / sqrt(2 pi)
    return density.mul_(2 - squared)


ACTIVATIONS: dict[str, Activation] = {
    "silu": Activation(
        torch.ops.aten.silu.out, torch.ops.aten.silu_backward.grad_input, _silu_curvature
    ),
    "gelu": Activation(
        torch.ops.aten.gelu.out, torch.ops.aten.gelu_backward.grad_input, _gelu_curvature
    ),
}


class MemoryForm(NamedTuple):
    """What kind of function the memory is; everything about it that is not a fast weight.

    Parameters
    ----------
    activation : {"silu", "gelu"}
    residual : bool
        Whether the memory adds its input to its output.
    norm : tuple of Tensor, optional
        Gain and bias of the LayerNorm on the MLP's output, ``(H, D)``; None leaves it out.
    huber_delta : float, optional
        Where the Huber loss turns from quadratic to linear, per channel; None is the l2 loss.
    """

    activation: str = "silu"
    residual: bool = False
    norm: tuple[Tensor, Tensor] | None = None
    huber_delta: float | None = None


def apply_memory(weights: Weights, x: Tensor, form: MemoryForm) -> Tensor:
    """Read the memory: ``M(x)``.

    Parameters
    ----------
    weights : tuple of Tensor
        Per layer ``(B, H, d_in, d_out)``.
    x : Tensor
        ``(B, H, n, D)``.

    Returns
    -------
    Tensor
        ``(B, H, n, D)``.
    """
    activate = getattr(functional, form.activation)
    z = x @ weights[0]
    for layer in weights[1:]:
        z = activate(z) @ layer
    if form.norm is not None:
        gain, bias = form.norm
        z = functional.layer_norm(z, z.shape[-1:], eps=NORM_EPS)
        z = z * gain[:, None] + bias[:, None]
    return x + z if form.residual else z
