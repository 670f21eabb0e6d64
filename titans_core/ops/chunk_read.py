"""Reading K tiles at once, each token from the memory as it was right after its own write.

``z = beta (h W) + f (h S) - (tril(h a^T) * G) delta``, layer by layer (``ops/README.md``,
section 2); or, cheaper, from each chunk's anchor. What was written is known by now, so nothing
here is sequential. Shapes as in ``chunk_write.py``; inside, ``(K N, b, ...)``.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from titans_core.ops.chunk_gates import ChunkGates
from titans_core.ops.chunk_write import Written
from titans_core.ops.layer_norm import Normalised, normalise
from titans_core.ops.memory_mlp import ACTIVATIONS, MemoryForm
from titans_core.ops.workspace import Workspace


class Read(NamedTuple):
    """What reading leaves for its gradient, per layer ``(K N, b, ...)``.

    Parameters
    ----------
    hidden, products : list of Tensor
        What each layer sees of the queries, h, and what it makes of it, z.
    spreads : list of Tensor
        h times its share of start weights and momentum; empty when the anchor is read.
    scores : list of Tensor
        ``h . a``; empty when the anchor is read.
    normalised : Normalised, optional
        The LayerNorm of the last product.
    """

    hidden: list[Tensor]
    products: list[Tensor]
    spreads: list[Tensor]
    scores: list[Tensor]
    normalised: Normalised | None


def read_chunks(
    q: Tensor,
    written: Written,
    gates: ChunkGates,
    rest: list[Tensor] | None,
    form: MemoryForm,
    products: list[Tensor],
    scores: list[Tensor],
    space: Workspace,
) -> tuple[Tensor, Read]:
    """Queries ``(K, N, b, D)`` -> what they read, of the same shape.

    ``products`` and ``scores`` is where those of the tape go, so that they may be kept.
    """
    start_read, token_read = gates.start_read.flatten(0, 1), gates.token_read.flatten(0, 1)
    surprise = written.surprise.together()
    hidden, spreads = [q.flatten(0, 1)], []
    for layer, fast in enumerate(written.fast):
        h, z, score = hidden[-1], products[layer], scores[layer]
        spreads.append(
            _spread(h, start_read, space(f"spread {layer}", *h.shape[:2], fast.shape[2]))
        )
        torch.bmm(spreads[-1], fast[:-1].flatten(0, 1), out=z)
        torch.bmm(h, surprise.inputs[layer].mT, out=score)
        weighted = torch.mul(score, token_read, out=space("weighted", *score.shape))
        z.baddbmm_(weighted, surprise.deltas[layer], alpha=-1)
        if rest is not None:  # what was forgotten of the start weights was replaced by the rest
            z += _times_rest(h * (1 - start_read[..., :1]), rest[layer])
        hidden += _hidden(layer, z, written, form, space)
    y, normalised = _finish(products[-1], q, form)
    return y, Read(hidden, products, spreads, scores, normalised)


def reread_chunks(
    q: Tensor,
    written: Written,
    gates: ChunkGates,
    form: MemoryForm,
    products: list[Tensor],
    scores: list[Tensor],
    space: Workspace,
) -> Read:
    """The tape of ``read_chunks`` where its products and scores were kept."""
    start_read = gates.start_read.flatten(0, 1)
    hidden, spreads = [q.flatten(0, 1)], []
    for layer, fast in enumerate(written.fast):
        h = hidden[-1]
        spreads.append(
            _spread(h, start_read, space(f"spread {layer}", *h.shape[:2], fast.shape[2]))
        )
        hidden += _hidden(layer, products[layer], written, form, space)
    normalised = None if form.norm is None else normalise(products[-1].view_as(q))
    return Read(hidden, products, spreads, scores, normalised)


def read_anchors(
    q: Tensor, written: Written, form: MemoryForm, space: Workspace
) -> tuple[Tensor, Read]:
    """As ``read_chunks``, but every token of a chunk reads the chunk's anchor."""
    hidden, products = [q.flatten(0, 1)], []
    for layer, anchor in enumerate(_stacked(written.anchor)):
        products.append(torch.bmm(hidden[-1], anchor))
        hidden += _hidden(layer, products[-1], written, form, space)
    y, normalised = _finish(products[-1], q, form)
    return y, Read(hidden, products, [], [], normalised)


def _spread(h: Tensor, start_read: Tensor, out: Tensor) -> Tensor:
    """Shares of h for start weights and momentum: ``(N, b, d)`` -> ``(N, b, P d)``."""
    parts = torch.unflatten(out, 2, (start_read.shape[-1], -1))
    torch.mul(h[:, :, None], start_read[..., None], out=parts)
    return out


def _hidden(
    layer: int, z: Tensor, written: Written, form: MemoryForm, space: Workspace
) -> list[Tensor]:
    """What the next layer sees, if there is one."""
    if layer == len(written.fast) - 1:
        return []
    out = space(f"hidden {layer}", *z.shape)
    return [ACTIVATIONS[form.activation].value(z, out=out)]


def _stacked(anchors: list[list[Tensor]]) -> list[Tensor]:
    """Per layer the anchors of all tiles, ``(K N, d_in, d_out)``."""
    return [torch.cat(each) for each in zip(*anchors, strict=True)]


class ReadGradients(NamedTuple):
    """Gradients of what reading was given; per layer, with the shapes of ``Written``."""

    q: Tensor
    fast: list[Tensor]
    inputs: list[Tensor]
    deltas: list[Tensor]
    start_read: Tensor
    token_read: Tensor
    norm: tuple[Tensor, Tensor] | None


