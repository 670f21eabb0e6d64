"""Long, strongly correlated streams stay finite and bounded, and so do gradients at the start.

Tokens here are nearly the same, again and again: the worst there is for a memory, whose every step
goes in the same direction. What is known not to be stable stands in ops/README.md, section 4.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from titans_core import (
    AttentionConfig,
    MemoryAsContext,
    MemoryAsGate,
    MemoryAsLayer,
    NeuralMemory,
    NeuralMemoryConfig,
    map_state,
)

LENGTH = 8192
DEPTHS = [1, 2, 3, 4]
CHUNKS = [1, 4, 16, 64, 256]
HEAD_DIM = 8

# Heads are memories of their own, so one layer holds a memory of every kind: the step gate fully
# open, momentum and forgetting shut, as at the start, and fully open; and all of them as at the
# start.
CARRY = {"no": -20.0, "usual": math.log(9.0), "all": 20.0}
FORGET = {"nothing": -20.0, "usual": -math.log(99.0), "everything": 20.0}
ADVERSARIAL = list(itertools.product(CARRY, FORGET))
USUAL = len(ADVERSARIAL)  # the last head


def layer_of_all_gates(**options: Any) -> NeuralMemory:
    heads = len(ADVERSARIAL) + 1
    memory = NeuralMemory(NeuralMemoryConfig(dim=heads * HEAD_DIM, num_heads=heads, **options))
    gates = [(20.0, CARRY[carry], FORGET[forget]) for carry, forget in ADVERSARIAL]
    gates.append((0.0, CARRY["usual"], FORGET["usual"]))
    with torch.no_grad():
        memory.gates.bias.copy_(torch.tensor(gates).T.flatten())
    return memory


def correlated(dim: int, time: int = LENGTH, batch: int = 1) -> Tensor:
    return torch.randn(1, 1, dim) + 0.05 * torch.randn(batch, time, dim)


def stream(memory: NeuralMemory, x: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs, and per head how large the weights ever got at the end of a sixteenth of the stream.

    The latter is relative to the layer of M_0 that it is the worst for.
    """
    outputs, sizes, state = [], [], None
    with torch.no_grad():
        for piece in x.chunk(16, dim=1):
            y, state = memory(piece, state)
            outputs.append(y)
            for now, start in zip(state.memory.weights, memory.initial_weights, strict=True):
                sizes.append(now.norm(dim=(-2, -1)) / start.norm(dim=(-2, -1)))
    return torch.cat(outputs, dim=1), torch.stack(sizes).nan_to_num(nan=torch.inf).amax((0, 1))


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("chunk_size", CHUNKS)
def test_correlated_tokens_stay_bounded_whatever_the_gates(depth: int, chunk_size: int) -> None:
    time = LENGTH // 4 if chunk_size == 1 and depth > 2 else LENGTH
    memory = layer_of_all_gates(depth=depth, chunk_size=chunk_size)
    y, sizes = stream(memory, correlated(memory.config.dim, time))
    assert y.isfinite().all()
    assert y.abs().max() < 10  # gated and normalised: of order one by construction
    assert sizes.max() < 5
    assert sizes[USUAL] < 2


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("chunk_size", CHUNKS)
def test_forgetting_toward_zero_stays_bounded_at_the_usual_gates(
    depth: int, chunk_size: int
) -> None:
    time = LENGTH // 4 if chunk_size == 1 and depth > 2 else LENGTH
    config = NeuralMemoryConfig(dim=16, depth=depth, chunk_size=chunk_size, forget_toward="zero")
    memory = NeuralMemory(config)
    y, sizes = stream(memory, correlated(16, time))
    assert y.isfinite().all()
    assert y.abs().max() < 10
    # A deep memory wanders (ops/README.md, section 4), but must not run away.
    assert sizes.max() < (2 if depth == 1 else 20)


