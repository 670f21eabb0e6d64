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
    delta_block,
    dot,
    key_block,
    key_product,
    load_tile,
    load_tokens,
    locate,
    normalise,
    place,
    pull,
    store_tile,
    store_tokens,
    surprise,
)


@triton.jit
def read_block(h, fast, rest, at, beta, f, MOMENTUM, HAS_MOMENTUM, HAS_REST, TURNED, PRECISION):
    """``beta h W + f h S + (1 - beta) h M_0``, of weights that lie on their side if TURNED."""
    W = tl.load(fast + at)
    z = beta[:, None] * dot(h, tl.trans(W) if TURNED else W, PRECISION)
    if HAS_MOMENTUM:
        S = tl.load(fast + MOMENTUM + at)
        z += f[:, None] * dot(h, tl.trans(S) if TURNED else S, PRECISION)
    if HAS_REST:
        M_0 = tl.load(rest + at)
        z += (1 - beta[:, None]) * dot(h, tl.trans(M_0) if TURNED else M_0, PRECISION)
    return z


@triton.jit
def query_block(
    q,
    own_q,
    attention,
    delta_1,
    fast,
    rest,
    beta,
    f,
    r,
    STRIDE,
    rows,
    D,
    DEPTH,
    MOMENTUM,
    HAS_MOMENTUM,
    HAS_REST,
    GELU,
    PRECISION,
    BLOCK_T,
    BLOCK_R,
):
    """What the last layer sees of queries, h, and the product that it was made of."""
    if DEPTH == 1:
        h = load_tokens(q + r, STRIDE, rows, BLOCK_R, BLOCK_T)
        return h, h
    else:
        at = block_at(r, D, BLOCK_R)
        z = read_block(
            own_q, fast, rest, at, beta, f, MOMENTUM, HAS_MOMENTUM, HAS_REST, True, PRECISION
        )
        z -= dot(attention, delta_1, PRECISION)
        return z, act(z, GELU)


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
    here = tl.program_id(0).to(tl.int64)
    memory, sample, head, row = place(tl.program_id(0) % (tl.num_programs(0) // tiles), tl.num_programs(0) // tiles, H)
    i = tl.program_id(0) // (tl.num_programs(0) // tiles)
    SIZE: tl.constexpr = D * WIDTH
    MOMENTUM: tl.constexpr = DEPTH * SIZE
    LAST: tl.constexpr = (DEPTH - 1) * SIZE
    ROOM: tl.constexpr = (2 * DEPTH - 1) * WIDTH
    row *= (1 + HAS_MOMENTUM) * MOMENTUM
    fast += memory * (1 + HAS_MOMENTUM) * MOMENTUM
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

    own_k = load_tokens(k + at_token, H * D, rows, D, BLOCK_T)
    if KEEP:
        own_v = load_tokens(v + at_token, H * D, rows, D, BLOCK_T)
        z = key_product(
            k + at_token, own_k, anchor, H * D, rows, D, WIDTH, DEPTH, GELU, PRECISION, BLOCK_T, BLOCK_R
        )
        delta = surprise(
            z, own_k, own_v, gain + head * D, bias + head * D, huber, HAS_NORM, RESIDUAL, HAS_HUBER, D
        )[1]
        store_tile(products, here, 0, z, D, BLOCK_T, D)
        store_tile(deltas, here, 0, delta, D, BLOCK_T, D)
    else:
        delta = load_tile(deltas, here, 0, D, BLOCK_T, D)
    own_q = load_tokens(q + at_token, H * D, rows, D, BLOCK_T)
    attention = dot(own_q, tl.trans(own_k), PRECISION) * G
    own_scores = tl.zeros((BLOCK_T, BLOCK_T), tl.float32)
    z = tl.zeros((BLOCK_T, D), tl.float32)
    for r in tl.range(0, WIDTH, BLOCK_R, disable_licm=True):
        z_1, a = key_block(
            k + at_token, own_k, anchor, r, H * D, rows, D, DEPTH, GELU, PRECISION, BLOCK_T, BLOCK_R
        )
        delta_1 = delta_block(delta, z_1, anchor + LAST, r, D, DEPTH, GELU, PRECISION, BLOCK_R)[1]
        z_1, h = query_block(
            q + at_token, own_q, attention, delta_1, now, rest, beta, f, r, H * D, rows, D, DEPTH,
            MOMENTUM, HAS_MOMENTUM, HAS_REST, GELU, PRECISION, BLOCK_T, BLOCK_R,
        )
        if KEEP:
            store_tile(hidden, here, r, a, BLOCK_R, BLOCK_T, ROOM)
            if DEPTH == 2:
                store_tile(hidden, here, WIDTH + r, delta_1, BLOCK_R, BLOCK_T, ROOM)
                store_tile(hidden, here, 2 * WIDTH + r, z_1, BLOCK_R, BLOCK_T, ROOM)
        own_scores += dot(h, tl.trans(a), PRECISION)
        z += read_block(
            h, now + LAST, rest + LAST, block_at(r, D, BLOCK_R), beta, f, MOMENTUM, HAS_MOMENTUM,
            HAS_REST, False, PRECISION,
        )
    z -= dot(own_scores * G, delta, PRECISION)
    if KEEP:
        store_tile(scores, here, 0, own_scores, BLOCK_T, BLOCK_T, BLOCK_T)
        store_tile(y, here, 0, z, D, BLOCK_T, D)
    else:
        if HAS_NORM:
            channel = head * D + tl.arange(0, D)
            z = normalise(z, D)[0] * tl.load(gain + channel)[None, :] + tl.load(bias + channel)[None, :]
        if RESIDUAL:
            z += own_q
        store_tokens(y + at_token, H * D, rows, z, D, BLOCK_T)


@triton.jit
def read_block_backward(
    n, w, fast, rest, g_fast, g_rest, at, beta, f, g_beta, g_f, MOMENTUM, HAS_MOMENTUM, HAS_REST,
    NARROW, PRECISION,
):
    """Back through ``read_block`` of a block W, which was read as ``n W w^T``.

    That is, n is what the last layer saw and w the gradient of what it made of it; the first layer
    lies on its side, so there n is that gradient and w the queries. Returns the gradient of n if
    NARROW, else of w; ``g_beta`` and ``g_f`` with what is added. Those of W, S and M_0 are stored.
    """
    tl.store(g_fast + at, dot(tl.trans(n * beta[:, None]), w, PRECISION))
    W = tl.load(fast + at)
    back = dot(w, tl.trans(W), PRECISION)
    g_beta += tl.sum(back * n, 1)
    g = beta[:, None] * (back if NARROW else dot(n, W, PRECISION))
    if HAS_MOMENTUM:
        tl.store(g_fast + MOMENTUM + at, dot(tl.trans(n * f[:, None]), w, PRECISION))
        S = tl.load(fast + MOMENTUM + at)
        back = dot(w, tl.trans(S), PRECISION)
        g_f += tl.sum(back * n, 1)
        g += f[:, None] * (back if NARROW else dot(n, S, PRECISION))
    if HAS_REST:
        M_0, lost = tl.load(rest + at), 1 - beta[:, None]
        tl.store(g_rest + at, dot(tl.trans(n * lost), w, PRECISION))
        back = dot(w, tl.trans(M_0), PRECISION)
        g_beta -= tl.sum(back * n, 1)
        g += lost * (back if NARROW else dot(n, M_0, PRECISION))
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
    here = tl.program_id(0).to(tl.int64)
    memory, sample, head, row = place(tl.program_id(0) % (tl.num_programs(0) // tiles), tl.num_programs(0) // tiles, H)
    i = tl.program_id(0) // (tl.num_programs(0) // tiles)
    SIZE: tl.constexpr = D * WIDTH
    MOMENTUM: tl.constexpr = DEPTH * SIZE
    LAST: tl.constexpr = (DEPTH - 1) * SIZE
    row *= (1 + HAS_MOMENTUM) * MOMENTUM
    fast += memory * (1 + HAS_MOMENTUM) * MOMENTUM
    rest += head * MOMENTUM
    g_fast += here * (1 + HAS_MOMENTUM) * MOMENTUM
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

    own_q = load_tokens(q + at_token, H * D, rows, D, BLOCK_T)
    own_k = load_tokens(k + at_token, H * D, rows, D, BLOCK_T)
    similar = dot(own_q, tl.trans(own_k), PRECISION)
    own_scores = load_tile(scores, here, 0, BLOCK_T, BLOCK_T, BLOCK_T)
    delta = load_tile(deltas, here, 0, D, BLOCK_T, D)

    # Back through the norm, and through what was read of the tile's own tokens.
    g_z = load_tokens(g_y + at_token, H * D, rows, D, BLOCK_T)
    if HAS_NORM:
        channel = tl.arange(0, D)
        n, s = normalise(load_tile(y, here, 0, D, BLOCK_T, D), D)
        tl.store(g_gain + here * D + channel, tl.sum(g_z * n, 0))
        tl.store(g_bias + here * D + channel, tl.sum(g_z, 0))
        g_z = pull(g_z * tl.load(gain + head * D + channel)[None, :], n, s, D)
    g_weighted = -dot(g_z, tl.trans(delta), PRECISION)
    store_tile(g_delta, here, 0, -dot(tl.trans(own_scores * G), g_z, PRECISION), D, BLOCK_T, D)
    g_scores = g_weighted * G

    own_g_G = g_weighted * own_scores

    # Back through the last layer, then the first, block by block.
    g_beta = tl.zeros((BLOCK_T,), tl.float32)
    g_f = tl.zeros((BLOCK_T,), tl.float32)
    for r in tl.range(0, WIDTH, BLOCK_R, disable_licm=True):
        a = load_tile(hidden, here, r, BLOCK_R, BLOCK_T, ROOM)
        if DEPTH == 1:
            z_1 = load_tokens(q + at_token + r, H * D, rows, BLOCK_R, BLOCK_T)
            h = z_1
        else:
            z_1 = load_tile(hidden, here, 2 * WIDTH + r, BLOCK_R, BLOCK_T, ROOM)
            h = act(z_1, GELU)
        g_h, g_beta, g_f = read_block_backward(
            h, g_z, now + LAST, rest + LAST, g_fast + LAST, g_rest + LAST, block_at(r, D, BLOCK_R),
            beta, f, g_beta, g_f, MOMENTUM, HAS_MOMENTUM, HAS_REST, True, PRECISION,
        )
        g_h += dot(g_scores, a, PRECISION)
        g_a = dot(tl.trans(g_scores), h, PRECISION)
        store_tile(hidden, here, r, g_a, BLOCK_R, BLOCK_T, ROOM)
        if DEPTH == 2:
            g_z_1 = g_h * act_slope(z_1, GELU)
            store_tile(hidden, here, 2 * WIDTH + r, g_z_1, BLOCK_R, BLOCK_T, ROOM)
        else:
            if RESIDUAL:
                g_h += load_tokens(g_y + at_token + r, H * D, rows, BLOCK_R, BLOCK_T)
            store_tokens(g_q + at_token + r, H * D, rows, g_h, BLOCK_R, BLOCK_T)
    if DEPTH == 2:
        tl.debug_barrier()
        own_q = load_tokens(q + at_token, H * D, rows, D, BLOCK_T)
        own_k = load_tokens(k + at_token, H * D, rows, D, BLOCK_T)
        own_g_q = tl.zeros((BLOCK_T, D), tl.float32)
        g_attention = tl.zeros((BLOCK_T, BLOCK_T), tl.float32)
        for r in tl.range(0, WIDTH, BLOCK_R, disable_licm=True):
            g_z_1 = load_tile(hidden, here, 2 * WIDTH + r, BLOCK_R, BLOCK_T, ROOM)
            delta_1 = load_tile(hidden, here, WIDTH + r, BLOCK_R, BLOCK_T, ROOM)
            g_attention -= dot(g_z_1, tl.trans(delta_1), PRECISION)
            g_delta_1 = -dot(tl.trans(similar * G), g_z_1, PRECISION)
            store_tile(hidden, here, WIDTH + r, g_delta_1, BLOCK_R, BLOCK_T, ROOM)
            g_own_q, g_beta, g_f = read_block_backward(
                g_z_1, own_q, now, rest, g_fast, g_rest, block_at(r, D, BLOCK_R), beta, f, g_beta,
                g_f, MOMENTUM, HAS_MOMENTUM, HAS_REST, False, PRECISION,
            )
            own_g_q += g_own_q
        own_g_G += g_attention * similar
        g_similar = g_attention * G
        own_g_q += dot(g_similar, own_k, PRECISION)
        if RESIDUAL:
            own_g_q += load_tokens(g_y + at_token, H * D, rows, D, BLOCK_T)
        store_tokens(g_q + at_token, H * D, rows, own_g_q, D, BLOCK_T)
        own_g_k = dot(tl.trans(g_similar), own_q, PRECISION)
        store_tokens(g_k + at_token, H * D, rows, own_g_k, D, BLOCK_T)
    store_tile(g_G, here, 0, own_g_G, BLOCK_T, BLOCK_T, BLOCK_T)
    t = tl.arange(0, BLOCK_T)
    tl.store(g_read + here * 2 * BLOCK_T + t, g_beta)
    tl.store(g_read + here * 2 * BLOCK_T + BLOCK_T + t, g_f)
