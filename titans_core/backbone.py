"""``Backbone``: persistent memory tokens, then a stack of blocks; no domain knowledge."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from titans_core.blocks import LongTermMemory
from titans_core.config import BackboneConfig
from titans_core.projections import check_tokens
from titans_core.state import BackboneState


@final
class Backbone(nn.Module):
    """A stack of memory-only blocks.

    A stream begins with the persistent memory tokens: every block reads them (and writes them into
    its memory) before the first real token. Their own outputs are dropped.

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
        super().__init__()
        self.config = config
        dim = config.memory.dim
        self.persistent_tokens = nn.Parameter(
            torch.randn(config.num_persistent_tokens, dim) * dim**-0.5
        )
        self.blocks = nn.ModuleList(
            LongTermMemory(config.memory, mlp_expansion=config.mlp_expansion)
            for _ in range(config.num_blocks)
        )
        self.norm = nn.RMSNorm(dim)

    def forward(
        self, x: Tensor, state: BackboneState | None = None
    ) -> tuple[Tensor, BackboneState]:
        """``(B, T, dim) -> (B, T, dim)``, T >= 1; without a state a new stream begins.

        Raises
        ------
        ValueError
            x is not ``(B, T >= 1, dim)``, or the state is of another backbone or batch.
        """
        check_tokens(x, self.config.memory.dim)
        if state is not None and len(state.blocks) != len(self.blocks):
            raise ValueError(
                f"state belongs to a backbone of {len(state.blocks)} blocks; this one has "
                f"{len(self.blocks)}."
            )
        if state is None:
            x = torch.cat([self.persistent_tokens.expand(x.shape[0], -1, -1), x], dim=1)
        new_states = []
        for i, block in enumerate(self.blocks):
            x, block_state = block(x, None if state is None else state.blocks[i])
            new_states.append(block_state)
        if state is None:
            x = x[:, self.config.num_persistent_tokens :]
        return self.norm(x), BackboneState(tuple(new_states))
