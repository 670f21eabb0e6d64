"""The backward kernel: one program per memory goes back through its tiles, the last one first.

Nothing but the weights and momentum at the start of each tile was kept; the rest of a tile is
computed again, then differentiated by hand as in ``ops/README.md``, section 6. Gradients of weights
and momentum pass from tile to tile through ``g_fast``, in place.
"""

from __future__ import annotations

import triton
import triton.language as tl

from titans_core.ops.chunked_triton.pieces import (
    act_bend,
    act_slope,
    block_at,
    delta_block,
    dot,
    key_block,
    load_layer,
    load_gates,
    load_tokens,
    locate,
    normalise,
    pull,
    query_block,
    read_layer,
    real,
    store_tokens,
    surprise,
    surprise_backward,
    tile_gates,
    tile_gates_backward,
)


@triton.jit
def add(into, x):
    tl.store(into, tl.load(into) + x)


@triton.jit
def no_gradient(BLOCK_T: tl.constexpr):
    """Gradients of beta, f, in_M, in_S, and of what is left of S when the tile ends: zeros yet."""
    zeros = tl.zeros((BLOCK_T,), tl.float32)
    return zeros, zeros, zeros, zeros, tl.sum(zeros)


@triton.jit
def layer_backward(
    read_by,
    to,
    a,
    delta,
    fast,
    g_fast,
    rest,
    g_rest,
    at,
    beta,
    f,
    in_M,
    in_S,
    ends,
    g_gates,
    MOMENTUM,
    HAS_MOMENTUM,
    HAS_REST,
    PRECISION,
    NARROW: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    """Back through ``read_layer`` and ``write_layer`` of a block of weights.

    A block W, (BLOCK_R, D), takes part as ``n W w^T``, with n of BLOCK_R columns and w of D. Read, n
    and w are ``read_by`` and ``to``: queries' h and the gradient of z, or (the first layer lying on its side)
    the gradient of z and queries. Written, they are a and delta, or delta and keys. Returns the
    gradient of ``read_by`` if NARROW, else of ``to``; those of a and delta; and ``g_gates`` with
    what is added. What the ends have of beta and f goes to the last token.
    """
    beta_end, f_end, m_end = ends
    g_beta, g_f, g_in_M, g_in_S, g_m_end = g_gates
    end = tl.arange(0, BLOCK_T) == BLOCK_T - 1

    W, g_W = tl.load(fast + at), tl.load(g_fast + at)
    read = dot(to, tl.trans(W), PRECISION)
    if NARROW:
        g_read = beta[:, None] * read
    else:
        g_read = beta[:, None] * dot(read_by, W, PRECISION)
    g_beta += tl.sum(read * read_by, 1) + tl.where(end, tl.sum(g_W * W), 0.0)
    written = dot(delta, tl.trans(g_W), PRECISION)
    g_a = -in_M[:, None] * written
    g_in_M -= tl.sum(written * a, 1)
    g_delta = -in_M[:, None] * dot(a, g_W, PRECISION)
    g_start = beta_end * g_W + dot(tl.trans(read_by * beta[:, None]), to, PRECISION)
    tl.store(g_fast + at, g_start)
    if HAS_REST:
        M_0, lost = tl.load(rest + at), 1 - beta[:, None]
        read = dot(to, tl.trans(M_0), PRECISION)
        if NARROW:
            g_read += lost * read
        else:
            g_read += lost * dot(read_by, M_0, PRECISION)
        g_beta -= tl.sum(read * read_by, 1) + tl.where(end, tl.sum(g_W * M_0), 0.0)
        add(g_rest + at, (1 - beta_end) * g_W + dot(tl.trans(read_by * lost), to, PRECISION))
    if HAS_MOMENTUM:
        S, g_S = tl.load(fast + MOMENTUM + at), tl.load(g_fast + MOMENTUM + at)
        read = dot(to, tl.trans(S), PRECISION)
        if NARROW:
            g_read += f[:, None] * read
        else:
            g_read += f[:, None] * dot(read_by, S, PRECISION)
        g_f += tl.sum(read * read_by, 1) + tl.where(end, tl.sum(g_W * S), 0.0)
        g_m_end += tl.sum(g_S * S)
        written = dot(delta, tl.trans(g_S), PRECISION)
        g_a -= in_S[:, None] * written
        g_in_S -= tl.sum(written * a, 1)
        g_delta -= in_S[:, None] * dot(a, g_S, PRECISION)
        g_start = m_end * g_S + f_end * g_W + dot(tl.trans(read_by * f[:, None]), to, PRECISION)
        tl.store(g_fast + MOMENTUM + at, g_start)
    return g_read, g_a, g_delta, (g_beta, g_f, g_in_M, g_in_S, g_m_end)


@triton.jit
def anchor_backward(g_W, g_anchor, g_fast, at, begins):
    """Add to the gradient of the anchor, which is that of the start weights where a chunk begins."""
    g_W += tl.load(g_anchor + at)
    add(g_fast + at, tl.where(begins, g_W, 0.0))
    tl.store(g_anchor + at, tl.where(begins, 0.0, g_W))


@triton.jit
def backward_kernel(
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
    g_y,
    g_q,
    g_k,
    g_v,
    g_theta,
    g_eta,
    g_alpha,
    g_rest,
    g_gain,
    g_bias,
    g_anchor,
    g_fast,
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
    """Gradients of all that ``forward_kernel`` reads, from those of ``y``, ``g_fast``, ``g_anchor``.

    Shapes as there. ``g_fast`` ``(B H, P, DEPTH, D WIDTH)`` comes with the gradient of the last row
    of ``fast`` and leaves with that of row 1; ``g_anchor`` ``(B H, DEPTH, D WIDTH)`` comes with that
    of the last chunk's anchor and leaves with that of row 0. ``g_rest`` (like ``g_anchor``),
    ``g_gain`` and ``g_bias`` ``(B H, D)`` are per memory. ``g_q``, ``g_k`` and ``g_v`` are float32.
    ``room`` is ``(B H, BLOCK_T, WIDTH + 3 D)``, for what loops pass to each other.
    """
    memory = tl.program_id(0).to(tl.int64)
    sample, head = memory // H, memory % H
    SIZE: tl.constexpr = D * WIDTH
    MOMENTUM: tl.constexpr = DEPTH * SIZE
    STATE: tl.constexpr = (1 + HAS_MOMENTUM) * MOMENTUM
    LAST: tl.constexpr = (DEPTH - 1) * SIZE
    row = tl.num_programs(0).to(tl.int64) * STATE
    fast += memory * STATE
    g_fast += memory * STATE
    rest += head * MOMENTUM
    g_rest += memory * MOMENTUM
    g_anchor += memory * MOMENTUM
    channel, place = tl.arange(0, D), tl.arange(0, BLOCK_T)
    # Room: the last product of keys, delta, and the gradient of the last product of queries; what
    # the loops over blocks pass on for each hidden unit.
    g_hidden = room + memory * BLOCK_T * (3 * D + WIDTH)
    tokens = g_hidden + BLOCK_T * WIDTH + place[:, None] * D + channel[None, :]
    g_hidden += place[:, None] * WIDTH + tl.arange(0, BLOCK_R)[None, :]
    products, deltas, g_products = tokens, tokens + BLOCK_T * D, tokens + 2 * BLOCK_T * D
    own_gain, own_bias = 0.0, 0.0
    if HAS_NORM:
        own_gain, own_bias = tl.load(gain + head * D + channel), tl.load(bias + head * D + channel)
    all_g_gain = tl.zeros((D,), tl.float32)
    all_g_bias = tl.zeros((D,), tl.float32)

    for back in tl.range(0, tiles, num_stages=1):
        i = tiles - 1 - back
        begin, rows, opened = locate(i, T, offset, chunk_size, BLOCK_T)
        first = sample * T + begin
        at_gate, at_token = first * H + head, (first * H + head) * D
        gates = load_gates(
            theta + at_gate, eta + at_gate, alpha + at_gate, write + first, H, rows, HAS_MOMENTUM,
            HAS_WRITE, BLOCK_T,
        )
        beta, f, G, in_M, in_S, ends = tile_gates(*gates, HAS_MOMENTUM, BLOCK_T)
        anchor, now = fast + opened * row, fast + (i + 1) * row

        # The tile's surprise again.
        own_k = load_tokens(k + at_token, H * D, rows, D, BLOCK_T)
        z = tl.zeros((BLOCK_T, D), tl.float32)
        for r in range(0, WIDTH, BLOCK_R):
            a = key_block(
                k + at_token, own_k, anchor, r, H * D, rows, D, DEPTH, GELU, PRECISION, BLOCK_T, BLOCK_R
            )[1]
            z += dot(a, tl.load(anchor + LAST + block_at(r, D, BLOCK_R)), PRECISION)
        own_v = load_tokens(v + at_token, H * D, rows, D, BLOCK_T)
        delta = surprise(
            z, own_k, own_v, own_gain, own_bias, huber, HAS_NORM, RESIDUAL, HAS_HUBER, D
        )[1]
        tl.store(products, z)
        tl.store(deltas, delta)
        tl.debug_barrier()

        # What was read again, as far as the last layer's product.
        own_q = load_tokens(q + at_token, H * D, rows, D, BLOCK_T)
        similar = dot(own_q, tl.trans(own_k), PRECISION)
        attention = similar * G
        scores = tl.zeros((BLOCK_T, BLOCK_T), tl.float32)
        z = tl.zeros((BLOCK_T, D), tl.float32)
        for r in range(0, WIDTH, BLOCK_R):
            own_q = load_tokens(q + at_token, H * D, rows, D, BLOCK_T)
            own_k = load_tokens(k + at_token, H * D, rows, D, BLOCK_T)
            z_1, a = key_block(
                k + at_token, own_k, anchor, r, H * D, rows, D, DEPTH, GELU, PRECISION, BLOCK_T, BLOCK_R
            )
            delta_1 = delta_block(
                tl.load(deltas), z_1, anchor + LAST, r, D, DEPTH, GELU, PRECISION, BLOCK_R
            )[1]
            h = query_block(
                q + at_token, own_q, attention, delta_1, now, rest, beta, f, r, H * D, rows, D, DEPTH,
                MOMENTUM, HAS_MOMENTUM, HAS_REST, GELU, PRECISION, BLOCK_T, BLOCK_R,
            )[1]
            scores += dot(h, tl.trans(a), PRECISION)
            at = block_at(r, D, BLOCK_R)
            W, S, M_0 = load_layer(now + LAST, rest + LAST, at, MOMENTUM, HAS_MOMENTUM, HAS_REST)
            z += read_layer(h, W, S, M_0, beta, f, HAS_MOMENTUM, HAS_REST, PRECISION)
        delta = tl.load(deltas)
        z -= dot(scores * G, delta, PRECISION)

        # Back through the norm, and through what was read of the tile's own tokens.
        g_z = load_tokens(g_y + at_token, H * D, rows, D, BLOCK_T)
        if HAS_NORM:
            n, s = normalise(z, D)
            all_g_gain += tl.sum(g_z * n, 0)
            all_g_bias += tl.sum(g_z, 0)
            g_z = pull(g_z * own_gain[None, :], n, s, D)
        tl.store(g_products, g_z)
        g_weighted = -dot(g_z, tl.trans(delta), PRECISION)
        g_delta = -dot(tl.trans(scores * G), g_z, PRECISION)
        g_scores = g_weighted * G
        g_G = g_weighted * scores
        tl.debug_barrier()

        # Back through reading and writing, block by block.
        own_g_q = tl.zeros((BLOCK_T, D), tl.float32)
        own_g_k = tl.zeros((BLOCK_T, D), tl.float32)
        g_attention = tl.zeros((BLOCK_T, BLOCK_T), tl.float32)
        g_gates = no_gradient(BLOCK_T)
        for r in range(0, WIDTH, BLOCK_R):
            own_q = load_tokens(q + at_token, H * D, rows, D, BLOCK_T)
            own_k = load_tokens(k + at_token, H * D, rows, D, BLOCK_T)
            delta = tl.load(deltas)
            z_1, a = key_block(
                k + at_token, own_k, anchor, r, H * D, rows, D, DEPTH, GELU, PRECISION, BLOCK_T, BLOCK_R
            )
            pulled, delta_1 = delta_block(
                delta, z_1, anchor + LAST, r, D, DEPTH, GELU, PRECISION, BLOCK_R
            )
            z_read, h = query_block(
                q + at_token, own_q, attention, delta_1, now, rest, beta, f, r, H * D, rows, D, DEPTH,
                MOMENTUM, HAS_MOMENTUM, HAS_REST, GELU, PRECISION, BLOCK_T, BLOCK_R,
            )
            at = block_at(r, D, BLOCK_R)
            g_h, g_a, g_own_delta, g_gates = layer_backward(
                h, tl.load(g_products), a, delta, now + LAST, g_fast + LAST, rest + LAST,
                g_rest + LAST, at, beta, f, in_M, in_S, ends, g_gates, MOMENTUM, HAS_MOMENTUM,
                HAS_REST, PRECISION, True, BLOCK_T,
            )
            g_h += dot(g_scores, a, PRECISION)
            g_a += dot(tl.trans(g_scores), h, PRECISION)
            g_delta += g_own_delta
            if DEPTH == 1:
                store_tokens(g_q + at_token + r, H * D, rows, g_h, BLOCK_R, BLOCK_T)
            else:
                g_h *= act_slope(z_read, GELU)
                g_own_q, g_delta_1, g_own_k, g_gates = layer_backward(
                    g_h, own_q, delta_1, own_k, now, g_fast, rest, g_rest, at, beta, f, in_M, in_S,
                    ends, g_gates, MOMENTUM, HAS_MOMENTUM, HAS_REST, PRECISION, False, BLOCK_T,
                )
                own_g_q += g_own_q
                own_g_k += g_own_k
                g_delta_1 -= dot(tl.trans(attention), g_h, PRECISION)
                g_attention -= dot(g_h, tl.trans(delta_1), PRECISION)
                # Back through the propagated error, delta_1 = (delta W^T) act'(z_1).
                g_a *= act_slope(z_1, GELU)
                g_a += g_delta_1 * pulled * act_bend(z_1, GELU)
                g_delta_1 *= act_slope(z_1, GELU)
                g_delta += dot(g_delta_1, tl.load(anchor + LAST + at), PRECISION)
                add(g_anchor + LAST + at, dot(tl.trans(g_delta_1), delta, PRECISION))
            tl.store(g_hidden + r, g_a)
        tl.debug_barrier()

        # Back through the surprise, first to last layer.
        own_k = load_tokens(k + at_token, H * D, rows, D, BLOCK_T)
        own_v = load_tokens(v + at_token, H * D, rows, D, BLOCK_T)
        e, delta, n, s = surprise(
            tl.load(products), own_k, own_v, own_gain, own_bias, huber, HAS_NORM, RESIDUAL, HAS_HUBER, D
        )
        g_z, g_answer, g_own_gain = surprise_backward(
            g_delta, e, delta, n, s, own_gain, huber, HAS_NORM, HAS_HUBER, D
        )
        all_g_gain += g_own_gain
        all_g_bias += tl.sum(g_answer, 0)
        store_tokens(g_v + at_token, H * D, rows, -g_answer, D, BLOCK_T)
        if RESIDUAL:
            own_g_q += load_tokens(g_y + at_token, H * D, rows, D, BLOCK_T)
            own_g_k += g_answer
        begins = opened == i + 1
        for r in range(0, WIDTH, BLOCK_R):
            z_1, a = key_block(
                k + at_token, own_k, anchor, r, H * D, rows, D, DEPTH, GELU, PRECISION, BLOCK_T, BLOCK_R
            )
            at = block_at(r, D, BLOCK_R)
            g_a = dot(g_z, tl.trans(tl.load(anchor + LAST + at)), PRECISION)
            g_W = dot(tl.trans(a), g_z, PRECISION)
            anchor_backward(g_W, g_anchor + LAST, g_fast + LAST, at, begins)
            if DEPTH == 1:
                g_a += tl.load(g_hidden + r)
                store_tokens(g_k + at_token + r, H * D, rows, g_a, BLOCK_R, BLOCK_T)
            else:
                g_z_1 = tl.load(g_hidden + r) + g_a * act_slope(z_1, GELU)
                own_g_k += dot(g_z_1, tl.load(anchor + at), PRECISION)
                g_W = dot(tl.trans(g_z_1), own_k, PRECISION)
                anchor_backward(g_W, g_anchor, g_fast, at, begins)
        tl.debug_barrier()  # also for the tile before, which begins with what was stored here

        if DEPTH == 1:
            own_g_q += load_tokens(g_q + at_token, H * D, rows, D, BLOCK_T)
            own_g_k += load_tokens(g_k + at_token, H * D, rows, D, BLOCK_T)
        else:
            own_q = load_tokens(q + at_token, H * D, rows, D, BLOCK_T)
            g_G += g_attention * similar
            g_similar = g_attention * G
            own_g_q += dot(g_similar, own_k, PRECISION)
            own_g_k += dot(tl.trans(g_similar), own_q, PRECISION)
        store_tokens(g_q + at_token, H * D, rows, own_g_q, D, BLOCK_T)
        store_tokens(g_k + at_token, H * D, rows, own_g_k, D, BLOCK_T)

        g_beta, g_f, g_in_M, g_in_S, g_m_end = g_gates
        g_G += tl.where((place == BLOCK_T - 1)[:, None], g_in_M[None, :], 0.0)
        g_own_theta, g_own_eta, g_own_alpha = tile_gates_backward(
            g_beta, g_f, g_G, g_in_S, g_m_end, *gates, HAS_MOMENTUM, BLOCK_T
        )
        here = real(rows, BLOCK_T)
        tl.store(g_theta + at_gate + place * H, g_own_theta, here)
        tl.store(g_alpha + at_gate + place * H, g_own_alpha, here)
        if HAS_MOMENTUM:
            tl.store(g_eta + at_gate + place * H, g_own_eta, here)
    if HAS_NORM:
        tl.store(g_gain + memory * D + channel, all_g_gain)
        tl.store(g_bias + memory * D + channel, all_g_bias)
