"""What both kernels are made of: products, activation, LayerNorm, loss, gates, geometry of tiles.

Device functions. Rows are tokens of one tile, ``(BLOCK_T, D)``; the names are those of
``ops/README.md``, and so are the lines.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton import knobs

INTERPRETED = knobs.runtime.interpret
NORM_EPS = tl.constexpr(1e-5)
# Added to a decay before its logarithm, which keeps value and gradient right where it is 0.
TINY = tl.constexpr(1e-12)
INVERSE_SQRT_2 = tl.constexpr(0.7071067811865476)
INVERSE_SQRT_2PI = tl.constexpr(0.3989422804014327)


# Products


@triton.jit
def dot(x, y, PRECISION: tl.constexpr):
    """``x @ y`` on tensor cores, summed in float32: of bfloat16, or of three TF32 terms each."""
    if PRECISION == "bf16":
        return tl.dot(x.to(tl.bfloat16), y.to(tl.bfloat16))
    else:
        return tl.dot(x, y, input_precision=PRECISION)


# The memory as a function


@triton.jit
def act(z, GELU: tl.constexpr):
    if GELU:
        return 0.5 * z * (1 + tl.erf(z * INVERSE_SQRT_2))
    else:
        return z * tl.sigmoid(z)


@triton.jit
def act_slope(z, GELU: tl.constexpr):
    """``act'(z)``."""
    if GELU:
        bell = tl.exp(-0.5 * z * z) * INVERSE_SQRT_2PI
        return 0.5 * (1 + tl.erf(z * INVERSE_SQRT_2)) + z * bell
    else:
        gate = tl.sigmoid(z)
        return gate * (1 + z * (1 - gate))


@triton.jit
def act_bend(z, GELU: tl.constexpr):
    """``act''(z)``."""
    if GELU:
        return tl.exp(-0.5 * z * z) * INVERSE_SQRT_2PI * (2 - z * z)
    else:
        gate = tl.sigmoid(z)
        return gate * (1 - gate) * (2 + z * (1 - 2 * gate))


@triton.jit
def mean(x, D: tl.constexpr):
    """Over channels, ``(BLOCK_T, D) -> (BLOCK_T, 1)``."""
    return tl.sum(x, 1)[:, None] / D


@triton.jit
def normalise(z, D: tl.constexpr):
    """n and s of the LayerNorm: the normalised product, the inverse of its deviation."""
    centred = z - mean(z, D)
    s = 1 / tl.sqrt(mean(centred * centred, D) + NORM_EPS)
    return centred * s, s


@triton.jit
def pull(g, n, s, D: tl.constexpr):
    """``J g``, the (symmetric) derivative of the LayerNorm."""
    return s * (g - mean(g, D) - n * mean(n * g, D))


@triton.jit
def surprise(z, k, v, gain, bias, huber, HAS_NORM, RESIDUAL, HAS_HUBER, D: tl.constexpr):
    """Of the last product z of keys: clipped error e, delta of the last layer; n and s."""
    n, s = z, mean(z, D)
    answer = z
    if HAS_NORM:
        n, s = normalise(z, D)
        answer = n * gain[None, :] + bias[None, :]
    if RESIDUAL:
        answer += k
    e = 2 * (answer - v)
    if HAS_HUBER:
        e = tl.minimum(tl.maximum(e, -2 * huber), 2 * huber)
    delta = e
    if HAS_NORM:
        delta = pull(e * gain[None, :], n, s, D)
    return e, delta, n, s


@triton.jit
def surprise_backward(
    g_delta, e, delta, n, s, gain, huber, HAS_NORM, HAS_HUBER, D: tl.constexpr
):
    """From the gradient of delta to those of the last product, of the answer and of the gain."""
    g_scaled = g_delta
    g_answer = 2 * g_delta
    if HAS_NORM:
        g_scaled = pull(g_delta, n, s, D)
        g_answer = 2 * gain[None, :] * g_scaled
    if HAS_HUBER:  # where the error was clipped, nothing passes
        g_answer = tl.where(tl.abs(e) >= 2 * huber, 0.0, g_answer)
    g_z = g_answer
    if HAS_NORM:  # delta = J x with x = gain * e, and J moves with z, too
        x = gain[None, :] * e
        g_n = -s * (g_delta * mean(n * x, D) + x * mean(n * g_delta, D))
        g_z = pull(gain[None, :] * g_answer + g_n, n, s, D) - s * n * mean(g_delta * delta, D)
    return g_z, g_answer, tl.sum(g_scaled * e + g_answer * n, 0)


