"""The gated delta rule: a matrix memory that replaces what a key held, and forgets.

``W_t = alpha_t (I - beta_t k_t k_t^T) W_{t-1} + beta_t k_t v_t^T``, read as ``y_t = q_t W_t``.
(Yang, Kautz, Hatamizadeh, arXiv 2412.06464, eq. 10, transposed: keys are rows of W here. Their
alpha is the share that is kept; ``forget_gate`` is ``1 - alpha``, as everywhere in this library.)

With ``D_ti`` the product of alpha over i+1..t and ``d_t`` that from the start of a block, whose
start weights are S, the memory after token t of the block is ``d_t S + sum_{i<=t} D_ti k_i^T u_i``
with

    u_t = beta_t (v_t - d_t k_t S - sum_{i<t} D_ti (k_t . k_i) u_i)

that is ``(I + L) U = diag(beta) (V - diag(d) K S)`` with L strictly lower triangular (the WY or
UT transform). Both right-hand sides are solved for without S, for all blocks at once; only
``S -> P S + C``, once per block, is sequential.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from titans_core.ops.decay import decay_matrix, exp_decay, log_decay
from titans_core.ops.state import full_precision

# Tokens solved for at once; a tile, it changes nothing beyond rounding.
BLOCK_SIZE = 32


def gated_delta(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    forget_gate: Tensor,
    initial_weights: Tensor | None = None,
    *,
    state: Tensor | None = None,
    write_mask: Tensor | None = None,
    implementation: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Write each token into the memory by the gated delta rule, then read it.

    ``W_t = alpha_t (I - beta_t k_t k_t^T) W_{t-1} + beta_t k_t v_t^T``, ``y_t = q_t W_t``, with
    ``alpha_t = 1 - forget_gate_t``.

    Parameters
    ----------
    q, k : Tensor
        Queries and keys, ``(B, T, H, D_k)``; T may be 0. Keys of unit length keep the memory
        stable; that is not checked.
    v : Tensor
        Values, ``(B, T, H, D_v)``.
    beta, forget_gate : Tensor
        How much of what a key held is replaced, and how much of everything is forgotten, both in
        [0, 1] (not checked), ``(B, T, H)``. The paper's alpha is ``1 - forget_gate``; a
        ``forget_gate`` of 1 begins anew, as at the start of a document.
    initial_weights : Tensor, optional
        W_0, ``(H, D_k, D_v)``, shared by the batch; zeros by default. A state goes before it.
    state : Tensor, optional
        ``(B, H, D_k, D_v)``: where an earlier call of the same stream ended. Any cut of a stream
        equals no cut.
    write_mask : Tensor, optional
        ``(B, T)`` bool, True for a real token. A masked token leaves the memory as it was,
        whatever its k, v and gates hold (NaN included); its query still reads.
    implementation : {"auto", "reference", "chunked"}
        "auto" takes the fastest that is exact for these inputs: today always "chunked".

    Returns
    -------
    y : Tensor
        ``(B, T, H, D_v)``, in the dtype of q.
    state : Tensor
        W_T, ``(B, H, D_k, D_v)``, in at least float32, whatever the dtype of the inputs.

    Raises
    ------
    ValueError
        A shape, the dtype of the mask or the implementation is not one of the above.

    Notes
    -----
    Yang, Kautz, Hatamizadeh (arXiv 2412.06464), eq. 10 and section 3.3.

    Examples
    --------
    >>> import torch
    >>> k = torch.tensor([0.6, 0.8]).expand(1, 2, 1, 2)
    >>> v = torch.tensor([[1.0], [5.0]]).view(1, 2, 1, 1)
    >>> gate = torch.ones(1, 2, 1)
    >>> y, state = gated_delta(k, k, v, gate, 0 * gate)
    >>> y.flatten()  # the second value replaces the first: they share a key
    tensor([1., 5.])
    """
    if implementation not in (allowed := ["auto", *sorted(_IMPLEMENTATIONS)]):
        raise ValueError(f"implementation must be one of {allowed}; got {implementation!r}.")
    _check_tensors(q, k, v, beta, forget_gate, initial_weights, state, write_mask)
    dtype = torch.promote_types(q.dtype, torch.float32)
    batch, time, heads, dim = q.shape
    if state is not None:
        weights = state.to(dtype)
    elif initial_weights is not None:
        weights = initial_weights.to(dtype).repeat(batch, 1, 1, 1)  # a view would follow M_0
    else:
        weights = torch.zeros(batch, heads, dim, v.shape[-1], dtype=dtype, device=q.device)
    if time == 0:
        return q.new_empty(v.shape), weights

    if write_mask is not None:  # nothing of a masked token may reach a product
        silent = ~write_mask[..., None]
        k, v = (x.masked_fill(silent[..., None], 0) for x in (k, v))
        beta, forget_gate = (x.masked_fill(silent, 0) for x in (beta, forget_gate))
    run = _IMPLEMENTATIONS["chunked" if implementation == "auto" else implementation]
    with full_precision(q):
        y, weights = run(*(x.to(dtype) for x in (q, k, v, beta, forget_gate)), weights)
    return y.to(q.dtype), weights


