"""Read one sequence of any length through a network with a pooled head, in bounded memory.

The stem sees a bounded number of bases, so it takes a piece with a margin on both sides. The
memory's state is all that one piece hands to the next. Reading from right to left comes first and
keeps only its state at the end of each piece; from there each piece is read again, both ways, on
the way from left to right. Any cut into pieces gives the same answer, to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import torch
from torch import Tensor

from titans_core.state import BackboneState, map_state
from titans_dna.alphabet import COMPLEMENT, Tokens
from titans_dna.network import Cells, Features, Pool, SequenceNetwork, flip

PIECE_BASES = 2**16

Reader = Callable[[int, int], Tokens]
"""Tokens of a sequence, from one base (included) to another (excluded)."""


def long_features(
    network: SequenceNetwork, read: Reader, length: int, *, piece_bases: int = PIECE_BASES
) -> Features:
    """What the head sees of one long sequence.

    Parameters
    ----------
    network : SequenceNetwork
        With a pooled head only, in eval mode.
    read : callable, (start, stop) -> tokens
        Called for stretches of about `piece_bases`.
    length : int
        Bases, at least 1.
    piece_bases : int
        Bases at a time; rounded up to whole chunks of the memory.

    Returns
    -------
    tuple of one Tensor of shape (1, F)
    """
    features = _one_strand(network, read, length, piece_bases)
    if network.config.equivariant:
        features = features + _one_strand(network, opposite(read, length), length, piece_bases)
    return (features,)


def opposite(read: Reader, length: int) -> Reader:
    """Read the other strand, in its own direction."""
    return lambda start, stop: COMPLEMENT[read(length - stop, length - start)[::-1]]


@torch.no_grad()
def _one_strand(network: SequenceNetwork, read: Reader, length: int, piece_bases: int) -> Tensor:
    step = network.config.token_bases
    piece = -(-piece_bases // step) * step
    starts = range(0, length, piece)
    back_states = _read_back(network, read, length, starts, piece)
    (head,) = network.heads
    pool: Pool | None = None
    state = None
    for start in starts:
        cells = _cells(network, read, length, start, min(start + piece, length))
        if network.config.backbone is not None:
            tokens, present, writes = network.tokens(cells)
            onward, state = network.backbone(tokens, state, writes)
            reverse = flip(tokens, present), back_states.pop(), flip(writes, present)
            back, _ = network.backbone(*reverse)
            read_both = network.from_tokens(torch.cat([onward, flip(back, present)]))
            cells = network.add_tokens(cells, read_both[:1] + read_both[1:])
        found = Pool.of(cells, head.score)
        pool = found if pool is None else pool.join(found)
    assert pool is not None  # there is at least one base
    return pool.features()


def _read_back(
    network: SequenceNetwork, read: Reader, length: int, starts: range, piece: int
) -> list[Any]:
    """State with which each piece is entered from its right; that of the first piece last."""
    if network.config.backbone is None:
        return []
    states: list[Any] = [None]
    shelves: list[Tensor] = []
    for start in reversed(starts[1:]):
        cells = _cells(network, read, length, start, min(start + piece, length))
        tokens, present, writes = network.tokens(cells)
        _, state = network.backbone(flip(tokens, present), states[-1], flip(writes, present))
        states.append(_shelve(state, shelves, len(states) - 1, len(starts) - 1))
    return states


def _shelve(state: BackboneState, shelves: list[Tensor], place: int, places: int) -> BackboneState:
    """Copy a state to its place among all, which are allocated with the first.

    One by one, small tensors would be left between the large ones of each piece, whose room then
    could not be used again: 27 bytes a base instead of a fifth of one.
    """
    number = count()

    def put(tensor: Tensor) -> Tensor:
        at = next(number)
        if at == len(shelves):
            shelves.append(tensor.new_empty(places, *tensor.shape))
        return shelves[at][place].copy_(tensor)

    return map_state(put, state)


def _cells(network: SequenceNetwork, read: Reader, length: int, start: int, stop: int) -> Cells:
    """Cells of ``[start, stop)``, as the whole sequence has them."""
    config = network.config
    margin = -(-config.reach // config.pool) * config.pool
    first, last = max(0, start - margin), min(length, stop + margin)
    tokens = torch.from_numpy(read(first, last).copy())[None].to(network.stem.weight.device)
    found = network.cells(*network.embed(tokens))
    a, b = (start - first) // config.pool, -(-(stop - first) // config.pool)
    return Cells(found.values[..., a:b], found.present[:, a:b], found.writes[:, a:b])
