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


def _silu_slope(z: Tensor) -> Tensor:
    gate = torch.sigmoid(z)
    return gate * (1 + z * (1 - gate))


def _gelu_slope(z: Tensor) -> Tensor:
    density = torch.exp(-0.5 * z * z) * 0.3989422804014327  # 1 / sqrt(2 pi)
    return 0.5 * (1 + torch.erf(z * 0.7071067811865476)) + z * density


ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "silu": (functional.silu, _silu_slope),
    "gelu": (functional.gelu, _gelu_slope),
}
"""Name -> (activation, its derivative)."""


class MemoryForm(NamedTuple):
    """What kind of function the memory is; everything about it that is not a fast weight.

    Parameters
    ----------
    activation : {"silu", "gelu"}
    residual : bool
        Whether the memory adds its input to its output.
    norm : tuple of Tensor, optional
        Gain and bias ``(H, D)`` of the LayerNorm on the MLP's output; None leaves it out.
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
    activate, _ = ACTIVATIONS[form.activation]
    z = x @ weights[0]
    for layer in weights[1:]:
        z = activate(z) @ layer
    return finish(z, x, form)


def finish(z: Tensor, x: Tensor, form: MemoryForm) -> Tensor:
    """From the last layer's product ``z`` to the memory's output: LayerNorm, then residual."""
    if form.norm is not None:
        gain, bias = form.norm
        z = functional.layer_norm(z, z.shape[-1:], eps=NORM_EPS)
        z = z * gain[:, None] + bias[:, None]
    return x + z if form.residual else z


def backward_signals(
    weights: Weights, keys: Tensor, values: Tensor, form: MemoryForm
) -> tuple[list[Tensor], list[Tensor]]:
    """Surprise of each token in factored form: ``u_j^(l) = a_j^T delta_j`` for every layer l.

    The gradient of the associative loss with respect to one layer's weights is the outer product
    of that layer's input ``a_j`` and the error ``delta_j`` propagated back to its output.

    Returns
    -------
    inputs, deltas : lists of Tensor
        Per layer ``(B, H, n, d_in)`` and ``(B, H, n, d_out)``.
    """
    activate, slope = ACTIVATIONS[form.activation]
    inputs, products = [keys], [keys @ weights[0]]
    for layer in weights[1:]:
        inputs.append(activate(products[-1]))
        products.append(inputs[-1] @ layer)

    error = 2 * (finish(products[-1], keys, form) - values)
    if form.huber_delta is not None:
        error = error.clamp(-2 * form.huber_delta, 2 * form.huber_delta)
    deltas = [
        error if form.norm is None else _norm_backward(products[-1], error * form.norm[0][:, None])
    ]
    for layer, product in zip(reversed(weights[1:]), reversed(products[:-1]), strict=True):
        deltas.append((deltas[-1] @ layer.mT) * slope(product))
    return inputs, deltas[::-1]


def _norm_backward(z: Tensor, error: Tensor) -> Tensor:
    """Propagate the error back through the plain LayerNorm (no gain, no bias) applied to z."""
    centred = z - z.mean(-1, keepdim=True)
    inverse_std = torch.rsqrt(centred.square().mean(-1, keepdim=True) + NORM_EPS)
    unit = centred * inverse_std
    along = (error * unit).mean(-1, keepdim=True)
    return (error - error.mean(-1, keepdim=True) - unit * along) * inverse_std
