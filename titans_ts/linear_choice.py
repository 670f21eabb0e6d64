"""Choose the linear part on validation: penalties, and how look-backs, shared or own, mix.

A window's forecast is linear in its rows, so its squared error is quadratic in the matrix and
follows from second moments alone: no window is ever formed, however many there are.

Each look-back of ``l`` rows gives two candidates: the ridge shared by all channels, and one per
channel that is shrunk toward it, ``argmin |Y_c - X_c W|^2 + penalty_c |W - W_shared|^2``. A
weighted mean of candidates is again one matrix, since each forecasts ``level + (x - level) W``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from titans_ts.channels import Channels
from titans_ts.linear import LinearPart
from titans_ts.moments import channel_moments
from titans_ts.windows import Array

LOOK_BACKS = (24, 48, 96, 192, 336, 512, 720, 1008, 1344)
# Penalties tried, as shares of the mean eigenvalue of the Gram matrix.
PENALTY_GRID = (1e-4, 1e-3, 1e-2, 0.1, 0.5, 2.0, 10.0, 100.0)
# Weights of the mix are exp(-SHARPNESS (loss / least loss - 1)): those that do nearly as well as
# the best take part nearly as much, which forecasts better than the best alone.
SHARPNESS = 20.0
LEAST_WEIGHT = 1e-3
# Panels of more channels than this share one matrix: none has the rows for its own.
MOST_OWN_MATRICES = 64
# Rows next to the origin whose weights `update` goes on learning: its cost is their square.
ADAPTED_ROWS = 336


@dataclass(frozen=True)
class LinearChoice:
    """What validation chose, so that the linear part can be fitted again on more rows.

    Parameters
    ----------
    look_backs : tuple of int
        Ascending.
    shared : ndarray of shape (n,)
        Penalty of the shared ridge of each look-back.
    own : ndarray of shape (n, K) or None
        Penalties of the channels' own ridges, if they take part.
    mix : ndarray of shape (2 n,)
        Weights of the candidates, the shared ones first; they sum to one.
    """

    look_backs: tuple[int, ...]
    shared: Array
    own: Array | None
    mix: Array


@dataclass(frozen=True)
class _Ridge:
    """Centred second moments of one look-back: ``gram`` (l, l) and ``cross`` (l, P)."""

    gram: Array
    cross: Array

    @classmethod
    def centre(cls, moments: Array, prediction_length: int) -> _Ridge:
        """From plain moments ``(l + P, l + P)``: subtracting the level is linear, it can wait."""
        length = len(moments) - prediction_length
        level = moments[:length].mean(axis=0)  # moments of the level with every row
        gram = moments[:length, :length] - level[:length] - level[:length, None]
        cross = moments[:length, length:] - level[length:] - level[:length, None]
        return cls(gram + level[:length].mean(), cross + level[:length].mean())

    def solve(self, penalty: float, toward: Array | float = 0.0) -> Array:
        """``argmin |Y - X W|^2 + penalty |W - toward|^2``."""
        gram = self.gram + penalty * np.eye(len(self.gram))
        start = _matrix(toward, self.cross)
        return np.asarray(start + np.linalg.solve(gram, self.cross - self.gram @ start))

    def search(self, error: _Quadratic, toward: Array | float = 0.0) -> tuple[float, Array]:
        """The penalty of least validation error, and its weights."""
        eigenvalues, basis = np.linalg.eigh(self.gram)
        # Without any variation there is nothing to scale by, and nothing to penalise.
        unit = eigenvalues.mean() if eigenvalues[-1] > 0 else 1.0
        projected = basis.T @ (self.cross - self.gram @ _matrix(toward, self.cross))
        best = (np.inf, unit, _matrix(toward, self.cross))
        for share in PENALTY_GRID:
            step = projected / (eigenvalues.clip(0) + share * unit)[:, None]
            weights = toward + basis @ step
            best = min(best, (error.of(weights), share * unit, weights), key=lambda b: b[0])
        return best[1], best[2]


@dataclass(frozen=True)
class _Quadratic:
    """Mean squared error over windows as a function of the matrix, from their moments."""

    moments: Array
    prediction_length: int

    def of(self, weights: Array) -> float:
        """Error of ``level + (x - level) W`` by the last rows of the context; W is ``(l, P)``."""
        end = len(self.moments) - self.prediction_length
        rows = slice(end - len(weights), end)
        matrix = weights + (1 - weights.sum(axis=0)) / len(weights)
        inner = self.moments[rows, rows] @ matrix - 2 * self.moments[rows, end:]
        power = np.trace(self.moments[end:, end:])
        return float((np.sum(inner * matrix) + power) / self.prediction_length)


def look_backs_within(longest: int) -> tuple[int, ...]:
    """The look-backs that are tried for a context of so many rows."""
    return (*(length for length in LOOK_BACKS if length < longest), longest)


def choose_linear(
    channels: Channels, look_backs: Sequence[int], prediction_length: int
) -> tuple[LinearPart, LinearChoice]:
    """Fit on the training part; choose penalties and the mix of candidates on validation.

    Parameters
    ----------
    channels : Channels
    look_backs : sequence of int
        Ascending. Those longer than any that takes part are dropped at the end, so that the
        context length of the answer may be shorter than the last.

    Returns
    -------
    LinearPart, LinearChoice
        The part fitted on the training rows, and what ``refit_linear`` needs to fit it again.

    Raises
    ------
    ValueError
        No validation window has enough known values.
    """
    n, longest = len(look_backs), look_backs[-1]
    weights = _channel_weights(channels, longest, prediction_length)
    total = np.zeros((longest + prediction_length,) * 2)
    for k in np.flatnonzero(weights).tolist():
        total += weights[k] * _validation(channels, k, longest, prediction_length)[0]
    error = _Quadratic(total, prediction_length)
    shared, own = [], np.zeros((n, len(channels)))
    losses = np.full(2 * n, np.inf)
    for i, length in enumerate(look_backs):
        ridge = _shared_ridge(channels, length, prediction_length)
        shared.append(ridge.search(error))
        losses[i] = error.of(shared[i][1])
    if 1 < len(channels) <= MOST_OWN_MATRICES:
        losses[n:] = 0
        for k in range(len(channels)):
            error = _Quadratic(
                _validation(channels, k, longest, prediction_length)[0], prediction_length
            )
            for i, length in enumerate(look_backs):
                ridge = _own_ridge(channels, k, length, prediction_length)
                own[i, k], matrix = ridge.search(error, shared[i][1])
                losses[n + i] += weights[k] * error.of(matrix)
    mix = _mix(losses)
    used = int(max(np.flatnonzero(mix) % n)) + 1
    choice = LinearChoice(
        tuple(look_backs[:used]),
        np.array([penalty for penalty, _ in shared[:used]]),
        own[:used] if mix[n:].any() else None,
        np.concatenate([mix[:used], mix[n : n + used]]),
    )
    return _fit(channels, choice, prediction_length), choice


def refit_linear(channels: Channels, choice: LinearChoice, prediction_length: int) -> LinearPart:
    """Fit on all rows of the channels with what was chosen before."""
    whole = Channels(channels.values, channels.known, channels.starts, channels.starts[1:])
    return _fit(whole, choice, prediction_length)


def _mix(losses: Array) -> Array:
    best = losses.min()
    mix = np.exp(-SHARPNESS * (losses / best - 1)) if best > 0 else (losses == best).astype(float)
    mix[mix < LEAST_WEIGHT] = 0
    return mix / mix.sum()


def _fit(channels: Channels, choice: LinearChoice, prediction_length: int) -> LinearPart:
    """The mix of all candidates that take part, as one matrix, or one for each channel."""
    n, longest = len(choice.look_backs), choice.look_backs[-1]
    adapted = slice(longest - min(longest, ADAPTED_ROWS), longest)
    matrices = 1 if choice.own is None else len(channels)
    folded = [np.zeros((longest, prediction_length)) for _ in range(matrices)]
    covariance = []
    for i, length in enumerate(choice.look_backs):
        ridge = _shared_ridge(channels, length, prediction_length)
        shared = ridge.solve(choice.shared[i])
        for k in range(matrices):
            _fold(folded[k], choice.mix[i], shared)
            if choice.own is None:
                penalty = choice.shared[i]
            else:
                penalty = choice.own[i, k]
                ridge = _own_ridge(channels, k, length, prediction_length)
                if choice.mix[n + i]:
                    _fold(folded[k], choice.mix[n + i], ridge.solve(penalty, shared))
            if length == longest:
                covariance.append(_inverse(ridge.gram[adapted, adapted], penalty))
    return LinearPart(folded, covariance)


def _fold(folded: Array, weight: float, matrix: Array) -> None:
    """Add a share of a matrix of a shorter look-back, whose level is the mean of its own rows."""
    rows = folded[len(folded) - len(matrix) :]
    rows += weight * (matrix + (1 - matrix.sum(axis=0)) / len(matrix))


def _matrix(toward: Array | float, like: Array) -> Array:
    return np.broadcast_to(np.asarray(toward, dtype=float), like.shape)


def _inverse(gram: Array, penalty: float) -> Array:
    inverse = np.linalg.inv(gram + penalty * np.eye(len(gram)))
    return (inverse + inverse.T) / 2


def _own_ridge(channels: Channels, k: int, length: int, prediction_length: int) -> _Ridge:
    first, last = channels.starts[k] + length, channels.trained[k] - prediction_length
    moments, _ = channel_moments(channels, length, prediction_length, first, last)
    return _Ridge.centre(moments, prediction_length)


def _shared_ridge(channels: Channels, length: int, prediction_length: int) -> _Ridge:
    total = np.zeros((length + prediction_length,) * 2)
    for k in range(len(channels)):
        first, last = channels.starts[k] + length, channels.trained[k] - prediction_length
        total += channel_moments(channels, length, prediction_length, first, last)[0]
    return _Ridge.centre(total, prediction_length)


def _validation(
    channels: Channels, k: int, length: int, prediction_length: int
) -> tuple[Array, int]:
    """Mean moments of the channel's validation windows, and how many these are."""
    first = max(channels.trained[k], channels.starts[k] + length)
    last = channels.starts[k + 1] - prediction_length
    moments, count = channel_moments(channels, length, prediction_length, first, last)
    return moments / max(count, 1), count


def _channel_weights(channels: Channels, length: int, prediction_length: int) -> Array:
    """What each channel counts on validation; they sum to one."""
    weights = np.zeros(len(channels))
    for k in range(len(channels)):
        moments, count = _validation(channels, k, length, prediction_length)
        # A channel that breaks out of its training range must not choose for the others.
        outburst = _Quadratic(moments, prediction_length).of(np.zeros((length, prediction_length)))
        weights[k] = 1 / max(outburst, 1.0) if count else 0.0
    if not weights.any():
        raise ValueError(
            "no window of the validation part has enough known values to choose by: half of "
            f"{length} rows of context and of {prediction_length} rows to forecast. Give more "
            "rows, a larger validation_size, or a shorter context_length or prediction_length."
        )
    return weights / weights.sum()
