"""Reading: what was written is known, so one program per tile and memory, in any order.

Each token reads the memory as it was right after its own write: the weights and momentum that the
tile began with, and the tile's own tokens by attention (``ops/README.md``, section 2).
"""

from __future__ import annotations

import triton
import triton.language as tl

from titans_core.ops.chunked_triton.gates import load_gates, read_gates
from titans_core.ops.chunked_triton.pieces import (
    act,
    act_slope,
    block_at,
    compare,
    delta_block,
    dot,
    key_block,
    key_product,
    load_tokens,
    locate,
    normalise,
    of_tile,
    place,
    project,
    pull,
    store_tokens,
    surprise,
)


@triton.jit
def read_first(queries, attention, delta_1, fast, rest, beta, f, r, plan: tl.constexpr):
    """``beta q W + f q S + (1 - beta) q M_0 - attention delta_1``, W on its side."""
    z = beta * project(queries, fast + r * plan.D, plan)
    if plan.MOMENTUM:
        z += f * project(queries, fast + plan.LAYERS + r * plan.D, plan)
    if plan.REST:
        z += (1 - beta) * project(queries, rest + r * plan.D, plan)
    return z - dot(attention, delta_1, plan.PRECISION)


@triton.jit
def read_last(h, fast, rest, at, beta, f, plan: tl.constexpr):
    """``beta h W + f h S + (1 - beta) h M_0``."""
    z = beta * dot(h, tl.load(fast + at), plan.PRECISION)
    if plan.MOMENTUM:
        z += f * dot(h, tl.load(fast + plan.LAYERS + at), plan.PRECISION)
    if plan.REST:
        z += (1 - beta) * dot(h, tl.load(rest + at), plan.PRECISION)
    return z


@triton.jit
def read_kernel(
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
    products,
    deltas,
    hidden,
    scores,
    y,
    T,
    H,
    tiles,
    offset,
    chunk_size,
    huber,
    plan: tl.constexpr,
    KEEP: tl.constexpr,
):
    """Fill ``y``, ``(B, T, H, D)``; all else as ``write_kernel`` left it.

    KEEP leaves what the backward needs instead. That is, each ``(tiles, N, BLOCK_T, ...)``:
    ``products`` z and ``deltas`` of keys; ``hidden``, WIDTH inputs a of the last layer, and for two
    layers WIDTH deltas of the first, and its products of queries; ``scores``; and, as ``y``, the
    last product of queries.
    """
    i, tile, sample, head, memories = place(tiles, H)
    row = memories * plan.STATE
    fast += (sample * H + head) * plan.STATE
    rest += head * plan.LAYERS
    gain += head * plan.D
    bias += head * plan.D
    begin, rows, opened = locate(i, T, offset, chunk_size, plan.BLOCK_T)
    token = sample * T + begin
    first = (token * H + head) * plan.D
    queries, keys = (q + first, H * plan.D, rows), (k + first, H * plan.D, rows)
    errors = of_tile(deltas, tile, plan.D, plan.BLOCK_T)
    inner = of_tile(hidden, tile, plan.ROOM, plan.BLOCK_T)
    anchor, now = fast + opened * row, fast + (i + 1) * row
    beta, f, G = read_gates(load_gates(theta, eta, alpha, write, token, head, H, rows, plan), plan)
    beta, f = beta[:, None], f[:, None]

    if KEEP:  # what was written, again
        z = key_product(keys, anchor, plan)
        own_k = load_tokens(keys, 0, plan.D, plan.BLOCK_T)
        own_v = load_tokens((v + first, H * plan.D, rows), 0, plan.D, plan.BLOCK_T)
        delta = surprise(z, own_k, own_v, gain, bias, huber, plan)[1]
        own_products = of_tile(products, tile, plan.D, plan.BLOCK_T)
        store_tokens(own_products, 0, z, plan.D, plan.BLOCK_T)
        store_tokens(errors, 0, delta, plan.D, plan.BLOCK_T)
        tl.debug_barrier()
    if plan.DEPTH == 2:
        attention = G * compare(queries, keys, plan)
    own_scores = tl.zeros((plan.BLOCK_T, plan.BLOCK_T), tl.float32)
    z = tl.zeros((plan.BLOCK_T, plan.D), tl.float32)
    for r in tl.range(0, plan.WIDTH, plan.BLOCK_R, disable_licm=True):
        z_1, a = key_block(keys, anchor, r, plan)
        if plan.DEPTH == 1:
            h = load_tokens(queries, r, plan.BLOCK_R, plan.BLOCK_T)
        else:
            delta_1 = delta_block(errors, z_1, anchor, r, plan)[1]
            z_1 = read_first(queries, attention, delta_1, now, rest, beta, f, r, plan)
            h = act(z_1, plan)
            if KEEP:
                store_tokens(inner, plan.WIDTH + r, delta_1, plan.BLOCK_R, plan.BLOCK_T)
                store_tokens(inner, 2 * plan.WIDTH + r, z_1, plan.BLOCK_R, plan.BLOCK_T)
        if KEEP:
            store_tokens(inner, r, a, plan.BLOCK_R, plan.BLOCK_T)
        own_scores += dot(h, tl.trans(a), plan.PRECISION)
        z += read_last(h, now, rest, plan.LAST + block_at(r, plan), beta, f, plan)
    delta = load_tokens(errors, 0, plan.D, plan.BLOCK_T)
    z -= dot(own_scores * G, delta, plan.PRECISION)

    if KEEP:
        pairs = of_tile(scores, tile, plan.BLOCK_T, plan.BLOCK_T)
        store_tokens(pairs, 0, own_scores, plan.BLOCK_T, plan.BLOCK_T)
        store_tokens(of_tile(y, tile, plan.D, plan.BLOCK_T), 0, z, plan.D, plan.BLOCK_T)
    else:
        if plan.NORM:
            channel = tl.arange(0, plan.D)
            z = normalise(z, plan.D)[0] * tl.load(gain + channel)[None, :]
            z += tl.load(bias + channel)[None, :]
        if plan.RESIDUAL:
            z += load_tokens(queries, 0, plan.D, plan.BLOCK_T)
        store_tokens((y + first, H * plan.D, rows), 0, z, plan.D, plan.BLOCK_T)


