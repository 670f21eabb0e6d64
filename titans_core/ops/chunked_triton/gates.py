"""Gates of a tile in closed form (``ops/README.md``, section 2); the kernels that see only them.

Decays are summed as logarithms, each segment by itself.
"""

from __future__ import annotations

import triton
import triton.language as tl

from titans_core.ops.chunked_triton.pieces import dot, load_tokens, locate, of_tile, place, real

# Added to a decay before its logarithm, which keeps value and gradient right where it is 0.
TINY = tl.constexpr(1e-12)


@triton.jit
def load_gates(theta, eta, alpha, write, token, head, H, rows, plan: tl.constexpr):
    """Of a tile; where no token is, those of a masked one: nothing changes there."""
    t, here = tl.arange(0, plan.BLOCK_T), real(rows, plan.BLOCK_T)
    at = token * H + head + t * H
    own_theta = tl.load(theta + at, here, 0.0)
    own_alpha = tl.load(alpha + at, here, 0.0)
    own_eta, own_write = own_theta, here.to(tl.float32)
    if plan.MOMENTUM:
        own_eta = tl.load(eta + at, here, 1.0)
        if plan.MASK:
            own_write = tl.load(write + token + t, here, 0).to(tl.float32)
    return own_theta, own_eta, own_alpha, own_write


@triton.jit
def log_decay(decay):
    """Logarithm of decays in [0, 1], finite at 0."""
    return tl.log(decay + TINY)


@triton.jit
def decay_matrix(log_decays, BLOCK_T: tl.constexpr):
    """Entry (t, k) is the decay over tokens k+1..t; 0 above. Each column sums its own segment."""
    t = tl.arange(0, BLOCK_T)
    segments = tl.cumsum(tl.where(t[:, None] > t[None, :], log_decays[:, None], 0.0), 0)
    return tl.where(t[:, None] >= t[None, :], tl.exp(segments), 0.0)


@triton.jit
def log_decay_backward(g_matrix, matrix, g_start, start, BLOCK_T: tl.constexpr):
    """Gradient of logarithms, from those of ``decay_matrix`` and of the decays since the start."""
    t = tl.arange(0, BLOCK_T)
    below = t[:, None] > t[None, :]
    segments = tl.cumsum(tl.where(below, g_matrix * matrix, 0.0), 0, reverse=True)
    return tl.sum(tl.where(below, segments, 0.0), 1) + tl.cumsum(g_start * start, 0, reverse=True)


@triton.jit
def decays(eta, alpha, plan: tl.constexpr):
    """D, E and what is left at each token of the tile's start: beta of M, m of S."""
    log_keep = log_decay(1 - alpha)
    D, beta = decay_matrix(log_keep, plan.BLOCK_T), tl.exp(tl.cumsum(log_keep, 0))
    E, m = D, beta
    if plan.MOMENTUM:
        log_carry = log_decay(eta)
        E, m = decay_matrix(log_carry, plan.BLOCK_T), tl.exp(tl.cumsum(log_carry, 0))
    return D, E, beta, m


@triton.jit
def read_gates(gates, plan: tl.constexpr):
    """What a token reads of the tile's start, beta of M and f of S, and of the tile's tokens, G."""
    theta, eta, alpha, write = gates
    D, E, beta, m = decays(eta, alpha, plan)
    f, G = beta, D * theta[None, :]
    if plan.MOMENTUM:
        D *= write[None, :]
        f = tl.sum(D * m[None, :], 1)
        G = dot(D, E * theta[None, :], "tf32x3")
    return beta, f, G


@triton.jit
def last(x, BLOCK_T: tl.constexpr):
    """The last token's entry, or row."""
    end = tl.arange(0, BLOCK_T) == BLOCK_T - 1
    if len(x.shape) == 2:
        return tl.sum(tl.where(end[:, None], x, 0.0), 0)
    else:
        return tl.sum(tl.where(end, x, 0.0), 0)


