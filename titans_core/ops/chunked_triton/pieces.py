"""What all kernels are made of: products, activation, LayerNorm, surprise, tokens of a tile.

Device functions. Rows are tokens of one tile, ``(BLOCK_T, D)``; the names are those of
``ops/README.md``, and so are the lines.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton import knobs

INTERPRETED = knobs.runtime.interpret
NORM_EPS = tl.constexpr(1e-5)
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
    n, s, answer = z, z, z
    if HAS_NORM:
        own_gain, own_bias = tl.load(gain + tl.arange(0, D)), tl.load(bias + tl.arange(0, D))
        n, s = normalise(z, D)
        answer = n * own_gain[None, :] + own_bias[None, :]
    if RESIDUAL:
        answer += k
    e = 2 * (answer - v)
    if HAS_HUBER:
        e = tl.minimum(tl.maximum(e, -2 * huber), 2 * huber)
    delta = e
    if HAS_NORM:
        delta = pull(e * own_gain[None, :], n, s, D)
    return e, delta, n, s


@triton.jit
def surprise_backward(
    g_delta, z, k, v, gain, bias, huber, HAS_NORM, RESIDUAL, HAS_HUBER, D: tl.constexpr
):
    """From the gradient of delta to those of z, of the memory's answer, and of gain."""
    e, delta, n, s = surprise(z, k, v, gain, bias, huber, HAS_NORM, RESIDUAL, HAS_HUBER, D)
    g_scaled, own_gain = g_delta, 1.0
    if HAS_NORM:
        own_gain = tl.load(gain + tl.arange(0, D))[None, :]
        g_scaled = pull(g_delta, n, s, D)
    g_answer = 2 * own_gain * g_scaled
    if HAS_HUBER:  # where the error was clipped, nothing passes
        g_answer = tl.where(tl.abs(e) >= 2 * huber, 0.0, g_answer)
    g_z = g_answer
    if HAS_NORM:  # delta = J x with x = gain * e, and J moves with z, too
        x = own_gain * e
        g_n = -s * (g_delta * mean(n * x, D) + x * mean(n * g_delta, D))
        g_z = pull(own_gain * g_answer + g_n, n, s, D) - s * n * mean(g_delta * delta, D)
    return g_z, g_answer, tl.sum(g_scaled * e + g_answer * n, 0)


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
def place(tiles, H):
    """A program's tile, its number, its sample and head, and how many memories there are.

    There is one for each tile and memory, memories running first. Wide enough for large tensors.
    """
    here = tl.program_id(0).to(tl.int64)
    memories = tl.num_programs(0) // tiles
    i, memory = tl.program_id(0) // memories, here % memories
    return i, here, memory // H, memory % H, memories.to(tl.int64)


@triton.jit
def real(rows, BLOCK_T: tl.constexpr):
    """Which rows of a tile are tokens."""
    t = tl.arange(0, BLOCK_T)
    return (t >= rows[0]) & (t < rows[1])


@triton.jit
def load_tokens(x, STRIDE, rows, COLUMNS: tl.constexpr, BLOCK_T: tl.constexpr):
    """``(BLOCK_T, COLUMNS)`` in float32; zeros where no token is.

    x points to the first token of a tile, the next is STRIDE further.
    """
    at = tl.arange(0, BLOCK_T)[:, None] * STRIDE + tl.arange(0, COLUMNS)[None, :]
    return tl.load(x + at, real(rows, BLOCK_T)[:, None], 0.0).to(tl.float32)


@triton.jit
def store_tokens(x, STRIDE, rows, values, COLUMNS: tl.constexpr, BLOCK_T: tl.constexpr):
    at = tl.arange(0, BLOCK_T)[:, None] * STRIDE + tl.arange(0, COLUMNS)[None, :]
    tl.store(x + at, values.to(x.dtype.element_ty), real(rows, BLOCK_T)[:, None])


@triton.jit
def add(into, x):
    tl.store(into, tl.load(into) + x)


@triton.jit
def add_tokens(x, STRIDE, rows, values, COLUMNS: tl.constexpr, BLOCK_T: tl.constexpr):
    """Sums over blocks are kept in memory: registers are what is scarce."""
    at = tl.arange(0, BLOCK_T)[:, None] * STRIDE + tl.arange(0, COLUMNS)[None, :]
    here = real(rows, BLOCK_T)[:, None]
    tl.store(x + at, tl.load(x + at, here, 0.0) + values, here)


