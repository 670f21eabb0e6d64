"""The forward kernel: one program per memory writes and reads its tiles, one after the other.

The last layer of the memory is taken in blocks of BLOCK_R of its rows, and with them the columns of
the first layer that lead there; so a memory of any width fits. Weights and momentum pass from tile
to tile through the rows of ``fast``, which the backward needs anyway.
"""

from __future__ import annotations

import triton
import triton.language as tl

from titans_core.ops.chunked_triton.pieces import (
    block_at,
    delta_block,
    dot,
    key_block,
    load_layer,
    load_gates,
    load_tokens,
    locate,
    normalise,
    query_block,
    read_layer,
    store_tokens,
    surprise,
    tile_gates,
)


@triton.jit
def write_layer(
    a, delta, fast, into, rest, at, in_M, in_S, ends, MOMENTUM, HAS_MOMENTUM, HAS_REST, PRECISION
):
    """``W' = beta W + f S - (G a)^T delta [+ (1 - beta) M_0]`` and ``S' = m S - (E a)^T delta``."""
    beta, f, m = ends
    W, S, M_0 = load_layer(fast, rest, at, MOMENTUM, HAS_MOMENTUM, HAS_REST)
    W = beta * W - dot(tl.trans(a * in_M[:, None]), delta, PRECISION)
    if HAS_REST:
        W += (1 - beta) * M_0
    if HAS_MOMENTUM:
        W += f * S
        S = m * S - dot(tl.trans(a * in_S[:, None]), delta, PRECISION)
        tl.store(into + MOMENTUM + at, S)
    tl.store(into + at, W)


@triton.jit
def forward_kernel(
    q,
    k,
    v,
    theta,
    eta,
    alpha,
    write,
    rest,
    gain,
    bias,
    fast,
    y,
    room,
    T,
    H,
    tiles,
    offset,
    chunk_size,
    huber,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    DEPTH: tl.constexpr,
    HAS_MOMENTUM: tl.constexpr,
    HAS_WRITE: tl.constexpr,
    HAS_REST: tl.constexpr,
    HAS_NORM: tl.constexpr,
    HAS_HUBER: tl.constexpr,
    RESIDUAL: tl.constexpr,
    GELU: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """``y`` and rows 2.. of ``fast``; rows 0 and 1 hold the anchor and the weights to begin with.

    Tokens are ``(B, T, H, D)``, gates ``(B, T, H)``, ``write`` is ``(B, T)``. ``fast`` is
    ``(tiles + 2, B H, P, DEPTH, D WIDTH)``: weights, and after them momentum, of all layers;
    ``rest`` is ``(H, DEPTH, D WIDTH)``. WIDTH is that of the last layer's input.
    """
    memory = tl.program_id(0).to(tl.int64)
    sample, head = memory // H, memory % H
    SIZE: tl.constexpr = D * WIDTH
    MOMENTUM: tl.constexpr = DEPTH * SIZE
    STATE: tl.constexpr = (1 + HAS_MOMENTUM) * MOMENTUM
    LAST: tl.constexpr = (DEPTH - 1) * SIZE
    row = tl.num_programs(0).to(tl.int64) * STATE
    fast += memory * STATE
    rest += head * MOMENTUM
    channel = tl.arange(0, D)
    deltas = room + memory * BLOCK_T * D + tl.arange(0, BLOCK_T)[:, None] * D + channel[None, :]
    own_gain, own_bias = 0.0, 0.0
    if HAS_NORM:
        own_gain, own_bias = tl.load(gain + head * D + channel), tl.load(bias + head * D + channel)

    for i in tl.range(0, tiles, num_stages=1):
        begin, rows, opened = locate(i, T, offset, chunk_size, BLOCK_T)
        first = sample * T + begin
        at_gate, at_token = first * H + head, (first * H + head) * D
        own_q = load_tokens(q + at_token, H * D, rows, D, BLOCK_T)
        own_k = load_tokens(k + at_token, H * D, rows, D, BLOCK_T)
        gates = load_gates(
            theta + at_gate,
            eta + at_gate,
            alpha + at_gate,
            write + first,
            H,
            rows,
            HAS_MOMENTUM,
            HAS_WRITE,
            BLOCK_T,
        )
        beta, f, G, in_M, in_S, ends = tile_gates(*gates, HAS_MOMENTUM, BLOCK_T)
        anchor, now = fast + opened * row, fast + (i + 1) * row
        into = now + row

        z = tl.zeros((BLOCK_T, D), tl.float32)
        for r in range(0, WIDTH, BLOCK_R):
            a = key_block(k + at_token, own_k, anchor, r, H * D, rows, D, DEPTH, GELU, PRECISION, BLOCK_T, BLOCK_R)[1]
            z += dot(a, tl.load(anchor + LAST + block_at(r, D, BLOCK_R)), PRECISION)
        own_v = load_tokens(v + at_token, H * D, rows, D, BLOCK_T)
        delta = surprise(
            z, own_k, own_v, own_gain, own_bias, huber, HAS_NORM, RESIDUAL, HAS_HUBER, D
        )[1]
        tl.store(deltas, delta)
        tl.debug_barrier()

        attention = dot(own_q, tl.trans(own_k), PRECISION) * G
        scores = tl.zeros((BLOCK_T, BLOCK_T), tl.float32)
        z = tl.zeros((BLOCK_T, D), tl.float32)
        for r in range(0, WIDTH, BLOCK_R):
            own_q = load_tokens(q + at_token, H * D, rows, D, BLOCK_T)
            own_k = load_tokens(k + at_token, H * D, rows, D, BLOCK_T)
            delta = tl.load(deltas)
            z_1, a = key_block(k + at_token, own_k, anchor, r, H * D, rows, D, DEPTH, GELU, PRECISION, BLOCK_T, BLOCK_R)
            delta_1 = delta_block(delta, z_1, anchor + LAST, r, D, DEPTH, GELU, PRECISION, BLOCK_R)[1]
            h = query_block(
                q + at_token, own_q, attention, delta_1, now, rest, beta, f, r, H * D, rows, D, DEPTH,
                MOMENTUM, HAS_MOMENTUM, HAS_REST, GELU, PRECISION, BLOCK_T, BLOCK_R,
            )[1]
            scores += dot(h, tl.trans(a), PRECISION)
            at = block_at(r, D, BLOCK_R)
            W, S, M_0 = load_layer(now + LAST, rest + LAST, at, MOMENTUM, HAS_MOMENTUM, HAS_REST)
            z += read_layer(h, W, S, M_0, beta, f, HAS_MOMENTUM, HAS_REST, PRECISION)
            write_layer(
                a, delta, now + LAST, into + LAST, rest + LAST, at, in_M, in_S, ends, MOMENTUM,
                HAS_MOMENTUM, HAS_REST, PRECISION,
            )
            if DEPTH == 2:
                write_layer(
                    delta_1, own_k, now, into, rest, at, in_M, in_S, ends, MOMENTUM, HAS_MOMENTUM,
                    HAS_REST, PRECISION,
                )
        z -= dot(scores * G, tl.load(deltas), PRECISION)
        if HAS_NORM:
            z = normalise(z, D)[0] * own_gain[None, :] + own_bias[None, :]
        if RESIDUAL:
            z += load_tokens(q + at_token, H * D, rows, D, BLOCK_T)
        store_tokens(y + at_token, H * D, rows, z, D, BLOCK_T)
        tl.debug_barrier()  # the next tile begins with what other threads have stored