@triton.jit
def gates_kernel(
    theta,
    eta,
    alpha,
    write,
    shares,
    ends,
    T,
    H,
    tiles,
    offset,
    chunk_size,
    plan: tl.constexpr,
):
    """What is left at a tile's end; one program per tile and memory.

    ``shares``, ``(tiles, N, 2, BLOCK_T)``, is of each token's surprise in M and in S: the last rows
    of G and of E diag(theta). ``ends``, ``(tiles, N, 3)``: of M in M, of S in M, of S in S.
    """
    i, tile, sample, head, _ = place(tiles, H)
    begin, rows, _ = locate(i, T, offset, chunk_size, plan.BLOCK_T)
    token = sample * T + begin
    gates = load_gates(theta, eta, alpha, write, token, head, H, rows, plan)
    beta, f, G = read_gates(gates, plan)
    shares += tile * 2 * plan.BLOCK_T + tl.arange(0, plan.BLOCK_T)
    tl.store(shares, last(G, plan.BLOCK_T))
    tl.store(ends + tile * 3, last(beta, plan.BLOCK_T))
    if plan.MOMENTUM:
        _, E, _, m = decays(gates[1], gates[2], plan)
        tl.store(shares + plan.BLOCK_T, last(E, plan.BLOCK_T) * gates[0])
        tl.store(ends + tile * 3 + 1, last(f, plan.BLOCK_T))
        tl.store(ends + tile * 3 + 2, last(m, plan.BLOCK_T))


@triton.jit
def gates_backward_kernel(
    theta,
    eta,
    alpha,
    write,
    g_G,
    g_read,
    g_shares,
    g_ends,
    g_theta,
    g_eta,
    g_alpha,
    T,
    H,
    tiles,
    offset,
    chunk_size,
    plan: tl.constexpr,
):
    """Gradients of the gates from those of what is made of them; one program per tile and memory.

    ``g_G`` is ``(tiles, N, BLOCK_T, BLOCK_T)``, ``g_read`` ``(tiles, N, 2, BLOCK_T)``, of beta
    and f; ``g_shares`` and ``g_ends`` are as in ``gates_kernel``.
    """
    i, tile, sample, head, _ = place(tiles, H)
    begin, rows, _ = locate(i, T, offset, chunk_size, plan.BLOCK_T)
    token = sample * T + begin
    gates = load_gates(theta, eta, alpha, write, token, head, H, rows, plan)
    own_theta, own_eta, own_alpha, own_write = gates
    t = tl.arange(0, plan.BLOCK_T)
    end, here, at = t == plan.BLOCK_T - 1, real(rows, plan.BLOCK_T), token * H + head + t * H
    g_read += tile * 2 * plan.BLOCK_T + t
    g_shares += tile * 2 * plan.BLOCK_T + t
    g_ends += tile * 3
    pairs = of_tile(g_G, tile, plan.BLOCK_T, plan.BLOCK_T)
    own_g_G = load_tokens(pairs, 0, plan.BLOCK_T, plan.BLOCK_T)
    own_g_G += tl.where(end[:, None], tl.load(g_shares)[None, :], 0.0)
    g_beta = tl.load(g_read) + tl.where(end, tl.load(g_ends), 0.0)

    D, E, beta, m = decays(own_eta, own_alpha, plan)
    if plan.MOMENTUM:  # G = (D w) (E theta), f = (D w) m
        g_f = tl.load(g_read + plan.BLOCK_T) + tl.where(end, tl.load(g_ends + 1), 0.0)
        D_w, E_theta = D * own_write[None, :], E * own_theta[None, :]
        g_D_w = dot(own_g_G, tl.trans(E_theta), "tf32x3") + g_f[:, None] * m[None, :]
        g_E_theta = dot(tl.trans(D_w), own_g_G, "tf32x3")
        g_E_theta += tl.where(end[:, None], tl.load(g_shares + plan.BLOCK_T)[None, :], 0.0)
        g_m = tl.sum(D_w * g_f[:, None], 0) + tl.where(end, tl.load(g_ends + 2), 0.0)
        own_g_theta = tl.sum(g_E_theta * E, 0)
        g_log = log_decay_backward(g_E_theta * own_theta[None, :], E, g_m, m, plan.BLOCK_T)
        tl.store(g_eta + at, g_log / (own_eta + TINY), here)
        g_D = g_D_w * own_write[None, :]
    else:  # G = D theta
        own_g_theta = tl.sum(own_g_G * D, 0)
        g_D = own_g_G * own_theta[None, :]
    g_log = log_decay_backward(g_D, D, g_beta, beta, plan.BLOCK_T)
    tl.store(g_theta + at, own_g_theta, here)
    tl.store(g_alpha + at, -g_log / (1 - own_alpha + TINY), here)
