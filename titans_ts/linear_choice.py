"""Choose the linear part on validation: penalties, and how look-backs mix.

A window's forecast is linear in its rows, so its squared error is quadratic in the matrix and
follows from second moments alone: no window is ever formed, however many there are.

Each look-back of ``l`` rows gives a ridge shared by all channels, and, of few channels, one for
each that is shrunk toward it, ``argmin |Y_c - X_c W|^2 + penalty_c |W - W_shared|^2``. The mean of
several look-backs is again one matrix, since each forecasts ``level + (x - level) W``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from titans_ts.channels import Channels
from titans_ts.drift import (
    centred_training,
    centred_validation,
    summed_training,
    summed_validation,
    with_drift,
)
from titans_ts.linear import LinearPart
from titans_ts.moments import Quadratic, level_error, validation_span
from titans_ts.reversion import choose_reversion, full_reversion
from titans_ts.windows import Array

LOOK_BACKS = (24, 48, 96, 192, 336, 512, 720, 1008, 1344)
# Penalties tried, as shares of the mean eigenvalue of the Gram matrix.
PENALTY_GRID = (1e-4, 1e-3, 1e-2, 0.1, 0.5, 2.0, 10.0, 100.0)
# Weights of the mix are exp(-SHARPNESS (loss / least loss - 1)): those that do nearly as well as
# the best take part nearly as much, which forecasts better than the best alone.
SHARPNESS = 10.0
LEAST_WEIGHT = 1e-3
# Panels of more channels than this share one matrix: none has the rows for its own.
MOST_OWN_MATRICES = 64
# Share of the windows of a shorter look-back, from which those of the longest stand for them.
_NEARLY_ALL = 0.99
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
        Penalties of the channels' own ridges, if each has one.
    mix : ndarray of shape (n,)
        Weights of the look-backs; they sum to one.
    reversion : float
        Share of the reversion to the mean that is let in.
    drifts : bool
        Whether forecasts have a drift.
    """

    look_backs: tuple[int, ...]
    shared: Array
    own: Array | None
    mix: Array
    reversion: float = 0.0
    drifts: bool = False


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

    def search(self, error: Quadratic, toward: Array | float = 0.0) -> tuple[float, Array]:
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


def look_backs_within(longest: int) -> tuple[int, ...]:
    """The look-backs that are tried for a context of so many rows."""
    return (*(length for length in LOOK_BACKS if length < longest), longest)


def choose_linear(
    channels: Channels, look_backs: Sequence[int], prediction_length: int, drifts: bool = False
) -> tuple[LinearPart, LinearChoice]:
    """Fit on the training part; choose penalties and the mix of candidates on validation.

    Parameters
    ----------
    channels : Channels
    look_backs : sequence of int
        Ascending. Those longer than any that takes part are dropped at the end, so that the
        context length of the answer may be shorter than the last.
    drifts : bool
        Whether forecasts have a drift (`drift`), as those of logarithms need.

    Returns
    -------
    LinearPart, LinearChoice
        The part fitted on the training rows, and what ``refit_linear`` needs to fit it again.

    Raises
    ------
    ValueError
        No validation window has enough known values.
    """
    channels = replace(channels)  # the moments that are kept with it go when this is done
    n, longest = len(look_backs), look_backs[-1]
    own = np.zeros((n, len(channels))) if 1 < len(channels) <= MOST_OWN_MATRICES else None
    weights = _channel_weights(channels, longest, prediction_length)
    total = summed_validation(channels, weights, longest, prediction_length, drifts)
    error = Quadratic(total, prediction_length)
    shared = [
        ridge.search(error)
        for ridge in _shared_ridges(channels, look_backs, prediction_length, drifts)
    ]
    losses = np.array([error.of(matrix) for _, matrix in shared])
    if own is not None:
        losses[:] = 0
        for k in range(len(channels)):
            moments = centred_validation(channels, k, longest, prediction_length, drifts)
            error = Quadratic(moments, prediction_length)
            ridges = _own_ridges(channels, k, look_backs, prediction_length, drifts)
            for i, ridge in enumerate(ridges):
                own[i, k], matrix = ridge.search(error, shared[i][1])
                losses[i] += weights[k] * error.of(matrix)
    mix = _mix(losses)
    used = int(np.flatnonzero(mix).max()) + 1
    choice = LinearChoice(
        tuple(look_backs[:used]),
        np.array([penalty for penalty, _ in shared[:used]]),
        None if own is None else own[:used],
        mix[:used],
        drifts=drifts,
    )
    part = _fit(channels, choice, prediction_length)
    share, part.reversion = choose_reversion(channels, part, weights, drifts)
    part = with_drift(channels, part) if drifts else part
    return part, replace(choice, reversion=share)


