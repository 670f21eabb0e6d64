"""The kernels as PyTorch operators, with gradients: what ``torch.compile`` and ``export`` see.

N = B H memories. The layers of a memory lie on an axis L, each with its S = d_in d_out numbers;
weights and momentum on an axis P, which is 1 where there is no momentum.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from titans_core.ops.chunked_triton.backward import backward_kernel
from titans_core.ops.chunked_triton.blocks import Blocks, blocks
from titans_core.ops.chunked_triton.forward import forward_kernel
from titans_core.ops.chunked_triton.pieces import INTERPRETED

_TOKENS = """
    Tensor q, Tensor k, Tensor v,
    Tensor memory_lr, Tensor? momentum_decay, Tensor forget_gate, Tensor? write_mask,
"""
_MEMORY = "Tensor? rest, Tensor? gain, Tensor? bias,"
_FORM = "int chunk_size, int offset, str activation, bool residual, float? huber_delta"


class _Form(NamedTuple):
    """What is no tensor."""

    chunk_size: int
    offset: int
    activation: str
    residual: bool
    huber_delta: float | None


@torch.library.custom_op(
    "titans_core::neural_memory",
    mutates_args=(),
    schema=f"({_TOKENS} Tensor anchor, Tensor start, {_MEMORY} {_FORM}) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
)
def memory_op(*args: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Write T tokens into N memories, and read them.

    Parameters
    ----------
    q, k, v : Tensor
        ``(B, T, H, D)``.
    memory_lr, momentum_decay, forget_gate, write_mask : Tensor
        ``(B, T, H)`` in float32, and ``(B, T)`` bool; momentum and mask may be None.
    anchor, start : Tensor
        ``(N, L, S)`` and ``(N, P, L, S)``, float32: where the stream is.
    rest, gain, bias : Tensor, optional
        ``(H, L, S)``, ``(H, D)``, ``(H, D)``, float32.
    chunk_size, offset, activation, residual, huber_delta
        As in `neural_memory`.

    Returns
    -------
    y : Tensor
        Like q.
    end : Tensor
        Like start, after the last token.
    opened : Tensor
        Like anchor: the weights when the chunk of the last token began.
    fast : Tensor
        ``(tiles + 2, N, P, L, S)``: the anchor, and what there was before each tile and after the
        last. It is for the backward and has no gradient.
    """
    tensors, form = [_contiguous(x) for x in args[:12]], _Form(*args[12:])
    q, anchor, start = tensors[0], tensors[7], tensors[8]
    tile = _blocks(q, start, form)
    tiles, opened = _tiles(q.shape[1], form, tile)
    fast = start.new_empty(tiles + 2, *start.shape)
    fast[0, :, 0], fast[1] = anchor, start
    y = torch.empty_like(q)
    given = [*tensors[:7], *tensors[9:]]
    forward_kernel[(len(start),)](
        *(fast if x is None else x for x in given),
        fast,
        y,
        start.new_empty(len(start), tile.tokens, q.shape[-1]),
        *_numbers(q, tiles, form),
        **_constants(given, start, form, tile),
    )
    return y, fast[-1].clone(), fast[opened, :, 0].clone(), fast


@memory_op.register_fake
def _(*args: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    q, anchor, start, form = args[0], args[7], args[8], _Form(*args[12:])
    tiles, _ = _tiles(q.shape[1], form, _blocks(q, start, form))
    fast = start.new_empty(tiles + 2, *start.shape)
    return (*(torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, start, anchor)), fast)


