"""Kernel ridge on what sequences have in common: closed-form, like the forecaster's ridge.

Similarities (`titans_dna.similarity`) say how alike two sequences are. With ``gamma`` their mean s
becomes ``exp(gamma (s - 1))``, which also sees combinations. The ridge is fitted to indicators of
the classes, and a softmax, sharpened to fit, makes probabilities of what it answers. With many rows
its weights stand on a sample of them, the landmarks (Nyström: Williams and Seeger, 2001), so that
cost grows linearly with the rows.
"""

from __future__ import annotations

from collections.abc import Sequence as Series
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from titans_dna.batches import Rows, take_rows
from titans_dna.sharpness import choose_sharpness, softmax
from titans_dna.similarity import Similarity, similarity_from_dict

Array = NDArray[np.float64]
Fold = tuple[Rows, Rows]

_MOST_LANDMARKS = 5000
_MOST_CELLS = 10**8  # of the matrix of rows and landmarks
_PENALTIES = (0.1, 1.0, 10.0)
_BLOCK_ROWS = 128  # compared at a time


class KernelPart:
    """Ridge regression in the space that similarities span.

    Parameters
    ----------
    name : str
        What reports call it.
    similarities : list of Similarity
        Not prepared yet.
    gamma : float, optional
        None leaves their mean as it is.
    """

    def __init__(
        self, name: str, similarities: Series[Similarity], gamma: float | None = None
    ) -> None:
        self.name, self.similarities, self.gamma = name, similarities, gamma
        self.sharpness = 4.0

    def cross_fit(
        self, inputs: Any, y: NDArray[np.int64], class_weights: Array, folds: Series[Fold]
    ) -> list[Array]:
        """Learn from all rows; say what it would have said of each fold without it."""
        landmarks = _choose_landmarks(y)
        chosen = take_rows(inputs, landmarks)
        for similarity in self.similarities:
            similarity.prepare(chosen)
        kernel = self._compare(inputs)
        solver = _Solver(kernel, kernel[landmarks], np.eye(len(class_weights))[y], class_weights[y])
        penalty = solver.choose(folds[0][1]) if folds else _PENALTIES[0]
        scores = [solver.scores(held, penalty) for _, held in folds]
        self.coefficients, self.mean = solver.solve(None, penalty)
        if folds:
            held_out = np.concatenate([held for _, held in folds])
            weights = class_weights[y[held_out]]
            self.sharpness = choose_sharpness(np.concatenate(scores), y[held_out], weights)
        return [softmax(s, self.sharpness) for s in scores]

    def probabilities(self, inputs: Any) -> Array:
        """Class probabilities ``(n, K)``."""
        return softmax(self._compare(inputs) @ self.coefficients + self.mean, self.sharpness)

    def _compare(self, inputs: Any) -> NDArray[np.float32]:
        blocks = []
        for first in range(0, len(inputs), _BLOCK_ROWS):
            block = take_rows(inputs, np.arange(first, min(len(inputs), first + _BLOCK_ROWS)))
            s = np.sum([similarity(block) for similarity in self.similarities], axis=0)
            s /= np.float32(len(self.similarities))
            blocks.append(s if self.gamma is None else np.exp(np.float32(self.gamma) * (s - 1)))
        return np.concatenate(blocks)

    def to_dict(self) -> dict[str, Any]:
        """All that it has learned, as `save_tree` takes it."""
        return {
            "kind": "kernel",
            "name": self.name,
            "similarities": [similarity.to_dict() for similarity in self.similarities],
            "gamma": self.gamma,
            "sharpness": self.sharpness,
            "coefficients": self.coefficients,
            "mean": self.mean,
        }

    @classmethod
    def from_dict(cls, tree: dict[str, Any]) -> KernelPart:
        """What `to_dict` gave."""
        similarities = [similarity_from_dict(stored) for stored in tree["similarities"]]
        part = cls(tree["name"], similarities, tree["gamma"])
        part.sharpness, part.mean = tree["sharpness"], tree["mean"]
        part.coefficients = tree["coefficients"]
        return part


class _Solver:
    """Weighted ridge with landmarks, for all rows or for all but some."""

    def __init__(
        self, kernel: NDArray[np.float32], square: NDArray[np.float32], goal: Array, weights: Array
    ) -> None:
        self.kernel, self.square, self.goal, self.weights = kernel, square, goal, weights
        self.gram, self.products = self._sums(slice(None))

    def choose(self, held: Rows) -> float:
        """Penalty with the smallest squared error on some rows, without them."""
        weights = self.weights[held][:, None]

        def error(penalty: float) -> float:
            return float((weights * (self.scores(held, penalty) - self.goal[held]) ** 2).sum())

        return min(_PENALTIES, key=error)

    def scores(self, held: Rows, penalty: float) -> Array:
        """What a fit without some rows says of them."""
        coefficients, mean = self.solve(held, penalty)
        scores: Array = self.kernel[held] @ coefficients + mean
        return scores

    def solve(self, without: Rows | None, penalty: float) -> tuple[Array, Array]:
        """Coefficients of the landmarks and the mean of the goal, without some rows."""
        from scipy.linalg import cho_solve

        gram, products, weights, goal = self.gram, self.products, self.weights, self.goal
        if without is not None:
            held_gram, held_products = self._sums(without)
            gram, products = gram - held_gram, products - held_products
            kept = np.ones(len(weights), bool)
            kept[without] = False
            weights, goal = weights[kept], goal[kept]
        mean = weights @ goal / weights.sum()
        left = gram + penalty * self.square
        right = products[:, :-1] - products[:, -1:] * mean
        # Rows one after the other, as when they are loaded: products then round alike.
        coefficients = np.ascontiguousarray(cho_solve(_factor(left), right))
        return coefficients, mean

    def _sums(self, rows: Any) -> tuple[Array, Array]:
        kernel, weights = self.kernel[rows], self.weights[rows][:, None].astype(np.float32)
        goal = np.concatenate([self.goal[rows], np.ones((len(kernel), 1))], axis=1)
        weighted = kernel * weights
        return (weighted.T @ kernel).astype(np.float64), weighted.T.astype(np.float64) @ goal


def _factor(left: Array) -> Any:
    """Cholesky factor of sums in float32; the least is added that makes them definite."""
    from scipy.linalg import LinAlgError, cho_factor

    mean = np.trace(left) / len(left) or 1.0  # nothing at all in common: a matrix of zeros
    diagonal = left.diagonal().copy()
    for share in (1e-5, 1e-4, 1e-3, 1e-2):
        left[np.diag_indices_from(left)] = diagonal + share * mean
        with suppress(LinAlgError):
            return cho_factor(left)
    left[np.diag_indices_from(left)] = diagonal + mean
    return cho_factor(left)


def _choose_landmarks(y: NDArray[np.int64]) -> Rows:
    """Rows at even steps, sorted by class: all of them, if they are few."""
    n = len(y)
    number = max(1, min(n, _MOST_LANDMARKS, _MOST_CELLS // n))
    steps = np.linspace(0, n - 1, number).astype(np.int64)
    return np.argsort(y, kind="stable")[steps]
