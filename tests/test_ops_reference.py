"""The reference against things outside it: a hand-worked example, gradcheck, closed forms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from memory_inputs import flat, random_inputs, scalars

from titans_core.ops import neural_memory
from titans_core.ops.memory_mlp import MemoryForm, apply_memory

BOTH = pytest.mark.parametrize("implementation", ["reference", "chunked"])


@BOTH
@pytest.mark.parametrize(
    ("chunk_size", "outputs", "weight", "momentum"),
    [
        # M_0 = 1, keys 1 and 2, values 3 and 1, queries 1 and -1;
        # theta = .1, .05; eta = .5, .4; alpha = .2, .5.
        # t=1: u = 2 (1*1 - 3) 1 = -4     S = .5*0 - .1*(-4) = .4    M = .8*1 + .4 = 1.2   y = 1.2
        # t=2, anchor M_1 = 1.2: u = 2 (2*1.2 - 1) 2 = 5.6
        #      S = .4*.4 - .05*5.6 = -.12     M = .5*1.2 - .12 = .48      y = -.48
        (1, (1.2, -0.48), 0.48, -0.12),
        # t=2, anchor M_0 = 1: u = 2 (2 - 1) 2 = 4
        #      S = .16 - .2 = -.04            M = .6 - .04 = .56          y = -.56
        (2, (1.2, -0.56), 0.56, -0.04),
    ],
)
def test_two_tokens_worked_by_hand(
    implementation: str,
    chunk_size: int,
    outputs: tuple[float, float],
    weight: float,
    momentum: float,
) -> None:
    y, state = neural_memory(
        scalars(1, -1)[..., None],
        scalars(1, 2)[..., None],
        scalars(3, 1)[..., None],
        scalars(0.1, 0.05),
        scalars(0.5, 0.4),
        scalars(0.2, 0.5),
        [torch.ones(1, 1, 1, dtype=torch.float64)],
        chunk_size=chunk_size,
        implementation=implementation,
    )
    torch.testing.assert_close(y, scalars(*outputs)[..., None])
    torch.testing.assert_close(state.weights[0].item(), weight)
    torch.testing.assert_close(state.momentum[0].item(), momentum)


@BOTH
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("norm", [False, True])
def test_gradcheck(implementation: str, depth: int, norm: bool) -> None:
    inputs = random_inputs(4, depth=depth, norm=norm, batch=1, heads=1, dim=3, hidden=3)
    leaves = flat(inputs)

    def objective(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        named = dict(zip(leaves, tensors, strict=True))
        rebuilt: dict[str, Any] = {
            name: tuple(named[f"{name}[{i}]"] for i in range(len(value)))
            if isinstance(value, tuple)
            else named.get(name)
            for name, value in inputs.items()
        }
        y, state = neural_memory(
            **rebuilt, chunk_size=3, residual=norm, implementation=implementation
        )
        return (y, *state.weights, *state.momentum)

    assert torch.autograd.gradcheck(objective, tuple(leaves.values()))


@BOTH
def test_without_a_learning_rate_the_weights_only_decay(implementation: str) -> None:
    inputs = random_inputs(10, depth=2, norm=True)
    inputs["memory_lr"] = torch.zeros_like(inputs["memory_lr"])
    y, state = neural_memory(**inputs, chunk_size=4, implementation=implementation)
    left = (1 - inputs["forget_gate"]).cumprod(1)  # (B, T, H)
    for t in range(10):
        weights = [left[:, t, :, None, None] * w for w in inputs["initial_weights"]]
        query, form = inputs["q"][:, t, :, None], MemoryForm(norm=inputs["norm"])
        read = apply_memory(tuple(weights), query, form)
        torch.testing.assert_close(y[:, t], read.squeeze(-2))
    for now, start in zip(state.weights, inputs["initial_weights"], strict=True):
        torch.testing.assert_close(now, left[:, -1, :, None, None] * start)
    assert all((s == 0).all() for s in state.momentum)


@BOTH
def test_with_full_forgetting_the_weights_equal_the_momentum(implementation: str) -> None:
    inputs = random_inputs(10, depth=2, norm=False)
    inputs["forget_gate"] = torch.ones_like(inputs["forget_gate"])
    _, state = neural_memory(**inputs, chunk_size=4, implementation=implementation)
    for w, s in zip(state.weights, state.momentum, strict=True):
        assert s.abs().max() > 1e-3
        torch.testing.assert_close(w, s)


@BOTH
def test_full_forgetting_toward_the_start_leaves_the_start_and_the_momentum(
    implementation: str,
) -> None:
    inputs = random_inputs(10, depth=2, norm=False)
    inputs["forget_gate"] = torch.ones_like(inputs["forget_gate"])
    options: dict[str, Any] = {"chunk_size": 4, "forget_toward": "initial"}
    _, state = neural_memory(**inputs, **options, implementation=implementation)
    parts = zip(state.weights, state.momentum, inputs["initial_weights"], strict=True)
    for w, s, start in parts:
        torch.testing.assert_close(w, start + s)


@BOTH
def test_without_momentum_each_token_is_a_step_of_gradient_descent(implementation: str) -> None:
    inputs = random_inputs(6, depth=1, norm=False)
    inputs["momentum_decay"] = torch.zeros_like(inputs["momentum_decay"])
    _, state = neural_memory(**inputs, chunk_size=1, implementation=implementation)
    weights = inputs["initial_weights"][0].expand(2, -1, -1, -1)
    for t in range(6):
        k, v = inputs["k"][:, t, :, None], inputs["v"][:, t, :, None]
        step = 2 * k.mT @ (k @ weights - v)
        alpha, theta = (inputs[g][:, t, :, None, None] for g in ("forget_gate", "memory_lr"))
        weights = (1 - alpha) * weights - theta * step
    torch.testing.assert_close(state.weights[0], weights)


@BOTH
def test_one_chunk_of_a_linear_memory_has_a_closed_form(implementation: str) -> None:
    inputs = random_inputs(12, depth=1, norm=False)
    q, k, v = (inputs[name].transpose(1, 2) for name in ("q", "k", "v"))
    gate = torch.full((2, 12, 2), 0.01, dtype=torch.float64)
    inputs |= {"memory_lr": gate, "momentum_decay": gate * 0, "forget_gate": gate * 0}
    y, _ = neural_memory(**inputs, chunk_size=12, implementation=implementation)
    # No momentum, no forgetting: M_0 plus plain causal linear attention over the errors at M_0.
    start = inputs["initial_weights"][0]
    error = 2 * (k @ start - v)
    expected = q @ start - 0.01 * (q @ k.mT).tril() @ error
    torch.testing.assert_close(y, expected.transpose(1, 2))


@BOTH
def test_no_token_reads_the_future(implementation: str) -> None:
    inputs = random_inputs(20, depth=2, norm=True)
    options: dict[str, Any] = {"chunk_size": 8, "implementation": implementation}
    before, _ = neural_memory(**inputs, **options)
    for name in ("q", "k", "v", "memory_lr", "momentum_decay", "forget_gate"):
        changed = inputs[name].detach().clone()
        changed[:, 11] = changed[:, 11] * 0.5 + 0.01
        after, _ = neural_memory(**{**inputs, name: changed}, **options)
        assert torch.equal(after[:, :11], before[:, :11]), name
        assert not torch.equal(after[:, 11:], before[:, 11:]), name


@BOTH
def test_batch_elements_and_heads_do_not_see_each_other(implementation: str) -> None:
    inputs = random_inputs(9, depth=2, norm=True)
    options: dict[str, Any] = {"chunk_size": 4, "implementation": implementation}
    before, _ = neural_memory(**inputs, **options)
    changed = inputs["v"].detach().clone()
    changed[0, :, 1] += 1
    after, _ = neural_memory(**{**inputs, "v": changed}, **options)
    assert torch.equal(after[1], before[1])
    assert torch.equal(after[0, :, 0], before[0, :, 0])
    assert not torch.equal(after[0, :, 1], before[0, :, 1])


def misuse(**changes: Any) -> None:
    inputs = random_inputs(5, depth=2, norm=True)
    neural_memory(**{**inputs, "chunk_size": 4, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"q": torch.zeros(2, 5, 8)}, r"q must have shape \(B, T, H, D\); got \(2, 5, 8\)"),
        ({"k": torch.zeros(2, 4, 2, 6)}, r"k must have shape \(2, 5, 2, 6\).*got \(2, 4, 2, 6\)"),
        ({"forget_gate": torch.zeros(2, 5)}, r"forget_gate must have shape \(2, 5, 2\)"),
        ({"chunk_size": 0}, "chunk_size must be an int >= 1; got 0"),
        ({"chunk_size": True}, "chunk_size must be an int >= 1; got True"),
        ({"initial_weights": ()}, "at least one"),
        ({"initial_weights": (torch.zeros(2, 6, 3),)}, r"initial_weights\[0\] must have shape"),
        ({"norm": (torch.zeros(4), torch.zeros(4))}, r"norm gain must have shape \(2, 6\)"),
        ({"activation": "relu"}, r"activation must be one of \['gelu', 'silu'\]; got 'relu'"),
        (
            {"forget_toward": "one"},
            r"forget_toward must be one of \['zero', 'initial'\]; got 'one'",
        ),
        ({"implementation": "cuda"}, "implementation must be one of .* got 'cuda'"),
    ],
)
def test_misuse_names_the_offender(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        misuse(**changes)


def test_a_state_of_another_stream_is_refused() -> None:
    inputs = random_inputs(5, depth=2, norm=True)
    _, state = neural_memory(**inputs, chunk_size=8)
    with pytest.raises(ValueError, match=r"state\.offset must lie in .*4\); got 5"):
        misuse(state=state)
    other = random_inputs(5, depth=2, norm=True, batch=3)
    with pytest.raises(ValueError, match=r"state\.anchor must hold tensors of shapes"):
        neural_memory(**other, chunk_size=8, state=state)


@BOTH
def test_an_empty_piece_changes_nothing(implementation: str) -> None:
    inputs = random_inputs(0, depth=2, norm=True)
    y, state = neural_memory(**inputs, chunk_size=4, implementation=implementation)
    assert y.shape == (2, 0, 2, 6)
    assert state.offset == 0
