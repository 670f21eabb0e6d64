"""The forward kernel: one program per memory writes and reads its tiles, one after the other.

The last layer of the memory is taken in blocks of BLOCK_R of its rows, and with them the columns of
the first layer that lead there; so a memory of any width fits. Weights and momentum pass from tile
to tile through the rows of ``fast``, which the backward needs anyway.
"""

from __future__ import annotations

import triton
import triton.language as tl

from titans_core.ops.chunked_triton.pieces import (
    delta_block,
    dot,
    first_at,
    key_block,
    last_at,
    load_gates,
    load_tokens,
    locate,
    normalise,
    query_block,
    read_layer,
    surprise,
    tile_gates,
)


@triton.jit
def write_layer(
    a, delta, fast, into, rest, at, in_M, in_S, ends, MOMENTUM, HAS_MOMENTUM, HAS_REST, PRECISION
):
    """``W' = beta W + f S - (G a)^T delta [+ (1 - beta) M_0]`` and ``S' = m S - (E a)^T delta``."""
    beta, f, m = ends
    W = beta * tl.load(fast + at) - dot(tl.trans(a * in_M[:, None]), delta, PRECISION)
    if HAS_REST:
        W += (1 - beta) * tl.load(rest + at)
    if HAS_MOMENTUM:
        S = tl.load(fast + MOMENTUM + at)
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
    own_gain, own_bias = 0.0, 0.0
    if HAS_NORM:
        own_gain, own_bias = tl.load(gain + head * D + channel), tl.load(bias + head * D + channel)

    for i in tl.range(0, tiles, num_stages=1):
        token, real, opened = locate(i, T, offset, chunk_size, BLOCK_T)
        mask_rows = sample * T + token
        rows = mask_rows * H + head
        own_q = load_tokens(q, rows, real, D, D)
        own_k = load_tokens(k, rows, real, D, D)
        gates = load_gates(
            theta, eta, alpha, write, rows, mask_rows, real, HAS_MOMENTUM, HAS_WRITE
        )
        beta, f, G, in_M, in_S, ends = tile_gates(*gates, HAS_MOMENTUM, BLOCK_T)
        anchor, now = fast + opened * row, fast + (i + 1) * row
        into = now + row

        z = tl.zeros((BLOCK_T, D), tl.float32)
        for r in range(0, WIDTH, BLOCK_R):
            a = key_block(k, own_k, anchor, r, rows, real, D, WIDTH, DEPTH, GELU, PRECISION, BLOCK_R)[1]
            z += dot(a, tl.load(anchor + LAST + last_at(r, D, BLOCK_R)), PRECISION)
        own_v = load_tokens(v, rows, real, D, D)
        delta = surprise(
            z, own_k, own_v, own_gain, own_bias, huber, HAS_NORM, RESIDUAL, HAS_HUBER, D
        )[1]

        attention = dot(own_q, tl.trans(own_k), PRECISION) * G
        scores = tl.zeros((BLOCK_T, BLOCK_T), tl.float32)
        z = tl.zeros((BLOCK_T, D), tl.float32)
        for r in range(0, WIDTH, BLOCK_R):
            z_1, a = key_block(k, own_k, anchor, r, rows, real, D, WIDTH, DEPTH, GELU, PRECISION, BLOCK_R)
            delta_1 = delta_block(delta, z_1, anchor + LAST, r, D, DEPTH, GELU, PRECISION, BLOCK_R)[1]
            h = query_block(
                q, own_q, attention, delta_1, now, rest, beta, f, r, rows, real, D, WIDTH, DEPTH,
                MOMENTUM, HAS_MOMENTUM, HAS_REST, GELU, PRECISION, BLOCK_R,
            )[1]
            at = last_at(r, D, BLOCK_R)
            scores += dot(h, tl.trans(a), PRECISION)
            z += read_layer(
                h, now + LAST, rest + LAST, at, beta, f, MOMENTUM, HAS_MOMENTUM, HAS_REST, PRECISION
            )
            write_layer(
                a, delta, now + LAST, into + LAST, rest + LAST, at, in_M, in_S, ends, MOMENTUM,
                HAS_MOMENTUM, HAS_REST, PRECISION,
            )
            if DEPTH == 2:
                at = first_at(r, D, WIDTH, BLOCK_R)
                write_layer(
                    own_k, delta_1, now, into, rest, at, in_M, in_S, ends, MOMENTUM, HAS_MOMENTUM,
                    HAS_REST, PRECISION,
                )
        z -= dot(scores * G, delta, PRECISION)
        if HAS_NORM:
            z = normalise(z, D)[0] * own_gain[None, :] + own_bias[None, :]
        if RESIDUAL:
            z += own_q
        tl.store(y + rows[:, None] * D + channel[None, :], z.to(y.dtype.element_ty), real[:, None])
        tl.debug_barrier()  # the next tile begins with what other threads have stored
