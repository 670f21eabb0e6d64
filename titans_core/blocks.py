"""Blocks: small final classes with one signature, ``forward(x, state=None, mask=None)``.

Every block is what its name says between a norm and a residual connection, then a SwiGLU between
the same. Memory as context stands in ``memory_as_context.py``.
"""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from titans_core.attention import SlidingWindowAttention
from titans_core.block_parts import FeedForward, Gate, WithPersistentTokens, prepend
from titans_core.config import AttentionConfig, MemoryConfig, check_config
from titans_core.memory_layer import build_memory
from titans_core.projections import check_state, check_tokens, silence
from titans_core.state import AttentionState, LayerState, MemoryAsGateState, MemoryAsLayerState


@final
class LongTermMemory(nn.Module):
    """LMM, the memory-only block: ``x + memory(norm(x))``, then ``x + SwiGLU(norm(x))``.

    Parameters
    ----------
    config : NeuralMemoryConfig or GatedDeltaConfig
    mlp_expansion : int
        Hidden width of the SwiGLU, in multiples of ``config.dim``.

    Notes
    -----
    Behrouz, Zhong, Mirrokni (arXiv 2501.00663), section 4.3 (LMM) and 4.4.
    """

    def __init__(self, config: MemoryConfig, *, mlp_expansion: int = 2) -> None:
        super().__init__()
        check_config(config, MemoryConfig, "LongTermMemory")
        self.memory_norm = nn.RMSNorm(config.dim)
        self.memory = build_memory(config)
        self.feed_forward = FeedForward(config.dim, mlp_expansion)

    def forward(
        self, x: Tensor, state: LayerState | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, LayerState]:
        """``(B, T, dim) -> (B, T, dim)``; mask ``(B, T)`` bool, True for a real token."""
        check_tokens(x, self.memory.config.dim, self.memory_norm.weight)
        x = silence(x, mask)
        remembered, state = self.memory(self.memory_norm(x), state, mask)
        x = x + remembered
        return self.feed_forward(x), state


@final
class MemoryAsGate(WithPersistentTokens):
    """MAG: attention over a window, gated by the long-term memory of the same tokens.

    ``y = SWA([P, x])``, ``o = gate(y, M([P, x]))`` behind one norm, with persistent tokens P:
    attention sees them from everywhere, the memory reads them once, when a stream begins.

    Parameters
    ----------
    memory : NeuralMemoryConfig or GatedDeltaConfig
    attention : AttentionConfig
    mlp_expansion : int
        Hidden width of the SwiGLU, in multiples of ``memory.dim``.

    Notes
    -----
    Behrouz, Zhong, Mirrokni (arXiv 2501.00663), section 4.2, eq. 26-28. For the gate see ``Gate``.
    """

    def __init__(
        self, memory: MemoryConfig, attention: AttentionConfig, *, mlp_expansion: int = 2
    ) -> None:
        check_config(memory, MemoryConfig, "MemoryAsGate")
        check_config(attention, AttentionConfig, "MemoryAsGate")
        dim = memory.dim
        super().__init__(attention.num_persistent_tokens, dim)
        self.norm = nn.RMSNorm(dim)
        self.attention = SlidingWindowAttention(dim, attention)
        self.memory = build_memory(memory)
        self.gate = Gate(dim)
        self.feed_forward = FeedForward(dim, mlp_expansion)

    def forward(
        self, x: Tensor, state: MemoryAsGateState | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, MemoryAsGateState]:
        """``(B, T, dim) -> (B, T, dim)``; mask ``(B, T)`` bool, True for a real token."""
        check_tokens(x, self.memory.config.dim, self.norm.weight)
        check_state(state, MemoryAsGateState)
        x = silence(x, mask)
        z, persistent = self.norm(x), self.norm(self.persistent_tokens)
        prefix = self.attention.heads.prefix(persistent[None])
        attended, attention = self.attention(
            z, None if state is None else state.attention, mask, prefix
        )
        if state is None:
            tokens, tokens_mask = prepend(persistent, z, mask)
            remembered, memory = self.memory(tokens, None, tokens_mask)
            remembered = remembered[:, len(persistent) :]
        else:
            remembered, memory = self.memory(z, state.memory, mask)
        x = x + self.gate(attended, remembered)
        return self.feed_forward(x), MemoryAsGateState(memory, attention)


