"""Reversion to the mean: how far a forecast returns from its window's level to that of training.

A ridge on centred windows takes the level of the window for granted. Where levels come and go, as
of temperatures, part of it fades over the steps ahead: each step p has a weight ``v_p`` in
``level (1 + v_p) + (x - level) W``, the regression of what the ridge leaves on the level.
"""

from __future__ import annotations

import numpy as np

from titans_ts.channels import Channels
from titans_ts.drift import (
    centred_training,
    centred_validation,
    summed_training,
    summed_validation,
)
from titans_ts.linear import LinearPart
from titans_ts.moments import Quadratic
from titans_ts.windows import Array

# Shares of it that are tried: all of it would trust few, long swings of the level too much.
_SHARES = (0.25, 0.5)
# Independent validation windows at which half of the share that validation chose is let in.
_HALF_TRUSTED = 4
# Mean square of a channel's levels, of its variance, at which its own regression counts half.
_SHRINKAGE = 0.3


def choose_reversion(
    channels: Channels, part: LinearPart, weights: Array, drifts: bool = False
) -> tuple[float, list[Array]]:
    """The share of the reversion that validation backs in both its halves, and the reversion.

    Parameters
    ----------
    channels : Channels
    part : LinearPart
        Without a reversion, fitted on the training rows.
    weights : ndarray of shape (K,)
        What each channel counts.
    drifts : bool
        Whether the part is fitted with a drift.
    """
    before, after = part.context_length, part.prediction_length
    whole = full_reversion(channels, part, drifts)
    losses = np.zeros((2, 1 + len(_SHARES)))
    for half in (0, 1):
        for i, matrix in enumerate(part.weights):
            if part.per_channel:
                moments = weights[i] * centred_validation(channels, i, before, after, drifts, half)
            else:
                moments = summed_validation(channels, weights, before, after, drifts, half)
            error = Quadratic(moments, after)
            for j, share in enumerate((0.0, *_SHARES)):
                losses[half, j] += error.of_map(matrix + share * whole[i] / before)
    share = 0.0
    for j, tried in enumerate(_SHARES, start=1):
        if (losses[:, j] < losses[:, j - 1]).all():
            share = tried
        else:
            break
    longest = int((channels.starts[1:] - channels.trained).max())
    windows = (longest - after + 1) / after
    share *= windows / (windows + _HALF_TRUSTED)
    return share, [share * each for each in whole]


def full_reversion(channels: Channels, part: LinearPart, drifts: bool = False) -> list[Array]:
    """Regression on the level of what the linear part leaves: ``(P,)`` for each of its matrices.

    That of a channel is shrunk toward that of all.
    """
    before, after = part.context_length, part.prediction_length
    regressions = []
    for i, matrix in enumerate(part.weights):
        if part.per_channel:
            moments, count = centred_training(channels, i, before, after, drifts)
            moments = moments / max(count, 1)
        else:
            moments = summed_training(channels, before, after, drifts, mean=True)
        level = moments[:before].mean(axis=0)  # moments of the level with every row
        regressions.append((level[before:] - level[:before] @ matrix, level[:before].mean()))
    found, power = zip(*regressions, strict=True)
    total = sum(power)
    shared = np.sum(found, axis=0) / total if total > 0 else np.zeros(after)
    if not part.per_channel:
        return [shared]
    return [
        shared + (each - own * shared) / (own + _SHRINKAGE)
        for each, own in zip(found, power, strict=True)
    ]
