"""Relatives of the training sequences: they are known by the 30-mers, and told by the long words.

The experts of a `Model` are weighed by what they say of sequences that are related to none learned
from. Of a read of a genome that was there in training more is known: which long words it shares
with which class. So what the experts say together is pooled, for such sequences alone, with what
`WordPart` says, both weighed on training sequences that have relatives among the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from titans_dna.batches import Rows
from titans_dna.blend import Blend
from titans_dna.folds import make_folds
from titans_dna.homology import equal_either_strand, rows_of
from titans_dna.kmer_codes import Codes, canonical_codes
from titans_dna.sequences import Sequences
from titans_dna.words import WordPart, draw

Array = NDArray[np.float64]

_K = 30
_MOST_KNOWN = 1 << 20  # 30-mers that are kept
_LEAST_SHARE, _FEWEST = 0.1, 60  # of the rows, to be related
_FOLDS = 5


@dataclass(frozen=True)
class Kinship:
    """How to tell relatives of the training sequences.

    Parameters
    ----------
    words : WordPart
    blend : Blend
        Weights of what the experts say together, and of what the words say.
    kmers : ndarray of uint64
        30-mers of the training sequences, sorted; of very many an even part.
    share : float
        How large a part.
    accuracy : float
        Share of right answers about held-out sequences that had relatives among those learned from.
    """

    words: WordPart
    blend: Blend
    kmers: Codes
    share: float
    accuracy: float

    def knows(self, inputs: Sequences) -> NDArray[np.bool_]:
        """Which sequences share a 30-mer with one learned from, ``(n,)``."""
        found = np.zeros(len(inputs), dtype=bool)
        for at, codes in canonical_codes(inputs, _K):
            drawn = draw(codes, self.share)
            at, codes = at[drawn], codes[drawn]
            place = np.searchsorted(self.kmers, codes).clip(max=len(self.kmers) - 1)
            found[rows_of(inputs, at[self.kmers[place] == codes])] = True
        return found

    def to_dict(self) -> dict[str, Any]:
        """All that was learned, as `save_tree` takes it."""
        return {
            "words": self.words.to_dict(),
            "weights": self.blend.weights,
            "kmers": self.kmers.view(np.int64),
            "share": self.share,
            "accuracy": self.accuracy,
        }

    @classmethod
    def from_dict(cls, tree: dict[str, Any]) -> Kinship:
        """What `to_dict` gave."""
        kmers = tree["kmers"].view(np.uint64)
        words = WordPart.from_dict(tree["words"])
        return cls(words, Blend(tree["weights"]), kmers, tree["share"], tree["accuracy"])


def fit_kinship(
    inputs: Sequences,
    y: NDArray[np.int64],
    class_weights: Array,
    related: NDArray[np.bool_],
    held_out: Rows,
    said: Array,
) -> Kinship | None:
    """Learn the words, and how far to trust them; None where too few sequences are related.

    Parameters
    ----------
    inputs : Sequences
    y : ndarray of int, shape (n,)
        Index of each row's class.
    class_weights : ndarray of shape (K,)
    related : ndarray of bool, shape (n,)
        Rows that have relatives among the others.
    held_out : ndarray of int
        Rows of which the experts have said something without having learned from them.
    said : ndarray of shape (len(held_out), K)
        What they have said together.
    """
    if related.sum() < max(_FEWEST, _LEAST_SHARE * len(y)):
        return None
    folds = make_folds(y, equal_either_strand(inputs), _FOLDS, 0)
    if not folds:
        return None
    words = WordPart()
    by_words = np.full((len(y), len(class_weights)), np.nan)
    parts = words.cross_fit(inputs, y, class_weights, folds)
    for (_, held), part in zip(folds, parts, strict=True):
        by_words[held] = part
    asked = related[held_out] & np.isfinite(by_words[held_out, 0])
    asked &= class_weights[y[held_out]] > 0
    if asked.sum() < _FEWEST:
        return None
    rows = held_out[asked]
    both = np.stack([said[asked], by_words[rows]])
    blend = Blend.fit(both, y[rows], class_weights[y[rows]], Blend(np.array([1.0, 0.0])))
    if not blend.weights[1]:
        return None
    share = min(1.0, _MOST_KNOWN / len(inputs.tokens))
    kept = [codes[draw(codes, share)] for _, codes in canonical_codes(inputs, _K)]
    accuracy = float((blend(both).argmax(axis=1) == y[rows]).mean())
    return Kinship(words, blend, np.unique(np.concatenate(kept)), share, accuracy)
