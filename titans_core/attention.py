"""Attention with rotary positions and persistent memory tokens, over windows and segments.

Built on torch's ``scaled_dot_product_attention``: FlexAttention runs on a CPU only when compiled,
and blocks of a window's length already make the cost linear.

Positions are rotations (Su et al., arXiv 2104.09864) of the first half of every head's channels.
Persistent keys are zero in that half, so that a persistent token looks the same from everywhere;
with all channels rotated it would lie at a position, and recede while a stream goes on. Angles
belong to places within one piece of the sequence, never to places in the stream: they do not grow.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from titans_core.config import AttentionConfig
from titans_core.state import AttentionState, OpenSegment

ROTARY_BASE = 10_000.0

Prefix = tuple[Tensor, Tensor]
"""Keys and values ``(B or 1, H, P, D)`` of tokens that are visible from everywhere."""


@final
class SlidingWindowAttention(nn.Module):
    """Every token sees itself, the ``window - 1`` tokens before it, and the prefix.

    ``y_t = sum_j softmax_j(q_t . k_j / sqrt(D)) v_j``. With ``causal=False`` a call is one fully
    observed window: tokens see ``window - 1`` tokens on both sides, nothing is carried on.

    Parameters
    ----------
    dim : int
    config : AttentionConfig

    Notes
    -----
    The heads come out side by side: an output projection is the block's business. The sequence is
    cut into pieces no longer than the window, each beside the keys that it can reach, so that cost
    and memory are linear in the number of tokens.

    Examples
    --------
    >>> attention = SlidingWindowAttention(8, AttentionConfig(num_heads=2, window=3))
    >>> x = torch.randn(1, 10, 8)
    >>> whole, _ = attention(x)
    >>> start, state = attention(x[:, :7])
    >>> rest, state = attention(x[:, 7:], state)
    >>> bool(torch.allclose(torch.cat([start, rest], dim=1), whole, atol=1e-5))
    True
    """

    def __init__(self, dim: int, config: AttentionConfig) -> None:
        super().__init__()
        self.config = config
        self.heads = AttentionHeads(dim, config)

    def forward(
        self,
        x: Tensor,
        state: AttentionState | None = None,
        mask: Tensor | None = None,
        prefix: Prefix | None = None,
    ) -> tuple[Tensor, AttentionState]:
        """``(B, T, dim) -> (B, T, dim)``, T >= 1.

        Parameters
        ----------
        x : Tensor
            Finite where the mask is False, too.
        state : AttentionState, optional
            Where an earlier call of the same streams ended.
        mask : Tensor, optional
            ``(B, T)`` bool; no other token sees one where it is False.
        prefix : tuple of Tensor, optional
            Made by ``heads.prefix``.

        Raises
        ------
        ValueError
            The state is of another batch or window.
        """
        window, reach = self.config.window, self.config.window - 1
        batch, time = x.shape[:2]
        carried = reach if self.config.causal else 0
        state = AttentionState(*self.heads.nothing(x, carried)) if state is None else state
        check_batch(state.keys, batch)
        self.heads.check(state.keys)
        if state.keys.shape[2] != carried:
            raise ValueError(
                f"state belongs to attention that carries {state.keys.shape[2]} tokens on; this "
                f"one, with window={window} and causal={self.config.causal}, carries {carried}."
            )
        q = self.heads.queries(x)
        new_keys, new_values = self.heads.keys_values(x)
        keys = torch.cat([state.keys.to(new_keys.dtype), new_keys], dim=2)
        values = torch.cat([state.values.to(new_keys.dtype), new_values], dim=2)
        present = x.new_ones(batch, time, dtype=torch.bool) if mask is None else mask
        present = torch.cat([state.present, present], dim=1)
        # Copies: views would keep all of the tokens alive for as long as the stream.
        state = AttentionState(
            keys[:, :, time:].clone(), values[:, :, time:].clone(), present[:, time:].clone()
        )

        pieces = -(-time // window)
        length = -(-time // pieces)
        rest = pieces * length - time
        before, after = (0, rest) if self.config.causal else (reach, rest + reach)
        span = length + (reach if self.config.causal else 2 * reach)  # keys beside one piece

        def beside(part: Tensor) -> Tensor:
            """``(B, H, time, D) -> (B pieces, H, span, D)``."""
            part = functional.pad(part, (0, 0, before, after))
            return part.unfold(2, span, length).permute(0, 2, 1, 4, 3).flatten(0, 1)

        keys, values = beside(keys), beside(values)
        q = torch.unflatten(functional.pad(q, (0, 0, 0, rest)), 2, (pieces, length))
        q = q.transpose(1, 2).flatten(0, 1)
        present = functional.pad(present, (before, after)).unfold(1, span, length).flatten(0, 1)
        places = torch.arange(span, device=x.device)
        # From key place to the query at the same place of its piece, which sits `reach` further on.
        distance = places - places[:length, None]
        visible = (distance >= 0) & (distance <= span - length)
        # A token always sees itself: no row is ever empty. A masked one, being zero, sees nothing.
        visible = visible & present[:, None] | (distance == reach)
        y = _attend(
            rotate(q, places[:length] + reach),
            rotate(keys, places),
            values,
            visible[:, None],
            prefix,
            pieces,
        )
        y = torch.unflatten(y, 0, (batch, pieces)).transpose(2, 3).flatten(1, 2)[:, :time]
        return y.flatten(-2), state


@final
class SegmentAttention(nn.Module):
    """Attention of memory as context (MAC): a segment sees ``[prefix, retrieved, itself]``.

    Parameters
    ----------
    dim : int
    config : AttentionConfig
        ``window`` is the length of a segment.

    Notes
    -----
    Causal, token j sees the prefix and, up to its own place, the retrieved tokens and those of
    the segment (which share places); not causal, all of them.
    """

    def __init__(self, dim: int, config: AttentionConfig) -> None:
        super().__init__()
        self.config = config
        self.heads = AttentionHeads(dim, config)

    def forward(
        self,
        x: Tensor,
        retrieved: Tensor,
        segment: OpenSegment,
        mask: Tensor | None = None,
        prefix: Prefix | None = None,
    ) -> tuple[Tensor, OpenSegment]:
        """Take n tokens of one segment, ``(B, n, dim) -> (B, n, dim)``.

        Parameters
        ----------
        x, retrieved : Tensor
            Finite where the mask is False, too; n at most as many as the segment still lacks.
        segment : OpenSegment
            What the segment holds already; ``begin(x)`` for nothing.
        mask : Tensor, optional
            ``(B, n)`` bool; no other token sees one where it is False, nor what it retrieved.
        prefix : tuple of Tensor, optional
            Made by ``heads.prefix``.

        Returns
        -------
        y : Tensor
        segment : OpenSegment
            Empty again if it is full now; without ``causal`` a segment never stays open.

        Raises
        ------
        ValueError
            The segment is of another batch or length.
        """
        batch, time = x.shape[:2]
        window, causal, first = self.config.window, self.config.causal, segment.length
        check_batch(segment.keys, batch)
        self.heads.check(segment.keys)
        if segment.keys.shape[3] != (window if causal else 0):
            raise ValueError(
                f"state belongs to segments of {segment.keys.shape[3]} tokens kept open; these, "
                f"with window={window} and causal={causal}, keep {window if causal else 0}."
            )
        new = [self.heads.keys_values(tokens) for tokens in (retrieved, x)]
        keys, values = (
            torch.cat([old[..., :first, :].to(parts[0].dtype), torch.stack(parts, dim=2)], dim=3)
            for old, parts in zip(segment[:2], zip(*new, strict=True), strict=True)
        )
        present = x.new_ones(batch, time, dtype=torch.bool) if mask is None else mask
        present = torch.cat([segment.present[:, :first], present], dim=1)

        places = torch.arange(first + time, device=x.device)
        distance = places - places[first:, None]
        visible = distance <= 0 if causal else torch.ones_like(distance, dtype=torch.bool)
        visible = visible & present[:, None]
        visible = torch.cat([visible, visible | (distance == 0)], dim=2)  # itself, always
        y = _attend(
            rotate(self.heads.queries(x), places[first:]),
            rotate(keys, places).flatten(2, 3),
            values.flatten(2, 3),
            visible[:, None],
            prefix,
        )
        y = y.transpose(1, 2).flatten(-2)
        missing = window - first - time
        if missing == 0 or not causal:
            return y, self.begin(x)
        return y, OpenSegment(
            functional.pad(keys, (0, 0, 0, missing)),
            functional.pad(values, (0, 0, 0, missing)),
            functional.pad(present, (0, missing)),
            first + time,
        )

    def begin(self, x: Tensor) -> OpenSegment:
        """A segment without tokens, for a batch like x ``(B, T, dim)``."""
        keys, values, present = self.heads.nothing(x, self.config.window * self.config.causal)
        keys, values = (part[:, :, None].expand(-1, -1, 2, -1, -1) for part in (keys, values))
        return OpenSegment(keys.contiguous(), values.contiguous(), present, 0)


@final
class AttentionHeads(nn.Module):
    """Queries, keys and values per head, without biases: a token of zeros adds nothing.

    Parameters
    ----------
    dim : int
    config : AttentionConfig
    """

    def __init__(self, dim: int, config: AttentionConfig) -> None:
        super().__init__()
        self.num_heads, self.head_dim = config.num_heads, config.head_dim(dim)
        self.query = nn.Linear(dim, dim, bias=False)
        self.key_value = nn.Linear(dim, 2 * dim, bias=False)

    def queries(self, x: Tensor) -> Tensor:
        """``(B, T, dim) -> (B, H, T, D)``, not rotated."""
        return torch.unflatten(self.query(x), -1, (self.num_heads, -1)).transpose(1, 2)

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, T, dim) ->`` two times ``(B, H, T, D)``, not rotated."""
        both = torch.unflatten(self.key_value(x), -1, (2, self.num_heads, -1))
        keys, values = both.permute(2, 0, 3, 1, 4)
        return keys, values

    def check(self, keys: Tensor) -> None:
        """Raise ValueError for the keys ``(B, H, ..., D)`` of a state of other heads."""
        heads, width = keys.shape[1], keys.shape[-1]
        if (heads, width) != (self.num_heads, self.head_dim):
            raise ValueError(
                f"state belongs to attention with {heads} heads of width {width}; this one has "
                f"{self.num_heads} of {self.head_dim}."
            )

    def prefix(self, tokens: Tensor) -> Prefix:
        """Keys and values of tokens ``(B or 1, P, dim)`` that have no position."""
        keys, values = self.keys_values(tokens)
        places = self.head_dim // 2
        return functional.pad(keys[..., places:], (places, 0)), values

    def nothing(self, x: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor]:
        """Keys, values ``(B, H, length, D)`` and presence ``(B, length)`` of no tokens at all."""
        dtype = self.key_value.weight.dtype
        zeros = x.new_zeros(x.shape[0], self.num_heads, length, self.head_dim, dtype=dtype)
        return zeros, zeros.clone(), x.new_zeros(x.shape[0], length, dtype=torch.bool)


