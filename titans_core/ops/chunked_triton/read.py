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
    place,
    project,
    pull,
    store_tokens,
    surprise,
)


@triton.jit
def read_first(
    q, STRIDE, rows, attention, delta_1, fast, rest, beta, f, r, MOMENTUM, HAS_MOMENTUM, HAS_REST, D,
    PRECISION, BLOCK_T, BLOCK_R,
):
    """``beta q W + f q S + (1 - beta) q M_0 - attention delta_1``, of the first layer's block W^T."""
    at = r * D
    z = beta[:, None] * project(q, STRIDE, rows, fast + at, D, PRECISION, BLOCK_T, BLOCK_R)
    if HAS_MOMENTUM:
        S = fast + MOMENTUM + at
        z += f[:, None] * project(q, STRIDE, rows, S, D, PRECISION, BLOCK_T, BLOCK_R)
    if HAS_REST:
        kept = project(q, STRIDE, rows, rest + at, D, PRECISION, BLOCK_T, BLOCK_R)
        z += (1 - beta[:, None]) * kept
    return z - dot(attention, delta_1, PRECISION)


@triton.jit
def read_last(
    h, fast, rest, at, beta, f, MOMENTUM, HAS_MOMENTUM, HAS_REST, PRECISION
):
    """``beta h W + f h S + (1 - beta) h M_0``, of the last layer's block W."""
    z = beta[:, None] * dot(h, tl.load(fast + at), PRECISION)
    if HAS_MOMENTUM:
        z += f[:, None] * dot(h, tl.load(fast + MOMENTUM + at), PRECISION)
    if HAS_REST:
        z += (1 - beta[:, None]) * dot(h, tl.load(rest + at), PRECISION)
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
    KEEP: tl.constexpr,
):
    """Fill ``y``, ``(B, T, H, D)``; all else as ``write_kernel`` left it.

    KEEP leaves what the backward needs instead. That is, each ``(tiles, N, BLOCK_T, ...)``:
    ``products`` z and ``deltas`` of keys; ``hidden``, of width WIDTH the last layer's inputs a, and
    for two layers also the first one's deltas, and its products of queries; ``scores``; and, as
    ``y``, the last product of queries.
    """
    i, here, sample, head, memories = place(tiles, H)
    SIZE: tl.constexpr = D * WIDTH
    MOMENTUM: tl.constexpr = DEPTH * SIZE
    LAST: tl.constexpr = (DEPTH - 1) * SIZE
    ROOM: tl.constexpr = (2 * DEPTH - 1) * WIDTH
    STATE: tl.constexpr = (1 + HAS_MOMENTUM) * MOMENTUM
    row = memories * STATE
    fast += (sample * H + head) * STATE
    rest += head * MOMENTUM
    begin, rows, opened = locate(i, T, offset, chunk_size, BLOCK_T)
    first = sample * T + begin
    at_gate, at_token = first * H + head, (first * H + head) * D
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
    beta, f, G = read_gates(*gates, HAS_MOMENTUM, BLOCK_T)
    anchor, now = fast + opened * row, fast + (i + 1) * row

    queries, keys, errors = q + at_token, k + at_token, deltas + here * BLOCK_T * D
    inner, every = hidden + here * BLOCK_T * ROOM, (0, BLOCK_T)
    if KEEP:
        z = key_product(
            keys, H * D, rows, anchor, D, WIDTH, DEPTH, GELU, PRECISION, BLOCK_T, BLOCK_R
        )
        own_k = load_tokens(keys, H * D, rows, D, BLOCK_T)
        own_v = load_tokens(v + at_token, H * D, rows, D, BLOCK_T)
        delta = surprise(
            z, own_k, own_v, gain + head * D, bias + head * D, huber, HAS_NORM, RESIDUAL, HAS_HUBER, D
        )[1]
        store_tokens(products + here * BLOCK_T * D, D, every, z, D, BLOCK_T)
        store_tokens(errors, D, every, delta, D, BLOCK_T)
        tl.debug_barrier()
    attention = G * compare(queries, H * D, rows, keys, H * D, rows, D, PRECISION, BLOCK_T)
    own_scores = tl.zeros((BLOCK_T, BLOCK_T), tl.float32)
    z = tl.zeros((BLOCK_T, D), tl.float32)
    for r in tl.range(0, WIDTH, BLOCK_R, disable_licm=True):
        z_1, a = key_block(keys, H * D, rows, anchor, r, D, DEPTH, GELU, PRECISION, BLOCK_T, BLOCK_R)
        if DEPTH == 1:
            h = load_tokens(queries + r, H * D, rows, BLOCK_R, BLOCK_T)
        else:
            delta_1 = delta_block(
                errors, z_1, anchor + LAST, r, D, DEPTH, GELU, PRECISION, BLOCK_T, BLOCK_R
            )[1]
            z_1 = read_first(
                queries, H * D, rows, attention, delta_1, now, rest, beta, f, r, MOMENTUM,
                HAS_MOMENTUM, HAS_REST, D, PRECISION, BLOCK_T, BLOCK_R,
            )
            h = act(z_1, GELU)
            if KEEP:
                store_tokens(inner + WIDTH + r, ROOM, every, delta_1, BLOCK_R, BLOCK_T)
                store_tokens(inner + 2 * WIDTH + r, ROOM, every, z_1, BLOCK_R, BLOCK_T)
        if KEEP:
            store_tokens(inner + r, ROOM, every, a, BLOCK_R, BLOCK_T)
        own_scores += dot(h, tl.trans(a), PRECISION)
        z += read_last(
            h, now + LAST, rest + LAST, block_at(r, D, BLOCK_R), beta, f, MOMENTUM, HAS_MOMENTUM,
            HAS_REST, PRECISION,
        )
    z -= dot(own_scores * G, load_tokens(errors, D, every, D, BLOCK_T), PRECISION)
    if KEEP:
        store_tokens(scores + here * BLOCK_T * BLOCK_T, BLOCK_T, every, own_scores, BLOCK_T, BLOCK_T)
        store_tokens(y + here * BLOCK_T * D, D, every, z, D, BLOCK_T)
    else:
        if HAS_NORM:
            channel = head * D + tl.arange(0, D)
            z = normalise(z, D)[0] * tl.load(gain + channel)[None, :] + tl.load(bias + channel)[None, :]
        if RESIDUAL:
            z += load_tokens(queries, H * D, rows, D, BLOCK_T)
        store_tokens(y + at_token, H * D, rows, z, D, BLOCK_T)


