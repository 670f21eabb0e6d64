"""What the linear part leaves of windows that end at given origins, as batches for the network.

Origin t means: rows before t are known, rows t, t+1, ... are forecast. A window ends at its
origin; the memory holds the patches that end at or before the window's first row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from titans_ts.channels import LEAST_KNOWN, Channels
from titans_ts.linear import LinearPart
from titans_ts.recollection_fitting import Recollected
from titans_ts.windows import Array, PatchClock, normalise, patches_ending


class Batch(NamedTuple):
    """Windows for the network: contexts ``(n, N)``, linear errors ``(n, P)``, scales ``(n, 1)``.

    And the patches before them ``(n, h, p)`` with which of them are known ``(n, h)``, and the
    channels ``(n,)``. Errors are NaN where the target is missing.
    """

    context: Tensor
    error: Tensor
    scale: Tensor
    past: Tensor
    past_known: Tensor
    channel: Tensor


class ResidualWindows:
    """Windows, patches and linear errors of channels, by origin, for the network."""

    def __init__(
        self,
        channels: Channels,
        linear: LinearPart,
        clock: PatchClock,
        added: Callable[[np.ndarray], Array] | None = None,
        recollected: Recollected | None = None,
    ) -> None:
        self.channels, self.linear, self.clock = channels, linear, clock
        self._added, self._recollected = added, recollected
        self.context_length, self.prediction_length = (
            linear.context_length,
            linear.prediction_length,
        )

    def rows_before(self, history: int) -> int:
        """Rows that a window with so many whole patches before it needs, all normalisable."""
        if history == 0:
            return self.context_length
        patches = 2 * self.clock.context_length + (history - 1) * self.clock.patch_length
        return max(self.context_length, patches)

    def training_origins(self, history: int) -> np.ndarray:
        """Origins that can teach with so many patches before the window."""
        before, after = self.context_length, self.prediction_length
        return self.channels.training_origins(before, after, self.rows_before(history))

    def sample(self, origins: np.ndarray, history: int, *, recollect: bool = False) -> Batch:
        """The windows that end at these origins, with what the seasonal memory adds or without."""
        channel = self.channels.of(origins)
        raw, target = self.channels.windows(origins, self.context_length, self.prediction_length)
        context, scale = normalise(raw[:, -self.clock.context_length :])
        ahead = self.linear.predict(raw, channel)
        if self._added is not None:
            ahead += self._added(origins)
        if recollect and self._recollected is not None:
            ahead = self._recollected.correct(ahead, raw, origins)
        error = target - ahead
        steps = np.arange(history - 1, -1, -1) * self.clock.patch_length
        ends = (origins - self.clock.context_length)[:, None] - steps
        past = patches_ending(self.channels.values, ends, self.clock)
        return Batch(
            context=torch.from_numpy(context).float(),
            error=torch.from_numpy(error).float(),
            scale=torch.from_numpy(scale).float(),
            past=torch.from_numpy(past).float(),
            past_known=torch.from_numpy(self.patch_known(ends)),
            channel=torch.from_numpy(channel),
        )

    def useful(self, origins: np.ndarray) -> np.ndarray:
        """Which windows are known enough to be scored."""
        before, after = self.context_length, self.prediction_length
        context = self.channels.known_between(origins - before, origins)
        target = self.channels.known_between(origins, origins + after)
        return np.asarray((context >= LEAST_KNOWN * before) & (target >= LEAST_KNOWN * after))

    def patch_known(self, ends: np.ndarray) -> np.ndarray:
        """Which patches are known enough to be written."""
        length = self.clock.patch_length
        known = self.channels.known_between(ends - length, ends)
        return np.asarray(known >= LEAST_KNOWN * length)
