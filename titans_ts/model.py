"""What ``fit`` learns, and how a forecast is made of it: linear part, gated correction, levels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from titans_ts.adaptation import Stream
from titans_ts.linear import LinearPart
from titans_ts.network import ForecastNetwork
from titans_ts.residual import Residual
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
        """Learn from training rows ``(T, C)``."""
        varies = np.ptp(y, axis=0) > 0
        return cls(
            np.where(varies, y.mean(axis=0), y[0]), np.where(varies, y.std(axis=0), 1.0), varies
        )

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
            At ``levels``, not decreasing; the median is the point forecast.
        """
        residual, context = self.residual, stream.context
        admission = residual.fresh if stream.memory is None else residual.carried
        point = stream.linear.predict(context)  # (C, P)
        window, scale = normalise(context)
        offsets = residual.spread[None]  # (1 or C, Q, P)
        if residual.network is not None and admission.gate > 0:
            with torch.no_grad():
                answer = residual.network(
                    torch.from_numpy(window).float(), torch.arange(len(window)), stream.memory
                )
            corrections = answer.double().numpy()
            median = corrections[:, residual.network.median_index]
            offsets = corrections - median[:, None]
            point = point + self._varying(admission.gate * scale * median)
        away = self._varying(scale[..., None] * admission.calibration[..., None] * offsets)
        # Each level was calibrated by itself; where two have crossed, the outer one gives way.
        middle = int(np.flatnonzero(self.levels == 0.5)[0])
        above = np.maximum.accumulate(away[:, middle:], axis=1)
        below = np.minimum.accumulate(away[:, middle::-1], axis=1)[:, :0:-1]
        quantiles = point[:, None] + np.concatenate([below, above], axis=1)
        return self.scaler.undo(point.T), self.scaler.undo(quantiles.transpose(2, 1, 0)).transpose(
            0, 2, 1
        )

    def _varying(self, change: Array) -> Array:
        """Leave channels alone that never varied; channels are the first axis."""
        return np.where(self.scaler.varies.reshape(-1, *[1] * (change.ndim - 1)), change, 0.0)


def at_levels(quantiles: Array, known: Array, wanted: Array) -> Array:
    """Interpolate ``(P, C, Q)`` between known levels, linearly in the level."""
    right = np.clip(np.searchsorted(known, wanted), 1, len(known) - 1) if len(known) > 1 else 0
    if len(known) == 1:
        return quantiles[..., np.zeros(len(wanted), dtype=int)]
    share = (wanted - known[right - 1]) / (known[right] - known[right - 1])
    return quantiles[..., right - 1] * (1 - share) + quantiles[..., right] * share
