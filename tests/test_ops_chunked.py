"""The chunked form is the reference: outputs, final state and every gradient, in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_inputs import assert_same, cut, random_inputs, results, run

from titans_core.ops import chunk_runs, neural_memory

LENGTHS = {
    chunk: sorted({1, max(chunk - 1, 1), chunk, chunk + 1, 63, 100}) for chunk in (1, 4, 16, 64)
}
CASES = [(chunk, time) for chunk, times in LENGTHS.items() for time in times]


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize(("chunk_size", "time"), CASES)
def test_chunked_equals_reference(
    depth: int, residual: bool, norm: bool, chunk_size: int, time: int
) -> None:
    inputs = random_inputs(time, depth=depth, norm=norm)
    options: dict[str, Any] = {"chunk_size": chunk_size, "residual": residual}
    assert_same(run(inputs, "chunked", **options), run(inputs, "reference", **options), 1e-10)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize(("chunk_size", "time"), [(1, 63), (4, 5), (16, 63), (64, 100)])
def test_chunked_equals_reference_when_forgetting_toward_the_start(
    depth: int, norm: bool, chunk_size: int, time: int
) -> None:
    inputs = random_inputs(time, depth=depth, norm=norm)
    options: dict[str, Any] = {"chunk_size": chunk_size, "forget_toward": "initial"}
    assert_same(run(inputs, "chunked", **options), run(inputs, "reference", **options), 1e-10)


@pytest.mark.parametrize("read", ["inclusive", "chunk_start"])
@pytest.mark.parametrize(
    ("chunk_size", "time"), [(70, 200), (127, 260), (128, 300), (192, 200), (300, 170)]
)
def test_chunks_that_are_walked_in_tiles_equal_the_reference(
    chunk_size: int, time: int, read: str
) -> None:
    inputs = random_inputs(time, depth=2, norm=True, batch=1)
    options: dict[str, Any] = {"chunk_size": chunk_size, "residual": True, "read": read}
    options["forget_toward"] = "initial"
    assert_same(run(inputs, "chunked", **options), run(inputs, "reference", **options), 1e-10)


@pytest.mark.parametrize("read", ["inclusive", "chunk_start"])
@pytest.mark.parametrize("batch", [1, 3])
def test_what_does_not_fit_is_recomputed_to_the_same_result(
    read: str, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = random_inputs(100, depth=2, norm=True, batch=batch)
    options: dict[str, Any] = {"chunk_size": 8, "residual": True, "read": read}
    kept = run(inputs, "chunked", **options)
    monkeypatch.setattr(chunk_runs, "KEPT_BYTES", 0)
    assert_same(run(inputs, "chunked", **options), kept, 1e-12)


def test_a_chunk_that_never_ends_costs_what_its_tokens_cost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inputs = random_inputs(6, depth=1, norm=False)
    expected, _ = neural_memory(**inputs, chunk_size=6)
    monkeypatch.setattr("titans_core.ops.chunked._tiles_per_chunk", None)  # not even asked
    y, _ = neural_memory(**inputs, chunk_size=2**62)
    torch.testing.assert_close(y, expected)


def test_a_second_derivative_is_refused_instead_of_wrong() -> None:
    inputs = random_inputs(6, depth=1, norm=False)
    y, _ = neural_memory(**inputs, chunk_size=4)
    with pytest.raises(NotImplementedError, match="can be differentiated once"):
        torch.autograd.grad(y.sum(), inputs["k"], create_graph=True)


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("forget_toward", ["zero", "initial"])
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"momentum_decay": None},
        {"forget_gate": None},
        {"read": "chunk_start"},
        {"huber_delta": 0.3, "activation": "gelu"},
        {"write_mask": torch.arange(14).reshape(2, 7) % 3 > 0},
    ],
)
def test_a_stream_of_single_tokens_equals_the_reference(
    depth: int, norm: bool, forget_toward: str, change: dict[str, Any]
) -> None:
    inputs = {**random_inputs(7, depth=depth, norm=norm), **change}
    options: dict[str, Any] = {"chunk_size": 3, "residual": True, "forget_toward": forget_toward}
    mask = inputs.pop("write_mask", None)
    traces: dict[str, list[Any]] = {"reference": [], "step": []}
    with torch.no_grad():
        whole, end = neural_memory(
            **inputs,
            **options,
            write_mask=mask,
            trace=traces["reference"],
            implementation="reference",
        )
        pieces, state = [], None
        for t in range(7):
            y, state = neural_memory(
                **cut(inputs, t, t + 1),
                **options,
                write_mask=None if mask is None else mask[:, t : t + 1],
                state=state,
                trace=traces["step"],
                implementation="step",
            )
            pieces.append(y)
    assert state is not None
    assert state.offset == end.offset
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=0, atol=1e-12)
    for now, expected in zip(state[:3], end[:3], strict=True):
        torch.testing.assert_close(now, expected, rtol=0, atol=1e-12)
    for i, expected in enumerate(traces["reference"][0]):
        streamed = torch.cat([trace[i] for trace in traces["step"]], dim=1)
        torch.testing.assert_close(streamed, expected, rtol=0, atol=1e-12)


def test_a_single_step_refuses_more_tokens_and_gradients() -> None:
    inputs = random_inputs(2, depth=1, norm=False)
    with pytest.raises(ValueError, match=r"takes one token, .* 2 tokens"), torch.no_grad():
        neural_memory(**inputs, chunk_size=4, implementation="step")
    with pytest.raises(ValueError, match="gradients on"):
        neural_memory(**cut(inputs, 0, 1), chunk_size=4, implementation="step")


@pytest.mark.parametrize("depth", [3, 4])
@pytest.mark.parametrize("activation", ["silu", "gelu"])
def test_chunked_equals_reference_for_deeper_memories_and_gelu(depth: int, activation: str) -> None:
    inputs = random_inputs(37, depth=depth, norm=True)
    options: dict[str, Any] = {"chunk_size": 8, "residual": True, "activation": activation}
    assert_same(run(inputs, "chunked", **options), run(inputs, "reference", **options), 1e-10)


@pytest.mark.parametrize("implementation", ["reference", "chunked"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_cut_of_a_stream_equals_no_cut(implementation: str, data: st.DataObject) -> None:
    time = data.draw(st.integers(1, 40), label="time")
    chunk_size = data.draw(st.sampled_from([1, 4, 7, 16, 64]), label="chunk_size")
    depth = data.draw(st.integers(1, 2), label="depth")
    cuts = sorted(data.draw(st.lists(st.integers(0, time), max_size=4), label="cuts"))
    inputs = random_inputs(time, depth=depth, norm=depth == 2)
    options: dict[str, Any] = {
        "chunk_size": chunk_size,
        "residual": depth == 2,
        "implementation": implementation,
        "forget_toward": data.draw(st.sampled_from(["zero", "initial"]), label="forget_toward"),
    }

    whole, end = neural_memory(**inputs, **options)
    pieces, state = [], None
    for start, stop in zip([0, *cuts], [*cuts, time], strict=True):
        y, state = neural_memory(**cut(inputs, start, stop), state=state, **options)
        pieces.append(y)
    assert state is not None
    assert state.offset == end.offset == time % chunk_size
    streamed = results(torch.cat(pieces, dim=1), state, inputs)
    assert_same(streamed, results(whole, end, inputs), 1e-10)


@pytest.mark.parametrize("gate", ["memory_lr", "momentum_decay", "forget_gate"])
@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("everywhere", [True, False])
def test_gates_exactly_at_their_limits_keep_values_and_gradients(
    gate: str, value: float, everywhere: bool
) -> None:
    inputs = random_inputs(21, depth=2, norm=True)
    with torch.no_grad():
        inputs[gate][:, :: 1 if everywhere else 5] = value * (0.01 if gate == "memory_lr" else 1)
    options: dict[str, Any] = {"chunk_size": 8, "residual": True}
    assert_same(run(inputs, "chunked", **options), run(inputs, "reference", **options), 1e-10)


def test_float32_stays_close_to_the_float64_reference() -> None:
    exact = random_inputs(100, depth=2, norm=True)
    single = random_inputs(100, depth=2, norm=True)
    single = {
        name: tuple(x.detach().float().requires_grad_() for x in value)
        if isinstance(value, tuple)
        else value.detach().float().requires_grad_()
        for name, value in single.items()
    }
    options: dict[str, Any] = {"chunk_size": 16, "residual": True}
    assert_same(run(single, "chunked", **options), run(exact, "reference", **options), 1e-4)


def test_strong_decay_leaves_no_subnormal_number_behind() -> None:
    inputs = random_inputs(256, depth=2, norm=True, dtype=torch.float32)
    with torch.no_grad():
        inputs["forget_gate"].fill_(0.4)
        inputs["momentum_decay"].fill_(0.5)
    smallest = torch.finfo(torch.float32).tiny
    named = run(inputs, "chunked", chunk_size=256, residual=True)
    for name in ("y", "weights[0]", "momentum[0]"):
        magnitude = named[name].abs()
        assert not ((magnitude > 0) & (magnitude < smallest)).any(), name


def test_bfloat16_inputs_keep_a_float32_state() -> None:
    inputs = random_inputs(9, depth=2, norm=True)
    half = {
        name: tuple(x.bfloat16() for x in value) if isinstance(value, tuple) else value.bfloat16()
        for name, value in inputs.items()
    }
    y, state = neural_memory(**half, chunk_size=4, residual=True)
    assert y.dtype == torch.bfloat16
    assert {x.dtype for part in state[:3] for x in part} == {torch.float32}
    expected, _ = neural_memory(**inputs, chunk_size=4, residual=True)
    assert (y - expected).norm().item() < 0.02 * expected.norm().item()