def read_chunks_backward(
    read: Read,
    g_y: Tensor,
    written: Written,
    gates: ChunkGates,
    rest: list[Tensor] | None,
    form: MemoryForm,
    g_rest: list[Tensor] | None,
    space: Workspace,
) -> ReadGradients:
    """Backward of ``read_chunks``; ``g_rest`` is added to. ``fast`` gets one row more, empty."""
    act, lead = ACTIVATIONS[form.activation], g_y.shape[:2]
    start_read, token_read = gates.start_read.flatten(0, 1), gates.token_read.flatten(0, 1)
    surprise, parts = written.surprise, start_read.shape[-1]
    g_start_read, g_token_read = torch.zeros_like(start_read), torch.zeros_like(token_read)
    g_fast, g_inputs, g_deltas = (
        [space(f"g {name} {i}", *x.shape) for i, x in enumerate(xs)]
        for name, xs in (
            ("fast", written.fast),
            ("inputs", surprise.inputs),
            ("deltas", surprise.deltas),
        )
    )
    g_z, g_norm = _finish_backward(read, g_y, form)
    for layer in reversed(range(len(written.fast))):
        h, score, spread = read.hidden[layer], read.scores[layer], read.spreads[layer]
        a, delta = surprise.inputs[layer].flatten(0, 1), surprise.deltas[layer].flatten(0, 1)
        # The chunk's own tokens: - (scores * G) delta.
        g_weighted = torch.bmm(g_z, delta.mT, out=space("g weighted", *score.shape)).neg_()
        g_token_read.addcmul_(g_weighted, score)
        weighted = torch.mul(score, token_read, out=space("weighted", *score.shape)).neg_()
        torch.bmm(weighted.mT, g_z, out=g_deltas[layer].flatten(0, 1))
        g_scores = g_weighted.mul_(token_read)
        torch.bmm(g_scores.mT, h, out=g_inputs[layer].flatten(0, 1))
        # Start weights and momentum.
        torch.bmm(spread.mT, g_z, out=g_fast[layer][:-1].flatten(0, 1))
        g_spread = torch.bmm(
            g_z, written.fast[layer][:-1].flatten(0, 1).mT, out=space("g spread", *spread.shape)
        )
        g_h = torch.bmm(g_scores, a, out=space(f"g hidden {layer}", *h.shape))
        for part, g in enumerate(g_spread.chunk(parts, dim=-1)):
            g_h.addcmul_(g, start_read[..., part, None])
            g_start_read[..., part] += (g * h).sum(-1)
        if rest is not None and g_rest is not None:
            lost = 1 - start_read[..., :1]
            g_rested = _times_rest(g_z, rest[layer].mT)
            g_start_read[..., 0] -= (g_rested * h).sum(-1)
            g_h.addcmul_(g_rested, lost)
            g_rest[layer] += _over_chunks(h * lost, lead).mT @ _over_chunks(g_z, lead)
        if layer > 0:
            before = read.products[layer - 1]
            g_z = act.backward(g_h, before, grad_input=space(f"g read {layer}", *before.shape))
    g_q = torch.unflatten(g_h, 0, lead)
    return ReadGradients(
        g_q + g_y if form.residual else g_q,
        g_fast,
        g_inputs,
        g_deltas,
        torch.unflatten(g_start_read, 0, lead),
        torch.unflatten(g_token_read, 0, lead),
        g_norm,
    )


def read_anchors_backward(
    read: Read, g_y: Tensor, written: Written, form: MemoryForm
) -> tuple[Tensor, list[Tensor], tuple[Tensor, Tensor] | None]:
    """Backward of ``read_anchors``: gradients of q, of each chunk's anchor, of the norm."""
    act = ACTIVATIONS[form.activation]
    lead = g_y.shape[:2]
    anchors, g_anchors = _stacked(written.anchor), []
    g_z, g_norm = _finish_backward(read, g_y, form)
    for layer in reversed(range(len(anchors))):
        g_anchors.append(torch.unflatten(torch.bmm(read.hidden[layer].mT, g_z), 0, lead))
        g_h = torch.bmm(g_z, anchors[layer].mT)
        if layer > 0:
            g_z = act.backward(g_h, read.products[layer - 1], grad_input=torch.empty_like(g_h))
    g_q = torch.unflatten(g_h, 0, lead)
    return (g_q + g_y if form.residual else g_q), g_anchors[::-1], g_norm


def _over_chunks(x: Tensor, lead: torch.Size) -> Tensor:
    """``(K N, b, d)`` -> ``(N, K b, d)``."""
    split: Tensor = torch.unflatten(x, 0, lead)
    return split.transpose(0, 1).flatten(1, 2)


def _times_rest(x: Tensor, rest: Tensor) -> Tensor:
    """``(K N, b, d)`` times the same ``(N, d, e)`` for every chunk."""
    lead = torch.Size((x.shape[0] // rest.shape[0], rest.shape[0]))
    product = _over_chunks(x, lead) @ rest
    return torch.unflatten(product, 1, (lead[0], -1)).transpose(0, 1).flatten(0, 1)


def _finish(z: Tensor, q: Tensor, form: MemoryForm) -> tuple[Tensor, Normalised | None]:
    """From the last product ``(K N, b, D)`` to the output, like q: LayerNorm, then residual."""
    z, normalised = z.view_as(q), None
    if form.norm is not None:
        normalised = normalise(z)
        z = torch.addcmul(form.norm[1], normalised.unit, form.norm[0])
    return (z + q if form.residual else z), normalised


def _finish_backward(
    read: Read, g_y: Tensor, form: MemoryForm
) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
    if form.norm is None or read.normalised is None:
        return g_y.flatten(0, 1), None
    g_gain = (g_y * read.normalised.unit).sum((0, 2))[:, None]
    g_norm = (g_gain, g_y.sum((0, 2))[:, None])
    return read.normalised.pull(g_y * form.norm[0]).flatten(0, 1), g_norm