@triton.jit
def share_backward(n, w, W, into, share, NARROW: tl.constexpr, plan: tl.constexpr):
    """Back through one share of what was read of a block W: of ``share n W w^T``.

    Of the last layer, n is what it saw and w the gradient of what it made of it; the first lies on
    its side, so there n is that gradient and w (tokens in memory, as always) the queries. Returns
    the gradient of n if NARROW, else of w, and that of share; that of W is stored.
    """
    own_w = load_tokens(w, 0, plan.D, plan.BLOCK_T)
    tl.store(into + block_at(0, plan), dot(tl.trans(n * share), own_w, plan.PRECISION))
    if NARROW:
        g = project(w, W, plan)
        return share * g, tl.sum(g * n, 1)
    else:
        g = dot(n, tl.load(W + block_at(0, plan)), plan.PRECISION)
        own_w = load_tokens(w, 0, plan.D, plan.BLOCK_T)
        return share * g, tl.sum(g * own_w, 1)


@triton.jit
def read_block_backward(
    n, w, fast, rest, g_fast, g_rest, beta, f, g_beta, g_f, NARROW: tl.constexpr, plan: tl.constexpr
):
    """Back through ``read_last`` (NARROW) or ``read_first``; see ``share_backward``."""
    g, own_g_beta = share_backward(n, w, fast, g_fast, beta, NARROW, plan)
    g_beta += own_g_beta
    if plan.MOMENTUM:
        g_S, own_g_f = share_backward(
            n, w, fast + plan.LAYERS, g_fast + plan.LAYERS, f, NARROW, plan
        )
        g += g_S
        g_f += own_g_f
    if plan.REST:
        g_M_0, g_lost = share_backward(n, w, rest, g_rest, 1 - beta, NARROW, plan)
        g += g_M_0
        g_beta -= g_lost
    return g, g_beta, g_f


