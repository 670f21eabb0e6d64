"""The kernels as PyTorch operators, with gradients: what ``torch.compile`` and ``export`` see.

N = B H memories. The layers of a memory lie on an axis L, each with S = WIDTH D numbers; weights
and momentum on an axis P, which is 1 where there is no momentum.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from titans_core.ops.chunked_triton.blocks import BLOCK_T
from titans_core.ops.chunked_triton.launch import Form, Launch
from titans_core.ops.chunked_triton.gates import gates_backward_kernel
from titans_core.ops.chunked_triton.read import read_backward_kernel, read_kernel
from titans_core.ops.chunked_triton.write import write_backward_kernel, write_kernel

_TOKENS = """
    Tensor q, Tensor k, Tensor v,
    Tensor memory_lr, Tensor? momentum_decay, Tensor forget_gate, Tensor? write_mask,
"""
_SLOW = "Tensor? rest, Tensor? gain, Tensor? bias,"
_FORM = "int chunk_size, int offset, str activation, bool residual, float? huber_delta"


@torch.library.custom_op(
    "titans_core::neural_memory",
    mutates_args=(),
    schema=f"({_TOKENS} {_SLOW} Tensor anchor, Tensor start, {_FORM}) "
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
    rest, gain, bias : Tensor, optional
        ``(H, L, S)``, ``(H, D)``, ``(H, D)``, float32.
    anchor, start : Tensor
        ``(N, L, S)`` and ``(N, P, L, S)``, float32: where the stream is.
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
    anchor, start = args[10:12]
    launch = Launch(args[:10], start.shape, Form(*args[12:]))
    fast = start.new_empty(launch.tiles + 2, *start.shape)
    fast[0, :, 0], fast[1] = anchor, start
    deltas = launch.room(launch.dim)
    y = torch.empty_like(args[0], memory_format=torch.contiguous_format)
    launch(write_kernel, len(start), fast=fast, deltas=deltas, **launch.gates())
    launch(read_kernel, launch.tiles * len(start), fast=fast, deltas=deltas, y=y)
    return y, fast[-1].clone(), fast[launch.opened, :, 0].clone(), fast


@memory_op.register_fake
def _(*args: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    q, anchor, start = args[0], *args[10:12]
    launch = Launch(args[:10], start.shape, Form(*args[12:]))
    fast = start.new_empty(launch.tiles + 2, *start.shape)
    return q.new_empty(q.shape), start.new_empty(start.shape), anchor.new_empty(anchor.shape), fast


@torch.library.custom_op(
    "titans_core::neural_memory_backward",
    mutates_args=(),
    schema=f"({_TOKENS} {_SLOW} Tensor fast, Tensor g_y, Tensor g_end, Tensor g_opened, {_FORM}) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def memory_backward_op(*args: Any) -> tuple[Tensor, ...]:
    """Gradients of q, k, v, the three gates, rest, gain, bias, anchor and start, in float32.

    Of what is None there is an empty one.
    """
    fast, g_y, g_end, g_opened = args[10:14]
    launch = Launch(args[:10], fast.shape[1:], Form(*args[14:]))
    n, parts, layers, size = g_end.shape
    width, tiles = size // launch.dim, launch.tiles
    names = ("g_q", "g_k", "g_v", "g_theta", "g_eta", "g_alpha")
    g_tokens = dict(zip(names, _like(args[:6], g_end), strict=True))
    if layers == 1:  # for two, the first kernel begins with it
        g_tokens["g_k"].zero_()
    has_rest, has_norm = args[7] is not None, args[8] is not None
    kept = {
        "products": launch.room(launch.dim),
        "deltas": launch.room(launch.dim),
        "hidden": launch.room((2 * layers - 1) * width),
        "scores": launch.room(BLOCK_T),
        "y": launch.room(launch.dim),
    }
    gates = launch.gates()
    launch(read_kernel, tiles * n, keep=True, fast=fast, **kept)
    g_delta, g_fast = launch.room(launch.dim), fast.new_empty(tiles + 1, *g_end.shape)
    g_fast[-1] = g_end
    g_anchor = g_opened.clone(memory_format=torch.contiguous_format)
    g_rest = fast.new_empty(tiles, n, layers, size) if has_rest else fast.new_empty(0)
    g_norm = fast.new_empty(2, tiles, n, launch.dim if has_norm else 0)
    g_G, g_read, g_write = launch.room(BLOCK_T), launch.room(2), launch.room(2)
    launch(
        read_backward_kernel,
        tiles * n,
        **kept,
        fast=fast,
        g_delta=g_delta,
        g_fast=g_fast,
        g_y=g_y.contiguous(),
        g_q=g_tokens["g_q"],
        g_k=g_tokens["g_k"],
        g_rest=g_rest,
        g_gain=g_norm[0],
        g_bias=g_norm[1],
        g_G=g_G,
        g_read=g_read,
    )
    g_gain, g_bias = g_norm.sum(1)
    launch(
        write_backward_kernel,
        n,
        **kept,
        fast=fast,
        g_delta=g_delta,
        g_fast=g_fast,
        g_k=g_tokens["g_k"],
        g_v=g_tokens["g_v"],
        g_gain=g_gain,
        g_bias=g_bias,
        g_anchor=g_anchor,
        g_write=g_write,
        **gates,
    )
    rest = launch.tensors["rest"]
    g_ends = _of_ends(g_fast[1:], fast[1:-1], rest)
    if rest is not None:
        g_rest = g_rest.sum(0) + torch.einsum(
            "tn,tnls->nls", 1 - gates["ends"][..., 0], g_fast[1:, :, 0]
        )
    launch(
        gates_backward_kernel,
        tiles * n,
        g_G=g_G,
        g_read=g_read,
        g_write=g_write,
        g_ends=g_ends,
        **{name: g_tokens[name] for name in names[3:]},
    )
    slow = [_over_batch(x, present, len(args[0])) for x, present in ((g_rest, has_rest), (g_gain, has_norm), (g_bias, has_norm))]
    return (*g_tokens.values(), *slow, g_anchor, g_fast[0].clone())


@memory_backward_op.register_fake
def _(*args: Any) -> tuple[Tensor, ...]:
    g_end, g_opened = args[12:14]
    of_tokens, slow = _like(args[:6], g_end), _like(args[7:10], g_end)
    return (*of_tokens, *slow, g_opened.new_empty(g_opened.shape), g_end.new_empty(g_end.shape))


def _of_ends(g_end: Tensor, start: Tensor, rest: Tensor | None) -> Tensor:
    """Gradients of what a tile's end has of its start, ``(tiles, N, 3)``: M in M, S in M, S in S."""
    g_W, W = g_end[:, :, 0].flatten(2), start[:, :, 0].flatten(2)
    g_beta = torch.einsum("tns,tns->tn", g_W, W)
    if rest is not None:  # what is not kept of M is M_0
        heads = rest.flatten(1)
        g_beta -= torch.einsum("tbhs,hs->tbh", g_W.unflatten(1, (-1, len(heads))), heads).flatten(1)
    if start.shape[2] == 1:
        return torch.stack([g_beta, g_beta, g_beta], dim=-1)
    g_S, S = g_end[:, :, 1].flatten(2), start[:, :, 1].flatten(2)
    ends = g_beta, torch.einsum("tns,tns->tn", g_W, S), torch.einsum("tns,tns->tn", g_S, S)
    return torch.stack(ends, dim=-1)


