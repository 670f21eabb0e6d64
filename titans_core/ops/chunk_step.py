"""One chunk forward and backward: read every token, then move weights and momentum to its end.

``ops/README.md``, section 2, in code. Tensors are ``(N, b, channels)``: N independent memories, b
tokens. ``fast`` holds, per layer, the start weights and below them the start momentum,
``(N, P d_in, d_out)``, so that both are read in one product; P is 1 without momentum.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from titans_core.ops.chunk_gates import ChunkGates
from titans_core.ops.memory_mlp import ACTIVATIONS, MemoryForm, Weights
from titans_core.ops.surprise import Normalised, Surprise, normalise, surprise, surprise_backward


class ReadTape(NamedTuple):
    """What the reading of a chunk leaves for its gradient, per layer.

    Parameters
    ----------
    hidden, products : list of Tensor
        What each layer sees of the queries, h, and what it makes of it, z.
    scores : list of Tensor
        ``h . a``, ``(N, b, b)``; empty when only the anchor is read.
    normalised : Normalised, optional
        The LayerNorm of the last product.
    """

    hidden: list[Tensor]
    products: list[Tensor]
    scores: list[Tensor]
    normalised: Normalised | None


class ChunkTape(NamedTuple):
    """What a chunk's forward leaves for its backward."""

    fast: list[Tensor]
    anchor: Weights
    surprise: Surprise
    read: ReadTape
    gates: ChunkGates


class ChunkGradients(NamedTuple):
    """Gradients of what came into a chunk; ``gates`` as ``ChunkGates``."""

    q: Tensor
    k: Tensor
    v: Tensor
    fast: list[Tensor]
    gates: ChunkGates


def forward_chunk(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gates: ChunkGates,
    fast: list[Tensor],
    anchor: Weights | None,
    rest: Weights | None,
    form: MemoryForm,
    *,
    read_anchor: bool,
) -> tuple[Tensor, list[Tensor], ChunkTape]:
    """Read b tokens that share one anchor, and move ``fast`` to the chunk's end.

    ``anchor=None``: the chunk begins here, its anchor are the start weights.
    """
    if anchor is None:
        anchor = _memory_of(fast, gates)
    surprised = surprise(anchor, k, v, form)
    if read_anchor:
        y, read = _read_anchor(q, anchor, form)
    else:
        y, read = _read(q, surprised, gates, fast, rest, form)
    tape = ChunkTape(fast, anchor, surprised, read, gates)
    return y, _move(surprised, gates, fast, rest), tape


def backward_chunk(
    tape: ChunkTape,
    g_y: Tensor,
    g_end: list[Tensor],
    rest: Weights | None,
    form: MemoryForm,
    *,
    g_anchor: list[Tensor] | None,
    g_rest: list[Tensor] | None,
    g_norm: tuple[Tensor, Tensor] | None,
) -> ChunkGradients:
    """From the gradients of what a chunk read and left behind to those of what it was given.

    ``g_anchor`` (None: the anchor are the start weights), ``g_rest`` and ``g_norm`` are added to
    in place.
    """
    g_gates = ChunkGates(*(torch.zeros_like(gate) for gate in tape.gates))
    g_inputs, g_deltas, g_fast = _move_backward(tape, g_end, rest, g_rest, g_gates)
    if g_anchor is None:
        g_anchor = list(_memory_of(g_fast, tape.gates))
    if tape.read.scores:
        g_q = _read_backward(
            tape, g_y, rest, form, g_inputs, g_deltas, g_fast, g_rest, g_norm, g_gates
        )
    else:
        g_q = _read_anchor_backward(tape, g_y, form, g_anchor, g_norm)
    g_k, g_v = surprise_backward(
        tape.surprise, tape.anchor, form, g_inputs, g_deltas, g_anchor, g_norm
    )
    return ChunkGradients(g_q, g_k, g_v, g_fast, g_gates)


