"""Pure functions on tensors: the neural memory operation and its visible dispatcher.

The equations, symbols and shapes are in ``ops/README.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from titans_core.ops.chunked import neural_memory_chunked
from titans_core.ops.memory_mlp import ACTIVATIONS, MemoryForm, Weights
from titans_core.ops.reference import neural_memory_reference
from titans_core.ops.state import NeuralMemoryState

__all__ = ["NeuralMemoryState", "neural_memory"]

_IMPLEMENTATIONS: dict[str, Callable[..., tuple[Tensor, NeuralMemoryState]]] = {
    "reference": neural_memory_reference,
    "chunked": neural_memory_chunked,
}


def neural_memory(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    memory_lr: Tensor,
    momentum_decay: Tensor,
    forget_gate: Tensor,
    initial_weights: Sequence[Tensor],
    *,
    state: NeuralMemoryState | None = None,
    chunk_size: int,
    activation: str = "silu",
    residual: bool = False,
    norm: tuple[Tensor, Tensor] | None = None,
    forget_toward: str = "zero",
    implementation: str = "auto",
) -> tuple[Tensor, NeuralMemoryState]:
    """Write each token into the memory by surprise, momentum and forgetting, then read it.

    ``S_t = eta_t S_{t-1} - theta_t grad ||M_anchor(k_t) - v_t||^2``,
    ``M_t = (1 - alpha_t) M_{t-1} + S_t``, ``y_t = M_t(q_t)``. (With ``forget_toward="initial"``,
    ``M_t = (1 - alpha_t) M_{t-1} + alpha_t M_0 + S_t``.)

    Parameters
    ----------
    q, k, v : Tensor
        Queries, keys and values, ``(B, T, H, D)``; T may be 0.
    memory_lr, momentum_decay, forget_gate : Tensor
        theta >= 0, eta in [0, 1] and alpha in [0, 1], ``(B, T, H)``. Ranges are not checked (that
        would stall a GPU).
    initial_weights : sequence of Tensor
        M_0, one ``(H, d_in, d_out)`` per layer, from D to D; shared by the batch. Where a state is
        given, the stream does not begin with them; forgetting may still lead to them.
    state : NeuralMemoryState, optional
        Where an earlier call of the same stream ended. Any cut of a stream equals no cut.
    chunk_size : int
        Tokens that share one anchor. Part of the maths, not a tiling knob; 1 is the paper's
        sequential rule.
    activation : {"silu", "gelu"}
        Between the memory's layers.
    residual : bool
        Add the memory's input to its output.
    norm : tuple of Tensor, optional
        Gain and bias ``(H, D)`` of a LayerNorm on the memory's output (before the residual).
    forget_toward : {"zero", "initial"}
        What the memory forgets to: nothing (paper, eq. 13), or ``initial_weights``.
    implementation : {"auto", "reference", "chunked"}
        "auto" takes the fastest that is exact for these inputs: today always "chunked".

    Returns
    -------
    y : Tensor
        ``(B, T, H, D)``, in the dtype of q.
    state : NeuralMemoryState
        In at least float32, whatever the dtype of the inputs.

    Raises
    ------
    ValueError
        A shape, the chunk size, the activation or the implementation is not one of the above.

    Notes
    -----
    Behrouz, Zhong, Mirrokni (arXiv 2501.00663), eq. 10-16.

    Examples
    --------
    >>> import torch
    >>> k = torch.ones(1, 3, 1, 2) / 2**0.5
    >>> v = torch.tensor([1.0, 2.0]).expand(1, 3, 1, 2)
    >>> gate = torch.ones(1, 3, 1)
    >>> y, state = neural_memory(
    ...     k, k, v, 0.5 * gate, 0 * gate, 0 * gate, [torch.zeros(1, 2, 2)], chunk_size=1
    ... )
    >>> y[0, 0, 0]  # one step of size 1/2 on a unit key stores its value
    tensor([1., 2.])
    """
    weights = tuple(initial_weights)
    _check(q, k, v, (memory_lr, momentum_decay, forget_gate), weights, norm, state, chunk_size)
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {sorted(ACTIVATIONS)}; got {activation!r}.")
    if forget_toward not in ("zero", "initial"):
        raise ValueError(f"forget_toward must be 'zero' or 'initial'; got {forget_toward!r}.")
    if implementation != "auto" and implementation not in _IMPLEMENTATIONS:
        allowed = ["auto", *sorted(_IMPLEMENTATIONS)]
        raise ValueError(f"implementation must be one of {allowed}; got {implementation!r}.")

    dtype = torch.promote_types(q.dtype, torch.float32)
    if state is None:
        state = _initial_state(weights, q.shape[0], dtype=dtype)
    else:
        anchor, fast, momentum = (tuple(x.to(dtype) for x in part) for part in state[:3])
        state = NeuralMemoryState(anchor, fast, momentum, state.offset)
    if q.shape[1] == 0:
        return torch.empty_like(q), state
    form = MemoryForm(
        activation, residual, None if norm is None else (norm[0].to(dtype), norm[1].to(dtype))
    )
    run = _IMPLEMENTATIONS["chunked" if implementation == "auto" else implementation]
    tokens = (x.to(dtype) for x in (q, k, v, memory_lr, momentum_decay, forget_gate))
    rest = tuple(w.to(dtype) for w in weights) if forget_toward == "initial" else None
    with torch.autocast(q.device.type, enabled=False):  # the state is kept in float32, always
        y, state = run(*tokens, state, chunk_size=chunk_size, form=form, rest=rest)
    return y.to(q.dtype), state


def _initial_state(
    initial_weights: Sequence[Tensor], batch_size: int, *, dtype: torch.dtype = torch.float32
) -> NeuralMemoryState:
    """State of a stream that has not begun: every batch element at M_0, no momentum."""
    weights: Weights = tuple(w.to(dtype).expand(batch_size, *w.shape) for w in initial_weights)
    momentum = tuple(torch.zeros_like(w) for w in weights)
    return NeuralMemoryState(weights, weights, momentum, 0)


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gates: tuple[Tensor, Tensor, Tensor],
    weights: Weights,
    norm: tuple[Tensor, Tensor] | None,
    state: NeuralMemoryState | None,
    chunk_size: int,
) -> None:
    if q.ndim != 4:
        raise ValueError(f"q must have shape (B, T, H, D); got {tuple(q.shape)}.")
    batch, time, heads, dim = q.shape
    expected = {"k": (k, q.shape), "v": (v, q.shape)}
    for name, gate in zip(("memory_lr", "momentum_decay", "forget_gate"), gates, strict=True):
        expected[name] = (gate, torch.Size((batch, time, heads)))
    for part, tensor in zip(("gain", "bias"), norm or (), strict=norm is not None):
        expected[f"norm {part}"] = (tensor, torch.Size((heads, dim)))
    for name, (tensor, shape) in expected.items():
        if tensor.shape != shape:
            raise ValueError(
                f"{name} must have shape {tuple(shape)} to go with q {tuple(q.shape)}; "
                f"got {tuple(tensor.shape)}."
            )
    if type(chunk_size) is not int or chunk_size < 1:
        raise ValueError(f"chunk_size must be an int >= 1; got {chunk_size!r}.")
    width = dim
    for layer, w in enumerate(weights):
        last = layer == len(weights) - 1
        if w.ndim != 3 or w.shape[:2] != (heads, width) or (last and w.shape[2] != dim):
            raise ValueError(
                f"initial_weights[{layer}] must have shape ({heads}, {width}, "
                f"{dim if last else 'any'}); got {tuple(w.shape)}."
            )
        width = w.shape[2]
    if not weights:
        raise ValueError(
            "initial_weights must hold at least one (H, d_in, d_out) tensor; got none."
        )
    if state is None:
        return
    if not 0 <= state.offset < chunk_size:
        raise ValueError(
            f"state.offset must lie in [0, chunk_size) = [0, {chunk_size}); got {state.offset}: "
            "the state comes from a stream with another chunk_size."
        )
    for name in ("anchor", "weights", "momentum"):
        shapes = [tuple(s.shape) for s in getattr(state, name)]
        needed = [(batch, *w.shape) for w in weights]
        if shapes != needed:
            raise ValueError(f"state.{name} must hold tensors of shapes {needed}; got {shapes}.")
