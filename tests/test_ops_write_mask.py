"""A masked token changes nothing: whatever it holds, wherever it stands, worked by hand, too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from memory_inputs import (
    assert_same,
    converted,
    cut,
    random_inputs,
    random_mask,
    results,
    run,
    scalars,
)

from titans_core.ops import NeuralMemoryState, neural_memory
from titans_core.ops.memory_mlp import MemoryForm, apply_memory

BOTH = pytest.mark.parametrize("implementation", ["reference", "chunked"])
# Of errors of order one, this clips about half of the channels.
HUBER = 0.7


@BOTH
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("read", ["inclusive", "chunk_start"])
@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), -1e30, 0.5])
def test_what_a_masked_token_holds_changes_no_value_and_no_gradient(
    implementation: str, norm: bool, read: str, garbage: float
) -> None:
    clean = random_inputs(20, depth=2, norm=norm)
    clean["write_mask"] = random_mask("random", 2, 20, 6)
    masked = ~clean["write_mask"]
    dirty = converted(clean, torch.float64)
    holders = ("k", "v", "memory_lr", "momentum_decay", "forget_gate")
    with torch.no_grad():
        for name in holders:
            dirty[name][masked] = garbage
    options: dict[str, Any] = {
        "chunk_size": 6,
        "read": read,
        "residual": True,
        "huber_delta": HUBER,
        "forget_toward": "initial",
    }
    expected = run(clean, implementation, trace=[], **options)
    actual = run(dirty, implementation, trace=[], **options)
    for name, value in expected.items():
        assert torch.equal(actual[name], value), name
        assert value.isfinite().all(), name
    for name in holders:
        assert expected[f"grad {name}"][masked].abs().max() == 0, name
        assert expected[f"grad {name}"][~masked].abs().max() > 0, name
    assert expected["trace surprise"][masked].max() == 0
    assert expected["trace surprise"][~masked].min() > 0


@BOTH
@pytest.mark.parametrize("momentum", [True, False])
@pytest.mark.parametrize("forget_toward", ["zero", "initial"])
@pytest.mark.parametrize("length", [1, 6, 7, 18])
def test_padding_on_the_right_leaves_weights_and_momentum_as_without_it(
    implementation: str, momentum: bool, forget_toward: str, length: int
) -> None:
    inputs = random_inputs(25, depth=2, norm=True, momentum=momentum)
    options: dict[str, Any] = {
        "chunk_size": 6,
        "residual": True,
        "forget_toward": forget_toward,
        "implementation": implementation,
    }
    mask = (torch.arange(25) < length).expand(2, -1)
    y, padded = neural_memory(**inputs, write_mask=mask, **options)
    y_alone, alone = neural_memory(**cut(inputs, 0, length), **options)
    torch.testing.assert_close(y[:, :length], y_alone, rtol=0, atol=1e-12)
    for part in ("weights", "momentum"):
        pairs = zip(getattr(padded, part), getattr(alone, part), strict=True)
        for a, b in pairs:
            torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@BOTH
@pytest.mark.parametrize("momentum", [True, False])
@pytest.mark.parametrize("forget_toward", ["zero", "initial"])
@pytest.mark.parametrize("chunk_size", [1, 4, 16])
def test_a_stream_that_is_all_masked_leaves_the_state_unchanged(
    implementation: str, momentum: bool, forget_toward: str, chunk_size: int
) -> None:
    inputs = random_inputs(14, depth=2, norm=True, momentum=momentum)
    options: dict[str, Any] = {
        "chunk_size": chunk_size,
        "forget_toward": forget_toward,
        "implementation": implementation,
    }
    _, before = neural_memory(**cut(inputs, 0, 5), **options)
    silent = torch.zeros(2, 9, dtype=torch.bool)
    y, after = neural_memory(**cut(inputs, 5, 14), write_mask=silent, state=before, **options)
    for part in ("weights", "momentum"):
        for a, b in zip(getattr(after, part), getattr(before, part), strict=True):
            assert torch.equal(a, b), part
    assert after.offset == 14 % chunk_size
    # Queries still read: what the memory holds, not what it would have learned.
    form = MemoryForm(norm=inputs["norm"])
    expected = apply_memory(before.weights, inputs["q"][:, 5:].transpose(1, 2), form)
    torch.testing.assert_close(y, expected.transpose(1, 2), rtol=0, atol=1e-12)


@BOTH
@pytest.mark.parametrize("momentum", [True, False])
@pytest.mark.parametrize("forget_toward", ["zero", "initial"])
def test_with_an_anchor_per_token_a_masked_token_might_as_well_be_missing(
    implementation: str, momentum: bool, forget_toward: str
) -> None:
    inputs = random_inputs(20, depth=2, norm=True, momentum=momentum)
    kept = torch.tensor([0, 1, 4, 5, 6, 11, 13, 18])
    mask = torch.zeros(2, 20, dtype=torch.bool)
    mask[:, kept] = True
    short = {
        name: value[:, kept]
        if name in ("q", "k", "v", "memory_lr", "momentum_decay", "forget_gate")
        and value is not None
        else value
        for name, value in inputs.items()
    }
    options: dict[str, Any] = {
        "chunk_size": 1,
        "residual": True,
        "forget_toward": forget_toward,
        "implementation": implementation,
    }
    y, state = neural_memory(**inputs, write_mask=mask, **options)
    y_short, state_short = neural_memory(**short, **options)
    actual, expected = results(y[:, kept], state, inputs), results(y_short, state_short, inputs)
    assert_same(actual, expected, 1e-12)


@BOTH
def test_a_masked_token_keeps_its_place_in_the_chunk(implementation: str) -> None:
    # Chunks of five places of which 5, 3, 0, 1 and 4 write, are chunks of as many tokens.
    inputs = random_inputs(25, depth=2, norm=True)
    options: dict[str, Any] = {"residual": True, "implementation": implementation}
    written = [[0, 1, 2, 3, 4], [5, 7, 8], [], [14], [20, 21, 22, 24]]
    mask = torch.zeros(2, 25, dtype=torch.bool)
    mask[:, [t for chunk in written for t in chunk]] = True
    y, state = neural_memory(**inputs, write_mask=mask, chunk_size=5, **options)
    alone: NeuralMemoryState | None = None
    for chunk in written:
        if not chunk:
            continue
        tokens = {
            name: value[:, chunk]
            if name in ("q", "k", "v", "memory_lr", "momentum_decay", "forget_gate")
            else value
            for name, value in inputs.items()
        }
        read, alone = neural_memory(**tokens, state=alone, chunk_size=5, **options)
        torch.testing.assert_close(y[:, chunk], read, rtol=0, atol=1e-12)
        alone = NeuralMemoryState(alone.weights, alone.weights, alone.momentum, 0)
    assert alone is not None
    for part in ("anchor", "weights", "momentum"):
        for a, b in zip(getattr(state, part), getattr(alone, part), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@BOTH
@pytest.mark.parametrize(
    ("mask", "chunk_size", "read", "outputs", "weight", "momentum"),
    [
        # M_0 = 1, keys 1, 9, 2, values 3, 9, 1, queries 1, 1, -1; theta = .1, 9, .05;
        # eta = .5, 9, .4; alpha = .2, 9, .5: the middle token is all nonsense, and masked.
        # t=1: u = 2 (1*1 - 3) 1 = -4     S = .5*0 - .1*(-4) = .4    M = .8*1 + .4 = 1.2    y = 1.2
        # t=2: masked                                                M = 1.2                y = 1.2
        # t=3, anchor 1.2: u = 2 (2*1.2 - 1) 2 = 5.6
        #      S = .4*.4 - .05*5.6 = -.12     M = .5*1.2 - .12 = .48    y = -.48
        ((1, 0, 1), 1, "inclusive", (1.2, 1.2, -0.48), 0.48, -0.12),
        # t=3, anchor M_0 = 1: u = 2 (2 - 1) 2 = 4
        #      S = .16 - .2 = -.04            M = .6 - .04 = .56        y = -.56
        ((1, 0, 1), 3, "inclusive", (1.2, 1.2, -0.56), 0.56, -0.04),
        # The same, read from the anchors 1, 1, 1 and (chunks of two) 1, 1, 1.2.
        ((1, 0, 1), 3, "chunk_start", (1, 1, -1), 0.56, -0.04),
        ((1, 0, 1), 2, "chunk_start", (1, 1, -1.2), 0.48, -0.12),
        # Only the first writes.
        ((1, 0, 0), 2, "inclusive", (1.2, 1.2, -1.2), 1.2, 0.4),
        # Only the last: u = 2 (2 - 1) 2 = 4, S = .4*0 - .05*4 = -.2, M = .5*1 - .2 = .3.
        ((0, 0, 1), 3, "inclusive", (1, 1, -0.3), 0.3, -0.2),
    ],
)
def test_two_tokens_and_a_masked_one_worked_by_hand(
    implementation: str,
    mask: tuple[int, ...],
    chunk_size: int,
    read: str,
    outputs: tuple[float, ...],
    weight: float,
    momentum: float,
) -> None:
    y, state = neural_memory(
        scalars(1, 1, -1)[..., None],
        scalars(1, 9, 2)[..., None],
        scalars(3, 9, 1)[..., None],
        scalars(0.1, 9, 0.05),
        scalars(0.5, 9, 0.4),
        scalars(0.2, 9, 0.5),
        [torch.ones(1, 1, 1, dtype=torch.float64)],
        chunk_size=chunk_size,
        write_mask=torch.tensor([mask]) == 1,
        read=read,
        implementation=implementation,
    )
    torch.testing.assert_close(y, scalars(*outputs)[..., None])
    torch.testing.assert_close(state.weights[0].item(), weight)
    torch.testing.assert_close(state.momentum[0].item(), momentum)
