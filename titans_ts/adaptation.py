"""A stream after ``fit``: rows come in one by one; the linear part and the memory go on learning.

Nothing here looks ahead: a window is learned when its last target row arrives, a patch enters the
memory when no window reaches back to it any more. Rows are taken one at a time whatever the size
of the call, so that ``update`` row by row is bitwise ``update`` with all rows at once.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import numpy as np

from titans_core import BackboneState
from titans_ts.linear import LinearPart
from titans_ts.network import ForecastNetwork
from titans_ts.residual import remember
from titans_ts.windows import Array, PatchClock, patches_ending


@dataclass
class Stream:
    """Everything that moves as rows arrive.

    Parameters
    ----------
    linear : LinearPart
        As far as it has learned.
    recent : ndarray of shape (n, C')
        The last rows, z-scored; at most ``capacity``: what a window with its target, and the next
        patch with what normalises it, need.
    capacity : int
    last : ndarray of shape (C,)
        The last row in original units: what constant channels are forecast from.
    position : int
        Rows seen since the start of the series.
    patches : int
        Patches whose time has passed, written or not.
    memory : BackboneState or None
        One stream per channel; None until the first patch is written.
    """

    linear: LinearPart
    recent: Array
    capacity: int
    last: Array
    position: int
    patches: int
    memory: BackboneState | None

    @classmethod
    def begin(
        cls,
        z: Array,
        last: Array,
        linear: LinearPart,
        network: ForecastNetwork | None,
        clock: PatchClock,
    ) -> Stream:
        """Read a whole series ``(T, C')`` with a linear part that has learned from it already."""
        context_length, prediction_length = linear.weights.shape[1:]
        due = max(clock.due(len(z)), clock.first)
        memory = None
        if network is not None and due > clock.first:
            ends = clock.end(np.arange(clock.first, due))
            memory = remember(network, patches_ending(z, ends, clock).transpose(1, 0, 2), None)
        capacity = context_length + max(prediction_length, context_length)
        return cls(linear, z[-capacity:].copy(), capacity, last.copy(), len(z), due, memory)

    @property
    def context(self) -> Array:
        """The window that ends now, ``(C', L)``."""
        return self.recent[-self.linear.weights.shape[1] :].T

    def observe(
        self,
        z: Array,
        last: Array,
        network: ForecastNetwork | None,
        clock: PatchClock,
        *,
        learn: bool,
    ) -> None:
        """Take in rows ``(n, C')``; with ``learn=False`` what falls due is passed over for good."""
        for row in z:
            self.recent = np.concatenate([self.recent, row[None]])[-self.capacity :]
            self.position += 1
            if learn:
                self._learn_window()
            if clock.due(self.position) > self.patches:
                if learn and network is not None:
                    self._write_patch(network, clock)
                self.patches += 1
        self.last = last.copy()

    def copy(self) -> Stream:
        """An independent copy (states of the memory are never changed in place)."""
        return replace(self, linear=copy.deepcopy(self.linear), recent=self.recent.copy())

    def _learn_window(self) -> None:
        context_length, prediction_length = self.linear.weights.shape[1:]
        window = self.recent[-context_length - prediction_length :].T
        self.linear.learn(window[:, :context_length], window[:, context_length:])

    def _write_patch(self, network: ForecastNetwork, clock: PatchClock) -> None:
        """Write the patch that ends where the window begins."""
        ends = np.array([len(self.recent) - clock.context_length])
        patch = patches_ending(self.recent, ends, clock).transpose(1, 0, 2)
        self.memory = remember(network, patch, self.memory)
