"""Every option of the operation, in every combination: the chunked form is the reference.

Then what each option promises, against things outside both: Huber, reads, traces. For masks see
``test_ops_write_mask.py``.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_inputs import (
    MASKS,
    assert_same,
    converted,
    cut,
    flat,
    random_inputs,
    random_mask,
    results,
    run,
    scalars,
    traced,
)
from torch import Tensor
from torch.nn.functional import huber_loss

from titans_core.ops import MemoryTrace, neural_memory
from titans_core.ops.memory_mlp import MemoryForm, apply_memory

BOTH = pytest.mark.parametrize("implementation", ["reference", "chunked"])
# Of errors of order one, this clips about half of the channels.
HUBER = 0.7


@st.composite
def problems(draw: st.DrawFn, depths: tuple[int, int]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs and options: any combination that a configuration allows."""
    chunk_size = draw(st.sampled_from([1, 2, 3, 4, 7, 8, 16, 33, 64]), label="chunk_size")
    time = draw(st.integers(1, 40), label="time")
    norm = draw(st.booleans(), label="norm")
    seed = draw(st.integers(0, 1000), label="seed")
    inputs = random_inputs(
        time,
        depth=draw(st.integers(*depths), label="depth"),
        norm=norm,
        momentum=draw(st.booleans(), label="momentum"),
        forgetting=draw(st.booleans(), label="forgetting"),
        batch=draw(st.integers(1, 3), label="batch"),
        heads=draw(st.integers(1, 2), label="heads"),
        dim=draw(st.sampled_from([4, 5]), label="dim"),
        hidden=6,
        seed=seed,
    )
    mask = draw(st.sampled_from(MASKS), label="mask")
    inputs["write_mask"] = random_mask(mask, len(inputs["q"]), time, chunk_size, seed)
    options = {
        "chunk_size": chunk_size,
        "residual": draw(st.booleans(), label="residual"),
        "activation": draw(st.sampled_from(["silu", "gelu"]), label="activation"),
        "huber_delta": draw(st.sampled_from([None, HUBER]), label="huber_delta"),
        "forget_toward": draw(st.sampled_from(["zero", "initial"]), label="forget_toward"),
        "read": draw(st.sampled_from(["inclusive", "chunk_start"]), label="read"),
    }
    return inputs, options


def streamed(
    inputs: dict[str, Any], cuts: list[int], implementation: str, **options: Any
) -> dict[str, Tensor]:
    """``run`` in pieces that hand on the state."""
    time = inputs["q"].shape[1]
    trace: list[MemoryTrace] = []
    pieces, state = [], None
    for start, stop in zip([0, *cuts], [*cuts, time], strict=True):
        piece = cut(inputs, start, stop)
        y, state = neural_memory(
            **piece, state=state, trace=trace, implementation=implementation, **options
        )
        assert state.offset == stop % options["chunk_size"]
        pieces.append(y)
    assert state is not None
    return results(torch.cat(pieces, dim=1), state, inputs) | traced(trace)


@pytest.mark.parametrize("depths", [(1, 1), (2, 2), (3, 4)])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_combination_is_the_reference_however_the_stream_is_cut(
    depths: tuple[int, int], data: st.DataObject
) -> None:
    inputs, options = data.draw(problems(depths))
    time = inputs["q"].shape[1]
    cuts = sorted(data.draw(st.lists(st.integers(0, time), max_size=3), label="cuts"))
    expected = run(inputs, "reference", trace=[], **options)
    assert_same(run(inputs, "chunked", trace=[], **options), expected, 1e-10)
    assert_same(streamed(inputs, cuts, "chunked", **options), expected, 1e-10)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_cut_of_the_reference_equals_no_cut(data: st.DataObject) -> None:
    inputs, options = data.draw(problems((1, 4)))
    time = inputs["q"].shape[1]
    cuts = sorted(data.draw(st.lists(st.integers(0, time), max_size=3), label="cuts"))
    expected = run(inputs, "reference", trace=[], **options)
    assert_same(streamed(inputs, cuts, "reference", **options), expected, 1e-12)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("read", ["inclusive", "chunk_start"])
