"""Layers, blocks and backbone: streaming, gradients, configuration."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_inputs import random_inputs
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from titans_core import (
    Backbone,
    BackboneConfig,
    BackboneState,
    LongTermMemory,
    NeuralMemory,
    NeuralMemoryConfig,
    detach_state,
    map_state,
    state_from_dict,
    state_to_dict,
)
from titans_core.ops import neural_memory
from titans_core.persistence import load_tree, save_tree


def build(kind: str, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    config = NeuralMemoryConfig(**{"dim": 12, "num_heads": 2, "chunk_size": 5, **options})
    if kind == "layer":
        return NeuralMemory(config).double()
    if kind == "block":
        return LongTermMemory(config).double()
    return Backbone(BackboneConfig(memory=config, num_persistent_tokens=3)).double()


def tokens(batch: int = 2, time: int = 30, dim: int = 12) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, time, dim, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("kind", ["layer", "block", "backbone"])
@pytest.mark.parametrize("depth", [1, 2])
@settings(max_examples=8, deadline=None)
@given(cuts=st.lists(st.integers(1, 29), max_size=4, unique=True).map(sorted))
def test_any_cut_of_a_stream_equals_no_cut(kind: str, depth: int, cuts: list[int]) -> None:
    module = build(kind, depth=depth)
    x = tokens()
    with torch.no_grad():
        whole, end = module(x)
        pieces, state = [], None
        for start, stop in zip([0, *cuts], [*cuts, 30], strict=True):
            y, state = module(x[:, start:stop], state)
            pieces.append(y)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=0, atol=1e-10)
    leaves: list[Tensor] = []
    map_state(lambda x: leaves.append(x) or x, end)
    streamed: list[Tensor] = []
    map_state(lambda x: streamed.append(x) or x, state)
    for a, b in zip(streamed, leaves, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", ["layer", "block", "backbone"])
def test_changing_a_token_moves_nothing_before_it(kind: str) -> None:
    module = build(kind)
    x = tokens()
    changed = x.clone()
    changed[:, 17] += 1
    with torch.no_grad():
        before, after = module(x)[0], module(changed)[0]
    assert torch.equal(before[:, :17], after[:, :17])
    assert not torch.equal(before[:, 17:], after[:, 17:])


@pytest.mark.parametrize("kind", ["layer", "block", "backbone"])
@pytest.mark.parametrize("depth", [1, 2])
def test_every_parameter_learns(kind: str, depth: int) -> None:
    module = build(kind, depth=depth)
    y, _ = module(tokens())
    y.square().sum().backward()
    idle = [
        name
        for name, p in module.named_parameters()
        if p.grad is None or not p.grad.isfinite().all() or float(p.grad.abs().max()) == 0
    ]
    assert idle == []


def test_gradients_reach_back_through_a_carried_state_until_it_is_detached() -> None:
    module = build("backbone")
    first = tokens().requires_grad_()
    _, state = module(first)
    y, _ = module(tokens(time=6), state)
    (gradient,) = torch.autograd.grad(y.sum(), first)
    assert gradient.abs().max() > 0
    y, _ = module(tokens(time=6), detach_state(state))
    (nothing,) = torch.autograd.grad(y.sum(), first, allow_unused=True)
    assert nothing is None


def test_heads_begin_as_different_memories() -> None:
    memory = build("layer")
    for weight in memory.initial_weights:
        assert not torch.equal(weight[0], weight[1])


def test_a_memory_that_repeats_a_pair_learns_it() -> None:
    # One pair again and again: surprise must shrink and the read-out approach the value.
    generator = torch.Generator().manual_seed(0)
    k = torch.nn.functional.normalize(torch.randn(8, generator=generator), dim=0)
    v = torch.randn(8, generator=generator)
    gate = torch.ones(1, 200, 1)
    weights = [
        torch.randn(1, 8, 16, generator=generator),
        torch.randn(1, 16, 8, generator=generator),
    ]
    y, _ = neural_memory(
        k.expand(1, 200, 1, 8),
        k.expand(1, 200, 1, 8),
        v.expand(1, 200, 1, 8),
        0.002 * gate,
        0.5 * gate,
        0 * gate,
        weights,
        chunk_size=4,
    )
    error = (y - v).norm(dim=-1).flatten()
    assert error[-1] < 0.01 * error[0]


def test_a_frozen_memory_stays_at_its_learned_start() -> None:
    module = build("layer", test_time_learning=False)
    _, state = module(tokens())
    for now, start in zip(state.memory.weights, module.initial_weights, strict=True):
        assert torch.equal(now, start.expand_as(now))
    live = build("layer")
    _, state = live(tokens())
    assert not torch.equal(state.memory.weights[0][0], live.initial_weights[0])


def test_a_state_survives_the_disk_bit_for_bit(tmp_path: Any) -> None:
    module = build("backbone")
    x = tokens()
    with torch.no_grad():
        _, state = module(x[:, :13])
        save_tree(tmp_path / "state", state_to_dict(state), kind="state")
        restored = state_from_dict(load_tree(tmp_path / "state", kind="state"))
        assert restored.blocks[0].memory.offset == state.blocks[0].memory.offset == (13 + 3) % 5
        expected, _ = module(x[:, 13:], state)
        actual, _ = module(x[:, 13:], restored)
    assert torch.equal(actual, expected)


def test_a_state_of_a_newer_format_is_refused() -> None:
    tree = {**state_to_dict(build("backbone")(tokens())[1]), "format_version": 99}
    with pytest.raises(ValueError, match=r"format_version 99; this version of titans_core reads 3"):
        state_from_dict(tree)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 0}, "`dim` of NeuralMemoryConfig must be an int >= 1; got 0"),
        ({"dim": 12.0}, "`dim` of NeuralMemoryConfig must be an int >= 1; got 12.0"),
        ({"dim": 12, "num_heads": 5}, "must be a multiple of num_heads=5; got 12"),
        ({"dim": 8, "depth": 5}, "`depth` of NeuralMemoryConfig must be at most 4; got 5"),
        ({"dim": 8, "activation": "tanh"}, "`activation` .* got 'tanh'"),
        ({"dim": 8, "max_memory_lr": "a"}, "`max_memory_lr` .* got 'a'"),
        ({"dim": 8, "residual": "no"}, "`residual` .* must be a bool or None; got 'no'"),
        ({"dim": 8, "test_time_learning": None}, "`test_time_learning` .* got None"),
        ({"dim": 8, "forget_toward": "one"}, "`forget_toward` .* got 'one'"),
        ({"dim": 8, "max_memory_lr": float("nan")}, "`max_memory_lr` .* got nan"),
    ],
)
def test_a_bad_configuration_names_the_field(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NeuralMemoryConfig(**options)


def test_an_unknown_option_fails_at_construction() -> None:
    with pytest.raises(TypeError, match="chunksize"):
        NeuralMemoryConfig(dim=8, chunksize=4)  # type: ignore[call-arg]


@pytest.mark.parametrize("kind", ["layer", "block", "backbone"])
@pytest.mark.parametrize("shape", [(2, 12), (2, 0, 12), (2, 5, 11)])
def test_tokens_of_another_shape_are_refused(kind: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"x must have shape \(B >= 1, T >= 1, 12\)"):
        build(kind)(torch.zeros(*shape, dtype=torch.float64))


def test_a_state_keeps_nothing_of_the_tokens_alive() -> None:
    module = build("backbone")
    with torch.no_grad():
        _, state = module(tokens(time=2000))
    sizes: list[int] = []
    map_state(lambda x: sizes.append(x.untyped_storage().nbytes()) or x, state)
    # Batch, heads, d_in, d_out, bytes; twice, as weights and momentum of a layer may be views of
    # one storage, which holds them both and nothing else.
    assert max(sizes) <= 2 * (2 * 2 * 6 * 12 * 8)


def test_the_memory_computes_in_float32_under_autocast() -> None:
    inputs = random_inputs(20, depth=2, norm=True, dtype=torch.float32)
    with torch.no_grad():
        expected, _ = neural_memory(**inputs, chunk_size=4)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y, state = neural_memory(**inputs, chunk_size=4)
    assert torch.equal(y, expected)
    assert {w.dtype for w in state.weights} == {torch.float32}


def test_states_of_another_module_or_batch_are_refused() -> None:
    module = build("backbone")
    _, state = module(tokens())
    with pytest.raises(ValueError, match="state belongs to a batch of 2 streams; x has 3"):
        module(tokens(batch=3), state)
    with pytest.raises(ValueError, match="state belongs to a backbone of 1 blocks; this one has 2"):
        module(tokens(), BackboneState(state.blocks[:1]))


def test_a_float64_layer_is_float64_throughout() -> None:
    memory = build("layer", dim=4, num_heads=1)
    x = torch.randn(1, 6, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: memory(z)[0], (x,))


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(use_reentrant: bool) -> None:
    memory = build("layer")
    gradients = []
    for call in (memory, lambda x: checkpoint(memory, x, use_reentrant=use_reentrant)):
        x = tokens().requires_grad_()
        y, _ = call(x)
        y.square().sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore")  # those of torch's own compiler
def test_a_compiled_layer_trains_like_the_layer() -> None:
    memory = build("layer")
    compiled = torch.compile(memory, backend="aot_eager")
    results = []
    for call in (memory, compiled):
        y, _ = call(tokens())
        results.append(torch.autograd.grad(y.square().sum(), list(memory.parameters())))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


@pytest.mark.parametrize("conv_width", [1, 4])
def test_a_masked_token_of_a_half_precision_layer_is_finite(conv_width: int) -> None:
    memory = build("layer", conv_width=conv_width).half()
    mask = torch.ones(2, 8, dtype=torch.bool)
    mask[0, 3] = False
    y, _ = memory(tokens(time=8).half(), mask=mask)
    y[mask].float().sum().backward()
    assert y.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in memory.parameters())


def test_a_state_of_another_convolution_or_module_is_refused() -> None:
    _, state = build("layer", conv_width=4)(tokens())
    with pytest.raises(ValueError, match="conv_width=4 and dim=12; this one has conv_width=2"):
        build("layer", conv_width=2)(tokens(), state)
    with pytest.raises(ValueError, match="state must be a BackboneState; got a MemoryLayerState"):
        build("backbone")(tokens(), state)
    with pytest.raises(ValueError, match="state must be a MemoryLayerState; got a BackboneState"):
        build("layer")(tokens(), BackboneState((state,)))
    with pytest.raises(TypeError, match="a state or a tuple of states; got a list"):
        detach_state([state])
