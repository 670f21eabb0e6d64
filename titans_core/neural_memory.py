"""``NeuralMemory``: from tokens to queries, keys, values and gates, and through the memory."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from titans_core.config import NeuralMemoryConfig
from titans_core.ops import neural_memory
from titans_core.state import MemoryLayerState

# Gates before training: forget 1 % a token, carry 90 % of past surprise, take half of the largest
# step.
INITIAL_FORGET_GATE = 0.01
INITIAL_MOMENTUM_DECAY = 0.9
INITIAL_STEP = 0.5


def check_tokens(x: Tensor, dim: int) -> None:
    """Raise ValueError unless x is ``(B, T >= 1, dim)``."""
    if x.ndim != 3 or x.shape[1] == 0 or x.shape[2] != dim:
        raise ValueError(f"x must have shape (B, T >= 1, {dim}); got {tuple(x.shape)}.")


class NeuralMemory(nn.Module):
    """A layer of long-term memory that goes on learning at test time.

    ``q, k, v = SiLU(conv(x W))``, q and k of unit length; gates from x; then
    ``y = RMSNorm(M_t(q_t)) * SiLU(x W_g)``, projected back to ``dim``.

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
        self.config = config
        dim, heads, head_dim = config.dim, config.num_heads, config.head_dim
        self.qkv_projection = nn.Linear(dim, 3 * dim, bias=False)
        self.conv = nn.Conv1d(3 * dim, 3 * dim, config.conv_width, groups=3 * dim)
        self.gate_projection = nn.Linear(dim, 3 * heads)
        widths = [head_dim, *[config.expansion * head_dim] * (config.depth - 1), head_dim]
        self.initial_weights = nn.ParameterList(
            torch.empty(heads, d_in, d_out) for d_in, d_out in pairwise(widths)
        )
        self.norm_gain = nn.Parameter(torch.ones(heads, head_dim)) if config.has_norm else None
        self.norm_bias = nn.Parameter(torch.zeros(heads, head_dim)) if config.has_norm else None
        self.output_norm = nn.RMSNorm(head_dim)
        self.output_gate = nn.Linear(dim, dim, bias=False)
        self.output_projection = nn.Linear(dim, dim, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initial values; see the comments for those that are not torch's defaults."""
        for weight in self.initial_weights:
            # Under a LayerNorm the scale of the weights only sets how far one step turns them:
            # unit entries make the first step of a deep memory as stable as that of a matrix.
            nn.init.normal_(weight, std=1.0 if self.config.has_norm else weight.shape[1] ** -0.5)
        nn.init.normal_(self.gate_projection.weight, std=0.02)
        gates = (INITIAL_STEP, INITIAL_MOMENTUM_DECAY, INITIAL_FORGET_GATE)
        with torch.no_grad():
            for bias, gate in zip(self.gate_projection.bias.chunk(3), gates, strict=True):
                bias.fill_(math.log(gate / (1 - gate)))

    def forward(
        self, x: Tensor, state: MemoryLayerState | None = None
    ) -> tuple[Tensor, MemoryLayerState]:
        """Write and read each token, ``(B, T, dim) -> (B, T, dim)``, T >= 1; go on from a state.

        Raises
        ------
        ValueError
            x is not ``(B, T >= 1, dim)``, or the state is of another batch.
        """
        config = self.config
        check_tokens(x, config.dim)
        if state is not None and len(state.conv_tail) != len(x):
            raise ValueError(
                f"state belongs to a batch of {len(state.conv_tail)} streams; x has {len(x)}."
            )
        projected, conv_tail = self._convolve(
            self.qkv_projection(x), None if state is None else state.conv_tail
        )
        q, k, v = (
            part.reshape(*part.shape[:-1], config.num_heads, config.head_dim)
            for part in functional.silu(projected).chunk(3, dim=-1)
        )
        memory_lr, momentum_decay, forget_gate = self._gates(x)
        y, memory = neural_memory(
            functional.normalize(q, dim=-1),
            functional.normalize(k, dim=-1),
            v,
            memory_lr,
            momentum_decay,
            forget_gate,
            tuple(self.initial_weights),
            state=None if state is None else state.memory,
            chunk_size=config.chunk_size,
            activation=config.activation,
            residual=config.has_residual,
            forget_toward=config.forget_toward,
            norm=None if self.norm_gain is None else (self.norm_gain, cast(Tensor, self.norm_bias)),
        )
        y = self.output_norm(y).flatten(-2) * functional.silu(self.output_gate(x))
        return self.output_projection(y), MemoryLayerState(memory, conv_tail)

    def _convolve(self, x: Tensor, tail: Tensor | None) -> tuple[Tensor, Tensor]:
        """Causal depthwise convolution over time, and the inputs that the next call needs."""
        x = x.transpose(1, 2)
        reach = self.config.conv_width - 1
        x = functional.pad(x, (reach, 0)) if tail is None else torch.cat([tail, x], dim=-1)
        # A copy: a view would keep all of x alive for as long as the stream.
        return self.conv(x).transpose(1, 2), x[..., x.shape[-1] - reach :].clone()

    def _gates(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``memory_lr, momentum_decay, forget_gate``, each ``(B, T, H)``, made in log space."""
        config = self.config
        logits = self.gate_projection(x)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        step, carry, forget = logits.chunk(3, dim=-1)
        if not config.test_time_learning:
            nothing = torch.zeros_like(step)
            return nothing, nothing, nothing
        log_lr = functional.logsigmoid(step) + math.log(config.max_memory_lr / config.chunk_size)
        if config.normalize_momentum:
            log_lr = log_lr + functional.logsigmoid(-carry)  # 1 - eta
        momentum_decay = torch.exp(functional.logsigmoid(carry))
        forget_gate = -torch.expm1(-functional.softplus(forget))  # log(1 - alpha) = -softplus
        return torch.exp(log_lr), momentum_decay, forget_gate
