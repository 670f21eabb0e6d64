"""Writing, tile after tile: surprise at the anchor, then weights and momentum at the chunk's end.

This is the only part of the recurrence that is sequential, so it does as little as it can: reading
(``chunk_read.py``) and everything about gates alone is batched over chunks. ``ops/README.md``,
section 2, has the equations, ``chunk_write_backward.py`` the way back.

Shapes: K chunks of b tokens, N independent memories. ``fast`` holds, per layer, the weights and
below them the momentum, ``(N, P d_in, d_out)``; P is 1 without momentum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from titans_core.ops.chunk_gates import ChunkGates
from titans_core.ops.layer_norm import normalise
from titans_core.ops.memory_mlp import ACTIVATIONS, MemoryForm
from titans_core.ops.workspace import Workspace


class Surprise(NamedTuple):
    """Surprise in factored form, ``u_j = a_j^T delta_j``; lists over layers of ``(K, N, b, ...)``.

    Parameters
    ----------
    inputs, deltas : list of Tensor
        a, what a layer sees of each key; delta, the error propagated back to its output.
    products, pulled : list of Tensor
        ``a W`` of each layer; ``delta W^T`` of each layer but the first.
    error : Tensor
        The (clipped) derivative of the loss at the memory's output.
    """

    inputs: Sequence[Tensor]
    deltas: Sequence[Tensor]
    products: Sequence[Tensor]
    pulled: Sequence[Tensor]
    error: Tensor

    def each(self) -> list[Surprise]:
        """Views of one tile after the other."""
        several = (list(zip(*(x.unbind() for x in xs), strict=True)) for xs in self[:4])
        inputs, deltas, products, pulled = several
        errors = self.error.unbind()
        pulled = pulled or [()] * len(errors)
        return [
            Surprise(*own) for own in zip(inputs, deltas, products, pulled, errors, strict=True)
        ]

    def together(self) -> Surprise:
        """Views with chunks and memories on one axis, ``(K N, b, ...)``."""
        inputs, deltas, products, pulled = ([x.flatten(0, 1) for x in xs] for xs in self[:4])
        return Surprise(inputs, deltas, products, pulled, self.error.flatten(0, 1))


class Written(NamedTuple):
    """What K chunks wrote.

    Parameters
    ----------
    fast : list of Tensor
        ``(K + 1, N, P d_in, d_out)``: before each chunk, and after the last.
    anchor : list of list of Tensor
        Per tile and layer ``(N, d_in, d_out)``: where its surprise was measured.
    surprise : Surprise
    """

    fast: list[Tensor]
    anchor: list[list[Tensor]]
    surprise: Surprise


def write_chunks(
    k: Tensor,
    v: Tensor,
    gates: ChunkGates,
    start: list[Tensor],
    anchor: list[Tensor] | None,
    rest: list[Tensor] | None,
    form: MemoryForm,
    per_chunk: int,
    into: list[Tensor],
    space: Workspace,
) -> Written:
    """Write K tiles one after the other.

    Parameters
    ----------
    k, v : Tensor
        ``(K, N, b, D)``.
    start : list of Tensor
        ``fast`` before the first chunk.
    anchor : list of Tensor, optional
        Where one chunk alone was opened earlier; None: every chunk begins here.
    rest : list of Tensor, optional
        What forgetting leads to, ``(N, d_in, d_out)``; None is zero.
    per_chunk : int
        Tiles that share an anchor, the weights before the first of them.
    into : list of Tensor
        Where ``Written.fast`` goes.
    """
    layers, parts = range(len(start)), gates.token_end.shape[-1]
    memory = [weights_of(f, parts) for f in into]
    surprise = _room(k, into, space)
    for f, s in zip(into, start, strict=True):
        f[0] = s
    # Views of one chunk, made once: in the loop every call counts.
    fast, weights = ([x.unbind() for x in xs] for xs in (into, memory))
    anchors = anchors_of(weights, anchor, per_chunk)
    flat = [torch.unflatten(f, 2, (parts, -1)).flatten(3).unbind() for f in into]
    transition, share = gates.start_end.unbind(), gates.token_end[..., None].unbind()
    forgotten = (1 - gates.start_end[..., :1, :1]).unbind()
    values = v.unbind()
    for i, own in enumerate(surprise.each()):
        _be_surprised(own, values[i], anchors[i], form)
        for layer in layers:
            torch.bmm(transition[i], flat[layer][i], out=flat[layer][i + 1])
            if rest is not None:
                weights[layer][i + 1].addcmul_(rest[layer], forgotten[i])
            shares = (own.inputs[layer][:, :, None] * share[i]).flatten(2)
            fast[layer][i + 1].baddbmm_(shares.mT, own.deltas[layer], alpha=-1)
    return Written(into, anchors, surprise)


def revisit_chunks(
    k: Tensor,
    v: Tensor,
    parts: int,
    fast: list[Tensor],
    form: MemoryForm,
    per_chunk: int,
    space: Workspace,
) -> Written:
    """The same as ``write_chunks`` where ``fast`` is known: all tiles at once."""
    memory = [weights_of(f, parts) for f in fast]
    surprise = _room(k, fast, space)
    anchors = [m[:-1:per_chunk] for m in memory]
    if per_chunk > 1:
        anchors = [a.repeat_interleave(per_chunk, 0) for a in anchors]
    own = form
    if form.norm is not None:
        gain, bias = (x.repeat(len(k), 1, 1) for x in form.norm)
        own = form._replace(norm=(gain, bias))
    _be_surprised(surprise.together(), v.flatten(0, 1), [a.flatten(0, 1) for a in anchors], own)
    return Written(fast, anchors_of([m.unbind() for m in memory], None, per_chunk), surprise)


def anchors_of(
    weights: list[tuple[Tensor, ...]], anchor: list[Tensor] | None, per_chunk: int
) -> list[list[Tensor]]:
    """Per tile and layer, where surprise is measured: its chunk's start weights, or as given."""
    if anchor is not None:
        return [anchor]
    tiles = len(weights[0]) - 1
    return [[w[i - i % per_chunk] for w in weights] for i in range(tiles)]


