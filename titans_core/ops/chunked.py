"""The exact dual form: a whole chunk at once, no per-token weights (``ops/README.md``, section 2).

Chunks follow each other, so the fast weights are walked through them one by one; everything else
is batched over memories (batch and heads) and tokens. The backward pass keeps the fast weights
only at the start of every run of about sqrt(n) chunks and recomputes the rest, so that its memory
hardly depends on how many chunks there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from titans_core.ops.chunk_gates import ChunkGates, chunk_gates
from titans_core.ops.chunk_read import (
    Read,
    ReadGradients,
    read_anchors,
    read_anchors_backward,
    read_chunks,
    read_chunks_backward,
)
from titans_core.ops.chunk_write import Written, revisit_chunks, weights_of, write_chunks
from titans_core.ops.chunk_write_backward import write_chunks_backward
from titans_core.ops.memory_mlp import MemoryForm, Weights
from titans_core.ops.state import MemoryTrace, NeuralMemoryState
from titans_core.ops.workspace import Workspace

KEPT_BYTES = 64 * 2**20


def neural_memory_chunked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    memory_lr: Tensor,
    momentum_decay: Tensor | None,
    forget_gate: Tensor,
    state: NeuralMemoryState,
    *,
    chunk_size: int,
    form: MemoryForm,
    rest: Weights | None,
    write_mask: Tensor | None,
    read: str,
    trace: list[MemoryTrace] | None,
) -> tuple[Tensor, NeuralMemoryState]:
    """Same contract and result as the reference, in plain torch; differentiable once."""
    batch, time, heads, _ = q.shape
    write = None
    if write_mask is not None:
        write = write_mask[..., None].expand(batch, time, heads).to(q.dtype)
    tokens = (q, k, v, memory_lr, momentum_decay, forget_gate, write)
    constant = [_across(rest or (), batch), _across(form.norm or (), batch)]
    read_anchor, traced = read == "chunk_start", trace is not None
    outputs, traces = [], []
    for start, stop, chunks in _pieces(time, state.offset, chunk_size):
        piece = [_by_chunk(x, start, stop, chunks) for x in tokens]
        start_fast = _stack(state)
        anchor = [w.flatten(0, 1) for w in state.anchor] if state.offset else []
        counts = (len(start_fast), len(anchor), len(constant[0]), len(constant[1]))
        how = _How(form._replace(norm=None), read_anchor, traced, counts)
        y, *others = _Chunks.apply(how, *piece, *start_fast, *anchor, *constant[0], *constant[1])
        state = _unstack(others[: counts[0]], state, state.offset + stop - start, chunk_size)
        outputs.append(_by_token(y, batch))
        traces.append([_by_token(x, batch) for x in others[counts[0] :]])
    if trace is not None:
        trace.append(MemoryTrace(*(torch.cat(parts, dim=1) for parts in zip(*traces, strict=True))))
    return torch.cat(outputs, dim=1) if len(outputs) > 1 else outputs[0], state


def _pieces(time: int, offset: int, chunk_size: int) -> Iterator[tuple[int, int, int]]:
    """``(start, stop, chunks)``: the rest of an open chunk, all whole chunks, what opens the last."""
    start = 0
    if offset:
        start = min(chunk_size - offset, time)
        yield 0, start, 1
    whole = (time - start) // chunk_size
    if whole:
        yield start, start + whole * chunk_size, whole
        start += whole * chunk_size
    if start < time:
        yield start, time, 1


def _by_chunk(x: Tensor | None, start: int, stop: int, chunks: int) -> Tensor | None:
    """``(B, T, H, ...)`` -> ``(chunks, B H, b, ...)``, contiguous."""
    if x is None:
        return None
    split = x[:, start:stop].unflatten(1, (chunks, -1)).movedim(3, 1).movedim(2, 0)
    return split.flatten(1, 2).contiguous()


def _by_token(x: Tensor, batch: int) -> Tensor:
    """Inverse of ``_by_chunk``."""
    return x.unflatten(1, (batch, -1)).movedim(0, 2).flatten(2, 3).movedim(1, 2)


def _across(tensors: Weights, batch: int) -> Weights:
    """``(H, ...)`` -> ``(B H, ...)``; channels ``(H, D)`` -> ``(B H, 1, D)``."""
    rows = (x[:, None] if x.ndim == 2 else x for x in tensors)
    return tuple(x.expand(batch, *x.shape).flatten(0, 1) for x in rows)


def _stack(state: NeuralMemoryState) -> list[Tensor]:
    """Per layer the weights, and below them the momentum: ``(B H, P d_in, d_out)``."""
    if not state.momentum:
        return [w.flatten(0, 1) for w in state.weights]
    pairs = zip(state.weights, state.momentum, strict=True)
    return [torch.cat(pair, dim=2).flatten(0, 1) for pair in pairs]


def _unstack(
    fast: list[Tensor], before: NeuralMemoryState, offset: int, chunk_size: int
) -> NeuralMemoryState:
    """The state that ``fast`` is, after ``offset`` tokens of an open chunk or at a chunk's end."""
    lead = before.weights[0].shape[:2]
    parts = [x.unflatten(0, lead).chunk(2 if before.momentum else 1, dim=2) for x in fast]
    weights, momentum = tuple(x[0] for x in parts), tuple(x[1] for x in parts if before.momentum)
    if offset % chunk_size == 0:
        return NeuralMemoryState(weights, weights, momentum, 0)
    anchor = before.anchor if before.offset else before.weights
    return NeuralMemoryState(anchor, weights, momentum, offset)


