"""Gates of a tile, in closed form (``ops/README.md``, section 2), and the kernel for their gradient."""

from __future__ import annotations

import triton
import triton.language as tl

from titans_core.ops.chunked_triton.pieces import dot, locate, place, real

# Added to a decay before its logarithm, which keeps value and gradient right where it is 0.
TINY = tl.constexpr(1e-12)


@triton.jit
def load_gates(theta, eta, alpha, write, H, rows, HAS_MOMENTUM, HAS_WRITE, BLOCK_T: tl.constexpr):
    """Of a tile; where no token is, those of a masked one: nothing changes there."""
    t, here = tl.arange(0, BLOCK_T), real(rows, BLOCK_T)
    own_theta = tl.load(theta + t * H, here, 0.0)
    own_alpha = tl.load(alpha + t * H, here, 0.0)
    own_eta, own_write = own_theta, here.to(tl.float32)
    if HAS_MOMENTUM:
        own_eta = tl.load(eta + t * H, here, 1.0)
        if HAS_WRITE:
            own_write = tl.load(write + t, here, 0).to(tl.float32)
    return own_theta, own_eta, own_alpha, own_write


@triton.jit
def log_decay(decay):
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
def decays(eta, alpha, HAS_MOMENTUM, BLOCK_T: tl.constexpr):
    """D, E and what is left at each token of the tile's start: beta of M, m of S."""
    log_keep = log_decay(1 - alpha)
    D, beta = decay_matrix(log_keep, BLOCK_T), tl.exp(tl.cumsum(log_keep, 0))
    E, m = D, beta
    if HAS_MOMENTUM:
        log_carry = log_decay(eta)
        E, m = decay_matrix(log_carry, BLOCK_T), tl.exp(tl.cumsum(log_carry, 0))
    return D, E, beta, m


@triton.jit
def read_gates(theta, eta, alpha, write, HAS_MOMENTUM, BLOCK_T: tl.constexpr):
    """What a token reads of the tile's start, beta of M and f of S, and of the tile's tokens, G."""
    D, E, beta, m = decays(eta, alpha, HAS_MOMENTUM, BLOCK_T)
    f, G = beta, D * theta[None, :]
    if HAS_MOMENTUM:
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
    HAS_MOMENTUM: tl.constexpr,
    HAS_WRITE: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    """What is left at a tile's end; one program per tile and memory.

    ``shares``, ``(tiles, N, 2, BLOCK_T)``, is of each token's surprise in M and in S: the last rows of
    G and of E diag(theta). ``ends``, ``(tiles, N, 3)``, is of M in M, of S in M, of S in S.
    """
    i, here, sample, head, _ = place(tiles, H)
    begin, rows, _ = locate(i, T, offset, chunk_size, BLOCK_T)
    first = sample * T + begin
    at = first * H + head
    gates = load_gates(
        theta + at, eta + at, alpha + at, write + first, H, rows, HAS_MOMENTUM, HAS_WRITE, BLOCK_T
    )
    beta, f, G = read_gates(*gates, HAS_MOMENTUM, BLOCK_T)
    t = tl.arange(0, BLOCK_T)
    tl.store(shares + here * 2 * BLOCK_T + t, last(G, BLOCK_T))
    tl.store(ends + here * 3, last(beta, BLOCK_T))
    if HAS_MOMENTUM:
        _, E, _, m = decays(gates[1], gates[2], HAS_MOMENTUM, BLOCK_T)
        tl.store(shares + here * 2 * BLOCK_T + BLOCK_T + t, last(E, BLOCK_T) * gates[0])
        tl.store(ends + here * 3 + 1, last(f, BLOCK_T))
        tl.store(ends + here * 3 + 2, last(m, BLOCK_T))


@triton.jit
def gates_backward_kernel(
    theta,
    eta,
    alpha,
    write,
    g_G,
    g_read,
    g_write,
    g_ends,
    g_theta,
    g_eta,
    g_alpha,
    T,
    H,
    tiles,
    offset,
    chunk_size,
    HAS_MOMENTUM: tl.constexpr,
    HAS_WRITE: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    """Gradients of the gates from those of what is made of them; one program per tile and memory.

    ``g_G`` is ``(tiles, N, BLOCK_T, BLOCK_T)``; ``g_read`` ``(tiles, N, 2, BLOCK_T)`` of beta and f;
    ``g_write`` ``(tiles, N, 2, BLOCK_T)`` of in_M and in_S; ``g_ends`` ``(tiles, N, 3)``.
    """
    i, here, sample, head, _ = place(tiles, H)
    begin, rows, _ = locate(i, T, offset, chunk_size, BLOCK_T)
    first = sample * T + begin
    at = first * H + head
    own_theta, own_eta, own_alpha, own_write = load_gates(
        theta + at, eta + at, alpha + at, write + first, H, rows, HAS_MOMENTUM, HAS_WRITE, BLOCK_T
    )
    t = tl.arange(0, BLOCK_T)
    end = t == BLOCK_T - 1
    g_read += here * 2 * BLOCK_T + t
    g_write += here * 2 * BLOCK_T + t
    g_ends += here * 3
    own_g_G = tl.load(g_G + here * BLOCK_T * BLOCK_T + t[:, None] * BLOCK_T + t[None, :])
    own_g_G += tl.where(end[:, None], tl.load(g_write)[None, :], 0.0)
    g_beta = tl.load(g_read) + tl.where(end, tl.load(g_ends), 0.0)

    D, E, beta, m = decays(own_eta, own_alpha, HAS_MOMENTUM, BLOCK_T)
    if HAS_MOMENTUM:
        g_f = tl.load(g_read + BLOCK_T) + tl.where(end, tl.load(g_ends + 1), 0.0)
        Dw, E_theta = D * own_write[None, :], E * own_theta[None, :]
        g_Dw = dot(own_g_G, tl.trans(E_theta), "tf32x3") + g_f[:, None] * m[None, :]
        g_E_theta = dot(tl.trans(Dw), own_g_G, "tf32x3")
        g_E_theta += tl.where(end[:, None], tl.load(g_write + BLOCK_T)[None, :], 0.0)
        g_m = tl.sum(Dw * g_f[:, None], 0) + tl.where(end, tl.load(g_ends + 2), 0.0)
        own_g_theta = tl.sum(g_E_theta * E, 0)
        g_log = log_decay_backward(g_E_theta * own_theta[None, :], E, g_m, m, BLOCK_T)
        tl.store(g_eta + at + t * H, g_log / (own_eta + TINY), real(rows, BLOCK_T))
        g_D = g_Dw * own_write[None, :]
    else:
        own_g_theta = tl.sum(own_g_G * D, 0)
        g_D = own_g_G * own_theta[None, :]
    g_log = log_decay_backward(g_D, D, g_beta, beta, BLOCK_T)
    tl.store(g_theta + at + t * H, own_g_theta, real(rows, BLOCK_T))
    tl.store(g_alpha + at + t * H, -g_log / (1 - own_alpha + TINY), real(rows, BLOCK_T))
