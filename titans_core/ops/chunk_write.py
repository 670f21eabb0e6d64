"""Writing, chunk after chunk: surprise at the anchor, then weights and momentum at the chunk's end.

This is the only part of the recurrence that is sequential, so it does as little as it can: reading
(``chunk_read.py``) and everything about gates alone is batched over chunks. ``ops/README.md``,
section 2, has the equations.

Shapes: K chunks of b tokens, N independent memories. ``fast`` holds, per layer, the weights and
below them the momentum, ``(N, P d_in, d_out)``; P is 1 without momentum.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from titans_core.ops.chunk_gates import ChunkGates
from titans_core.ops.layer_norm import Normalised, normalise
from titans_core.ops.memory_mlp import ACTIVATIONS, MemoryForm


class Written(NamedTuple):
    """What K chunks wrote; lists over layers of tensors ``(K, N, b, ...)`` unless said.

    Parameters
    ----------
    fast : list of Tensor
        ``(K + 1, N, P d_in, d_out)``: before each chunk, and after the last.
    anchor : list of Tensor
        ``(K, N, d_in, d_out)``: where each chunk's surprise was measured.
    inputs, deltas : list of Tensor
        Surprise in factored form, ``u_j = a_j^T delta_j``.
    shares : list of Tensor
        ``(K, N, b, P d_in)``: a_j times its token's share in weights and momentum at the end.
    products, pulled : list of Tensor
        ``a W`` of each layer but the last; ``delta W^T`` of each layer but the first.
    errors : list of Tensor
        Per chunk: the (clipped) derivative of the loss at the memory's output.
    normalised : list of Normalised
        Per chunk; empty without a LayerNorm.
    """

    fast: list[Tensor]
    anchor: list[Tensor]
    inputs: list[Tensor]
    deltas: list[Tensor]
    shares: list[Tensor]
    products: list[Tensor]
    pulled: list[Tensor]
    errors: list[Tensor]
    normalised: list[Normalised]

    def end(self) -> list[Tensor]:
        """Weights and momentum after the last chunk."""
        return [f[-1] for f in self.fast]


def write_chunks(
    k: Tensor,
    v: Tensor,
    gates: ChunkGates,
    start: list[Tensor],
    anchor: list[Tensor] | None,
    rest: list[Tensor] | None,
    form: MemoryForm,
) -> Written:
    """Write K chunks one after the other; ``anchor`` where one alone was opened earlier."""
    act = ACTIVATIONS[form.activation]
    chunks, layers = len(k), range(len(start))
    parts = gates.token_end.shape[-1]
    fast = [s.new_empty(chunks + 1, *s.shape) for s in start]
    for f, s in zip(fast, start, strict=True):
        f[0] = s
    memory = [weights_of(f, parts) for f in fast]
    anchors = [m[:-1] for m in memory] if anchor is None else [a[None] for a in anchor]
    products = [k.new_empty(*k.shape[:-1], f.shape[-1]) for f in fast]
    pulled = [torch.empty_like(z) for z in products[:-1]]
    inputs: list[list[Tensor]] = [list(k), *([] for _ in layers[1:])]
    deltas: list[list[Tensor]] = [[] for _ in layers]
    shares: list[list[Tensor]] = [[] for _ in layers]
    errors, normals = [], []

    # Views of one chunk, made once: in the loop every call counts.
    each_anchor, each_product, each_pulled = (
        [x.unbind() for x in xs] for xs in (anchors, products, pulled)
    )
    each_fast, each_memory = ([x.unbind() for x in xs] for xs in (fast, memory))
    each_flat = [f.unflatten(2, (parts, -1)).flatten(3).unbind() for f in fast]
    transition, share = gates.start_end.unbind(), gates.token_end[..., None].unbind()
    forgotten = (1 - gates.start_end[..., :1, :1]).unbind()
    values = v.unbind()
    for i in range(chunks):
        for layer in layers:
            z = torch.bmm(inputs[layer][i], each_anchor[layer][i], out=each_product[layer][i])
            if layer < layers[-1]:
                inputs[layer + 1].append(act.value(z))
        if form.norm is not None:
            normals.append(normalise(z))
            z = torch.addcmul(form.norm[1], normals[-1].unit, form.norm[0])
        error = (z + inputs[0][i] if form.residual else z).sub(values[i]).mul_(2)
        if form.huber_delta is not None:
            error.clamp_(-2 * form.huber_delta, 2 * form.huber_delta)
        errors.append(error)
        delta = error if form.norm is None else normals[-1].pull(error * form.norm[0])
        for layer in reversed(layers):
            deltas[layer].append(delta)
            if layer > 0:
                back = torch.bmm(delta, each_anchor[layer][i].mT, out=each_pulled[layer - 1][i])
                delta = act.backward(back, each_product[layer - 1][i])
        for layer in layers:
            torch.bmm(transition[i], each_flat[layer][i], out=each_flat[layer][i + 1])
            if rest is not None:
                each_memory[layer][i + 1].addcmul_(rest[layer], forgotten[i])
            shares[layer].append((inputs[layer][i][:, :, None] * share[i]).flatten(2))
            each_fast[layer][i + 1].baddbmm_(shares[layer][i].mT, deltas[layer][i], alpha=-1)
    return Written(
        fast,
        anchors,
        [k, *(torch.stack(a) for a in inputs[1:])],
        [torch.stack(d) for d in deltas],
        [torch.stack(s) for s in shares],
        products[:-1],
        pulled,
        errors,
        normals,
    )


def weights_of(fast: Tensor, parts: int) -> Tensor:
    """The weights among weights and momentum, ``(..., P d_in, d_out)``, as a view."""
    return fast[..., : fast.shape[-2] // parts, :]


class WriteGradients(NamedTuple):
    """Gradients of what ``write_chunks`` was given."""

    k: Tensor
    v: Tensor
    start_end: Tensor
    token_end: Tensor
    start: list[Tensor]
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
) -> WriteGradients:
    """From gradients of all that ``Written`` holds to those of tokens, gates and start.

    ``g_fast``, ``g_inputs`` and ``g_deltas`` come with what reading asks for, ``g_fast[-1]`` with
    what comes after the run; they are completed in place. ``g_anchor`` (None: each chunk's anchor
    are its start weights) and ``g_rest`` are added to.
    """
    act = ACTIVATIONS[form.activation]
    chunks, layers = len(g_inputs[0]), range(len(g_fast))
    parts = gates.token_end.shape[-1]
    bends = [
        act.curvature(z).mul_(p) for z, p in zip(written.products, written.pulled, strict=True)
    ]
    g_memory = [weights_of(f, parts) for f in g_fast]
    each_g_anchor = [
        g_memory[layer].unbind() if g_anchor is None else (g_anchor[layer],) for layer in layers
    ]
    each_anchor, each_input, each_delta, each_share, each_product, each_bend = (
        [x.unbind() for x in xs]
        for xs in (
            written.anchor,
            written.inputs,
            written.deltas,
            written.shares,
            written.products,
            bends,
        )
    )
    each_g_fast, each_g_input, each_g_delta = (
        [x.unbind() for x in xs] for xs in (g_fast, g_inputs, g_deltas)
    )
    flat, g_flat = (
        [f.unflatten(2, (parts, -1)).flatten(3) for f in xs] for xs in (written.fast, g_fast)
    )
    each_g_flat = [f.unbind() for f in g_flat]
    transition, share = gates.start_end.mT.unbind(), gates.token_end[..., None].unbind()
    g_shares: list[list[Tensor]] = [[] for _ in layers]
    g_answers, g_scaled = [], []
    for i in reversed(range(chunks)):
        for layer in layers:
            after, delta = each_g_fast[layer][i + 1], each_delta[layer][i]
            each_g_delta[layer][i].baddbmm_(each_share[layer][i], after, alpha=-1)
            g_share = torch.bmm(delta, after.mT)
            g_shares[layer].append(g_share)
            mixed = g_share.unflatten(2, (parts, -1)) * share[i]
            each_g_input[layer][i].sub_(mixed.sum(2))
            each_g_flat[layer][i].baddbmm_(transition[i], each_g_flat[layer][i + 1])
        # The error ran from the last layer to the first: its gradient runs the other way.
        g_products = []
        for layer in layers[:-1]:
            g_delta = each_g_delta[layer][i]
            g_pulled = act.backward(g_delta, each_product[layer][i])
            g_products.append(each_bend[layer][i].mul_(g_delta))
            each_g_delta[layer + 1][i].baddbmm_(g_pulled, each_anchor[layer + 1][i])
            each_g_anchor[layer + 1][i].baddbmm_(g_pulled.mT, each_delta[layer + 1][i])
        g_last, g_answer, g_error = _loss_backward(written, i, form, each_g_delta[-1][i])
        g_answers.append(g_answer)
        g_scaled.append(g_error)
        g_products.append(g_last)
        for layer in reversed(layers):
            each_g_input[layer][i].baddbmm_(g_products[layer], each_anchor[layer][i].mT)
            each_g_anchor[layer][i].baddbmm_(each_input[layer][i].mT, g_products[layer])
            if layer > 0:
                g_products[layer - 1] += act.backward(
                    each_g_input[layer][i], each_product[layer - 1][i]
                )

    g_answer = torch.stack(g_answers[::-1])
    g_token_end = torch.zeros_like(gates.token_end)
    g_start_end = torch.zeros_like(gates.start_end)
    for layer in layers:
        g_share = torch.stack(g_shares[layer][::-1]).unflatten(3, (parts, -1))
        g_token_end.sub_((g_share * written.inputs[layer][:, :, :, None]).sum(-1))
        g_start_end += g_flat[layer][1:] @ flat[layer][:-1].mT
        if rest is not None and g_rest is not None:
            g_new, beta = g_memory[layer][1:], gates.start_end[..., :1, :1]
            g_rest[layer] += ((1 - beta) * g_new).sum(0)
            g_start_end[..., 0, 0] -= (g_new * rest[layer]).sum((-2, -1))
    g_norm = None
    if form.norm is not None:
        error, unit = torch.stack(written.errors), torch.stack([x.unit for x in written.normalised])
        g_gain = torch.stack(g_scaled[::-1]) * error + g_answer * unit
        g_norm = (g_gain.sum((0, 2))[:, None], g_answer.sum((0, 2))[:, None])
    g_k = g_inputs[0] + g_answer if form.residual else g_inputs[0]
    return WriteGradients(g_k, -g_answer, g_start_end, g_token_end, [g[0] for g in g_fast], g_norm)


def _loss_backward(
    written: Written, i: int, form: MemoryForm, g_delta: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """From the gradient of the last delta to those of the last product, the answer, the error."""
    error = written.errors[i]
    clipped = None
    if form.huber_delta is not None:  # where the error was clipped, nothing passes
        clipped = error.abs() >= 2 * form.huber_delta
    if form.norm is None:
        g_answer = 2 * g_delta
        g_answer = g_answer if clipped is None else g_answer.masked_fill_(clipped, 0)
        return g_answer, g_answer, g_delta
    gain, normalised = form.norm[0], written.normalised[i]
    unit, inverse_std = normalised.unit, normalised.inverse_std
    scaled = error * gain
    g_error = normalised.pull(g_delta)
    g_answer = (g_error * gain).mul_(2)
    g_answer = g_answer if clipped is None else g_answer.masked_fill_(clipped, 0)
    # delta = J(unit, inverse_std) scaled: J moves with the product, too.
    along = (scaled * unit).mean(-1, keepdim=True)
    g_along = (g_delta * unit).mean(-1, keepdim=True)
    g_unit = (g_delta * along).addcmul_(scaled, g_along).mul_(inverse_std)
    stretch = (g_delta * written.deltas[-1][i]).mean(-1, keepdim=True).mul_(inverse_std)
    g_last = normalised.pull(torch.addcmul(-g_unit, g_answer, gain))
    return g_last.addcmul_(unit, stretch, value=-1), g_answer, g_error
