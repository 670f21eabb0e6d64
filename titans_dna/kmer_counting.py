"""K-mer counts of whole collections of sequences."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from titans_dna.kmer_codes import BLOCK_BASES, unbroken
from titans_dna.sequences import read_sequences

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["first_columns", "is_int", "kmer_counts", "kmer_names", "reverse_columns"]


def kmer_names(k_max: int = 6) -> list[str]:
    """Columns of `kmer_counts`.

    Examples
    --------
    >>> kmer_names(2)[:7]
    ['A', 'C', 'G', 'T', 'AA', 'AC', 'AG']
    """
    return ["".join(word) for k in range(1, k_max + 1) for word in product("ACGT", repeat=k)]


def kmer_counts(
    sequences: Any, k_max: int = 6, both_strands: bool = False, *, column: str | None = None
) -> csr_matrix:
    """Count the k-mers of each sequence, for k = 1 ... k_max.

    K-mers that hold anything but A, C, G and T are left out; lower case counts like upper case.

    Parameters
    ----------
    sequences : sequences
        What `titans_dna.sequences.read_sequences` takes.
    k_max : int
        1 to 12.
    both_strands : bool
        Count the reverse complements of the k-mers, too: the counts are then those of both strands.
    column : str, optional
        Column of a frame that holds the sequences.

    Returns
    -------
    csr_matrix of float32, shape (n, 4 + 16 + ... + 4**k_max)
        Columns as in `kmer_names`. The memory taken on top of it does not grow with the input.

    Examples
    --------
    >>> kmer_counts(["AACN"], k_max=1).toarray()
    array([[2., 1., 0., 0.]], dtype=float32)
    """
    from scipy.sparse import csr_matrix, vstack

    if not (is_int(k_max) and 1 <= k_max <= 12):
        raise ValueError(f"`k_max` must be an int from 1 to 12; got {k_max!r}.")
    sequences = read_sequences(sequences, column=column, name="sequences")
    offsets = sequences.offsets
    n, total = len(sequences), first_columns(k_max)[-1]
    parts = [csr_matrix((0, total), dtype=np.float32)]
    first = 0
    while first < n:
        last = int(np.searchsorted(offsets, offsets[first] + BLOCK_BASES, side="right")) - 1
        last = max(last, first + 1)
        parts.append(_count_rows(sequences.tokens, offsets[first : last + 1], k_max))
        first = last
    counts = vstack(parts, format="csr")
    if both_strands:
        counts = counts + counts[:, reverse_columns(k_max)]
    return counts


def _count_rows(tokens: NDArray[np.uint8], offsets: NDArray[np.int64], k_max: int) -> csr_matrix:
    """Count in the sequences between the offsets: many short ones, or one of any length."""
    from scipy.sparse import csr_matrix

    firsts = first_columns(k_max)
    n, total, length = len(offsets) - 1, firsts[-1], offsets[-1] - offsets[0]
    # Counting into all cells costs as much as there are cells, sorting as much as there are bases.
    if n == 1 or n * total < 16 * length:
        cells = np.zeros(n * total, dtype=np.int64)
        for first in range(offsets[0], offsets[-1], BLOCK_BASES):
            # The next block's first bases belong to k-mers that start here.
            bases = tokens[first : min(first + BLOCK_BASES + k_max - 1, offsets[-1])]
            columns, valid = _columns(bases, offsets - first, k_max)
            row = np.searchsorted(offsets, np.arange(first, first + len(bases)), side="right") - 1
            columns += row[:, None] * total
            cells += np.bincount(columns[:BLOCK_BASES][valid[:BLOCK_BASES]], minlength=len(cells))
        return csr_matrix(cells.reshape(n, total).astype(np.float32))
    columns, valid = _columns(tokens[offsets[0] : offsets[-1]], offsets - offsets[0], k_max)
    before = np.zeros(length + 1, dtype=np.int64)
    np.cumsum(valid.sum(axis=1), out=before[1:])
    found = columns[valid]
    ones = np.ones(len(found), dtype=np.float32)
    counts = csr_matrix((ones, found, before[offsets - offsets[0]]), (n, total))
    counts.sum_duplicates()
    return counts


def _columns(
    bases: NDArray[np.uint8], offsets: NDArray[np.int64], k_max: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Column of the k-mer that starts at each base, shape (length, k_max); whether there is one."""
    bases = bases & np.uint8(15)
    length, firsts = len(bases), first_columns(k_max)
    starts = offsets[(offsets >= 0) & (offsets < length)]
    columns = np.zeros((length, k_max), dtype=np.int64)
    valid = np.zeros((length, k_max), dtype=bool)
    code = np.zeros(length, dtype=np.int64)
    for k in range(1, min(k_max, length) + 1):
        n = length - k + 1
        code = code[:n] << 2 | bases[k - 1 :] & 3
        columns[:n, k - 1] = code + firsts[k - 1]
        valid[:n, k - 1] = unbroken(bases, starts, k)
    return columns, valid


def first_columns(k_max: int) -> list[int]:
    """First column of each k, and the number of columns."""
    return [(4**k - 4) // 3 for k in range(1, k_max + 2)]


def reverse_columns(k_max: int) -> NDArray[np.int64]:
    """Column of the reverse complement of each column's k-mer."""
    parts = []
    for k, first in zip(range(1, k_max + 1), first_columns(k_max), strict=False):
        code, reverse = np.arange(4**k), np.zeros(4**k, dtype=np.int64)
        for _ in range(k):
            reverse = reverse << 2 | 3 - (code & 3)
            code >>= 2
        parts.append(reverse + first)
    return np.concatenate(parts)


def is_int(value: object) -> bool:
    """Whether a parameter is a whole number; True and False are none."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