@triton.jit
def read_block_backward(
    n, w, STRIDE, rows, fast, rest, g_fast, g_rest, r, beta, f, g_beta, g_f, MOMENTUM, HAS_MOMENTUM,
    HAS_REST, NARROW, D, PRECISION, BLOCK_T, BLOCK_R,
):
    """Back through ``read_last`` (NARROW) or ``read_first`` of a block W, that is, ``n W w^T``.

    Of the last layer, n is what it saw and w the gradient of what it made of it; the first lies on
    its side, so there n is that gradient and w the queries. Returns the gradient of n if NARROW,
    else of w; ``g_beta`` and ``g_f`` with what is added. Those of W, S and M_0 are stored.
    """
    at = block_at(r, D, BLOCK_R)
    back = project(w, STRIDE, rows, fast + r * D, D, PRECISION, BLOCK_T, BLOCK_R)
    g_beta += tl.sum(back * n, 1)
    g = beta[:, None] * (back if NARROW else dot(n, tl.load(fast + at), PRECISION))
    own_w = load_tokens(w, STRIDE, rows, D, BLOCK_T)
    tl.store(g_fast + at, dot(tl.trans(n * beta[:, None]), own_w, PRECISION))
    if HAS_MOMENTUM:
        fast += MOMENTUM
        back = project(w, STRIDE, rows, fast + r * D, D, PRECISION, BLOCK_T, BLOCK_R)
        g_f += tl.sum(back * n, 1)
        g += f[:, None] * (back if NARROW else dot(n, tl.load(fast + at), PRECISION))
        own_w = load_tokens(w, STRIDE, rows, D, BLOCK_T)
        tl.store(g_fast + MOMENTUM + at, dot(tl.trans(n * f[:, None]), own_w, PRECISION))
    if HAS_REST:
        lost = 1 - beta[:, None]
        back = project(w, STRIDE, rows, rest + r * D, D, PRECISION, BLOCK_T, BLOCK_R)
        g_beta -= tl.sum(back * n, 1)
        g += lost * (back if NARROW else dot(n, tl.load(rest + at), PRECISION))
        own_w = load_tokens(w, STRIDE, rows, D, BLOCK_T)
        tl.store(g_rest + at, dot(tl.trans(n * lost), own_w, PRECISION))
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
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    DEPTH: tl.constexpr,
    HAS_MOMENTUM: tl.constexpr,
    HAS_WRITE: tl.constexpr,
    HAS_REST: tl.constexpr,
    HAS_NORM: tl.constexpr,
    RESIDUAL: tl.constexpr,
    GELU: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """Everything that the gradient of ``y`` says to what was read, from what ``read_kernel`` kept.

    In ``hidden``, that of the last layer's inputs a takes the place of a, and for two layers that of
    the first layer's deltas the place of these. ``g_delta`` is like ``deltas``; ``g_k`` is begun for
    two layers. ``g_fast`` ``(tiles + 1, N, P, DEPTH, WIDTH D)`` gets the gradients of W and S at the
    start of each tile, ``g_rest`` ``(tiles, N, DEPTH, WIDTH D)`` those of M_0. ``g_gain`` and
    ``g_bias`` are ``(tiles, N, D)``; ``g_G`` and ``g_read`` are for ``gates_backward_kernel``.
    """
    i, here, sample, head, memories = place(tiles, H)
    SIZE: tl.constexpr = D * WIDTH
    MOMENTUM: tl.constexpr = DEPTH * SIZE
    LAST: tl.constexpr = (DEPTH - 1) * SIZE
    STATE: tl.constexpr = (1 + HAS_MOMENTUM) * MOMENTUM
    row = memories * STATE
    fast += (sample * H + head) * STATE
    rest += head * MOMENTUM
    g_fast += here * STATE
    g_rest += here * MOMENTUM
    ROOM: tl.constexpr = (2 * DEPTH - 1) * WIDTH
    begin, rows, _ = locate(i, T, offset, chunk_size, BLOCK_T)
    first = sample * T + begin
    at_gate, at_token = first * H + head, (first * H + head) * D
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
    beta, f, G = read_gates(*gates, HAS_MOMENTUM, BLOCK_T)
    now = fast + (i + 1) * row

    queries, keys, errors = q + at_token, k + at_token, deltas + here * BLOCK_T * D
    inner, every = hidden + here * BLOCK_T * ROOM, (0, BLOCK_T)

    # Back through the norm, and through what was read of the tile's own tokens.
    g_z = load_tokens(g_y + at_token, H * D, rows, D, BLOCK_T)
    g_products = y + here * BLOCK_T * D
    if HAS_NORM:
        channel = tl.arange(0, D)
        n, s = normalise(load_tokens(g_products, D, every, D, BLOCK_T), D)
        tl.store(g_gain + here * D + channel, tl.sum(g_z * n, 0))
        tl.store(g_bias + here * D + channel, tl.sum(g_z, 0))
        g_z = pull(g_z * tl.load(gain + head * D + channel)[None, :], n, s, D)
    tl.debug_barrier()
    store_tokens(g_products, D, every, g_z, D, BLOCK_T)
    at_pair = here * BLOCK_T * BLOCK_T
    own_scores = load_tokens(scores + at_pair, BLOCK_T, every, BLOCK_T, BLOCK_T)
    own_g_delta = -dot(tl.trans(own_scores * G), g_z, PRECISION)
    store_tokens(g_delta + here * BLOCK_T * D, D, every, own_g_delta, D, BLOCK_T)
    tl.debug_barrier()
    g_weighted = -compare(g_products, D, every, errors, D, every, D, PRECISION, BLOCK_T)
    own_g_G = g_weighted * own_scores
    g_scores = g_weighted * G

    # Back through the last layer, then the first, block by block.
    g_beta = tl.zeros((BLOCK_T,), tl.float32)
    g_f = tl.zeros((BLOCK_T,), tl.float32)
    for r in tl.range(0, WIDTH, BLOCK_R, disable_licm=True):
        if DEPTH == 1:
            z_1 = load_tokens(queries + r, H * D, rows, BLOCK_R, BLOCK_T)
            h = z_1
        else:
            z_1 = load_tokens(inner + 2 * WIDTH + r, ROOM, every, BLOCK_R, BLOCK_T)
            h = act(z_1, GELU)
        g_h, g_beta, g_f = read_block_backward(
            h, g_products, D, every, now + LAST, rest + LAST, g_fast + LAST, g_rest + LAST, r, beta, f,
            g_beta, g_f, MOMENTUM, HAS_MOMENTUM, HAS_REST, True, D, PRECISION, BLOCK_T, BLOCK_R,
        )
        g_h += dot(g_scores, load_tokens(inner + r, ROOM, every, BLOCK_R, BLOCK_T), PRECISION)
        g_a = dot(tl.trans(g_scores), h, PRECISION)
        store_tokens(inner + r, ROOM, every, g_a, BLOCK_R, BLOCK_T)
        if DEPTH == 2:
            g_z_1 = g_h * act_slope(z_1, GELU)
            store_tokens(inner + 2 * WIDTH + r, ROOM, every, g_z_1, BLOCK_R, BLOCK_T)
        else:
            if RESIDUAL:
                g_h += load_tokens(g_y + at_token + r, H * D, rows, BLOCK_R, BLOCK_T)
            store_tokens(g_q + at_token + r, H * D, rows, g_h, BLOCK_R, BLOCK_T)
    if DEPTH == 2:
        tl.debug_barrier()
        similar = compare(queries, H * D, rows, keys, H * D, rows, D, PRECISION, BLOCK_T)
        own_g_q = tl.zeros((BLOCK_T, D), tl.float32)
        g_attention = tl.zeros((BLOCK_T, BLOCK_T), tl.float32)
        for r in tl.range(0, WIDTH, BLOCK_R, disable_licm=True):
            g_z_1 = load_tokens(inner + 2 * WIDTH + r, ROOM, every, BLOCK_R, BLOCK_T)
            delta_1 = load_tokens(inner + WIDTH + r, ROOM, every, BLOCK_R, BLOCK_T)
            g_attention -= dot(g_z_1, tl.trans(delta_1), PRECISION)
            g_delta_1 = -dot(tl.trans(similar * G), g_z_1, PRECISION)
            store_tokens(inner + WIDTH + r, ROOM, every, g_delta_1, BLOCK_R, BLOCK_T)
            g_own_q, g_beta, g_f = read_block_backward(
                g_z_1, queries, H * D, rows, now, rest, g_fast, g_rest, r, beta, f, g_beta, g_f,
                MOMENTUM, HAS_MOMENTUM, HAS_REST, False, D, PRECISION, BLOCK_T, BLOCK_R,
            )
            own_g_q += g_own_q
        own_g_G += g_attention * similar
        g_similar = g_attention * G
        own_g_q += dot(g_similar, load_tokens(keys, H * D, rows, D, BLOCK_T), PRECISION)
        if RESIDUAL:
            own_g_q += load_tokens(g_y + at_token, H * D, rows, D, BLOCK_T)
        store_tokens(g_q + at_token, H * D, rows, own_g_q, D, BLOCK_T)
        own_q = load_tokens(queries, H * D, rows, D, BLOCK_T)
        own_g_k = dot(tl.trans(g_similar), own_q, PRECISION)
        store_tokens(g_k + at_token, H * D, rows, own_g_k, D, BLOCK_T)
    store_tokens(g_G + at_pair, BLOCK_T, every, own_g_G, BLOCK_T, BLOCK_T)
    t = tl.arange(0, BLOCK_T)
    tl.store(g_read + here * 2 * BLOCK_T + t, g_beta)
    tl.store(g_read + here * 2 * BLOCK_T + BLOCK_T + t, g_f)