# Blocks: BLOCK_R hidden units, which are rows of the last layer, and of the first, which lies on its
# side. So for both a block W is (BLOCK_R, D), and no warp ever holds more than BLOCK_C of D channels
# of a factor that is summed over


@triton.jit
def block_at(r, D: tl.constexpr, BLOCK_R: tl.constexpr):
    """Where hidden units r.. are in a layer."""
    return (r + tl.arange(0, BLOCK_R))[:, None] * D + tl.arange(0, D)[None, :]


@triton.constexpr_function
def channels_at_once(D, PRECISION):
    """BLOCK_C: three TF32 terms of a number take more room than one of bfloat16."""
    return 64 if PRECISION == "bf16" and D == 128 else min(D, 32)


@triton.jit
def project(
    x, STRIDE, rows, W, D: tl.constexpr, PRECISION, BLOCK_T: tl.constexpr, BLOCK_R: tl.constexpr
):
    """``x W^T``: tokens x, ``(BLOCK_T, D)``, on each of BLOCK_R rows that W points to."""
    BLOCK_C: tl.constexpr = channels_at_once(D, PRECISION)
    z = tl.zeros((BLOCK_T, BLOCK_R), tl.float32)
    for c in tl.range(0, D, BLOCK_C, disable_licm=True):
        at = tl.arange(0, BLOCK_R)[:, None] * D + c + tl.arange(0, BLOCK_C)[None, :]
        own = load_tokens(x + c, STRIDE, rows, BLOCK_C, BLOCK_T)
        z += dot(own, tl.trans(tl.load(W + at)), PRECISION)
    return z


@triton.jit
def compare(
    x, STRIDE, rows, y, y_STRIDE, y_rows, D: tl.constexpr, PRECISION, BLOCK_T: tl.constexpr
):
    """``x y^T`` of the tokens of two tiles, ``(BLOCK_T, BLOCK_T)``."""
    BLOCK_C: tl.constexpr = channels_at_once(D, PRECISION)
    z = tl.zeros((BLOCK_T, BLOCK_T), tl.float32)
    for c in tl.range(0, D, BLOCK_C, disable_licm=True):
        own = load_tokens(x + c, STRIDE, rows, BLOCK_C, BLOCK_T)
        other = load_tokens(y + c, y_STRIDE, y_rows, BLOCK_C, BLOCK_T)
        z += dot(own, tl.trans(other), PRECISION)
    return z


@triton.jit
def key_block(k, STRIDE, rows, anchor, r, D, DEPTH, GELU, PRECISION, BLOCK_T, BLOCK_R):
    """What the last layer sees of keys, a, and the product z_1 that it was made of."""
    if DEPTH == 1:
        a = load_tokens(k + r, STRIDE, rows, BLOCK_R, BLOCK_T)
        return a, a
    else:
        z_1 = project(k, STRIDE, rows, anchor + r * D, D, PRECISION, BLOCK_T, BLOCK_R)
        return z_1, act(z_1, GELU)


@triton.jit
def key_product(
    k,
    STRIDE,
    rows,
    anchor,
    D: tl.constexpr,
    WIDTH,
    DEPTH,
    GELU,
    PRECISION,
    BLOCK_T: tl.constexpr,
    BLOCK_R,
):
    """What the last layer makes of keys, z, at the anchor."""
    z = tl.zeros((BLOCK_T, D), tl.float32)
    for r in tl.range(0, WIDTH, BLOCK_R, disable_licm=True):
        a = key_block(k, STRIDE, rows, anchor, r, D, DEPTH, GELU, PRECISION, BLOCK_T, BLOCK_R)[1]
        W = tl.load(anchor + (DEPTH - 1) * WIDTH * D + block_at(r, D, BLOCK_R))
        z += dot(a, W, PRECISION)
    return z


@triton.jit
def delta_block(delta, z_1, last, r, D, DEPTH, GELU, PRECISION, BLOCK_T, BLOCK_R):
    """The propagated error ``p = delta W^T`` of two layers, and ``delta_1 = p act'(z_1)``."""
    if DEPTH == 1:
        return z_1, z_1
    else:
        p = project(delta, D, (0, BLOCK_T), last + r * D, D, PRECISION, BLOCK_T, BLOCK_R)
        return p, p * act_slope(z_1, GELU)
