"""``MemoryAsContext``: segments that see what the memory held when they began."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn

from titans_core.attention import SegmentAttention, check_batch
from titans_core.block_parts import FeedForward, Gate, WithPersistentTokens
from titans_core.config import AttentionConfig, MemoryConfig, check_config
from titans_core.memory_layer import build_memory
from titans_core.projections import check_state, check_tokens, silence
from titans_core.state import MemoryAsContextState


@final
class MemoryAsContext(WithPersistentTokens):
    """MAC: attention inside a segment, to its tokens and to what the memory held before it.

    For each segment S of ``attention.window`` tokens, behind one norm and with persistent tokens P:

    - ``h = M*(S W_Q + b_Q)``, read from the memory as it was when the segment began,
    - ``y = S + Attn([P, h, S])`` at the tokens of S,
    - y is written into the memory, and ``o = gate(y, M(y))``.

    Parameters
    ----------
    memory : NeuralMemoryConfig or GatedDeltaConfig
    attention : AttentionConfig
    mlp_expansion : int
        Hidden width of the SwiGLU, in multiples of ``memory.dim``.

    Notes
    -----
    Behrouz, Zhong, Mirrokni (arXiv 2501.00663), section 4.1, eq. 21-25, which leave out residual
    connections, as that of y. Taken literally, tokens see later ones in two ways, so
    ``causal=True`` shows token j only the ``h_i`` with ``i <= j``, and reads M for each token
    right after its own write: the output of the memory layer.
    ``causal=False`` is the literal form: the whole segment is visible, and M is read, with W_Q
    once more, when all of it was written. The output gate of the memory layer then does nothing.
    A trailing segment that is not full is closed at the end of such a call.
    """

    def __init__(
        self, memory: MemoryConfig, attention: AttentionConfig, *, mlp_expansion: int = 2
    ) -> None:
        check_config(memory, MemoryConfig, "MemoryAsContext")
        check_config(attention, AttentionConfig, "MemoryAsContext")
        dim = memory.dim
        super().__init__(attention.num_persistent_tokens, dim)
        self.norm = nn.RMSNorm(dim)
        self.query = nn.Linear(dim, dim)
        self.attention = SegmentAttention(dim, attention)
        self.memory = build_memory(memory)
        self.gate = Gate(dim)
        self.feed_forward = FeedForward(dim, mlp_expansion)

    def forward(
        self, x: Tensor, state: MemoryAsContextState | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, MemoryAsContextState]:
        """``(B, T, dim) -> (B, T, dim)``; mask ``(B, T)`` bool, True for a real token."""
        check_tokens(x, self.memory.config.dim, self.norm.weight)
        check_state(state, MemoryAsContextState)
        x = silence(x, mask)
        z = self.norm(x)
        prefix = self.attention.heads.prefix(self.norm(self.persistent_tokens)[None])
        window, causal = self.attention.config.window, self.attention.config.causal
        memory: Any = None  # a layer state from the first piece on
        if state is None:
            # Copies: a state must not change with the parameters that the memory starts from.
            start = tuple(w.clone() for w in self.memory.fast_weights(None, x.shape[0]))
            segment = self.attention.begin(x)
        else:
            memory, start, segment = state
            check_batch(segment.keys, x.shape[0])

        gated, position = [], 0
        while position < x.shape[1]:
            stop = position + window - segment.length
            piece = z[:, position:stop]
            piece_mask = None if mask is None else mask[:, position:stop]
            position = stop
            retrieved = self.memory.retrieve(self.query(piece), start)
            attended, segment = self.attention(piece, retrieved, segment, piece_mask, prefix)
            y = piece + attended
            remembered, memory = self.memory(y, memory, piece_mask)
            if segment.length == 0:  # the next one begins
                start = self.memory.fast_weights(memory, x.shape[0])
            if not causal:
                remembered = self.memory.retrieve(self.query(y), start)
            gated.append(self.gate(y, remembered))
        x = x + torch.cat(gated, dim=1)
        return self.feed_forward(x), MemoryAsContextState(memory, start, segment)
