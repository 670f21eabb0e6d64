"""What blocks are made of beside memory and attention."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional


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


@final
class FeedForward(nn.Module):
    """``x + SwiGLU(RMSNorm(x))``, with which every block ends.

    Parameters
    ----------
    dim : int
    expansion : int
        Hidden width, in multiples of ``dim``.

    Raises
    ------
    ValueError
        The expansion is not an int >= 1.
    """

    def __init__(self, dim: int, expansion: int) -> None:
        super().__init__()
        if type(expansion) is not int or expansion < 1:
            raise ValueError(f"`mlp_expansion` must be an int >= 1; got {expansion!r}.")
        self.norm = nn.RMSNorm(dim)
        self.swiglu = SwiGLU(dim, expansion * dim)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., dim) -> (..., dim)``."""
        forwarded: Tensor = self.swiglu(self.norm(x))
        return x + forwarded


@final
class Gate(nn.Module):
    """``o = (RMSNorm(m) * sigmoid(RMSNorm(y))) W``: the memory, gated by what attention found.

    Notes
    -----
    The paper (section 4.2) normalises both with learned vectors "followed by a non-linearity" and
    leaves open which and where. A gate that starts half open passes what the memory says on from
    the first step; with ``y * SiLU(m)`` or ``SiLU(y) * m`` memory as context did not learn the
    associations of ``benchmarks/recall.py`` in trials of 600 to 1000 steps.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attended_norm = nn.RMSNorm(dim)
        self.remembered_norm = nn.RMSNorm(dim)
        self.projection = nn.Linear(dim, dim, bias=False)

    def forward(self, attended: Tensor, remembered: Tensor) -> Tensor:
        """``(..., dim)`` twice ``-> (..., dim)``."""
        gate = torch.sigmoid(self.attended_norm(attended))
        projected: Tensor = self.projection(self.remembered_norm(remembered) * gate)
        return projected


class WithPersistentTokens(nn.Module):
    """A module with learned tokens ``(number, dim)`` that no input changes; None: without."""

    def __init__(self, number: int | None, dim: int) -> None:
        super().__init__()
        if number is not None:
            self.persistent_tokens = nn.Parameter(torch.empty(number, dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initial values of what belongs to this module itself: the persistent tokens."""
        if hasattr(self, "persistent_tokens"):
            tokens = self.persistent_tokens
            nn.init.normal_(tokens, std=tokens.shape[1] ** -0.5)


def prepend(tokens: Tensor, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Tokens ``(P, dim)`` before x ``(B, T, dim)``, and a mask that has them, too."""
    x = torch.cat([tokens.expand(x.shape[0], -1, -1), x], dim=1)
    return x, None if mask is None else functional.pad(mask, (len(tokens), 0), value=True)
