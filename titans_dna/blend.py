"""How much each part of the classifier is let in: a log-linear pool, fitted on held-out rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_TINY = 1e-7
# What one row of evidence must outweigh: keeps the weights near equal shares on a few rows.
_PRIOR_ROWS = 1.0
_LARGEST = 5.0


@dataclass(frozen=True)
class Blend:
    """``log p = sum_e weights[e] log p_e``, normalised: shares and temperature in one.

    Parameters
    ----------
    weights : ndarray of shape (E,)
        Not negative; their sum is the inverse temperature.
    """

    weights: Array

    @classmethod
    def equal(cls, n_experts: int) -> Blend:
        """No expert trusted more than another."""
        return cls(np.full(n_experts, 1 / n_experts))

    @classmethod
    def fit(
        cls,
        probabilities: Array,
        y: NDArray[np.int64],
        row_weights: Array,
        prior: Array | None = None,
    ) -> Blend:
        """Minimise the log loss on rows that no expert has learned from.

        Parameters
        ----------
        probabilities : ndarray of shape (E, n, K)
        y : ndarray of int, shape (n,)
            Index of each row's class.
        row_weights : ndarray of shape (n,)
        prior : ndarray of shape (E,), optional
            Weights to begin from and to be pulled to; None is equal shares.
        """
        from scipy.optimize import minimize

        logs = _log(probabilities)
        n_experts, n = logs.shape[:2]
        start = np.full(n_experts, 1 / n_experts) if prior is None else prior
        weights = row_weights / row_weights.mean()

        def loss(w: Array) -> tuple[float, Array]:
            scores = np.tensordot(w, logs, 1)
            normalised = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
            picked = np.arange(n), y
            p = np.exp(normalised)
            slope = ((p[None] * logs).sum(2) - logs[:, picked[0], picked[1]]) @ weights
            pull = w - start
            value = -(weights * normalised[picked]).sum() + _PRIOR_ROWS * (pull**2).sum()
            return value / n, (slope + 2 * _PRIOR_ROWS * pull) / n

        bounds = [(0, _LARGEST)] * n_experts
        found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
        return cls(found.x if found.x.sum() > 0 else start)

    def __call__(self, probabilities: Array) -> Array:
        """``(E, n, K) -> (n, K)`` log probabilities."""
        scores = np.tensordot(self.weights, _log(probabilities), 1)
        normalised: Array = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
        return normalised


def _log(probabilities: Array) -> Array:
    logs: Array = np.log(np.clip(probabilities, _TINY, None))
    return logs
