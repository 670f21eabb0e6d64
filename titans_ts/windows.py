"""Windows and patches of a series: where they lie, and how they are normalised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Floor of a window's own scale, in units of the channel's standard deviation over training: a
# quiet window must not blow its noise up to the size of a signal.
SCALE_FLOOR = 0.1
PATCHES_AT_ONCE = 4096  # that a long series is read into the memory by


def sliding_windows(y: Array, length: int) -> Array:
    """Every window of ``length`` rows, as a view: ``(T, C) -> (T - length + 1, C, length)``."""
    return np.lib.stride_tricks.sliding_window_view(y, length, axis=0)


def centre(context: Array) -> tuple[Array, Array]:
    """Subtract each window's mean over time, the last axis; returns the centred and the mean."""
    level = context.mean(axis=-1, keepdims=True)
    return context - level, level


def window_scale(centred: Array) -> Array:
    """Standard deviation over time, the last axis, kept above ``SCALE_FLOOR``."""
    return np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + SCALE_FLOOR**2)


def normalise(context: Array) -> tuple[Array, Array]:
    """Centre each window and divide it by its scale; returns the window and the scale."""
    centred, _ = centre(context)
    scale = window_scale(centred)
    return centred / scale, scale


def patches_ending(z: Array, ends: np.ndarray, clock: PatchClock) -> Array:
    """Patches that end before rows ``ends`` of ``(T,)``, normalised: ``(*ends.shape, p)``."""
    windows = sliding_windows(z[:, None], clock.context_length)[ends - clock.context_length, 0]
    return normalise(windows)[0][..., -clock.patch_length :]


@dataclass(frozen=True)
class PatchClock:
    """When patches of a stream enter the memory: patch i holds rows ``i p <= row < (i + 1) p``.

    A patch is normalised by the L rows that end with it, so the first whole patches have none; it
    is due once no window reaches back to it any more, ``(i + 1) p <= t - L``.
    """

    context_length: int
    patch_length: int

    @property
    def first(self) -> int:
        """The first patch that can be normalised."""
        return -(-self.context_length // self.patch_length) - 1

    def due(self, origin: Any) -> Any:
        """Number of patches that lie before the window that ends at the origin (int or array)."""
        return (origin - self.context_length) // self.patch_length

    def end(self, patch: Any) -> Any:
        """Row after the patch's last row."""
        return (patch + 1) * self.patch_length
