"""Surprise of a chunk's tokens in factored form, ``u_j = a_j^T delta_j`` per layer, and its gradient.

``a_j`` is what the layer sees of key j, ``delta_j`` the error propagated back to its output, both at
the anchor. Tensors are ``(N, b, channels)``: N independent memories, b tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from titans_core.ops.memory_mlp import ACTIVATIONS, NORM_EPS, MemoryForm, Weights


class Normalised(NamedTuple):
    """A plain LayerNorm's output, and what its backward needs."""

    unit: Tensor
    source: Tensor
    mean: Tensor
    inverse_std: Tensor

    def pull(self, g: Tensor) -> Tensor:
        """Propagate a gradient from the output to the source (a symmetric linear map)."""
        pulled: Tensor = torch.ops.aten.native_layer_norm_backward(
            g,
            self.source,
            [g.shape[-1]],
            self.mean,
            self.inverse_std,
            None,
            None,
            [True, False, False],
        )[0]
        return pulled


def normalise(z: Tensor) -> Normalised:
    """LayerNorm over channels, without gain and bias."""
    unit, mean, inverse_std = torch.ops.aten.native_layer_norm(
        z, [z.shape[-1]], None, None, NORM_EPS
    )
    return Normalised(unit, z, mean, inverse_std)


class Surprise(NamedTuple):
    """Per layer, what a chunk's keys and errors are at the anchor.

    Parameters
    ----------
    inputs, products, deltas : list of Tensor
        a, ``a W`` and delta of each layer.
    pulled : list of Tensor
        ``delta W^T`` of each layer but the first: delta before the activation's slope.
    error : Tensor
        The (clipped) derivative of the loss at the memory's output.
    normalised : Normalised, optional
        The LayerNorm of the last product.
    """

    inputs: list[Tensor]
    products: list[Tensor]
    deltas: list[Tensor]
    pulled: list[Tensor]
    error: Tensor
    normalised: Normalised | None

    def norm(self) -> Tensor:
        """``(N, b)``: norm of each token's gradient, over all layers."""
        squares = [
            a.square().sum(-1) * d.square().sum(-1)
            for a, d in zip(self.inputs, self.deltas, strict=True)
        ]
        return torch.stack(squares).sum(0).sqrt()


def surprise(anchor: Weights, keys: Tensor, values: Tensor, form: MemoryForm) -> Surprise:
    """Forward through the memory, then the error back through it; gain and bias ``(N, 1, D)``."""
    act = ACTIVATIONS[form.activation]
    inputs, products = [keys], [torch.bmm(keys, anchor[0])]
    for weight in anchor[1:]:
        inputs.append(act.value(products[-1]))
        products.append(torch.bmm(inputs[-1], weight))

    normalised = None
    answer = products[-1]
    if form.norm is not None:
        normalised = normalise(answer)
        answer = torch.addcmul(form.norm[1], normalised.unit, form.norm[0])
    if form.residual:
        answer = answer + keys
    error = (answer - values).mul_(2)
    if form.huber_delta is not None:
        error = error.clamp_(-2 * form.huber_delta, 2 * form.huber_delta)

    delta = error
    if form.norm is not None and normalised is not None:
        delta = normalised.pull(error * form.norm[0])
    deltas, pulled = [delta], []
    for weight, product in zip(reversed(anchor[1:]), reversed(products[:-1]), strict=True):
        pulled.append(torch.bmm(deltas[-1], weight.mT))
        deltas.append(act.backward(pulled[-1], product))
    return Surprise(inputs, products, deltas[::-1], pulled[::-1], error, normalised)


def surprise_backward(
    tape: Surprise,
    anchor: Weights,
    form: MemoryForm,
    g_inputs: list[Tensor],
    g_deltas: list[Tensor],
    g_anchor: list[Tensor],
    g_norm: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor]:
    """From gradients of every a and delta to those of keys and values.

    ``g_anchor`` and ``g_norm`` are added to in place; ``g_inputs`` and ``g_deltas`` are used up.
    """
    act = ACTIVATIONS[form.activation]
    # The error ran from the last layer to the first: its gradient runs from the first to the last.
    g_products = []
    for layer in range(len(anchor) - 1):
        product, g_delta = tape.products[layer], g_deltas[layer]
        g_pulled = act.backward(g_delta, product)
        g_products.append(act.curvature(product).mul_(g_delta).mul_(tape.pulled[layer]))
        g_deltas[layer + 1].baddbmm_(g_pulled, anchor[layer + 1])
        g_anchor[layer + 1].baddbmm_(g_pulled.mT, tape.deltas[layer + 1])

    g_last, g_answer = _loss_backward(tape, form, g_deltas[-1], g_norm)
    g_products.append(g_last)
    # The keys ran from the first layer to the last.
    for layer in reversed(range(len(anchor))):
        g_inputs[layer].baddbmm_(g_products[layer], anchor[layer].mT)
        g_anchor[layer].baddbmm_(tape.inputs[layer].mT, g_products[layer])
        if layer > 0:
            g_products[layer - 1] += act.backward(g_inputs[layer], tape.products[layer - 1])
    g_keys = g_inputs[0].add_(g_answer) if form.residual else g_inputs[0]
    return g_keys, g_answer.neg_()


def _loss_backward(
    tape: Surprise, form: MemoryForm, g_delta: Tensor, g_norm: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor]:
    """From the gradient of the last delta to those of the last product and of the answer."""
    if form.norm is None or tape.normalised is None or g_norm is None:
        g_answer = _huber_mask(tape.error, form, 2 * g_delta)
        return g_answer.clone(), g_answer
    gain, normalised = form.norm[0], tape.normalised
    unit, inverse_std = normalised.unit, normalised.inverse_std
    scaled = tape.error * gain
    g_scaled = normalised.pull(g_delta)
    g_answer = _huber_mask(tape.error, form, 2 * g_scaled * gain)
    g_norm[0].add_((g_scaled * tape.error + g_answer * unit).sum(1, keepdim=True))
    g_norm[1].add_(g_answer.sum(1, keepdim=True))
    # delta = J(unit, inverse_std) scaled: J moves with the product, too.
    along = (scaled * unit).mean(-1, keepdim=True)
    g_along = (g_delta * unit).mean(-1, keepdim=True)
    g_unit = torch.addcmul(
        g_answer * gain, g_delta * along + scaled * g_along, inverse_std, value=-1
    )
    stretch = (g_delta * tape.deltas[-1]).mean(-1, keepdim=True) * inverse_std
    return normalised.pull(g_unit).addcmul_(unit, stretch, value=-1), g_answer


def _huber_mask(error: Tensor, form: MemoryForm, g: Tensor) -> Tensor:
    """Where the error was clipped, nothing passes."""
    if form.huber_delta is None:
        return g
    return g.masked_fill_(error.abs() >= 2 * form.huber_delta, 0)
