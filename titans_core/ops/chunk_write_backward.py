"""The way back through ``chunk_write.py``, from the last chunk to the first.

Each product ``X W`` gives two: ``g W^T`` and ``X^T g``. The error ran through the memory backwards,
so its gradient runs forwards, and bends at every activation and at the LayerNorm.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from titans_core.ops.chunk_gates import ChunkGates
from titans_core.ops.chunk_write import Surprise, Written, weights_of
from titans_core.ops.layer_norm import Normalised, normalise
from titans_core.ops.memory_mlp import ACTIVATIONS, MemoryForm
from titans_core.ops.workspace import Workspace


class WriteGradients(NamedTuple):
    """Gradients of what ``write_chunks`` was given."""

    k: Tensor
    v: Tensor
    start_end: Tensor
    token_end: Tensor
    norm: tuple[Tensor, Tensor] | None


def write_chunks_backward(
    written: Written,
    gates: ChunkGates,
    rest: list[Tensor] | None,
    form: MemoryForm,
    g_fast: list[Tensor],
    g_inputs: list[Tensor],
    g_deltas: list[Tensor],
    g_anchor: list[Tensor] | None,
    g_rest: list[Tensor] | None,
    space: Workspace,
) -> WriteGradients:
    """From gradients of all that ``Written`` holds to those of tokens and gates.

    ``g_fast``, ``g_inputs`` and ``g_deltas`` come with what reading asks for, ``g_fast[-1]`` with
    what comes after the run; they are completed in place, ``g_fast[0]`` being the gradient of
    ``start``. ``g_anchor`` (None: each chunk's anchor are its start weights) and ``g_rest`` are
    added to.
    """
    surprise, layers = written.surprise, range(len(g_fast))
    chunks, parts = len(g_inputs[0]), gates.token_end.shape[-1]
    g_memory = [weights_of(f, parts) for f in g_fast]
    flat, g_flat = (
        [f.unflatten(2, (parts, -1)).flatten(3) for f in xs] for xs in (written.fast, g_fast)
    )
    g_shares = [
        space(f"g shares {i}", *a.shape[:3], parts * a.shape[3])
        for i, a in enumerate(surprise.inputs)
    ]
    loss = _Loss.of(surprise, form)
    bends = [
        ACTIVATIONS[form.activation].curvature(z).mul_(pulled)
        for z, pulled in zip(surprise.products[:-1], surprise.pulled, strict=True)
    ]

    each_g_fast, each_g_flat, each_g_share, each_g_input, each_g_delta, each_anchor, each_bend = (
        [x.unbind() for x in xs]
        for xs in (g_fast, g_flat, g_shares, g_inputs, g_deltas, written.anchor, bends)
    )
    each_g_anchor = [
        g_memory[layer].unbind() if g_anchor is None else (g_anchor[layer],) for layer in layers
    ]
    transition, share = gates.start_end.mT.unbind(), gates.token_end[..., None].unbind(-2)
    share_of = [s.unbind() for s in share]
    g_answer, g_error = (
        space("g answer", *surprise.error.shape),
        space("g error", *surprise.error.shape),
    )
    for i in reversed(range(chunks)):
        own = surprise.of(i)
        own_g_inputs, own_g_deltas = [g[i] for g in each_g_input], [g[i] for g in each_g_delta]
        for layer in layers:
            after, g_share = each_g_fast[layer][i + 1], each_g_share[layer][i]
            torch.bmm(own.deltas[layer], after.mT, out=g_share)
            for part, g in enumerate(g_share.chunk(parts, dim=-1)):
                own_g_inputs[layer].addcmul_(g, share_of[part][i], value=-1)
            shares = (own.inputs[layer][:, :, None] * gates.token_end[i][..., None]).flatten(2)
            own_g_deltas[layer].baddbmm_(shares, after, alpha=-1)
            each_g_flat[layer][i].baddbmm_(transition[i], each_g_flat[layer][i + 1])
        _surprise_backward(
            own,
            [a[i] for a in each_anchor],
            form,
            own_g_inputs,
            own_g_deltas,
            [g[i] for g in each_g_anchor],
            [bend[i] for bend in each_bend],
            loss.of_chunk(i),
            (g_answer[i], g_error[i]),
            space,
        )

    g_token_end = torch.zeros_like(gates.token_end)
    g_start_end = torch.zeros_like(gates.start_end)
    for layer in layers:
        for part, g in enumerate(g_shares[layer].chunk(parts, dim=-1)):
            g_token_end[..., part] -= (g * surprise.inputs[layer]).sum(-1)
        g_start_end += g_flat[layer][1:] @ flat[layer][:-1].mT
        if rest is not None and g_rest is not None:
            g_new, beta = g_memory[layer][1:], gates.start_end[..., :1, :1]
            for g, lost in zip(g_new, 1 - beta, strict=True):
                g_rest[layer].addcmul_(g, lost)
            g_start_end[..., 0, 0] -= (g_new * rest[layer]).sum((-2, -1))
    g_norm = None
    if loss.normalised is not None:
        g_gain = (g_error * surprise.error).addcmul_(g_answer, loss.normalised.unit)
        g_norm = (g_gain.sum((0, 2))[:, None], g_answer.sum((0, 2))[:, None])
    if form.residual:
        g_inputs[0] += g_answer
    return WriteGradients(g_inputs[0], -g_answer, g_start_end, g_token_end, g_norm)


class _Loss(NamedTuple):
    """What the loss leaves for its gradient, for many chunks or one."""

    clipped: Tensor | None
    normalised: Normalised | None
    scaled: Tensor
    along: Tensor

    @classmethod
    def of(cls, surprise: Surprise, form: MemoryForm) -> _Loss:
        error, normalised, scaled, along = surprise.error, None, surprise.error, surprise.error
        if form.norm is not None:
            normalised = normalise(surprise.products[-1])
            scaled = error * form.norm[0]
            along = (scaled * normalised.unit).mean(-1, keepdim=True)
        clipped = None if form.huber_delta is None else error.abs() >= 2 * form.huber_delta
        return cls(clipped, normalised, scaled, along)

    def of_chunk(self, i: int) -> _Loss:
        normalised = (
            None if self.normalised is None else Normalised(*(x[i] for x in self.normalised))
        )
        clipped = None if self.clipped is None else self.clipped[i]
        return _Loss(clipped, normalised, self.scaled[i], self.along[i])


def _surprise_backward(
    own: Surprise,
    anchor: list[Tensor],
    form: MemoryForm,
    g_inputs: list[Tensor],
    g_deltas: list[Tensor],
    g_anchor: list[Tensor],
    bends: list[Tensor],
    loss: _Loss,
    out: tuple[Tensor, Tensor],
    space: Workspace,
) -> None:
    """Back through one chunk's surprise; ``out`` gets the gradients of answer and scaled error."""
    backward, last = ACTIVATIONS[form.activation].backward, len(anchor) - 1
    for layer in range(last):
        g_delta = g_deltas[layer]
        through = space(f"through {layer}", *g_delta.shape)
        backward(g_delta, own.products[layer], grad_input=through)
        bends[layer].mul_(g_delta)  # now the gradient of the product
        g_deltas[layer + 1].baddbmm_(through, anchor[layer + 1])
        g_anchor[layer + 1].baddbmm_(through.mT, own.deltas[layer + 1])
    g_product = _loss_backward(own, form, g_deltas[last], loss, out)
    for layer in range(last, -1, -1):
        g_inputs[layer].baddbmm_(g_product, anchor[layer].mT)
        g_anchor[layer].baddbmm_(own.inputs[layer].mT, g_product)
        if layer > 0:
            through = space(f"through {layer - 1}", *g_inputs[layer].shape)
            backward(g_inputs[layer], own.products[layer - 1], grad_input=through)
            g_product = bends[layer - 1].add_(through)


def _loss_backward(
    own: Surprise, form: MemoryForm, g_delta: Tensor, loss: _Loss, out: tuple[Tensor, Tensor]
) -> Tensor:
    """From the gradient of the last delta to that of the last product; fills ``out``."""
    g_answer, g_error = out
    if form.norm is None or loss.normalised is None:
        torch.mul(g_delta, 2, out=g_answer)
        return g_answer if loss.clipped is None else g_answer.masked_fill_(loss.clipped, 0)
    gain, normalised = form.norm[0], loss.normalised
    unit, inverse_std = normalised.unit, normalised.inverse_std
    g_error.copy_(normalised.pull(g_delta))
    torch.mul(g_error, 2 * gain, out=g_answer)
    if loss.clipped is not None:  # where the error was clipped, nothing passes
        g_answer.masked_fill_(loss.clipped, 0)
    # delta = J(unit, inverse_std) scaled: J moves with the product, too.
    g_along = (g_delta * unit).mean(-1, keepdim=True)
    g_unit = (g_delta * loss.along).addcmul_(loss.scaled, g_along).mul_(-inverse_std)
    stretch = (g_delta * own.deltas[-1]).mean(-1, keepdim=True).mul_(inverse_std)
    g_product = normalised.pull(g_unit.addcmul_(g_answer, gain))
    return g_product.addcmul_(unit, stretch, value=-1)
