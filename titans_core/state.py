"""States of modules: plain values, in and out of every ``forward``; never hidden in a module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from torch import Tensor

from titans_core.ops.state import NeuralMemoryState

STATE_FORMAT_VERSION = 1


class MemoryLayerState(NamedTuple):
    """State of one ``NeuralMemory`` layer.

    Parameters
    ----------
    memory : NeuralMemoryState
    conv_tail : Tensor
        ``(B, 3 dim, conv_width - 1)``: the last inputs of the causal convolution.
    """

    memory: NeuralMemoryState
    conv_tail: Tensor


class MemoryRecord(NamedTuple):
    """What one memory layer went through; every tensor ``(B, T, H)``, detached.

    Parameters
    ----------
    surprise : Tensor
        Norm of the momentary gradient; 0 where a token is masked.
    memory_lr, momentum_decay, forget_gate : Tensor
        The gates theta, eta and alpha; eta or alpha is 0 in a layer built without it.
    memory_norm : Tensor
        Norm of the weights that the surprise was measured at, the anchor of the chunk.
    """

    surprise: Tensor
    memory_lr: Tensor
    momentum_decay: Tensor
    forget_gate: Tensor
    memory_norm: Tensor


class BackboneState(NamedTuple):
    """State of a ``Backbone``: one layer state per block."""

    blocks: tuple[MemoryLayerState, ...]


StateT = TypeVar("StateT", BackboneState, MemoryLayerState, NeuralMemoryState)


def map_state(function: Callable[[Tensor], Tensor], state: StateT) -> StateT:
    """Apply a function to every tensor of a state: detach, move, repeat, select..."""
    mapped: StateT = _map(function, state)
    return mapped


def _map(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, tuple):
        parts = [_map(function, part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def detach_state(state: StateT) -> StateT:
    """The same state, cut from the graph that made it (truncated back-propagation)."""
    return map_state(Tensor.detach, state)


def state_to_dict(state: BackboneState) -> dict[str, Any]:
    """Nested dicts and tuples of tensors and ints, as ``persistence.save_tree`` takes them."""
    return {
        "format_version": STATE_FORMAT_VERSION,
        "blocks": tuple(
            {"memory": block.memory._asdict(), "conv_tail": block.conv_tail}
            for block in state.blocks
        ),
    }


def state_from_dict(tree: dict[str, Any]) -> BackboneState:
    """Inverse of ``state_to_dict``.

    Raises
    ------
    ValueError
        The tree was written by a newer version of this library.
    """
    if tree.get("format_version") != STATE_FORMAT_VERSION:
        raise ValueError(
            f"state has format_version {tree.get('format_version')!r}; this version of titans_core "
            f"reads {STATE_FORMAT_VERSION}. Upgrade titans-stream, or read it where it was written."
        )
    return BackboneState(
        tuple(
            MemoryLayerState(NeuralMemoryState(**block["memory"]), block["conv_tail"])
            for block in tree["blocks"]
        )
    )
