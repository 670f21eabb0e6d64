"""Runs of tiles, forward and backward: the one autograd function of the chunked form.

Tiles are written one by one (``chunk_write.py``); everything else is batched over a run of about
sqrt(n) tiles: the gates (``chunk_gates.py``) and reading (``chunk_read.py``). The backward goes
through the runs from the last to the first and recomputes what the forward did not keep; at the
least, the forward keeps the fast weights before every run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from titans_core.ops.chunk_gates import ChunkGates, chunk_gates
from titans_core.ops.chunk_read import (
    Read,
    ReadGradients,
    read_anchors,
    read_anchors_backward,
    read_chunks,
    read_chunks_backward,
    reread_chunks,
)
from titans_core.ops.chunk_write import (
    Written,
    anchors_of,
    revisit_chunks,
    weights_of,
    write_chunks,
)
from titans_core.ops.chunk_write_backward import write_chunks_backward
from titans_core.ops.memory_mlp import MemoryForm
from titans_core.ops.workspace import Workspace

# What the forward may keep for the backward, each of states and reads; beyond, it is recomputed.
KEPT_BYTES = 64 * 2**20


class How(NamedTuple):
    """What a run of chunks needs to know besides its tensors."""

    form: MemoryForm  # without its norm, which is among the tensors
    read_anchor: bool
    traced: bool
    per_chunk: int  # tiles that share an anchor
    counts: tuple[int, int, int, int]  # tensors of start, anchor, rest and norm


class _Tensors(NamedTuple):
    """The tensors that go into ``TileRuns``, or their gradients, by what they are."""

    q: Any
    k: Any
    v: Any
    memory_lr: Any
    momentum_decay: Any
    forget_gate: Any
    write: Any
    start: list[Any]
    anchor: list[Any] | None
    rest: list[Any] | None
    norm: Any

    @classmethod
    def sort(cls, how: How, flat: Sequence[Any]) -> _Tensors:
        q, k, v, memory_lr, momentum_decay, forget_gate, write = flat[:7]
        left = iter(flat[7:])
        start, anchor, rest, norm = (list(islice(left, count)) for count in how.counts)
        gates = (memory_lr, momentum_decay, forget_gate, write)
        return cls(q, k, v, *gates, start, anchor or None, rest or None, tuple(norm) or None)

    def gates(self, run: slice) -> list[Any]:
        """Inputs of ``chunk_gates`` for some of the chunks."""
        several = (self.memory_lr, self.momentum_decay, self.forget_gate, self.write)
        return [None if x is None else x[run] for x in several]


class TileRuns(torch.autograd.Function):
    """n tiles of b tokens: ``(n, N, b, ...)`` in, ``(n, N, b, D)`` and the fast weights out."""

    @staticmethod
    def forward(ctx: Any, how: How, *flat: Tensor | None) -> Any:
        """Write and read; see ``_Tensors`` for what goes in."""
        given = _Tensors.sort(how, flat)
        form, space = how.form._replace(norm=given.norm), Workspace(given.q)
        kept = _Kept.room(given, how) if any(ctx.needs_input_grad) else _Kept([], [], [])
        fast, outputs, checkpoints, seen = given.start, torch.empty_like(given.q), [], []
        for run in _runs(len(given.q), how.per_chunk):
            if not kept.fast and any(ctx.needs_input_grad):
                checkpoints += [f.clone() for f in fast]
            gates = chunk_gates(*given.gates(run))
            written = _write(given, run, gates, fast, form, how, kept, space)
            outputs[run], _ = _read(
                given.q[run], run, written, gates, given, form, how, kept, space
            )
            fast = [f[-1] for f in written.fast]
            if how.traced:
                seen.append(_trace(written))
        ctx.how, ctx.kept_lists = how, (len(kept.fast), len(kept.products), len(kept.scores))
        ctx.save_for_backward(*flat, *kept.fast, *kept.products, *kept.scores, *checkpoints)
        traces = [torch.cat(each) for each in zip(*seen, strict=True)]
        ctx.mark_non_differentiable(*traces)
        return (outputs, *(f.clone() for f in fast), *traces)

    @staticmethod
    def backward(ctx: Any, *g_outputs: Tensor) -> Any:
        """Gradients of everything that went in, once."""
        if torch.is_grad_enabled():  # create_graph=True: a second gradient would be wrong
            raise NotImplementedError(
                "implementation 'chunked' of neural_memory can be differentiated once; for a "
                "second derivative take implementation='reference'."
            )
        return TileRuns._backward(ctx, *g_outputs)

    @staticmethod
    def _backward(ctx: Any, g_y: Tensor, *g_others: Tensor) -> Any:
        how, count = ctx.how, len(ctx.needs_input_grad) - 1
        saved = ctx.saved_tensors  # once: checkpointing unpacks it a single time
        flat, left = saved[:count], iter(saved[count:])
        kept = _Kept(*(list(islice(left, length)) for length in ctx.kept_lists))
        checkpoints = list(left)
        given = _Tensors.sort(how, flat)
        form, space = how.form._replace(norm=given.norm), Workspace(given.q)
        g_flat = [None if x is None else torch.zeros_like(x) for x in flat]
        into, layers = _Tensors.sort(how, g_flat), how.counts[0]
        g_end = list(g_others[:layers])
        for number, run in reversed(list(enumerate(_runs(len(g_y), how.per_chunk)))):
            leaves: list[Any] = [
                x if x is None else x.detach().requires_grad_() for x in given.gates(run)
            ]
            with torch.enable_grad():
                closed_form = chunk_gates(*leaves)
            gates = ChunkGates(*(x.detach() for x in closed_form))
            if kept.fast and given.anchor is None:
                fast = [f[run.start : run.stop + 1] for f in kept.fast]
                written = revisit_chunks(
                    given.k[run], given.v[run], _parts(gates), fast, form, how.per_chunk, space
                )
            else:
                start = checkpoints[number * layers :][:layers] or given.start
                written = _write(given, run, gates, start, form, how, _Kept([], [], []), space)
            if kept.products:
                products, scores = kept.reads(run)
                q = given.q[run]
                read = reread_chunks(q, written, gates, form, products, scores, space)
            else:
                _, read = _read(given.q[run], run, written, gates, given, form, how, kept, space)
            g_read, g_anchor = _read_backward(
                read, g_y[run], written, gates, given, into, form, how, space
            )
            for g, end in zip(g_read.fast, g_end, strict=True):
                g[-1] = end
            g_write = write_chunks_backward(
                written,
                gates,
                given.rest,
                form,
                g_read.fast,
                g_read.inputs,
                g_read.deltas,
                g_anchor,
                into.rest,
                space,
            )
            g_end = [g[0].clone() for g in g_read.fast]
            into.q[run], into.k[run], into.v[run] = g_read.q, g_write.k, g_write.v
            for g_norm in (g_read.norm, g_write.norm):
                for g, own in zip(into.norm or (), g_norm or (), strict=True):
                    g += own
            g_gates = (g_read.start_read, g_read.token_read, g_write.start_end, g_write.token_end)
            wanted = [x for x in leaves[:3] if x is not None]
            g_wanted = iter(torch.autograd.grad(closed_form, wanted, g_gates))
            for g in into[3:6]:
                if g is not None:
                    g[run] = next(g_wanted)
        for g, own in zip(into.start, g_end, strict=True):
            g.copy_(own)
        return (None, *g_flat)


class _Kept(NamedTuple):
    """What the forward keeps for the backward, where it fits; per layer, over all n tiles."""

    fast: list[Tensor]  # (n + 1, N, P d_in, d_out)
    products: list[Tensor]  # of reading, (n, N, b, d_out)
    scores: list[Tensor]  # (n, N, b, b)

    @classmethod
    def room(cls, given: _Tensors, how: How) -> _Kept:
        q, start = given.q, given.start
        tiles, memories, b, _ = q.shape
        fast, products, scores = [], [], []
        size, widths = q.element_size(), [f.shape[-1] for f in start]
        if tiles * sum(f.numel() for f in start) * size <= KEPT_BYTES:
            fast = [f.new_empty(tiles + 1, *f.shape) for f in start]
        per_token = sum(width + b for width in widths)
        if not how.read_anchor and tiles * memories * b * per_token * size <= KEPT_BYTES:
            products = [q.new_empty(tiles, memories, b, width) for width in widths]
            scores = [q.new_empty(tiles, memories, b, b) for _ in widths]
        return cls(fast, products, scores)

    def reads(self, run: slice) -> tuple[list[Tensor], list[Tensor]]:
        """Products and scores of some tiles, ``(K N, b, ...)``."""
        several = ([x[run].flatten(0, 1) for x in xs] for xs in (self.products, self.scores))
        products, scores = several
        return products, scores


def _runs(tiles: int, per_chunk: int) -> list[slice]:
    """About sqrt(n) runs of about sqrt(n) tiles, none of which cuts a chunk."""
    length = math.ceil(math.sqrt(tiles) / per_chunk) * per_chunk
    return [slice(i, min(i + length, tiles)) for i in range(0, tiles, length)]


def _parts(gates: ChunkGates) -> int:
    return gates.token_end.shape[-1]


def _write(
    given: _Tensors,
    run: slice,
    gates: ChunkGates,
    start: list[Tensor],
    form: MemoryForm,
    how: How,
    kept: _Kept,
    space: Workspace,
) -> Written:
    k, v = given.k[run], given.v[run]
    into = [f[run.start : run.stop + 1] for f in kept.fast]
    into = into or [space(f"fast {i}", len(k) + 1, *f.shape) for i, f in enumerate(start)]
    return write_chunks(
        k, v, gates, start, given.anchor, given.rest, form, how.per_chunk, into, space
    )


def _read(
    q: Tensor,
    run: slice,
    written: Written,
    gates: ChunkGates,
    given: _Tensors,
    form: MemoryForm,
    how: How,
    kept: _Kept,
    space: Workspace,
) -> tuple[Tensor, Read]:
    if how.read_anchor:
        return read_anchors(q, written, form, space)
    if kept.products:
        products, scores = kept.reads(run)
    else:
        lead = (q.shape[0] * q.shape[1], q.shape[2])
        widths = [f.shape[-1] for f in written.fast]
        products = [space(f"read {i}", *lead, width) for i, width in enumerate(widths)]
        scores = [space(f"score {i}", *lead, q.shape[2]) for i in range(len(widths))]
    return read_chunks(q, written, gates, given.rest, form, products, scores, space)


def _read_backward(
    read: Read,
    g_y: Tensor,
    written: Written,
    gates: ChunkGates,
    given: _Tensors,
    into: _Tensors,
    form: MemoryForm,
    how: How,
    space: Workspace,
) -> tuple[ReadGradients, list[list[Tensor]]]:
    """Gradients of reading, and where those of the anchors go."""

    def anchors(g_fast: list[Tensor]) -> list[list[Tensor]]:
        memory = [weights_of(g, _parts(gates)).unbind() for g in g_fast]
        return anchors_of(memory, into.anchor, how.per_chunk)

    if not how.read_anchor:
        g_read = read_chunks_backward(read, g_y, written, gates, given.rest, form, into.rest, space)
        return g_read, anchors(g_read.fast)
    g_q, g_tiles, g_norm = read_anchors_backward(read, g_y, written, form)
    g_fast, g_inputs, g_deltas = (
        [torch.zeros_like(x) for x in xs]
        for xs in (written.fast, written.surprise.inputs, written.surprise.deltas)
    )
    g_anchor = anchors(g_fast)
    for i, per_layer in enumerate(g_anchor):
        for g, own in zip(per_layer, g_tiles, strict=True):
            g += own[i]
    unread = (torch.zeros_like(gates.start_read), torch.zeros_like(gates.token_read))
    return ReadGradients(g_q, g_fast, g_inputs, g_deltas, *unread, g_norm), g_anchor


def _trace(written: Written) -> tuple[Tensor, Tensor]:
    """Surprise and norm of the anchor at every token, ``(K, N, b)``."""
    pairs = zip(written.surprise.inputs, written.surprise.deltas, strict=True)
    squares = [a.square().sum(-1) * delta.square().sum(-1) for a, delta in pairs]
    surprise = torch.stack(squares).sum(0).sqrt()
    norms = [torch.stack([w.square().sum((-2, -1)) for w in own]) for own in written.anchor]
    return surprise, torch.stack(norms).sum(1).sqrt()[..., None].expand_as(surprise)
