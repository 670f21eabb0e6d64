"""Blocks: small final classes with one signature, ``forward(x, state=None) -> (y, state)``."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn
from torch.nn import functional

from titans_core.config import NeuralMemoryConfig
from titans_core.neural_memory import NeuralMemory
from titans_core.projections import check_tokens
from titans_core.state import MemoryLayerState


@final
class LongTermMemory(nn.Module):
    """LMM, the memory-only block: ``x + memory(norm(x))``, then ``x + SwiGLU(norm(x))``.

    Parameters
    ----------
    config : NeuralMemoryConfig
    mlp_expansion : int
        Hidden width of the SwiGLU, in multiples of ``config.dim``.

    Notes
    -----
    Behrouz, Zhong, Mirrokni (arXiv 2501.00663), section 4.3 (LMM) and 4.4.
    """

    def __init__(self, config: NeuralMemoryConfig, *, mlp_expansion: int = 2) -> None:
        super().__init__()
        self.memory_norm = nn.RMSNorm(config.dim)
        self.memory = NeuralMemory(config)
        self.mlp_norm = nn.RMSNorm(config.dim)
        self.mlp = SwiGLU(config.dim, mlp_expansion * config.dim)

    def forward(
        self, x: Tensor, state: MemoryLayerState | None = None
    ) -> tuple[Tensor, MemoryLayerState]:
        """``(B, T, dim) -> (B, T, dim)``."""
        check_tokens(x, self.memory.config.dim)
        remembered, state = self.memory(self.memory_norm(x), state)
        x = x + remembered
        return x + self.mlp(self.mlp_norm(x)), state


@final
class SwiGLU(nn.Module):
    """``(SiLU(x W_1) * x W_2) W_3`` (Shazeer, arXiv 2002.05202)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, 2 * hidden, bias=False)
        self.contract = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., dim) -> (..., dim)``."""
        gate, value = self.expand(x).chunk(2, dim=-1)
        contracted: Tensor = self.contract(functional.silu(gate) * value)
        return contracted
