"""Blocks and stacks of them: against their written-out definition, streamed, masked, saved."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from attention_oracle import run_block
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from titans_core import (
    AttentionConfig,
    AttentionOnly,
    Backbone,
    BackboneConfig,
    GatedDeltaConfig,
    LongTermMemory,
    MemoryAsContext,
    MemoryAsGate,
    MemoryAsLayer,
    NeuralMemory,
    NeuralMemoryConfig,
    detach_state,
    map_state,
    record_memory,
    state_from_dict,
    state_to_dict,
)
from titans_core.config import backbone_from_dict
from titans_core.persistence import load_tree, save_tree

DIM, WINDOW, TIME = 16, 7, 30
BLOCKS = {
    "mac": MemoryAsContext,
    "mag": MemoryAsGate,
    "mal": MemoryAsLayer,
    "attention": AttentionOnly,
}
KINDS = ["lmm", *BLOCKS]
MEMORIES = {
    "deep": NeuralMemoryConfig(dim=DIM, num_heads=2, chunk_size=5),
    "matrix": NeuralMemoryConfig(dim=DIM, num_heads=2, chunk_size=5, depth=1),
    "gated delta": GatedDeltaConfig(dim=DIM, num_heads=2),
}


def attention_config(**options: Any) -> AttentionConfig:
    return AttentionConfig(
        **{"num_heads": 2, "window": WINDOW, "num_persistent_tokens": 3, **options}
    )


def build(kind: str, memory: str = "deep", **options: Any) -> Backbone:
    torch.manual_seed(0)
    attention = None if kind == "lmm" else attention_config(**options)
    config = BackboneConfig(memory=MEMORIES[memory], block=kind, attention=attention)
    return scatter(Backbone(config).double())


def scatter(module: nn.Module) -> Any:
    """Learned vectors that begin as ones would hide where they are missing."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def tokens(time: int = TIME, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, time, DIM, generator=generator, dtype=torch.float64)


def leaves(state: Any) -> list[Tensor]:
    found: list[Tensor] = []
    map_state(lambda x: found.append(x) or x, state)
    return found