@pytest.mark.parametrize("momentum", [True, False])
@pytest.mark.parametrize("mask", ["none", "random", "whole chunks"])
@pytest.mark.parametrize("huber_delta", [None, HUBER])
@pytest.mark.parametrize("chunk_size", [1, 8, 64])
def test_nothing_uninitialised_is_read(
    read: str, momentum: bool, mask: str, huber_delta: float | None, chunk_size: int
) -> None:
    inputs = random_inputs(41, depth=2, norm=True, momentum=momentum)
    inputs["write_mask"] = random_mask(mask, 2, 41, chunk_size)
    options: dict[str, Any] = {
        "chunk_size": chunk_size,
        "residual": True,
        "huber_delta": huber_delta,
        "read": read,
        "forget_toward": "initial",
    }
    actual = streamed(inputs, [11, 13, 37], "chunked", **options)
    assert_same(actual, run(inputs, "reference", trace=[], **options), 1e-10)


def test_the_huber_delta_of_these_tests_clips_some_channels_and_not_others() -> None:
    inputs = random_inputs(20, depth=2, norm=True, dim=5, hidden=6)
    weights = tuple(w[None] for w in inputs["initial_weights"])
    answers = apply_memory(weights, inputs["k"].transpose(1, 2), MemoryForm(norm=inputs["norm"]))
    clipped = (answers - inputs["v"].transpose(1, 2)).abs() > HUBER
    assert 0.2 < clipped.double().mean() < 0.8


GRADCHECKS: list[dict[str, Any]] = [
    {"depth": 1, "norm": False, "huber_delta": HUBER, "mask": True},
    {"depth": 2, "norm": True, "huber_delta": HUBER, "mask": True, "forget_toward": "initial"},
    {"depth": 3, "norm": True, "momentum": False, "activation": "gelu", "mask": True},
    {"depth": 2, "norm": True, "momentum": False, "forgetting": False, "huber_delta": HUBER},
    {"depth": 2, "norm": True, "read": "chunk_start", "mask": True, "forget_toward": "initial"},
    {"depth": 1, "norm": True, "read": "chunk_start", "momentum": False, "huber_delta": HUBER},
]


@pytest.mark.parametrize("case", range(len(GRADCHECKS)))
def test_gradcheck(case: int) -> None:
    shape = {"batch": 1, "heads": 1, "dim": 3, "hidden": 3}
    kind = ("depth", "norm", "momentum", "forgetting")
    chosen = dict(GRADCHECKS[case])
    mask = torch.tensor([[True, False, True, True, False]]) if chosen.pop("mask", False) else None
    inputs = random_inputs(5, **{key: chosen.pop(key) for key in kind if key in chosen}, **shape)
    leaves = flat(inputs)

    def objective(*tensors: Tensor) -> tuple[Tensor, ...]:
        named = dict(zip(leaves, tensors, strict=True))
        rebuilt: dict[str, Any] = {
            name: tuple(named[f"{name}[{i}]"] for i in range(len(value)))
            if isinstance(value, tuple)
            else named.get(name)
            for name, value in inputs.items()
        }
        y, state = neural_memory(
            **rebuilt,
            **chosen,
            write_mask=mask,
            chunk_size=3,
            residual=True,
            implementation="chunked",
        )
        return (y, *state.anchor, *state.weights, *state.momentum)

    assert torch.autograd.gradcheck(objective, tuple(leaves.values()))


# Masks


@BOTH
@pytest.mark.parametrize(
    ("options", "outputs", "weight", "surprises"),
    [
        # The same two tokens without momentum and forgetting, errors beyond 1 clipped:
        # M_0 = 1, keys 1, 2, values 3, 1; theta = .1, .05; queries 1, -1.
        # t=1: error -2 -> -1, u = 2 (-1) 1 = -2     M = 1 + .2 = 1.2
        # t=2, anchor 1.2: error 1.4 -> 1, u = 2*1*2 = 4      M = 1.2 - .2 = 1
        ({"chunk_size": 1}, (1.2, -1.0), 1.0, (2, 4)),
        # t=2, anchor 1, delta 1/2: error 1 -> .5, u = 2*.5*2 = 2; t=1: u = -1, M = 1.1.
        ({"chunk_size": 2, "huber_delta": 0.5}, (1.1, -1.0), 1.0, (1, 2)),
        # delta 3 clips neither: u = -4, 5.6; M = 1.4, then (anchor 1.4) error 1.8, u = 7.2.
        ({"chunk_size": 1, "huber_delta": 3.0}, (1.4, -1.04), 1.04, (4, 7.2)),
    ],
)
def test_two_clipped_tokens_without_gates_worked_by_hand(
    implementation: str,
    options: dict[str, Any],
    outputs: tuple[float, float],
    weight: float,
    surprises: tuple[float, float],
) -> None:
    trace: list[MemoryTrace] = []
    y, state = neural_memory(
        scalars(1, -1)[..., None],
        scalars(1, 2)[..., None],
        scalars(3, 1)[..., None],
        scalars(0.1, 0.05),
        None,
        None,
        [torch.ones(1, 1, 1, dtype=torch.float64)],
        trace=trace,
        implementation=implementation,
        **{"huber_delta": 1.0, **options},
    )
    torch.testing.assert_close(y, scalars(*outputs)[..., None])
    torch.testing.assert_close(state.weights[0].item(), weight)
    torch.testing.assert_close(trace[0].surprise, scalars(*surprises))
    assert state.momentum == ()


