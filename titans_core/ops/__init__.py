"""Pure functions on tensors: the neural memory operation and its visible dispatcher.

The equations, symbols and shapes are in ``ops/README.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from titans_core.ops.checks import check_choices, check_tensors
from titans_core.ops.chunked import neural_memory_chunked
from titans_core.ops.gated_delta import gated_delta
from titans_core.ops.memory_mlp import MemoryForm, Weights, apply_memory
from titans_core.ops.reference import neural_memory_reference
from titans_core.ops.state import MemoryTrace, NeuralMemoryState, full_precision
from titans_core.ops.step import neural_memory_step
from titans_core.ops.triton_support import why_not_triton

__all__ = [
    "MemoryForm",
    "MemoryTrace",
    "NeuralMemoryState",
    "apply_memory",
    "gated_delta",
    "neural_memory",
]


def _neural_memory_triton(*args: Any, **options: Any) -> tuple[Tensor, NeuralMemoryState]:
    """Import triton only where its kernels are wanted."""
    from titans_core.ops.chunked_triton import neural_memory_triton

    del options["read"], options["trace"]  # see ``why_not_triton``
    return neural_memory_triton(*args, **options)


_IMPLEMENTATIONS: dict[str, Callable[..., tuple[Tensor, NeuralMemoryState]]] = {
    "reference": neural_memory_reference,
    "chunked": neural_memory_chunked,
    "step": neural_memory_step,
    "triton": _neural_memory_triton,
}


def neural_memory(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    memory_lr: Tensor,
    momentum_decay: Tensor | None,
    forget_gate: Tensor | None,
    initial_weights: Sequence[Tensor],
    *,
    state: NeuralMemoryState | None = None,
    chunk_size: int,
    write_mask: Tensor | None = None,
    activation: str = "silu",
    residual: bool = False,
    norm: tuple[Tensor, Tensor] | None = None,
    huber_delta: float | None = None,
    forget_toward: str = "zero",
    read: str = "inclusive",
    trace: list[MemoryTrace] | None = None,
    implementation: str = "auto",
) -> tuple[Tensor, NeuralMemoryState]:
    """Write each token into the memory by surprise, momentum and forgetting, then read it.

    ``S_t = eta_t S_{t-1} - theta_t grad loss(M_anchor(k_t), v_t)``,
    ``M_t = (1 - alpha_t) M_{t-1} + S_t``, ``y_t = M_t(q_t)``. (With ``forget_toward="initial"``,
    ``M_t = (1 - alpha_t) M_{t-1} + alpha_t M_0 + S_t``.)

    Parameters
    ----------
    q, k, v : Tensor
        Queries, keys and values, ``(B, T, H, D)``; T may be 0.
    memory_lr, momentum_decay, forget_gate : Tensor
        theta >= 0, eta in [0, 1] and alpha in [0, 1], ``(B, T, H)``. Ranges are not checked (that
        would stall a GPU). ``momentum_decay=None`` is a memory without momentum (and without its
        cost); ``forget_gate=None`` one that forgets nothing.
    initial_weights : sequence of Tensor
        M_0, one ``(H, d_in, d_out)`` per layer, from D to D; shared by the batch. Where a state is
        given, the stream does not begin with them; forgetting may still lead to them.
    state : NeuralMemoryState, optional
        Where an earlier call of the same stream ended. Any cut of a stream equals no cut.
    chunk_size : int
        Tokens that share one anchor. Part of the maths, not a tiling knob; 1 is the paper's
        sequential rule.
    write_mask : Tensor, optional
        ``(B, T)`` bool, True for a real token. A masked token neither writes nor decays nor moves
        momentum, whatever its k, v and gates hold (NaN included); its query still reads. It
        keeps its place in the chunk, so lengths are masks that end early: padding goes to the
        right.
    activation : {"silu", "gelu"}
        Between the memory's layers.
    residual : bool
        Add the memory's input to its output.
    norm : tuple of Tensor, optional
        Gain and bias ``(H, D)`` of a LayerNorm on the memory's output (before the residual).
    huber_delta : float, optional
        Measure surprise by the Huber loss: the error of a channel counts no more than this much
        in the gradient, so that an outlier writes little; None is the squared error (eq. 12).
    forget_toward : {"zero", "initial"}
        What the memory forgets to: nothing (paper, eq. 13), or ``initial_weights``.
    read : {"inclusive", "chunk_start"}
        What a query reads: the memory right after its own token was written, or the anchor, as
        the memory was when the chunk began (cheaper, and less to read).
    trace : list of MemoryTrace, optional
        The norms of surprise and anchor at every token are appended to it, detached.
    implementation : {"auto", "reference", "chunked", "step", "triton"}
        "auto" takes what should be the fastest: "step" for one token under ``torch.no_grad()``;
        on a GPU "triton", where it has a kernel; else "chunked". The last two can be differentiated
        once. All are exact, but for bfloat16: of such q, k and v the kernels multiply weights and
        errors in bfloat16, too, where the others multiply in float32.

    Returns
    -------
    y : Tensor
        ``(B, T, H, D)``, in the dtype of q.
    state : NeuralMemoryState
        In at least float32, whatever the dtype of the inputs.

    Raises
    ------
    ValueError
        A shape, the chunk size, the activation or the implementation is not one of the above;
        or the implementation that was asked for by name has nothing for these inputs.

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
    check_choices(
        chunk_size=chunk_size,
        activation=activation,
        huber_delta=huber_delta,
        forget_toward=forget_toward,
        read=read,
        implementation=implementation,
        implementations=_IMPLEMENTATIONS,
    )
    if forget_gate is None:
        forget_gate = torch.zeros_like(memory_lr)
    gates = {"memory_lr": memory_lr, "momentum_decay": momentum_decay, "forget_gate": forget_gate}
    check_tensors(q, k, v, gates, weights, norm, write_mask, state, chunk_size)

    implementation = _choose(implementation, q, weights, read, trace is not None)
    if not q.numel():  # no memories, or no tokens
        implementation = "reference"
    if state is None:
        state = _initial_state(weights, q.shape[0], momentum_decay is not None)
    dtype = torch.promote_types(q.dtype, torch.float32)
    anchor, fast, momentum, offset = state
    state = NeuralMemoryState(
        _cast(anchor, dtype), _cast(fast, dtype), _cast(momentum, dtype), offset
    )
    if q.shape[1] == 0:
        return torch.empty_like(q), state

    if write_mask is not None:  # nothing of a masked token may reach a product
        silent = ~write_mask[..., None]
        k, v = (x.masked_fill(silent[..., None], 0) for x in (k, v))
        memory_lr, forget_gate = (x.masked_fill(silent, 0) for x in (memory_lr, forget_gate))
        momentum_decay = None if momentum_decay is None else momentum_decay.masked_fill(silent, 1)
    tokens = _cast((q, k, v), q.dtype if implementation == "triton" else dtype)
    memory_lr, forget_gate = _cast((memory_lr, forget_gate), dtype)
    decays = (None if momentum_decay is None else momentum_decay.to(dtype), forget_gate)
    form = MemoryForm(
        activation, residual, None if norm is None else _cast(norm, dtype), huber_delta
    )
    with full_precision(q):
        y, state = _IMPLEMENTATIONS[implementation](
            *tokens,
            memory_lr,
            *decays,
            state,
            chunk_size=chunk_size,
            form=form,
            rest=_cast(weights, dtype) if forget_toward == "initial" else None,
            write_mask=write_mask,
            read=read,
            trace=trace,
        )
    return y.to(q.dtype), state


