"""Writing, the only part that has to wait for the tile before: one program per memory.

The memory is taken in blocks of BLOCK_R hidden units, so that one of any width fits. Weights and
momentum pass from tile to tile through the rows of ``fast``, which the backward needs anyway; their
gradients pass back through ``g_fast``, in place.
"""

from __future__ import annotations

import triton
import triton.language as tl

from titans_core.ops.chunked_triton.pieces import (
    act_bend,
    act_slope,
    add,
    add_tokens,
    block_at,
    delta_block,
    dot,
    key_block,
    key_product,
    load_tokens,
    locate,
    project,
    store_tokens,
    surprise,
    surprise_backward,
)


@triton.jit
def write_block(
    a, delta, fast, into, rest, at, in_M, in_S, ends, MOMENTUM, HAS_MOMENTUM, HAS_REST, PRECISION
):
    """``W' = beta W + f S - (G a)^T delta [+ (1 - beta) M_0]`` and ``S' = m S - (E a)^T delta``."""
    beta, f, m = ends
    W = beta * tl.load(fast + at) - dot(tl.trans(a * in_M[:, None]), delta, PRECISION)
    if HAS_REST:
        W += (1 - beta) * tl.load(rest + at)
    if HAS_MOMENTUM:
        S = tl.load(fast + MOMENTUM + at)
        tl.store(into + at, W + f * S)
        S = m * S - dot(tl.trans(a * in_S[:, None]), delta, PRECISION)
        tl.store(into + MOMENTUM + at, S)
    else:
        tl.store(into + at, W)


@triton.jit
def load_shares(shares, ends, here, HAS_MOMENTUM, BLOCK_T: tl.constexpr):
    """What ``gates_kernel`` says of a tile: in_M, in_S and (beta, f, m) at its end."""
    shares += here * 2 * BLOCK_T + tl.arange(0, BLOCK_T)
    ends += here * 3
    in_M, beta = tl.load(shares), tl.load(ends)
    in_S, f, m = in_M, beta, beta
    if HAS_MOMENTUM:
        in_S, f, m = tl.load(shares + BLOCK_T), tl.load(ends + 1), tl.load(ends + 2)
    return in_M, in_S, (beta, f, m)


