"""The linear part: ridges of several look-backs folded into one matrix, which goes on learning.

It is the floor that everything else must beat, the cold start of a stream, and what ``update``
goes on learning. All values are z-scored; ``L`` is the context, ``P`` the prediction length.
`linear_choice` chooses it on validation.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from titans_ts.moments import FARTHEST
from titans_ts.shares import no_evidence, shares, with_windows
from titans_ts.windows import Array, centre

HUBER_DELTA = 4.0  # standard deviations of error beyond which a window counts less


@dataclass
class LinearPart:
    """Forecast ``level (1 + s v) + (context - level) W + d``, for all channels or one by one.

    Parameters
    ----------
    weights : list of ndarray of shape (L, P)
        One, shared by the channels, or one for each.
    covariance : list of ndarray of shape (r, r)
        Inverse of the penalised Gram matrix of the last r <= L rows, whose weights go on learning.
    reversion : list of ndarray of shape (P,)
        v, by how much of its level a window's forecast returns to the mean of training.
    drift : list of ndarray of shape (P,)
        d, what a forecast grows by whatever its window; ``learn`` leaves it as it is.
    evidence : ndarray of shape (number of matrices, 4), optional
        Of how much of the reversion has held since the fit (`shares`): s, 1 at first.
    """

    weights: list[Array]
    covariance: list[Array]
    reversion: list[Array]
    drift: list[Array]
    evidence: Array = field(default_factory=lambda: no_evidence(0))

    def __post_init__(self) -> None:
        if not len(self.evidence):
            self.evidence = no_evidence(len(self.weights))

    @property
    def per_channel(self) -> bool:
        """Whether each channel has a matrix of its own."""
        return len(self.weights) > 1

    @property
    def context_length(self) -> int:
        """Rows of look-back."""
        return len(self.weights[0])

    @property
    def prediction_length(self) -> int:
        """Rows of forecast."""
        return self.weights[0].shape[1]

    def predict(self, context: Array, channel: np.ndarray | None = None) -> Array:
        """Forecast windows ``(n, L)`` of channels ``(n,)``: ``(n, P)``.

        None are the channels of the fit, in order. A channel of -1 was not fitted: it is forecast
        with the mean of all matrices.
        """
        x, level = centre(context)
        reversions = self.standing_reversion
        if not self.per_channel:
            return x @ self.weights[0] + level * (1 + reversions[0]) + self.drift[0]
        if channel is None:
            channel = np.arange(len(x))
        forecast = np.empty((len(x), self.prediction_length))
        for k in np.unique(channel):
            rows = channel == k
            weights = self.weights[k] if k >= 0 else np.mean(self.weights, axis=0)
            reversion = reversions[k] if k >= 0 else np.mean(reversions, axis=0)
            drift = self.drift[k] if k >= 0 else np.mean(self.drift, axis=0)
            forecast[rows] = x[rows] @ weights + level[rows] * (1 + reversion) + drift
        return forecast

    @property
    def standing_reversion(self) -> list[Array]:
        """What is let in of the reversion, ``s v``."""
        held = shares(self.evidence)
        return [share * v for share, v in zip(held, self.reversion, strict=True)]

    def learn(self, context: Array, target: Array, channel: np.ndarray) -> None:
        """Absorb complete windows of different channels, by recursive least squares.

        First the reversion's share learns from them. A target that is missing teaches nothing; a
        window with a value further out than ``FARTHEST`` is passed over, as in fitting.

        Parameters
        ----------
        context : ndarray of shape (n, L)
        target : ndarray of shape (n, P)
            What came after, NaN where it is missing.
        channel : int ndarray of shape (n,)
        """
        x, level = centre(context)
        near = np.abs(context).max(axis=-1) < FARTHEST
        near &= ~(np.abs(target) >= FARTHEST).any(axis=-1) & ~np.isnan(target).all(axis=-1)
        if not self.per_channel:
            self._weigh(0, x[near], level[near], target[near])
            rest = target - level * (1 + self.standing_reversion[0]) - self.drift[0]
            self._absorb(0, x[near], rest[near])
            return
        for i in np.flatnonzero(near):
            k = int(channel[i])
            self._weigh(k, x[i, None], level[i, None], target[i, None])
            rest = target[i] - level[i] * (1 + self.standing_reversion[k]) - self.drift[k]
            self._absorb(k, x[i, None], rest[None])

    def copy(self) -> LinearPart:
        """An independent copy (matrices are replaced when they learn, never changed in place)."""
        weights, covariance = list(self.weights), list(self.covariance)
        return LinearPart(weights, covariance, self.reversion, self.drift, self.evidence)

    def _weigh(self, k: int, x: Array, level: Array, target: Array) -> None:
        """What windows ``(n, L)`` of one matrix, all at one time, say of its reversion."""
        contribution = level * self.reversion[k]
        if len(x) and contribution.any():
            left = target - x @ self.weights[k] - level - self.drift[k]
            evidence, rows = self.evidence.copy(), len(x)
            flat = contribution.reshape(1, -1), left.reshape(1, -1)
            evidence[k] = with_windows(evidence[k, None], flat[0], flat[1], rows)[0]
            self.evidence = evidence

    def _absorb(self, k: int, x: Array, y: Array) -> None:
        """Recursive least squares with the rows of x and y, by the Woodbury identity.

        A window that is further out than ``HUBER_DELTA`` counts as much less, as for Huber's loss.
        """
        error = np.nan_to_num(y - x @ self.weights[k])
        size = np.sqrt(np.square(error).mean(axis=1))
        x = x[:, x.shape[1] - len(self.covariance[k]) :]
        spread = self.covariance[k] @ x.T  # (r, rows)
        less = np.diag((size / HUBER_DELTA).clip(1))
        gain = np.linalg.solve(x @ spread + less, spread.T)  # (rows, r)
        weights = self.weights[k].copy()
        weights[len(weights) - x.shape[1] :] += gain.T @ error
        covariance = self.covariance[k] - spread @ gain
        # Rounding would let the two triangles drift apart over a long stream.
        self.weights[k], self.covariance[k] = weights, (covariance + covariance.T) / 2
