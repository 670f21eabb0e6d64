"""A memory of the season, kept along a series: what came at each time of it, lately and for long.

It is the neural memory of `titans_core` at its simplest, a linear one: a token is a patch of rows,
its key the patch's place in the season (one-hot), its value the mean of its rows. What it holds for
a key moves against its surprise, the gradient of ``(M[key] - value)^2``, with a ``memory_lr`` of
``rate / 2``: ``M[key] += rate (value - M[key])``, the surprise clipped as Huber's loss does. Keys
are orthonormal, so that a write touches one entry. Heads differ in their rate: one knows the last
days, another the last months. Until a head has seen ``1 / rate`` seasons it is their plain mean.
The tests hold it to `titans_core.ops`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from titans_ts.channels import LEAST_KNOWN, Channels
from titans_ts.windows import Array

RATES = (0.3, 0.1, 0.03, 0.01)
HUBER_DELTA = 4.0  # standard deviations beyond which surprise does not grow: an outlier passes by
_MOST_SLOTS = 96  # places in a season; of a longer one several rows share one
_MOST_READS = 24  # means of neighbouring places that are read


@dataclass(frozen=True)
class Profile:
    """What the memory of a stream of K channels holds; a value, never changed in place.

    Parameters
    ----------
    values : ndarray of shape (K, heads, slots)
        NaN where nothing was written yet.
    writes : int ndarray of shape (K, slots)
        How often.
    rows : int
        Rows since the start of the series.
    total, known : ndarray of shape (K,)
        Sum and number of the known rows of the patch that is not complete yet.
    """

    values: Array
    writes: np.ndarray
    rows: int
    total: Array
    known: np.ndarray


@dataclass(frozen=True)
class SeasonalMemory:
    """The rules of the memory; what it holds is a `Profile`.

    Parameters
    ----------
    season : int
        Rows of a season, at least 2.
    """

    season: int

    @cached_property
    def patch(self) -> int:
        """Rows of a token: as few as leave 96 of them to a season, if its length divides so."""
        sizes = [n for n in range(1, self.season // 2 + 1) if self.season % n == 0]
        return next((n for n in sizes if self.season // n <= _MOST_SLOTS), 1)

    @property
    def slots(self) -> int:
        """Places in a season."""
        return self.season // self.patch

    @property
    def reads(self) -> int:
        """Numbers that a read answers."""
        return len(RATES) * min(self.slots, _MOST_READS)

    def empty(self, channels: int) -> Profile:
        """Before the first row."""
        values = np.full((channels, len(RATES), self.slots), np.nan)
        writes = np.zeros((channels, self.slots), dtype=int)
        return Profile(values, writes, 0, np.zeros(channels), np.zeros(channels, dtype=int))

    def write(self, profile: Profile, row: Array, known: np.ndarray) -> Profile:
        """Take in a row ``(K,)``; of what is not ``known`` only the time passes."""
        slot, last = divmod(profile.rows, self.patch)
        slot %= self.slots
        total = profile.total + np.where(known, row, 0.0)
        count = profile.known + known
        profile = replace(profile, rows=profile.rows + 1, total=total, known=count)
        if last < self.patch - 1:
            return profile
        values, writes = profile.values.copy(), profile.writes.copy()
        values[..., slot], writes[:, slot] = _step(
            values[..., slot], writes[:, slot], total, count, self.patch
        )
        return Profile(values, writes, profile.rows, np.zeros_like(total), np.zeros_like(count))

    def read(self, profile: Profile, ahead: int = 0) -> Array:
        """What is remembered of the season that begins now, or ``ahead`` rows later: ``(K, R)``.

        NaN where nothing is.
        """
        token = (profile.rows + ahead) // self.patch
        order = (token + np.arange(self.slots)) % self.slots
        return self._pool(profile.values[..., order])

    def begin(self, rows: Array, known: np.ndarray) -> Profile:
        """What it holds after a whole series ``(T, K)``."""
        whole, channels = len(rows) // self.season * self.season, rows.shape[1]
        values = np.full((channels * self.slots, len(RATES)), np.nan)
        writes = np.zeros(channels * self.slots, dtype=int)
        tokens = [self._tokens(rows[:whole, k], known[:whole, k]) for k in range(channels)]
        for q in range(whole // self.season):  # a season of all channels at a time
            total, count = (np.concatenate([each[i][q] for each in tokens]) for i in (0, 1))
            values, writes = _step(values, writes, total, count, self.patch)
        values = values.reshape(channels, self.slots, -1).transpose(0, 2, 1).copy()
        profile = self.empty(channels)
        profile = replace(profile, values=values, writes=writes.reshape(channels, -1), rows=whole)
        for row, seen in zip(rows[whole:], known[whole:], strict=True):
            profile = self.write(profile, row, seen)
        return profile

    def histories(self, rows: Array, known: np.ndarray) -> tuple[Array, np.ndarray]:
        """Of one channel ``(T,)``: what it held before each season and at last, ``(Q + 1, h, n)``.

        And how often each slot was written.
        """
        total, count = self._tokens(rows, known)
        found = np.full((len(total) + 1, len(RATES), self.slots), np.nan)
        writes = np.zeros(self.slots, dtype=int)
        for q in range(len(total)):
            held, writes = _step(found[q].T, writes, total[q], count[q], self.patch)
            found[q + 1] = held.T
        return found, writes

    def surprises(self, rows: Array, known: np.ndarray) -> Array:
        """How far each patch of a channel ``(T,)`` was from what was held, mean over the heads.

        NaN where too little of the patch is known.
        """
        total, count = self._tokens(rows, known)
        held = np.nan_to_num(self.histories(rows, known)[0][:-1])  # (Q, heads, slots)
        token = total / count.clip(1)
        size = np.abs(np.clip(token[:, None] - held, -HUBER_DELTA, HUBER_DELTA)).mean(axis=1)
        found = np.where(count >= LEAST_KNOWN * self.patch, size, np.nan)
        return found.reshape(-1)[: len(rows) // self.patch]

    def _tokens(self, rows: Array, known: np.ndarray) -> tuple[Array, np.ndarray]:
        """Sum and number of the known rows of each patch, ``(seasons, slots)``."""
        seasons = -(-len(rows) // self.season)
        shape = (seasons, self.slots, self.patch)
        gap = seasons * self.season - len(rows)
        tokens = np.concatenate([np.where(known, rows, 0.0), np.zeros(gap)]).reshape(shape)
        count = np.concatenate([known, np.zeros(gap, dtype=bool)]).reshape(shape).sum(axis=-1)
        return np.cumsum(tokens, axis=-1)[..., -1], count  # one by one, as a stream adds up

    def _pool(self, profile: Array) -> Array:
        """Means of neighbouring slots: ``(N, heads, slots) -> (N, R)``."""
        bins = min(self.slots, _MOST_READS)
        edges = np.arange(bins) * self.slots // bins
        sums = np.add.reduceat(profile, edges, axis=-1)
        means = sums / np.diff([*edges, self.slots])
        return np.asarray(means.reshape(len(profile), -1))


class SeasonReads:
    """What the memory held at origins of channels, having read each from its start."""

    def __init__(self, memory: SeasonalMemory, channels: Channels) -> None:
        self.memory, self.channels = memory, channels
        self._histories = [
            memory.histories(channels.values[a:b], channels.known[a:b])[0]
            for a, b in zip(channels.starts[:-1], channels.starts[1:], strict=True)
        ]

    def at(self, origins: np.ndarray) -> Array:
        """``(n, R)``; nothing at an origin depends on rows from it on."""
        memory, channel = self.memory, self.channels.of(origins)
        token = (origins - self.channels.starts[channel]) // memory.patch
        answer = np.empty((len(origins), memory.reads))
        for k in np.unique(channel):
            mine = np.flatnonzero(channel == k)
            season, slot = np.divmod(token[mine], memory.slots)
            order = (slot[:, None] + np.arange(memory.slots)) % memory.slots
            # Slots that this season has passed already were written once more.
            since = season[:, None] + (order < slot[:, None])
            found = self._histories[k][since, :, order]  # (n, slots, heads)
            answer[mine] = memory._pool(found.transpose(0, 2, 1))
        return answer


def _step(
    values: Array, writes: np.ndarray, total: Array, known: np.ndarray, rows: int
) -> tuple[Array, np.ndarray]:
    """Write tokens ``(N,)`` into ``(N, heads)``, where enough rows of the patch are known."""
    enough = known >= LEAST_KNOWN * rows
    writes = writes + enough
    rate = np.maximum(RATES, 1 / writes.clip(1)[:, None])
    token = (total / known.clip(1))[:, None]
    held = np.where(np.isnan(values), 0.0, values)  # it begins at the mean of training
    surprise = np.clip(token - held, -HUBER_DELTA, HUBER_DELTA)
    return np.where(enough[:, None], held + rate * surprise, values), writes
