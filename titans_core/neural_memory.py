"""``NeuralMemory``: from tokens to queries, keys, values and gates, and through the memory."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from titans_core.config import NeuralMemoryConfig, check_config
from titans_core.ops import MemoryForm, MemoryTrace, apply_memory, neural_memory
from titans_core.ops.memory_mlp import Weights
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
from titans_core.state import MemoryLayerState, MemoryRecord

# Gates before training: forget 1 % a token, carry 90 % of past surprise, take half of the largest
# step.
INITIAL_FORGET_GATE = 0.01
INITIAL_MOMENTUM_DECAY = 0.9
INITIAL_STEP = 0.5


class NeuralMemory(nn.Module):
    """A layer of long-term memory that goes on learning at test time.

    ``q, k, v = SiLU(conv(x W))``, q and k of unit length; gates from x; then
    ``y = RMSNorm(M_t(q_t)) * SiLU(x W_g + b_g)``, projected back to ``dim``.

    Parameters
    ----------
    config : NeuralMemoryConfig

    Notes
    -----
    Behrouz, Zhong, Mirrokni (arXiv 2501.00663), sections 3.1-3.3 and 4.4.

    Examples
    --------
    >>> import torch
    >>> memory = NeuralMemory(NeuralMemoryConfig(dim=8))
    >>> y, state = memory(torch.randn(2, 5, 8))
    >>> y_next, state = memory(torch.randn(2, 1, 8), state)
    >>> y_next.shape
    torch.Size([2, 1, 8])
    """

    def __init__(self, config: NeuralMemoryConfig) -> None:
        super().__init__()
        check_config(config, NeuralMemoryConfig, "NeuralMemory")
        self.config = config
        dim, heads, head_dim = config.dim, config.num_heads, config.head_dim
        self.qkv = QueryKeyValue(dim, heads, config.conv_width)
        self.gates = nn.Linear(dim, (1 + config.momentum + config.forgetting) * heads)
        widths = [head_dim, *[config.expansion * head_dim] * (config.depth - 1), head_dim]
        self.initial_weights = nn.ParameterList(
            torch.empty(heads, d_in, d_out) for d_in, d_out in pairwise(widths)
        )
        self.norm_gain = nn.Parameter(torch.ones(heads, head_dim)) if config.has_norm else None
        self.norm_bias = nn.Parameter(torch.zeros(heads, head_dim)) if config.has_norm else None
        self.output = GatedOutput(dim, heads)
        self.records: list[MemoryRecord] | None = None  # a list while ``record_memory`` watches
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initial values of M_0, its norm and the gates; the rest are modules of their own."""
        config = self.config
        for weight in self.initial_weights:
            # Under a LayerNorm the scale of the weights only sets how far one step turns them:
            # unit entries make the first step of a deep memory as stable as that of a matrix.
            nn.init.normal_(weight, std=1.0 if config.has_norm else weight.shape[1] ** -0.5)
        if self.norm_gain is not None and self.norm_bias is not None:
            nn.init.ones_(self.norm_gain)
            nn.init.zeros_(self.norm_bias)
        nn.init.normal_(self.gates.weight, std=0.02)
        gates = [INITIAL_STEP]
        gates += [INITIAL_MOMENTUM_DECAY] * config.momentum
        gates += [INITIAL_FORGET_GATE] * config.forgetting
        with torch.no_grad():
            for bias, gate in zip(self.gates.bias.chunk(len(gates)), gates, strict=True):
                bias.fill_(math.log(gate / (1 - gate)))

    def forward(
        self, x: Tensor, state: MemoryLayerState | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, MemoryLayerState]:
        """Write and read each token, ``(B, T, dim) -> (B, T, dim)``, T >= 1; go on from a state.

        Parameters
        ----------
        x : Tensor
        state : MemoryLayerState, optional
            Where an earlier call of the same streams ended.
        mask : Tensor, optional
            ``(B, T)`` bool, True for a real token. Whatever stands elsewhere reaches nothing,
            and leaves the memory as it was.

        Raises
        ------
        ValueError
            x is not ``(B >= 1, T >= 1, dim)``, the mask not ``(B, T)``, or the state is of another
            batch or layer.
        """
        config = self.config
        check_tokens(x, config.dim, self.gates.weight)
        check_state(state, MemoryLayerState)
        x = silence(x, mask)
        q, k, v, tail = self.qkv(x, None if state is None else state.conv_tail)
        memory_lr, momentum_decay, forget_gate = self._gates(x)
        trace: list[MemoryTrace] | None = None if self.records is None else []
        form = self._form()
        read, memory = neural_memory(
            q,
            k,
            v,
            memory_lr,
            momentum_decay,
            forget_gate,
            tuple(self.initial_weights),
            state=None if state is None else state.memory,
            chunk_size=config.chunk_size,
            write_mask=mask,
            activation=form.activation,
            residual=form.residual,
            norm=form.norm,
            huber_delta=form.huber_delta,
            forget_toward=config.forget_toward,
            read=config.read,
            trace=trace,
        )
        if self.records is not None and trace:
            lr, decay, forget = (
                (torch.zeros_like(memory_lr) if gate is None else gate).detach()
                for gate in (memory_lr, momentum_decay, forget_gate)
            )
            if mask is not None:  # there, nothing was written, kept or forgotten
                lr, decay, forget = (gate * mask[..., None] for gate in (lr, decay, forget))
            seen = trace[0]
            self.records.append(MemoryRecord(seen.surprise, lr, decay, forget, seen.memory_norm))
        return self.output(read, x), MemoryLayerState(memory, tail)

    def fast_weights(self, state: MemoryLayerState | None, batch_size: int) -> Weights:
        """The memory as it is now, per layer ``(B, H, d_in, d_out)``: what ``retrieve`` takes."""
        if state is None:
            return tuple(w.expand(batch_size, *w.shape) for w in self.initial_weights)
        return state.memory.weights

    def retrieve(self, queries: Tensor, weights: Weights) -> Tensor:
        """Read without writing: ``M*(q)``, ``(B, T, dim) -> (B, T, dim)``, any T.

        Queries are brought to unit length per head.

        Raises
        ------
        ValueError
            The queries are not ``(B, T, dim)``, or the weights of another batch.
        """
        check_queries(queries, weights[0].shape[0], self.config.dim)
        q = unit_length(torch.unflatten(queries, -1, (self.config.num_heads, -1)))
        q = q.to(torch.promote_types(q.dtype, torch.float32)).transpose(1, 2)
        with full_precision(q):
            read = apply_memory(tuple(w.to(q.dtype) for w in weights), q, self._form())
        return read.transpose(1, 2).flatten(-2).to(queries.dtype)

    def _form(self) -> MemoryForm:
        config = self.config
        norm = None if self.norm_gain is None else (self.norm_gain, cast(Tensor, self.norm_bias))
        return MemoryForm(config.activation, config.has_residual, norm, config.huber_delta)

    def _gates(self, x: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """``memory_lr, momentum_decay, forget_gate``, each ``(B, T, H)``, in at least float32."""
        config = self.config
        logits = self.gates(x)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        gates = torch.sigmoid(logits) if config.test_time_learning else torch.zeros_like(logits)
        memory_lr, *others = torch.split(gates, config.num_heads, dim=-1)
        memory_lr = memory_lr * (config.max_memory_lr / config.chunk_size)
        forget_gate = others.pop() if config.forgetting else None
        if forget_gate is not None:
            # Along a repeated key a step multiplies the memory by 1 - alpha - 2 theta b: with this
            # factor it cannot overshoot, whatever the gates.
            memory_lr = memory_lr * (1 - forget_gate / 2)
        momentum_decay = others.pop() if config.momentum else None
        if momentum_decay is not None and config.normalize_momentum:
            carry = logits[..., config.num_heads : 2 * config.num_heads]
            memory_lr = memory_lr * torch.sigmoid(-carry)  # 1 - eta, without its rounding
        return memory_lr, momentum_decay, forget_gate
