"""The shared core of Titans: a neural long-term memory that learns at test time.

``titans_core.ops`` holds the memory as a pure function; this package the layers, blocks and the
backbone built on it, the training loop and the file format.
"""

from __future__ import annotations

from titans_core.backbone import Backbone
from titans_core.blocks import AttentionOnly, LongTermMemory, MemoryAsGate, MemoryAsLayer
from titans_core.config import (
    AttentionConfig,
    BackboneConfig,
    GatedDeltaConfig,
    NeuralMemoryConfig,
)
from titans_core.gated_delta_net import GatedDeltaNet, GatedDeltaState
from titans_core.introspection import record_memory
from titans_core.memory_as_context import MemoryAsContext
from titans_core.memory_layer import build_memory
from titans_core.neural_memory import NeuralMemory
from titans_core.ops import NeuralMemoryState
from titans_core.state import (
    AttentionState,
    BackboneState,
    MemoryAsContextState,
    MemoryAsGateState,
    MemoryAsLayerState,
    MemoryLayerState,
    MemoryRecord,
    OpenSegment,
    detach_state,
    map_state,
    state_from_dict,
    state_to_dict,
)

__version__ = "0.1.0"

__all__ = [
    "AttentionConfig",
    "AttentionOnly",
    "AttentionState",
    "Backbone",
    "BackboneConfig",
    "BackboneState",
    "GatedDeltaConfig",
    "GatedDeltaNet",
    "GatedDeltaState",
    "LongTermMemory",
    "MemoryAsContext",
    "MemoryAsContextState",
    "MemoryAsGate",
    "MemoryAsGateState",
    "MemoryAsLayer",
    "MemoryAsLayerState",
    "MemoryLayerState",
    "MemoryRecord",
    "NeuralMemory",
    "NeuralMemoryConfig",
    "NeuralMemoryState",
    "OpenSegment",
    "build_memory",
    "detach_state",
    "map_state",
    "record_memory",
    "state_from_dict",
    "state_to_dict",
]
