"""The shared core of Titans: a neural long-term memory that learns at test time.

``titans_core.ops`` holds the memory as a pure function; this package the layers, blocks and the
backbone built on it, the training loop and the file format.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from titans_core.lazy import lazy_names

if TYPE_CHECKING:
    from titans_core.backbone import Backbone
    from titans_core.blocks import AttentionOnly, LongTermMemory, MemoryAsGate, MemoryAsLayer
    from titans_core.config import (
        AttentionConfig,
        BackboneConfig,
        GatedDeltaConfig,
        NeuralMemoryConfig,
        backbone_from_dict,
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
        join_states,
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
    "backbone_from_dict",
    "build_memory",
    "detach_state",
    "join_states",
    "map_state",
    "record_memory",
    "state_from_dict",
    "state_to_dict",
]

# Names are imported when they are first asked for (PEP 562): a command's --help needs no torch.
_HOMES = {
    "AttentionConfig": "titans_core.config",
    "AttentionOnly": "titans_core.blocks",
    "AttentionState": "titans_core.state",
    "Backbone": "titans_core.backbone",
    "BackboneConfig": "titans_core.config",
    "BackboneState": "titans_core.state",
    "GatedDeltaConfig": "titans_core.config",
    "GatedDeltaNet": "titans_core.gated_delta_net",
    "GatedDeltaState": "titans_core.gated_delta_net",
    "LongTermMemory": "titans_core.blocks",
    "MemoryAsContext": "titans_core.memory_as_context",
    "MemoryAsContextState": "titans_core.state",
    "MemoryAsGate": "titans_core.blocks",
    "MemoryAsGateState": "titans_core.state",
    "MemoryAsLayer": "titans_core.blocks",
    "MemoryAsLayerState": "titans_core.state",
    "MemoryLayerState": "titans_core.state",
    "MemoryRecord": "titans_core.state",
    "NeuralMemory": "titans_core.neural_memory",
    "NeuralMemoryConfig": "titans_core.config",
    "NeuralMemoryState": "titans_core.ops",
    "OpenSegment": "titans_core.state",
    "backbone_from_dict": "titans_core.config",
    "build_memory": "titans_core.memory_layer",
    "detach_state": "titans_core.state",
    "join_states": "titans_core.state",
    "map_state": "titans_core.state",
    "record_memory": "titans_core.introspection",
    "state_from_dict": "titans_core.state",
    "state_to_dict": "titans_core.state",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
