"""The kernels as PyTorch operators, with gradients: what ``torch.compile`` and ``export`` see.

An exported program is for the shapes that it was exported with.

N = B H memories. The layers of a memory lie on an axis L, each with S = WIDTH D numbers; weights
and momentum on an axis P, which is 1 where there is no momentum.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from titans_core.ops.chunked_triton.gates import gates_backward_kernel
from titans_core.ops.chunked_triton.launch import Form, Launch
from titans_core.ops.chunked_triton.plan import BLOCK_T
from titans_core.ops.chunked_triton.read import read_backward_kernel, read_kernel
from titans_core.ops.chunked_triton.write import write_backward_kernel, write_kernel

_TOKENS = """
    Tensor q, Tensor k, Tensor v,
    Tensor memory_lr, Tensor? momentum_decay, Tensor forget_gate, Tensor? write_mask,
"""
_SLOW = "Tensor? rest, Tensor? gain, Tensor? bias,"
_STREAM = "Tensor anchor, Tensor start,"
_FORM = "int chunk_size, int offset, str activation, bool residual, float? huber_delta"


@torch.library.custom_op(
    "titans_core::neural_memory",
    mutates_args=(),
    schema=f"({_TOKENS} {_SLOW} {_STREAM} {_FORM}, bool keep) -> (Tensor, Tensor, Tensor, Tensor)",
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
    keep : bool
        Whether the backward finds ``fast``, or writes it again.

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
        last; empty if it is not kept. It is for the backward and has no gradient.
    """
    anchor, start, form, keep = *args[10:12], Form(*args[12:-1]), args[-1]
    launch = Launch(args[:10], start.shape, form)
    y = torch.empty_like(args[0], memory_format=torch.contiguous_format)
    made = _write(launch, anchor, start)
    fast = made["fast"]
    unused = dict.fromkeys(("products", "hidden", "scores"), fast)
    launch(read_kernel, {**made, **unused, "y": y}, KEEP=False)
    end, opened = fast[-1].clone(), fast[launch.opened, :, 0].clone()
    return y, end, opened, fast if keep else fast.new_empty(0)


def _write(launch: Launch, anchor: Tensor, start: Tensor) -> dict[str, Tensor]:
    """Walk through the tiles: ``fast``, and what is of use to the next kernel."""
    fast = start.new_empty(launch.tiles + 2, *start.shape)
    fast[0, :, 0], fast[1] = anchor, start
    made = {"fast": fast, "deltas": launch.room(BLOCK_T, launch.plan.D), **launch.gates()}
    launch.in_turn(write_kernel, made)
    return made


