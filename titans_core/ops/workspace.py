"""Memory that every run of chunks uses again, instead of asking the system for fresh pages."""

from __future__ import annotations

import torch
from torch import Tensor


class Workspace:
    """Named buffers of one dtype and device; the same name gives the same memory.

    Parameters
    ----------
    like : Tensor
        Gives dtype and device.
    """

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self._kept: dict[str, Tensor] = {}

    def __call__(self, name: str, *shape: int) -> Tensor:
        """An uninitialised tensor; a longer one of that name and width is cut to ``shape[0]``."""
        kept = self._kept.get(name)
        if kept is None or kept.shape[1:] != shape[1:] or kept.shape[0] < shape[0]:
            kept = self._kept[name] = torch.empty(
                shape, dtype=self._like.dtype, device=self._like.device
            )
        return kept[: shape[0]]
