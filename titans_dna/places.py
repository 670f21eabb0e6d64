"""How alike two sequences of one length are, word by word at their places.

Both kinds count in whole numbers, whose sums are exact (of long repeats nearly so): how alike a
sequence is to a landmark does not depend on what else is asked for in the same call.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from titans_dna.alphabet import COMPLEMENT, Tokens
from titans_dna.batches import take_batch
from titans_dna.sequences import Sequences

Floats = NDArray[np.float32]
Bits = NDArray[np.uint64]
Codes = NDArray[np.int32]
Counts = NDArray[np.uint16]
Smeared = NDArray[np.int16]  # a word at every place sums to 2 x 1604 at most

_LONGEST_WORD = 3


class Places:
    """Words of one, two and three letters at the same places.

    A sequence is three rows of bits: two for its letters, one for where these are known. A row of
    bits then says where two sequences agree; the words they share are its runs of ones.

    Parameters
    ----------
    both_strands : bool
        Either strand of a landmark is alike.
    """

    _BLOCK_PAIRS = 2**15  # what is worked on stays in the processor's cache

    def __init__(self, both_strands: bool = False) -> None:
        self.both_strands = both_strands
        self._described: tuple[list[Bits], list[Floats]] | None = None  # when it is first asked

    def prepare(self, landmarks: Sequences) -> None:
        """Take the rows that all others will be compared with."""
        self.landmarks, self._described = _codes(landmarks), None

    def __call__(self, inputs: Sequences) -> Floats:
        """``(n, number of landmarks)``."""
        if self._described is None:
            self._described = self._describe_landmarks()
        strands, sizes = self._described
        codes, m = _codes(inputs), len(self.landmarks)
        # Of a shorter sequence there are only shorter words.
        words = np.float32(min(_LONGEST_WORD, codes.shape[1]))
        alike = np.zeros((len(codes), m), np.float32)
        step = max(1, self._BLOCK_PAIRS // m)
        for rows in (slice(first, first + step) for first in range(0, len(codes), step)):
            mine = _as_bits(codes[rows])
            shared = zip(*(_count_shared(mine, strand) for strand in strands), strict=True)
            own = _count_runs([*mine[2].T])
            for counts, known, size in zip(shared, own, sizes, strict=True):
                alike[rows] += sum(counts) / (_roots(known)[:, None] * size * words)
        return alike

    def _describe_landmarks(self) -> tuple[list[Bits], list[Floats]]:
        strands = [_as_bits(self.landmarks)]
        if self.both_strands:
            strands.append(_as_bits(COMPLEMENT[self.landmarks[:, ::-1]]))
        sizes = [len(strands) * _roots(known) for known in _count_runs([*strands[0][2].T])]
        return strands, sizes

    def to_dict(self) -> dict[str, Any]:
        """All that it holds, as `save_tree` takes it."""
        return {"kind": "places", "both_strands": self.both_strands, "landmarks": self.landmarks}

    @classmethod
    def from_dict(cls, tree: dict[str, Any]) -> Places:
        """What `to_dict` gave."""
        places = cls(tree["both_strands"])
        places.landmarks = tree["landmarks"]
        return places


class Tolerant:
    """Words of three and four letters at about the same places.

    Their indicators are smeared along the sequence and seen from centres, a width apart.

    Parameters
    ----------
    both_strands : bool
        Either strand of a landmark is alike.
    """

    _SMEARED = ((3, 4), (4, 10))  # letters of a word; standard deviation of its place
    _FINENESS = 64
    _BLOCK_ROWS = 256

    def __init__(self, both_strands: bool = False) -> None:
        self.both_strands = both_strands
        self._described: list[list[tuple[Smeared, Floats]]] | None = None  # when first asked

    def prepare(self, landmarks: Sequences) -> None:
        """Take the rows that all others will be compared with."""
        self.landmarks, self._described = _codes(landmarks), None

    def __call__(self, inputs: Sequences) -> Floats:
        """``(n, number of landmarks)``."""
        if self._described is None:
            firsts = range(0, len(self.landmarks), self._BLOCK_ROWS)
            self._described = [self._describe_landmarks(first) for first in firsts]
        mine = [(rows, _norms(rows)) for rows in self._describe(_codes(inputs))]
        words = np.float32(len(mine))
        alike = np.zeros((len(inputs), len(self.landmarks)), np.float32)
        blocks = np.split(alike, range(self._BLOCK_ROWS, len(self.landmarks), self._BLOCK_ROWS), 1)
        for block, described in zip(blocks, self._described, strict=True):
            for (rows, norms), (theirs, sizes) in zip(mine, described, strict=True):
                block += rows @ theirs.astype(np.float32).T / (norms[:, None] * sizes * words)
        return alike

    def _describe_landmarks(self, first: int) -> list[tuple[Smeared, Floats]]:
        """Some of them, as `_describe` does, on all strands that count; and their lengths."""
        codes = self.landmarks[first : first + self._BLOCK_ROWS]
        if not self.both_strands:
            return [(rows.astype(np.int16), _norms(rows)) for rows in self._describe(codes)]
        pairs = zip(self._describe(codes), self._describe(COMPLEMENT[codes[:, ::-1]]), strict=True)
        return [((rows + reverse).astype(np.int16), 2 * _norms(rows)) for rows, reverse in pairs]

    def _describe(self, codes: Tokens) -> Iterator[Floats]:
        """One matrix of whole numbers for each length of word: how much of which is where."""
        from scipy.sparse import csr_matrix

        for k, deviation in self._SMEARED:
            n, places = len(codes), codes.shape[1] - k + 1
            if places < 1:
                continue
            word, known = _words(codes, k)
            n_centres = -(-places // deviation)
            # Half places, so that the centres lie alike from both ends, and both strands are alike.
            half = 2 * np.arange(places) - (places - 1 - (n_centres - 1) * deviation)
            centres = half[:, None] // (2 * deviation) + np.arange(-3, 5)
            apart = (half[:, None] - 2 * deviation * centres) / (2 * deviation)
            place, which = np.nonzero((centres >= 0) & (centres < n_centres) & (np.abs(apart) <= 3))
            weights = np.round(self._FINENESS * np.exp(-(apart[place, which] ** 2) / 2))
            cells = word[:, place] + (4**k * centres[place, which]).astype(np.int32)
            seen = known[:, place] * weights.astype(np.float32)
            ends = np.arange(n + 1, dtype=np.int32) * len(place)
            shape = (n, n_centres * 4**k)
            # Words that come again near a centre add up there.
            yield csr_matrix((seen.ravel(), cells.ravel(), ends), shape).toarray()

    def to_dict(self) -> dict[str, Any]:
        """All that it holds, as `save_tree` takes it."""
        return {"kind": "tolerant", "both_strands": self.both_strands, "landmarks": self.landmarks}

    @classmethod
    def from_dict(cls, tree: dict[str, Any]) -> Tolerant:
        """What `to_dict` gave."""
        tolerant = cls(tree["both_strands"])
        tolerant.landmarks = tree["landmarks"]
        return tolerant


def _codes(sequences: Sequences) -> Tokens:
    """Tokens without their case, ``(n, length)``."""
    codes: Tokens = take_batch(sequences, np.arange(len(sequences))).numpy() & np.uint8(15)
    return codes


def _as_bits(codes: Tokens) -> Bits:
    """The letters' low bits, their high bits, and where they are known: ``(3, n, words)``."""
    known = codes < 4
    planes = np.stack([known & (codes & 1 > 0), known & (codes & 2 > 0), known])
    room = -planes.shape[2] % 64
    padded = np.pad(planes, ((0, 0), (0, 0), (0, room)))
    bits: Bits = np.packbits(padded, axis=2, bitorder="little").view("<u8")
    return bits


