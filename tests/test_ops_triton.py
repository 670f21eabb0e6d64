"""The Triton kernels, interpreted on a CPU (or run on a GPU), against the float64 reference."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from memory_inputs import assert_same, converted, cut, random_inputs, random_mask, results, run

from titans_core import NeuralMemory, NeuralMemoryConfig
from titans_core.ops import neural_memory, triton_support

pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = 1e-4
LENGTHS = [(1, 3), (4, 5), (16, 1), (16, 15), (16, 16), (16, 17), (16, 63), (20, 45), (63, 40)]


def inputs_of(time: int, **options: Any) -> dict[str, Any]:
    hidden = 32 if options["depth"] == 2 else 16
    return random_inputs(time, **{"dim": 16, "hidden": hidden, "batch": 1, **options})


def assert_kernels_agree(inputs: dict[str, Any], **options: Any) -> None:
    """Outputs, final state and gradients of float32 kernels, each with its own largest entry."""
    single = converted(inputs, torch.float32)
    moved = {name: on_device(value) for name, value in single.items()}
    actual = run(moved, "triton", **options)
    assert_same(on_cpu(actual), run(inputs, "reference", **options), TOLERANCE)


def on_device(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(on_device(x) for x in value)
    if isinstance(value, torch.Tensor):
        leaf = value.detach().to(DEVICE)
        return leaf.requires_grad_() if leaf.is_floating_point() else leaf
    return value


def on_cpu(named: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: x.detach().cpu().double() for name, x in named.items()}


@pytest.mark.gpu
@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize(("chunk_size", "time"), LENGTHS)
def test_kernels_equal_the_reference(depth: int, chunk_size: int, time: int) -> None:
    shared = depth == 2
    inputs = inputs_of(time, depth=depth, norm=shared)
    assert_kernels_agree(
        inputs,
        chunk_size=chunk_size,
        residual=shared,
        forget_toward="initial" if shared else "zero",
    )


@pytest.mark.gpu
@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("momentum", [False, True])
@pytest.mark.parametrize("toward", ["zero", "initial"])
def test_every_form_of_the_memory(
    depth: int, residual: bool, norm: bool, momentum: bool, toward: str
) -> None:
    inputs = inputs_of(21, depth=depth, norm=norm, momentum=momentum, heads=1)
    assert_kernels_agree(inputs, chunk_size=16, residual=residual, forget_toward=toward)


@pytest.mark.gpu
@pytest.mark.parametrize("depth", [1, 2])
def test_a_clipped_loss_and_the_other_activation(depth: int) -> None:
    inputs = inputs_of(20, depth=depth, norm=True)
    assert_kernels_agree(inputs, chunk_size=8, huber_delta=0.3, activation="gelu", residual=True)


@pytest.mark.gpu
@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("momentum", [False, True])
@pytest.mark.parametrize("kind", ["all masked", "random", "ragged"])
def test_masked_tokens_change_nothing(kind: str, momentum: bool) -> None:
    inputs = inputs_of(20, depth=2, norm=True, momentum=momentum, batch=2, heads=1)
    mask = random_mask(kind, 2, 20, 16)
    assert mask is not None
    with torch.no_grad():
        inputs["k"][~mask] = torch.nan
    inputs["write_mask"] = mask
    assert_kernels_agree(inputs, chunk_size=16, residual=True)


@pytest.mark.gpu
@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("cuts", [(3,), (16, 32), (5, 6, 30)])
def test_a_stream_may_be_cut_anywhere(cuts: tuple[int, ...]) -> None:
    options: dict[str, Any] = {"chunk_size": 20, "residual": True, "forget_toward": "initial"}
    inputs = inputs_of(43, depth=2, norm=True, heads=1)
    moved = {name: on_device(x) for name, x in converted(inputs, torch.float32).items()}
    outputs, state = [], None
    for start, stop in pairwise((0, *cuts, 43)):
        part = cut(moved, start, stop)
        y, state = neural_memory(**part, state=state, implementation="triton", **options)
        outputs.append(y)
    assert state is not None
    actual = results(torch.cat(outputs, dim=1), state, moved)
    assert_same(on_cpu(actual), run(inputs, "reference", **options), TOLERANCE)


@pytest.mark.gpu
@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("chunk_size", [5, 24])
def test_a_long_stream_is_taken_in_segments_and_written_again_in_the_backward(
    monkeypatch: pytest.MonkeyPatch, chunk_size: int, depth: int
) -> None:
    from titans_core.ops import chunked_triton

    monkeypatch.setattr(chunked_triton, "SEGMENT_BYTES", 1)  # sqrt(tiles) at a time
    monkeypatch.setattr(chunked_triton, "KEPT_BYTES", 0)
    inputs = inputs_of(40, depth=depth, norm=depth == 2, heads=1)
    inputs["write_mask"] = torch.arange(40)[None] % 3 > 0
    assert_kernels_agree(inputs, chunk_size=chunk_size, forget_toward="initial")


@pytest.mark.parametrize("chunk_size", [1, 8, 16, 17, 1000])
@pytest.mark.parametrize("learning", [False, True])
def test_no_segment_takes_more_room_than_it_may(
    monkeypatch: pytest.MonkeyPatch, chunk_size: int, learning: bool
) -> None:
    from titans_core.ops import chunked_triton
    from titans_core.ops.chunked_triton import op

    tile = 2 * 16 * 16 * 4  # bytes of W and S
    monkeypatch.setattr(chunked_triton, "SEGMENT_BYTES", 4 * tile)
    monkeypatch.setattr(chunked_triton, "KEPT_BYTES", 0)
    write, written = op._write, []

    def recording(*args: Any) -> dict[str, torch.Tensor]:
        made = write(*args)
        written.append(made["fast"].nbytes // tile)
        return made

    monkeypatch.setattr(op, "_write", recording)
    single = converted(inputs_of(64, depth=1, norm=False, heads=1), torch.float32)
    with torch.set_grad_enabled(learning):
        neural_memory(**single, chunk_size=chunk_size, implementation="triton")
    full = -(-64 // chunk_size) * -(-min(chunk_size, 64) // 16)  # tiles of all
    most = max(4, int(full**0.5)) if learning else 4
    # The anchor and the start lie there, too, and a cut may fall inside a tile.
    assert max(written) <= most + 3
    assert len(written) >= full // (most + 1)


@pytest.mark.gpu
def test_kernels_start_on_the_gpu_of_their_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    from titans_core.ops.chunked_triton import launch

    guarded, started = [], []
    own, start = torch.cuda.device_of, launch.Launch._start

    def device_of(tensor: torch.Tensor) -> Any:
        guarded.append(tensor.device)
        return own(tensor)

    def starting(self: Any, *args: Any) -> None:
        started.append(self.tensors["q"].device)
        start(self, *args)

    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    monkeypatch.setattr(launch.Launch, "_start", starting)
    single = converted(inputs_of(4, depth=1, norm=False, heads=1), torch.float32)
    moved = {name: on_device(x) for name, x in single.items()}
    y, _ = neural_memory(**moved, chunk_size=4, implementation="triton")
    y.sum().backward()
    assert guarded == started
    assert len(started) == 8


@pytest.mark.gpu
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_gates_that_are_shut_or_fully_open(value: float) -> None:
    inputs = inputs_of(20, depth=1, norm=False)
    with torch.no_grad():
        inputs["forget_gate"][:, 7:9] = value
        inputs["momentum_decay"][:, 3:5] = value
    assert_kernels_agree(inputs, chunk_size=16)


@pytest.mark.gpu
@pytest.mark.parametrize(("dim", "hidden"), [(32, 48), (64, 64), (128, 128)])
def test_wider_heads(dim: int, hidden: int) -> None:
    inputs = inputs_of(17, depth=2, norm=True, dim=dim, hidden=hidden, heads=1)
    assert_kernels_agree(inputs, chunk_size=16, residual=True, forget_toward="initial")


@pytest.mark.gpu
@pytest.mark.parametrize("depth", [1, 2])
def test_inputs_in_bfloat16_are_summed_in_float32(depth: int) -> None:
    inputs = inputs_of(33, depth=depth, norm=depth == 2)
    half = converted(converted(inputs, torch.bfloat16), torch.float32)  # the same numbers
    moved = {name: on_device(x) for name, x in half.items()}
    for name in ("q", "k", "v"):
        moved[name] = moved[name].detach().bfloat16().requires_grad_()
    options: dict[str, Any] = {"chunk_size": 16, "residual": depth == 2}
    y, state = neural_memory(**moved, implementation="triton", **options)
    assert y.dtype == torch.bfloat16
    assert all(w.dtype == torch.float32 for w in (*state.weights, *state.momentum))
    expected = run(converted(half, torch.float64), "reference", **options)
    # Outputs and gradients of tokens are rounded to 8 bits; on a GPU every factor is, too.
    assert_same(on_cpu(results(y, state, moved)), expected, 1e-2 if DEVICE == "cpu" else 5e-2)


@pytest.mark.gpu
def test_the_operator_is_registered_as_pytorch_wants_it() -> None:
    from titans_core.ops.chunked_triton.op import memory_op

    inputs = {
        k: on_device(x)
        for k, x in converted(inputs_of(18, depth=2, norm=True), torch.float32).items()
    }
    first, last = inputs["initial_weights"]
    weights = torch.stack([first.mT.flatten(1), last.flatten(1)], dim=1).detach()  # B is 1
    start = torch.stack([weights, torch.zeros_like(weights)], dim=1)
    gain, bias = inputs["norm"]
    names = ("q", "k", "v", "memory_lr", "momentum_decay", "forget_gate")
    tensors = [inputs[name] for name in names]
    mask = torch.ones(1, 18, dtype=torch.bool, device=DEVICE)
    form = (16, 0, "silu", True, None)
    given = (*tensors, mask, weights.requires_grad_(), gain, bias, weights.clone(), start, *form)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    for keep in (True, False):
        torch.library.opcheck(memory_op, (*given, keep), test_utils=checks)
    without = (
        *tensors[:4],
        None,
        tensors[5],
        None,
        None,
        None,
        None,
        weights.detach(),
        start[:, :1],
    )
    torch.library.opcheck(memory_op, (*without, *form, True), test_utils=checks)


@pytest.mark.gpu
def test_a_layer_exports_with_the_operator_in_it() -> None:
    layer = NeuralMemory(NeuralMemoryConfig(dim=16, chunk_size=16)).to(DEVICE)

    class Fused(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.start = torch.nn.ParameterList(w.detach() for w in layer.initial_weights)

        def forward(self, x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
            y, _ = neural_memory(
                x, x, x, gate, gate, gate, list(self.start), chunk_size=16, implementation="triton"
            )
            return y

    x = torch.nn.functional.normalize(torch.randn(1, 20, 1, 16, device=DEVICE), dim=-1)
    gate = torch.full((1, 20, 1), 0.01, device=DEVICE)
    program = torch.export.export(Fused().to(DEVICE), (x, gate))
    graphs = [m.graph for m in program.graph_module.modules() if hasattr(m, "graph")]
    targets = [str(node.target) for graph in graphs for node in graph.nodes]
    assert "titans_core.neural_memory.default" in targets
    torch.testing.assert_close(program.module()(x, gate), Fused().to(DEVICE)(x, gate))


@pytest.mark.gpu
def test_a_compiled_function_keeps_the_operator_and_its_gradients() -> None:
    single = converted(inputs_of(18, depth=2, norm=True, heads=1), torch.float32)
    inputs = {name: on_device(x) for name, x in single.items()}

    def total(k: torch.Tensor) -> torch.Tensor:
        y, state = neural_memory(
            **{**inputs, "k": k}, chunk_size=16, residual=True, implementation="triton"
        )
        return y.sum() + state.weights[0].sum()

    expected = torch.autograd.grad(total(inputs["k"]), inputs["k"])[0]
    compiled = torch.compile(total, backend="aot_eager", fullgraph=True)
    actual = torch.autograd.grad(compiled(inputs["k"]), inputs["k"])[0]
    torch.testing.assert_close(actual, expected)


def test_asked_for_by_name_it_says_what_it_cannot_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(message: str, time: int = 4, dtype: Any = torch.float32, **options: Any) -> None:
        of_inputs = {"depth": 2, "norm": False, "dim": 16, "hidden": 16}
        of_inputs |= {k: options.pop(k) for k in ("depth", "dim", "hidden") if k in options}
        inputs = converted(random_inputs(time, **of_inputs), dtype)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=message):
            neural_memory(**inputs, chunk_size=4, implementation="triton", **options)

    refused("depth 1 and 2, not 3", depth=3)
    refused(r"\(16, 32, 64, 128\) channels, not 24", dim=24)
    refused("multiple of 16, not 24", hidden=24)
    refused("multiple of 32, not 48", dim=128, hidden=48)
    refused("not torch.float64", dtype=torch.float64)
    refused("chunk_start", read="chunk_start")
    refused("no trace", trace=[])
    monkeypatch.setattr(triton_support, "_OLDEST", (99, 0))
    refused("need triton >= 99.0; installed is 3")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    if DEVICE == "cpu":
        refused("on a GPU")


def test_without_triton_everything_else_works() -> None:
    code = """
