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

from titans_dna.alphabet import COMPLEMENT
from titans_dna.batches import take_batch
from titans_dna.kmers import kmer_counts, root_shares
from titans_dna.sequences import Sequences

Floats = NDArray[np.float32]
Codes = NDArray[np.int64]

_BLOCK_CELLS = 2**23


class Similarity(Protocol):
    """Compares rows with landmarks."""

    def prepare(self, landmarks: Any) -> None:
        """Take the rows that all others will be compared with."""

    def __call__(self, inputs: Any) -> Floats:
        """``(n, number of landmarks)``."""

    def to_dict(self) -> dict[str, Any]:
        """All that it holds, as `save_tree` takes it."""


class Places:
    """Words at the same places, of sequences of one length."""

    _WORDS = (1, 2, 3)

    def __init__(self, both_strands: bool = False) -> None:
        self.both_strands = both_strands

    def prepare(self, landmarks: Sequences) -> None:
        """Take the rows that all others will be compared with."""
        self.landmarks = take_batch(landmarks, np.arange(len(landmarks))).numpy() & np.uint8(15)
        self._described: list[Any] | None = None

    def __call__(self, inputs: Sequences) -> Floats:
        """``(n, number of landmarks)``."""
        if self._described is None:
            self._described = self._describe(self.landmarks)
            if self.both_strands:
                reverse = self._describe(COMPLEMENT[self.landmarks[:, ::-1]])
                pairs = zip(self._described, reverse, strict=True)
                self._described = [a + b for a, b in pairs]
            norms = map(_norms, self._describe(self.landmarks))
            self._sizes: list[Any] = [(1 + self.both_strands) * norm for norm in norms]
        width = self.landmarks.shape[1] * sum(4**k for k in self._WORDS)
        step = max(1, _BLOCK_CELLS // width)
        parts = []
        for first in range(0, len(inputs), step):
            rows = np.arange(first, min(len(inputs), first + step))
            words = self._describe(take_batch(inputs, rows).numpy() & np.uint8(15))
            alike = np.zeros((len(rows), len(self.landmarks)), np.float32)
            # Whole numbers until here, whose sums are exact: no row's answer depends on the others.
            for mine, theirs, sizes in zip(words, self._described, self._sizes, strict=True):
                alike += mine @ theirs.T / (_norms(mine)[:, None] * sizes * np.float32(len(words)))
            parts.append(alike)
        return np.concatenate(parts)

    def _describe(self, codes: NDArray[np.uint8]) -> list[Floats]:
        """One matrix of whole numbers for each length of word: which word stands where."""
        described = []
        for k in self._WORDS:
            if codes.shape[1] >= k:
                word, known = _words(codes, k)
                one_hot = np.zeros((len(codes), word.shape[1] * 4**k), np.float32)
                row, place = np.nonzero(known)
                one_hot[row, place * 4**k + word[row, place]] = 1
                described.append(one_hot)
        return described

    def to_dict(self) -> dict[str, Any]:
        """All that it holds, as `save_tree` takes it."""
        kind = "tolerant" if isinstance(self, Tolerant) else "places"
        return {"kind": kind, "both_strands": self.both_strands, "landmarks": self.landmarks}


class Tolerant(Places):
    """Words at about the same places: their indicators, smeared along the sequence."""

    _SMEARED = ((3, 4), (4, 10))  # letters of a word; standard deviation of its place
    _FINENESS = 64

    def _describe(self, codes: NDArray[np.uint8]) -> list[Floats]:
        n, length = codes.shape
        described = []
        for k, deviation in self._SMEARED:
            if length < k:
                continue
            word, known = _words(codes, k)
            row, place = np.nonzero(known)
            centres = -(-word.shape[1] // deviation)
            # Half places, so that the centres lie alike from both ends, and both strands are alike.
            half = 2 * place - (word.shape[1] - 1 - (centres - 1) * deviation)
            cells = np.zeros(n * centres * 4**k, np.float32)
            for offset in range(-3, 5):
                centre = half // (2 * deviation) + offset
                apart = (half - 2 * deviation * centre) / (2 * deviation)
                inside = (centre >= 0) & (centre < centres) & (np.abs(apart) <= 3)
                cell = (row[inside] * centres + centre[inside]) * 4**k + word[row, place][inside]
                weight = np.round(self._FINENESS * np.exp(-(apart[inside] ** 2) / 2))
                cells += np.bincount(cell, weight, minlength=len(cells)).astype(np.float32)
            described.append(cells.reshape(n, -1))
        return described


class Anywhere:
    """Words of one to six letters wherever they stand, of sequences of any lengths."""

    _LONGEST = 6

    def __init__(self, both_strands: bool = False) -> None:
        self.both_strands = both_strands

    def prepare(self, landmarks: Sequences) -> None:
        """Take the rows that all others will be compared with."""
        self.landmarks = self._shares(landmarks)

    def __call__(self, inputs: Sequences) -> Floats:
        """``(n, number of landmarks)``."""
        products = (self._shares(inputs) @ self.landmarks.T).toarray()
        alike: Floats = products.astype(np.float32) / self._LONGEST
        return alike

    def _shares(self, sequences: Sequences) -> Any:
        counts = kmer_counts(sequences, self._LONGEST)
        return root_shares(counts, self._LONGEST, self.both_strands).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """All that it holds, as `save_tree` takes it."""
        shares = self.landmarks.tocsr()
        return {
            "kind": "anywhere",
            "both_strands": self.both_strands,
            "shape": list(shares.shape),
            "data": shares.data,
            "indices": shares.indices,
            "indptr": shares.indptr,
        }


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


def similarity_from_dict(tree: dict[str, Any]) -> Similarity:
    """What a similarity's `to_dict` gave."""
    if tree["kind"] == "numbers":
        numbers = Numbers(tree["products"])
        numbers.prepare(tree["landmarks"])
        return numbers
    if tree["kind"] == "anywhere":
        from scipy.sparse import csr_matrix

        anywhere = Anywhere(tree["both_strands"])
        parts = tree["data"], tree["indices"], tree["indptr"]
        anywhere.landmarks = csr_matrix(parts, shape=tuple(tree["shape"]))
        return anywhere
    places = (Tolerant if tree["kind"] == "tolerant" else Places)(tree["both_strands"])
    places.landmarks, places._described = tree["landmarks"], None
    return places


def _words(codes: NDArray[np.uint8], k: int) -> tuple[Codes, NDArray[np.bool_]]:
    """Number of the word that begins at each place ``(n, length - k + 1)``; whether it has one."""
    places = codes.shape[1] - k + 1
    word = np.zeros((len(codes), places), np.int64)
    known = np.ones((len(codes), places), bool)
    for j in range(k):
        letters = codes[:, j : j + places]
        word, known = word * 4 + (letters & 3), known & (letters < 4)
    return word, known


def _norms(rows: Floats) -> Floats:
    norms: Floats = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    return np.maximum(norms, np.float32(1e-6))