@triton.jit
def read_backward_kernel(
    q,
    k,
    theta,
    eta,
    alpha,
    write,
    rest,
    gain,
    fast,
    g_y,
    y,
    deltas,
    hidden,
    scores,
    g_delta,
    g_fast,
    g_rest,
    g_q,
    g_k,
    g_gain,
    g_bias,
    g_G,
    g_read,
    T,
    H,
    tiles,
    offset,
    chunk_size,
    plan: tl.constexpr,
):
    """Everything that the gradient of ``y`` says to what was read, from what ``read_kernel`` kept.

    In ``hidden``, gradients take the place of the last layer's inputs a, for two layers also those
    of the first layer's deltas the place of these. ``g_delta`` is like ``deltas``; ``g_k`` is begun
    for two layers. ``g_fast`` ``(tiles + 1, N, P, DEPTH, WIDTH D)`` gets the gradients of W and S
    at the start of each tile, ``g_rest`` ``(tiles, N, DEPTH, WIDTH D)`` those of M_0. ``g_gain``
    and ``g_bias`` are ``(tiles, N, D)``; ``g_G`` and ``g_read`` are for ``gates_backward_kernel``.
    """
    i, tile, sample, head, memories = place(tiles, H)
    fast += ((i + 1) * memories + sample * H + head) * plan.STATE
    rest += head * plan.LAYERS
    g_fast += tile * plan.STATE
    g_rest += tile * plan.LAYERS
    begin, rows, _ = locate(i, T, offset, chunk_size, plan.BLOCK_T)
    token = sample * T + begin
    first = (token * H + head) * plan.D
    queries, keys = (q + first, H * plan.D, rows), (k + first, H * plan.D, rows)
    g_answers, g_queries = (g_y + first, H * plan.D, rows), (g_q + first, H * plan.D, rows)
    inner = of_tile(hidden, tile, plan.ROOM, plan.BLOCK_T)
    beta, f, G = read_gates(load_gates(theta, eta, alpha, write, token, head, H, rows, plan), plan)
    beta, f = beta[:, None], f[:, None]

    # Back through the norm, and through what was read of the tile's own tokens.
    g_z = load_tokens(g_answers, 0, plan.D, plan.BLOCK_T)
    last_products = of_tile(y, tile, plan.D, plan.BLOCK_T)
    if plan.NORM:
        channel = tl.arange(0, plan.D)
        n, s = normalise(load_tokens(last_products, 0, plan.D, plan.BLOCK_T), plan.D)
        tl.store(g_gain + tile * plan.D + channel, tl.sum(g_z * n, 0))
        tl.store(g_bias + tile * plan.D + channel, tl.sum(g_z, 0))
        g_z = pull(g_z * tl.load(gain + head * plan.D + channel)[None, :], n, s, plan.D)
    tl.debug_barrier()
    g_products = last_products  # these are not needed any more
    store_tokens(g_products, 0, g_z, plan.D, plan.BLOCK_T)
    pairs = of_tile(scores, tile, plan.BLOCK_T, plan.BLOCK_T)
    own_scores = load_tokens(pairs, 0, plan.BLOCK_T, plan.BLOCK_T)
    own_g_delta = -dot(tl.trans(own_scores * G), g_z, plan.PRECISION)
    g_errors = of_tile(g_delta, tile, plan.D, plan.BLOCK_T)
    store_tokens(g_errors, 0, own_g_delta, plan.D, plan.BLOCK_T)
    tl.debug_barrier()
    g_weighted = -compare(g_products, of_tile(deltas, tile, plan.D, plan.BLOCK_T), plan)
    own_g_G = g_weighted * own_scores
    g_scores = g_weighted * G

    # Back through the last layer, then the first, block by block.
    g_beta = tl.zeros((plan.BLOCK_T,), tl.float32)
    g_f = tl.zeros((plan.BLOCK_T,), tl.float32)
    for r in tl.range(0, plan.WIDTH, plan.BLOCK_R, disable_licm=True):
        if plan.DEPTH == 1:
            h = load_tokens(queries, r, plan.BLOCK_R, plan.BLOCK_T)
        else:
            z_1 = load_tokens(inner, 2 * plan.WIDTH + r, plan.BLOCK_R, plan.BLOCK_T)
            h = act(z_1, plan)
        at = plan.LAST + r * plan.D
        g_h, g_beta, g_f = read_block_backward(
            h, g_products, fast + at, rest + at, g_fast + at, g_rest + at, beta, f, g_beta, g_f,
            True, plan,
        )  # fmt: skip
        a = load_tokens(inner, r, plan.BLOCK_R, plan.BLOCK_T)
        g_h += dot(g_scores, a, plan.PRECISION)
        g_a = dot(tl.trans(g_scores), h, plan.PRECISION)
        tl.debug_barrier()  # other threads, too, have loaded what is replaced now
        store_tokens(inner, r, g_a, plan.BLOCK_R, plan.BLOCK_T)
        if plan.DEPTH == 2:
            g_z_1 = g_h * act_slope(z_1, plan)
            store_tokens(inner, 2 * plan.WIDTH + r, g_z_1, plan.BLOCK_R, plan.BLOCK_T)
        else:
            if plan.RESIDUAL:
                g_h += load_tokens(g_answers, r, plan.BLOCK_R, plan.BLOCK_T)
            store_tokens(g_queries, r, g_h, plan.BLOCK_R, plan.BLOCK_T)
    if plan.DEPTH == 2:
        tl.debug_barrier()
        similar = compare(queries, keys, plan)
        own_g_q = tl.zeros((plan.BLOCK_T, plan.D), tl.float32)
        g_attention = tl.zeros((plan.BLOCK_T, plan.BLOCK_T), tl.float32)
        for r in tl.range(0, plan.WIDTH, plan.BLOCK_R, disable_licm=True):
            g_z_1 = load_tokens(inner, 2 * plan.WIDTH + r, plan.BLOCK_R, plan.BLOCK_T)
            delta_1 = load_tokens(inner, plan.WIDTH + r, plan.BLOCK_R, plan.BLOCK_T)
            g_attention -= dot(g_z_1, tl.trans(delta_1), plan.PRECISION)
            g_delta_1 = -dot(tl.trans(similar * G), g_z_1, plan.PRECISION)
            tl.debug_barrier()
            store_tokens(inner, plan.WIDTH + r, g_delta_1, plan.BLOCK_R, plan.BLOCK_T)
            at = r * plan.D
            g_own_q, g_beta, g_f = read_block_backward(
                g_z_1, queries, fast + at, rest + at, g_fast + at, g_rest + at, beta, f, g_beta,
                g_f, False, plan,
            )  # fmt: skip
            own_g_q += g_own_q
        own_g_G += g_attention * similar
        g_similar = g_attention * G
        own_k = load_tokens(keys, 0, plan.D, plan.BLOCK_T)
        own_g_q += dot(g_similar, own_k, plan.PRECISION)
        if plan.RESIDUAL:
            own_g_q += load_tokens(g_answers, 0, plan.D, plan.BLOCK_T)
        store_tokens(g_queries, 0, own_g_q, plan.D, plan.BLOCK_T)
        own_q = load_tokens(queries, 0, plan.D, plan.BLOCK_T)
        own_g_k = dot(tl.trans(g_similar), own_q, plan.PRECISION)
        store_tokens((g_k + first, H * plan.D, rows), 0, own_g_k, plan.D, plan.BLOCK_T)
    g_pairs = of_tile(g_G, tile, plan.BLOCK_T, plan.BLOCK_T)
    store_tokens(g_pairs, 0, own_g_G, plan.BLOCK_T, plan.BLOCK_T)
    own_g_read = g_read + tile * 2 * plan.BLOCK_T + tl.arange(0, plan.BLOCK_T)
    tl.store(own_g_read, g_beta)
    tl.store(own_g_read + plan.BLOCK_T, g_f)