def _memory_of(fast: list[Tensor], gates: ChunkGates) -> Weights:
    """The weights among weights and momentum, as views."""
    parts = gates.start_read.shape[-1]
    return tuple(f[:, : f.shape[1] // parts] for f in fast)


def _mixed(x: Tensor, coefficients: Tensor) -> Tensor:
    """``(N, b, d)`` times ``(N, b, P)`` -> ``(N, b, P d)``: one copy of x for each part of ``fast``."""
    return (x[:, :, None] * coefficients[..., None]).flatten(2)


# --- reading M_t: z = beta (h W) + f (h S) - (tril(h a^T) * G) delta, layer by layer ---------------


def _read(
    q: Tensor,
    surprised: Surprise,
    gates: ChunkGates,
    fast: list[Tensor],
    rest: Weights | None,
    form: MemoryForm,
) -> tuple[Tensor, ReadTape]:
    act = ACTIVATIONS[form.activation]
    hidden, products, scores = [q], [], []
    for layer, start in enumerate(fast):
        h = hidden[-1]
        scores.append(torch.bmm(h, surprised.inputs[layer].mT))
        z = torch.bmm(_mixed(h, gates.start_read), start)
        z.baddbmm_(scores[-1] * gates.token_read, surprised.deltas[layer], alpha=-1)
        if rest is not None:  # what was forgotten of the start weights was replaced by the rest
            z.baddbmm_(h * (1 - gates.start_read[..., :1]), rest[layer])
        products.append(z)
        if layer < len(fast) - 1:
            hidden.append(act.value(z))
    y, normalised = _finish(products[-1], q, form)
    return y, ReadTape(hidden, products, scores, normalised)


def _read_backward(
    tape: ChunkTape,
    g_y: Tensor,
    rest: Weights | None,
    form: MemoryForm,
    g_inputs: list[Tensor],
    g_deltas: list[Tensor],
    g_fast: list[Tensor],
    g_rest: list[Tensor] | None,
    g_norm: tuple[Tensor, Tensor] | None,
    g_gates: ChunkGates,
) -> Tensor:
    act = ACTIVATIONS[form.activation]
    start_read, token_read = tape.gates.start_read, tape.gates.token_read
    parts = start_read.shape[-1]
    g_z = _finish_backward(tape.read, g_y, form, g_norm)
    for layer in reversed(range(len(tape.fast))):
        h, scores = tape.read.hidden[layer], tape.read.scores[layer]
        a, delta = tape.surprise.inputs[layer], tape.surprise.deltas[layer]
        # The token's own part: - (scores * G) delta.
        g_weighted = torch.bmm(g_z, delta.mT).neg_()
        g_gates.token_read.addcmul_(g_weighted, scores)
        g_deltas[layer].baddbmm_((scores * token_read).mT, g_z, alpha=-1)
        g_scores = g_weighted.mul_(token_read)
        g_inputs[layer].baddbmm_(g_scores.mT, h)
        # The part of the start weights and momentum.
        g_mixed = torch.bmm(g_z, tape.fast[layer].mT).unflatten(-1, (parts, -1))
        g_gates.start_read.add_((g_mixed * h[:, :, None]).sum(-1))
        g_h = (g_mixed * start_read[..., None]).sum(2).baddbmm_(g_scores, a)
        g_fast[layer].baddbmm_(_mixed(h, start_read).mT, g_z)
        if rest is not None and g_rest is not None:
            g_rested = torch.bmm(g_z, rest[layer].mT)
            beta = start_read[..., :1]
            g_gates.start_read[..., 0].sub_((g_rested * h).sum(-1))
            g_h.add_(g_rested).addcmul_(g_rested, beta, value=-1)
            g_rest[layer].baddbmm_((h * (1 - beta)).mT, g_z)
        g_z = g_h if layer == 0 else act.backward(g_h, tape.read.products[layer - 1])
    return g_z.add_(g_y) if form.residual else g_z


def _read_anchor(q: Tensor, anchor: Weights, form: MemoryForm) -> tuple[Tensor, ReadTape]:
    act = ACTIVATIONS[form.activation]
    hidden, products = [q], [torch.bmm(q, anchor[0])]
    for weight in anchor[1:]:
        hidden.append(act.value(products[-1]))
        products.append(torch.bmm(hidden[-1], weight))
    y, normalised = _finish(products[-1], q, form)
    return y, ReadTape(hidden, products, [], normalised)


def _read_anchor_backward(
    tape: ChunkTape,
    g_y: Tensor,
    form: MemoryForm,
    g_anchor: list[Tensor],
    g_norm: tuple[Tensor, Tensor] | None,
) -> Tensor:
    act = ACTIVATIONS[form.activation]
    g_z = _finish_backward(tape.read, g_y, form, g_norm)
    for layer in reversed(range(len(tape.anchor))):
        g_anchor[layer].baddbmm_(tape.read.hidden[layer].mT, g_z)
        g_h = torch.bmm(g_z, tape.anchor[layer].mT)
        g_z = g_h if layer == 0 else act.backward(g_h, tape.read.products[layer - 1])
    return g_z.add_(g_y) if form.residual else g_z


def _finish(z: Tensor, q: Tensor, form: MemoryForm) -> tuple[Tensor, Normalised | None]:
    """From the last product to the memory's output: LayerNorm, then residual."""
    normalised = None
    if form.norm is not None:
        normalised = normalise(z)
        z = torch.addcmul(form.norm[1], normalised.unit, form.norm[0])
    return (z + q if form.residual else z), normalised


def _finish_backward(
    read: ReadTape, g_y: Tensor, form: MemoryForm, g_norm: tuple[Tensor, Tensor] | None
) -> Tensor:
    if form.norm is None or read.normalised is None or g_norm is None:
        return g_y
    g_norm[0].add_((g_y * read.normalised.unit).sum(1, keepdim=True))
    g_norm[1].add_(g_y.sum(1, keepdim=True))
    return read.normalised.pull(g_y * form.norm[0])


# --- moving to the chunk's end: W' = beta W + f S - (a * G_b)^T delta, S' = m S - (a * E_b theta)^T delta


def _move(
    surprised: Surprise, gates: ChunkGates, fast: list[Tensor], rest: Weights | None
) -> list[Tensor]:
    moved = []
    parts = gates.start_read.shape[-1]
    for layer, start in enumerate(fast):
        end = torch.bmm(gates.start_end, start.unflatten(1, (parts, -1)).flatten(2)).view_as(start)
        if rest is not None:
            _memory_of([end], gates)[0].addcmul_(rest[layer], 1 - gates.start_end[:, :1, :1])
        written = _mixed(surprised.inputs[layer], gates.token_end)
        moved.append(end.baddbmm_(written.mT, surprised.deltas[layer], alpha=-1))
    return moved


def _move_backward(
    tape: ChunkTape,
    g_end: list[Tensor],
    rest: Weights | None,
    g_rest: list[Tensor] | None,
    g_gates: ChunkGates,
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Gradients of every a and delta, and of ``fast``."""
    g_inputs, g_deltas, g_fast = [], [], []
    start_end, token_end = tape.gates.start_end, tape.gates.token_end
    parts = token_end.shape[-1]
    for layer, (start, g_new) in enumerate(zip(tape.fast, g_end, strict=True)):
        a, delta = tape.surprise.inputs[layer], tape.surprise.deltas[layer]
        g_deltas.append(torch.bmm(_mixed(a, token_end), g_new).neg_())
        g_written = torch.bmm(delta, g_new.mT).unflatten(-1, (parts, -1))
        g_gates.token_end.sub_((g_written * a[:, :, None]).sum(-1))
        g_inputs.append((g_written * token_end[..., None]).sum(2).neg_())
        flat, g_flat = (x.unflatten(1, (parts, -1)).flatten(2) for x in (start, g_new))
        g_fast.append(torch.bmm(start_end.mT, g_flat).view_as(start))
        g_gates.start_end.baddbmm_(g_flat, flat.mT)
        if rest is not None and g_rest is not None:
            g_weights = _memory_of([g_new], tape.gates)[0]
            beta = start_end[:, :1, :1]
            g_rest[layer].addcmul_(g_weights, 1 - beta)
            g_gates.start_end[:, 0, 0].sub_((g_weights * rest[layer]).sum((1, 2)))
    return g_inputs, g_deltas, g_fast