def _count_shared(mine: Bits, theirs: Bits) -> list[Counts]:
    """How many words of one letter, of two, of three two sequences share at their places.

    Returns
    -------
    list of ndarray of shape (n, m)
    """
    agree = []
    for own, other in zip(mine.transpose(2, 0, 1), theirs.transpose(2, 0, 1), strict=True):
        low, high, known = own[:, :, None] ^ other[:, None, :]
        low |= high
        np.invert(low, out=low)
        np.bitwise_and(own[2][:, None], other[2], out=known)
        low &= known
        agree.append(low)
    return _count_runs(agree)


def _count_runs(bits: list[Bits]) -> list[Counts]:
    """How many ones there are, ones that another follows, ones that two follow.

    Parameters
    ----------
    bits : list of ndarray
        One after the other along the sequence, 64 places each.
    """
    counts = [np.zeros(bits[0].shape, np.uint16) for _ in range(_LONGEST_WORD)]
    for here, after in zip(bits, [*bits[1:], None], strict=True):
        runs = here
        for k, count in enumerate(counts):
            if k:
                shifted = here >> np.uint64(k)
                if after is not None:
                    shifted |= after << np.uint64(64 - k)
                runs = np.bitwise_and(runs, shifted, out=shifted)
            count += np.bitwise_count(runs)
    return counts


def _words(codes: Tokens, k: int) -> tuple[Codes, NDArray[np.bool_]]:
    """Number of the word that begins at each place ``(n, length - k + 1)``; whether it has one."""
    places = codes.shape[1] - k + 1
    word = np.zeros((len(codes), places), np.int32)
    known = np.ones((len(codes), places), bool)
    for j in range(k):
        letters = codes[:, j : j + places]
        word, known = word * 4 + (letters & 3), known & (letters < 4)
    return word, known


def _norms(rows: Floats) -> Floats:
    return _roots(np.einsum("ij,ij->i", rows, rows))


def _roots(squares: Any) -> Floats:
    """Lengths of vectors; next to nothing instead of zero, as these are divided by."""
    roots: Floats = np.sqrt(squares.astype(np.float32))
    return np.maximum(roots, np.float32(1e-6))
