"""What a linear part that was fitted in some domain is worth in original units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from titans_ts.channels import Channels
from titans_ts.linear import LinearPart
from titans_ts.linear_choice import LinearChoice
from titans_ts.scaler import LARGEST_LOG, Scaler
from titans_ts.validation_gain import thin
from titans_ts.windows import Array

_SCORED_NUMBERS = 5_000_000  # of the windows that are forecast


class InDomain(NamedTuple):
    """Series in a domain, and the linear part fitted there.

    ``z`` are padded in front where they are short, by ``padding`` rows; ``trained`` has the
    training rows of each, those of padding among them.
    """

    scalers: list[Scaler]
    z: list[Array]
    padding: list[int]
    trained: list[int]
    channels: Channels
    linear: LinearPart
    choice: LinearChoice


@dataclass(frozen=True)
class Judged:
    """Forecasts ``(n, P)`` of windows of channels ``(n,)`` with the truth, NaN where it is missing.

    Both are values, or logarithms where ``log`` (n, 1) says so.
    """

    channel: np.ndarray
    forecast: Array
    truth: Array
    log: np.ndarray

    def values(self, x: Array) -> Array:
        """Some of them in original units."""
        return np.where(self.log, np.exp(np.minimum(x, LARGEST_LOG)), x)

    def mean(self, each: Array) -> Array:
        """Mean of each channel over windows and steps ``(n, P)``, ``(K,)``; NaN without any."""
        known = ~np.isnan(each)
        total = np.bincount(self.channel, np.where(known, each, 0.0).sum(axis=1))
        with np.errstate(invalid="ignore"):
            return np.asarray(total / np.bincount(self.channel, known.sum(axis=1)))


def origins_of(*fits: InDomain, training: bool) -> np.ndarray:
    """Origins of windows that all of the linear parts can forecast, evenly thinned."""
    channels, after = fits[0].channels, fits[0].linear.prediction_length
    before = max(fit.linear.context_length for fit in fits)
    origins = channels.training_origins if training else channels.validation_origins
    return thin(origins(before, after), _SCORED_NUMBERS // (before + after))


def judge(fit: InDomain, origins: np.ndarray) -> Judged:
    """Forecast windows by the linear part."""
    linear, channel = fit.linear, fit.channels.of(origins)
    context, target = fit.channels.windows(origins, linear.context_length, linear.prediction_length)
    level, scale, floor = (
        np.concatenate([getattr(scaler, name) for scaler in fit.scalers])[channel, None]
        for name in ("level", "scale", "floor")
    )
    forecast = linear.predict(context, channel)
    return Judged(channel, forecast * scale + level, target * scale + level, floor > 0)


def squared_error(judged: Judged, truth: Array, variance: Array, shift: Array | float = 0) -> float:
    """Mean squared error in original units, by the variance of each channel ``(K,)``.

    ``shift`` (K, P) is added to the forecasts.
    """
    added = shift[judged.channel] if isinstance(shift, np.ndarray) else shift
    with np.errstate(over="ignore"):
        errors = judged.mean(np.square(judged.values(judged.forecast + added) - truth))
    known = ~np.isnan(errors)
    if not known.any():
        return np.inf
    return float(np.mean(errors[known] / variance[: len(errors)][known]))


def smearing(judged: Judged, channels: int) -> Array:
    """What takes medians to means, of logarithms: ``(K, P)``, 0 elsewhere.

    The logarithm of the sum of the values over the sum of the exponentials of the forecasts, which
    needs no distribution.
    """
    truth, forecast = judged.values(judged.truth), judged.values(judged.forecast)
    counted = ~np.isnan(truth) & judged.log
    sums = np.zeros((2, channels, truth.shape[1]))
    for i, values in enumerate((truth, forecast)):
        np.add.at(sums[i], judged.channel, np.where(counted, values, 0.0))
    usable = (sums > 0).all(axis=0) & np.isfinite(sums).all(axis=0)
    return np.log(np.where(usable, sums[0], 1.0) / np.where(usable, sums[1], 1.0))


def log_likelihood_gain(plain: Judged, logs: Judged) -> float:
    """By how much logarithms are the likelier domain: per value, mean over channels that have them.

    Both have normal errors of one size per channel. That is Box and Cox's criterion: the errors of
    the logarithms times the geometric mean of the values, against the errors of the values.
    """
    least = np.finfo(float).tiny
    sizes = [
        np.log(np.maximum(each.mean(np.square(each.forecast - each.truth)), least)) / 2
        for each in (plain, logs)
    ]
    geometric = logs.mean(logs.truth)
    gain = sizes[0] - sizes[1] - geometric
    wanted = np.bincount(logs.channel, logs.log[:, 0], minlength=len(gain)) > 0
    return float(np.mean(gain[wanted & ~np.isnan(gain)])) if wanted.any() else 0.0