def rotate(x: Tensor, places: Tensor) -> Tensor:
    """Turn the first half of the channels of x ``(..., T, D)`` by angles of the places ``(T,)``."""
    width = x.shape[-1] // 2
    turning, still = x.tensor_split([width], dim=-1)
    exponents = torch.arange(0, width, 2, dtype=torch.float64, device=places.device) / width
    angles = places[:, None] * ROTARY_BASE**-exponents
    cosine, sine = (part.to(x.dtype) for part in (angles.cos(), angles.sin()))
    a, b = turning.chunk(2, dim=-1)
    return torch.cat([a * cosine - b * sine, a * sine + b * cosine, still], dim=-1)


def _attend(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    visible: Tensor,
    prefix: Prefix | None,
    pieces: int = 1,
) -> Tensor:
    """Softmax attention ``(N, H, L, D)`` to the prefix and to what is visible, ``(N, 1, L, K)``.

    Every batch element of the prefix stands before its ``pieces`` consecutive of the N.
    """
    if prefix is not None:
        repeats = 1 if prefix[0].shape[0] == 1 else pieces
        first_keys, first_values = (
            part.to(q.dtype).repeat_interleave(repeats, dim=0).expand(q.shape[0], -1, -1, -1)
            for part in prefix
        )
        keys = torch.cat([first_keys, keys], dim=2)
        values = torch.cat([first_values, values], dim=2)
        visible = functional.pad(visible, (prefix[0].shape[2], 0), value=True)
    return functional.scaled_dot_product_attention(q, keys, values, attn_mask=visible)


def check_batch(keys: Tensor, batch: int) -> None:
    """Raise ValueError for the keys ``(B, ...)`` of a state of another batch."""
    if keys.shape[0] != batch:
        raise ValueError(f"state belongs to a batch of {keys.shape[0]} streams; x has {batch}.")