@memory_op.register_fake
def _(*args: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    q, anchor, start, form, keep = args[0], *args[10:12], Form(*args[12:-1]), args[-1]
    launch = Launch(args[:10], start.shape, form)
    fast = start.new_empty((launch.tiles + 2, *start.shape) if keep else 0)
    return q.new_empty(q.shape), start.new_empty(start.shape), anchor.new_empty(anchor.shape), fast


@torch.library.custom_op(
    "titans_core::neural_memory_backward",
    mutates_args=(),
    schema=f"({_TOKENS} {_SLOW} {_STREAM} Tensor fast, Tensor g_y, Tensor g_end, Tensor g_opened, "
    f"{_FORM}) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def memory_backward_op(*args: Any) -> tuple[Tensor, ...]:
    """Gradients of q, k, v, the three gates, rest, gain, bias, anchor and start, in float32.

    Of what is None there is an empty one.
    """
    anchor, start, fast, g_y, g_end, g_opened = args[10:16]
    launch = Launch(args[:10], start.shape, Form(*args[16:]))
    plan, room = launch.plan, launch.room
    names = ("g_q", "g_k", "g_v", "g_theta", "g_eta", "g_alpha")
    made = dict(zip(names, _like(args[:6], g_end), strict=True))
    made["g_k"].zero_()
    if fast.numel():
        made |= {"fast": fast, "deltas": room(BLOCK_T, plan.D), **launch.gates()}
    else:
        made |= _write(launch, anchor, start)
        fast = made["fast"]
    made |= {"g_y": g_y.contiguous(), "products": room(BLOCK_T, plan.D)}
    made |= {"hidden": room(BLOCK_T, plan.ROOM), "scores": room(BLOCK_T, BLOCK_T)}
    made["y"] = room(BLOCK_T, plan.D)
    launch(read_kernel, made, KEEP=True)

    made |= {"g_delta": room(BLOCK_T, plan.D), "g_G": room(BLOCK_T, BLOCK_T)}
    made |= {"g_read": room(2, BLOCK_T), "g_shares": room(2, BLOCK_T)}
    g_fast = made["g_fast"] = fast.new_empty(launch.tiles + 1, *g_end.shape)
    g_fast[-1] = g_end
    g_rest = made["g_rest"] = room(*g_end.shape[2:]) if plan.REST else room(0)
    of_tiles = [room(plan.D) if plan.NORM else room(0) for _ in range(2)]
    launch(read_backward_kernel, {**made, "g_gain": of_tiles[0], "g_bias": of_tiles[1]})

    g_gain, g_bias = (x.sum(0) for x in of_tiles)
    g_anchor = g_opened.clone(memory_format=torch.contiguous_format)
    made |= {"g_gain": g_gain, "g_bias": g_bias, "g_anchor": g_anchor}
    launch.in_turn(write_backward_kernel, made)

    rest = launch.tensors["rest"]
    made["g_ends"] = _of_ends(g_fast[1:], fast[1:-1], rest)
    launch(gates_backward_kernel, made)
    g_rest = g_rest.sum(0)
    if plan.REST:
        lost = 1 - made["ends"][..., 0]
        g_rest += torch.einsum("tn,tnls->nls", lost, g_fast[1:, :, 0])
    slow = (_over_batch(x, len(g_y)) for x in (g_rest, g_gain, g_bias))
    return (*(made[name] for name in names), *slow, g_anchor, g_fast[0].clone())


@memory_backward_op.register_fake
def _(*args: Any) -> tuple[Tensor, ...]:
    g_end, g_opened = args[14:16]
    of_tokens, slow = _like(args[:6], g_end), _like(args[7:10], g_end)
    return (*of_tokens, *slow, g_opened.new_empty(g_opened.shape), g_end.new_empty(g_end.shape))


def _of_ends(g_end: Tensor, start: Tensor, rest: Tensor | None) -> Tensor:
    """Gradients of what an end has of its start: M in M, S in M, S in S; ``(tiles, N, 3)``."""
    g_W, W = g_end[:, :, 0].flatten(2), start[:, :, 0].flatten(2)
    g_beta = torch.einsum("tns,tns->tn", g_W, W)
    if rest is not None:  # what is not kept of M is M_0
        heads = rest.flatten(1)
        by_head = g_W.view(len(g_W), -1, *heads.shape)
        g_beta -= torch.einsum("tbhs,hs->tbh", by_head, heads).flatten(1)
    if start.shape[2] == 1:
        return torch.stack([g_beta, g_beta, g_beta], dim=-1)
    g_S, S = g_end[:, :, 1].flatten(2), start[:, :, 1].flatten(2)
    ends = g_beta, torch.einsum("tns,tns->tn", g_W, S), torch.einsum("tns,tns->tn", g_S, S)
    return torch.stack(ends, dim=-1)


def _like(tensors: Any, like: Tensor) -> list[Tensor]:
    """Room for gradients, an empty one for what is not there."""
    return [like.new_empty((0,) if x is None else x.shape) for x in tensors]


def _over_batch(x: Tensor, batch: int) -> Tensor:
    """``(N, ...)`` -> ``(H, ...)``; what is empty stays so."""
    return x.view(batch, -1, *x.shape[1:]).sum(0) if x.numel() else x.new_empty(0)


def _setup_context(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs[:12], output[3])
    ctx.form = inputs[12:-1]
    ctx.mark_non_differentiable(output[3])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, *g_outputs: Tensor | None) -> Any:
    *given, fast = ctx.saved_tensors
    outputs = given[0], given[11], given[10]  # alike: q, start, anchor
    g_y, g_end, g_opened = (
        torch.zeros_like(x, memory_format=torch.contiguous_format) if g is None else g
        for x, g in zip(outputs, g_outputs[:3], strict=True)
    )
    dtype = given[0].dtype
    found = memory_backward_op(*given, fast, g_y.to(dtype), g_end, g_opened, *ctx.form)
    g_given = [*(g.to(dtype) for g in found[:3]), *found[3:6], None, *found[6:]]
    g_given = [None if x is None else g for x, g in zip(given, g_given, strict=True)]
    return (*g_given, *(None for _ in ctx.form), None)


def _refuse(ctx: Any, *_: Tensor | None) -> Any:
    raise NotImplementedError(
        "implementation 'triton' of neural_memory can be differentiated once; for a second "
        "derivative take implementation='reference'."
    )


memory_op.register_autograd(_backward, setup_context=_setup_context)
memory_backward_op.register_autograd(_refuse)