@torch.library.custom_op(
    "titans_core::neural_memory_backward",
    mutates_args=(),
    schema=f"(Tensor g_y, Tensor g_end, Tensor g_opened, {_TOKENS} {_MEMORY} Tensor fast, {_FORM}) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def memory_backward_op(g_y: Tensor, g_end: Tensor, g_opened: Tensor, *args: Any) -> tuple[Tensor, ...]:
    """Gradients of q, k, v, the three gates, anchor, start, rest, gain and bias, in float32.

    Of what is None there is an empty one.
    """
    given, fast, form = [_contiguous(x) for x in args[:10]], args[10], _Form(*args[11:])
    q, start = given[0], fast[1]
    tile = _blocks(q, start, form)
    tiles, _ = _tiles(q.shape[1], form, tile)
    found = _gradients(q, given, g_end, g_opened)
    *g_tokens, g_anchor, g_start, g_rest, g_gain, g_bias = found
    room = start.new_empty(len(start), tile.tokens, start.shape[-1] // q.shape[-1] + 3 * q.shape[-1])
    backward_kernel[(len(start),)](
        *(fast if x is None else x for x in given),
        fast,
        g_y.contiguous(),
        *g_tokens,
        g_rest,
        g_gain,
        g_bias,
        g_anchor,
        g_start,
        room,
        *_numbers(q, tiles, form),
        **_constants(given, start, form, tile),
    )
    over_batch = [x.unflatten(0, (len(q), -1)).sum(0) if len(x) else x for x in (g_rest, g_gain, g_bias)]
    return (*g_tokens, g_anchor, g_start, *over_batch)


@memory_backward_op.register_fake
def _(g_y: Tensor, g_end: Tensor, g_opened: Tensor, *args: Any) -> tuple[Tensor, ...]:
    found = _gradients(args[0], args[:10], g_end, g_opened)
    rows = len(args[0])
    return (*found[:8], *(x.new_empty(len(x) // rows, *x.shape[1:]) for x in found[8:]))


def _gradients(q: Tensor, given: Any, g_end: Tensor, g_opened: Tensor) -> list[Tensor]:
    """Where gradients go; rest, gain and bias for each memory."""
    like = [None if x is None else x.shape for x in given]
    n = len(g_end)
    shapes = [
        *like[:6],
        None if like[7] is None else (n, *like[7][1:]),
        None if like[8] is None else (n, *like[8][1:]),
        None if like[9] is None else (n, *like[9][1:]),
    ]
    tokens, per_memory = (
        [g_end.new_zeros((0,) if shape is None else shape) for shape in part]
        for part in (shapes[:6], shapes[6:])
    )
    # The kernel works in place on the two that it is given.
    return [
        *tokens,
        g_opened.clone(memory_format=torch.contiguous_format),
        g_end.clone(memory_format=torch.contiguous_format),
        *per_memory,
    ]


def _setup_context(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs[:7], *inputs[9:12], output[3])
    ctx.form, ctx.shapes = inputs[12:], (inputs[7].shape, inputs[8].shape)
    ctx.mark_non_differentiable(output[3])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, g_y: Any, g_end: Any, g_opened: Any, _: Any) -> Any:
    *given, fast = ctx.saved_tensors
    anchor, start = ctx.shapes
    g_y = torch.zeros_like(given[0]) if g_y is None else g_y
    g_end = fast.new_zeros(start) if g_end is None else g_end
    g_opened = fast.new_zeros(anchor) if g_opened is None else g_opened
    found = memory_backward_op(g_y, g_end, g_opened, *given, fast, *ctx.form)
    q, k, v, memory_lr, momentum_decay, forget_gate, g_anchor, g_start, *slow = found
    needed = [
        q.to(g_y.dtype),
        k.to(g_y.dtype),
        v.to(g_y.dtype),
        memory_lr,
        None if given[4] is None else momentum_decay,
        forget_gate,
        None,
        g_anchor,
        g_start,
        *(None if x is None else g for x, g in zip(given[7:], slow, strict=True)),
    ]
    return (*needed, *(None for _ in ctx.form))


memory_op.register_autograd(_backward, setup_context=_setup_context)


def _contiguous(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.contiguous()


def _blocks(q: Tensor, start: Tensor, form: _Form) -> Blocks:
    dim = q.shape[-1]
    return blocks(dim, start.shape[-1] // dim, form.chunk_size)


def _tiles(time: int, form: _Form, tile: Blocks) -> tuple[int, int]:
    """How many tiles there are, and the row of ``fast`` with the last chunk's anchor."""
    per_chunk = -(-form.chunk_size // tile.tokens)
    before, position = form.offset // tile.tokens, form.offset + time - 1
    chunk, within = position // form.chunk_size, position % form.chunk_size
    tiles = chunk * per_chunk + within // tile.tokens - before + 1
    return tiles, 0 if chunk == 0 else 1 + chunk * per_chunk - before


def _numbers(q: Tensor, tiles: int, form: _Form) -> tuple[Any, ...]:
    """T, H, tiles, offset, chunk_size and the border of Huber's loss."""
    return q.shape[1], q.shape[2], tiles, form.offset, form.chunk_size, form.huber_delta or 0.0


def _constants(given: Any, start: Tensor, form: _Form, tile: Blocks) -> dict[str, Any]:
    q, momentum_decay, write, rest, gain = (given[i] for i in (0, 4, 6, 7, 8))
    dim = q.shape[-1]
    return {
        "D": dim,
        "WIDTH": start.shape[-1] // dim,
        "DEPTH": start.shape[2],
        "HAS_MOMENTUM": momentum_decay is not None,
        "HAS_WRITE": write is not None,
        "HAS_REST": rest is not None,
        "HAS_NORM": gain is not None,
        "HAS_HUBER": form.huber_delta is not None,
        "RESIDUAL": form.residual,
        "GELU": form.activation == "gelu",
        "PRECISION": "bf16" if q.dtype == torch.bfloat16 and not INTERPRETED else "tf32x3",
        "BLOCK_T": tile.tokens,
        "BLOCK_R": tile.rows,
        "num_warps": tile.warps,
        "num_stages": 1,
    }