def refit_linear(channels: Channels, choice: LinearChoice, prediction_length: int) -> LinearPart:
    """Fit on all rows of the channels with what was chosen before."""
    whole = Channels(channels.values, channels.known, channels.starts, channels.starts[1:])
    part = _fit(whole, choice, prediction_length)
    if choice.reversion:
        reversion = full_reversion(whole, part, choice.drifts)
        part.reversion = [choice.reversion * each for each in reversion]
    return with_drift(whole, part) if choice.drifts else part


def _mix(losses: Array) -> Array:
    best = losses.min()
    mix = np.exp(-SHARPNESS * (losses / best - 1)) if best > 0 else (losses == best).astype(float)
    mix[mix < LEAST_WEIGHT] = 0
    return mix / mix.sum()


def _fit(channels: Channels, choice: LinearChoice, prediction_length: int) -> LinearPart:
    """The mix of all look-backs as one matrix, or one for each channel."""
    longest = choice.look_backs[-1]
    adapted = slice(longest - min(longest, ADAPTED_ROWS), longest)
    matrices = 1 if choice.own is None else len(channels)
    folded = [np.zeros((longest, prediction_length)) for _ in range(matrices)]
    ridges = _shared_ridges(channels, choice.look_backs, prediction_length, choice.drifts)
    shared = [ridge.solve(penalty) for ridge, penalty in zip(ridges, choice.shared, strict=True)]
    penalties, covariance = choice.shared, []
    for k in range(matrices):
        solved = shared
        if choice.own is not None:
            penalties = choice.own[:, k]
            ridges = _own_ridges(channels, k, choice.look_backs, prediction_length, choice.drifts)
            solved = [
                ridge.solve(*toward)
                for ridge, *toward in zip(ridges, penalties, shared, strict=True)
            ]
        for share, matrix in zip(choice.mix, solved, strict=True):
            _fold(folded[k], share, matrix)
        covariance.append(_inverse(ridges[-1].gram[adapted, adapted], penalties[-1]))
    none = [np.zeros(prediction_length)] * matrices
    return LinearPart(folded, covariance, none, none)


def _fold(folded: Array, weight: float, matrix: Array) -> None:
    """Add a share of a matrix of a shorter look-back, whose level is the mean of its own rows."""
    rows = folded[len(folded) - len(matrix) :]
    rows += weight * (matrix + (1 - matrix.sum(axis=0)) / len(matrix))


def _matrix(toward: Array | float, like: Array) -> Array:
    return np.broadcast_to(np.asarray(toward, dtype=float), like.shape)


def _inverse(gram: Array, penalty: float) -> Array:
    inverse = np.linalg.inv(gram + penalty * np.eye(len(gram)))
    return (inverse + inverse.T) / 2


def _own_ridges(
    channels: Channels, k: int, look_backs: Sequence[int], prediction_length: int, drifts: bool
) -> list[_Ridge]:
    """The ridge of a channel at each look-back."""

    def own(length: int) -> Array:
        return centred_training(channels, k, length, prediction_length, drifts)[0]

    rows = int(channels.trained[k] - channels.starts[k])
    return [
        _Ridge.centre(each, prediction_length)
        for each in _nested(own, look_backs, rows - prediction_length)
    ]


def _shared_ridges(
    channels: Channels, look_backs: Sequence[int], prediction_length: int, drifts: bool
) -> list[_Ridge]:
    """The ridge of all channels together at each look-back."""

    def summed(length: int) -> Array:
        return summed_training(channels, length, prediction_length, drifts)

    rows = int((channels.trained - channels.starts[:-1]).min())
    return [
        _Ridge.centre(each, prediction_length)
        for each in _nested(summed, look_backs, rows - prediction_length)
    ]


def _nested(moments: Callable[[int], Array], look_backs: Sequence[int], rows: int) -> list[Array]:
    """Moments at each look-back, of training windows on so many rows of context.

    The shorter ones are part of those of the longest, but for the windows at the very start.
    """
    longest = look_backs[-1]
    whole = moments(longest)
    found = []
    for length in look_backs:
        if rows - longest >= _NEARLY_ALL * (rows - length):
            found.append(whole[longest - length :, longest - length :])
        else:
            found.append(moments(length))
    return found


def _channel_weights(channels: Channels, length: int, prediction_length: int) -> Array:
    """What each channel counts on validation; they sum to one."""
    weights = np.zeros(len(channels))
    for k in range(len(channels)):
        span = validation_span(channels, k, length, prediction_length)
        # A channel that breaks out of its training range must not choose for the others.
        outburst, count = level_error(channels, length, prediction_length, *span)
        weights[k] = 1 / max(outburst, 1.0) if count else 0.0
    if not weights.any():
        raise ValueError(
            "no window of the validation part has enough known values to choose by: half of "
            f"{length} rows of context and of {prediction_length} rows to forecast. Give more "
            "rows, a larger validation_size, or a shorter context_length or prediction_length."
        )
    return weights / weights.sum()