# Gates


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
    """Gradient of the logarithms, from those of ``decay_matrix`` and of the decay since the start."""
    t = tl.arange(0, BLOCK_T)
    below = t[:, None] > t[None, :]
    segments = tl.cumsum(tl.where(below, g_matrix * matrix, 0.0), 0, reverse=True)
    return tl.sum(tl.where(below, segments, 0.0), 1) + tl.cumsum(g_start * start, 0, reverse=True)


@triton.jit
def last(x, BLOCK_T: tl.constexpr):
    """The last token's entry, or row."""
    end = tl.arange(0, BLOCK_T) == BLOCK_T - 1
    if len(x.shape) == 2:
        return tl.sum(tl.where(end[:, None], x, 0.0), 0)
    else:
        return tl.sum(tl.where(end, x, 0.0), 0)


@triton.jit
def decays(eta, alpha, HAS_MOMENTUM: tl.constexpr, BLOCK_T: tl.constexpr):
    """D, E and what is left at each token of the tile's start: beta of M, m of S."""
    log_keep = log_decay(1 - alpha)
    D, beta = decay_matrix(log_keep, BLOCK_T), tl.exp(tl.cumsum(log_keep, 0))
    E, m = D, beta
    if HAS_MOMENTUM:
        log_carry = log_decay(eta)
        E, m = decay_matrix(log_carry, BLOCK_T), tl.exp(tl.cumsum(log_carry, 0))
    return D, E, beta, m


@triton.jit
def tile_gates(
    theta, eta, alpha, write, HAS_MOMENTUM: tl.constexpr, BLOCK_T: tl.constexpr
):
    """What a token reads (beta, f, G), and what the tile leaves behind.

    That is, of the surprise of each token in M and in S, and of M in M, of S in M, of S in S.
    """
    D, E, beta, m = decays(eta, alpha, HAS_MOMENTUM, BLOCK_T)
    f, G, in_S = beta, D * theta[None, :], theta
    if HAS_MOMENTUM:
        D *= write[None, :]
        f = tl.sum(D * m[None, :], 1)
        E *= theta[None, :]
        G = dot(D, E, "tf32x3")
        in_S = last(E, BLOCK_T)
    ends = last(beta, BLOCK_T), last(f, BLOCK_T), last(m, BLOCK_T)
    return beta, f, G, last(G, BLOCK_T), in_S, ends


