"""Which sequences belong together, and a split that keeps them together.

Sequences that share a k-mer, on either strand, are taken for relatives: with k = 30 that does not
happen by chance. The exception are tandem repeats, which unrelated parts of a genome share; they
count by default, as a model can learn them by heart like any other shared stretch, and can be
left out. Sequences that are equal on either strand are relatives in any case.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from titans_dna.alphabet import COMPLEMENT
from titans_dna.kmer_codes import MAX_K, Codes, canonical_codes, is_repeat, scatter
from titans_dna.kmer_counting import is_int
from titans_dna.label_values import check_labels
from titans_dna.sequences import Sequences, read_sequences

__all__ = [
    "check_k",
    "digests",
    "equal_either_strand",
    "group_by_kmers",
    "homology_groups",
    "homology_split",
    "kmer_passes",
    "rows_of",
]

Indices = NDArray[np.int64]

_PASS_BASES = 1 << 24  # k-mers sorted together: less than 1 GiB at the peak


def homology_groups(
    X: Any, k: int = 30, *, skip_repeats: bool = False, column: str | None = None
) -> Indices:
    """Number the groups of sequences that hang together by shared k-mers.

    Parameters
    ----------
    X : sequences
        What `titans_dna.sequences.read_sequences` takes.
    k : int
        Length of the k-mers, up to 31.
    skip_repeats : bool
        Leave out k-mers that are a unit of up to 6 bases over and over (for k = 30, with at most
        one base out of line): in whole genomes they join what is not related.
    column : str, optional
        Column of a frame that holds the sequences.

    Returns
    -------
    ndarray of int64, shape (n,)
        Group of each sequence, numbered in the order of their first members.

    Notes
    -----
    Exact for inputs of any size: k-mers are compared in as many passes as bound the memory. A
    sequence without a k-mer (shorter than k, too many N) is compared as a whole.

    Examples
    --------
    >>> homology_groups(["ACGTTGCA", "GGACGTTG", "CAACGTAA", "TTTTTTTT"], k=5)
    array([0, 0, 0, 1])
    """
    check_k(k)
    return group_by_kmers(read_sequences(X, column=column), k, skip_repeats)[0]


def group_by_kmers(
    sequences: Sequences, k: int, skip_repeats: bool = False, most: float = 1.0
) -> tuple[Indices, float]:
    """`homology_groups`, without the k-mers that more than a share ``most`` of the sequences have.

    Returns
    -------
    groups : ndarray of int64, shape (n,)
    left_out : float
        Share of the k-mers that were left out for being that common.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n, seen, common = len(sequences), 0, 0
    labels = equal_either_strand(sequences)
    for ((codes, positions),) in kmer_passes([sequences], k, skip_repeats):
        rows = rows_of(sequences, positions)
        order = np.argsort(codes, kind="stable")  # rows keep rising among equal codes
        codes, rows = codes[order], rows[order]
        seen += len(codes)
        if most < 1:
            kept = _counts_of_rows(codes, rows) <= most * n
            codes, rows, common = codes[kept], rows[kept], common + int((~kept).sum())
        rows = labels[rows]
        edge = (codes[1:] == codes[:-1]) & (rows[1:] != rows[:-1])
        graph = coo_matrix(
            (np.ones(edge.sum(), dtype=bool), (rows[:-1][edge], rows[1:][edge])), (n, n)
        )
        labels = connected_components(graph, directed=False)[1].astype(np.int64)[labels]
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse], common / max(seen, 1)


def _counts_of_rows(codes: Codes, rows: Indices) -> Indices:
    """How many rows have each code; codes are sorted, and rows among equal codes."""
    first = np.ones(len(codes), dtype=bool)
    first[1:] = codes[1:] != codes[:-1]
    new_row = first.copy()
    new_row[1:] |= rows[1:] != rows[:-1]
    number = np.cumsum(first) - 1
    return np.bincount(number, new_row)[number].astype(np.int64)


def homology_split(
    X: Any,
    y: Any = None,
    test_size: float = 0.2,
    k: int = 30,
    random_state: int = 0,
    *,
    skip_repeats: bool = False,
    column: str | None = None,
) -> tuple[Indices, Indices]:
    """Split into training and test rows without cutting a group of relatives.

    Parameters
    ----------
    X : sequences
        What `titans_dna.sequences.read_sequences` takes.
    y : array-like of shape (n,), optional
        Labels; their shares are kept alike in both parts as far as the groups allow.
    test_size : float
        Share of the rows to test with.
    k : int
        Sequences that share a k-mer on either strand are relatives; see `homology_groups`.
    random_state : int
        The same number gives the same split.
    skip_repeats : bool
        Do not take sequences for relatives because they share a tandem repeat.
    column : str, optional
        Column of a frame that holds the sequences.

    Returns
    -------
    train_idx, test_idx : ndarray of int64
        Rising.

    Raises
    ------
    ValueError
        All sequences are relatives of each other: there is nothing to split.

    Warns
    -----
    UserWarning
        The groups do not allow the size asked for, or a class is missing from a part.
    """
    if not 0 < test_size < 1:
        raise ValueError(f"`test_size` must be a share between 0 and 1; got {test_size!r}.")
    groups = homology_groups(X, k, skip_repeats=skip_repeats, column=column)
    n = len(groups)
    classes, label = np.zeros(1), np.zeros(n, dtype=np.int64)
    if y is not None:
        y = check_labels(y, n)
        classes, label = np.unique(y, return_inverse=True)
    sizes = np.bincount(groups)
    if len(sizes) < 2:
        raise ValueError(
            f"all {n} sequences hang together by shared {k}-mers, so none can be tested on "
            "without a relative in training; a longer k or skip_repeats=True joins less."
        )
    in_test = _choose(groups, sizes, label, len(classes), test_size, random_state)
    _warn_if_uneven(in_test, classes, label, y is not None, sizes.max(), test_size, k)
    return np.flatnonzero(~in_test), np.flatnonzero(in_test)


