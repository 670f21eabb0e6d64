"""Reading K chunks at once, each token from the memory as it was right after its own write.

``z = beta (h W) + f (h S) - (tril(h a^T) * G) delta``, layer by layer (``ops/README.md``, section 2);
or, cheaper, from each chunk's anchor. What was written is known by now, so nothing here is
sequential. Shapes as in ``chunk_write.py``; inside, ``(K N, b, ...)``.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from titans_core.ops.chunk_gates import ChunkGates
from titans_core.ops.chunk_write import Written
from titans_core.ops.layer_norm import Normalised, normalise
from titans_core.ops.memory_mlp import ACTIVATIONS, MemoryForm


class Read(NamedTuple):
    """What reading leaves for its gradient, per layer ``(K N, b, ...)``.

    Parameters
    ----------
    hidden, products : list of Tensor
        What each layer sees of the queries, h, and what it makes of it, z.
    scores : list of Tensor
        ``h . a``; empty when the anchor is read.
    normalised : Normalised, optional
        The LayerNorm of the last product.
    """

    hidden: list[Tensor]
    products: list[Tensor]
    scores: list[Tensor]
    normalised: Normalised | None


def read_chunks(
    q: Tensor,
    written: Written,
    gates: ChunkGates,
    rest: list[Tensor] | None,
    form: MemoryForm,
) -> tuple[Tensor, Read]:
    """Queries ``(K, N, b, D)`` -> what they read, of the same shape."""
    act = ACTIVATIONS[form.activation]
    start_read, token_read = gates.start_read.flatten(0, 1), gates.token_read.flatten(0, 1)
    hidden, products, scores = [q.flatten(0, 1)], [], []
    for layer, fast in enumerate(written.fast):
        h = hidden[-1]
        a, delta = written.inputs[layer].flatten(0, 1), written.deltas[layer].flatten(0, 1)
        scores.append(torch.bmm(h, a.mT))
        z = torch.bmm(_spread(h, start_read), fast[:-1].flatten(0, 1))
        z.baddbmm_(scores[-1] * token_read, delta, alpha=-1)
        if rest is not None:  # what was forgotten of the start weights was replaced by the rest
            z += _times_rest(h * (1 - start_read[..., :1]), rest[layer])
        products.append(z)
        if layer < len(written.fast) - 1:
            hidden.append(act.value(z))
    y, normalised = _finish(products[-1], q, form)
    return y, Read(hidden, products, scores, normalised)


def read_anchors(q: Tensor, written: Written, form: MemoryForm) -> tuple[Tensor, Read]:
    """As ``read_chunks``, but every token of a chunk reads the chunk's anchor."""
    act = ACTIVATIONS[form.activation]
    hidden, products = [q.flatten(0, 1)], []
    for layer, anchor in enumerate(written.anchor):
        products.append(torch.bmm(hidden[-1], anchor.flatten(0, 1)))
        if layer < len(written.anchor) - 1:
            hidden.append(act.value(products[-1]))
    y, normalised = _finish(products[-1], q, form)
    return y, Read(hidden, products, [], normalised)


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
) -> ReadGradients:
    """Backward of ``read_chunks``; ``g_rest`` is added to. ``fast`` gets one row more, empty."""
    act = ACTIVATIONS[form.activation]
    lead = g_y.shape[:2]
    start_read, token_read = gates.start_read.flatten(0, 1), gates.token_read.flatten(0, 1)
    parts = start_read.shape[-1]
    g_start_read, g_token_read = torch.zeros_like(start_read), torch.zeros_like(token_read)
    layers = range(len(written.fast))
    g_fast = [torch.empty_like(f) for f in written.fast]
    g_inputs, g_deltas = (
        [torch.empty_like(x) for x in xs] for xs in (written.inputs, written.deltas)
    )
    g_z, g_norm = _finish_backward(read, g_y, form)
    for layer in reversed(layers):
        h, scores = read.hidden[layer], read.scores[layer]
        a, delta = written.inputs[layer].flatten(0, 1), written.deltas[layer].flatten(0, 1)
        # The chunk's own tokens: - (scores * G) delta.
        g_weighted = torch.bmm(g_z, delta.mT).neg_()
        g_token_read.addcmul_(g_weighted, scores)
        torch.bmm((scores * token_read).neg_().mT, g_z, out=g_deltas[layer].flatten(0, 1))
        g_scores = g_weighted.mul_(token_read)
        torch.bmm(g_scores.mT, h, out=g_inputs[layer].flatten(0, 1))
        # Start weights and momentum.
        g_spread = torch.bmm(g_z, written.fast[layer][:-1].flatten(0, 1).mT).unflatten(
            2, (parts, -1)
        )
        g_start_read += (g_spread * h[:, :, None]).sum(-1)
        g_h = (g_spread * start_read[..., None]).sum(2).baddbmm_(g_scores, a)
        torch.bmm(_spread(h, start_read).mT, g_z, out=g_fast[layer][:-1].flatten(0, 1))
        if rest is not None and g_rest is not None:
            lost = 1 - start_read[..., :1]
            g_rested = _times_rest(g_z, rest[layer].mT)
            g_start_read[..., 0] -= (g_rested * h).sum(-1)
            g_h.addcmul_(g_rested, lost)
            g_rest[layer] += _over_chunks(h * lost, lead).mT @ _over_chunks(g_z, lead)
        g_z = g_h if layer == 0 else act.backward(g_h, read.products[layer - 1])
    g_q = g_z.unflatten(0, lead)
    return ReadGradients(
        g_q + g_y if form.residual else g_q,
        g_fast,
        g_inputs,
        g_deltas,
        g_start_read.unflatten(0, lead),
        g_token_read.unflatten(0, lead),
        g_norm,
    )


def read_anchors_backward(
    read: Read, g_y: Tensor, written: Written, form: MemoryForm
) -> tuple[Tensor, list[Tensor], tuple[Tensor, Tensor] | None]:
    """Backward of ``read_anchors``: gradients of q, of each chunk's anchor, of the norm."""
    act = ACTIVATIONS[form.activation]
    lead = g_y.shape[:2]
    g_anchor = []
    g_z, g_norm = _finish_backward(read, g_y, form)
    for layer in reversed(range(len(written.anchor))):
        g_anchor.append(torch.bmm(read.hidden[layer].mT, g_z).unflatten(0, lead))
        g_h = torch.bmm(g_z, written.anchor[layer].flatten(0, 1).mT)
        g_z = g_h if layer == 0 else act.backward(g_h, read.products[layer - 1])
    g_q = g_z.unflatten(0, lead)
    return (g_q + g_y if form.residual else g_q), g_anchor[::-1], g_norm


def _spread(x: Tensor, coefficients: Tensor) -> Tensor:
    """``(N, b, d)`` times ``(N, b, P)`` -> ``(N, b, P d)``: a copy of x for each part of ``fast``."""
    return (x[:, :, None] * coefficients[..., None]).flatten(2)


def _over_chunks(x: Tensor, lead: torch.Size) -> Tensor:
    """``(K N, b, d)`` -> ``(N, K b, d)``."""
    return x.unflatten(0, lead).transpose(0, 1).flatten(1, 2)


def _times_rest(x: Tensor, rest: Tensor) -> Tensor:
    """``(K N, b, d)`` times the same ``(N, d, e)`` for every chunk."""
    lead = torch.Size((len(x) // len(rest), len(rest)))
    product = _over_chunks(x, lead) @ rest
    return product.unflatten(1, (lead[0], -1)).transpose(0, 1).flatten(0, 1)


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
