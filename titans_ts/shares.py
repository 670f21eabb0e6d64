"""How much of what was chosen once, at fit, is still let in: a stream may have drifted from it.

The reversion to the mean of training does harm when the level of a series has moved for good, and
what the seasonal memory says when the season has moved and it has not yet. Each is weighed, channel
by channel, by the windows that it took part in: of its contribution c, beside r, what was wrong
without it, that share s in [0, 1] is let in which would have served best, older windows counting
ever less: ``argmin sum (r - s c)^2 + DOUBT sigma^2 (1 - s)^2``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from titans_ts.windows import Array

# Windows without a word against it that the whole share stands for.
_DOUBT = 4.0
_FADE = 0.97  # of what a window counts, with each one after it
_LEAST_ROWS = 24  # that count as a window: of fewer the errors are one event
_TINY = 1e-12


def no_evidence(channels: int) -> Array:
    """Sums ``(K, 4)`` before the first window: of ``c r``, ``c c``, ``r r`` and the windows."""
    return np.zeros((channels, 4))


def with_windows(sums: Array, contribution: Array, left: Array, rows: int) -> Array:
    """Sums with a window ``(K, P)`` of each channel.

    Parameters
    ----------
    sums : ndarray of shape (K, 4)
    contribution, left : ndarray of shape (K, P)
        c and r, NaN where the truth is missing; a window without any teaches nothing.
    rows : int
        Of these P that no window before had: where they overlap, each counts for its share.
    """
    weight = min(1.0, rows / max(contribution.shape[1], _LEAST_ROWS))
    known = ~np.isnan(left)
    count = known.sum(axis=1).clip(1)
    r, c = np.where(known, left, 0.0), np.where(known, contribution, 0.0)
    products = np.stack([(c * r), (c * c), (r * r)], axis=-1).sum(axis=1) / count[:, None]
    new = np.concatenate([products, np.ones((len(sums), 1))], axis=1)
    grown = sums * _FADE**weight + weight * new
    return np.where(known.any(axis=1, keepdims=True), grown, sums)


def shares(sums: Array) -> Array:
    """What is let in of each channel ``(K,)``, in [0, 1]; all of it before the first window."""
    along, square, whole, windows = sums.T
    noise = (whole - along**2 / square.clip(_TINY)).clip(0) / windows.clip(_TINY)
    doubt = _DOUBT * noise + _TINY
    return np.asarray(((along + doubt) / (square + doubt)).clip(0, 1))


@dataclass(frozen=True)
class Asked:
    """What a part was last asked for, until the rows come that tell; and how it has done so far.

    Parameters
    ----------
    evidence : ndarray of shape (K, 4)
    position : int
        Of the stream when it was asked; -1 if no answer is open.
    without, contribution : ndarray of shape (K, P)
        The forecast without the part, and what it added; of shape (K, 0) if none is open.
    """

    evidence: Array
    position: int
    without: Array
    contribution: Array

    @classmethod
    def nothing(cls, channels: int) -> Asked:
        """Before it was asked."""
        return cls(no_evidence(channels), -1, np.zeros((channels, 0)), np.zeros((channels, 0)))

    @property
    def share(self) -> Array:
        """What is let in of each channel ``(K,)``."""
        return shares(self.evidence)

    def ask(self, position: int, without: Array, contribution: Array) -> Asked:
        """With an answer that is open from here on."""
        return replace(self, position=position, without=without, contribution=contribution)

    def told(self, truth: Array) -> Asked:
        """Once the rows ``(K, P)`` have come, NaN where they are missing."""
        left = truth - self.without
        evidence = with_windows(self.evidence, self.contribution, left, truth.shape[1])
        return replace(Asked.nothing(len(evidence)), evidence=evidence)
