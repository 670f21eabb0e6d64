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
from titans_core.ops.chunk_step import ChunkTape, backward_chunk, forward_chunk
from titans_core.ops.memory_mlp import MemoryForm, Weights
from titans_core.ops.state import MemoryTrace, NeuralMemoryState


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
    """The tensors of a run of chunks (or their gradients), sorted by what they are."""

    tokens: tuple[Any, ...]  # q, k, v
    gates: tuple[Any, ...]  # memory_lr, momentum_decay or None, forget_gate
    write: Any
    start: list[Any]
    anchor: Any
    rest: Any
    norm: Any

    @classmethod
    def sort(cls, how: _How, flat: Sequence[Any]) -> _Tensors:
        left = iter(flat[7:])
        start, anchor, rest, norm = (list(islice(left, count)) for count in how.counts)
        return cls(
            tuple(flat[:3]),
            tuple(flat[3:6]),
            flat[6],
            start,
            anchor or None,
            rest or None,
            norm or None,
        )

    def forward(
        self, i: int, gates: ChunkGates, fast: list[Tensor], how: _How
    ) -> tuple[Tensor, list[Tensor], ChunkTape]:
        q, k, v = (x[i] for x in self.tokens)
        form = how.form._replace(norm=self.norm)
        return forward_chunk(
            q, k, v, gates, fast, self.anchor, self.rest, form, read_anchor=how.read_anchor
        )


class _Chunks(torch.autograd.Function):
    """n chunks of b tokens: ``(n, N, b, ...)`` in, ``(n, N, b, D)`` and the fast weights out."""

    @staticmethod
    def forward(ctx: Any, how: _How, *flat: Tensor | None) -> Any:
        given = _Tensors.sort(how, flat)
        ctx.how = how
        fast, checkpoints, outputs, seen = given.start, [], [], []
        for run in _runs(len(given.tokens[0])):
            if run.start and any(ctx.needs_input_grad):
                checkpoints += fast
            gates = chunk_gates(*_rows((*given.gates, given.write), run))
            for i, own in zip(range(run.start, run.stop), _split(gates)):
                y, fast, tape = given.forward(i, own, fast, how)
                outputs.append(y)
                if how.traced:
                    seen.append(_trace(tape))
        ctx.save_for_backward(*flat, *checkpoints)
        traces = [torch.stack(each) for each in zip(*seen)]
        ctx.mark_non_differentiable(*traces)
        return (torch.stack(outputs), *fast, *traces)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, g_y: Tensor, *g_others: Tensor) -> Any:
        how: _How = ctx.how
        layers = how.counts[0]
        flat, checkpoints = (
            ctx.saved_tensors[: len(ctx.needs_input_grad) - 1],
            ctx.saved_tensors[len(ctx.needs_input_grad) - 1 :],
        )
        given = _Tensors.sort(how, flat)
        starts = [*given.start, *checkpoints]
        g_flat = [None if x is None else torch.zeros_like(x) for x in flat]
        into = _Tensors.sort(how, g_flat)
        form = how.form._replace(norm=given.norm)
        g_fast = list(g_others[:layers])
        for number, run in reversed(list(enumerate(_runs(len(g_y))))):
            leaves = [
                None if x is None else x.detach().requires_grad_() for x in _rows(given.gates, run)
            ]
            with torch.enable_grad():
                gates = chunk_gates(*leaves, *_rows((given.write,), run))
            tapes, fast = [], starts[number * layers : (number + 1) * layers]
            for i, own in zip(
                range(run.start, run.stop), _split(ChunkGates(*(x.detach() for x in gates)))
            ):
                _, fast, tape = given.forward(i, own, fast, how)
                tapes.append(tape)
            g_gates = []
            for i in reversed(range(run.start, run.stop)):
                g = backward_chunk(
                    tapes.pop(),
                    g_y[i],
                    g_fast,
                    given.rest,
                    form,
                    g_anchor=into.anchor,
                    g_rest=into.rest,
                    g_norm=into.norm,
                )
                g_fast = g.fast
                for whole, own in zip(into.tokens, (g.q, g.k, g.v), strict=True):
                    whole[i] = own
                g_gates.append(g.gates)
            wanted = [x for x in leaves if x is not None]
            g_leaves = iter(
                torch.autograd.grad(gates, wanted, [torch.stack(x[::-1]) for x in zip(*g_gates)])
            )
            for whole in into.gates:
                if whole is not None:
                    whole[run] = next(g_leaves)
        for whole, own in zip(into.start, g_fast, strict=True):
            whole.copy_(own)
        return (None, *g_flat)


def _runs(chunks: int) -> list[slice]:
    """About sqrt(n) runs of about sqrt(n) chunks."""
    length = math.ceil(math.sqrt(chunks))
    return [slice(i, min(i + length, chunks)) for i in range(0, chunks, length)]


def _rows(tensors: Sequence[Any], run: slice) -> list[Any]:
    return [None if x is None else x[run] for x in tensors]


def _split(gates: ChunkGates) -> Iterator[ChunkGates]:
    return (ChunkGates(*each) for each in zip(*gates, strict=True))


def _trace(tape: ChunkTape) -> tuple[Tensor, Tensor]:
    """Surprise and norm of the anchor at every token, ``(N, b)``."""
    surprise = tape.surprise.norm()
    squares = torch.stack([w.square().sum((1, 2)) for w in tape.anchor]).sum(0)
    return surprise, squares.sqrt()[:, None].expand_as(surprise)
