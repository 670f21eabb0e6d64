"""Drift: what a forecast grows by from step to step, whatever its window looks like.

A ridge on centred windows knows no growth of its own. Of amounts that is as well, since their
growth seldom lasts; of logarithms (`domain`) it is a rate, and without it the ridge would read the
growth out of the window's shape. Fitting with a drift of each step is fitting on windows less their
mean, and that follows from moments and means.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from titans_ts.channels import Channels
from titans_ts.linear import LinearPart
from titans_ts.moments import channel_means, training_moments, validation_moments, validation_span
from titans_ts.windows import Array


def centred_training(
    channels: Channels, k: int, before: int, after: int, drifts: bool
) -> tuple[Array, int]:
    """`training_moments`; with a drift, of the windows less their mean."""
    moments, count = training_moments(channels, k, before, after)
    if drifts:
        mean = mean_window(channels, k, before, after)
        moments = moments - count * np.outer(mean, mean)
    return moments, count


def centred_validation(
    channels: Channels, k: int, before: int, after: int, drifts: bool, half: int | None = None
) -> Array:
    """`validation_moments`; with a drift, of the windows less the mean of the training windows."""
    moments, count = validation_moments(channels, k, before, after, half)
    if drifts and count:
        mean = mean_window(channels, k, before, after)
        own = channel_means(
            channels, before, after, *validation_span(channels, k, before, after, half)
        )
        both = np.outer(own, mean)
        moments = moments - both - both.T + np.outer(mean, mean)
    return moments


def mean_window(channels: Channels, k: int, before: int, after: int) -> Array:
    """Mean of channel k's training windows, ``(before + after,)``."""
    first, last = channels.starts[k] + before, channels.trained[k] - after
    return channel_means(channels, before, after, int(first), int(last))


def with_drift(channels: Channels, part: LinearPart) -> LinearPart:
    """The part with what its forecasts of training windows lack on average.

    Where all channels share a matrix they share the drift, too.
    """
    before, after = part.context_length, part.prediction_length
    means = np.stack([mean_window(channels, k, before, after) for k in range(len(channels))])
    still = replace(part, drift=[np.zeros(after)] * len(part.weights))
    lacking = means[:, before:] - still.predict(means[:, :before])
    return replace(part, drift=list(lacking) if part.per_channel else [lacking.mean(axis=0)])
