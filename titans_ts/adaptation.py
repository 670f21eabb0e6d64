"""A stream after ``fit``: rows come in one by one; linear part and memories go on learning.

Nothing here looks ahead: a window is learned when its last target row arrives, a patch enters the
memory when no window reaches back to it any more. Rows are taken one at a time whatever the size
of the call, so that ``update`` row by row is bitwise ``update`` with all rows at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from titans_core import BackboneState
from titans_ts.channels import LEAST_KNOWN, fill_forward
from titans_ts.linear import LinearPart
from titans_ts.network import ForecastNetwork
from titans_ts.seasonal_memory import Profile, SeasonalMemory
from titans_ts.shares import Asked
from titans_ts.validation_walk import remember
from titans_ts.widths import Widths
from titans_ts.windows import PATCHES_AT_ONCE, Array, PatchClock, patches_ending


def fits_on(learn: bool | Literal["memory"] | None) -> bool:
    """Whether the linear part learns, too, and not the memories alone."""
    return bool(learn) and learn != "memory"


@dataclass
class Stream:
    """Everything of one series that moves as its rows arrive.

    Parameters
    ----------
    channel, column : int ndarray of shape (C',)
        Which channels of the fit these are, -1 in a series that was not fitted; which targets.
    recent : ndarray of shape (n, C')
        The last rows, z-scored, missing values filled from before; at most ``capacity``: what a
        window with its target, the next patch with what normalises it, and the window before a gap
        need.
    known : boolean ndarray of shape (n, C')
        Which of these values were seen.
    capacity : int
    last : ndarray of shape (C,)
        The last values known in original units: what constant channels are forecast from.
    rows : int
        Rows seen since the start of the series.
    position : int
        The same, and those that pad a short one in front.
    patches : int
        Patches whose time has passed, written or not.
    memory : BackboneState or None
        The network's, one stream per channel; None until the first patch is written.
    profile : Profile or None
        What the seasonal memory holds; None where it is not used.
    asked : Asked
        How the seasonal memory's forecasts have done since the fit.
    widths : Widths
        What intervals have held since the fit.
    past : ndarray of shape (n, Kp)
        The last rows of past covariates, scaled, as many as a window has.
    static : ndarray of shape (Ks,)
        Static covariates, scaled.
    """

    channel: np.ndarray
    column: np.ndarray
    recent: Array
    known: np.ndarray
    capacity: int
    last: Array
    rows: int
    position: int
    patches: int
    memory: BackboneState | None
    profile: Profile | None
    asked: Asked
    widths: Widths
    past: Array
    static: Array

    @classmethod
    def begin(
        cls,
        z: Array,
        last: Array,
        channel: np.ndarray,
        column: np.ndarray,
        past: Array,
        static: Array,
        linear: LinearPart,
        network: ForecastNetwork | None,
        clock: PatchClock,
        seasonal: SeasonalMemory | None = None,
    ) -> Stream:
        """Read a whole series ``(T, C')`` with a linear part that has learned from it already.

        A series shorter than a window is padded in front with rows that are missing.
        """
        length, rows = linear.context_length, len(z)
        if rows < length:
            past = np.concatenate([np.zeros((length - rows, past.shape[1])), past])
            z = np.concatenate([np.full((length - rows, z.shape[1]), np.nan), z])
        # A window with its target, or one before a gap as long as a window.
        capacity = max(length + linear.prediction_length, 2 * length)
        due = max(clock.due(len(z)), clock.first)
        filled, known = fill_forward(z), ~np.isnan(z)
        stream = cls(
            channel=channel,
            column=column,
            recent=filled[-capacity:].copy(),
            known=known[-capacity:].copy(),
            capacity=capacity,
            last=last,
            rows=rows,
            position=len(z),
            patches=due,
            memory=None,
            profile=None if seasonal is None else seasonal.begin(filled, known),
            asked=Asked.nothing(len(channel)),
            widths=Widths.nothing(len(channel)),
            past=past[-length:].copy(),
            static=static,
        )
        if network is not None:
            for first in range(clock.first, due, PATCHES_AT_ONCE):
                ends = clock.end(np.arange(first, min(first + PATCHES_AT_ONCE, due)))
                stream._write(filled, known, ends, network, clock)
        return stream

    @property
    def gap(self) -> np.ndarray:
        """Rows since each channel was last seen ``(C',)``, of those at hand."""
        known = self.known
        return np.where(known.any(axis=0), known[::-1].argmax(axis=0), len(known))

    def rows_since_begun(self, length: int) -> np.ndarray:
        """Of so many last rows, those since the first that was seen of each channel ``(C',)``."""
        known = self.known[-length:]
        return len(known) - np.where(known.any(axis=0), known.argmax(axis=0), 0)

    def window(self, linear: LinearPart) -> Array:
        """What forecasts are made from, ``(C', L)``: what is missing at the end is bridged.

        By the linear part's own forecast, no further out than what was seen: a value held over an
        outage would be taken for the level.
        """
        length, window = linear.context_length, self.recent[-linear.context_length :].T
        for gap, mine, seen in self._before_gaps(length):
            known = self.known[: len(self.known) - gap, mine].T
            rows = np.where(known, self.recent[: len(known.T), mine].T, np.nan)
            lowest, highest = (f(rows, axis=1, keepdims=True) for f in (np.nanmin, np.nanmax))
            span = highest - lowest
            bridge = seen
            for _ in range(0, gap, linear.prediction_length):
                ahead = linear.predict(bridge[:, -length:], self.channel[mine])
                bridge = np.concatenate([bridge, ahead.clip(lowest - span, highest + span)], axis=1)
            window = window.copy()
            window[mine] = bridge[:, gap : gap + length]
        return window

    def seen_window(self, length: int) -> Array:
        """The rows up to the last that was seen of each channel ``(C', length)``."""
        window = self.recent[-length:].T
        for _, mine, seen in self._before_gaps(length):
            window = window.copy()
            window[mine] = seen
        return window

    def _before_gaps(self, length: int) -> Iterator[tuple[int, np.ndarray, Array]]:
        """Rows missing at the end, the channels that they are missing of, and what was before.

        A channel of which nothing is known at all has no gap: there is nothing to go on from.
        """
        gap = np.where(self.gap < len(self.recent), self.gap, 0)
        for rows in np.unique(gap[gap > 0]):
            mine = np.flatnonzero(gap == rows)
            before = self.recent[:-rows, mine].T[:, -length:]
            short = length - before.shape[1]
            yield int(rows), mine, np.pad(before, ((0, 0), (short, 0)), mode="edge")

    def observe(
        self,
        z: Array,
        last: Array,
        past: Array,
        linear: LinearPart,
        network: ForecastNetwork | None,
        clock: PatchClock,
        seasonal: SeasonalMemory | None = None,
        *,
        learn: bool | Literal["memory"],
    ) -> None:
        """Take in rows ``(n, C')``.

        With ``learn="memory"`` only the memories learn from them; with False nothing does, and what
        falls due is passed over for good.
        """
        self.past = np.concatenate([self.past, past])[-linear.context_length :]
        for row in z:
            known = ~np.isnan(row)
            filled = np.where(known, row, self.recent[-1])
            self.recent = np.concatenate([self.recent, filled[None]])[-self.capacity :]
            self.known = np.concatenate([self.known, known[None]])[-self.capacity :]
            self.rows += 1
            self.position += 1
            if fits_on(learn):
                self._learn_window(linear)
            if seasonal is not None and self.profile is not None:
                self.profile = seasonal.write(self.profile, filled, known & bool(learn))
            if clock.due(self.position) > self.patches:
                if learn and network is not None:
                    ends = np.array([len(self.recent) - clock.context_length])
                    self._write(self.recent, self.known, ends, network, clock)
                self.patches += 1
        self.last = last

    def last_rows(self, rows: int) -> Array:
        """So many last rows ``(C', rows)``, NaN where they were not seen."""
        return np.where(self.known[-rows:], self.recent[-rows:], np.nan).T

    def copy(self) -> Stream:
        """An independent copy: arrays are replaced as rows come, never changed in place."""
        return replace(self)

    def _learn_window(self, linear: LinearPart) -> None:
        """The window whose last target row has just come."""
        before, after = linear.context_length, linear.prediction_length
        if len(self.recent) < before + after or (self.channel < 0).any():
            return
        known, rows = self.known[-before - after :].T, self.recent[-before - after :].T
        target = self.last_rows(after)
        useful = (known[:, :before].mean(axis=1) >= LEAST_KNOWN) & (
            known[:, before:].mean(axis=1) >= LEAST_KNOWN
        )
        if useful.any():
            linear.learn(rows[useful, :before], target[useful], self.channel[useful])

    def _write(
        self,
        rows: Array,
        known: np.ndarray,
        ends: np.ndarray,
        network: ForecastNetwork,
        clock: PatchClock,
    ) -> None:
        """Write the patches that end at these rows."""
        patches = np.stack([patches_ending(column, ends, clock) for column in rows.T])
        span = ends[:, None] - clock.patch_length + np.arange(clock.patch_length)
        enough = known[span].mean(axis=1).T >= LEAST_KNOWN  # (n, p, C) -> (C, n)
        static = static_of([self])
        self.memory = remember(network, patches, enough, self.channel, self.memory, static)


def static_of(streams: Sequence[Stream]) -> Tensor | None:
    """Static covariates of all channels of streams, ``(K, Ks)``; None if there are none."""
    if not len(streams[0].static):
        return None
    rows = [np.broadcast_to(s.static, (len(s.channel), len(s.static))) for s in streams]
    return torch.from_numpy(np.concatenate(rows)).float()
