"""``record_memory``: what it shows is what happened, and watching changes and costs nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from titans_core import (
    AttentionConfig,
    Backbone,
    BackboneConfig,
    GatedDeltaConfig,
    LongTermMemory,
    MemoryAsContext,
    MemoryAsGate,
    MemoryAsLayer,
    NeuralMemory,
    NeuralMemoryConfig,
    map_state,
    record_memory,
)
from titans_core.ops import MemoryTrace, neural_memory
from titans_core.state import MemoryRecord

DIM, TIME = 16, 23
BLOCKS: dict[str, type[nn.Module]] = {
    "mac": MemoryAsContext,
    "mag": MemoryAsGate,
    "mal": MemoryAsLayer,
}
ATTENTION = AttentionConfig(num_heads=2, window=7, num_persistent_tokens=3)


def config(**options: Any) -> NeuralMemoryConfig:
    return NeuralMemoryConfig(**{"dim": DIM, "num_heads": 2, "chunk_size": 5, **options})


def layer(**options: Any) -> NeuralMemory:
    memory = NeuralMemory(config(**options)).double()
    with torch.no_grad():
        memory.gates.weight.normal_()  # gates that differ from token to token
    return memory


def backbone(kind: str = "lmm") -> Backbone:
    attention = None if kind == "lmm" else ATTENTION
    return Backbone(BackboneConfig(memory=config(), block=kind, attention=attention)).double()


def tokens(time: int = TIME, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, time, DIM, generator=generator, dtype=torch.float64)


def leaves(state: Any) -> list[Tensor]:
    found: list[Tensor] = []
    map_state(lambda x: found.append(x) or x, state)
    return found


def assert_close(actual: MemoryRecord, expected: MemoryRecord) -> None:
    for name, a, b in zip(MemoryRecord._fields, actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"depth": 1},
        {"huber_delta": 0.5, "read": "chunk_start"},
        {"forget_toward": "zero", "normalize_momentum": False, "max_memory_lr": 0.3},
    ],
)
def test_a_record_holds_the_gates_and_what_the_operation_says_of_them(
    options: dict[str, Any],
) -> None:
    memory = layer(**options)
    with record_memory(memory) as records:
        memory(tokens())
    assert list(records) == [""]
    record = records[""]

    step, carry, forget = memory.gates(tokens()).detach().sigmoid().split(2, dim=-1)
    settings = memory.config
    memory_lr = step * settings.max_memory_lr / settings.chunk_size
    if forget is not None:
        memory_lr = memory_lr * (1 - forget / 2)
    if settings.normalize_momentum:
        memory_lr = memory_lr * (1 - carry)
    q, k, v, _ = memory.qkv(tokens(), None)
    trace: list[MemoryTrace] = []
    norm = None if memory.norm_gain is None else (memory.norm_gain, memory.norm_bias)
    neural_memory(
        q,
        k,
        v,
        memory_lr,
        carry,
        forget,
        tuple(memory.initial_weights),
        chunk_size=5,
        residual=settings.has_residual,
        norm=norm,
        huber_delta=settings.huber_delta,
        forget_toward=settings.forget_toward,
        trace=trace,
        implementation="reference",
    )
    expected = MemoryRecord(trace[0].surprise, memory_lr, carry, forget, trace[0].memory_norm)
    assert_close(record, expected)
    for name, value in record._asdict().items():
        assert not value.requires_grad, name
        assert value.std() > 0, name


@pytest.mark.parametrize("left_out", ["momentum", "forgetting"])
def test_a_gate_that_the_layer_does_not_have_is_recorded_as_zero(left_out: str) -> None:
    memory = layer(**{left_out: False})
    with record_memory(memory) as records:
        memory(tokens())
    gates = {
        "momentum": records[""].momentum_decay,
        "forgetting": records[""].forget_gate,
    }
    assert gates.pop(left_out).abs().max() == 0
    assert gates.popitem()[1].min() > 0
    assert records[""].surprise.min() > 0


def test_a_frozen_memory_is_surprised_but_takes_no_step() -> None:
    memory = layer(test_time_learning=False)
    with record_memory(memory) as records:
        memory(tokens())
    start = torch.stack([w.square().sum((1, 2)) for w in memory.initial_weights]).sum(0).sqrt()
    assert records[""].memory_lr.abs().max() == 0
    assert records[""].surprise.min() > 0
    torch.testing.assert_close(records[""].memory_norm, start.detach().expand(2, TIME, 2))


@pytest.mark.parametrize("cuts", [[5], [1, 2, 9], [7, 13, 22]])
def test_several_calls_are_joined_as_one_stream(cuts: list[int]) -> None:
    memory = layer()
    with record_memory(memory) as whole:
        memory(tokens())
    with record_memory(memory) as joined:
        state = None
        for start, stop in zip([0, *cuts], [*cuts, TIME], strict=True):
            _, state = memory(tokens()[:, start:stop], state)
    assert_close(joined[""], whole[""])


@pytest.mark.parametrize("kind", ["lmm", *BLOCKS])
def test_memories_of_a_stack_go_by_their_names(kind: str) -> None:
    module = nn.ModuleDict({"inner": backbone(kind), "other": nn.Linear(3, 3)})
    names = ["inner.blocks.0.memory", "inner.blocks.1.memory"]
    with record_memory(module) as records:
        assert records == {}  # filled when the block ends
        module["inner"](tokens())
    assert list(records) == names
    # Each by itself: a name stands for the layer that it names.
    for name in names:
        with record_memory(module.get_submodule(name)) as alone:
            module["inner"](tokens())
        assert_close(alone[""], records[name])
    first, second = records.values()
    assert (first.surprise - second.surprise).abs().min() > 0


def test_a_layer_that_was_not_called_has_no_record() -> None:
    module = backbone()
    with record_memory(module) as records:
        module.blocks[1](tokens())
    assert list(records) == ["blocks.1.memory"]


@pytest.mark.parametrize("kind", ["mag", "mal"])
def test_gate_and_layer_show_the_persistent_tokens_first(kind: str) -> None:
    block: Any = BLOCKS[kind](config(), ATTENTION).double()
    with record_memory(block) as records:
        block(tokens())
    persistent = block.norm(block.persistent_tokens).expand(2, -1, -1)
    with record_memory(block.memory) as alone:
        block.memory(torch.cat([persistent, block.norm(tokens())], dim=1))
    assert records["memory"].surprise.shape == (2, 3 + TIME, 2)
    assert_close(records["memory"], alone[""])


def test_context_shows_every_token_once_though_it_comes_in_segments() -> None:
    block = MemoryAsContext(config(), ATTENTION).double()
    written: list[Tensor] = []
    block.memory.register_forward_pre_hook(lambda _, args: written.append(args[0]))
    with record_memory(block) as records:
        block(tokens())
    assert [x.shape[1] for x in written] == [7, 7, 7, 2]  # segments of the window
    attended = torch.cat(written, dim=1)
    with record_memory(block.memory) as alone:
        block.memory(attended)
    assert records["memory"].surprise.shape == (2, TIME, 2)
    assert_close(records["memory"], alone[""])


def test_nothing_is_recorded_outside_of_the_block() -> None:
    module = backbone()
    memories = [m for m in module.modules() if isinstance(m, NeuralMemory)]
    module(tokens())
    with record_memory(module) as records:
        module(tokens())
    shown = {name: record.surprise.clone() for name, record in records.items()}
    module(tokens())
    assert [m.records for m in memories] == [None, None]
    for name, surprise in shown.items():
        assert torch.equal(records[name].surprise, surprise)
        assert surprise.shape[1] == TIME + 4  # one call, and the persistent tokens


def test_after_an_exception_nothing_records_any_more() -> None:
    module = backbone()
    memories = [m for m in module.modules() if isinstance(m, NeuralMemory)]
    records: dict[str, MemoryRecord] = {}

    def fail() -> None:
        nonlocal records
        with record_memory(module) as records:
            module(tokens())
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail()
    assert [m.records for m in memories] == [None, None]
    assert records == {}


def test_a_block_inside_of_another_takes_over_until_it_ends() -> None:
    memory = layer()
    with record_memory(memory) as outer:
        _, state = memory(tokens()[:, :3])
        with record_memory(memory) as inner:
            _, state = memory(tokens()[:, 3:8], state)
        memory(tokens()[:, 8:], state)
    assert memory.records is None
    assert inner[""].surprise.shape[1] == 5
    assert outer[""].surprise.shape[1] == TIME - 5


@pytest.mark.parametrize("kind", ["lmm", *BLOCKS])
@pytest.mark.parametrize("masked", [False, True])
def test_watching_changes_no_output_no_state_and_no_gradient(kind: str, masked: bool) -> None:
    module = backbone(kind)
    mask = torch.arange(TIME).expand(2, -1) % 5 != 3 if masked else None

    def outcome() -> list[Tensor]:
        x = tokens().requires_grad_()
        y, state = module(x, None, mask)
        objective = y.square().sum() + sum(leaf.double().sum() for leaf in leaves(state))
        given = [x, *module.parameters()]
        gradients = torch.autograd.grad(objective, given, materialize_grads=True)
        return [y, *leaves(state), *gradients]

    alone = outcome()
    with record_memory(module) as records:
        watched = outcome()
    assert len(records) == 2
    for a, b in zip(watched, alone, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kind", ["layer", *BLOCKS])
def test_a_masked_token_surprises_nobody(kind: str) -> None:
    module: Any = layer() if kind == "layer" else BLOCKS[kind](config(), ATTENTION).double()
    mask = torch.ones(2, TIME, dtype=torch.bool)
    mask[0, [0, 6, 7]] = False
    mask[1, 11:] = False
    with record_memory(module) as records:
        module(tokens(), None, mask)
    (record,) = records.values()
    surprise = record.surprise[:, record.surprise.shape[1] - TIME :]
    assert surprise[~mask].max() == 0
    assert surprise[mask].min() > 0


@pytest.mark.parametrize("depth", [1, 2])
def test_a_pair_that_contradicts_what_was_stored_surprises_more_than_one_repeated(
    depth: int,
) -> None:
    # Channels 0-7 of a token make its key, 8-15 its value.
    memory = layer(depth=depth, conv_width=1, chunk_size=1, num_heads=1)
    with torch.no_grad():
        memory.gates.weight.zero_()
        weight = memory.qkv.projection.weight.zero_().unflatten(0, (3, DIM))
        weight[1, :8, :8] = torch.eye(8)
        weight[2, 8:, 8:] = torch.eye(8)
    pair = tokens()[:1, :1].expand(1, 100, DIM).clone()
    pair[:, 80, 8:] = tokens()[:1, 1, 8:]  # the same key, another value
    with record_memory(memory) as records, torch.no_grad():
        memory(pair)
    surprise = records[""].surprise[0, :, 0]
    assert surprise[79] < 0.1 * surprise[0]
    assert surprise[80] > 10 * surprise[79]


def test_without_a_watcher_no_trace_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    module = backbone("mac")

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a trace was built")

    monkeypatch.setattr(MemoryTrace, "__new__", refuse)
    monkeypatch.setattr(MemoryRecord, "__new__", refuse)
    y, _ = module(tokens())
    y.sum().backward()
    with pytest.raises(AssertionError, match="a trace was built"), record_memory(module):
        module(tokens())
    module(tokens())


def test_a_module_without_a_neural_memory_is_refused() -> None:
    with (
        pytest.raises(ValueError, match="Linear holds no NeuralMemory to record"),
        record_memory(nn.Linear(2, 2)),
    ):
        pass
    matrix = LongTermMemory(GatedDeltaConfig(dim=DIM))
    with (
        pytest.raises(ValueError, match="LongTermMemory holds no NeuralMemory to record"),
        record_memory(matrix),
    ):
        pass


def test_streams_of_unequal_batch_leave_no_layer_recording() -> None:
    module = backbone()

    def watch() -> None:
        with record_memory(module):
            module(tokens())
            module(tokens(batch=3))

    with pytest.raises(ValueError, match=r"had batches of \[2, 3\]"):
        watch()
    assert [m.records for m in module.modules() if isinstance(m, NeuralMemory)] == [None, None]
