"""``Backbone``: a stack of blocks of one kind; no domain knowledge."""

from __future__ import annotations

from typing import cast, final

from torch import Tensor, nn

from titans_core.block_parts import WithPersistentTokens, prepend
from titans_core.blocks import AttentionOnly, LongTermMemory, MemoryAsGate, MemoryAsLayer
from titans_core.config import AttentionConfig, BackboneConfig, check_config
from titans_core.memory_as_context import MemoryAsContext
from titans_core.projections import check_state, check_tokens, silence
from titans_core.state import BackboneState

_BLOCKS_WITH_ATTENTION = {
    "mac": MemoryAsContext,
    "mag": MemoryAsGate,
    "mal": MemoryAsLayer,
    "attention": AttentionOnly,
}


@final
class Backbone(WithPersistentTokens):
    """A stack of blocks: memory only, or memory and attention in one of three ways.

    A stream through memory-only blocks begins with persistent memory tokens: every block reads
    them (and writes them into its memory) before the first real token. Their own outputs are
    dropped. The other blocks hold persistent tokens of their own.

    Parameters
    ----------
    config : BackboneConfig

    Examples
    --------
    >>> import torch
    >>> from titans_core import NeuralMemoryConfig
    >>> backbone = Backbone(BackboneConfig(memory=NeuralMemoryConfig(dim=8)))
    >>> x = torch.randn(1, 40, 8)
    >>> whole, _ = backbone(x)
    >>> start, state = backbone(x[:, :23])
    >>> rest, state = backbone(x[:, 23:], state)
    >>> bool(torch.allclose(torch.cat([start, rest], dim=1), whole, atol=1e-4))
    True
    """

    def __init__(self, config: BackboneConfig) -> None:
        check_config(config, BackboneConfig, "Backbone")
        dim = config.memory.dim
        super().__init__(config.prefix_length if config.block == "lmm" else None, dim)
        self.config = config
        self.blocks = nn.ModuleList(_build_block(config) for _ in range(config.num_blocks))
        self.norm = nn.RMSNorm(dim)

    def forward(
        self, x: Tensor, state: BackboneState | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, BackboneState]:
        """``(B, T, dim) -> (B, T, dim)``, T >= 1; without a state a new stream begins.

        Parameters
        ----------
        x : Tensor
        state : BackboneState, optional
            Where an earlier call of the same streams ended.
        mask : Tensor, optional
            ``(B, T)`` bool, True for a real token. Whatever stands elsewhere reaches nothing; the
            outputs there are finite and mean nothing. Streams of unequal length are padded on the
            right.

        Raises
        ------
        ValueError
            x is not ``(B >= 1, T >= 1, dim)``, the mask not ``(B, T)``, or the state is of another
            backbone or batch.
        """
        check_tokens(x, self.config.memory.dim, self.norm.weight)
        check_state(state, BackboneState)
        if state is not None and len(state.blocks) != len(self.blocks):
            raise ValueError(
                f"state belongs to a backbone of {len(state.blocks)} blocks; this one has "
                f"{len(self.blocks)}."
            )
        x = silence(x, mask)  # here, for a stack of no blocks
        begins = state is None and self.config.prefix_length > 0
        if begins:
            x, mask = prepend(self.persistent_tokens, x, mask)
        new_states = []
        for i, block in enumerate(self.blocks):
            x, block_state = block(x, None if state is None else state.blocks[i], mask)
            new_states.append(block_state)
        if begins:
            x = x[:, self.config.prefix_length :]
        return self.norm(x), BackboneState(tuple(new_states))


def _build_block(config: BackboneConfig) -> nn.Module:
    if config.block == "lmm":
        return LongTermMemory(config.memory, mlp_expansion=config.mlp_expansion)
    block = _BLOCKS_WITH_ATTENTION[config.block]
    attention = cast(AttentionConfig, config.attention)  # checked by the configuration
    return block(config.memory, attention, mlp_expansion=config.mlp_expansion)
