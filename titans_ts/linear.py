"""The linear part: closed-form ridge on centred windows, continued by recursive least squares.

It is the floor that everything else must beat, the cold start of a stream, and what ``update``
goes on learning. All values are z-scored; ``L`` is the context, ``P`` the prediction length.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from titans_ts.windows import Array, centre, sliding_windows

# Ridge penalties tried on validation, as shares of the mean eigenvalue of the Gram matrix.
PENALTY_GRID = 10.0 ** np.arange(-4, 2.5, 0.5)
# Of a channel's standard deviation: squares of what lies further out leave no digits of anything
# else in the inverse Gram matrix.
FARTHEST = 1e6
# Windows gathered at a time while the Gram matrices are summed.
_BLOCK = 2048


@dataclass
class LinearPart:
    """Forecast ``level + (context - level) W``, with one matrix W for all channels or one each.

    Parameters
    ----------
    weights : ndarray of shape (K, L, P)
        K is 1 (shared by the channels) or the number of channels.
    covariance : ndarray of shape (K, L, L)
        Inverse of the penalised Gram matrix: what recursive least squares carries on.
    penalty : ndarray of shape (K,)
        Ridge penalty of each matrix, chosen on validation.
    """

    weights: Array
    covariance: Array
    penalty: Array

    @property
    def per_channel(self) -> bool:
        """Whether each channel has a matrix of its own."""
        return len(self.weights) > 1

    def predict(self, context: Array) -> Array:
        """``(..., C, L) -> (..., C, P)``."""
        x, level = centre(context)
        if self.per_channel:
            return np.einsum("...cl,clp->...cp", x, self.weights, optimize=True) + level
        return x @ self.weights[0] + level

    def learn(self, context: Array, target: Array) -> None:
        """Absorb one complete window: what refitting with it, at the same penalty, would give.

        A channel's window with a value further out than ``FARTHEST`` is passed over, as in fitting.

        Parameters
        ----------
        context : ndarray of shape (C, L)
        target : ndarray of shape (C, P)
            All of the target must have been observed.
        """
        x, level = centre(context)
        y = target - level
        near = _near(np.hstack([context, target]))
        if not self.per_channel:
            self._absorb(0, x[near], y[near])
            return
        for channel in np.flatnonzero(near):
            self._absorb(int(channel), x[channel, None], y[channel, None])

    def _absorb(self, k: int, x: Array, y: Array) -> None:
        """Recursive least squares with the rows of x and y, by the Woodbury identity."""
        spread = self.covariance[k] @ x.T  # (L, rows)
        gain = np.linalg.solve(x @ spread + np.eye(len(x)), spread.T)  # (rows, L)
        self.weights[k] += gain.T @ (y - x @ self.weights[k])
        self.covariance[k] -= spread @ gain
        # Rounding would let the two triangles drift apart over a long stream.
        self.covariance[k] = (self.covariance[k] + self.covariance[k].T) / 2


@dataclass(frozen=True)
class LinearChoice:
    """What validation chose: one penalty, or one per channel (then also that of their centre)."""

    shared_penalty: float
    channel_penalties: Array | None = None


def choose_linear(
    y: Array, n_train: int, context_length: int, prediction_length: int
) -> tuple[LinearPart, LinearChoice]:
    """Fit on the first ``n_train`` rows; choose penalties, and shared or per channel, on the rest.

    Per-channel matrices are shrunk toward the shared one,
    ``argmin |Y_c - X_c W|^2 + penalty_c |W - W_shared|^2``, and taken only if they are better on
    both halves of the validation windows.

    Parameters
    ----------
    y : ndarray of shape (T, C)
        Training rows, then validation rows.

    Returns
    -------
    LinearPart, LinearChoice
        The part fitted on the training rows, and what ``refit_linear`` needs to fit it again.
    """
    gram, cross = _gram(y[:n_train], context_length, prediction_length)
    windows = sliding_windows(y[n_train - context_length :], context_length + prediction_length)
    x, level = centre(windows[..., :context_length])
    target = windows[..., context_length:] - level

    # A channel that breaks out of its training range must not choose for the others.
    outburst = np.maximum(np.square(target).mean(axis=(0, 2)), 1)

    def squared_error(weights: Array, channels: int | slice = slice(None)) -> Array:
        error = np.square(target[:, channels] - x[:, channels] @ weights).mean(axis=-1)
        return error / outburst[channels]

    shared_penalty, shared = _search(
        gram.sum(axis=0), cross.sum(axis=0), np.zeros_like(cross[0]), squared_error
    )
    choice = LinearChoice(shared_penalty)
    if len(gram) > 1:
        gains = np.empty(target.shape[:2])
        penalties = np.empty(len(gram))
        for c in range(len(gram)):
            penalties[c], own = _search(
                gram[c], cross[c], shared, partial(squared_error, channels=c)
            )
            gains[:, c] = squared_error(shared, c) - squared_error(own, c)
        half = len(gains) // 2
        if half and gains[:half].mean() > 0 and gains[half:].mean() > 0:
            choice = LinearChoice(shared_penalty, penalties)
    return _solve(gram, cross, choice), choice


def refit_linear(
    y: Array, choice: LinearChoice, context_length: int, prediction_length: int
) -> LinearPart:
    """Fit on all rows of y ``(T, C)`` with penalties that were chosen before."""
    return _solve(*_gram(y, context_length, prediction_length), choice)


def _search(
    gram: Array, cross: Array, centre_weights: Array, error: Callable[[Array], Array]
) -> tuple[float, Array]:
    """Penalty of least validation error on the ridge path, from one eigendecomposition."""
    eigenvalues, basis = np.linalg.eigh(gram)
    projected = basis.T @ (cross - gram @ centre_weights)
    best = (np.inf, 0.0, centre_weights)
    for share in PENALTY_GRID:
        # Without any variation there is nothing to scale by, and nothing to penalise.
        penalty = share * (eigenvalues.mean() if eigenvalues[-1] > 0 else 1.0)
        weights = centre_weights + basis @ (projected / (eigenvalues + penalty)[:, None])
        best = min(best, (float(error(weights).mean()), penalty, weights), key=lambda b: b[0])
    return best[1], best[2]


def _solve(gram: Array, cross: Array, choice: LinearChoice) -> LinearPart:
    """Ridge for given penalties, with the inverse that recursive least squares starts from."""
    penalty = np.array([choice.shared_penalty])
    covariance = _inverse(gram.sum(axis=0), choice.shared_penalty)[None]
    weights = covariance @ cross.sum(axis=0)
    if choice.channel_penalties is not None:
        penalty = choice.channel_penalties
        covariance = np.stack([_inverse(g, p) for g, p in zip(gram, penalty, strict=True)])
        weights = weights + covariance @ (cross - gram @ weights)
    return LinearPart(weights, covariance, penalty)


def _near(windows: Array) -> np.ndarray:
    """Which windows (last axis: time) hold nothing further out than ``FARTHEST``."""
    return np.abs(windows).max(axis=-1) < FARTHEST


def _inverse(gram: Array, penalty: float) -> Array:
    inverse = np.linalg.inv(gram + penalty * np.eye(len(gram)))
    return (inverse + inverse.T) / 2


def _gram(y: Array, context_length: int, prediction_length: int) -> tuple[Array, Array]:
    """Sums over all windows of ``x^T x`` (C, L, L) and ``x^T target`` (C, L, P), x centred."""
    windows = sliding_windows(y, context_length + prediction_length)
    channels = y.shape[1]
    gram = np.zeros((channels, context_length, context_length))
    cross = np.zeros((channels, context_length, prediction_length))
    for start in range(0, len(windows), _BLOCK):
        block = windows[start : start + _BLOCK].transpose(1, 0, 2)  # (C, n, L + P)
        block = np.where(_near(block)[..., None], block, 0.0)
        x, level = centre(block[..., :context_length])
        gram += x.transpose(0, 2, 1) @ x
        cross += x.transpose(0, 2, 1) @ (block[..., context_length:] - level)
    return gram, cross
