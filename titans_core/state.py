"""States of modules: plain values, in and out of every ``forward``; never hidden in a module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from titans_core.gated_delta_net import GatedDeltaState
from titans_core.ops.memory_mlp import Weights
from titans_core.ops.state import NeuralMemoryState

STATE_FORMAT_VERSION = 3  # 2 knew states of a backbone only


class MemoryLayerState(NamedTuple):
    """State of one ``NeuralMemory`` layer.

    Parameters
    ----------
    memory : NeuralMemoryState
    conv_tail : Tensor
        ``(B, conv_width - 1, 3 dim)``: the last inputs of the causal convolution.
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
        The gates theta, eta and alpha; 0 where a token is masked, which leaves the memory as it
        is, and eta or alpha in a layer built without it.
    memory_norm : Tensor
        Norm of the weights that the surprise was measured at, the anchor of the chunk.
    """

    surprise: Tensor
    memory_lr: Tensor
    momentum_decay: Tensor
    forget_gate: Tensor
    memory_norm: Tensor


LayerState = MemoryLayerState | GatedDeltaState
"""State of a memory layer of either kind; also of a memory-only block."""


class AttentionState(NamedTuple):
    """State of sliding-window attention; the first of its tokens lie longest back.

    Parameters
    ----------
    keys, values : Tensor
        ``(B, H, window - 1, D)``, keys not rotated; ``(B, H, 0, D)`` without ``causal``.
    present : Tensor
        ``(B, window - 1)`` bool: False for a masked token, or from before the stream.
    """

    keys: Tensor
    values: Tensor
    present: Tensor


class OpenSegment(NamedTuple):
    """What segment attention keeps of a segment that is not full yet.

    Parameters
    ----------
    keys, values : Tensor
        ``(B, H, 2, window, D)``, keys not rotated: of what was retrieved, and of the tokens;
        ``(B, H, 2, 0, D)`` without ``causal``, where no segment stays open.
    present : Tensor
        ``(B, window)`` bool: False for a masked token.
    length : int
        How many places are taken; the others hold zeros.
    """

    keys: Tensor
    values: Tensor
    present: Tensor
    length: int


class MemoryAsContextState(NamedTuple):
    """State of a ``MemoryAsContext`` block.

    Parameters
    ----------
    memory : MemoryLayerState or GatedDeltaState
    start : tuple of Tensor
        The weights that the memory had when the open segment began: what the segment retrieves
        from.
    segment : OpenSegment
    """

    memory: LayerState
    start: Weights
    segment: OpenSegment


class MemoryAsGateState(NamedTuple):
    """State of a ``MemoryAsGate`` block."""

    memory: LayerState
    attention: AttentionState


class MemoryAsLayerState(NamedTuple):
    """State of a ``MemoryAsLayer`` block.

    Parameters
    ----------
    memory : MemoryLayerState or GatedDeltaState
    prefix : tuple of Tensor
        Keys and values ``(B, H, P, D)`` of what the memory read at the persistent tokens.
    attention : AttentionState
    """

    memory: LayerState
    prefix: tuple[Tensor, Tensor]
    attention: AttentionState


BlockState = (
    LayerState | AttentionState | MemoryAsContextState | MemoryAsGateState | MemoryAsLayerState
)
"""State of any block."""


class BackboneState(NamedTuple):
    """State of a ``Backbone``: one state per block."""

    blocks: tuple[BlockState, ...]


StateT = TypeVar("StateT", bound=tuple[Any, ...])


def map_state(function: Callable[[Tensor], Tensor], state: StateT) -> StateT:
    """Apply a function to every tensor of a state: detach, move, repeat, select...

    Some tensors are masks of bool, which must stay so.
    """
    if not isinstance(state, tuple):
        raise TypeError(
            f"state must be a state or a tuple of states; got a {type(state).__name__}."
        )
    mapped: StateT = _map(function, state)
    return mapped


def _map(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, tuple):
        parts = [_map(function, part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def join_states(states: Sequence[StateT]) -> StateT:
    """One state of several batches of streams that have read equally many tokens.

    Raises
    ------
    ValueError
        There are none, or they stand at different tokens.
    """
    if not states:
        raise ValueError("states must hold at least one state; got none.")
    joined: StateT = _join(list(states))
    return joined


def _join(values: list[Any]) -> Any:
    first = values[0]
    if isinstance(first, Tensor):
        return torch.cat(values)
    if isinstance(first, tuple):
        parts = [_join(list(part)) for part in zip(*values, strict=True)]
        return type(first)(*parts) if hasattr(first, "_fields") else tuple(parts)
    if any(value != first for value in values):
        raise ValueError(f"states must stand at the same token; they differ in {values}.")
    return first


def state_position(state: tuple[Any, ...]) -> tuple[int, ...]:
    """Where the streams of a state stand: its plain numbers, equal in states that can be joined."""
    parts = (state_position(part) if isinstance(part, tuple) else part for part in state)
    flat = (part if isinstance(part, tuple) else (part,) for part in parts)
    return tuple(value for part in flat for value in part if not isinstance(value, Tensor))


def detach_state(state: StateT) -> StateT:
    """The same state, cut from the graph that made it (truncated back-propagation)."""
    return map_state(Tensor.detach, state)


_TYPES = {
    kind.__name__: kind
    for kind in (
        NeuralMemoryState,
        MemoryLayerState,
        GatedDeltaState,
        AttentionState,
        OpenSegment,
        MemoryAsContextState,
        MemoryAsGateState,
        MemoryAsLayerState,
        BackboneState,
    )
}


def state_to_dict(state: tuple[Any, ...]) -> dict[str, Any]:
    """Nested dicts and tuples of tensors, ints and str, as ``persistence.save_tree`` takes them.

    Parameters
    ----------
    state : BackboneState, or the state of any layer or block

    Raises
    ------
    TypeError
        It is none of these.
    """
    if type(state) not in _TYPES.values():
        raise TypeError(f"state must be that of a module; got a {type(state).__name__}.")
    return {"format_version": STATE_FORMAT_VERSION, "state": _to_tree(state)}


def state_from_dict(tree: dict[str, Any]) -> Any:
    """Inverse of ``state_to_dict``: a state of the kind that was given there.

    Raises
    ------
    ValueError
        The tree was written by another version of this library, whose layers were others, or is
        damaged.
    """
    version = tree.get("format_version")
    if version != STATE_FORMAT_VERSION:
        raise ValueError(
            f"state has format_version {version!r}; this version of titans_core reads "
            f"{STATE_FORMAT_VERSION}. Read it with the titans-stream that wrote it."
        )
    try:
        return _from_tree(tree["state"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"state is damaged, or was made by something else: {error!r}.") from error


def _to_tree(value: Any) -> Any:
    if hasattr(value, "_fields"):
        fields = {name: _to_tree(part) for name, part in value._asdict().items()}
        return {"type": type(value).__name__, **fields}
    return tuple(map(_to_tree, value)) if isinstance(value, tuple) else value


def _from_tree(value: Any) -> Any:
    if isinstance(value, dict):
        fields = {name: _from_tree(part) for name, part in value.items() if name != "type"}
        return _TYPES[value["type"]](**fields)
    return tuple(map(_from_tree, value)) if isinstance(value, tuple) else value