# Switches


@BOTH
@pytest.mark.parametrize("read", ["inclusive", "chunk_start"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("gate", ["momentum_decay", "forget_gate"])
@pytest.mark.parametrize("forget_toward", ["zero", "initial"])
def test_a_gate_left_out_is_a_gate_of_zeros(
    implementation: str, read: str, masked: bool, gate: str, forget_toward: str
) -> None:
    inputs = random_inputs(20, depth=2, norm=True)
    inputs["write_mask"] = random_mask("random", 2, 20, 6) if masked else None
    zeros = {**inputs, gate: torch.zeros_like(inputs[gate]).requires_grad_()}
    without = {**inputs, gate: None}
    options: dict[str, Any] = {
        "chunk_size": 6,
        "residual": True,
        "read": read,
        "forget_toward": forget_toward,
        "huber_delta": HUBER,
    }

    def outcome(given: dict[str, Any]) -> dict[str, Tensor]:
        y, state = neural_memory(**given, implementation=implementation, **options)
        return results(y, state._replace(momentum=()), {**given, gate: None})

    assert_same(outcome(without), outcome(zeros), 1e-12)


@BOTH
def test_a_memory_without_momentum_carries_none(implementation: str) -> None:
    inputs = random_inputs(9, depth=2, norm=True, momentum=False)
    options: dict[str, Any] = {"chunk_size": 4, "implementation": implementation}
    _, state = neural_memory(**inputs, **options)
    assert state.momentum == ()
    _, state = neural_memory(**inputs, state=state, **options)
    assert state.momentum == ()


# Huber


@BOTH
@pytest.mark.parametrize("depth", [1, 3])
def test_huber_with_a_huge_delta_is_the_squared_error(implementation: str, depth: int) -> None:
    inputs = random_inputs(20, depth=depth, norm=depth > 1)
    options: dict[str, Any] = {"chunk_size": 6, "residual": depth > 1}
    squared = run(inputs, implementation, trace=[], **options)
    for name, value in run(inputs, implementation, trace=[], huber_delta=1e6, **options).items():
        assert torch.equal(value, squared[name]), name


@BOTH
@pytest.mark.parametrize("outlier", [1e6, -1e30])
def test_huber_bounds_what_an_outlier_writes(implementation: str, outlier: float) -> None:
    # A matrix, every channel of one token far off: u = k^T (2 delta signs), |k| = 1.
    inputs = random_inputs(3, depth=1, norm=False, momentum=False, forgetting=False)
    inputs["v"] = inputs["v"].detach().clone()
    inputs["v"][:, 1] = outlier
    trace: list[MemoryTrace] = []

    def moved(delta: float | None) -> Tensor:
        options: dict[str, Any] = {"chunk_size": 1, "implementation": implementation}
        options["huber_delta"] = delta
        _, before = neural_memory(**cut(inputs, 0, 1), **options)
        trace.clear()
        _, after = neural_memory(**cut(inputs, 1, 2), state=before, trace=trace, **options)
        return (after.weights[0] - before.weights[0]).norm(dim=(-2, -1))

    most = 2 * HUBER * 6**0.5
    torch.testing.assert_close(moved(HUBER), inputs["memory_lr"][:, 1] * most)
    torch.testing.assert_close(trace[0].surprise, torch.full((2, 1, 2), most, dtype=torch.float64))
    assert (moved(None) > abs(outlier) * inputs["memory_lr"][:, 1]).all()


# Reads and traces


def chunk_by_chunk(inputs: dict[str, Any], chunk_size: int, **options: Any) -> list[Any]:
    """The weights at the start of each chunk, from the reference."""
    time, batch = inputs["q"].shape[1], len(inputs["q"])
    starts = [tuple(w.expand(batch, *w.shape) for w in inputs["initial_weights"])]
    state = None
    for begin in range(0, time - chunk_size, chunk_size):
        _, state = neural_memory(
            **cut(inputs, begin, begin + chunk_size),
            state=state,
            chunk_size=chunk_size,
            implementation="reference",
            **options,
        )
        starts.append(state.weights)
    return starts


@BOTH
@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("chunk_size", [1, 6, 64])
@pytest.mark.parametrize("masked", [False, True])
def test_a_read_at_the_chunks_start_is_the_memory_applied_to_the_query(
    implementation: str, depth: int, chunk_size: int, masked: bool
) -> None:
    inputs = random_inputs(20, depth=depth, norm=True)
    inputs["write_mask"] = random_mask("random", 2, 20, chunk_size) if masked else None
    form = MemoryForm("gelu", True, inputs["norm"])
    options: dict[str, Any] = {"activation": "gelu", "residual": True}
    y, state = neural_memory(
        **inputs,
        chunk_size=chunk_size,
        read="chunk_start",
        implementation=implementation,
        **options,
    )
    for i, weights in enumerate(chunk_by_chunk(inputs, chunk_size, **options)):
        chunk = slice(i * chunk_size, (i + 1) * chunk_size)
        expected = apply_memory(weights, inputs["q"][:, chunk].transpose(1, 2), form)
        torch.testing.assert_close(y[:, chunk], expected.transpose(1, 2), rtol=0, atol=1e-12)
    # What is read does not change what is written.
    _, same = neural_memory(
        **inputs, chunk_size=chunk_size, implementation=implementation, **options
    )
    for part in ("anchor", "weights", "momentum"):
        for a, b in zip(getattr(state, part), getattr(same, part), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-14)


@BOTH
@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("huber_delta", [None, HUBER])
@pytest.mark.parametrize("masked", [False, True])
def test_a_trace_holds_the_norms_of_the_gradient_and_of_the_weights(
    implementation: str, depth: int, huber_delta: float | None, masked: bool
) -> None:
    time, chunk_size = 11, 4
    inputs = random_inputs(time, depth=depth, norm=depth > 1)
    inputs["write_mask"] = random_mask("random", 2, time, chunk_size) if masked else None
    form = MemoryForm("silu", True, inputs["norm"])
    options: dict[str, Any] = {"residual": True, "huber_delta": huber_delta}
    trace: list[MemoryTrace] = []
    neural_memory(
        **inputs, chunk_size=chunk_size, trace=trace, implementation=implementation, **options
    )
    assert len(trace) == 1
    assert not trace[0].surprise.requires_grad
    assert not trace[0].memory_norm.requires_grad
    starts = chunk_by_chunk(inputs, chunk_size, **options)
    for t in range(time):
        for b in range(2):
            for h in range(2):
                anchor = [w[b, h].detach().requires_grad_() for w in starts[t // chunk_size]]
                whole = tuple(w[None, None] for w in anchor)
                gain_and_bias = (
                    None if form.norm is None else tuple(x[h : h + 1] for x in form.norm)
                )
                answer = apply_memory(
                    whole, inputs["k"][b, t, h][None, None, None], form._replace(norm=gain_and_bias)
                ).flatten()
                value = inputs["v"][b, t, h]
                if huber_delta is None:
                    loss = (answer - value).square().sum()
                else:
                    loss = 2 * huber_loss(answer, value, reduction="sum", delta=huber_delta)
                surprise = torch.autograd.grad(loss, anchor)
                expected = torch.cat([u.flatten() for u in surprise]).norm()
                if masked and not inputs["write_mask"][b, t]:
                    expected = torch.zeros_like(expected)
                torch.testing.assert_close(trace[0].surprise[b, t, h], expected)
                norm = torch.cat([w.detach().flatten() for w in anchor]).norm()
                torch.testing.assert_close(trace[0].memory_norm[b, t, h], norm)


@BOTH
def test_a_trace_changes_nothing_else(implementation: str) -> None:
    inputs = random_inputs(20, depth=2, norm=True)
    inputs["write_mask"] = random_mask("random", 2, 20, 6)
    options: dict[str, Any] = {"chunk_size": 6, "residual": True}
    untraced = run(inputs, implementation, **options)
    watched = run(inputs, implementation, trace=[], **options)
    assert set(watched) - set(untraced) == {"trace surprise", "trace memory_norm"}
    for name, value in untraced.items():
        assert torch.equal(watched[name], value), name


# Precision


@pytest.mark.parametrize("read", ["inclusive", "chunk_start"])
@pytest.mark.parametrize("momentum", [True, False])
@pytest.mark.parametrize("forget_toward", ["zero", "initial"])
def test_float32_stays_close_to_the_float64_reference(
    read: str, momentum: bool, forget_toward: str
) -> None:
    exact = random_inputs(100, depth=2, norm=True, momentum=momentum)
    exact["write_mask"] = random_mask("random", 2, 100, 16)
    single = converted(exact, torch.float32)
    options: dict[str, Any] = {
        "chunk_size": 16,
        "residual": True,
        "huber_delta": HUBER,
        "read": read,
        "forget_toward": forget_toward,
    }
    expected = run(exact, "reference", trace=[], **options)
    assert_same(run(single, "chunked", trace=[], **options), expected, 1e-4)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("every", [1, 5])
@pytest.mark.parametrize("others", ["mild", "strong"])
@pytest.mark.parametrize(
    ("gate", "value"),
    [("momentum_decay", 0.0), ("momentum_decay", 1.0), ("forget_gate", 0.0), ("forget_gate", 1.0)],
)
def test_float32_keeps_the_gradient_of_a_gate_exactly_at_its_limit(
    gate: str, value: float, others: str, every: int, masked: bool
) -> None:
    exact = random_inputs(21, depth=2, norm=True)
    exact["write_mask"] = random_mask("random", 2, 21, 8) if masked else None
    with torch.no_grad():
        if others == "strong":  # the decays beside it are small, too
            exact[gate].fill_(0.1 if gate == "momentum_decay" else 0.9)
        exact[gate][:, ::every] = value
    options: dict[str, Any] = {"chunk_size": 8, "residual": True, "forget_toward": "initial"}
    expected = run(exact, "reference", **options)
    actual = run(converted(exact, torch.float32), "chunked", **options)
    assert expected[f"grad {gate}"].abs().max() > 0.1
    assert_same(actual, expected, 1e-5)


# Misuse


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"write_mask": torch.ones(2, 4, dtype=torch.bool)},
            r"write_mask must have shape \(2, 5\).*got \(2, 4\)",
        ),
        (
            {"write_mask": torch.ones(2, 5, 2, dtype=torch.bool)},
            r"write_mask must have shape \(2, 5\).*got \(2, 5, 2\)",
        ),
        ({"write_mask": torch.ones(2, 5)}, r"write_mask must be a bool tensor; got torch\.float32"),
        (
            dict.fromkeys("qkv", torch.ones(2, 5, 2, 4, dtype=torch.int64)),
            r"q must hold floating-point numbers; got torch\.int64",
        ),
        ({"huber_delta": 0.0}, r"huber_delta must be None or a float > 0; got 0\.0"),
        ({"huber_delta": -1}, "huber_delta must be None or a float > 0; got -1"),
        ({"huber_delta": float("nan")}, "huber_delta must be None or a float > 0; got nan"),
        ({"read": "after"}, r"read must be one of \['inclusive', 'chunk_start'\]; got 'after'"),
        ({"momentum_decay": torch.zeros(2, 5)}, r"momentum_decay must have shape \(2, 5, 2\)"),
    ],
)
@BOTH
def test_misuse_of_an_option_names_the_offender(
    implementation: str, changes: dict[str, Any], message: str
) -> None:
    inputs = random_inputs(5, depth=2, norm=True)
    options = {**inputs, "chunk_size": 4, "implementation": implementation, **changes}
    with pytest.raises(ValueError, match=message):
        neural_memory(**options)


@pytest.mark.parametrize("momentum", [True, False])
def test_a_state_with_momentum_does_not_go_on_without_it_nor_the_other_way(momentum: bool) -> None:
    _, state = neural_memory(
        **random_inputs(5, depth=2, norm=True, momentum=momentum), chunk_size=4
    )
    other = random_inputs(5, depth=2, norm=True, momentum=not momentum)
    with pytest.raises(ValueError, match=r"state\.momentum must hold tensors of shapes .*; got"):
        neural_memory(**other, state=state, chunk_size=4)