class _How(NamedTuple):
    """What a run of chunks needs to know besides its tensors."""

    form: MemoryForm  # without its norm, which is among the tensors
    read_anchor: bool
    traced: bool
    counts: tuple[int, int, int, int]  # tensors of start, anchor, rest and norm


class _Tensors(NamedTuple):
    """The tensors that go into ``_Chunks``, or their gradients, by what they are."""

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
    norm: list[Any] | None

    @classmethod
    def sort(cls, how: _How, flat: Sequence[Any]) -> _Tensors:
        left = iter(flat[7:])
        start, *others = (list(islice(left, count)) for count in how.counts)
        return cls(*flat[:7], start, *(x or None for x in others))

    def gates(self, run: slice) -> list[Tensor | None]:
        """Inputs of ``chunk_gates`` for some of the chunks."""
        several = (self.memory_lr, self.momentum_decay, self.forget_gate, self.write)
        return [None if x is None else x[run] for x in several]


class _Chunks(torch.autograd.Function):
    """n chunks of b tokens: ``(n, N, b, ...)`` in, ``(n, N, b, D)`` and the fast weights out."""

    @staticmethod
    def forward(ctx: Any, how: _How, *flat: Tensor | None) -> Any:
        given = _Tensors.sort(how, flat)
        form = how.form._replace(norm=given.norm)
        space = Workspace(given.q)
        chunks, fast, outputs = len(given.q), given.start, torch.empty_like(given.q)
        keep_all = any(ctx.needs_input_grad) and _fits(chunks, given)
        ctx.how, ctx.keep_all = how, keep_all
        if keep_all:
            whole = [f.new_empty(chunks + 1, *f.shape) for f in fast]
        checkpoints, seen = [], []
        for run in _runs(chunks):
            length = run.stop - run.start
            if keep_all:
                into = [f[run.start : run.stop + 1] for f in whole]
            else:
                into = [space(f"fast {i}", length + 1, *f.shape) for i, f in enumerate(fast)]
                checkpoints += [f.clone() for f in fast] if any(ctx.needs_input_grad) else []
            gates = chunk_gates(*given.gates(run))
            written = write_chunks(
                given.k[run], given.v[run], gates, fast, given.anchor, given.rest, form, into, space
            )
            outputs[run], _ = _read(given.q[run], written, gates, given.rest, form, how, space)
            fast = [f[-1] for f in into]
            if how.traced:
                seen.append(_trace(written))
        ctx.save_for_backward(*flat, *(whole if keep_all else checkpoints))
        traces = [torch.cat(each) for each in zip(*seen, strict=True)]
        ctx.mark_non_differentiable(*traces)
        return (outputs, *(f.clone() for f in fast), *traces)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_y: Tensor, *g_others: Tensor) -> Any:
        how, count = ctx.how, len(ctx.needs_input_grad) - 1
        flat, saved = ctx.saved_tensors[:count], list(ctx.saved_tensors[count:])
        given = _Tensors.sort(how, flat)
        form, space = how.form._replace(norm=given.norm), Workspace(given.q)
        g_flat = [None if x is None else torch.zeros_like(x) for x in flat]
        into, layers = _Tensors.sort(how, g_flat), how.counts[0]
        g_end = list(g_others[:layers])
        for number, run in reversed(list(enumerate(_runs(len(g_y))))):
            leaves = [x if x is None else x.detach().requires_grad_() for x in given.gates(run)]
            with torch.enable_grad():
                closed_form = chunk_gates(*leaves)
            gates = ChunkGates(*(x.detach() for x in closed_form))
            k, v = given.k[run], given.v[run]
            if ctx.keep_all and given.anchor is None:
                fast = [f[run.start : run.stop + 1] for f in saved]
                written = revisit_chunks(k, v, gates.token_end.shape[-1], fast, form, space)
            else:
                start = saved[number * layers : (number + 1) * layers]
                if ctx.keep_all:
                    start = [f[0] for f in start]
                room = [space(f"fast {i}", len(k) + 1, *f.shape) for i, f in enumerate(start)]
                written = write_chunks(
                    k, v, gates, start, given.anchor, given.rest, form, room, space
                )
            _, read = _read(given.q[run], written, gates, given.rest, form, how, space)
            g_read = _read_backward(read, g_y[run], written, gates, given, into, form, space)
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
                into.anchor,
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


