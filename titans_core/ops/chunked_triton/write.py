"""Writing, the only part that has to wait for the tile before: one program per memory.

The memory is taken in blocks of hidden units, so that one of any width fits. Weights and momentum
pass from tile to tile through the rows of ``fast``, which the backward needs anyway, and their
gradients back through those of ``g_fast``.
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
    of_tile,
    project,
    store_tokens,
    surprise,
    surprise_backward,
)


@triton.jit
def load_shares(shares, ends, tile, plan: tl.constexpr):
    """What ``gates_kernel`` says of a tile: in_M, in_S and (beta, f, m) at its end."""
    shares += tile * 2 * plan.BLOCK_T + tl.arange(0, plan.BLOCK_T)
    ends += tile * 3
    in_M, beta = tl.load(shares)[:, None], tl.load(ends)
    in_S, f, m = in_M, beta, beta
    if plan.MOMENTUM:
        in_S = tl.load(shares + plan.BLOCK_T)[:, None]
        f, m = tl.load(ends + 1), tl.load(ends + 2)
    return in_M, in_S, (beta, f, m)


@triton.jit
def write_block(a, delta, fast, into, rest, at, shares, plan: tl.constexpr):
    """``W' = beta W + f S - (G a)^T delta [+ (1 - beta) M_0]``, ``S' = m S - (E a)^T delta``."""
    in_M, in_S, (beta, f, m) = shares
    W = beta * tl.load(fast + at) - dot(tl.trans(a * in_M), delta, plan.PRECISION)
    if plan.REST:
        W += (1 - beta) * tl.load(rest + at)
    if plan.MOMENTUM:
        S = tl.load(fast + plan.LAYERS + at)
        tl.store(into + at, W + f * S)
        S = m * S - dot(tl.trans(a * in_S), delta, plan.PRECISION)
        tl.store(into + plan.LAYERS + at, S)
    else:
        tl.store(into + at, W)


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
    plan: tl.constexpr,
):
    """Fill rows 2.. of ``fast``; rows 0 and 1 hold the anchor and what the stream begins with.

    Tokens are ``(B, T, H, D)``. ``fast`` is ``(tiles + 2, N, P, DEPTH, WIDTH D)``: weights, after
    them momentum, of all layers, the first of two transposed; ``rest`` is ``(H, DEPTH, WIDTH D)``.
    ``deltas``, ``(tiles, N, BLOCK_T, D)``, gets the errors propagated to the last layer.
    """
    memory, memories = tl.program_id(0).to(tl.int64), tl.num_programs(0).to(tl.int64)
    sample, head = memory // H, memory % H
    row = memories * plan.STATE
    fast += memory * plan.STATE
    rest += head * plan.LAYERS
    gain += head * plan.D
    bias += head * plan.D
    for i in tl.range(0, tiles, num_stages=1, disable_licm=True):
        tile = i * memories + memory
        begin, rows, opened = locate(i, T, offset, chunk_size, plan.BLOCK_T)
        first = ((sample * T + begin) * H + head) * plan.D
        keys, values = (k + first, H * plan.D, rows), (v + first, H * plan.D, rows)
        errors = of_tile(deltas, tile, plan.D, plan.BLOCK_T)
        anchor, now = fast + opened * row, fast + (i + 1) * row
        own_shares = load_shares(shares, ends, tile, plan)

        z = key_product(keys, anchor, plan)
        own_k = load_tokens(keys, 0, plan.D, plan.BLOCK_T)
        own_v = load_tokens(values, 0, plan.D, plan.BLOCK_T)
        delta = surprise(z, own_k, own_v, gain, bias, huber, plan)[1]
        store_tokens(errors, 0, delta, plan.D, plan.BLOCK_T)
        tl.debug_barrier()

        for r in tl.range(0, plan.WIDTH, plan.BLOCK_R, disable_licm=True):
            z_1, a = key_block(keys, anchor, r, plan)
            at = block_at(r, plan)
            if plan.DEPTH == 2:
                delta_1 = delta_block(errors, z_1, anchor, r, plan)[1]
                own_k = load_tokens(keys, 0, plan.D, plan.BLOCK_T)
                write_block(delta_1, own_k, now, now + row, rest, at, own_shares, plan)
            at += plan.LAST
            delta = load_tokens(errors, 0, plan.D, plan.BLOCK_T)
            write_block(a, delta, now, now + row, rest, at, own_shares, plan)
        tl.debug_barrier()  # the next tile begins with what other threads have stored


@triton.jit
def write_block_backward(a, delta, g_end, g_start, r, shares, g_in_M, g_in_S, plan: tl.constexpr):
    """Back through ``write_block``: from the gradients at a tile's end to those at its start.

    delta are tokens in memory. Returns gradients of a and delta, and ``g_in_M`` and ``g_in_S`` with
    what is added.
    """
    in_M, in_S, (beta, f, m) = shares
    at = block_at(r, plan)
    written = project(delta, g_end + r * plan.D, plan)
    g_a = -in_M * written
    g_in_M -= tl.sum(written * a, 1)
    g_W = tl.load(g_end + at)
    g_delta = -in_M * dot(a, g_W, plan.PRECISION)
    add(g_start + at, beta * g_W)
    if plan.MOMENTUM:
        add(g_start + plan.LAYERS + at, f * g_W)
        written = project(delta, g_end + plan.LAYERS + r * plan.D, plan)
        g_a -= in_S * written
        g_in_S -= tl.sum(written * a, 1)
        g_S = tl.load(g_end + plan.LAYERS + at)
        g_delta -= in_S * dot(a, g_S, plan.PRECISION)
        add(g_start + plan.LAYERS + at, m * g_S)
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
    g_shares,
    T,
    H,
    tiles,
    offset,
    chunk_size,
    huber,
    plan: tl.constexpr,
):
    """From the last tile to the first; completes what ``read_backward_kernel`` began.

    ``g_fast`` comes with the gradient of the last row of ``fast`` in its own last row, and gets
    those at the start of every tile. ``g_anchor`` ``(N, DEPTH, WIDTH D)`` comes with that of the
    last chunk's anchor and leaves with that of row 0. ``g_k``, and ``g_gain`` and ``g_bias``
    ``(N, D)``, are added to. ``g_shares`` is for ``gates_backward_kernel``.
    """
    memory, memories = tl.program_id(0).to(tl.int64), tl.num_programs(0).to(tl.int64)
    sample, head = memory // H, memory % H
    row = memories * plan.STATE
    fast += memory * plan.STATE
    g_fast += memory * plan.STATE
    g_anchor += memory * plan.LAYERS
    gain += head * plan.D
    bias += head * plan.D
    for back in tl.range(0, tiles, num_stages=1, disable_licm=True):
        i = tiles - 1 - back
        tile = i * memories + memory
        begin, rows, opened = locate(i, T, offset, chunk_size, plan.BLOCK_T)
        first = ((sample * T + begin) * H + head) * plan.D
        keys, values = (k + first, H * plan.D, rows), (v + first, H * plan.D, rows)
        g_keys = g_k + first, H * plan.D, rows
        errors = of_tile(deltas, tile, plan.D, plan.BLOCK_T)
        g_errors = of_tile(g_delta, tile, plan.D, plan.BLOCK_T)
        inner = of_tile(hidden, tile, plan.ROOM, plan.BLOCK_T)
        anchor, g_end, g_start = fast + opened * row, g_fast + (i + 1) * row, g_fast + i * row
        own_shares = load_shares(shares, ends, tile, plan)

        # Back through writing, the last layer and the first, and through the propagated error.
        g_in_M = tl.zeros((plan.BLOCK_T,), tl.float32)
        g_in_S = tl.zeros((plan.BLOCK_T,), tl.float32)
        for r in tl.range(0, plan.WIDTH, plan.BLOCK_R, disable_licm=True):
            a = key_block(keys, anchor, r, plan)[1]
            g_a, g_written, g_in_M, g_in_S = write_block_backward(
                a,
                errors,
                g_end + plan.LAST,
                g_start + plan.LAST,
                r,
                own_shares,
                g_in_M,
                g_in_S,
                plan,
            )
            add_tokens(g_errors, 0, g_written, plan.D, plan.BLOCK_T)
            add_tokens(inner, r, g_a, plan.BLOCK_R, plan.BLOCK_T)
        if plan.DEPTH == 2:
            tl.debug_barrier()
            for r in tl.range(0, plan.WIDTH, plan.BLOCK_R, disable_licm=True):
                z_1 = key_block(keys, anchor, r, plan)[0]
                p, delta_1 = delta_block(errors, z_1, anchor, r, plan)
                g_delta_1, g_written, g_in_M, g_in_S = write_block_backward(
                    delta_1, keys, g_end, g_start, r, own_shares, g_in_M, g_in_S, plan
                )
                add_tokens(g_keys, 0, g_written, plan.D, plan.BLOCK_T)
                g_delta_1 += load_tokens(inner, plan.WIDTH + r, plan.BLOCK_R, plan.BLOCK_T)
                # delta_1 = (delta W^T) act'(z_1)
                slope = act_slope(z_1, plan)
                g_z_1 = load_tokens(inner, r, plan.BLOCK_R, plan.BLOCK_T) * slope
                g_z_1 += g_delta_1 * p * act_bend(z_1, plan)
                store_tokens(inner, r, g_z_1, plan.BLOCK_R, plan.BLOCK_T)
                at, g_p = block_at(r, plan) + plan.LAST, g_delta_1 * slope
                g_written = dot(g_p, tl.load(anchor + at), plan.PRECISION)
                add_tokens(g_errors, 0, g_written, plan.D, plan.BLOCK_T)
                delta = load_tokens(errors, 0, plan.D, plan.BLOCK_T)
                add(g_anchor + at, dot(tl.trans(g_p), delta, plan.PRECISION))
        own_g_shares = g_shares + tile * 2 * plan.BLOCK_T + tl.arange(0, plan.BLOCK_T)
        tl.store(own_g_shares, g_in_M)
        tl.store(own_g_shares + plan.BLOCK_T, g_in_S)
        tl.debug_barrier()

        # Back through the surprise, the last layer to the first.
        own_k = load_tokens(keys, 0, plan.D, plan.BLOCK_T)
        own_v = load_tokens(values, 0, plan.D, plan.BLOCK_T)
        own_g_delta = load_tokens(g_errors, 0, plan.D, plan.BLOCK_T)
        own_products = of_tile(products, tile, plan.D, plan.BLOCK_T)
        z = load_tokens(own_products, 0, plan.D, plan.BLOCK_T)
        g_z, g_answer, g_own_gain = surprise_backward(
            own_g_delta, z, own_k, own_v, gain, bias, huber, plan
        )
        if plan.NORM:
            channel = memory * plan.D + tl.arange(0, plan.D)
            add(g_gain + channel, g_own_gain)
            add(g_bias + channel, tl.sum(g_answer, 0))
        store_tokens((g_v + first, H * plan.D, rows), 0, -g_answer, plan.D, plan.BLOCK_T)
        if plan.RESIDUAL:
            add_tokens(g_keys, 0, g_answer, plan.D, plan.BLOCK_T)
        tl.debug_barrier()
        store_tokens(own_products, 0, g_z, plan.D, plan.BLOCK_T)
        tl.debug_barrier()
        for r in tl.range(0, plan.WIDTH, plan.BLOCK_R, disable_licm=True):
            z_1, a = key_block(keys, anchor, r, plan)
            at = block_at(r, plan)
            g_z = load_tokens(own_products, 0, plan.D, plan.BLOCK_T)
            add(g_anchor + plan.LAST + at, dot(tl.trans(a), g_z, plan.PRECISION))
            g_a = project(own_products, anchor + plan.LAST + r * plan.D, plan)
            g_through = load_tokens(inner, r, plan.BLOCK_R, plan.BLOCK_T)
            if plan.DEPTH == 1:
                add_tokens(g_keys, r, g_through + g_a, plan.BLOCK_R, plan.BLOCK_T)
            else:
                g_z_1 = g_through + g_a * act_slope(z_1, plan)
                g_written = dot(g_z_1, tl.load(anchor + at), plan.PRECISION)
                add_tokens(g_keys, 0, g_written, plan.D, plan.BLOCK_T)
                own_k = load_tokens(keys, 0, plan.D, plan.BLOCK_T)
                add(g_anchor + at, dot(tl.trans(g_z_1), own_k, plan.PRECISION))
        if opened == i + 1:  # a chunk begins: its anchor is what this tile started with
            tl.debug_barrier()
            for r in tl.range(0, plan.DEPTH * plan.WIDTH, plan.BLOCK_R, disable_licm=True):
                at = block_at(r, plan)
                add(g_start + at, tl.load(g_anchor + at))
                tl.debug_barrier()
                tl.store(g_anchor + at, tl.zeros((plan.BLOCK_R, plan.D), tl.float32))
        tl.debug_barrier()  # the tile before begins with what other threads have stored
