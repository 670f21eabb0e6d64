"""K-mers as numbers, two bits a base, for whole collections of sequences at a time.

A k-mer that holds a letter other than A, C, G, T, or that would run over the end of its record, has
no number. Soft-masked (lower-case) bases count as the bases they are.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from titans_dna.sequences import Sequences

__all__ = ["BLOCK_BASES", "MAX_K", "Codes", "canonical_codes", "is_repeat", "scatter", "unbroken"]

Codes = NDArray[np.uint64]
Positions = NDArray[np.int64]
Mask = NDArray[np.bool_]

MAX_K = 31
"""A longer k-mer does not fit into the two bits a base of a 64-bit number."""
BLOCK_BASES = 1 << 18
"""Bases looked at together: what bounds the memory taken on top of the result."""

_LONGEST_UNIT = 6
_EVERY_SECOND_BIT = np.uint64(0x5555555555555555)


def unbroken(bases: NDArray[np.uint8], starts: Positions, k: int) -> Mask:
    """Whether the k bases from each position on are plain bases of one record.

    Parameters
    ----------
    bases : ndarray of uint8, shape (length,)
        Tokens without their soft-mask bit.
    starts : ndarray of int64
        Where records start within ``bases``.

    Returns
    -------
    ndarray of bool, shape (max(length - k + 1, 0),)
    """
    n = len(bases) - k + 1
    if n <= 0:
        return np.zeros(0, dtype=bool)
    # Counted before each position: odd letters, and (one further on, as a k-mer may begin at the
    # start of a record) starts of records.
    odd = np.zeros(len(bases) + 1, dtype=np.int32)
    np.cumsum(bases > 3, out=odd[1:])
    begun = np.zeros(len(bases) + 1, dtype=np.int32)
    begun[starts[starts < len(bases)] + 1] = 1
    np.cumsum(begun, out=begun)
    unbroken: Mask = (odd[k:] == odd[:n]) & (begun[k:] == begun[1 : n + 1])
    return unbroken


def canonical_codes(sequences: Sequences, k: int) -> Iterator[tuple[Positions, Codes]]:
    """Number every k-mer of the sequences, block by block; both strands get the same number.

    Parameters
    ----------
    sequences : Sequences
    k : int
        1 to `MAX_K`.

    Yields
    ------
    positions : ndarray of int64
        Where, in ``sequences.tokens``, the k-mers start.
    codes : ndarray of uint64
        The smaller of the codes of the k-mer and of its reverse complement.
    """
    tokens, offsets = sequences.tokens, sequences.offsets
    for first in range(0, max(len(tokens) - k + 1, 0), BLOCK_BASES):
        bases = tokens[first : first + BLOCK_BASES + k - 1] & np.uint8(15)
        low, high = np.searchsorted(offsets, [first, first + len(bases)])
        at = np.flatnonzero(unbroken(bases, offsets[low:high] - first, k))
        yield at + first, _canonical(bases.astype(np.uint64) & np.uint64(3), k)[at]


def _canonical(bases: Codes, k: int) -> Codes:
    """Codes of all k-mers of A, C, G, T = 0..3, put together from those of the powers of two."""
    n = len(bases) - k + 1
    forward = np.zeros(n, dtype=np.uint64)
    backward = np.zeros(n, dtype=np.uint64)
    piece, piece_backward, width, done = bases, np.uint64(3) - bases, 1, 0
    while True:
        if k & width:
            forward = forward << np.uint64(2 * width) | piece[done : done + n]
            backward |= piece_backward[done : done + n] << np.uint64(2 * done)
            done += width
        if done == k:
            return np.minimum(forward, backward)
        shift = np.uint64(2 * width)
        piece = piece[:-width] << shift | piece[width:]
        piece_backward = piece_backward[:-width] | piece_backward[width:] << shift
        width *= 2


def scatter(codes: Codes) -> Codes:
    """A number below 2**32 for each code, evenly spread as codes are not (Fibonacci hashing)."""
    return (codes * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)


def is_repeat(codes: Codes, k: int) -> Mask:
    """Whether each k-mer is a tandem repeat: a short unit over and over.

    A unit has at most 6 bases, and at most a fifth of k; from k = 20 on one base may be out of
    line. Both strands of a k-mer get the same answer.
    """
    repeat = np.zeros(len(codes), dtype=bool)
    for unit in range(1, min(_LONGEST_UNIT, k // 5) + 1):
        shifted = codes ^ codes >> np.uint64(2 * unit)
        # One bit per pair of bases `unit` apart that differ.
        differ = (shifted | shifted >> np.uint64(1)) & _EVERY_SECOND_BIT
        differ &= np.uint64((1 << 2 * (k - unit)) - 1)
        for _ in range(2 if k >= 20 else 0):  # one odd base spoils two pairs
            differ &= differ - np.minimum(differ, np.uint64(1))
        repeat |= differ == 0
    return repeat
