"""Long words that sequences share: they tell reads of known genomes, and strains a base apart.

Each sequence is the set of its words of 9 or 12 bases, those of either strand taken for the same; a
ridge on these sets, normalised, answers with a score for each class. Shorter words, as other parts
count them, are all in every longer sequence; of long ones a single changed base makes as many new.
Of sequences that are not related to those learned from they know nothing (`titans_dna.kinship`).
"""

from __future__ import annotations

from collections.abc import Sequence as Series
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from titans_dna.batches import Rows
from titans_dna.homology import rows_of
from titans_dna.kmer_codes import Codes, canonical_codes, scatter
from titans_dna.sequences import Sequences
from titans_dna.sharpness import choose_sharpness, softmax

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Array = NDArray[np.float64]
Fold = tuple[Rows, Rows]
Weights = tuple[NDArray[np.float32], NDArray[np.float32]]

_LENGTHS = (12, 9)
_PENALTIES = (0.3, 0.03, 3.0)
_TOLERANCE = 1e-3
# Words in all rows, times classes: beyond, an even part of the words must do.
_MOST_PRODUCTS = 1 << 27
_FEWEST_WORDS, _MOST_WORDS = 1 << 20, 1 << 24


class WordPart:
    """Ridge regression on which long words a sequence has."""

    name = "long words"
    sharpness = 4.0

    def cross_fit(
        self, inputs: Sequences, y: NDArray[np.int64], class_weights: Array, folds: Series[Fold]
    ) -> list[Array]:
        """Learn from all rows; say what it would have said of each fold without it."""
        goal, weights = np.eye(len(class_weights), dtype=np.float32)[y], class_weights[y]
        most = _MOST_PRODUCTS // len(class_weights)
        most = min(max(most, _FEWEST_WORDS), _MOST_WORDS)

        def describe(k: int) -> tuple[Codes, csr_matrix]:
            known = _recurring_words(inputs, k, most)
            return known, _which_words(inputs, k, known)

        def say(features: csr_matrix, fold: Fold, penalty: float) -> Array:
            learn, held = fold
            found = _regress(features[learn], goal[learn], weights[learn], penalty)
            return _scores(features[held], found)

        def error(scores: Array) -> float:
            held = folds[0][1]
            return float((weights[held, None] * (scores - goal[held]) ** 2).sum())

        self.k, penalty, said = _LENGTHS[0], _PENALTIES[0], []
        self.known, features = describe(self.k)
        if folds:
            other = describe(_LENGTHS[1])
            if error(say(other[1], folds[0], penalty)) < error(say(features, folds[0], penalty)):
                self.k, (self.known, features) = _LENGTHS[1], other
            tried = {each: say(features, folds[0], each) for each in _PENALTIES}
            penalty = min(tried, key=lambda each: error(tried[each]))
            said = [tried[penalty], *(say(features, fold, penalty) for fold in folds[1:])]
            held_out = np.concatenate([held for _, held in folds])
            self.sharpness = choose_sharpness(np.concatenate(said), y[held_out], weights[held_out])
        self.weights = _regress(features, goal, weights, penalty)
        return [softmax(scores, self.sharpness) for scores in said]

    def probabilities(self, inputs: Sequences) -> Array:
        """Class probabilities ``(n, K)``."""
        features = _which_words(inputs, self.k, self.known)
        return softmax(_scores(features, self.weights), self.sharpness)

    def to_dict(self) -> dict[str, Any]:
        """All that it has learned, as `save_tree` takes it."""
        return {
            "k": self.k,
            "known": self.known.view(np.int64),
            "coefficients": self.weights[0],
            "mean": self.weights[1],
            "sharpness": self.sharpness,
        }

    @classmethod
    def from_dict(cls, tree: dict[str, Any]) -> WordPart:
        """What `to_dict` gave."""
        part = cls()
        part.k, part.known = tree["k"], tree["known"].view(np.uint64)
        part.weights = tree["coefficients"], tree["mean"]
        part.sharpness = tree["sharpness"]
        return part


def draw(codes: Codes, share: float) -> NDArray[np.bool_]:
    """An even part of all codes, the same wherever they are met."""
    drawn: NDArray[np.bool_] = scatter(codes) <= share * 2**32
    return drawn


def _recurring_words(sequences: Sequences, k: int, most: int) -> Codes:
    """Words that two sequences have, sorted; of more than ``most`` in all, an even part of them."""
    share = min(1.0, most / max(len(sequences.tokens), 1))
    kept = [np.zeros((0, 2), np.uint64)]
    for at, codes in canonical_codes(sequences, k):
        drawn = draw(codes, share)
        pairs = np.stack([codes[drawn], rows_of(sequences, at[drawn]).astype(np.uint64)], axis=1)
        kept.append(pairs)
    pairs = np.concatenate(kept)
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    new = np.ones(len(pairs), bool)
    new[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
    words, rows = np.unique(pairs[new, 0], return_counts=True)
    return words[rows > 1]


def _which_words(sequences: Sequences, k: int, known: Codes) -> csr_matrix:
    """Which of the known words each sequence has: ``(n, words)``, rows of length one."""
    from scipy.sparse import csr_matrix

    rows, columns = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for at, codes in canonical_codes(sequences, k):
        place = np.searchsorted(known, codes).clip(max=max(len(known) - 1, 0))
        found = known[place] == codes if len(known) else np.zeros(len(codes), bool)
        cells = rows_of(sequences, at[found]) * len(known) + place[found]
        cells = np.unique(cells)  # once a sequence; a long one would have each many times
        rows.append(cells // max(len(known), 1))
        columns.append(cells % max(len(known), 1))
    shape = len(sequences), len(known)
    at, column = np.concatenate(rows), np.concatenate(columns)
    which = csr_matrix((np.ones(len(at), np.float32), (at, column)), shape)
    which.sum_duplicates()
    number = np.diff(which.indptr)
    which.data = np.repeat(1 / np.sqrt(number.clip(1)), number).astype(np.float32)
    return which


def _regress(
    features: csr_matrix, goal: NDArray[np.float32], weights: Array, penalty: float
) -> Weights:
    from sklearn.linear_model import Ridge

    if not features.shape[1]:  # no word in common: the mean is all there is
        mean = weights @ goal / weights.sum()
        return np.zeros((0, goal.shape[1]), np.float32), mean.astype(np.float32)
    ridge = Ridge(alpha=penalty, solver="sparse_cg", tol=_TOLERANCE)
    ridge.fit(features, goal, sample_weight=weights)
    return np.ascontiguousarray(ridge.coef_.T, np.float32), ridge.intercept_.astype(np.float32)


def _scores(features: csr_matrix, weights: Weights) -> Array:
    scores: Array = (features @ weights[0] + weights[1]).astype(np.float64)
    return scores
