"""What ``fit`` learns, and how a forecast is made of it: linear part, gated correction, levels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from titans_ts.adaptation import Stream
from titans_ts.admission import Residual, median_index
from titans_ts.linear import LinearPart
from titans_ts.network import ForecastNetwork
from titans_ts.windows import Array, PatchClock, normalise


@dataclass(frozen=True)
class Scaler:
    """Z-scores by the training rows.

    Parameters
    ----------
    level, scale : ndarray of shape (C,)
        Mean and standard deviation; of a constant channel its value, and 1.
    varies : boolean ndarray of shape (C,)
        False for channels that were constant: they are forecast to stay where they are, and
        nothing is learned from them.
    """

    level: Array
    scale: Array
    varies: np.ndarray

    @classmethod
    def fit(cls, y: Array) -> Scaler:
        """Learn from training rows ``(T, C)``.

        Raises
        ------
        ValueError
            A channel's values are so large that their squares overflow.
        """
        with np.errstate(over="ignore"):
            varies, level, scale = np.ptp(y, axis=0) > 0, y.mean(axis=0), y.std(axis=0)
        overflown = np.flatnonzero(~np.isfinite(level) | ~np.isfinite(scale))
        if len(overflown):
            raise ValueError(
                f"channel {overflown[0]} holds values too large to be squared in float64 (up to "
                f"{np.abs(y[:, overflown[0]]).max():.3g}); divide it by a power of ten."
            )
        return cls(np.where(varies, level, y[0]), np.where(varies, scale, 1.0), varies)

    def apply(self, y: Array) -> Array:
        """``(..., C) -> (..., C)``."""
        return (y - self.level) / self.scale

    def undo(self, z: Array) -> Array:
        """Inverse of ``apply``."""
        return z * self.scale + self.level


@dataclass(frozen=True)
class Model:
    """The parts of a fitted forecaster that do not move with the stream."""

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
        return Stream.begin(self.scaler.apply(y), linear, self.memory_network, self.clock)

    def observe(self, stream: Stream, y: Array, *, learn: bool) -> None:
        """Move the stream over the rows of y ``(n, C)``."""
        z = self.scaler.apply(y)
        stream.observe(z, self.memory_network, self.clock, self.scaler.varies, learn=learn)

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
        linear = stream.linear.predict(context)[:, None]  # (C, 1, P)
        window, scale = normalise(context)
        scale = scale[..., None]  # (C, 1, 1)
        answer = np.zeros((1, len(self.levels), 1))
        if residual.network is not None and admission.uses_network:
            channel = torch.arange(len(window))
            with torch.no_grad():
                said = residual.network(torch.from_numpy(window).float(), channel, stream.memory)
            answer = said.double().numpy()  # (C, Q, P)
        correction = admission.gate * answer[:, median_index(self.levels), None]
        away = answer if admission.quantiles else correction + residual.spread
        away = away + admission.shift[..., None]
        point = linear + self._varying(scale * correction)
        # Levels are calibrated one by one; sorting repairs those that came to cross.
        quantiles = np.sort(linear + self._varying(scale * away), axis=1)
        quantiles = self.scaler.undo(quantiles.transpose(2, 1, 0)).transpose(0, 2, 1)
        return self.scaler.undo(point[:, 0].T), quantiles

    def _varying(self, change: Array) -> Array:
        """Leave channels alone that never varied; channels are the first axis."""
        return np.where(self.scaler.varies[:, None, None], change, 0.0)


def at_levels(quantiles: Array, known: Array, wanted: Array) -> Array:
    """Interpolate ``(P, C, Q)`` between known levels, linearly in the level."""
    right = np.clip(np.searchsorted(known, wanted), 1, len(known) - 1) if len(known) > 1 else 0
    if len(known) == 1:
        return quantiles[..., np.zeros(len(wanted), dtype=int)]
    share = (wanted - known[right - 1]) / (known[right] - known[right - 1])
    return quantiles[..., right - 1] * (1 - share) + quantiles[..., right] * share
