"""What the kernels of ``titans_core/ops/chunked_triton`` multiply and have to move, and how fast.

For a new stream with momentum and forgetting toward M_0, at depth 2 with norm and residual, taken
in one segment; each further one (``SEGMENT_BYTES``) brings its start, anchor and M_0 once more.
Left out is what torch copies of a memory's start, end and anchor, and the zeros of ``g_k``.
The interpreter of Triton counts the same: ``tests/test_kernel_roofline.py``.
"""

from __future__ import annotations

import runpy
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

OPS = Path(find_spec("titans_core").origin).parent / "ops"  # its package would import triton
PLAN = runpy.run_path(str(OPS / "chunked_triton" / "plan.py"))
BLOCK_T: int = PLAN["BLOCK_T"]
KEPT_BYTES: int = PLAN["KEPT_BYTES"]
PARTS, SOURCES = 2, 3  # what is written: W and S; what is read: W, S and M_0
FORWARD, BOTH = "forward", "forward + backward"
# SXM, the A100 with 80 GB: TFLOP/s in bf16 and TF32, dense; TB/s; SMs.
A100, H100, H200 = (312, 156, 2.039, 108), (989, 495, 3.35, 132), (989, 495, 4.8, 132)
GPUS = {"A100": A100, "H100": H100, "H200": H200}


@dataclass(frozen=True)
class Case:
    dim: int
    depth: int
    chunk: int
    dtype: str
    batch: int = 8
    heads: int = 8
    tokens: int = 2048
    expansion: int = 2

    def __str__(self) -> str:
        shape = f"batch {self.batch}, heads {self.heads}, T {self.tokens}, d {self.dim}, "
        return shape + f"depth {self.depth}, chunk {self.chunk}, {self.dtype}"


@dataclass(frozen=True)
class Cost:
    """Of one kernel.

    Attributes
    ----------
    products, again, exact : float
        Multiply-adds at the precision of q, those of them that repeat what the kernel had before,
        and others that are always of three TF32 terms.
    least, states : float
        Bytes, if each address that is read comes once and each that is stored goes once; and those
        of them that are weights and momentum at the edges of tiles and chunks, or their gradients.
    """

    kernel: str
    products: float
    again: float
    exact: float
    least: float
    states: float

    def floor(self, case: Case, gpu: str) -> tuple[float, str, float]:
        """Seconds, what binds, and seconds if bandwidth, too, came in the share of the SMs."""
        bf16, tf32, bandwidth, processors = GPUS[gpu]
        share = min(case.batch * case.heads / processors, 1) if "write" in self.kernel else 1
        rate = bf16 if case.dtype == "bfloat16" else tf32 / 3
        work = 2e-12 * ((self.products - self.again) / rate + self.exact / (tf32 / 3))
        move = 1e-12 * self.least / bandwidth
        binds = "HBM" if move > work / share else "products" if share == 1 else "seq."
        return max(work / share, move), binds, max(work, move) / share


