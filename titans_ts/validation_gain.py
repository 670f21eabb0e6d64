"""Whether validation backs an addition to the forecast: in both halves, by more than a trace."""

from __future__ import annotations

import numpy as np

from titans_ts.channels import Channels
from titans_ts.linear import LinearPart
from titans_ts.windows import Array

# Share of the squared error that an addition must save: what is irrelevant saves less, by chance.
LEAST_GAIN = 0.002
# Share from which one half may say nothing: a covariate of rare events need not move in both.
_CLEAR_GAIN = 0.02


def validation_gain(
    channels: Channels,
    origins: np.ndarray,
    without: Array,
    with_it: Array,
    *,
    rare: bool = False,
) -> float:
    """Share of the error saved; 0.0 unless it is lower in both halves of the validation part.

    With ``rare`` it may be the same in one of them, up to a trace, where the whole is clear.

    Parameters
    ----------
    channels : Channels
    origins : int ndarray of shape (n,)
        Of validation windows.
    without, with_it : ndarray of shape (n,)
        Mean squared errors of each window.
    """
    channel = channels.of(origins)
    late = origins >= ((channels.trained + channels.starts[1:]) / 2)[channel]
    count = np.bincount(channel, minlength=len(channels)).clip(1)
    mean = np.bincount(channel, without, minlength=len(channels)) / count
    # A channel that breaks out of its training range must not choose for the others.
    weight = (1 / np.maximum(mean, 1.0))[channel]
    gains = []
    for part in (~late, late, np.ones(len(late), dtype=bool)):
        before, after = (np.sum(weight[part] * loss[part]) for loss in (without, with_it))
        gains.append(1 - after / before if before > 0 else 0.0)
    worst = -LEAST_GAIN if rare and gains[2] > _CLEAR_GAIN else 0.0
    return float(gains[2]) if min(gains) > worst and gains[2] > LEAST_GAIN else 0.0


def window_losses(
    channels: Channels, linear: LinearPart, origins: np.ndarray, added: Array | float = 0.0
) -> Array:
    """Mean squared error of each window's linear forecast, with something added to it."""
    context, target = channels.windows(origins, linear.context_length, linear.prediction_length)
    return mean_squares(target - linear.predict(context, channels.of(origins)) - added)


def mean_squares(error: Array) -> Array:
    """Of each window ``(n, P)``, over what is not NaN."""
    known = ~np.isnan(error)
    return np.asarray(
        np.square(np.where(known, error, 0.0)).sum(axis=1) / known.sum(axis=1).clip(1)
    )


def thin(origins: np.ndarray, most: int) -> np.ndarray:
    """At most so many of them, evenly spread."""
    chosen = np.linspace(0, len(origins) - 1, min(len(origins), most)).astype(int)
    return origins[chosen]
