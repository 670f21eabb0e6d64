"""The shared core of Titans: a neural long-term memory that learns at test time.

``titans_core.ops`` holds the memory as a pure function; this package the layers, blocks and the
backbone built on it, the training loop and the file format.
"""

from __future__ import annotations

from titans_core.backbone import Backbone
from titans_core.blocks import LongTermMemory
from titans_core.config import BackboneConfig, NeuralMemoryConfig
from titans_core.neural_memory import NeuralMemory
from titans_core.ops import NeuralMemoryState
from titans_core.state import (
    BackboneState,
    MemoryLayerState,
    detach_state,
    map_state,
    state_from_dict,
    state_to_dict,
)

__version__ = "0.1.0"

__all__ = [
    "Backbone",
    "BackboneConfig",
    "BackboneState",
    "LongTermMemory",
    "MemoryLayerState",
    "NeuralMemory",
    "NeuralMemoryConfig",
    "NeuralMemoryState",
    "detach_state",
    "map_state",
    "state_from_dict",
    "state_to_dict",
]
