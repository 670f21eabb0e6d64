"""What all kernels are made of: products, activation, LayerNorm, surprise, tokens, blocks.

Device functions. The names are those of ``ops/README.md``, and so are the lines. ``plan`` is a
`Plan`; ``tokens`` of a tile are (pointer to the first, distance to the next, (first, end) of the
rows that are tokens).
"""

from __future__ import annotations

import triton
import triton.language as tl

VERSION = triton.__version__
INTERPRETED = not isinstance(tl.cdiv, triton.JITFunction)  # as it was when triton was imported
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
def act(z, plan: tl.constexpr):
    """The activation, SiLU or GELU."""
    if plan.GELU:
        return 0.5 * z * (1 + tl.erf(z * INVERSE_SQRT_2))
    else:
        return z * tl.sigmoid(z)


@triton.jit
def act_slope(z, plan: tl.constexpr):
    """``act'(z)``."""
    if plan.GELU:
        bell = tl.exp(-0.5 * z * z) * INVERSE_SQRT_2PI
        return 0.5 * (1 + tl.erf(z * INVERSE_SQRT_2)) + z * bell
    else:
        gate = tl.sigmoid(z)
        return gate * (1 + z * (1 - gate))


@triton.jit
def act_bend(z, plan: tl.constexpr):
    """``act''(z)``."""
    if plan.GELU:
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
    """The LayerNorm's n and s: the normalised product, the inverse of its deviation."""
    centred = z - mean(z, D)
    s = 1 / tl.sqrt(mean(centred * centred, D) + NORM_EPS)
    return centred * s, s


@triton.jit
def pull(g, n, s, D: tl.constexpr):
    """``J g``, the (symmetric) derivative of the LayerNorm."""
    return s * (g - mean(g, D) - n * mean(n * g, D))


@triton.jit
def surprise(z, k, v, gain, bias, huber, plan: tl.constexpr):
    """Of the last product z of keys: clipped error e, delta of the last layer; n and s."""
    n, s, answer = z, z, z
    if plan.NORM:
        channel = tl.arange(0, plan.D)
        own_gain, own_bias = tl.load(gain + channel)[None, :], tl.load(bias + channel)[None, :]
        n, s = normalise(z, plan.D)
        answer = n * own_gain + own_bias
    if plan.RESIDUAL:
        answer += k
    e = 2 * (answer - v)
    if plan.HUBER:
        e = tl.minimum(tl.maximum(e, -2 * huber), 2 * huber)
    delta = e
    if plan.NORM:
        delta = pull(e * own_gain, n, s, plan.D)
    return e, delta, n, s


@triton.jit
def surprise_backward(g_delta, z, k, v, gain, bias, huber, plan: tl.constexpr):
    """From the gradient of delta to those of z, of the memory's answer, and of gain."""
    e, delta, n, s = surprise(z, k, v, gain, bias, huber, plan)
    g_scaled, own_gain = g_delta, 1.0
    if plan.NORM:
        own_gain = tl.load(gain + tl.arange(0, plan.D))[None, :]
        g_scaled = pull(g_delta, n, s, plan.D)
    g_answer = 2 * own_gain * g_scaled
    if plan.HUBER:  # where the error was clipped, nothing passes
        g_answer = tl.where(tl.abs(e) >= 2 * huber, 0.0, g_answer)
    g_z = g_answer
    if plan.NORM:  # delta = J x with x = gain * e, and J moves with z, too
        x = own_gain * e
        g_n = -s * (g_delta * mean(n * x, plan.D) + x * mean(n * g_delta, plan.D))
        g_z = pull(own_gain * g_answer + g_n, n, s, plan.D)
        g_z -= s * n * mean(g_delta * delta, plan.D)
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
def of_tile(x, tile, WIDTH: tl.constexpr, BLOCK_T: tl.constexpr):
    """All rows of one of ``(tiles N, BLOCK_T, WIDTH)``, as tokens."""
    return x + tile * BLOCK_T * WIDTH, WIDTH, (0, BLOCK_T)


@triton.jit
def load_tokens(tokens, c, COLUMNS: tl.constexpr, BLOCK_T: tl.constexpr):
    """Columns c.., ``(BLOCK_T, COLUMNS)``, in float32; zeros where no token is."""
    x, stride, rows = tokens
    at = tl.arange(0, BLOCK_T)[:, None] * stride + c + tl.arange(0, COLUMNS)[None, :]
    return tl.load(x + at, real(rows, BLOCK_T)[:, None], 0.0).to(tl.float32)