def _choose(
    groups: Indices,
    sizes: Indices,
    label: Indices,
    n_classes: int,
    test_size: float,
    random_state: int,
) -> NDArray[np.bool_]:
    """Which rows to test with, the large groups placed first."""
    rng = np.random.default_rng(random_state)
    totals = np.bincount(label, minlength=n_classes)
    by_size = rng.permutation(np.flatnonzero(sizes > 1))
    by_size = by_size[np.argsort(-sizes[by_size], kind="stable")]
    members = np.argsort(groups, kind="stable")
    ends = np.cumsum(sizes)
    chosen = np.zeros(len(sizes), dtype=bool)
    # Rows of each class in the test part beyond its share of what has been placed so far.
    excess = np.zeros(n_classes)
    for group in by_size:
        counts = np.bincount(
            label[members[ends[group] - sizes[group] : ends[group]]], minlength=n_classes
        )
        with_it, without = excess + (1 - test_size) * counts, excess - test_size * counts
        chosen[group] = np.square(with_it) @ (1 / totals) < np.square(without) @ (1 / totals)
        excess = with_it if chosen[group] else without
    single = sizes[groups] == 1
    for c in range(n_classes):
        rows = rng.permutation(np.flatnonzero(single & (label == c)))
        wanted = round(test_size * len(rows) - excess[c])
        chosen[groups[rows[: max(wanted, 0)]]] = True
    if not chosen.any():
        chosen[by_size[-1] if len(by_size) else groups[0]] = True
    elif chosen.all():
        chosen[by_size[0] if len(by_size) else groups[0]] = False
    in_test: NDArray[np.bool_] = chosen[groups]
    return in_test


def _warn_if_uneven(
    in_test: NDArray[np.bool_],
    classes: NDArray[Any],
    label: Indices,
    labelled: bool,
    largest: int,
    test_size: float,
    k: int,
) -> None:
    n = len(in_test)
    why = f"relatives by shared {k}-mers stay together (largest group: {largest} of {n} rows)"
    if abs(in_test.mean() - test_size) > max(0.05, 1 / n):
        warnings.warn(
            f"the test part holds {in_test.sum()} of {n} rows, not the share of {test_size:g} "
            f"asked for: {why}.",
            stacklevel=3,
        )
    for part, rows in (("test", in_test), ("training", ~in_test)):
        missing = classes[np.bincount(label[rows], minlength=len(classes)) == 0]
        if labelled and len(missing):
            warnings.warn(
                f"the {part} part has no row of class {missing.tolist()[0]!r}: {why}.", stacklevel=3
            )


def check_k(k: int) -> None:
    """Raise a ValueError unless k is a whole number that `canonical_codes` takes."""
    if not (is_int(k) and 1 <= k <= MAX_K):
        raise ValueError(f"`k` must be an int from 1 to {MAX_K}; got {k!r}.")


def rows_of(sequences: Sequences, positions: Indices) -> Indices:
    """Sequence that each position of the flat tokens is in."""
    return np.searchsorted(sequences.offsets, positions, side="right") - 1


def kmer_passes(
    collections: Sequence[Sequences], k: int, skip_repeats: bool
) -> Iterator[list[tuple[Codes, Indices]]]:
    """All k-mers of some collections, a part of the codes at a time; equal codes come together.

    Yields
    ------
    list of (codes, positions)
        One pair for each collection, as from `canonical_codes`.
    """
    n_passes = -(-sum(len(each.tokens) for each in collections) // _PASS_BASES)
    for number in range(n_passes):
        yield [_gather(each, k, skip_repeats, number, n_passes) for each in collections]


def _gather(
    sequences: Sequences, k: int, skip_repeats: bool, number: int, n_passes: int
) -> tuple[Codes, Indices]:
    codes, positions = [np.zeros(0, dtype=np.uint64)], [np.zeros(0, dtype=np.int64)]
    for at, block in canonical_codes(sequences, k):
        keep = ~is_repeat(block, k) if skip_repeats else np.ones(len(block), dtype=bool)
        if n_passes > 1:
            keep &= scatter(block) % np.uint64(n_passes) == number
        codes.append(block[keep])
        positions.append(at[keep])
    return np.concatenate(codes), np.concatenate(positions)


def digests(sequences: Sequences, *, reverse: bool = False) -> list[bytes]:
    """A 128-bit digest of every sequence, or of its reverse complement; soft masking is ignored."""
    bases, offsets = sequences.tokens & np.uint8(15), sequences.offsets
    if reverse:
        bases, offsets = COMPLEMENT[bases[::-1]], (len(bases) - offsets)[::-1]
    view = bases.data
    found = [
        hashlib.blake2b(view[start:end], digest_size=16).digest()
        for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
    ]
    return found[::-1] if reverse else found


def equal_either_strand(sequences: Sequences) -> Indices:
    """The first sequence that is equal to each, on either strand."""
    seen: dict[bytes, int] = {}
    both = zip(digests(sequences), digests(sequences, reverse=True), strict=True)
    return np.array([seen.setdefault(min(pair), i) for i, pair in enumerate(both)], dtype=np.int64)
