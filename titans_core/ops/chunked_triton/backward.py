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
    delta_block,
    dot,
    first_at,
    key_block,
    last_at,
    load_gates,
    load_tokens,
    locate,
    normalise,
    pull,
    query_block,
    read_layer,
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
    h,
    g_z,
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
    BLOCK_T: tl.constexpr,
):
    """Back through ``read_layer`` of h and ``write_layer`` of a and delta.

    Returns gradients of h, a and delta, and ``g_gates`` with what is added to them; ``g_fast`` goes
    from the end of the tile to its start. What ends have of beta and f is added to the last token.
    """
    beta_end, f_end, m_end = ends
    g_beta, g_f, g_in_M, g_in_S, g_m_end = g_gates
    end = tl.arange(0, BLOCK_T) == BLOCK_T - 1

    W, g_W = tl.load(fast + at), tl.load(g_fast + at)
    read = dot(g_z, tl.trans(W), PRECISION)
    g_h = beta[:, None] * read
    g_beta += tl.sum(read * h, 1) + tl.where(end, tl.sum(g_W * W), 0.0)
    written = dot(delta, tl.trans(g_W), PRECISION)
    g_a = -in_M[:, None] * written
    g_in_M -= tl.sum(written * a, 1)
    g_delta = -dot(a * in_M[:, None], g_W, PRECISION)
    g_start = beta_end * g_W + dot(tl.trans(h * beta[:, None]), g_z, PRECISION)
    tl.store(g_fast + at, g_start)
    if HAS_REST:
        M_0, lost = tl.load(rest + at), 1 - beta[:, None]
        read = dot(g_z, tl.trans(M_0), PRECISION)
        g_h += lost * read
        g_beta -= tl.sum(read * h, 1) + tl.where(end, tl.sum(g_W * M_0), 0.0)
        add(g_rest + at, (1 - beta_end) * g_W + dot(tl.trans(h * lost), g_z, PRECISION))
    if HAS_MOMENTUM:
        S, g_S = tl.load(fast + MOMENTUM + at), tl.load(g_fast + MOMENTUM + at)
        read = dot(g_z, tl.trans(S), PRECISION)
        g_h += f[:, None] * read
        g_f += tl.sum(read * h, 1) + tl.where(end, tl.sum(g_W * S), 0.0)
        g_m_end += tl.sum(g_S * S)
        written = dot(delta, tl.trans(g_S), PRECISION)
        g_a -= in_S[:, None] * written
        g_in_S -= tl.sum(written * a, 1)
        g_delta -= dot(a * in_S[:, None], g_S, PRECISION)
        g_start = m_end * g_S + f_end * g_W + dot(tl.trans(h * f[:, None]), g_z, PRECISION)
        tl.store(g_fast + MOMENTUM + at, g_start)
    return g_h, g_a, g_delta, (g_beta, g_f, g_in_M, g_in_S, g_m_end)


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
    g_hidden,
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
    ``g_hidden`` ``(B H, BLOCK_T, WIDTH)`` is room for what two layers pass from loop to loop.
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
    channel, unit, place = tl.arange(0, D), tl.arange(0, BLOCK_R), tl.arange(0, BLOCK_T)
    g_hidden += memory * BLOCK_T * WIDTH + place[:, None] * WIDTH + unit[None, :]
    end = place == BLOCK_T - 1
    own_gain, own_bias = 0.0, 0.0
    if HAS_NORM:
        own_gain, own_bias = tl.load(gain + head * D + channel), tl.load(bias + head * D + channel)
    all_g_gain = tl.zeros((D,), tl.float32)
    all_g_bias = tl.zeros((D,), tl.float32)

    for back in tl.range(0, tiles, num_stages=1):
        i = tiles - 1 - back
        token, real, opened = locate(i, T, offset, chunk_size, BLOCK_T)
        mask_rows = sample * T + token
        rows = mask_rows * H + head
        tokens = rows[:, None] * D + channel[None, :]
        own_q = load_tokens(q, rows, real, D, D)
        own_k = load_tokens(k, rows, real, D, D)
        own_v = load_tokens(v, rows, real, D, D)
        gates = load_gates(
            theta, eta, alpha, write, rows, mask_rows, real, HAS_MOMENTUM, HAS_WRITE
        )
        beta, f, G, in_M, in_S, ends = tile_gates(*gates, HAS_MOMENTUM, BLOCK_T)
        anchor, now = fast + opened * row, fast + (i + 1) * row

        # The tile's surprise again.
        z = tl.zeros((BLOCK_T, D), tl.float32)
        for r in range(0, WIDTH, BLOCK_R):
            a = key_block(k, own_k, anchor, r, rows, real, D, WIDTH, DEPTH, GELU, PRECISION, BLOCK_R)[1]
            z += dot(a, tl.load(anchor + LAST + last_at(r, D, BLOCK_R)), PRECISION)
        e, delta, n, s = surprise(
            z, own_k, own_v, own_gain, own_bias, huber, HAS_NORM, RESIDUAL, HAS_HUBER, D
        )

        # What was read again, as far as the last layer's product.
        similar = dot(own_q, tl.trans(own_k), PRECISION)
        scores = tl.zeros((BLOCK_T, BLOCK_T), tl.float32)
        z = tl.zeros((BLOCK_T, D), tl.float32)
        for r in range(0, WIDTH, BLOCK_R):
            z_1, a = key_block(k, own_k, anchor, r, rows, real, D, WIDTH, DEPTH, GELU, PRECISION, BLOCK_R)
            delta_1 = delta_block(delta, z_1, anchor + LAST, r, D, DEPTH, GELU, PRECISION, BLOCK_R)[1]
            h = query_block(
                q, own_q, similar * G, delta_1, now, rest, beta, f, r, rows, real, D, WIDTH, DEPTH,
                MOMENTUM, HAS_MOMENTUM, HAS_REST, GELU, PRECISION, BLOCK_R,
            )[1]
            scores += dot(h, tl.trans(a), PRECISION)
            z += read_layer(
                h, now + LAST, rest + LAST, last_at(r, D, BLOCK_R), beta, f, MOMENTUM, HAS_MOMENTUM,
                HAS_REST, PRECISION,
            )
        z -= dot(scores * G, delta, PRECISION)

        # Back through the norm, and through what was read of the tile's own tokens.
        own_g_y = load_tokens(g_y, rows, real, D, D)
        g_z = own_g_y
        if HAS_NORM:
            n_read, s_read = normalise(z, D)
            all_g_gain += tl.sum(own_g_y * n_read, 0)
            all_g_bias += tl.sum(own_g_y, 0)
            g_z = pull(own_g_y * own_gain[None, :], n_read, s_read, D)
        g_weighted = -dot(g_z, tl.trans(delta), PRECISION)
        g_delta = -dot(tl.trans(scores * G), g_z, PRECISION)
        g_scores = g_weighted * G
        g_G = g_weighted * scores

        # Back through reading and writing, block by block.
        own_g_q = tl.zeros((BLOCK_T, D), tl.float32)
        if RESIDUAL:
            own_g_q += own_g_y
        own_g_k = tl.zeros((BLOCK_T, D), tl.float32)
        g_attention = tl.zeros((BLOCK_T, BLOCK_T), tl.float32)
        g_gates = no_gradient(BLOCK_T)
        for r in range(0, WIDTH, BLOCK_R):
            z_1, a = key_block(k, own_k, anchor, r, rows, real, D, WIDTH, DEPTH, GELU, PRECISION, BLOCK_R)
            pulled, delta_1 = delta_block(
                delta, z_1, anchor + LAST, r, D, DEPTH, GELU, PRECISION, BLOCK_R
            )
            z_read, h = query_block(
                q, own_q, similar * G, delta_1, now, rest, beta, f, r, rows, real, D, WIDTH, DEPTH,
                MOMENTUM, HAS_MOMENTUM, HAS_REST, GELU, PRECISION, BLOCK_R,
            )
            at = last_at(r, D, BLOCK_R)
            g_h, g_a, g_own_delta, g_gates = layer_backward(
                h, g_z, a, delta, now + LAST, g_fast + LAST, rest + LAST, g_rest + LAST, at,
                beta, f, in_M, in_S, ends, g_gates, MOMENTUM, HAS_MOMENTUM, HAS_REST, PRECISION,
                BLOCK_T,
            )
            g_h += dot(g_scores, a, PRECISION)
            g_a += dot(tl.trans(g_scores), h, PRECISION)
            g_delta += g_own_delta
            if DEPTH == 1:
                tl.store(g_q + rows[:, None] * D + (r + unit)[None, :], g_h, real[:, None])
            else:
                g_h *= act_slope(z_read, GELU)
                g_own_q, g_own_k, g_delta_1, g_gates = layer_backward(
                    own_q, g_h, own_k, delta_1, now, g_fast, rest, g_rest,
                    first_at(r, D, WIDTH, BLOCK_R), beta, f, in_M, in_S, ends, g_gates, MOMENTUM,
                    HAS_MOMENTUM, HAS_REST, PRECISION, BLOCK_T,
                )
                own_g_q += g_own_q
                own_g_k += g_own_k
                g_delta_1 -= dot(tl.trans(similar * G), g_h, PRECISION)
                g_attention -= dot(g_h, tl.trans(delta_1), PRECISION)
                # Back through the propagated error, delta_1 = (delta W^T) act'(z_1).
                g_a *= act_slope(z_1, GELU)
                g_a += g_delta_1 * pulled * act_bend(z_1, GELU)
                g_delta_1 *= act_slope(z_1, GELU)
                g_delta += dot(g_delta_1, tl.load(anchor + LAST + at), PRECISION)
                add(g_anchor + LAST + at, dot(tl.trans(g_delta_1), delta, PRECISION))
            tl.store(g_hidden + r, g_a)
        tl.debug_barrier()

        # Back through the surprise, first to last layer; the anchor is where a chunk began.
        g_z, g_answer, g_own_gain = surprise_backward(
            g_delta, e, delta, n, s, own_gain, huber, HAS_NORM, HAS_HUBER, D
        )
        all_g_gain += g_own_gain
        all_g_bias += tl.sum(g_answer, 0)
        tl.store(g_v + tokens, -g_answer, real[:, None])
        if RESIDUAL:
            own_g_k += g_answer
        begins = opened == i + 1
        for r in range(0, WIDTH, BLOCK_R):
            z_1, a = key_block(k, own_k, anchor, r, rows, real, D, WIDTH, DEPTH, GELU, PRECISION, BLOCK_R)
            at = last_at(r, D, BLOCK_R)
            g_a = dot(g_z, tl.trans(tl.load(anchor + LAST + at)), PRECISION)
            g_W = dot(tl.trans(a), g_z, PRECISION)
            anchor_backward(g_W, g_anchor + LAST, g_fast + LAST, at, begins)
            if DEPTH == 1:
                g_a += tl.load(g_hidden + r)
                tl.store(g_k + rows[:, None] * D + (r + unit)[None, :], g_a, real[:, None])
            else:
                g_z_1 = tl.load(g_hidden + r) + g_a * act_slope(z_1, GELU)
                at = first_at(r, D, WIDTH, BLOCK_R)
                own_g_k += dot(g_z_1, tl.trans(tl.load(anchor + at)), PRECISION)
                g_W = dot(tl.trans(own_k), g_z_1, PRECISION)
                anchor_backward(g_W, g_anchor, g_fast, at, begins)
        tl.debug_barrier()  # also for the tile before, which begins with what was stored here

        if DEPTH == 1:
            own_g_q += load_tokens(g_q, rows, real, D, D)
            own_g_k += load_tokens(g_k, rows, real, D, D)
        else:
            g_G += g_attention * similar
            g_similar = g_attention * G
            own_g_q += dot(g_similar, own_k, PRECISION)
            own_g_k += dot(tl.trans(g_similar), own_q, PRECISION)
        tl.store(g_q + tokens, own_g_q, real[:, None])
        tl.store(g_k + tokens, own_g_k, real[:, None])

        g_beta, g_f, g_in_M, g_in_S, g_m_end = g_gates
        g_G += tl.where(end[:, None], g_in_M[None, :], 0.0)
        g_own_theta, g_own_eta, g_own_alpha = tile_gates_backward(
            g_beta, g_f, g_G, g_in_S, g_m_end, *gates, HAS_MOMENTUM, BLOCK_T
        )
        tl.store(g_theta + rows, g_own_theta, real)
        tl.store(g_alpha + rows, g_own_alpha, real)
        if HAS_MOMENTUM:
            tl.store(g_eta + rows, g_own_eta, real)
    if HAS_NORM:
        tl.store(g_gain + memory * D + channel, all_g_gain)
        tl.store(g_bias + memory * D + channel, all_g_bias)
