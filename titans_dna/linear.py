"""The linear parts: k-mers wherever they stand, and words at their places.

They are floors to compare with and experts to blend with, as the ridge is for the forecaster. Each
is fitted once on all rows and once without every fold, so that the blend can be chosen on what was
held out.
"""

from __future__ import annotations

from collections.abc import Sequence as Series
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from titans_dna.batches import Inputs, Rows
from titans_dna.kernel_part import KernelPart
from titans_dna.kmer_network import KmerNetwork
from titans_dna.kmers import KmerBaseline
from titans_dna.places import Places, Tolerant
from titans_dna.similarity import Anywhere, Numbers

Array = NDArray[np.float64]
Fold = tuple[Rows, Rows]

_GAMMA = 2.0
_MOST_COMPARED = 100_000  # of more rows too few would be landmarks


class LinearPart(Protocol):
    """An expert that is fitted in one go."""

    @property
    def name(self) -> str:
        """What reports call it."""

    def cross_fit(
        self, inputs: Any, y: NDArray[np.int64], class_weights: Array, folds: Series[Fold]
    ) -> list[Array]:
        """Learn from all rows; say what it would have said of each fold without it."""

    def probabilities(self, inputs: Any) -> Array:
        """Class probabilities ``(n, K)``."""

    def to_dict(self) -> dict[str, Any]:
        """All that it has learned, as `save_tree` takes it."""


class KmerPart:
    """`KmerBaseline`, with a probability for every class, also those it has not seen.

    Parameters
    ----------
    both_strands : bool or "auto"
    """

    def __init__(self, both_strands: bool | str = "auto", random_state: int = 0) -> None:
        self.both_strands, self.random_state = both_strands, random_state

    @property
    def name(self) -> str:
        """What reports call it."""
        return "k-mers"

    def cross_fit(
        self, inputs: Any, y: NDArray[np.int64], class_weights: Array, folds: Series[Fold]
    ) -> list[Array]:
        """Learn from all rows; say what it would have said of each fold without it."""
        self.n_classes = len(class_weights)
        weights = dict(enumerate(class_weights.tolist()))

        def fit(rows: Rows, **chosen: Any) -> KmerBaseline:
            present = np.unique(y[rows]).tolist()
            baseline = KmerBaseline(
                both_strands=chosen.pop("both_strands", self.both_strands),
                class_weight={c: weights[c] for c in present},
                random_state=self.random_state,
                **chosen,
            )
            return baseline.fit(inputs.take(rows), y[rows])

        self.baseline = fit(np.arange(len(y)))
        # The size of the words, the penalty and the strands were chosen once, for all.
        chosen = {
            "k_max": self.baseline.k_,
            "C": self.baseline.C_,
            "both_strands": self.baseline.both_strands_,
        }
        return [self._spread(fit(learn, **chosen), inputs.take(held)) for learn, held in folds]

    def probabilities(self, inputs: Any) -> Array:
        """Class probabilities ``(n, K)``."""
        return self._spread(self.baseline, inputs)

    def _spread(self, baseline: KmerBaseline, inputs: Any) -> Array:
        p = np.zeros((len(inputs), self.n_classes))
        p[:, baseline.classes_] = baseline.predict_proba(inputs)
        return p

    def to_dict(self) -> dict[str, Any]:
        """All that it has learned, as `save_tree` takes it."""
        return {"kind": "k-mers", "n_classes": self.n_classes, **self.baseline.to_dict()}

    @classmethod
    def from_dict(cls, tree: dict[str, Any]) -> KmerPart:
        """What `to_dict` gave."""
        part = cls()
        part.n_classes = tree.pop("n_classes")
        del tree["kind"]
        part.baseline = KmerBaseline.from_dict(tree)
        return part


def linear_parts(
    inputs: Inputs, *, length: int | None, both_strands: bool, random_state: int
) -> list[LinearPart]:
    """Those that suit the inputs; the first is the floor that reports show.

    Parameters
    ----------
    inputs : Sequences or ndarray of shape (n, p)
    length : int, optional
        Bases of every sequence, if places mean anything.
    both_strands : bool
        A sequence and its reverse complement must get the same answer.
    """
    if isinstance(inputs, np.ndarray):
        return [
            KernelPart("places", [Numbers(products=True)]),
            KernelPart("places, combined", [Numbers(products=False)], _GAMMA),
        ]
    parts: list[LinearPart] = [
        KmerPart(both_strands or "auto", random_state),
        KmerNetwork(both_strands, random_state),
    ]
    if len(inputs) <= _MOST_COMPARED:
        parts.append(alike_part(length, both_strands))
        if length is not None and not both_strands:
            parts.append(KernelPart("places", [Places()]))
    return parts


def alike_part(length: int | None, both_strands: bool) -> KernelPart:
    """Compare words: at their places, thereabouts and anywhere, or of several lengths anywhere."""
    kinds = (Anywhere,) if length is None else (Places, Tolerant, Anywhere)
    return KernelPart("alike", [kind(both_strands) for kind in kinds], _GAMMA)


def part_from_dict(tree: dict[str, Any]) -> LinearPart:
    """What a part's `to_dict` gave."""
    kinds: dict[str, Any] = {
        "k-mers": KmerPart,
        "k-mer network": KmerNetwork,
        "kernel": KernelPart,
    }
    part: LinearPart = kinds[tree["kind"]].from_dict(tree)
    return part