def _runs(chunks: int) -> list[slice]:
    """About sqrt(n) runs of about sqrt(n) chunks."""
    length = math.ceil(math.sqrt(chunks))
    return [slice(i, min(i + length, chunks)) for i in range(0, chunks, length)]


def _fits(chunks: int, given: _Tensors) -> bool:
    """Whether the fast weights at every chunk's start are few enough to be kept."""
    return sum(f.nbytes for f in given.start) * chunks <= KEPT_BYTES


def _read(
    q: Tensor,
    written: Written,
    gates: ChunkGates,
    rest: list[Tensor] | None,
    form: MemoryForm,
    how: _How,
    space: Workspace,
) -> tuple[Tensor, Read]:
    if how.read_anchor:
        return read_anchors(q, written, form, space)
    return read_chunks(q, written, gates, rest, form, space)


def _read_backward(
    read: Read,
    g_y: Tensor,
    written: Written,
    gates: ChunkGates,
    given: _Tensors,
    into: _Tensors,
    form: MemoryForm,
    space: Workspace,
) -> ReadGradients:
    if read.scores:
        return read_chunks_backward(read, g_y, written, gates, given.rest, form, into.rest, space)
    g_q, g_anchor, g_norm = read_anchors_backward(read, g_y, written, form)
    g_fast, g_inputs, g_deltas = (
        [torch.zeros_like(x) for x in xs]
        for xs in (written.fast, written.surprise.inputs, written.surprise.deltas)
    )
    for layer, g in enumerate(g_anchor):
        if into.anchor is None:
            weights_of(g_fast[layer], gates.token_end.shape[-1])[:-1] += g
        else:
            into.anchor[layer] += g[0]
    unread = (torch.zeros_like(gates.start_read), torch.zeros_like(gates.token_read))
    return ReadGradients(g_q, g_fast, g_inputs, g_deltas, *unread, g_norm)


def _trace(written: Written) -> tuple[Tensor, Tensor]:
    """Surprise and norm of the anchor at every token, ``(K, N, b)``."""
    pairs = zip(written.surprise.inputs, written.surprise.deltas, strict=True)
    squares = [a.square().sum(-1) * delta.square().sum(-1) for a, delta in pairs]
    surprise = torch.stack(squares).sum(0).sqrt()
    norm = torch.stack([w.square().sum((-2, -1)) for w in written.anchor]).sum(0).sqrt()
    return surprise, norm[..., None].expand_as(surprise)
