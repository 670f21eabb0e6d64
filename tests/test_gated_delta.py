"""The gated delta rule and its layer: the reference by hand, the blocks by the reference."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_inputs import assert_same
from torch import Tensor
from torch.nn.functional import normalize

from titans_core.config import GatedDeltaConfig
from titans_core.gated_delta_net import GatedDeltaNet, GatedDeltaState
from titans_core.ops import neural_memory
from titans_core.ops.gated_delta import gated_delta, gated_delta_chunked, gated_delta_reference

BLOCKS = (1, 4, 16, 64)
CASES = [(b, t) for b in BLOCKS for t in sorted({1, max(b - 1, 1), b, b + 1, 63, 100})]
IMPLEMENTATIONS = ["reference", "chunked"]
TOKENS = ("q", "k", "v", "beta", "forget_gate")


def random_inputs(
    time: int, *, forget: float = 0.3, dtype: torch.dtype = torch.float64, seed: int = 0
) -> dict[str, Tensor]:
    """Leaf tensors by the names of the parameters, B, H, D_k, D_v = 2, 3, 6, 5."""
    generator = torch.Generator().manual_seed(seed)
    normal = partial(torch.randn, generator=generator, dtype=torch.float64)
    uniform = partial(torch.rand, generator=generator, dtype=torch.float64)
    inputs = {
        "q": normalize(normal(2, time, 3, 6), dim=-1),
        "k": normalize(normal(2, time, 3, 6), dim=-1),
        "v": normal(2, time, 3, 5),
        "beta": uniform(2, time, 3),
        "forget_gate": forget * uniform(2, time, 3),
        "state": normal(2, 3, 6, 5),
    }
    return {name: x.to(dtype).requires_grad_() for name, x in inputs.items()}


def results(y: Tensor, state: Tensor, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Outputs, final state and the gradient of a fixed random functional of both."""
    named = {"y": y, "state": state}
    generator = torch.Generator().manual_seed(1)
    objective = torch.zeros((), dtype=torch.float64)
    for x in named.values():
        objective = (
            objective + (x * torch.randn(x.shape, generator=generator, dtype=torch.float64)).sum()
        )
    gradients = torch.autograd.grad(objective, list(inputs.values()), materialize_grads=True)
    return named | {f"grad {name}": g for name, g in zip(inputs, gradients, strict=True)}


def run(
    inputs: dict[str, Tensor], implementation: str = "chunked", **options: Any
) -> dict[str, Tensor]:
    return results(*gated_delta(**inputs, implementation=implementation, **options), inputs)


