"""Which training sequences may not be parted when some of them are held out to choose by.

Those that share a 30-mer are kept together, so that nothing is chosen by what was as good as seen.
Two things make that impossible: a stretch that many sequences share, such as a primer, and
sequences that all come from a few genomes, where each overlaps the next. The first says nothing
about kinship and is left out of the comparison. In the second case whoever asks about such
sequences later will ask about relatives as well: then copies alone are kept together.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from titans_dna.homology import equal_either_strand, group_by_kmers
from titans_dna.sequences import Sequences

Indices = NDArray[np.int64]

_K = 30
_COMMON = 0.1  # of the sequences: who shares what so many have is no relative for it
_FEW = 5  # rows of a class that may stay together


@dataclass(frozen=True)
class Relatives:
    """Who stays together.

    Parameters
    ----------
    groups : ndarray of int64, shape (n,)
        Rows of one number stay on one side.
    related : ndarray of bool, shape (n,)
        Which share a 30-mer with another sequence, copies aside.
    n_parted : int
        Rows that may have relatives, other than copies, on the other side.
    share_common : float
        Of the k-mers, those left out of the comparison for being common.
    """

    groups: Indices
    related: NDArray[np.bool_]
    n_parted: int
    share_common: float


def find_relatives(sequences: Sequences, y: Indices) -> Relatives:
    """Groups of sequences that share a 30-mer, as far as they leave something to hold out.

    Parameters
    ----------
    sequences : Sequences
    y : ndarray of int64, shape (n,)
        Index of each sequence's class. A group is divided if it has most of the sequences, or
        all those of a class of at least five.
    """
    groups, common = group_by_kmers(sequences, _K)[0], 0.0
    copies = len(groups) + equal_either_strand(sequences)
    related, parted = _hold_several(groups, copies), np.zeros(len(groups), dtype=bool)
    binding = np.flatnonzero(_bind(groups, y))
    if len(binding):
        finer, left_out = group_by_kmers(sequences.take(binding), _K, most=_COMMON)
        if 0 < left_out < 0.5:
            groups[binding] = 2 * len(groups) + finer
            binding = np.flatnonzero(_bind(groups, y))
            common = left_out if not len(binding) else 0.0
    if len(binding):
        parted[binding] = _hold_several(groups, copies)[binding]
        groups[binding] = copies[binding]
    return Relatives(groups, related, int(parted.sum()), common)


def _hold_several(groups: Indices, copies: Indices) -> NDArray[np.bool_]:
    """Rows whose group has others in it than copies of theirs."""
    _, groups = np.unique(groups, return_inverse=True)
    different = np.unique(np.stack([groups, copies]), axis=1)[0]
    return np.asarray((np.bincount(different) > 1)[groups])


def _bind(groups: Indices, y: Indices) -> NDArray[np.bool_]:
    """Rows of groups that leave nothing to hold out: of all rows, or of a class."""
    _, groups = np.unique(groups, return_inverse=True)
    binds = np.bincount(groups) > len(groups) / 2
    pairs = np.unique(np.stack([y, groups]), axis=1)
    alone = (np.bincount(pairs[0]) == 1) & (np.bincount(y) >= _FEW)
    binds[pairs[1, alone[pairs[0]]]] = True
    return np.asarray(binds[groups])


def check_groups(groups: Any, n: int) -> Indices | None:
    """Numbers of the groups that a user gave, one for each of n sequences.

    Raises
    ------
    ValueError
        There are more or fewer of them, or one is missing.
    """
    if groups is None:
        return None
    import pandas as pd

    given = np.asarray(groups, dtype=object)
    if given.shape != (n,):
        raise ValueError(
            f"`groups` must name the group of each of the {n} sequences; got shape {given.shape}."
        )
    numbers = pd.factorize(given)[0].astype(np.int64)
    if (numbers < 0).any():
        raise ValueError(
            f"`groups[{int(np.argmin(numbers))}]` is missing; give each sequence a group, one of "
            "its own if it belongs to none."
        )
    return numbers


def warn_of_relatives(found: Relatives) -> None:
    """Say what was not taken for kinship, and what held-out answers then mean."""
    n = len(found.groups)
    if found.share_common:
        warnings.warn(
            f"more than {_COMMON:.0%} of the sequences share stretches of {_K} bases or more "
            f"({found.share_common:.0%} of all such stretches), which were not taken for kinship: "
            "primers, vectors? Cut off what is not of the sequence itself, as models learn it.",
            UserWarning,
            stacklevel=4,  # the line that called fit
        )
    if found.n_parted:
        warnings.warn(
            f"{found.n_parted} of {n} sequences hang together by shared {_K}-mers and could not be "
            "held out without relatives in training: copies aside, they are held out at random. "
            "What is said of held-out sequences holds for new ones as closely related; to hold out "
            "others, give `groups`, such as the chromosome or sample of each.",
            UserWarning,
            stacklevel=4,
        )