def costs(case: Case) -> dict[str, list[Cost]]:
    """Of the kernels of a pass, in their order; terms stand in the order of the source."""
    D, DEPTH, H, N, b = case.dim, case.depth, case.heads, case.batch * case.heads, BLOCK_T
    deep = DEPTH == 2
    WIDTH = D * case.expansion if deep else D
    whole, left = divmod(case.tokens, case.chunk)
    tiles, chunks = whole * -(-case.chunk // b) + -(-left // b), whole + (left > 0)
    # Multiply-adds: a tile's tokens with one layer, and with each other over D or WIDTH.
    X, near, far = b * D * WIDTH, b * b * D, b * b * WIDTH
    # Bytes of a tile: (b, D) in the type of q; in float32 (b, D), (b, WIDTH), (b, b) and (b,).
    given = b * D * (2 if case.dtype == "bfloat16" else 4)
    wide, units, pairs, each = (4 * b * columns for columns in (D, WIDTH, b, 1))
    gates, shares = 3 * each, PARTS * each + 3 * 4  # theta, eta, alpha; in_M, in_S, (beta, f, m)
    # Bytes of a memory: all layers (an anchor, M_0), W and S of all layers, gain or bias.
    slow, fast, norm = DEPTH * D * WIDTH * 4, PARTS * DEPTH * D * WIDTH * 4, deep * D * 4

    def of(kernel: str, least: float, states: float = 0, slopes: float = 0, products: float = 0,
           again: float = 0, exact: float = 0) -> Cost:  # fmt: skip
        """From products and ``least`` of a tile; ``states`` and ``slopes`` (the norm) of all."""
        products, again, exact = (tiles * N * x for x in (products, again, exact))
        least = tiles * N * least + states + slopes
        return Cost(kernel, products, again, exact, least=least, states=states)

    gate = of("gates_kernel", gates + shares, exact=b**3)  # G
    write = of(
        "write_kernel",
        # z of keys; the first layer's again, and the error propagated to it; into W and S
        products=DEPTH * X + deep * (X + X) + DEPTH * PARTS * X,
        again=deep * X,
        least=shares + 2 * given + wide,  # k, v; deltas
        states=N * ((1 + tiles) * fast + slow) + H * slow,  # start, ends; first anchor; M_0
        slopes=H * 2 * norm,
    )

    def read(keep: bool) -> Cost:
        return of(
            "read_kernel" + " KEEP" * keep,
            exact=b**3,  # G
            products=keep * DEPTH * X  # z of keys
            + deep * (near + X + X + SOURCES * X + far)  # q k^T; z_1, delta_1 of keys; z_1 of q
            + far + SOURCES * X + near,  # scores; last layer; what the tile's errors add
            again=keep * deep * X,  # z_1 of keys
            # q, k, deltas; v or, as the result, y
            least=gates + 2 * given + wide + given
            + keep * (2 * wide + (2 * DEPTH - 1) * units + pairs),  # products, y; hidden; scores
            states=N * (tiles * fast + (deep or keep) * slow) + H * slow,  # with the first anchor
            slopes=H * 2 * norm,
        )  # fmt: skip

    read_backward = of(
        "read_backward_kernel",
        exact=b**3,  # G
        products=near + near  # g_delta, g_weighted
        + SOURCES * 2 * X + far + far  # last layer: g_h and g_W; scores: g_h and g_a
        + deep * (near + far + far)  # q k^T; attention: g_attention, g_delta_1
        + deep * (SOURCES * 2 * X + near + near),  # first layer: g_q and g_W; q k^T: g_q, g_k
        least=gates + given + (deep + 1) * wide + pairs  # g_y; y, to the norm, and g_z; scores
        + wide + wide + DEPTH * given  # g_delta, deltas; q, and for two layers k
        + 2 * (2 * DEPTH - 1) * units  # hidden and, in its place, gradients
        + DEPTH * wide + pairs + 2 * each + 2 * norm,  # g_q and g_k; g_G, g_read, g_gain, g_bias
        states=N * tiles * (2 * fast + slow) + H * slow,  # fast, g_fast, g_rest; M_0
        slopes=H * norm,
    )  # fmt: skip
    write_backward = of(
        "write_backward_kernel",
        products=deep * X + PARTS * 2 * X  # z_1; g_a and g_delta of what went into W and S
        # z_1; delta_1; its g and g_k of what went into W and S; delta_1's own g_delta, g_W
        + deep * (X + X + PARTS * 2 * X + X + X)
        + deep * X + X + X + deep * (X + X),  # z_1; of each layer g_W and the gradient of its input
        again=deep * 2 * X,  # z_1
        least=shares + 2 * given + wide  # k, v; deltas
        + 2 * wide + 2 * wide + 2 * wide + wide  # in and out: products, g_delta, g_k; g_v
        + (1 + DEPTH) * units + 2 * each,  # hidden: g_a in and out, and g_delta_1; g_shares
        # g_fast, added to but at the end; anchors; g_anchor in and out
        states=N * ((2 * tiles + 1) * fast + (chunks + 2) * slow),
        slopes=(H * 2 + N * 2 * 2) * norm,  # g_gain and g_bias in and out
    )  # fmt: skip
    # Sums over g_fast with what is in fast, and over g_rest.
    between = of("torch between", 0, states=N * tiles * (2 * fast + slow))
    gates_backward = of(
        "gates_backward_kernel",
        exact=2 * b**3,  # g_D_w, g_E_theta
        # in and out; g_G, g_read, g_shares with g_ends
        least=2 * gates + pairs + 2 * each + shares,
    )
    again = [] if tiles * N * fast <= KEPT_BYTES else [write]  # of the forward none was kept
    after = [gate, *again, read(keep=True), read_backward, write_backward, between, gates_backward]
    forward = [gate, write, read(keep=False)]
    return {FORWARD: forward, BOTH: forward + after}