@triton.jit
def tile_gates_backward(
    g_beta,
    g_f,
    g_G,
    g_in_S,
    g_m_end,
    theta,
    eta,
    alpha,
    write,
    HAS_MOMENTUM: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    """Gradients of theta, eta, alpha; those of the last row of beta, f and G are in them."""
    end = tl.arange(0, BLOCK_T) == BLOCK_T - 1
    D, E, beta, m = decays(eta, alpha, HAS_MOMENTUM, BLOCK_T)
    g_eta = theta
    if HAS_MOMENTUM:
        Dw, E_theta = D * write[None, :], E * theta[None, :]
        g_Dw = dot(g_G, tl.trans(E_theta), "tf32x3") + g_f[:, None] * m[None, :]
        g_E_theta = dot(tl.trans(Dw), g_G, "tf32x3") + tl.where(end[:, None], g_in_S[None, :], 0.0)
        g_m = tl.sum(Dw * g_f[:, None], 0) + tl.where(end, g_m_end, 0.0)
        g_theta = tl.sum(g_E_theta * E, 0)
        g_log = log_decay_backward(g_E_theta * theta[None, :], E, g_m, m, BLOCK_T)
        g_eta = g_log / (eta + TINY)
        g_D = g_Dw * write[None, :]
    else:
        g_theta = tl.sum(g_G * D, 0)
        g_D = g_G * theta[None, :]
    g_alpha = -log_decay_backward(g_D, D, g_beta, beta, BLOCK_T) / (1 - alpha + TINY)
    return g_theta, g_eta, g_alpha


# Tokens of a tile


@triton.jit
def locate(i, T, offset, chunk_size, BLOCK_T: tl.constexpr):
    """Where tile i of this call begins, which of its rows are tokens, where its anchor is kept.

    A chunk is cut into tiles of BLOCK_T tokens; the first chunk began ``offset`` tokens ago, so the
    first tile may begin before the first token. Row 0 of the kept weights is the anchor that came
    with the call, row 1 the start of tile 0.
    """
    per_chunk = tl.cdiv(chunk_size, BLOCK_T)
    tile = offset // BLOCK_T + i
    chunk = tile // per_chunk
    within = (tile - chunk * per_chunk) * BLOCK_T
    begin = chunk * chunk_size + within - offset
    rows = tl.maximum(-begin, 0), tl.minimum(chunk_size - within, T - begin)
    anchor = tl.where(chunk == 0, 0, 1 + chunk * per_chunk - offset // BLOCK_T)
    return begin, rows, anchor


@triton.jit
def real(rows, BLOCK_T: tl.constexpr):
    """Which rows of a tile are tokens."""
    t = tl.arange(0, BLOCK_T)
    return (t >= rows[0]) & (t < rows[1])


@triton.jit
def load_tokens(x, STRIDE, rows, COLUMNS: tl.constexpr, BLOCK_T: tl.constexpr):
    """``(BLOCK_T, COLUMNS)`` in float32; zeros where no token is."""
    at = tl.arange(0, BLOCK_T)[:, None] * STRIDE + tl.arange(0, COLUMNS)[None, :]
    return tl.load(x + at, real(rows, BLOCK_T)[:, None], 0.0).to(tl.float32)


@triton.jit
def store_tokens(x, STRIDE, rows, values, COLUMNS: tl.constexpr, BLOCK_T: tl.constexpr):
    at = tl.arange(0, BLOCK_T)[:, None] * STRIDE + tl.arange(0, COLUMNS)[None, :]
    tl.store(x + at, values.to(x.dtype.element_ty), real(rows, BLOCK_T)[:, None])


@triton.jit
def load_gates(
    theta, eta, alpha, write, H, rows, HAS_MOMENTUM, HAS_WRITE, BLOCK_T: tl.constexpr
):
    """Gates of a tile; where no token is, those of a masked one: nothing changes there."""
    t, here = tl.arange(0, BLOCK_T), real(rows, BLOCK_T)
    own_theta = tl.load(theta + t * H, here, 0.0)
    own_alpha = tl.load(alpha + t * H, here, 0.0)
    own_eta, own_write = own_theta, here.to(tl.float32)
    if HAS_MOMENTUM:
        own_eta = tl.load(eta + t * H, here, 1.0)
        if HAS_WRITE:
            own_write = tl.load(write + t, here, 0).to(tl.float32)
    return own_theta, own_eta, own_alpha, own_write


# Blocks of the last layer's input: BLOCK_R of its WIDTH columns, the rows of its weights


@triton.jit
def block_at(r, D: tl.constexpr, BLOCK_R: tl.constexpr):
    """Where hidden units r.. are: rows of the last layer, and of the first, which is transposed."""
    return (r + tl.arange(0, BLOCK_R))[:, None] * D + tl.arange(0, D)[None, :]


@triton.jit
def key_block(
    k, own_k, anchor, r, STRIDE, rows, D, DEPTH, GELU, PRECISION, BLOCK_T, BLOCK_R
):
    """What the last layer sees of keys, a, and the product z_1 that it was made of."""
    if DEPTH == 1:
        a = load_tokens(k + r, STRIDE, rows, BLOCK_R, BLOCK_T)
        return a, a
    else:
        z_1 = dot(own_k, tl.trans(tl.load(anchor + block_at(r, D, BLOCK_R))), PRECISION)
        return z_1, act(z_1, GELU)


@triton.jit
def delta_block(delta, z_1, anchor, r, D, DEPTH, GELU, PRECISION, BLOCK_R):
    """The propagated error ``p = delta W^T`` of two layers, and ``delta_1 = p act'(z_1)``."""
    if DEPTH == 1:
        return z_1, z_1
    else:
        W = tl.load(anchor + block_at(r, D, BLOCK_R))
        pulled = dot(delta, tl.trans(W), PRECISION)
        return pulled, pulled * act_slope(z_1, GELU)


@triton.jit
def load_layer(fast, rest, at, MOMENTUM, HAS_MOMENTUM, HAS_REST):
    """Weights, momentum and M_0 of a block; the first stands for what there is not."""
    W = tl.load(fast + at)
    S, M_0 = W, W
    if HAS_MOMENTUM:
        S = tl.load(fast + MOMENTUM + at)
    if HAS_REST:
        M_0 = tl.load(rest + at)
    return W, S, M_0


@triton.jit
def read_layer(h, W, S, M_0, beta, f, HAS_MOMENTUM, HAS_REST, PRECISION):
    """``beta h W + f h S + (1 - beta) h M_0``: of what there was when the tile began."""
    z = beta[:, None] * dot(h, W, PRECISION)
    if HAS_MOMENTUM:
        z += f[:, None] * dot(h, S, PRECISION)
    if HAS_REST:
        z += (1 - beta[:, None]) * dot(h, M_0, PRECISION)
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
        W, S, M_0 = load_layer(fast, rest, at, MOMENTUM, HAS_MOMENTUM, HAS_REST)
        W, S, M_0 = tl.trans(W), tl.trans(S), tl.trans(M_0)
        z = read_layer(own_q, W, S, M_0, beta, f, HAS_MOMENTUM, HAS_REST, PRECISION)
        z -= dot(attention, delta_1, PRECISION)
        return z, act(z, GELU)