def orthonormal(size: int) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    square = torch.randn(size, size, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(square).Q


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_two_tokens_by_hand(implementation: str) -> None:
    double = partial(torch.tensor, dtype=torch.float64)
    k = double([[1.0, 0.0], [0.6, 0.8]]).view(1, 2, 1, 2)
    q = double([[1.0, 0.0], [1.0, 1.0]]).view(1, 2, 1, 2)
    v = double([2.0, 1.0]).view(1, 2, 1, 1)
    beta = double([0.5, 0.5]).view(1, 2, 1)
    forget = double([0.25, 0.5]).view(1, 2, 1)
    y, state = gated_delta(q, k, v, beta, forget, implementation=implementation)
    # W_1 = 1/2 * 2 * (1, 0). The second key holds 0.6; half of that is erased, (0.82, -0.24);
    # half of the rest forgotten, (0.41, -0.12); and 1/2 * 1 * (0.6, 0.8) added.
    torch.testing.assert_close(state.flatten(), double([0.71, 0.28]))
    torch.testing.assert_close(y.flatten(), double([1.0, 0.99]))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_without_forgetting_it_is_a_matrix_memory_that_learns_by_surprise(
    implementation: str,
) -> None:
    x = {name: value.detach() for name, value in random_inputs(30, forget=0).items()}
    x["v"] = torch.cat([x["v"], x["v"][..., :1]], dim=-1)  # square: D_v = D_k
    initial = torch.randn(3, 6, 6, dtype=torch.float64)
    none = torch.zeros_like(x["beta"])
    y, state = gated_delta(
        x["q"], x["k"], x["v"], x["beta"], none, initial, implementation=implementation
    )
    # The loss has no 1/2: a step of beta / 2 moves by beta.
    expected, end = neural_memory(
        *(x["q"], x["k"], x["v"], x["beta"] / 2, none, none),
        [initial],
        chunk_size=1,
        implementation="reference",
    )
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(state, end.weights[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_orthonormal_keys_are_retrieved_exactly(implementation: str) -> None:
    k = orthonormal(8).view(1, 8, 1, 8)
    v = torch.randn(1, 8, 1, 8, dtype=torch.float64)
    gate = torch.ones(1, 8, 1, dtype=torch.float64)
    y, state = gated_delta(k, k, v, gate, 0 * gate, implementation=implementation)
    torch.testing.assert_close(y, v, rtol=0, atol=1e-14)
    torch.testing.assert_close(k.squeeze(2) @ state[:, 0], v.squeeze(2), rtol=0, atol=1e-14)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_writing_a_key_again_replaces_its_value_and_no_other(implementation: str) -> None:
    keys = orthonormal(6)
    order = [0, 1, 2, 0, 3, 0]  # key 0 is written three times
    k = keys[order].view(1, 6, 1, 6)
    v = torch.randn(1, 6, 1, 4, dtype=torch.float64)
    gate = torch.ones(1, 6, 1, dtype=torch.float64)
    y, state = gated_delta(k, k, v, gate, 0 * gate, implementation=implementation)
    torch.testing.assert_close(y, v, rtol=0, atol=1e-14)
    for key, last in {0: 5, 1: 1, 2: 2, 3: 4}.items():
        torch.testing.assert_close(keys[key] @ state[0, 0], v[0, last, 0], rtol=0, atol=1e-14)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize(("block_size", "time"), CASES)
def test_blocks_of_any_size_equal_the_reference(block_size: int, time: int) -> None:
    inputs = random_inputs(time)
    arguments = inputs.values()
    expected = results(*gated_delta_reference(*arguments), inputs)
    actual = results(*gated_delta_chunked(*arguments, block_size=block_size), inputs)
    assert_same(actual, expected, 1e-10)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("time", [1, 31, 32, 33, 63, 100])
@pytest.mark.parametrize("start", ["zeros", "initial_weights", "state"])
@pytest.mark.parametrize("masked", [False, True])
def test_chunked_equals_reference(time: int, start: str, masked: bool) -> None:
    inputs = random_inputs(time)
    state = inputs.pop("state")
    if start == "state":
        inputs["state"] = state
    elif start == "initial_weights":
        inputs["initial_weights"] = state[0].detach().requires_grad_()
    mask = torch.rand(2, time) < 0.7 if masked else None
    expected = run(inputs, "reference", write_mask=mask)
    assert_same(run(inputs, "chunked", write_mask=mask), expected, 1e-10)


@pytest.mark.parametrize("gate", ["beta", "forget_gate"])
@pytest.mark.parametrize("value", [0.0, 1.0, 1 - 1e-9])
@pytest.mark.parametrize("every", [1, 5])
def test_gates_at_their_limits_keep_values_and_gradients(
    gate: str, value: float, every: int
) -> None:
    inputs = random_inputs(70)
    with torch.no_grad():
        inputs[gate][:, ::every] = value
    assert_same(run(inputs), run(inputs, "reference"), 1e-10)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_forgetting_everything_begins_a_stream_anew_to_the_bit(implementation: str) -> None:
    inputs = random_inputs(70, dtype=torch.float32)
    with torch.no_grad():
        inputs["forget_gate"][:, 40] = 1
    y, state = gated_delta(**inputs, implementation=implementation)
    other = {name: x.detach().clone() for name, x in inputs.items()}
    for x in (*(other[name][:, :40] for name in ("q", "k", "v", "beta")), other["state"]):
        x.mul_(0.7)
    y_other, state_other = gated_delta(**other, implementation=implementation)
    assert not torch.equal(y[:, :40], y_other[:, :40])
    assert torch.equal(y[:, 40:], y_other[:, 40:])
    assert torch.equal(state, state_other)


def test_float32_stays_close_to_the_float64_reference() -> None:
    for forget in (0.0, 0.01, 1.0):
        exact = random_inputs(300, forget=forget)
        single = random_inputs(300, forget=forget, dtype=torch.float32)
        assert_same(run(single), run(exact, "reference"), 1e-4)


def test_strong_decay_leaves_no_subnormal_number_behind() -> None:
    inputs = random_inputs(256, dtype=torch.float32)
    with torch.no_grad():
        inputs["forget_gate"].fill_(0.4)
        inputs["beta"][:, 20:] = 0
        y, state = gated_delta_chunked(*inputs.values(), block_size=256)
    for x in (y, state):
        assert not ((x != 0) & (x.abs() < torch.finfo(torch.float32).tiny)).any()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_cut_of_a_stream_equals_no_cut(implementation: str, data: st.DataObject) -> None:
    time = data.draw(st.integers(1, 70), label="time")
    cuts = sorted(data.draw(st.lists(st.integers(0, time), max_size=4), label="cuts"))
    inputs = random_inputs(time)
    mask = torch.rand(2, time, generator=torch.Generator().manual_seed(time)) < 0.8
    whole = run(inputs, implementation, write_mask=mask)
    pieces, state = [], inputs["state"]
    for start, stop in zip([0, *cuts], [*cuts, time], strict=True):
        y, state = gated_delta(
            *(inputs[name][:, start:stop] for name in TOKENS),
            state=state,
            write_mask=mask[:, start:stop],
            implementation=implementation,
        )
        pieces.append(y)
    assert_same(results(torch.cat(pieces, dim=1), state, inputs), whole, 1e-10)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_masked_tokens_might_as_well_not_be_there(implementation: str) -> None:
    inputs = random_inputs(50)
    mask = torch.rand(2, 50) < 0.6
    dirty = {name: x.detach().clone() for name, x in inputs.items()}
    for name in ("k", "v", "beta", "forget_gate"):
        dirty[name][~mask] = torch.nan
        dirty[name].requires_grad_()
    y, state = gated_delta(**dirty, write_mask=mask, implementation=implementation)
    for row, real in enumerate(mask):
        y_real, state_real = gated_delta(
            *(inputs[name][row : row + 1, real] for name in TOKENS),
            state=inputs["state"][row : row + 1],
            implementation=implementation,
        )
        torch.testing.assert_close(y[row : row + 1, real], y_real, rtol=0, atol=1e-12)
        torch.testing.assert_close(state[row : row + 1], state_real, rtol=0, atol=1e-12)
    (y.sum() + state.sum()).backward()
    for name in ("k", "v", "beta", "forget_gate"):
        gradient = dirty[name].grad
        assert gradient is not None
        assert torch.equal(gradient[~mask], torch.zeros_like(gradient[~mask])), name
        assert gradient[mask].isfinite().all(), name


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_no_tokens_leave_the_state_as_it_was(implementation: str) -> None:
    inputs = random_inputs(0)
    y, state = gated_delta(**inputs, implementation=implementation)
    assert y.shape == (2, 0, 3, 5)
    assert torch.equal(state, inputs["state"])
    _, zeros = gated_delta(*(inputs[name] for name in TOKENS), implementation=implementation)
    assert torch.equal(zeros, torch.zeros_like(state))


def test_changing_a_token_moves_nothing_before_it() -> None:
    inputs = random_inputs(80)
    before, _ = gated_delta(**inputs)
    with torch.no_grad():
        for name in TOKENS:
            inputs[name][:, 45] *= 0.5
    after, _ = gated_delta(**inputs)
    assert torch.equal(before[:, :45], after[:, :45])
    assert not torch.equal(before[:, 45], after[:, 45])


def test_bfloat16_inputs_and_autocast_keep_a_float32_state() -> None:
    single = {name: x.detach().float() for name, x in random_inputs(40).items()}
    expected, end = gated_delta(**single)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = gated_delta(**single)
    assert torch.equal(y, expected)
    assert torch.equal(state, end)
    y, state = gated_delta(**{name: x.bfloat16() for name, x in single.items()})
    assert (y.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    assert (y - expected).norm() < 0.02 * expected.norm()


def test_nearly_equal_keys_stay_bounded_without_any_forgetting() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 8192, 1, 16, generator=generator)
    k = normalize(torch.ones(16) + 0.05 * noise, dim=-1)
    gate = torch.ones(1, 8192, 1)
    y, state = gated_delta(k, k, noise, gate, 0 * gate)
    exact, end = gated_delta(*(x.double() for x in (k, k, noise, gate, 0 * gate)))
    torch.testing.assert_close(y.double(), exact, rtol=0, atol=1e-3)
    torch.testing.assert_close(state.double(), end, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("q", (2, 7, 6), r"q must have shape \(B, T, H, D_k\); got \(2, 7, 6\)"),
        ("v", (2, 7, 3), r"v must have shape \(B, T, H, D_v\); got \(2, 7, 3\)"),
        ("k", (2, 7, 3, 5), r"k must have shape \(2, 7, 3, 6\) to go with q .* \(2, 7, 3, 5\)"),
        ("v", (2, 8, 3, 5), r"v must have shape \(2, 7, 3, 5\)"),
        ("beta", (2, 7), r"beta must have shape \(2, 7, 3\)"),
        ("forget_gate", (2, 7, 3, 1), r"forget_gate must have shape \(2, 7, 3\)"),
        ("state", (3, 3, 6, 5), r"state must have shape \(2, 3, 6, 5\)"),
        ("initial_weights", (3, 5, 6), r"initial_weights must have shape \(3, 6, 5\)"),
    ],
)
def test_tensors_that_do_not_fit_are_named(name: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gated_delta(**random_inputs(7) | {name: torch.zeros(shape)})


def test_bad_masks_and_implementations_are_refused() -> None:
    inputs = random_inputs(7)
    with pytest.raises(ValueError, match=r"write_mask must be a bool tensor; got torch.float32"):
        gated_delta(**inputs, write_mask=torch.ones(2, 7))
    with pytest.raises(ValueError, match=r"write_mask must have shape \(2, 7\) .* got \(2, 6\)"):
        gated_delta(**inputs, write_mask=torch.ones(2, 6, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"'auto', 'chunked', 'reference'.*; got 'fast'"):
        gated_delta(**inputs, implementation="fast")


def build(**options: Any) -> GatedDeltaNet:
    torch.manual_seed(0)
    return GatedDeltaNet(GatedDeltaConfig(**{"dim": 12, "num_heads": 2, **options})).double()


def tokens(batch: int = 2, time: int = 40, dim: int = 12) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, time, dim, generator=generator, dtype=torch.float64)


@settings(max_examples=10, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 39), max_size=4, unique=True).map(sorted),
    conv_width=st.sampled_from([1, 4]),
)
def test_any_cut_of_a_layers_stream_equals_no_cut(cuts: list[int], conv_width: int) -> None:
    layer = build(conv_width=conv_width)
    x = tokens()
    with torch.no_grad():
        whole, end = layer(x)
        pieces, state = [], None
        for start, stop in zip([0, *cuts], [*cuts, 40], strict=True):
            y, state = layer(x[:, start:stop], state)
            pieces.append(y)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=0, atol=1e-10)
    torch.testing.assert_close(state, end, rtol=0, atol=1e-10)


