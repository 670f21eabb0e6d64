"""What every memory layer does around its memory: tokens to q, k, v, and reads to tokens."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional


def check_tokens(x: Tensor, dim: int, like: Tensor) -> None:
    """Raise ValueError unless x is ``(B >= 1, T >= 1, dim)``, in the precision of a parameter."""
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a tensor; got a {type(x).__name__}.")
    if not x.is_floating_point():
        raise ValueError(f"x must hold embedded tokens, of {like.dtype}; got {x.dtype}.")
    if x.dtype != like.dtype and not torch.is_autocast_enabled(x.device.type):
        raise ValueError(
            f"x must be of {like.dtype}, as the module's parameters are; got {x.dtype}. Convert "
            "one of them with `.to`, or run under torch.autocast."
        )
    if x.ndim != 3 or 0 in x.shape[:2] or x.shape[2] != dim:
        raise ValueError(f"x must have shape (B >= 1, T >= 1, {dim}); got {tuple(x.shape)}.")


def check_queries(queries: Tensor, batch: int, dim: int) -> None:
    """Raise ValueError unless queries are ``(batch, T, dim)``."""
    if queries.ndim != 3 or queries.shape[0] != batch or queries.shape[2] != dim:
        raise ValueError(
            f"queries must have shape ({batch}, T, {dim}); got {tuple(queries.shape)}."
        )


def check_state(state: object, kind: type) -> None:
    """Raise ValueError for the state of another kind of module."""
    if state is not None and not isinstance(state, kind):
        raise ValueError(f"state must be a {kind.__name__}; got a {type(state).__name__}.")


def unit_length(x: Tensor) -> Tensor:
    """The vectors of the last axis at length 1; a zero stays zero, in half precision, too."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return functional.normalize(wide, dim=-1).to(x.dtype)


def _describe(mask: object) -> str:
    if isinstance(mask, Tensor):
        return f"{mask.dtype} of shape {tuple(mask.shape)}"
    return f"a {type(mask).__name__}"


def silence(x: Tensor, mask: Tensor | None) -> Tensor:
    """The tokens x ``(B, T, dim)`` with zeros where the mask ``(B, T)`` is False.

    Raises
    ------
    ValueError
        The mask is not a bool tensor of shape ``(B, T)``.
    """
    if mask is None:
        return x
    if getattr(mask, "dtype", None) is not torch.bool or mask.shape != x.shape[:2]:
        raise ValueError(
            f"mask must be a bool tensor of shape {tuple(x.shape[:2])}; got {_describe(mask)}."
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
        # A causal depthwise convolution, one row per tap, the last on the token itself. Written out
        # as shifts: faster than torch's convolution on a CPU.
        self.taps = nn.Parameter(torch.empty(conv_width, 3 * dim)) if self.reach else None
        self.bias = nn.Parameter(torch.empty(3 * dim)) if self.reach else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initial values of the convolution; the projection is a module of its own."""
        bound = (self.reach + 1) ** -0.5
        for parameter in (p for p in (self.taps, self.bias) if p is not None):
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, x: Tensor, tail: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``(B, T, dim)`` -> q, k, v ``(B, T, H, D)`` and the tail ``(B, conv_width - 1, 3 dim)``.

        The tail holds the inputs of the convolution that the next call of the stream needs.

        Raises
        ------
        ValueError
            The tail is of another batch.
        """
        if tail is not None and tail.shape[0] != x.shape[0]:
            raise ValueError(
                f"state belongs to a batch of {tail.shape[0]} streams; x has {x.shape[0]}."
            )
        if tail is not None and tail.shape[1:] != (self.reach, 3 * x.shape[-1]):
            raise ValueError(
                f"state belongs to a layer with conv_width={tail.shape[1] + 1} and "
                f"dim={tail.shape[2] // 3}; this one has conv_width={self.reach + 1} and "
                f"dim={x.shape[-1]}."
            )
        projected = self.projection(x)
        if self.taps is None or self.bias is None:
            new_tail = projected[:, :0].clone()
        else:
            if tail is None:
                tail = projected.new_zeros(x.shape[0], self.reach, projected.shape[-1])
            padded = torch.cat([tail, projected], dim=1)
            # A copy: a view would keep all of the tokens alive for as long as the stream.
            new_tail = padded[:, padded.shape[1] - self.reach :].clone()
            time = projected.shape[1]
            first, *others = self.taps.unbind()
            projected = torch.addcmul(self.bias, padded[:, :time], first)
            for i, tap in enumerate(others, start=1):
                projected = torch.addcmul(projected, padded[:, i : i + time], tap)
        qkv = functional.silu(projected).view(*x.shape[:2], 3, self.num_heads, -1)
        q, k = unit_length(qkv[:, :, :2]).unbind(2)
        return q, k, qkv[:, :, 2], new_tail


@final
class GatedOutput(nn.Module):
    """``y = (RMSNorm(read) * SiLU(x W_g + b_g)) W_o``: reads per head, back to tokens.

    Parameters
    ----------
    dim, num_heads : int

    Notes
    -----
    The gate begins a little open: at a token of zeros it would else be exactly closed, the norms of
    all blocks after stand at zero, where their slope is 1 / sqrt(eps), and gradients grow by that
    factor from block to block.
    """

    _INITIAL_BIAS = 0.1

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(dim // num_heads)
        self.gate = nn.Linear(dim, dim, bias=False)
        self.gate_bias = nn.Parameter(torch.empty(dim))
        self.projection = nn.Linear(dim, dim, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initial value of the gate's bias; norm and projections are modules of their own."""
        nn.init.constant_(self.gate_bias, self._INITIAL_BIAS)

    def forward(self, read: Tensor, x: Tensor) -> Tensor:
        """``(B, T, H, D)`` and ``(B, T, dim)`` -> ``(B, T, dim)``."""
        # Under autocast the reads are narrower than the norm's gain.
        normed = self.norm(read.to(self.norm.weight.dtype)).flatten(-2)
        gated = normed * functional.silu(self.gate(x) + self.gate_bias)
        projected: Tensor = self.projection(gated)
        return projected
