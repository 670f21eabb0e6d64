"""How alike two sequences are: by words at the same places, by words anywhere, or as numbers.

Words at places: for words of one, two and three letters the cosine of their one-hot vectors, and
the mean over the three (a weighted-degree kernel: Rätsch and Sonnenburg, 2004). Words anywhere: the
mean of the cosines of the roots of k-mer shares (a spectrum kernel: Leslie, Eskin and Noble, 2002).
With ``gamma`` a similarity s becomes ``exp(gamma (s - 1))``, which also sees combinations.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from titans_dna.batches import take_batch
from titans_dna.kmers import _root_shares as root_shares
from titans_dna.kmers import kmer_counts
from titans_dna.sequences import Sequences

Floats = NDArray[np.float32]

_BLOCK_CELLS = 2**23
_WORDS = (1, 2, 3)
_ANYWHERE_MAX = 6
_COMPLEMENT = np.array([3, 2, 1, 0], np.int64)


class Comparison(Protocol):
    """Compares rows with landmarks."""

    @property
    def name(self) -> str:
        """What reports call it."""

    def prepare(self, landmarks: Any) -> None:
        """Take the rows that all others will be compared with."""

    def __call__(self, inputs: Any) -> Floats:
        """``(n, number of landmarks)``."""

    def to_dict(self) -> dict[str, Any]:
        """All that it holds, as `save_tree` takes it."""


class Places:
    """Words at the same places, of sequences of one length.

    Parameters
    ----------
    gamma : float, optional
        None leaves the similarity linear.
    both_strands : bool
        Average over both strands of the landmarks, so that either strand of a sequence is alike.
    """

    def __init__(self, gamma: float | None, both_strands: bool = False) -> None:
        self.gamma, self.both_strands = gamma, both_strands

    @property
    def name(self) -> str:
        """What reports call it."""
        return "places" if self.gamma is None else "places, combined"

    def prepare(self, landmarks: Sequences) -> None:
        """Take the rows that all others will be compared with."""
        self.landmarks = take_batch(landmarks, np.arange(len(landmarks))).numpy() & 15
        self._described: list[Floats] | None = None

    def __call__(self, inputs: Sequences) -> Floats:
        """``(n, number of landmarks)``."""
        if self._described is None:
            self._described = _one_hot(self.landmarks)
            if self.both_strands:
                reverse = np.append(_COMPLEMENT, np.arange(4, 16))[self.landmarks[:, ::-1]]
                pairs = zip(self._described, _one_hot(reverse), strict=True)
                self._described = [(a + b) / 2 for a, b in pairs]
        step = max(1, _BLOCK_CELLS // sum(w.shape[1] for w in self._described))
        parts = []
        for first in range(0, len(inputs), step):
            rows = np.arange(first, min(len(inputs), first + step))
            words = _one_hot(take_batch(inputs, rows).numpy() & 15)
            pairs = zip(words, self._described, strict=True)
            parts.append(_bend(sum(a @ b.T for a, b in pairs) / len(words), self.gamma))
        return np.concatenate(parts)

    def to_dict(self) -> dict[str, Any]:
        """All that it holds, as `save_tree` takes it."""
        return {
            "kind": "places",
            "gamma": self.gamma,
            "both_strands": self.both_strands,
            "landmarks": self.landmarks,
        }


class Anywhere:
    """Words wherever they stand, of sequences of any lengths.

    Parameters
    ----------
    gamma : float
    both_strands : bool
        Count the words of both strands.
    """

    def __init__(self, gamma: float, both_strands: bool = False) -> None:
        self.gamma, self.both_strands = gamma, both_strands

    @property
    def name(self) -> str:
        """What reports call it."""
        return "words, combined"

    def prepare(self, landmarks: Sequences) -> None:
        """Take the rows that all others will be compared with."""
        self.landmarks = self._shares(landmarks)

    def __call__(self, inputs: Sequences) -> Floats:
        """``(n, number of landmarks)``."""
        products = (self._shares(inputs) @ self.landmarks.T).toarray()
        return _bend(products.astype(np.float32) / _ANYWHERE_MAX, self.gamma)

    def _shares(self, sequences: Sequences) -> Any:
        counts = kmer_counts(sequences, _ANYWHERE_MAX)
        return root_shares(counts, _ANYWHERE_MAX, self.both_strands).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """All that it holds, as `save_tree` takes it."""
        shares = self.landmarks.tocsr()
        return {
            "kind": "anywhere",
            "gamma": self.gamma,
            "both_strands": self.both_strands,
            "shape": list(shares.shape),
            "data": shares.data,
            "indices": shares.indices,
            "indptr": shares.indptr,
        }


class Numbers:
    """Signals, by their differences: ``1 - |a - b|^2 / 2p``; linear, their products.

    Parameters
    ----------
    gamma : float, optional
        None leaves the similarity linear.
    """

    def __init__(self, gamma: float | None) -> None:
        self.gamma = gamma

    @property
    def name(self) -> str:
        """What reports call it."""
        return "places" if self.gamma is None else "places, combined"

    def prepare(self, landmarks: Floats) -> None:
        """Take the rows that all others will be compared with."""
        self.landmarks = landmarks

    def __call__(self, inputs: Floats) -> Floats:
        """``(n, number of landmarks)``."""
        p = inputs.shape[1]
        products = inputs @ self.landmarks.T / p
        if self.gamma is None:
            return products
        squares = ((x**2).sum(1) / (2 * p) for x in (inputs, self.landmarks))
        mine, theirs = squares
        return _bend(1 + products - mine[:, None] - theirs[None], self.gamma)

    def to_dict(self) -> dict[str, Any]:
        """All that it holds, as `save_tree` takes it."""
        return {"kind": "numbers", "gamma": self.gamma, "landmarks": self.landmarks}


def comparison_from_dict(tree: dict[str, Any]) -> Comparison:
    """What a comparison's `to_dict` gave."""
    if tree["kind"] == "anywhere":
        from scipy.sparse import csr_matrix

        anywhere = Anywhere(tree["gamma"], tree["both_strands"])
        parts = tree["data"], tree["indices"], tree["indptr"]
        anywhere.landmarks = csr_matrix(parts, shape=tuple(tree["shape"]))
        return anywhere
    if tree["kind"] == "numbers":
        numbers = Numbers(tree["gamma"])
        numbers.prepare(tree["landmarks"])
        return numbers
    places = Places(tree["gamma"], tree["both_strands"])
    places.landmarks, places._described = tree["landmarks"], None
    return places


def _bend(similarity: Any, gamma: float | None) -> Floats:
    bent: Floats = similarity if gamma is None else np.exp(np.float32(gamma) * (similarity - 1))
    return bent


def _one_hot(codes: NDArray[Any]) -> list[Floats]:
    """One matrix for each length of word, its rows of length one: which word stands where."""
    codes = codes.astype(np.int64)
    described = []
    for k in _WORDS:
        places = codes.shape[1] - k + 1
        if places < 1:
            break
        word, known = np.zeros((len(codes), places), np.int64), np.ones((len(codes), places), bool)
        for j in range(k):
            letters = codes[:, j : j + places]
            word, known = word * 4 + (letters & 3), known & (letters < 4)
        one_hot = np.zeros((len(codes), places * 4**k), np.float32)
        row, place = np.nonzero(known)
        norms = np.sqrt(known.sum(1, dtype=np.float32).clip(1))
        one_hot[row, place * 4**k + word[row, place]] = 1 / norms[row]
        described.append(one_hot)
    return described
