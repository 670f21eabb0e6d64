"""The way back through ``chunk_write.py``, from the last chunk to the first.

Each product ``X W`` gives two: ``g W^T`` and ``X^T g``. The error ran through the memory backwards,
so its gradient runs forwards, and bends at every activation and at the LayerNorm.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    g_anchor: list[list[Tensor]],
    g_rest: list[Tensor] | None,
    space: Workspace,
) -> WriteGradients:
    """From gradients of all that ``Written`` holds to those of tokens and gates.

    ``g_fast``, ``g_inputs`` and ``g_deltas`` come with what reading asks for, ``g_fast[-1]`` with
    what comes after the run; they are completed in place, ``g_fast[0]`` being the gradient of
    ``start``. ``g_anchor`` (like ``written.anchor``; views of ``g_fast`` where an anchor is a
    chunk's start) and ``g_rest`` are added to.
    """
    surprise, layers = written.surprise, range(len(g_fast))
    tiles, parts = len(g_inputs[0]), gates.token_end.shape[-1]
    g_memory = [weights_of(f, parts) for f in g_fast]
    flat, g_flat = (
        [torch.unflatten(f, 2, (parts, -1)).flatten(3) for f in xs] for xs in (written.fast, g_fast)
    )
    widths = [(*a.shape[:3], parts * a.shape[3]) for a in surprise.inputs]
    shares, g_shares = (
        [space(f"{name} {i}", *width) for i, width in enumerate(widths)]
        for name in ("shares", "g shares")
    )
    for a, out in zip(surprise.inputs, shares, strict=True):
        torch.mul(
            a[..., None, :], gates.token_end[..., None], out=torch.unflatten(out, 3, (parts, -1))
        )
    bends = [
        ACTIVATIONS[form.activation].curvature(z).mul_(pulled)
        for z, pulled in zip(surprise.products[:-1], surprise.pulled, strict=True)
    ]
    loss = _Loss.of(surprise, form)
    g_answer, g_error = (space(name, *surprise.error.shape) for name in ("g answer", "g error"))

    # Views of one tile, made once: in the loop every call counts.
    after, after_flat, share, g_share = (_each(xs) for xs in (g_fast, g_flat, shares, g_shares))
    g_input, g_delta, bend = (_each(xs) or [()] * tiles for xs in (g_inputs, g_deltas, bends))
    transition = gates.start_end.mT.unbind()
    portion = list(zip(*(x.unbind() for x in gates.token_end[..., None].unbind(-2)), strict=True))
    own, own_loss = surprise.each(), loss.each()
    outs = list(zip(g_answer.unbind(), g_error.unbind(), strict=True))
    for i in reversed(range(tiles)):
        for layer in layers:
            end = after[i + 1][layer]
            torch.bmm(own[i].deltas[layer], end.mT, out=g_share[i][layer])
            for part, g in zip(portion[i], g_share[i][layer].chunk(parts, dim=-1), strict=True):
                g_input[i][layer].addcmul_(g, part, value=-1)
            g_delta[i][layer].baddbmm_(share[i][layer], end, alpha=-1)
            after_flat[i][layer].baddbmm_(transition[i], after_flat[i + 1][layer])
        _surprise_backward(
            own[i],
            written.anchor[i],
            form,
            g_input[i],
            g_delta[i],
            g_anchor[i],
            bend[i],
            own_loss[i],
            outs[i],
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

    def each(self) -> list[_Loss]:
        """Views of one tile after the other."""
        tiles = len(self.scaled)
        clipped = [None] * tiles if self.clipped is None else self.clipped.unbind()
        normalised: Sequence[Normalised | None] = [None] * tiles
        if self.normalised is not None:
            normalised = [
                Normalised(*x) for x in zip(*(x.unbind() for x in self.normalised), strict=True)
            ]
        both = (self.scaled.unbind(), self.along.unbind())
        return [_Loss(*x) for x in zip(clipped, normalised, *both, strict=True)]


def _each(several: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
    """Per tile, its views of several tensors."""
    return list(zip(*(x.unbind() for x in several), strict=True))


def _surprise_backward(
    own: Surprise,
    anchor: Sequence[Tensor],
    form: MemoryForm,
    g_inputs: Sequence[Tensor],
    g_deltas: Sequence[Tensor],
    g_anchor: Sequence[Tensor],
    bends: Sequence[Tensor],
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
