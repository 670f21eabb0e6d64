"""Attention and blocks written out as the specification has them, slowly, for comparison."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu

from titans_core.attention import AttentionHeads


def naive_attention(
    heads: AttentionHeads,
    x: Tensor,
    seen: Tensor,
    places: Tensor,
    seen_places: Tensor,
    visible: Tensor,
    persistent: Tensor,
) -> Tensor:
    """Tokens x ``(B, T, dim)`` look at the persistent ones and at ``seen``, ``(B, K, dim)``.

    ``visible`` is ``(T, K)`` or ``(B, T, K)``; places may be anything, also those in the stream.
    """
    batch, time, dim = x.shape
    shape = (batch, -1, heads.num_heads, heads.head_dim)
    query, key_value = heads.query.weight.T, heads.key_value.weight.T
    q = turn((x @ query).view(shape), places)
    k, v = (part.reshape(shape) for part in (seen @ key_value).chunk(2, dim=-1))
    persistent = persistent.expand(batch, -1, dim)
    first_k, first_v = (part.reshape(shape) for part in (persistent @ key_value).chunk(2, dim=-1))
    without_place = torch.arange(heads.head_dim) >= heads.head_dim // 2
    k = torch.cat([first_k * without_place, turn(k, seen_places)], dim=1)
    scores = torch.einsum("bthd,bkhd->bhtk", q, k) / heads.head_dim**0.5
    visible = torch.cat(
        [
            torch.ones(batch, time, persistent.shape[1], dtype=torch.bool),
            visible.expand(batch, -1, -1),
        ],
        dim=-1,
    )
    attention = scores.masked_fill(~visible[:, None], -torch.inf).softmax(-1)
    return torch.einsum("bhtk,bkhd->bthd", attention, torch.cat([first_v, v], dim=1)).flatten(2)


def turn(x: Tensor, places: Tensor) -> Tensor:
    """Rotary positions on half of the channels of ``(B, T, H, D)``, as complex numbers."""
    a, b, still = x.tensor_split([x.shape[-1] // 4, x.shape[-1] // 2], dim=-1)
    speeds = 10_000.0 ** -(torch.arange(a.shape[-1], dtype=torch.float64) / a.shape[-1])
    angle = places[:, None, None] * speeds
    turned = torch.complex(a, b) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([turned.real, turned.imag, still], dim=-1)


def sliding_window(
    heads: AttentionHeads, x: Tensor, window: int, causal: bool, persistent: Tensor
) -> Tensor:
    """Full ``(T, T)`` scores, masked to the band."""
    places = torch.arange(x.shape[1])
    back = places[:, None] - places
    visible = (back < window) & (back >= 0) if causal else back.abs() < window
    return naive_attention(heads, x, x, places, places, visible, persistent)


def rms_norm(x: Tensor, gain: Tensor) -> Tensor:
    """``x / rms(x) * gain``."""
    return x / (x.square().mean(-1, keepdim=True) + torch.finfo(x.dtype).eps).sqrt() * gain


def gate(block: Any, y: Tensor, m: Tensor) -> Tensor:
    """``(RMSNorm(m) * sigmoid(RMSNorm(y))) W``."""
    y, m = (
        rms_norm(y, block.gate.attended_norm.weight),
        rms_norm(m, block.gate.remembered_norm.weight),
    )
    return (m * y.sigmoid()) @ block.gate.projection.weight.T


def memory_as_context(block: Any, z: Tensor, persistent: Tensor) -> Tensor:
    """Section 4.1, one segment after the other."""
    config, memory = block.attention.config, block.memory
    state, outputs = None, []
    for segment in z.split(config.window, dim=1):
        before = memory.fast_weights(state, len(z))
        h = memory.retrieve(block.query(segment), before)
        places = torch.arange(segment.shape[1])
        upto = torch.ones(len(places), len(places), dtype=torch.bool)
        upto = upto.tril() if config.causal else upto
        y = segment + naive_attention(
            block.attention.heads,
            segment,
            torch.cat([h, segment], dim=1),
            places,
            torch.cat([places, places]),
            torch.cat([upto, upto], dim=1),
            persistent,
        )
        own = []
        for t in range(y.shape[1]):
            m, state = memory(y[:, t : t + 1], state)
            own.append(m)
        m = torch.cat(own, dim=1)
        if not config.causal:
            after = memory.fast_weights(state, len(z))
            m = memory.retrieve(block.query(y), after)
        outputs.append(gate(block, y, m))
    return torch.cat(outputs, dim=1)


def memory_as_gate(block: Any, z: Tensor, persistent: Tensor) -> Tensor:
    """Section 4.2."""
    config = block.attention.config
    y = sliding_window(block.attention.heads, z, config.window, config.causal, persistent)
    m, _ = block.memory(torch.cat([persistent.expand(len(z), -1, -1), z], dim=1))
    return gate(block, y, m[:, len(persistent) :])


def memory_as_layer(block: Any, z: Tensor, persistent: Tensor) -> Tensor:
    """Section 4.3."""
    config = block.attention.config
    y, _ = block.memory(torch.cat([persistent.expand(len(z), -1, -1), z], dim=1))
    y = rms_norm(y, block.attention_norm.weight)
    first, y = y[:, : len(persistent)], y[:, len(persistent) :]
    attended = sliding_window(block.attention.heads, y, config.window, config.causal, first)
    return attended @ block.projection.weight.T


def attention_only(block: Any, z: Tensor, persistent: Tensor) -> Tensor:
    """Memory as gate without the memory."""
    config = block.attention.config
    y = sliding_window(block.attention.heads, z, config.window, config.causal, persistent)
    return rms_norm(y, block.attended_norm.weight) @ block.projection.weight.T


MIXERS = {
    "mac": memory_as_context,
    "mag": memory_as_gate,
    "mal": memory_as_layer,
    "attention": attention_only,
}


def run_block(kind: str, block: Any, x: Tensor) -> Tensor:
    """A whole block: norm, mixer, residual; then the same around the SwiGLU."""
    persistent = rms_norm(block.persistent_tokens, block.norm.weight)
    x = x + MIXERS[kind](block, rms_norm(x, block.norm.weight), persistent)
    last = block.feed_forward
    hidden = rms_norm(x, last.norm.weight) @ last.swiglu.expand.weight.T
    gate, value = hidden.chunk(2, dim=-1)
    return x + (silu(gate) * value) @ last.swiglu.contract.weight.T