@final
class MemoryAsLayer(WithPersistentTokens):
    """MAL: long-term memory first, then attention over a window of what it read.

    ``y = M([P, x])``, ``o = SWA(norm(y))`` behind one norm: the second norm keeps attention from
    depending on how large memories write. What the memory reads at the persistent tokens P is
    visible to attention from everywhere.

    Parameters
    ----------
    memory : NeuralMemoryConfig or GatedDeltaConfig
    attention : AttentionConfig
    mlp_expansion : int
        Hidden width of the SwiGLU, in multiples of ``memory.dim``.

    Notes
    -----
    Behrouz, Zhong, Mirrokni (arXiv 2501.00663), section 4.3, eq. 29-31.
    """

    def __init__(
        self, memory: MemoryConfig, attention: AttentionConfig, *, mlp_expansion: int = 2
    ) -> None:
        check_config(memory, MemoryConfig, "MemoryAsLayer")
        check_config(attention, AttentionConfig, "MemoryAsLayer")
        dim = memory.dim
        super().__init__(attention.num_persistent_tokens, dim)
        self.norm = nn.RMSNorm(dim)
        self.memory = build_memory(memory)
        self.attention_norm = nn.RMSNorm(dim)
        self.attention = SlidingWindowAttention(dim, attention)
        self.projection = nn.Linear(dim, dim, bias=False)
        self.feed_forward = FeedForward(dim, mlp_expansion)

    def forward(
        self, x: Tensor, state: MemoryAsLayerState | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, MemoryAsLayerState]:
        """``(B, T, dim) -> (B, T, dim)``; mask ``(B, T)`` bool, True for a real token."""
        check_tokens(x, self.memory.config.dim, self.norm.weight)
        check_state(state, MemoryAsLayerState)
        x = silence(x, mask)
        z, attention = self.norm(x), None
        if state is None:
            persistent = self.norm(self.persistent_tokens)
            tokens, tokens_mask = prepend(persistent, z, mask)
            remembered, memory = self.memory(tokens, None, tokens_mask)
            first, remembered = remembered.tensor_split([len(persistent)], dim=1)
            prefix = self.attention.heads.prefix(self.attention_norm(first))
        else:
            prefix, attention = state.prefix, state.attention
            if prefix[0].shape[2] != len(self.persistent_tokens):
                raise ValueError(
                    f"state belongs to a block with {prefix[0].shape[2]} persistent tokens; this "
                    f"one has {len(self.persistent_tokens)}."
                )
            remembered, memory = self.memory(z, state.memory, mask)
        y = silence(self.attention_norm(remembered), mask)
        attended, attention = self.attention(y, attention, mask, prefix)
        x = x + self.projection(attended)
        return self.feed_forward(x), MemoryAsLayerState(memory, prefix, attention)


@final
class AttentionOnly(WithPersistentTokens):
    """The ablation: ``MemoryAsGate`` without its memory.

    ``y = SWA([P, x])``, ``o = W norm(y)`` behind one norm.

    Parameters
    ----------
    memory : NeuralMemoryConfig or GatedDeltaConfig
        Only its ``dim`` counts.
    attention : AttentionConfig
    mlp_expansion : int
        Hidden width of the SwiGLU, in multiples of ``memory.dim``.
    """

    def __init__(
        self, memory: MemoryConfig, attention: AttentionConfig, *, mlp_expansion: int = 2
    ) -> None:
        check_config(memory, MemoryConfig, "AttentionOnly")
        check_config(attention, AttentionConfig, "AttentionOnly")
        dim = memory.dim
        super().__init__(attention.num_persistent_tokens, dim)
        self.dim = dim
        self.norm = nn.RMSNorm(dim)
        self.attention = SlidingWindowAttention(dim, attention)
        self.attended_norm = nn.RMSNorm(dim)
        self.projection = nn.Linear(dim, dim, bias=False)
        self.feed_forward = FeedForward(dim, mlp_expansion)

    def forward(
        self, x: Tensor, state: AttentionState | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, AttentionState]:
        """``(B, T, dim) -> (B, T, dim)``; mask ``(B, T)`` bool, True for a real token."""
        check_tokens(x, self.dim, self.norm.weight)
        check_state(state, AttentionState)
        x = silence(x, mask)
        prefix = self.attention.heads.prefix(self.norm(self.persistent_tokens)[None])
        attended, state = self.attention(self.norm(x), state, mask, prefix)
        x = x + self.projection(self.attended_norm(attended))
        return self.feed_forward(x), state
