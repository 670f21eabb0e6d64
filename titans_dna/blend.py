"""How much each part of the classifier is let in: a log-linear pool, fitted on held-out rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_TINY = 1e-7
_PRIOR_PRECISION = 2.0  # keeps the weights near equal shares on a few rows
_LARGEST = 5.0


@dataclass(frozen=True)
class Blend:
    """``log p = sum_e weights[e] log p_e``, normalised: shares and temperature in one.

    Parameters
    ----------
    weights : ndarray of shape (E,)
        Not negative; their sum is the inverse temperature.
    precision : ndarray of shape (E, E), optional
        How sure the weights are: the curvature of the loss on all rows that they were fitted on.
        None is that of equal shares, before any row.
    """

    weights: Array
    precision: Array | None = None

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
        prior: Blend | None = None,
    ) -> Blend:
        """Minimise the log loss on rows that no expert has learned from.

        Going on from a prior, rows count as if they had been there with those before: its
        precision stands for the log loss on these, to second order.

        Parameters
        ----------
        probabilities : ndarray of shape (E, n, K)
        y : ndarray of int, shape (n,)
            Index of each row's class.
        row_weights : ndarray of shape (n,)
        prior : Blend, optional
            What to begin from and to be pulled to; None is equal shares.
        """
        from scipy.optimize import minimize

        logs = _log(probabilities)
        n_experts, n = logs.shape[:2]
        prior = cls.equal(n_experts) if prior is None else prior
        start, precision = prior.weights, prior.precision
        if precision is None:
            precision = _PRIOR_PRECISION * np.eye(n_experts)
        weights = row_weights / row_weights.mean()

        def loss(w: Array) -> tuple[float, Array]:
            normalised = _pool(w, logs)
            picked = np.arange(n), y
            p = np.exp(normalised)
            slope = ((p[None] * logs).sum(2) - logs[:, picked[0], picked[1]]) @ weights
            pull = precision @ (w - start)
            value = -(weights * normalised[picked]).sum() + (w - start) @ pull / 2
            return value / n, (slope + pull) / n

        bounds = [(0, _LARGEST)] * n_experts
        found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
        best = found.x if found.x.sum() > 0 else start
        return cls(best, precision + _curvature(best, logs, weights))

    def __call__(self, probabilities: Array) -> Array:
        """``(E, n, K) -> (n, K)`` log probabilities."""
        return _pool(self.weights, _log(probabilities))


def _pool(weights: Array, logs: Array) -> Array:
    scores = np.tensordot(weights, logs, 1)
    normalised: Array = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
    return normalised


def _curvature(w: Array, logs: Array, row_weights: Array) -> Array:
    """Second derivative of the log loss: how the experts' logarithms vary over the classes."""
    p = np.exp(_pool(w, logs))
    spread = (logs - (p * logs).sum(2, keepdims=True)) * np.sqrt(row_weights[:, None] * p)
    flat = spread.reshape(len(w), -1)
    curvature: Array = flat @ flat.T
    return curvature


def _log(probabilities: Array) -> Array:
    logs: Array = np.log(np.clip(probabilities, _TINY, None))
    return logs
