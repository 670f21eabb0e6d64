"""What the memory operation refuses, with the offender and what was needed."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from titans_core.ops.memory_mlp import ACTIVATIONS, Weights
from titans_core.ops.state import NeuralMemoryState


def check_choices(
    *,
    chunk_size: int,
    activation: str,
    huber_delta: float | None,
    forget_toward: str,
    read: str,
    implementation: str,
    implementations: Iterable[str],
) -> None:
    """Raise ValueError for an option that does not exist."""
    if type(chunk_size) is not int or chunk_size < 1:
        raise ValueError(f"chunk_size must be an int >= 1; got {chunk_size!r}.")
    if huber_delta is not None and not huber_delta > 0:
        raise ValueError(f"huber_delta must be None or a float > 0; got {huber_delta!r}.")
    for name, value, allowed in (
        ("activation", activation, sorted(ACTIVATIONS)),
        ("forget_toward", forget_toward, ["zero", "initial"]),
        ("read", read, ["inclusive", "chunk_start"]),
        ("implementation", implementation, ["auto", *sorted(implementations)]),
    ):
        if value not in allowed:
            raise ValueError(f"{name} must be one of {allowed}; got {value!r}.")


def check_tensors(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gates: dict[str, Tensor | None],
    weights: Weights,
    norm: tuple[Tensor, Tensor] | None,
    write_mask: Tensor | None,
    state: NeuralMemoryState | None,
    chunk_size: int,
) -> None:
    """Raise ValueError for tensors that do not fit together."""
    if q.ndim != 4:
        raise ValueError(f"q must have shape (B, T, H, D); got {tuple(q.shape)}.")
    if not q.is_floating_point():
        raise ValueError(f"q must hold floating-point numbers; got {q.dtype}.")
    batch, time, heads, dim = q.shape
    expected = {"k": (k, q.shape), "v": (v, q.shape)}
    for name, gate in gates.items():
        if gate is not None:
            expected[name] = (gate, torch.Size((batch, time, heads)))
    for part, tensor in zip(("gain", "bias"), norm or (), strict=norm is not None):
        expected[f"norm {part}"] = (tensor, torch.Size((heads, dim)))
    if write_mask is not None:
        expected["write_mask"] = (write_mask, torch.Size((batch, time)))
        if write_mask.dtype != torch.bool:
            raise ValueError(f"write_mask must be a bool tensor; got {write_mask.dtype}.")
    for name, (tensor, shape) in expected.items():
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{name} must be a tensor; got a {type(tensor).__name__}.")
        if tensor.shape != shape:
            raise ValueError(
                f"{name} must have shape {tuple(shape)} to go with q {tuple(q.shape)}; "
                f"got {tuple(tensor.shape)}."
            )
    _check_weights(weights, heads, dim)
    if state is not None:
        _check_state(state, weights, batch, chunk_size, gates["momentum_decay"] is not None)


def _check_weights(weights: Weights, heads: int, dim: int) -> None:
    width = dim
    for layer, w in enumerate(weights):
        last = layer == len(weights) - 1
        if w.ndim != 3 or w.shape[:2] != (heads, width) or (last and w.shape[2] != dim):
            raise ValueError(
                f"initial_weights[{layer}] must have shape ({heads}, {width}, "
                f"{dim if last else 'any'}); got {tuple(w.shape)}."
            )
        width = w.shape[2]
    if not weights:
        raise ValueError(
            "initial_weights must hold at least one (H, d_in, d_out) tensor; got none."
        )


def _check_state(
    state: NeuralMemoryState, weights: Weights, batch: int, chunk_size: int, with_momentum: bool
) -> None:
    if not 0 <= state.offset < chunk_size:
        raise ValueError(
            f"state.offset must lie in [0, chunk_size) = [0, {chunk_size}); got {state.offset}: "
            "the state comes from a stream with another chunk_size."
        )
    for name in ("anchor", "weights", "momentum"):
        shapes = [tuple(s.shape) for s in getattr(state, name)]
        needed = [(batch, *w.shape) for w in weights]
        if name == "momentum" and not with_momentum:
            needed = []
        if shapes != needed:
            raise ValueError(f"state.{name} must hold tensors of shapes {needed}; got {shapes}.")