def streamed(module: nn.Module, x: Tensor, cuts: list[int]) -> tuple[Tensor, Any]:
    outputs, state = [], None
    for start, stop in zip([0, *cuts], [*cuts, x.shape[1]], strict=True):
        y, state = module(x[:, start:stop], state)
        outputs.append(y)
    return torch.cat(outputs, dim=1), state


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("persistent", [0, 3])
def test_a_block_computes_what_is_written(
    kind: str, memory: str, causal: bool, persistent: int
) -> None:
    config = attention_config(causal=causal, num_persistent_tokens=persistent)
    block = scatter(BLOCKS[kind](MEMORIES[memory], config).double())
    with torch.no_grad():
        y, _ = block(tokens())
        expected = run_block(kind, block, tokens())
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("memory", MEMORIES)
@settings(max_examples=8, deadline=None)
@given(cuts=st.lists(st.integers(1, TIME - 1), max_size=4, unique=True).map(sorted))
def test_any_cut_of_a_stream_equals_no_cut(kind: str, memory: str, cuts: list[int]) -> None:
    module = build(kind, memory)
    with torch.no_grad():
        whole, end = module(tokens())
        y, state = streamed(module, tokens(), cuts)
    torch.testing.assert_close(y, whole, rtol=0, atol=1e-10)
    for a, b in zip(leaves(state), leaves(end), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", BLOCKS)
def test_a_stream_may_come_token_by_token(kind: str) -> None:
    module = build(kind)
    with torch.no_grad():
        whole, _ = module(tokens())
        y, _ = streamed(module, tokens(), list(range(1, TIME)))
    torch.testing.assert_close(y, whole, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("memory", ["deep", "gated delta"])
@pytest.mark.parametrize("t", [0, 6, 7, 17, 29])
def test_changing_a_token_moves_nothing_before_it(kind: str, memory: str, t: int) -> None:
    module = build(kind, memory)
    changed = tokens()
    changed[:, t] += 1
    with torch.no_grad():
        before, after = module(tokens())[0], module(changed)[0]
    assert torch.equal(before[:, :t], after[:, :t])
    assert not torch.equal(before[:, t], after[:, t])


@pytest.mark.parametrize("kind", BLOCKS)
def test_without_causality_tokens_see_what_comes_after_them(kind: str) -> None:
    module = build(kind, causal=False)
    changed = tokens()
    changed[:, 6] += 1  # the last of the first segment
    with torch.no_grad():
        before, after = module(tokens())[0], module(changed)[0]
    assert (before[:, 0] - after[:, 0]).abs().max() > 1e-6


@pytest.mark.parametrize("kind", ["mac", "mag", "mal"])
@pytest.mark.parametrize("causal", [True, False])
def test_the_memory_carries_what_the_window_has_lost(kind: str, causal: bool) -> None:
    module = build(kind, causal=causal)
    changed = tokens(4 * TIME)
    changed[:, 2] += 1
    with torch.no_grad():
        moved = (module(tokens(4 * TIME))[0] - module(changed)[0]).abs().amax(dim=(0, 2))
        _, state = module(changed[:, :TIME])
        fresh, carried = (module(tokens(5), s)[0] for s in (None, state))
    assert moved[4 * WINDOW :].max() > 1e-9  # two blocks of attention alone reach 2 windows
    assert not torch.equal(fresh, carried)


def test_attention_only_forgets_what_left_the_window() -> None:
    module = build("attention")
    changed = tokens()
    changed[:, 2] += 1
    with torch.no_grad():
        moved = (module(tokens())[0] - module(changed)[0]).abs().amax(dim=(0, 2))
    reach = 2 + 2 * (WINDOW - 1)  # through two blocks
    assert moved[reach] > 0
    assert moved[reach + 1 :].max() == 0


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("memory", ["deep", "gated delta"])
@pytest.mark.parametrize("causal", [True, False])
def test_every_parameter_learns(kind: str, memory: str, causal: bool) -> None:
    module = build(kind, memory, causal=causal)
    y, _ = module(tokens())
    y.square().sum().backward()
    idle = [
        name
        for name, p in module.named_parameters()
        if p.grad is None or not p.grad.isfinite().all() or float(p.grad.abs().max()) == 0
    ]
    # The literal form reads the memory from outside, past the layer's own output gate.
    unused = "memory.output." if kind == "mac" and not causal else "none"
    assert [name for name in idle if unused not in name] == []


@pytest.mark.parametrize("kind", BLOCKS)
def test_gradients_reach_back_through_a_carried_state_until_it_is_detached(kind: str) -> None:
    module = build(kind)
    first = tokens().requires_grad_()
    _, state = module(first)
    y, _ = module(tokens(6), state)
    (gradient,) = torch.autograd.grad(y.sum(), first)
    assert gradient.abs().max() > 0
    y, _ = module(tokens(6), detach_state(state))
    (nothing,) = torch.autograd.grad(y.sum(), first, allow_unused=True)
    assert nothing is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("memory", ["deep", "gated delta"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("persistent", [0, 3])
def test_padding_on_the_right_changes_nothing(
    kind: str, memory: str, causal: bool, persistent: int
) -> None:
    module = build(kind, memory, causal=causal, num_persistent_tokens=persistent)
    lengths = [TIME, 17, 1]
    x = tokens(batch=3)
    mask = torch.arange(TIME) < torch.tensor(lengths)[:, None]
    padded = x.masked_fill(~mask[..., None], torch.nan).requires_grad_()
    y, state = module(padded, None, mask)
    assert y.isfinite().all()
    assert all(leaf.isfinite().all() for leaf in leaves(state))
    for i, length in enumerate(lengths):
        alone, _ = module(x[i : i + 1, :length])
        torch.testing.assert_close(y[i : i + 1, :length], alone, rtol=0, atol=1e-10)
    (gradient,) = torch.autograd.grad(y[mask].sum(), padded)
    assert gradient.isfinite().all()
    assert gradient[~mask].abs().max() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_content_of_a_masked_token_reaches_nothing(kind: str) -> None:
    module = build(kind)
    mask = torch.ones(2, TIME, dtype=torch.bool)
    mask[0, [0, 6, 7, 19]] = False
    mask[1, 11:16] = False
    with torch.no_grad():
        y, state = module(tokens().masked_fill(~mask[..., None], torch.nan), None, mask)
        other, other_state = module(tokens().masked_fill(~mask[..., None], 9.0), None, mask)
        cut, half = module(tokens()[:, :13], None, mask[:, :13])
        rest, _ = module(tokens()[:, 13:], half, mask[:, 13:])
        unmasked, _ = module(tokens())
    assert torch.equal(y, other)
    assert all(torch.equal(a, b) for a, b in zip(leaves(state), leaves(other_state), strict=True))
    torch.testing.assert_close(torch.cat([cut, rest], dim=1)[mask], y[mask], rtol=0, atol=1e-10)
    assert (unmasked - y)[mask].abs().max() > 1e-6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("memory", ["deep", "gated delta"])
def test_a_state_has_one_size_however_long_the_stream(kind: str, memory: str) -> None:
    module = build(kind, memory).float()
    sizes = []
    for time in (100, 1000):
        with torch.no_grad():
            _, state = module(tokens(time).float())
        sizes.append(sum(leaf.untyped_storage().nbytes() for leaf in leaves(state)))
    assert sizes[0] == sizes[1] < 128 * 1024


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("memory", ["deep", "gated delta"])
@pytest.mark.parametrize("options", [{}, {"causal": False}, {"num_persistent_tokens": 0}])
def test_a_state_survives_the_disk_bit_for_bit(
    kind: str, memory: str, options: dict[str, Any], tmp_path: Path
) -> None:
    module = build(kind, memory, **options)
    with torch.no_grad():
        _, state = module(tokens()[:, :13])
        save_tree(tmp_path / "state", state_to_dict(state), kind="state")
        restored = state_from_dict(load_tree(tmp_path / "state", kind="state"))
        expected, _ = module(tokens()[:, 13:], state)
        actual, _ = module(tokens()[:, 13:], restored)
    assert torch.equal(actual, expected)
    assert_equal(restored, state)


def assert_equal(a: Any, b: Any) -> None:
    assert type(a) is type(b)
    if isinstance(a, tuple):
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    elif isinstance(a, Tensor):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    else:
        assert a == b


def test_a_state_of_the_first_format_is_refused_by_its_number() -> None:
    with pytest.raises(ValueError, match=r"format_version 1; this version .* reads 3"):
        state_from_dict({"format_version": 1, "blocks": ()})


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize(
    "memory",
    [
        NeuralMemoryConfig(dim=DIM, test_time_learning=False),
        NeuralMemoryConfig(dim=DIM, momentum=False, chunk_size=4),
        NeuralMemoryConfig(dim=DIM, forgetting=False, chunk_size=4),
        NeuralMemoryConfig(dim=DIM, conv_width=1, chunk_size=4),
        NeuralMemoryConfig(dim=DIM, read="chunk_start", chunk_size=4),
        NeuralMemoryConfig(dim=DIM, chunk_size=1),
        GatedDeltaConfig(dim=DIM, conv_width=1),
    ],
    ids=["frozen", "no momentum", "no forgetting", "no conv", "lagged", "chunk 1", "delta no conv"],
)
def test_every_switch_of_the_memory_streams(
    kind: str, memory: NeuralMemoryConfig | GatedDeltaConfig
) -> None:
    for attention in (attention_config(), attention_config(window=1, num_persistent_tokens=0)):
        module = scatter(BLOCKS[kind](memory, attention).double())
        with torch.no_grad():
            whole, _ = module(tokens(20))
            y, _ = streamed(module, tokens(20), [1, 6, 13])
        torch.testing.assert_close(y, whole, rtol=0, atol=1e-10)
        assert whole.isfinite().all()


def test_a_state_does_not_change_with_the_parameters() -> None:
    module = build("mac")
    with torch.no_grad():
        _, state = module(tokens(3))
        start = [w.clone() for w in state.blocks[0].start]
        for parameter in module.parameters():
            parameter.add_(1)
    assert all(torch.equal(a, b) for a, b in zip(state.blocks[0].start, start, strict=True))


# torch mentions once that a norm with float32 gains takes its slower path for bfloat16.
@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")  # torch's RMSNorm
@pytest.mark.parametrize("kind", KINDS)
def test_a_stack_runs_under_autocast(kind: str) -> None:
    module = build(kind).float()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        whole, _ = module(tokens().float())
        y, _ = streamed(module, tokens().float(), [11])
    assert whole.isfinite().all()
    torch.testing.assert_close(y.float(), whole.float(), rtol=0, atol=0.2)  # bfloat16's digits


@pytest.mark.parametrize("kind", ["mac", "mag", "mal"])
def test_memories_inside_blocks_can_be_watched(kind: str) -> None:
    module = build(kind)
    with record_memory(module) as records:
        module(tokens())
    read = TIME if kind == "mac" else TIME + 3  # gate and layer read the persistent tokens, too
    assert {record.surprise.shape for record in records.values()} == {(2, read, 2)}
    assert list(records) == ["blocks.0.memory", "blocks.1.memory"]


@pytest.mark.parametrize("kind", BLOCKS)
def test_another_blocks_state_is_refused(kind: str) -> None:
    module = build(kind)
    _, other = build("lmm")(tokens())
    with pytest.raises(ValueError, match=r"state must be a \w+State; got a MemoryLayerState"):
        module(tokens(), other)
    _, state = module(tokens())
    with pytest.raises(ValueError, match="state belongs to a batch of 2 streams; x has 3"):
        module(tokens(batch=3), state)
    with pytest.raises(ValueError, match="window="):
        build(kind, window=9)(tokens(), state)
    with pytest.raises(ValueError, match=r"attention with 2 heads of width .*; this one has 4 of"):
        build(kind, num_heads=4)(tokens(), state)


@pytest.mark.parametrize("kind", BLOCKS)
def test_a_state_goes_on_in_another_precision(kind: str) -> None:
    module = build(kind)
    _, state = module(tokens())
    expected, _ = module(tokens(), state)
    found, _ = module.float()(tokens().float(), state)
    torch.testing.assert_close(found.double(), expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_and_masks_of_another_shape_are_refused(kind: str) -> None:
    module = build(kind)
    with pytest.raises(ValueError, match=r"x must have shape \(B >= 1, T >= 1, 16\)"):
        module(tokens()[..., :3])
    with pytest.raises(ValueError, match=r"x must have shape \(B >= 1, T >= 1, 16\)"):
        module.blocks[0](tokens()[:, :0])
    with pytest.raises(ValueError, match=r"mask must be a bool tensor of shape \(2, 30\)"):
        module(tokens(), None, torch.ones(2, TIME))
    with pytest.raises(ValueError, match=r"mask must be a bool tensor of shape \(2, 30\)"):
        module.blocks[0](tokens(), None, torch.ones(2, 4, dtype=torch.bool))


MEMORY = MEMORIES["deep"]
ATTENTION = attention_config()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory": ATTENTION}, "`memory` .* must be a NeuralMemoryConfig or a GatedDeltaConfig"),
        ({"block": "mas"}, r"`block` of BackboneConfig must be one of \['lmm', 'mac'.* got 'mas'"),
        ({"block": "mac"}, "`attention` .* must be an AttentionConfig for block='mac'; got None"),
        ({"attention": ATTENTION}, "`attention` .* must be None for block='lmm'"),
        (
            {"block": "mag", "attention": ATTENTION, "num_persistent_tokens": 4},
            "`num_persistent_tokens` .* must be None for block='mag'.* in AttentionConfig; got 4",
        ),
        ({"num_persistent_tokens": -1}, "`num_persistent_tokens` .* int >= 0; got -1"),
        (
            {"block": "mal", "attention": attention_config(num_heads=3)},
            "`num_heads` of AttentionConfig .* of the 16 channels, .* got 3",
        ),
    ],
)
def test_a_bad_stack_names_the_field(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BackboneConfig(**{"memory": MEMORY, **options})


def test_memory_only_stacks_begin_with_four_persistent_tokens_by_default() -> None:
    config = BackboneConfig(memory=MEMORY)
    assert Backbone(config).persistent_tokens.shape == (4, DIM)
    other = replace(config, block="mag", attention=ATTENTION)
    assert other.prefix_length == 0
    assert not hasattr(Backbone(other), "persistent_tokens")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("memory", MEMORIES)
def test_a_configuration_survives_the_file_of_a_forecaster(kind: str, memory: str) -> None:
    config = build(kind, memory).config
    assert backbone_from_dict(asdict(config)) == config


def test_a_configuration_of_before_blocks_is_still_read() -> None:
    config = BackboneConfig(memory=MEMORY, num_persistent_tokens=2)
    stored = asdict(config)
    del stored["block"], stored["attention"]
    assert backbone_from_dict(stored) == config


def test_a_memory_only_block_takes_either_memory() -> None:
    for memory in MEMORIES.values():
        block = LongTermMemory(memory).double()
        with torch.no_grad():
            whole, _ = block(tokens())
            y, _ = streamed(block, tokens(), [13])
        torch.testing.assert_close(y, whole, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MemoryAsContext(MEMORIES["deep"], None), "MemoryAsContext takes AttentionConfig"),
        (lambda: LongTermMemory(None), "takes NeuralMemoryConfig or GatedDeltaConfig; got None"),
        (lambda: NeuralMemory(GatedDeltaConfig(dim=DIM)), "NeuralMemory takes NeuralMemoryConfig"),
        (lambda: Backbone(MEMORIES["deep"]), "Backbone takes BackboneConfig; got NeuralMemory"),
        (
            lambda: LongTermMemory(MEMORIES["deep"], mlp_expansion=0),
            "`mlp_expansion` must .* got 0",
        ),
    ],
)
def test_a_configuration_of_another_kind_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_mask_that_is_no_tensor_is_refused() -> None:
    with pytest.raises(ValueError, match=r"mask must be a bool tensor of shape .*; got a list"):
        build("lmm")(tokens(), mask=[True])
