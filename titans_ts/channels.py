"""Every channel of every series on one axis of rows, one after the other, missing values masked.

A wide table of C columns is C channels; a panel of N series is N times as many, as long as each
happens to be. What follows (moments, training, validation) knows channels only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from titans_ts.windows import Array, sliding_windows

# Share of a window's rows that must be known for it to teach or to be scored.
LEAST_KNOWN = 0.5


def fill_forward(values: Array, before: Array | None = None) -> Array:
    """Replace NaN in ``(T, C)`` by the last known value above, which looks at nothing later.

    Where nothing is known yet: by ``before`` (C,), else by the first value known (0 if none is).
    """
    if not np.isnan(values).any():
        return values
    filled = values.copy()
    for c, column in enumerate(values.T):  # one at a time: a long table is held but once more
        known = ~np.isnan(column)
        last = np.maximum.accumulate(np.where(known, np.arange(len(column)), -1))
        start = np.nan_to_num(column[np.argmax(known)]) if before is None else before[c]
        filled[:, c] = np.where(last < 0, start, column[last])
    return filled


def last_known(values: Array) -> Array:
    """The last row of ``fill_forward(values)``, without making the others."""
    known = ~np.isnan(values)
    row = len(values) - 1 - known[::-1].argmax(axis=0)
    return np.nan_to_num(values[row, np.arange(values.shape[1])])


@dataclass(frozen=True)
class Channels:
    """Z-scored channels end to end; an origin is a position on this axis.

    Parameters
    ----------
    values : ndarray of shape (R,)
        Missing values are filled from before (`fill_forward`).
    known : boolean ndarray of shape (R,)
        False where a value was missing.
    starts : int ndarray of shape (K + 1,)
        Where each channel starts; the last is R.
    trained : int ndarray of shape (K,)
        Where the training part of each channel ends, and its validation part begins.
    """

    values: Array
    known: np.ndarray
    starts: np.ndarray
    trained: np.ndarray

    @classmethod
    def join(cls, series: Sequence[Array], n_train: Sequence[int]) -> Channels:
        """From z-scored series ``(T_n, C_n)`` with NaN, and the training rows of each."""
        columns = [column for z in series for column in fill_forward(z).T]
        known = [column for z in series for column in ~np.isnan(z).T]
        lengths = [len(column) for column in columns]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        rows = np.repeat(n_train, [z.shape[1] for z in series])
        return cls(np.concatenate(columns), np.concatenate(known), starts, starts[:-1] + rows)

    def __len__(self) -> int:
        return len(self.trained)

    def of(self, origins: np.ndarray) -> np.ndarray:
        """The channel of each origin."""
        return np.searchsorted(self.starts, origins, side="right") - 1

    def training_origins(self, before: int, after: int, behind: int = 0) -> np.ndarray:
        """Origins with ``before`` rows behind and ``after`` training rows ahead, that can teach.

        And at least so many rows ``behind`` in all.
        """
        first, last = self.starts[:-1] + max(before, behind), self.trained - after
        return self._useful(first, last, before, after)

    def validation_origins(self, before: int, after: int) -> np.ndarray:
        """Origins whose ``after`` rows ahead lie in the validation part."""
        first = np.maximum(self.trained, self.starts[:-1] + before)
        return self._useful(first, self.starts[1:] - after, before, after)

    def known_between(self, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        """Number of values known from ``first`` to before ``last``."""
        return self._count[last] - self._count[first]

    def windows(self, origins: np.ndarray, before: int, after: int) -> tuple[Array, Array]:
        """Contexts ``(n, before)``, and targets ``(n, after)`` with NaN where they are missing."""
        rows = sliding_windows(self.values[:, None], before + after)[origins - before, 0]
        if self.complete:
            return rows[:, :before], rows[:, before:]
        known = sliding_windows(self.known[:, None], after)[origins, 0]
        return rows[:, :before], np.where(known, rows[:, before:], np.nan)

    @cached_property
    def complete(self) -> bool:
        """Whether no value is missing."""
        return bool(self.known.all())

    @cached_property
    def kept(self) -> dict[tuple[int, int, int], tuple[Array, int]]:
        """Training moments that were computed before (`moments.training_moments`)."""
        return {}

    @cached_property
    def _count(self) -> np.ndarray:
        kind = np.int32 if len(self.known) < 2**31 else np.int64  # half the memory, if it will do
        count = np.zeros(len(self.known) + 1, kind)
        np.cumsum(self.known, out=count[1:])
        return count

    def _useful(self, first: np.ndarray, last: np.ndarray, before: int, after: int) -> np.ndarray:
        """Origins from ``first`` to ``last`` of each channel, whose windows are known enough."""
        found = [np.empty(0, dtype=int)]
        for a, b in zip(first, last, strict=True):
            origins = np.arange(a, b + 1)
            if not self.complete:
                context = self.known_between(origins - before, origins)
                target = self.known_between(origins, origins + after)
                enough = (context >= LEAST_KNOWN * before) & (target >= LEAST_KNOWN * after)
                origins = origins[enough]
            found.append(origins)
        return np.concatenate(found)