def gated_delta_reference(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, forget_gate: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """One token at a time: the specification. Shapes as the dispatcher's; T >= 1, one dtype.

    Parameters
    ----------
    q, k, v, beta, forget_gate : Tensor
    weights : Tensor
        ``(B, H, D_k, D_v)``, before the first token.

    Returns
    -------
    y, weights : Tensor
        What every token read, and the memory after the last.
    """
    outputs = []
    for t in range(q.shape[1]):
        query, key, value = (x[:, t, :, None] for x in (q, k, v))  # (B, H, 1, D)
        strength, forget = (gate[:, t, :, None, None] for gate in (beta, forget_gate))
        erased = weights - strength * key.mT @ (key @ weights)
        weights = (1 - forget) * erased + strength * key.mT @ value
        outputs.append((query @ weights).squeeze(-2))
    return torch.stack(outputs, dim=1), weights


def gated_delta_chunked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    forget_gate: Tensor,
    weights: Tensor,
    *,
    block_size: int = BLOCK_SIZE,
) -> tuple[Tensor, Tensor]:
    """Whole blocks at once, the equations of the module's docstring; differentiable by autograd.

    Parameters
    ----------
    q, k, v, beta, forget_gate, weights : Tensor
        As the reference's.
    block_size : int
        Tokens solved for at once; changes nothing beyond rounding.

    Returns
    -------
    y, weights : Tensor
        As the reference's.
    """
    time = q.shape[1]
    size = min(block_size, time)
    log_keep = log_decay(1 - forget_gate)
    # (B, H, N, b, D), and D = 1 for the gates
    q, k, v, beta, log_keep = (
        _blocks(x, size) for x in (q, k, v, beta[..., None], log_keep[..., None])
    )
    keep = decay_matrix(log_keep.squeeze(-1))  # D_ti
    keep_start = exp_decay(log_keep.cumsum(-2))  # d_t

    overlap = (beta * keep * (k @ k.mT)).tril(-1)  # L
    wanted = torch.cat([beta * v, beta * keep_start * k], dim=-1)
    solved = torch.linalg.solve_triangular(overlap, wanted, upper=False, unitriangular=True)
    written, replaced = solved.split([v.shape[-1], k.shape[-1]], dim=-1)  # U = written - replaced S

    kept_key = (keep[..., -1, :, None] * k).mT  # what is left of each key at the end of the block
    eye = torch.eye(k.shape[-1], dtype=k.dtype, device=k.device)
    transition = keep_start[..., -1:, :] * eye - kept_key @ replaced  # P
    added = kept_key @ written  # C
    starts = []
    for p, c in zip(transition.unbind(2), added.unbind(2), strict=True):
        starts.append(weights)
        weights = p @ weights + c
    start = torch.stack(starts, dim=2)  # S of every block

    y = (keep_start * q) @ start + (keep * (q @ k.mT)) @ (written - replaced @ start)
    return y.flatten(2, 3)[:, :, :time].transpose(1, 2), weights


_IMPLEMENTATIONS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "reference": gated_delta_reference,
    "chunked": gated_delta_chunked,
}


def _blocks(x: Tensor, size: int) -> Tensor:
    """``(B, T, H, D) -> (B, H, N, size, D)``; zeros at the end neither write, erase nor decay."""
    x = functional.pad(x.transpose(1, 2), (0, 0, 0, -x.shape[1] % size))
    batch, heads, time, dim = x.shape
    return x.reshape(batch, heads, time // size, size, dim)


def _check_tensors(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    forget_gate: Tensor,
    initial_weights: Tensor | None,
    state: Tensor | None,
    write_mask: Tensor | None,
) -> None:
    """Raise ValueError for tensors that do not fit together."""
    if q.ndim != 4:
        raise ValueError(f"q must have shape (B, T, H, D_k); got {tuple(q.shape)}.")
    batch, time, heads, dim = q.shape
    if v.ndim != 4:
        raise ValueError(f"v must have shape (B, T, H, D_v); got {tuple(v.shape)}.")
    width = v.shape[3]
    if write_mask is not None and write_mask.dtype != torch.bool:
        raise ValueError(f"write_mask must be a bool tensor; got {write_mask.dtype}.")
    for name, tensor, shape in (
        ("k", k, (batch, time, heads, dim)),
        ("v", v, (batch, time, heads, width)),
        ("beta", beta, (batch, time, heads)),
        ("forget_gate", forget_gate, (batch, time, heads)),
        ("initial_weights", initial_weights, (heads, dim, width)),
        ("state", state, (batch, heads, dim, width)),
        ("write_mask", write_mask, (batch, time)),
    ):
        if tensor is not None and tensor.shape != shape:
            raise ValueError(
                f"{name} must have shape {shape} to go with q {tuple(q.shape)} and "
                f"v {tuple(v.shape)}; got {tuple(tensor.shape)}."
            )
