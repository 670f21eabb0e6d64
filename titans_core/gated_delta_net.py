"""``GatedDeltaNet``: the strong baseline, a memory with the signature of ``NeuralMemory``."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from titans_core.config import GatedDeltaConfig, check_config
from titans_core.ops.gated_delta import gated_delta
from titans_core.ops.state import full_precision
from titans_core.projections import (
    GatedOutput,
    QueryKeyValue,
    check_queries,
    check_state,
    check_tokens,
    silence,
    unit_length,
)

# Before training, as Mamba-2: alpha = exp(-rate * step), both drawn anew for every head.
INITIAL_RATE = (1.0, 16.0)
INITIAL_STEP = (1e-3, 1e-1)


class GatedDeltaState(NamedTuple):
    """State of one ``GatedDeltaNet`` layer.

    Parameters
    ----------
    weights : Tensor
        ``(B, H, D, D)``, in at least float32: the memory now.
    conv_tail : Tensor
        ``(B, conv_width - 1, 3 dim)``: the last inputs of the causal convolution.
    """

    weights: Tensor
    conv_tail: Tensor


class GatedDeltaNet(nn.Module):
    """A layer of matrix memory that replaces what a key held, and forgets.

    ``W_t = alpha_t (I - beta_t k_t k_t^T) W_{t-1} + beta_t k_t v_t^T``, with q, k, v and the output
    as in ``NeuralMemory``; ``beta = sigmoid(x W_b)``, ``alpha = exp(-exp(a) softplus(x W_a + b))``.

    Parameters
    ----------
    config : GatedDeltaConfig

    Notes
    -----
    Yang, Kautz, Hatamizadeh (arXiv 2412.06464), eq. 10 and section 3.4; the decay is that of
    Mamba-2 (Dao, Gu, arXiv 2405.21060), which calls a ``A_log`` and b ``dt_bias``.

    Examples
    --------
    >>> import torch
    >>> memory = GatedDeltaNet(GatedDeltaConfig(dim=8))
    >>> y, state = memory(torch.randn(2, 5, 8))
    >>> y_next, state = memory(torch.randn(2, 1, 8), state)
    >>> y_next.shape
    torch.Size([2, 1, 8])
    """

    def __init__(self, config: GatedDeltaConfig) -> None:
        super().__init__()
        check_config(config, GatedDeltaConfig, "GatedDeltaNet")
        self.config = config
        dim, heads = config.dim, config.num_heads
        self.qkv = QueryKeyValue(dim, heads, config.conv_width)
        self.gates = nn.Linear(dim, 2 * heads, bias=False)
        self.log_rate = nn.Parameter(torch.empty(heads))
        self.step_bias = nn.Parameter(torch.empty(heads))
        self.output = GatedOutput(dim, heads)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initial values of the decay; everything else keeps torch's defaults."""
        shortest, longest = (math.log(step) for step in INITIAL_STEP)
        with torch.no_grad():
            self.log_rate.uniform_(*INITIAL_RATE).log_()
            step = self.step_bias.uniform_(shortest, longest).exp()
            self.step_bias.copy_(step + torch.log(-torch.expm1(-step)))  # softplus, inverted

    def forward(
        self, x: Tensor, state: GatedDeltaState | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, GatedDeltaState]:
        """Write and read each token, ``(B, T, dim) -> (B, T, dim)``, T >= 1; go on from a state.

        Parameters
        ----------
        x : Tensor
        state : GatedDeltaState, optional
            Where an earlier call of the same streams ended.
        mask : Tensor, optional
            ``(B, T)`` bool, True for a real token. Whatever stands elsewhere reaches nothing,
            and leaves the memory as it was.

        Returns
        -------
        y : Tensor
        state : GatedDeltaState

        Raises
        ------
        ValueError
            x is not ``(B >= 1, T >= 1, dim)``, the mask not ``(B, T)``, or the state is of another
            batch or layer.
        """
        check_tokens(x, self.config.dim, self.gates.weight)
        check_state(state, GatedDeltaState)
        x = silence(x, mask)
        q, k, v, tail = self.qkv(x, None if state is None else state.conv_tail)
        read, weights = gated_delta(
            q,
            k,
            v,
            *self._gates(x),
            state=None if state is None else state.weights,
            write_mask=mask,
        )
        return self.output(read, x), GatedDeltaState(weights, tail)

    def fast_weights(self, state: GatedDeltaState | None, batch_size: int) -> tuple[Tensor, ...]:
        """The memory as it is now, one ``(B, H, D, D)``: what ``retrieve`` takes."""
        if state is not None:
            return (state.weights,)
        width = self.config.head_dim
        zeros = self.log_rate.new_zeros(batch_size, self.config.num_heads, width, width)
        return (zeros.to(torch.promote_types(zeros.dtype, torch.float32)),)

    def retrieve(self, queries: Tensor, weights: tuple[Tensor, ...]) -> Tensor:
        """Read without writing: ``q W``, ``(B, T, dim) -> (B, T, dim)``, any T.

        Queries are brought to unit length per head.

        Raises
        ------
        ValueError
            The queries are not ``(B, T, dim)``, or the weights of another batch.
        """
        (matrix,) = weights
        check_queries(queries, matrix.shape[0], self.config.dim)
        heads, width = self.config.num_heads, self.config.head_dim
        q = unit_length(queries.reshape(*queries.shape[:2], heads, width))
        q = q.to(torch.promote_types(q.dtype, torch.float32)).transpose(1, 2)
        with full_precision(q):
            read = q @ matrix.to(q.dtype)
        return read.transpose(1, 2).flatten(-2).to(queries.dtype)

    def _gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``beta, forget_gate``, each ``(B, T, H)``, in at least float32."""
        logits = self.gates(x)
        dtype = torch.promote_types(logits.dtype, torch.float32)
        strength, step = logits.to(dtype).chunk(2, dim=-1)
        step = functional.softplus(step + self.step_bias.to(dtype))
        # 1 - alpha by expm1: a small step loses no digits
        return torch.sigmoid(strength), -torch.expm1(-self.log_rate.to(dtype).exp() * step)
