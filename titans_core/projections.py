"""What every memory layer does around its memory: from tokens to q, k, v, and from reads to tokens."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional


def check_tokens(x: Tensor, dim: int) -> None:
    """Raise ValueError unless x is ``(B, T >= 1, dim)``."""
    if x.ndim != 3 or x.shape[1] == 0 or x.shape[2] != dim:
        raise ValueError(f"x must have shape (B, T >= 1, {dim}); got {tuple(x.shape)}.")


def silence(x: Tensor, mask: Tensor | None) -> Tensor:
    """The tokens x ``(B, T, dim)`` with zeros where the mask ``(B, T)`` is False.

    Raises
    ------
    ValueError
        The mask is not a bool tensor of shape ``(B, T)``.
    """
    if mask is None:
        return x
    if mask.dtype != torch.bool or mask.shape != x.shape[:2]:
        raise ValueError(
            f"mask must be a bool tensor of shape {tuple(x.shape[:2])}; "
            f"got {mask.dtype} of shape {tuple(mask.shape)}."
        )
    return x.masked_fill(~mask[..., None], 0)


@final
class QueryKeyValue(nn.Module):
    """``q, k, v = SiLU(conv(x W))`` per head, q and k of unit length (paper, section 4.4).

    Parameters
    ----------
    dim, num_heads : int
        Width of the tokens, and how many heads share it.
    conv_width : int
        Taps of the causal depthwise convolution over time; 1 leaves it out.
    """

    def __init__(self, dim: int, num_heads: int, conv_width: int) -> None:
        super().__init__()
        self.num_heads, self.reach = num_heads, conv_width - 1
        self.projection = nn.Linear(dim, 3 * dim, bias=False)
        self.conv = nn.Conv1d(3 * dim, 3 * dim, conv_width, groups=3 * dim) if self.reach else None

    def forward(self, x: Tensor, tail: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``(B, T, dim)`` -> q, k, v ``(B, T, H, D)`` and the tail ``(B, 3 dim, conv_width - 1)``.

        The tail holds the inputs of the convolution that the next call of the stream needs.

        Raises
        ------
        ValueError
            The tail is of another batch.
        """
        if tail is not None and len(tail) != len(x):
            raise ValueError(f"state belongs to a batch of {len(tail)} streams; x has {len(x)}.")
        projected = self.projection(x)
        if self.conv is None:
            new_tail = projected.new_empty(len(x), projected.shape[-1], 0)
        else:
            projected = projected.transpose(1, 2)
            if tail is None:
                projected = functional.pad(projected, (self.reach, 0))
            else:
                projected = torch.cat([tail, projected], dim=-1)
            # A copy: a view would keep all of the tokens alive for as long as the stream.
            new_tail = projected[..., projected.shape[-1] - self.reach :].clone()
            projected = self.conv(projected).transpose(1, 2)
        q, k, v = functional.silu(projected).unflatten(-1, (3, self.num_heads, -1)).unbind(2)
        return functional.normalize(q, dim=-1), functional.normalize(k, dim=-1), v, new_tail


@final
class GatedOutput(nn.Module):
    """``y = (RMSNorm(read) * SiLU(x W_g)) W_o``: reads per head, back to tokens.

    Parameters
    ----------
    dim, num_heads : int
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(dim // num_heads)
        self.gate = nn.Linear(dim, dim, bias=False)
        self.projection = nn.Linear(dim, dim, bias=False)

    def forward(self, read: Tensor, x: Tensor) -> Tensor:
        """``(B, T, H, D)`` and ``(B, T, dim)`` -> ``(B, T, dim)``."""
        gated = self.norm(read).flatten(-2) * functional.silu(self.gate(x))
        projected: Tensor = self.projection(gated)
        return projected
