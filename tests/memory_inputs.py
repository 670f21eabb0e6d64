"""Random but well-behaved inputs of the neural memory operation, for the tests of ``ops``."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from titans_core.ops import MemoryTrace, NeuralMemoryState, neural_memory

TOKEN_NAMES = ("q", "k", "v", "memory_lr", "momentum_decay", "forget_gate", "write_mask")
MASKS = ("none", "all written", "all masked", "random", "ragged", "whole chunks")


def random_inputs(
    time: int,
    *,
    depth: int,
    norm: bool,
    momentum: bool = True,
    forgetting: bool = True,
    batch: int = 2,
    heads: int = 2,
    dim: int = 6,
    hidden: int = 8,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> dict[str, Any]:
    """Leaf tensors with ``requires_grad``, by the names of ``neural_memory``'s parameters.

    The gates keep the recurrence well conditioned over 100 tokens. Stronger forgetting with a
    LayerNorm lets the weights vanish before they are normalised, and rounding is then amplified
    in the reference as much as anywhere.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    def uniform(low: float, high: float) -> Tensor:
        sample = torch.rand(batch, time, heads, generator=generator, dtype=dtype)
        return low + (high - low) * sample

    widths = [dim, *[hidden] * (depth - 1), dim]
    inputs: dict[str, Any] = {
        "q": normalize(normal(batch, time, heads, dim), dim=-1),
        "k": normalize(normal(batch, time, heads, dim), dim=-1),
        "v": normal(batch, time, heads, dim),
        "memory_lr": uniform(0.0, 0.01),
        "momentum_decay": uniform(0.5, 1.0),
        "forget_gate": uniform(0.0, 0.02),
        "initial_weights": tuple(
            normal(heads, d_in, d_out) / d_in**0.5 for d_in, d_out in pairwise(widths)
        ),
        "norm": (1 + 0.1 * normal(heads, dim), 0.1 * normal(heads, dim)) if norm else None,
    }
    if not momentum:
        inputs["momentum_decay"] = None
    if not forgetting:
        inputs["forget_gate"] = None
    for tensor in flat(inputs).values():
        tensor.requires_grad_()
    return inputs


def random_mask(kind: str, batch: int, time: int, chunk_size: int, seed: int = 0) -> Tensor | None:
    """``(B, T)`` of one of the ``MASKS``; "ragged" is the padding of streams of unequal length."""
    generator = torch.Generator().manual_seed(seed)
    if kind == "none":
        return None
    if kind in ("all written", "all masked"):
        return torch.full((batch, time), kind == "all written")
    if kind == "random":
        return torch.rand(batch, time, generator=generator) < 0.6
    if kind == "ragged":
        lengths = torch.randint(time + 1, (batch, 1), generator=generator)
        return torch.arange(time) < lengths
    chunks = torch.rand(batch, -(-time // chunk_size), generator=generator) < 0.5
    return chunks.repeat_interleave(chunk_size, dim=1)[:, :time]


def flat(inputs: dict[str, Any]) -> dict[str, Tensor]:
    """Every tensor of numbers among the inputs, by name."""
    tensors = {}
    for name, value in inputs.items():
        if isinstance(value, Tensor):
            if value.is_floating_point():
                tensors[name] = value
        elif value is not None:
            tensors |= {f"{name}[{i}]": tensor for i, tensor in enumerate(value)}
    return tensors


def scalars(*values: float) -> Tensor:
    """One number per token, ``(1, T, 1)``, for what is worked by hand."""
    return torch.tensor(values, dtype=torch.float64).reshape(1, -1, 1)


def cut(inputs: dict[str, Any], start: int, stop: int) -> dict[str, Any]:
    """The tokens ``start <= t < stop``, everything else unchanged."""
    return {
        name: value[:, start:stop] if name in TOKEN_NAMES and value is not None else value
        for name, value in inputs.items()
    }


def converted(inputs: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """New leaves of the same numbers in another precision."""

    def convert(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(convert(x) for x in value)
        if isinstance(value, Tensor) and value.is_floating_point():
            return value.detach().to(dtype).requires_grad_()
        return value

    return {name: convert(value) for name, value in inputs.items()}


def results(y: Tensor, state: NeuralMemoryState, inputs: dict[str, Any]) -> dict[str, Tensor]:
    """Outputs, final state and the gradient of a fixed random functional of all of them."""
    named = {"y": y}
    for part in ("anchor", "weights", "momentum"):
        named |= {f"{part}[{i}]": tensor for i, tensor in enumerate(getattr(state, part))}
    generator = torch.Generator().manual_seed(1)
    objective = torch.stack(
        [
            (x * torch.randn(x.shape, generator=generator, dtype=torch.float64)).sum()
            for x in named.values()
        ]
    ).sum()
    leaves = flat(inputs)
    gradients = torch.autograd.grad(objective, list(leaves.values()), materialize_grads=True)
    named |= {f"grad {name}": g for name, g in zip(leaves, gradients, strict=True)}
    return named


def run(inputs: dict[str, Any], implementation: str, **options: Any) -> dict[str, Tensor]:
    """``results`` of one uncut call, and what it traced if ``trace`` is a list."""
    y, state = neural_memory(**inputs, implementation=implementation, **options)
    return results(y, state, inputs) | traced(options.get("trace"))


def traced(trace: list[MemoryTrace] | None) -> dict[str, Tensor]:
    """What several calls of one stream traced, joined."""
    if not trace:
        return {}
    pieces = zip(*trace, strict=True)
    return {
        f"trace {name}": torch.cat(each, dim=1)
        for name, each in zip(MemoryTrace._fields, pieces, strict=True)
    }


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Every named tensor agrees to ``tolerance``, relative to its own largest entry (or 1)."""
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert actual[name].shape == value.shape, name
        scale = max(1.0, value.detach().abs().max().item())
        error = (actual[name] - value).detach().abs().max().item() / scale
        assert error <= tolerance, f"{name}: relative error {error:.2e} > {tolerance:.0e}"
