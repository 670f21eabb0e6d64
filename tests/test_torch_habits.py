"""What users of PyTorch try with a module before they trust it: zeros, meta, export, dtypes."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import titans_core
from titans_core import (
    AttentionConfig,
    Backbone,
    BackboneConfig,
    GatedDeltaConfig,
    GatedDeltaNet,
    NeuralMemory,
    NeuralMemoryConfig,
    backbone_from_dict,
    join_states,
    record_memory,
    state_from_dict,
    state_to_dict,
)
from titans_core.ops import gated_delta, neural_memory
from titans_core.persistence import load_tree, save_tree

DIM = 16
MEMORIES: dict[str, Any] = {
    "memory": NeuralMemoryConfig(dim=DIM, num_heads=2, chunk_size=4),
    "no convolution": NeuralMemoryConfig(dim=DIM, num_heads=2, chunk_size=4, conv_width=1),
    "gated delta": GatedDeltaConfig(dim=DIM, num_heads=2),
}
BLOCKS = ["lmm", "mac", "mag", "mal", "attention"]


def build(block: str, memory: str = "memory", num_blocks: int = 1, **options: Any) -> Backbone:
    torch.manual_seed(0)
    attention = None if block == "lmm" else AttentionConfig(num_heads=2, window=8)
    return Backbone(
        BackboneConfig(
            memory=MEMORIES[memory],
            block=block,
            num_blocks=num_blocks,
            attention=attention,
            **options,
        )
    )


@pytest.mark.parametrize("memory", ["memory", "gated delta"])
@pytest.mark.parametrize("block", BLOCKS)
def test_a_token_of_zeros_does_not_blow_up_the_gradient_of_a_deep_stack(
    block: str, memory: str
) -> None:
    module = build(block, memory, num_blocks=12)
    x = torch.randn(2, 24, DIM)
    x[:, 10] = 0
    x.requires_grad_()
    y, _ = module(x)
    nn.functional.cross_entropy(y.flatten(0, 1), torch.arange(48) % DIM).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in module.parameters())
    assert x.grad is not None
    steep = x.grad.norm(dim=-1)
    # The slope of the first norm at zero is 1 / sqrt(eps), some 3000; norms after it add nothing.
    assert steep[:, 10].max() < 1e6 * steep[:, 9].min()
    assert max(p.grad.abs().max() for p in module.parameters() if p.grad is not None) < 1e3


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("block", BLOCKS)
def test_reset_parameters_reaches_every_parameter(block: str, memory: str) -> None:
    with torch.device("meta"):
        module = build(block, memory)
    module.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(777.0)
        for part in module.modules():
            if hasattr(part, "reset_parameters"):
                part.reset_parameters()
    assert not [name for name, p in module.named_parameters() if (p == 777).any()]
    assert module(torch.randn(1, 12, DIM))[0].isfinite().all()


@pytest.mark.parametrize("block", BLOCKS)
def test_a_module_runs_on_the_meta_device(block: str) -> None:
    module = build(block).to("meta")
    y, _ = module(torch.randn(2, 20, DIM, device="meta"))
    assert y.shape == (2, 20, DIM)


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("block", BLOCKS)
def test_an_exported_program_takes_any_batch(block: str, memory: str) -> None:
    module = build(block, memory).eval()
    batch = torch.export.Dim("batch", min=2, max=64)
    with torch.no_grad():
        program = torch.export.export(
            module, (torch.randn(3, 20, DIM),), dynamic_shapes=({0: batch},)
        )
        x = torch.randn(7, 20, DIM)
        torch.testing.assert_close(program.module()(x)[0], module(x)[0])


# Dtypes and shapes


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (
            torch.ones(1, 5, DIM).long(),
            ValueError,
            "embedded tokens, of torch.float32; got torch.int",
        ),
        (
            torch.ones(1, 5, DIM).double(),
            ValueError,
            "of torch.float32, as the module's parameters",
        ),
        (torch.ones(1, 5, DIM).bfloat16(), ValueError, "got torch.bfloat16. Convert one of them"),
        ([[0.0] * DIM], TypeError, "x must be a tensor; got a list"),
    ],
    ids=["token ids", "float64", "bfloat16", "list"],
)
def test_tokens_of_another_dtype_are_refused(
    block: str, x: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        build(block)(x)
    with pytest.raises(error, match=message):
        build(block).blocks[0](x)


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
def test_under_autocast_tokens_may_be_narrower() -> None:
    module = build("mag")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, _ = module(torch.randn(1, 9, DIM).bfloat16())
    assert y.isfinite().all()


@pytest.mark.parametrize("config", [NeuralMemoryConfig, GatedDeltaConfig])
def test_heads_of_one_channel_are_refused(config: Any) -> None:
    with pytest.raises(ValueError, match="at least 2 of the 8 channels, or it can learn nothing"):
        config(dim=8, num_heads=8)


@pytest.mark.parametrize("memory", [NeuralMemory, GatedDeltaNet])
def test_queries_of_another_shape_are_refused(memory: Any) -> None:
    layer = memory(MEMORIES["memory" if memory is NeuralMemory else "gated delta"])
    weights = layer.fast_weights(None, 2)
    for shape in [(3, 5, DIM), (2, 5, DIM + 2), (5, DIM)]:
        with pytest.raises(ValueError, match=rf"queries must have shape \(2, T, {DIM}\); got"):
            layer.retrieve(torch.ones(shape), weights)


def test_gates_that_are_no_tensors_are_refused() -> None:
    q = torch.ones(1, 3, 1, 4)
    gate = torch.full((1, 3, 1), 0.1)
    with pytest.raises(ValueError, match="memory_lr must be a tensor; got a float"):
        neural_memory(
            q,
            q,
            q,
            0.1,  # type: ignore[arg-type]
            None,
            gate,
            (torch.ones(1, 4, 4),),
            chunk_size=2,
        )
    assert gated_delta(q, q, q, gate, gate)[0].shape == q.shape


# States


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_and_a_layer_save_their_states_too(block: str, tmp_path: Path) -> None:
    module = build(block).blocks[0]
    x = torch.randn(2, 21, DIM)
    with torch.no_grad():
        _, state = module(x[:, :13])
        save_tree(tmp_path / "state", state_to_dict(state), kind="state")
        restored = state_from_dict(load_tree(tmp_path / "state", kind="state"))
        assert type(restored) is type(state)
        assert torch.equal(module(x[:, 13:], restored)[0], module(x[:, 13:], state)[0])


def test_what_is_no_state_is_named() -> None:
    with pytest.raises(TypeError, match="state must be that of a module; got a tuple"):
        state_to_dict((torch.ones(1),))
    whole = state_to_dict(build("lmm")(torch.ones(1, 5, DIM))[1])
    damaged: list[Any] = [{**whole, "state": {"type": "Other"}}, {"format_version": 3}]
    damaged.append({**whole, "state": {"type": "BackboneState", "layers": ()}})
    for tree in damaged:
        with pytest.raises(ValueError, match="state is damaged"):
            state_from_dict(tree)


def test_streams_that_were_read_apart_are_joined() -> None:
    assert "join_states" in titans_core.__all__
    module, x = build("mac"), torch.randn(2, 20, DIM)
    with torch.no_grad():
        _, together = module(x[:, :11])
        apart = join_states([module(row[None, :11])[1] for row in x])
        expected, actual = module(x[:, 11:], together)[0], module(x[:, 11:], apart)[0]
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def test_gates_of_masked_tokens_are_recorded_as_shut() -> None:
    module, mask = build("lmm"), torch.ones(2, 12, dtype=torch.bool)
    mask[1, 7:] = False
    with record_memory(module) as records, torch.no_grad():
        module(torch.randn(2, 12, DIM), mask=mask)
    (record,) = records.values()
    mask = torch.cat([torch.ones(2, record.memory_lr.shape[1] - 12, dtype=torch.bool), mask], dim=1)
    for gate in (record.memory_lr, record.momentum_decay, record.forget_gate):
        assert (gate[~mask] == 0).all()
        assert (gate[mask] > 0).all()


@pytest.mark.parametrize("memory", MEMORIES)
def test_a_module_is_rebuilt_from_its_configuration_and_its_parameters(memory: str) -> None:
    module, file = build("mal", memory), io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    stored = json.dumps(asdict(module.config))
    other = Backbone(backbone_from_dict(json.loads(stored)))
    other.load_state_dict(torch.load(file))
    x: Tensor = torch.randn(1, 9, DIM)
    assert torch.equal(module(x)[0], other(x)[0])