def _like(tensors: Any, like: Tensor) -> list[Tensor]:
    """Room for gradients, an empty one for what is not there."""
    return [like.new_empty((0,) if x is None else x.shape) for x in tensors]


def _over_batch(x: Tensor, present: bool, batch: int) -> Tensor:
    """``(N, ...)`` -> ``(H, ...)``."""
    return x.unflatten(0, (batch, -1)).sum(0) if present else x.new_empty(0)


def _setup_context(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs[:10], output[3])
    ctx.form, ctx.shapes = inputs[12:], (inputs[11].shape, inputs[10].shape)
    ctx.mark_non_differentiable(output[3])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, *g_outputs: Tensor | None) -> Any:
    *given, fast = ctx.saved_tensors
    q, shapes = given[0], (given[0].shape, *ctx.shapes)
    g_y, g_end, g_opened = (
        fast.new_zeros(shape) if g is None else g
        for g, shape in zip(g_outputs[:3], shapes, strict=True)
    )
    found = memory_backward_op(*given, fast, g_y.to(q.dtype), g_end, g_opened, *ctx.form)
    g_given = [*(g.to(q.dtype) for g in found[:3]), *found[3:6], None, *found[6:9]]
    g_given = [None if x is None else g for x, g in zip(given, g_given, strict=True)]
    return (*g_given, *found[9:], *(None for _ in ctx.form))


memory_op.register_autograd(_backward, setup_context=_setup_context)
