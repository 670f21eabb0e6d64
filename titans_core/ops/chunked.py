"""The exact dual form: a whole chunk at once, no per-token weights (``ops/README.md``, section 2).

Here a stream is cut into chunks and memories are stacked; ``chunk_runs.py`` walks through them.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from titans_core.ops.chunk_runs import How, TileRuns
from titans_core.ops.memory_mlp import MemoryForm, Weights
from titans_core.ops.state import MemoryTrace, NeuralMemoryState

# Chunks beyond this are walked in tiles: they share an anchor, but attention inside the tile and
# gate matrices stay small. Never changes the result beyond rounding.
LARGEST_TILE = 64


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
    for start, stop, tiles, per_chunk in _pieces(time, state.offset, chunk_size):
        piece = [_by_tile(x, start, stop, tiles) for x in tokens]
        start_fast = _stack(state)
        anchor = [w.flatten(0, 1) for w in state.anchor] if state.offset else []
        counts = (len(start_fast), len(anchor), len(constant[0]), len(constant[1]))
        how = How(form._replace(norm=None), read_anchor, traced, per_chunk, counts)
        tensors = (*piece, *start_fast, *anchor, *constant[0], *constant[1])
        y, *others = TileRuns.apply(how, *tensors)  # type: ignore[no-untyped-call]
        state = _unstack(others[: counts[0]], state, state.offset + stop - start, chunk_size)
        outputs.append(_by_token(y, batch))
        traces.append([_by_token(x, batch) for x in others[counts[0] :]])
    if trace is not None:
        trace.append(MemoryTrace(*(torch.cat(parts, dim=1) for parts in zip(*traces, strict=True))))
    return torch.cat(outputs, dim=1) if len(outputs) > 1 else outputs[0], state


def _pieces(time: int, offset: int, chunk_size: int) -> Iterator[tuple[int, int, int, int]]:
    """What is left of an open chunk, all whole chunks, what opens the last; large ones in tiles.

    Yields ``(start, stop, tiles, tiles per chunk)``.
    """
    start = 0
    while start < time:
        whole = (time - start) // chunk_size if offset == 0 else 0
        per_chunk = _tiles_per_chunk(chunk_size) if whole else 0
        if whole and per_chunk:
            stop, tiles = start + whole * chunk_size, whole * per_chunk
            yield start, stop, tiles, per_chunk
        else:  # one tile of a chunk that is not whole, or does not divide into equal tiles
            stop = min(start + LARGEST_TILE, start + chunk_size - offset, time)
            yield start, stop, 1, 1
        offset = (offset + stop - start) % chunk_size
        start = stop


def _tiles_per_chunk(chunk_size: int) -> int:
    """The fewest equal tiles of at most ``LARGEST_TILE``; 0 where they would be tiny."""
    fewest = -(-chunk_size // LARGEST_TILE)
    for tiles in range(fewest, 4 * fewest + 1):
        if chunk_size % tiles == 0:
            return tiles
    return 0


def _by_tile(x: Tensor | None, start: int, stop: int, tiles: int) -> Tensor | None:
    """``(B, T, H, ...)`` -> ``(tiles, B H, b, ...)``, contiguous."""
    if x is None:
        return None
    split = torch.unflatten(x[:, start:stop], 1, (tiles, -1)).movedim(3, 1).movedim(2, 0)
    return split.flatten(1, 2).contiguous()


def _by_token(x: Tensor, batch: int) -> Tensor:
    """Inverse of ``_by_tile``."""
    return torch.unflatten(x, 1, (batch, -1)).movedim(0, 2).flatten(2, 3).movedim(1, 2)


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
    parts = [torch.unflatten(x, 0, lead).chunk(2 if before.momentum else 1, dim=2) for x in fast]
    weights, momentum = tuple(x[0] for x in parts), tuple(x[1] for x in parts if before.momentum)
    if offset % chunk_size == 0:
        return NeuralMemoryState(weights, weights, momentum, 0)
    anchor = before.anchor if before.offset else before.weights
    return NeuralMemoryState(anchor, weights, momentum, offset)