def weights_of(fast: Tensor, parts: int) -> Tensor:
    """The weights among weights and momentum, ``(..., P d_in, d_out)``, as a view."""
    return fast[..., : fast.shape[-2] // parts, :]


def _room(k: Tensor, fast: list[Tensor], space: Workspace) -> Surprise:
    """Where the surprise of K chunks goes; the first layer's inputs are the keys themselves."""
    lead, widths = k.shape[:3], [f.shape[-1] for f in fast]

    def room(name: str, over: Sequence[int]) -> list[Tensor]:
        return [space(f"{name} {i}", *lead, width) for i, width in enumerate(over)]

    return Surprise(
        [k, *room("inputs", widths[:-1])],
        room("deltas", widths),
        room("products", widths),
        room("pulled", widths[:-1]),
        space("error", *k.shape),
    )


def _be_surprised(out: Surprise, values: Tensor, anchor: list[Tensor], form: MemoryForm) -> None:
    """Forward through the memory, then the error back through it; fills all of ``out``."""
    act, last = ACTIVATIONS[form.activation], len(anchor) - 1
    for layer, weight in enumerate(anchor):
        torch.bmm(out.inputs[layer], weight, out=out.products[layer])
        if layer < last:
            act.value(out.products[layer], out=out.inputs[layer + 1])
    answer, normalised = out.products[last], None
    if form.norm is not None:
        normalised = normalise(answer)
        answer = torch.addcmul(form.norm[1], normalised.unit, form.norm[0])
    if form.residual:
        answer = answer + out.inputs[0]
    torch.sub(answer, values, out=out.error).mul_(2)
    if form.huber_delta is not None:
        out.error.clamp_(-2 * form.huber_delta, 2 * form.huber_delta)
    if form.norm is None or normalised is None:
        out.deltas[last].copy_(out.error)
    else:
        out.deltas[last].copy_(normalised.pull(out.error * form.norm[0]))
    for layer in range(last, 0, -1):
        torch.bmm(out.deltas[layer], anchor[layer].mT, out=out.pulled[layer - 1])
        act.backward(
            out.pulled[layer - 1], out.products[layer - 1], grad_input=out.deltas[layer - 1]
        )
