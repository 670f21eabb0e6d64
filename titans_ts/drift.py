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
from titans_ts.moments import (
    channel_means,
    summed_moments,
    training_moments,
    training_span,
    validation_moments,
    validation_span,
)
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


def summed_training(
    channels: Channels, before: int, after: int, drifts: bool, *, mean: bool = False
) -> Array:
    """The sum of `centred_training` over all channels; with ``mean`` of their mean moments."""
    spans = [training_span(channels, k, before, after) for k in range(len(channels))]
    moments, counts = summed_moments(
        channels, before, after, spans, np.ones(len(spans)) if mean else None
    )
    if drifts:
        means = np.stack([channel_means(channels, before, after, *span) for span in spans])
        moments -= (means.T * (counts > 0 if mean else counts)) @ means
    return moments


def summed_validation(
    channels: Channels,
    weights: Array,
    before: int,
    after: int,
    drifts: bool,
    half: int | None = None,
) -> Array:
    """The weighted sum of `centred_validation` over all channels."""
    spans = [validation_span(channels, k, before, after, half) for k in range(len(channels))]
    moments, counts = summed_moments(channels, before, after, spans, weights)
    if drifts:
        weights = weights * (counts > 0)
        means = np.stack([mean_window(channels, k, before, after) for k in range(len(channels))])
        own = np.stack([channel_means(channels, before, after, *span) for span in spans])
        both = (own.T * weights) @ means
        moments += (means.T * weights) @ means - both - both.T
    return moments


def mean_window(channels: Channels, k: int, before: int, after: int) -> Array:
    """Mean of channel k's training windows, ``(before + after,)``."""
    return channel_means(channels, before, after, *training_span(channels, k, before, after))


def with_drift(channels: Channels, part: LinearPart) -> LinearPart:
    """The part with what its forecasts of training windows lack on average.

    Where all channels share a matrix they share the drift, too.
    """
    before, after = part.context_length, part.prediction_length
    means = np.stack([mean_window(channels, k, before, after) for k in range(len(channels))])
    still = replace(part, drift=[np.zeros(after)] * len(part.weights))
    lacking = means[:, before:] - still.predict(means[:, :before])
    return replace(part, drift=list(lacking) if part.per_channel else [lacking.mean(axis=0)])
