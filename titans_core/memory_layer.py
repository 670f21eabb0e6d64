"""What blocks ask of a memory layer of any kind, and how one is made from its configuration."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from titans_core.config import GatedDeltaConfig, MemoryConfig
from titans_core.gated_delta_net import GatedDeltaNet
from titans_core.neural_memory import NeuralMemory
from titans_core.ops.memory_mlp import Weights


class MemoryLayer(Protocol):
    """A layer that writes tokens into a memory and reads them back; an ``nn.Module``."""

    config: Any

    def __call__(
        self, x: Tensor, state: Any = None, mask: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Write and read each token, ``(B, T, dim) -> (B, T, dim)``; go on from a state."""

    def fast_weights(self, state: Any, batch_size: int) -> Weights:
        """The weights of the memory after a state (None: before any token)."""

    def retrieve(self, queries: Tensor, weights: Weights) -> Tensor:
        """Read without writing, ``(B, T, dim) -> (B, T, dim)``."""


def build_memory(config: MemoryConfig) -> MemoryLayer:
    """The layer that a configuration describes.

    Parameters
    ----------
    config : NeuralMemoryConfig or GatedDeltaConfig

    Examples
    --------
    >>> type(build_memory(GatedDeltaConfig(dim=8))).__name__
    'GatedDeltaNet'
    """
    return GatedDeltaNet(config) if isinstance(config, GatedDeltaConfig) else NeuralMemory(config)