@pytest.mark.parametrize("chunk_size", CHUNKS)
def test_a_matrix_that_forgets_toward_zero_stays_bounded_whatever_the_gates(
    chunk_size: int,
) -> None:
    memory = layer_of_all_gates(depth=1, chunk_size=chunk_size, forget_toward="zero")
    y, sizes = stream(memory, correlated(memory.config.dim))
    assert y.isfinite().all()
    assert sizes.max() < 5
    assert sizes[USUAL] < 2


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("chunk_size", [4, 16, 64, 256])
def test_gates_that_jump_from_token_to_token_leave_the_memory_bounded(
    depth: int, chunk_size: int
) -> None:
    memory = NeuralMemory(
        NeuralMemoryConfig(dim=16, num_heads=2, depth=depth, chunk_size=chunk_size)
    )
    with torch.no_grad():
        memory.gates.weight.mul_(50)
        spread = torch.cat(
            [gate for gate in memory._gates(torch.randn(1, 1000, 16)) if gate is not None], -1
        )
    assert (spread[..., 2:].amin((0, 1)) < 0.01).all()
    y, sizes = stream(memory, torch.randn(1, LENGTH, 16))
    assert y.isfinite().all()
    assert y.abs().max() < 10
    assert sizes.max() < 2


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize(("chunk_size", "time"), [(1, 512), (16, 2048), (256, 4096)])
def test_correlated_tokens_stay_bounded_under_autocast(
    depth: int, chunk_size: int, time: int
) -> None:
    memory = layer_of_all_gates(depth=depth, chunk_size=chunk_size)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, sizes = stream(memory, correlated(memory.config.dim, time))
    assert y.isfinite().all()
    assert y.abs().max() < 10
    assert sizes.max() < 5
    assert sizes[USUAL] < 2


def gradient_norm(depth: int, chunk_size: int, x: Tensor, **options: Any) -> float:
    """Of the mean square of the outputs, with respect to all parameters of a new layer."""
    config = NeuralMemoryConfig(dim=16, depth=depth, chunk_size=chunk_size, **options)
    memory = NeuralMemory(config)
    y, _ = memory(x)
    gradients = torch.autograd.grad(y.square().mean(), list(memory.parameters()))
    return torch.stack([g.norm() for g in gradients]).norm().item()


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize(
    ("chunk_size", "time"), [(1, 512), (4, 512), (16, 2048), (64, 2048), (256, 2048)]
)
def test_gradients_are_moderate_at_the_start(depth: int, chunk_size: int, time: int) -> None:
    norm = gradient_norm(depth, chunk_size, torch.randn(2, time, 16))
    assert 1e-3 < norm < 10


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize(("chunk_size", "time"), [(1, 512), (16, 2048), (64, 2048), (256, 2048)])
def test_gradients_of_correlated_tokens_do_not_overflow(
    depth: int, chunk_size: int, time: int
) -> None:
    norm = gradient_norm(depth, chunk_size, correlated(16, time, batch=2))
    assert math.isfinite(norm)
    # Deeper ones may be large: through nearly equal tokens their gradients grow with the length
    # (ops/README.md, section 4).
    assert norm > 1e-3
    if depth == 1:
        assert norm < 10


def test_gradients_through_a_matrix_that_forgets_toward_zero_are_moderate() -> None:
    norm = gradient_norm(1, 16, torch.randn(2, 2048, 16), forget_toward="zero")
    assert 1e-3 < norm < 10


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("chunk_size", [16, 256])
def test_a_deep_memory_without_its_norm_is_stable_at_the_usual_gates(
    depth: int, chunk_size: int
) -> None:
    memory = NeuralMemory(
        NeuralMemoryConfig(dim=16, depth=depth, chunk_size=chunk_size, norm=False)
    )
    y, sizes = stream(memory, correlated(16))
    assert y.isfinite().all()
    assert sizes.max() < 2


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")  # torch's RMSNorm
@pytest.mark.parametrize("kind", [MemoryAsContext, MemoryAsGate, MemoryAsLayer])
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("bfloat16", [False, True])
def test_blocks_stay_bounded_and_so_do_their_gradients(
    kind: type[nn.Module], depth: int, bfloat16: bool
) -> None:
    attention = AttentionConfig(num_heads=2, window=64)
    block = kind(NeuralMemoryConfig(dim=16, num_heads=2, depth=depth), attention)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
        x = correlated(16, 1024)
        y, _ = block(x)
        (y - x).float().square().mean().backward()
        total = torch.stack([p.grad.norm() for p in block.parameters() if p.grad is not None])
        assert 1e-3 < total.norm() < 100
        sizes: list[float] = []
        with torch.no_grad():
            y, state = block(correlated(16, LENGTH // 2))
        map_state(lambda leaf: sizes.append(leaf.float().norm().item()) or leaf, state)
    assert y.isfinite().all()
    assert (y.float().abs().max()) < 20
    assert max(sizes) < 1000


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("norm", [False, True])
def test_a_long_stream_forgets_rounding_at_the_usual_gates(depth: int, norm: bool) -> None:
    config = NeuralMemoryConfig(dim=16, depth=depth, norm=norm)
    memory = NeuralMemory(config).double()
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, 4000, 16, generator=generator, dtype=torch.float64)
    nudged = x.clone()
    nudged[:, 0] *= 1 + 1e-9
    with torch.no_grad():
        apart = (memory(x)[0] - memory(nudged)[0]).abs().amax(dim=(0, 2))
    assert apart[:100].max() > 1e-13
    assert apart[3000:].max() < 1e-13