@triton.jit
def store_tokens(tokens, c, values, COLUMNS: tl.constexpr, BLOCK_T: tl.constexpr):
    """Write columns c.. of the rows that are tokens."""
    x, stride, rows = tokens
    at = tl.arange(0, BLOCK_T)[:, None] * stride + c + tl.arange(0, COLUMNS)[None, :]
    tl.store(x + at, values.to(x.dtype.element_ty), real(rows, BLOCK_T)[:, None])


@triton.jit
def add_tokens(tokens, c, values, COLUMNS: tl.constexpr, BLOCK_T: tl.constexpr):
    """Sums over blocks are kept in memory: registers are what is scarce."""
    tl.debug_barrier()  # what is there may have been stored by another thread
    store_tokens(tokens, c, load_tokens(tokens, c, COLUMNS, BLOCK_T) + values, COLUMNS, BLOCK_T)


@triton.jit
def add(into, x):
    """Add to what is there."""
    tl.debug_barrier()
    tl.store(into, tl.load(into) + x)


# Blocks: BLOCK_R hidden units, which are rows of the last layer, and of the first, which lies on
# its side. So for both a block W is (BLOCK_R, D); no more than BLOCK_C channels of a factor that is
# summed over are ever held.


@triton.jit
def block_at(r, plan: tl.constexpr):
    """Where hidden units r.. are in a layer."""
    return (r + tl.arange(0, plan.BLOCK_R))[:, None] * plan.D + tl.arange(0, plan.D)[None, :]


@triton.jit
def project(x, W, plan: tl.constexpr):
    """``x W^T``: tokens x on each of the BLOCK_R rows that W points to."""
    z = tl.zeros((plan.BLOCK_T, plan.BLOCK_R), tl.float32)
    rows = tl.arange(0, plan.BLOCK_R)[:, None] * plan.D + tl.arange(0, plan.BLOCK_C)[None, :]
    for c in tl.range(0, plan.D, plan.BLOCK_C, disable_licm=True):
        own = load_tokens(x, c, plan.BLOCK_C, plan.BLOCK_T)
        z += dot(own, tl.trans(tl.load(W + rows + c)), plan.PRECISION)
    return z


@triton.jit
def compare(x, y, plan: tl.constexpr):
    """``x y^T`` of the tokens of two tiles, ``(BLOCK_T, BLOCK_T)``."""
    z = tl.zeros((plan.BLOCK_T, plan.BLOCK_T), tl.float32)
    for c in tl.range(0, plan.D, plan.BLOCK_C, disable_licm=True):
        own = load_tokens(x, c, plan.BLOCK_C, plan.BLOCK_T)
        other = load_tokens(y, c, plan.BLOCK_C, plan.BLOCK_T)
        z += dot(own, tl.trans(other), plan.PRECISION)
    return z


@triton.jit
def key_block(keys, anchor, r, plan: tl.constexpr):
    """What the last layer sees of keys, a, and the product z_1 that it was made of."""
    if plan.DEPTH == 1:
        a = load_tokens(keys, r, plan.BLOCK_R, plan.BLOCK_T)
        return a, a
    else:
        z_1 = project(keys, anchor + r * plan.D, plan)
        return z_1, act(z_1, plan)


@triton.jit
def key_product(keys, anchor, plan: tl.constexpr):
    """What the last layer makes of keys, z, at the anchor."""
    z = tl.zeros((plan.BLOCK_T, plan.D), tl.float32)
    for r in tl.range(0, plan.WIDTH, plan.BLOCK_R, disable_licm=True):
        a = key_block(keys, anchor, r, plan)[1]
        z += dot(a, tl.load(anchor + plan.LAST + block_at(r, plan)), plan.PRECISION)
    return z


@triton.jit
def delta_block(errors, z_1, anchor, r, plan: tl.constexpr):
    """The error propagated through the last of two layers, ``p``, and ``delta_1 = p act'(z_1)``."""
    p = project(errors, anchor + plan.LAST + r * plan.D, plan)
    return p, p * act_slope(z_1, plan)