@triton.jit
def write_kernel(
    k,
    v,
    shares,
    ends,
    rest,
    gain,
    bias,
    fast,
    deltas,
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
    HAS_REST: tl.constexpr,
    HAS_NORM: tl.constexpr,
    HAS_HUBER: tl.constexpr,
    RESIDUAL: tl.constexpr,
    GELU: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """Fill rows 2.. of ``fast``; rows 0 and 1 hold the anchor and what the stream begins with.

    Tokens are ``(B, T, H, D)``, gates ``(B, T, H)``, ``write`` is ``(B, T)``. ``fast`` is
    ``(tiles + 2, N, P, DEPTH, WIDTH D)``: weights, and after them momentum, of all layers, the first
    of two transposed; ``rest`` is ``(H, DEPTH, WIDTH D)``. WIDTH is that of the last layer's input.
    ``deltas``, ``(tiles, N, BLOCK_T, D)``, gets the errors propagated to the last layer.
    """
    memory, memories = tl.program_id(0).to(tl.int64), tl.num_programs(0).to(tl.int64)
    sample, head = memory // H, memory % H
    SIZE: tl.constexpr = D * WIDTH
    MOMENTUM: tl.constexpr = DEPTH * SIZE
    LAST: tl.constexpr = (DEPTH - 1) * SIZE
    STATE: tl.constexpr = (1 + HAS_MOMENTUM) * MOMENTUM
    row = memories * STATE
    fast += memory * STATE
    rest += head * MOMENTUM
    for i in tl.range(0, tiles, num_stages=1, disable_licm=True):
        here = i * memories + memory
        begin, rows, opened = locate(i, T, offset, chunk_size, BLOCK_T)
        at_token = ((sample * T + begin) * H + head) * D
        in_M, in_S, own_ends = load_shares(shares, ends, here, HAS_MOMENTUM, BLOCK_T)
        anchor, now = fast + opened * row, fast + (i + 1) * row
        keys, errors = k + at_token, deltas + here * BLOCK_T * D

        z = key_product(
            keys, H * D, rows, anchor, D, WIDTH, DEPTH, GELU, PRECISION, BLOCK_T, BLOCK_R
        )
        own_k = load_tokens(keys, H * D, rows, D, BLOCK_T)
        own_v = load_tokens(v + at_token, H * D, rows, D, BLOCK_T)
        delta = surprise(
            z, own_k, own_v, gain + head * D, bias + head * D, huber, HAS_NORM, RESIDUAL, HAS_HUBER, D
        )[1]
        store_tokens(errors, D, (0, BLOCK_T), delta, D, BLOCK_T)
        tl.debug_barrier()

        for r in tl.range(0, WIDTH, BLOCK_R, disable_licm=True):
            z_1, a = key_block(keys, H * D, rows, anchor, r, D, DEPTH, GELU, PRECISION, BLOCK_T, BLOCK_R)
            at = block_at(r, D, BLOCK_R)
            if DEPTH == 2:
                delta_1 = delta_block(
                    errors, z_1, anchor + LAST, r, D, DEPTH, GELU, PRECISION, BLOCK_T, BLOCK_R
                )[1]
                own_k = load_tokens(keys, H * D, rows, D, BLOCK_T)
                write_block(
                    delta_1, own_k, now, now + row, rest, at, in_M, in_S, own_ends, MOMENTUM,
                    HAS_MOMENTUM, HAS_REST, PRECISION,
                )
            delta = load_tokens(errors, D, (0, BLOCK_T), D, BLOCK_T)
            write_block(
                a, delta, now + LAST, now + row + LAST, rest + LAST, at, in_M, in_S, own_ends, MOMENTUM,
                HAS_MOMENTUM, HAS_REST, PRECISION,
            )
        tl.debug_barrier()  # the next tile begins with what other threads have stored


@triton.jit
def write_block_backward(
    a, delta, STRIDE, rows, g_fast, g_start, r, in_M, in_S, ends, g_in_M, g_in_S, MOMENTUM,
    HAS_MOMENTUM, D, PRECISION, BLOCK_T, BLOCK_R,
):
    """Back through ``write_block``: from the gradients at a tile's end to those at its start.

    Returns gradients of a and delta, and ``g_in_M`` and ``g_in_S`` with what is added.
    """
    beta, f, m = ends
    at = block_at(r, D, BLOCK_R)
    written = project(delta, STRIDE, rows, g_fast + r * D, D, PRECISION, BLOCK_T, BLOCK_R)
    g_a = -in_M[:, None] * written
    g_in_M -= tl.sum(written * a, 1)
    g_W = tl.load(g_fast + at)
    g_delta = -in_M[:, None] * dot(a, g_W, PRECISION)
    add(g_start + at, beta * g_W)
    if HAS_MOMENTUM:
        add(g_start + MOMENTUM + at, f * g_W)
        written = project(
            delta, STRIDE, rows, g_fast + MOMENTUM + r * D, D, PRECISION, BLOCK_T, BLOCK_R
        )
        g_a -= in_S[:, None] * written
        g_in_S -= tl.sum(written * a, 1)
        g_S = tl.load(g_fast + MOMENTUM + at)
        g_delta -= in_S[:, None] * dot(a, g_S, PRECISION)
        add(g_start + MOMENTUM + at, m * g_S)
    return g_a, g_delta, g_in_M, g_in_S


@triton.jit
def write_backward_kernel(
    k,
    v,
    shares,
    ends,
    gain,
    bias,
    fast,
    products,
    deltas,
    g_delta,
    hidden,
    g_k,
    g_v,
    g_gain,
    g_bias,
    g_anchor,
    g_fast,
    g_write,
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
    HAS_NORM: tl.constexpr,
    HAS_HUBER: tl.constexpr,
    RESIDUAL: tl.constexpr,
    GELU: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """From the last tile to the first; completes what ``read_backward_kernel`` began.

    ``g_fast`` comes with the gradient of the last row of ``fast`` in its own last row, and gets
    those at the start of every tile. ``g_anchor`` ``(N, DEPTH, WIDTH D)`` comes with that of the last
    chunk's anchor and leaves with that of row 0. ``g_gain`` and ``g_bias`` ``(N, D)`` are added to.
    ``g_write`` ``(tiles, N, 2, BLOCK_T)`` is for ``gates_backward_kernel``.
    """
    memory, memories = tl.program_id(0).to(tl.int64), tl.num_programs(0).to(tl.int64)
    sample, head = memory // H, memory % H
    SIZE: tl.constexpr = D * WIDTH
    MOMENTUM: tl.constexpr = DEPTH * SIZE
    LAST: tl.constexpr = (DEPTH - 1) * SIZE
    ROOM: tl.constexpr = (2 * DEPTH - 1) * WIDTH
    STATE: tl.constexpr = (1 + HAS_MOMENTUM) * MOMENTUM
    row = memories * STATE
    fast += memory * STATE
    g_fast += memory * STATE
    g_anchor += memory * MOMENTUM
    for back in tl.range(0, tiles, num_stages=1, disable_licm=True):
        i = tiles - 1 - back
        here = i * memories + memory
        begin, rows, opened = locate(i, T, offset, chunk_size, BLOCK_T)
        at_token = ((sample * T + begin) * H + head) * D
        in_M, in_S, own_ends = load_shares(shares, ends, here, HAS_MOMENTUM, BLOCK_T)
        anchor, g_end, g_start = fast + opened * row, g_fast + (i + 1) * row, g_fast + i * row

        keys, errors = k + at_token, deltas + here * BLOCK_T * D
        inner, every = hidden + here * BLOCK_T * ROOM, (0, BLOCK_T)

        # Back through writing, and through the propagated error.
        g_errors = g_delta + here * BLOCK_T * D
        g_keys = g_k + at_token
        g_in_M = tl.zeros((BLOCK_T,), tl.float32)
        g_in_S = tl.zeros((BLOCK_T,), tl.float32)
        for r in tl.range(0, WIDTH, BLOCK_R, disable_licm=True):
            a = key_block(keys, H * D, rows, anchor, r, D, DEPTH, GELU, PRECISION, BLOCK_T, BLOCK_R)[1]
            g_a, g_written, g_in_M, g_in_S = write_block_backward(
                a, errors, D, every, g_end + LAST, g_start + LAST, r, in_M, in_S, own_ends, g_in_M, g_in_S,
                MOMENTUM, HAS_MOMENTUM, D, PRECISION, BLOCK_T, BLOCK_R,
            )
            add_tokens(g_errors, D, every, g_written, D, BLOCK_T)
            g_a += load_tokens(inner + r, ROOM, every, BLOCK_R, BLOCK_T)
            store_tokens(inner + r, ROOM, every, g_a, BLOCK_R, BLOCK_T)
        if DEPTH == 2:
            tl.debug_barrier()
            for r in tl.range(0, WIDTH, BLOCK_R, disable_licm=True):
                z_1 = key_block(
                    keys, H * D, rows, anchor, r, D, DEPTH, GELU, PRECISION, BLOCK_T, BLOCK_R
                )[0]
                pulled, delta_1 = delta_block(
                    errors, z_1, anchor + LAST, r, D, DEPTH, GELU, PRECISION, BLOCK_T, BLOCK_R
                )
                g_delta_1, g_written, g_in_M, g_in_S = write_block_backward(
                    delta_1, keys, H * D, rows, g_end, g_start, r, in_M, in_S, own_ends, g_in_M, g_in_S,
                    MOMENTUM, HAS_MOMENTUM, D, PRECISION, BLOCK_T, BLOCK_R,
                )
                add_tokens(g_keys, H * D, rows, g_written, D, BLOCK_T)
                g_delta_1 += load_tokens(inner + WIDTH + r, ROOM, every, BLOCK_R, BLOCK_T)
                # delta_1 = (delta W^T) act'(z_1)
                slope = act_slope(z_1, GELU)
                g_z_1 = load_tokens(inner + r, ROOM, every, BLOCK_R, BLOCK_T) * slope
                g_z_1 += g_delta_1 * pulled * act_bend(z_1, GELU)
                store_tokens(inner + r, ROOM, every, g_z_1, BLOCK_R, BLOCK_T)
                at, g_delta_1 = block_at(r, D, BLOCK_R), g_delta_1 * slope
                g_written = dot(g_delta_1, tl.load(anchor + LAST + at), PRECISION)
                add_tokens(g_errors, D, every, g_written, D, BLOCK_T)
                delta = load_tokens(errors, D, every, D, BLOCK_T)
                add(g_anchor + LAST + at, dot(tl.trans(g_delta_1), delta, PRECISION))
        t = tl.arange(0, BLOCK_T)
        tl.store(g_write + here * 2 * BLOCK_T + t, g_in_M)
        tl.store(g_write + here * 2 * BLOCK_T + BLOCK_T + t, g_in_S)

        # Back through the surprise, the last layer to the first.
        tl.debug_barrier()
        own_g_delta = load_tokens(g_errors, D, every, D, BLOCK_T)
        own_k = load_tokens(keys, H * D, rows, D, BLOCK_T)
        own_v = load_tokens(v + at_token, H * D, rows, D, BLOCK_T)
        z = load_tokens(products + here * BLOCK_T * D, D, every, D, BLOCK_T)
        g_z, g_answer, g_own_gain = surprise_backward(
            own_g_delta, z, own_k, own_v, gain + head * D, bias + head * D, huber, HAS_NORM, RESIDUAL,
            HAS_HUBER, D,
        )
        g_products = g_errors  # which are read for the last time above
        tl.debug_barrier()
        store_tokens(g_products, D, every, g_z, D, BLOCK_T)
        if HAS_NORM:
            add(g_gain + memory * D + tl.arange(0, D), g_own_gain)
            add(g_bias + memory * D + tl.arange(0, D), tl.sum(g_answer, 0))
        store_tokens(g_v + at_token, H * D, rows, -g_answer, D, BLOCK_T)
        if RESIDUAL:
            add_tokens(g_keys, H * D, rows, g_answer, D, BLOCK_T)
        tl.debug_barrier()
        for r in tl.range(0, WIDTH, BLOCK_R, disable_licm=True):
            z_1, a = key_block(keys, H * D, rows, anchor, r, D, DEPTH, GELU, PRECISION, BLOCK_T, BLOCK_R)
            at = block_at(r, D, BLOCK_R)
            g_z = load_tokens(g_products, D, every, D, BLOCK_T)
            add(g_anchor + LAST + at, dot(tl.trans(a), g_z, PRECISION))
            g_a = project(
                g_products, D, every, anchor + LAST + r * D, D, PRECISION, BLOCK_T, BLOCK_R
            )
            g_through = load_tokens(inner + r, ROOM, every, BLOCK_R, BLOCK_T)
            if DEPTH == 1:
                add_tokens(g_keys + r, H * D, rows, g_through + g_a, BLOCK_R, BLOCK_T)
            else:
                g_z_1 = g_through + g_a * act_slope(z_1, GELU)
                g_written = dot(g_z_1, tl.load(anchor + at), PRECISION)
                add_tokens(g_keys, H * D, rows, g_written, D, BLOCK_T)
                own_k = load_tokens(keys, H * D, rows, D, BLOCK_T)
                add(g_anchor + at, dot(tl.trans(g_z_1), own_k, PRECISION))
        if opened == i + 1:  # a chunk begins: its anchor is what this tile started with
            tl.debug_barrier()
            for r in tl.range(0, DEPTH * WIDTH, BLOCK_R, disable_licm=True):
                at = block_at(r, D, BLOCK_R)
                add(g_start + at, tl.load(g_anchor + at))
                tl.store(g_anchor + at, tl.zeros((BLOCK_R, D), tl.float32))
        tl.debug_barrier()  # the tile before begins with what other threads have stored