def _choose(implementation: str, q: Tensor, weights: Weights, read: str, traced: bool) -> str:
    """Resolve "auto"; raise ValueError where what was asked for has nothing for these inputs."""
    one_step = q.shape[1] == 1 and not torch.is_grad_enabled()
    if implementation == "step" and not one_step:
        raise ValueError(
            "implementation 'step' takes one token, under torch.no_grad(); "
            f"got {q.shape[1]} tokens, gradients {'on' if torch.is_grad_enabled() else 'off'}."
        )
    if implementation == "triton":
        why_not = why_not_triton(q, weights, read, traced)
        if why_not is not None:
            raise ValueError(f"implementation 'triton' cannot be taken: {why_not}. Take 'auto'.")
    if implementation != "auto":
        return implementation
    if one_step:
        return "step"
    fused = q.is_cuda and why_not_triton(q, weights, read, traced) is None
    return "triton" if fused else "chunked"


def _cast(tensors: Weights, dtype: torch.dtype) -> Any:
    """The tensors in that dtype; most often they are already (and each call would cost)."""
    return tuple(x if x.dtype == dtype else x.to(dtype) for x in tensors)


def _initial_state(
    initial_weights: Weights, batch_size: int, with_momentum: bool
) -> NeuralMemoryState:
    """State of a stream that has not begun: every batch element at M_0, no momentum."""
    # Copies: a view of M_0 would follow an optimiser's step in place.
    weights = tuple(w.repeat(batch_size, 1, 1, 1) for w in initial_weights)
    momentum = tuple(torch.zeros_like(w) for w in weights) if with_momentum else ()
    return NeuralMemoryState(weights, weights, momentum, 0)
