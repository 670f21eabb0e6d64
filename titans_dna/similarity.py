"""How alike two sequences are, as numbers from 0 (nothing in common) to 1.

- `Places`: words of one, two and three letters at the same places (a weighted-degree kernel:
  Rätsch and Sonnenburg, 2004).
- `Tolerant`: words at about the same places (an oligo kernel: Meinicke and others, 2004).
- `Anywhere`: words wherever they stand (a spectrum kernel: Leslie, Eskin and Noble, 2002).
- `Numbers`: signals, by their differences.

Each describes a sequence by vectors of length one and takes the mean of their cosines. `prepare`
takes the landmarks, the sequences that all others are compared with; a call compares rows of input
with them. With `both_strands` either strand of a sequence is alike.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from titans_dna.kmer_counting import first_columns, kmer_counts
from titans_dna.kmers import root_shares
from titans_dna.places import Places, Tolerant
from titans_dna.sequences import Sequences

Floats = NDArray[np.float32]


class Similarity(Protocol):
    """Compares rows with landmarks."""

    def prepare(self, landmarks: Any) -> None:
        """Take the rows that all others will be compared with."""

    def __call__(self, inputs: Any) -> Floats:
        """``(n, number of landmarks)``."""

    def to_dict(self) -> dict[str, Any]:
        """All that it holds, as `save_tree` takes it."""


class Anywhere:
    """Words of one to six letters wherever they stand, of sequences of any lengths.

    Parameters
    ----------
    both_strands : bool
        Count the words of both strands.
    """

    _LONGEST = 6
    _FULL = 0.2  # of words that a landmark has with this chance, a full matrix is faster
    _FINENESS = 2.0**25  # sums of products of such shares are exact in double precision

    def __init__(self, both_strands: bool = False) -> None:
        self.both_strands = both_strands

    def prepare(self, landmarks: Sequences) -> None:
        """Take the rows that all others will be compared with."""
        self._take(self._shares(landmarks))

    def __call__(self, inputs: Sequences) -> Floats:
        """``(n, number of landmarks)``."""
        shares = self._shares(inputs)
        split = len(self._common)
        products = self._exact(shares[:, :split]) @ self._common
        products += (shares[:, split:].astype(np.float64) @ self._rare).toarray()
        alike: Floats = (products / self._LONGEST).astype(np.float32)
        return alike

    def _take(self, shares: Any) -> None:
        firsts = first_columns(self._LONGEST)
        filled = np.add.reduceat(np.bincount(shares.indices, minlength=firsts[-1]), firsts[:-1])
        full = filled > self._FULL * np.diff(firsts) * shares.shape[0]
        split = firsts[self._LONGEST if full.all() else int(full.argmin())]
        self._common = np.ascontiguousarray(self._exact(shares[:, :split]).T)
        self._rare = shares[:, split:].T.tocsr().astype(np.float64)

    def _exact(self, shares: Any) -> NDArray[np.float64]:
        rounded: NDArray[np.float64] = shares.toarray().astype(np.float64) * self._FINENESS
        return np.round(rounded, out=rounded) / self._FINENESS

    def _shares(self, sequences: Sequences) -> Any:
        counts = kmer_counts(sequences, self._LONGEST)
        return root_shares(counts, self._LONGEST, self.both_strands).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """All that it holds, as `save_tree` takes it."""
        from scipy.sparse import csr_matrix, hstack

        shares = hstack([csr_matrix(self._common.T), self._rare.T], format="csr")
        return {
            "kind": "anywhere",
            "both_strands": self.both_strands,
            "shape": list(shares.shape),
            "data": shares.data.astype(np.float32),
            "indices": shares.indices,
            "indptr": shares.indptr,
        }

    @classmethod
    def from_dict(cls, tree: dict[str, Any]) -> Anywhere:
        """What `to_dict` gave."""
        from scipy.sparse import csr_matrix

        anywhere = cls(tree["both_strands"])
        parts = tree["data"], tree["indices"], tree["indptr"]
        anywhere._take(csr_matrix(parts, shape=tuple(tree["shape"])))
        return anywhere


class Numbers:
    """Signals of p numbers: ``1 - |a - b|^2 / 2p``, or the mean of products."""

    def __init__(self, products: bool) -> None:
        self.products = products

    def prepare(self, landmarks: Floats) -> None:
        """Take the rows that all others will be compared with."""
        self.landmarks = landmarks

    def __call__(self, inputs: Floats) -> Floats:
        """``(n, number of landmarks)``."""
        p = inputs.shape[1]
        alike: Floats = inputs @ self.landmarks.T / p
        if not self.products:
            mine, theirs = ((x**2).sum(1) / (2 * p) for x in (inputs, self.landmarks))
            alike = 1 + alike - mine[:, None] - theirs[None]
        return alike

    def to_dict(self) -> dict[str, Any]:
        """All that it holds, as `save_tree` takes it."""
        return {"kind": "numbers", "products": self.products, "landmarks": self.landmarks}

    @classmethod
    def from_dict(cls, tree: dict[str, Any]) -> Numbers:
        """What `to_dict` gave."""
        numbers = cls(tree["products"])
        numbers.landmarks = tree["landmarks"]
        return numbers


def similarity_from_dict(tree: dict[str, Any]) -> Similarity:
    """What a similarity's `to_dict` gave."""
    kinds: dict[str, Any] = {
        "numbers": Numbers,
        "anywhere": Anywhere,
        "places": Places,
        "tolerant": Tolerant,
    }
    similarity: Similarity = kinds[tree["kind"]].from_dict(tree)
    return similarity