import sys
sys.modules["triton"] = None
import torch
from titans_core import NeuralMemory, NeuralMemoryConfig
y, state = NeuralMemory(NeuralMemoryConfig(dim=16))(torch.randn(2, 40, 16))
y.sum().backward()
print(tuple(y.shape))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(2, 40, 16)"


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        ("sys.modules['triton'] = None", "triton cannot be imported"),
        ("import triton", "set it before Python starts"),
    ],
)
def test_by_name_it_says_what_is_wrong_with_triton(before: str, reason: str) -> None:
    code = f"""
import os, sys
os.environ.pop("TRITON_INTERPRET", None)
{before}
os.environ["TRITON_INTERPRET"] = "1"
import torch
from titans_core.ops import neural_memory
x, gate = torch.ones(1, 4, 1, 16), torch.ones(1, 4, 1) / 9
try:
    neural_memory(x, x, x, gate, gate, gate, [x[:, 0, :, None].expand(1, 1, 16, 16)[0]],
                  chunk_size=4, implementation="triton")
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert reason in done.stdout


def test_a_second_gradient_is_refused() -> None:
    inputs = converted(inputs_of(5, depth=1, norm=False), torch.float32)
    moved = {name: on_device(x) for name, x in inputs.items()}
    y, _ = neural_memory(**moved, chunk_size=4, implementation="triton")
    (g,) = torch.autograd.grad(y.sum(), moved["k"], create_graph=True)
    with pytest.raises(NotImplementedError, match="take implementation='reference'"):
        g.sum().backward()


@pytest.mark.parametrize(("hip", "capability"), [(None, (7, 5)), ("6.0", (9, 0))])
def test_a_gpu_that_the_kernels_are_not_for_is_left_to_torch(
    monkeypatch: pytest.MonkeyPatch, hip: str | None, capability: tuple[int, int]
) -> None:
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    q = SimpleNamespace(is_cuda=True, device="cuda:0")
    why_not = triton_support.why_not_triton(q, (), "inclusive", False)  # type: ignore[arg-type]
    assert why_not is not None
    assert "compute capability 8.0" in why_not
