"""What ``fit`` learns, and how a forecast is made of it: linear part, gated correction, levels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from titans_ts.adaptation import Stream
from titans_ts.admission import Residual, median_index
from titans_ts.linear import LinearPart
from titans_ts.network import ForecastNetwork
from titans_ts.windows import Array, PatchClock, normalise

# Of the channel's standard deviation: what lies further out cannot be squared safely any more.
# (What lies further out than `linear.FARTHEST` is seen, but not learned.)
LARGEST = 1e50


@dataclass(frozen=True)
class Scaler:
    """Z-scores by the training rows, of the channels that are learned.

    Parameters
    ----------
    learned : boolean ndarray of shape (C,)
        False for channels that were constant: they are forecast to stay at their last value, and
        nothing is learned from them. (Of an entirely constant series the first one is kept.)
    level, scale : ndarray of shape (C',)
        Mean and standard deviation of the learned channels.
    """

    learned: np.ndarray
    level: Array
    scale: Array

    @classmethod
    def fit(cls, y: Array) -> Scaler:
        """Learn from training rows ``(T, C)``.

        Raises
        ------
        ValueError
            A channel's values are so large that their squares overflow.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            level, scale = y.mean(axis=0), y.std(axis=0)
        overflown = np.flatnonzero(~np.isfinite(scale))
        if len(overflown):
            raise ValueError(
                f"channel {overflown[0]} holds values too large to be squared in float64 (up to "
                f"{np.abs(y[:, overflown[0]]).max():.3g}); divide it by a power of ten."
            )
        # Neither rounding errors nor a spread whose square underflows are variation.
        largest = np.abs(y).max(axis=0)
        varies = (np.ptp(y, axis=0) > 1e-12 * largest) & (scale > 1e-150)
        learned = varies if varies.any() else np.arange(len(varies)) == 0
        return cls(learned, level[learned], np.where(varies, scale, 1.0)[learned])

    def check(self, y: Array, name: str) -> None:
        """Refuse rows so far out that nothing could be computed from them any more.

        Raises
        ------
        ValueError
            Naming the first row and channel.
        """
        with np.errstate(over="ignore"):
            far = np.argwhere(~(np.abs(self.apply(y)) < LARGEST))
        if len(far):
            row, channel = far[0][0], np.flatnonzero(self.learned)[far[0][1]]
            raise ValueError(
                f"{name} holds {y[row, channel]:.3g} at row {row} of channel {channel}, more than "
                f"{LARGEST:g} standard deviations of the training rows; correct or drop it."
            )

    def apply(self, y: Array) -> Array:
        """Original units to z-scores: ``(..., C) -> (..., C')``."""
        return (y[..., self.learned] - self.level) / self.scale

    def undo(self, z: Array, last: Array) -> Array:
        """Z-scores ``(..., C')`` to original units ``(..., C)``; ``last`` (C,) fills the others."""
        y = np.broadcast_to(last, (*z.shape[:-1], len(last))).copy()
        y[..., self.learned] = z * self.scale + self.level
        return y


@dataclass(frozen=True)
class Model:
    """The parts of a fitted forecaster that do not move with the stream.

    Parameters
    ----------
    scaler : Scaler
    residual : Residual
    clock : PatchClock
    levels : ndarray of shape (Q,)
        The quantile levels, ascending.
    """

    scaler: Scaler
    residual: Residual
    clock: PatchClock
    levels: Array

    @property
    def memory_network(self) -> ForecastNetwork | None:
        """The network, if its carried memory is used: else there is no memory to keep."""
        return self.residual.network if self.residual.uses_memory else None

    def begin(self, y: Array, linear: LinearPart) -> Stream:
        """A stream that has seen the rows of y ``(T, C)``."""
        return Stream.begin(self.scaler.apply(y), y[-1], linear, self.memory_network, self.clock)

    def observe(self, stream: Stream, y: Array, *, learn: bool) -> None:
        """Move the stream over the rows of y ``(n, C)``."""
        z = self.scaler.apply(y)
        stream.observe(z, y[-1], self.memory_network, self.clock, learn=learn)

    def forecast(self, stream: Stream) -> tuple[Array, Array]:
        """Forecast from where the stream stands.

        Returns
        -------
        point : ndarray of shape (P, C)
        quantiles : ndarray of shape (P, C, Q)
            At ``levels``, not decreasing.
        """
        residual, context = self.residual, stream.context
        admission = residual.fresh if stream.memory is None else residual.carried
        linear = stream.linear.predict(context)[:, None]  # (C', 1, P)
        window, scale = normalise(context)
        answer = np.zeros((1, len(self.levels), 1))
        if residual.network is not None and admission.uses_network:
            channel = torch.arange(len(window))
            with torch.no_grad():
                said = residual.network(torch.from_numpy(window).float(), channel, stream.memory)
            answer = said.double().numpy()  # (C', Q, P)
        correction = admission.gate * answer[:, median_index(self.levels), None]
        levels = answer if admission.learned_levels else correction + residual.spread
        levels = levels + admission.shift[..., None]
        point = linear + scale[..., None] * correction
        # Levels are calibrated one by one; sorting repairs those that came to cross.
        quantiles = np.sort(linear + scale[..., None] * levels, axis=1)
        in_units = self.scaler.undo(quantiles.transpose(2, 1, 0), stream.last)
        return self.scaler.undo(point[:, 0].T, stream.last), in_units.transpose(0, 2, 1)


@dataclass(frozen=True)
class Snapshot:
    """Where a stream stood: made by ``snapshot()``, taken back by ``restore()``."""

    stream: Stream
    last_time: Any
    model: Model


def at_levels(quantiles: Array, known: Array, wanted: Array) -> Array:
    """Interpolate ``(P, C, Q)`` between known levels, linearly in the level."""
    if len(known) == 1:
        return quantiles[..., np.zeros(len(wanted), dtype=int)]
    right = np.clip(np.searchsorted(known, wanted), 1, len(known) - 1)
    share = (wanted - known[right - 1]) / (known[right] - known[right - 1])
    return quantiles[..., right - 1] * (1 - share) + quantiles[..., right] * share