def test_a_layer_never_looks_ahead() -> None:
    layer = build()
    x = tokens()
    changed = x.clone()
    changed[:, 17] += 1
    with torch.no_grad():
        before, after = layer(x)[0], layer(changed)[0]
    assert torch.equal(before[:, :17], after[:, :17])
    assert not torch.equal(before[:, 17:], after[:, 17:])


def test_padding_of_any_content_changes_nothing_of_a_layer() -> None:
    layer = build()
    x = tokens()
    padded = torch.cat([x, torch.full((2, 9, 12), torch.nan, dtype=x.dtype)], dim=1)
    mask = torch.arange(49).expand(2, 49) < 40
    y, state = layer(padded, mask=mask)
    expected, end = layer(x)
    torch.testing.assert_close(y[:, :40], expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(state.weights, end.weights, rtol=0, atol=1e-12)
    y[:, :40].sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


def test_every_parameter_of_a_layer_learns() -> None:
    layer = build()
    layer(tokens())[0].square().sum().backward()
    idle = [
        name
        for name, p in layer.named_parameters()
        if p.grad is None or not p.grad.isfinite().all() or float(p.grad.abs().max()) == 0
    ]
    assert idle == []


def test_the_gradient_of_a_layer_is_the_one_of_finite_differences() -> None:
    layer = build(dim=4, num_heads=1)
    x = torch.randn(1, 6, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: layer(z)[0], (x,))


def test_retrieve_reads_what_was_written() -> None:
    layer = build()
    k = orthonormal(6).view(1, 6, 1, 6).expand(2, 6, 2, 6)
    v = torch.randn(2, 6, 2, 6, dtype=torch.float64)
    gate = torch.ones(2, 6, 2, dtype=torch.float64)
    _, weights = gated_delta(k, k, v, gate, 0 * gate)
    state = GatedDeltaState(weights, torch.zeros(2, 36, 3, dtype=torch.float64))
    # A query of any length reads the same: it is brought to unit length per head.
    read = layer.retrieve(3 * k.flatten(-2), layer.fast_weights(state, 2))
    torch.testing.assert_close(read, v.flatten(-2), rtol=0, atol=1e-12)
    assert layer.retrieve(k[:, :0].flatten(-2), (weights,)).shape == (2, 0, 12)


def test_a_layer_starts_with_nothing_to_retrieve_and_reading_writes_nothing() -> None:
    layer = build()
    (zeros,) = layer.fast_weights(None, 3)
    assert zeros.shape == (3, 2, 6, 6)
    assert zeros.dtype == torch.float64
    assert not layer.retrieve(tokens(batch=3), (zeros,)).any()
    _, state = layer(tokens())
    before = state.weights.clone()
    assert layer.retrieve(tokens(), layer.fast_weights(state, 2)).any()
    assert torch.equal(state.weights, before)


def test_the_state_is_of_one_size_and_keeps_no_token_alive() -> None:
    layer = build()
    with torch.no_grad():
        states = [layer(tokens(time=time))[1] for time in (1, 2000)]
    for short, long in zip(*states, strict=True):
        assert short.shape == long.shape
        assert long.untyped_storage().nbytes() == 8 * long.numel()


def test_gates_begin_where_mamba_2_begins() -> None:
    torch.manual_seed(0)
    layer = GatedDeltaNet(GatedDeltaConfig(dim=512, num_heads=256))
    beta, forget = layer._gates(torch.zeros(1, 1, 512))
    assert torch.equal(beta, torch.full_like(beta, 0.5))
    rate = layer.log_rate.exp()
    step = -torch.log1p(-forget.flatten()) / rate
    assert 1 < rate.min() < 2 < 15 < rate.max() < 16
    assert 0.99e-3 < step.min() < 1.2e-3
    assert 0.8e-1 < step.max() < 1.01e-1


def test_a_bfloat16_layer_keeps_a_float32_state() -> None:
    layer = build().bfloat16()
    y, state = layer(tokens().bfloat16())
    y, state = layer(tokens(time=3).bfloat16(), state)
    assert (y.dtype, state.weights.dtype) == (torch.bfloat16, torch.float32)
    assert {w.dtype for w in layer.fast_weights(None, 2)} == {torch.float32}


def test_strongly_correlated_tokens_stay_bounded() -> None:
    torch.manual_seed(0)
    layer = GatedDeltaNet(GatedDeltaConfig(dim=16))
    with torch.no_grad():
        y, state = layer(torch.randn(1, 1, 16) + 0.05 * torch.randn(1, 8192, 16))
    assert y.isfinite().all()
    assert y.abs().max() < 10
    assert state.weights.norm() < 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 0}, "`dim` of GatedDeltaConfig must be an int >= 1; got 0"),
        ({"dim": 12, "num_heads": 5}, "must be a multiple of num_heads=5; got 12"),
        ({"dim": 12, "conv_width": 0}, "`conv_width` of GatedDeltaConfig .* got 0"),
    ],
)
def test_a_bad_configuration_names_the_field(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GatedDeltaConfig(**options)


def test_a_layer_refuses_other_tokens_masks_and_states() -> None:
    layer = build()
    _, state = layer(tokens())
    with pytest.raises(ValueError, match=r"x must have shape \(B >= 1, T >= 1, 12\)"):
        layer(tokens(time=0))
    with pytest.raises(ValueError, match=r"mask must be a bool tensor of shape \(2, 40\)"):
        layer(tokens(), mask=torch.ones(2, 39, dtype=torch.bool))
    with pytest.raises(ValueError, match="state belongs to a batch of 2 streams; x has 3"):
        layer(tokens(batch=3), state)
