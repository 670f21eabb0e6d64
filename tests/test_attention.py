"""Attention over windows and segments: against full masks, streamed, masked, bounded."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from attention_oracle import naive_attention, sliding_window
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from titans_core import AttentionConfig
from titans_core.attention import SegmentAttention, SlidingWindowAttention, rotate

DIM = 16


def build(window: int, *, causal: bool = True) -> SlidingWindowAttention:
    torch.manual_seed(0)
    config = AttentionConfig(num_heads=2, window=window, causal=causal)
    return SlidingWindowAttention(DIM, config).double()


def tokens(time: int, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return 2 * torch.randn(batch, time, DIM, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [1, 2, 5, 30])
@pytest.mark.parametrize("time", [1, 4, 5, 6, 23])
@pytest.mark.parametrize("persistent", [0, 3])
def test_pieces_compute_what_a_full_mask_computes(
    causal: bool, window: int, time: int, persistent: int
) -> None:
    attention, x = build(window, causal=causal), tokens(time)
    always = tokens(3)[:, :persistent]  # another for every batch element
    y, _ = attention(x, prefix=attention.heads.prefix(always))
    expected = sliding_window(attention.heads, x, window, causal, always)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 29), max_size=5, unique=True).map(sorted),
    window=st.integers(1, 12),
)
def test_any_cut_of_a_stream_equals_no_cut(cuts: list[int], window: int) -> None:
    attention, x = build(window), tokens(30)
    prefix = attention.heads.prefix(tokens(3)[:1])
    with torch.no_grad():
        whole, end = attention(x, prefix=prefix)
        pieces, state = [], None
        for start, stop in zip([0, *cuts], [*cuts, 30], strict=True):
            y, state = attention(x[:, start:stop], state, prefix=prefix)
            pieces.append(y)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=0, atol=1e-12)
    for streamed, uncut in zip(state, end, strict=True):
        torch.testing.assert_close(streamed, uncut, rtol=0, atol=1e-12)


def test_only_distance_counts() -> None:
    q, k = tokens(1)[0], tokens(2)[0, 1:]
    here, far = (
        rotate(q, torch.tensor([9 + shift])) @ rotate(k, torch.tensor([4 + shift])).T
        for shift in (0, 1000)
    )
    torch.testing.assert_close(here, far, rtol=0, atol=1e-10)
    nearer = rotate(q, torch.tensor([9])) @ rotate(k, torch.tensor([5])).T
    assert (here - nearer).abs() > 1e-3


def test_a_persistent_token_looks_the_same_from_everywhere() -> None:
    # Equal tokens: only a position of the prefix, or of the window's edge, could tell them apart.
    attention = build(4)
    x = tokens(1).expand(-1, 40, -1)
    y, _ = attention(x, prefix=attention.heads.prefix(tokens(3)))
    torch.testing.assert_close(y[:, 3:], y[:, 3:4].expand(-1, 37, -1), rtol=0, atol=1e-12)
    assert (y[:, 0] - y[:, 3]).abs().max() > 1e-3  # early tokens see more of the prefix


def test_a_long_stream_loses_no_precision_to_positions() -> None:
    attention = build(8).float()
    x = tokens(5000).float()
    with torch.no_grad():
        whole, _ = attention(x)
        recent, _ = attention(x[:, -15:])
        _, state = attention(x[:, :-1])
        last, _ = attention(x[:, -1:], state)
    torch.testing.assert_close(whole[:, -8:], recent[:, -8:], rtol=0, atol=1e-6)
    torch.testing.assert_close(last, recent[:, -1:], rtol=0, atol=1e-6)


class LargestTensor(TorchDispatchMode):
    """Remembers how many entries the largest tensor had that any operation made."""

    entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for part in result if isinstance(result, tuple) else (result,):
            if isinstance(part, Tensor):
                self.entries = max(self.entries, part.numel())
        return result


@pytest.mark.parametrize("causal", [True, False])
def test_memory_grows_with_the_sequence_and_not_with_its_square(causal: bool) -> None:
    attention = build(8, causal=causal)
    sizes = []
    for time in (1000, 4000):
        with LargestTensor() as largest:
            attention(tokens(time), prefix=attention.heads.prefix(tokens(3)))
        sizes.append(largest.entries)
    assert sizes[1] <= 4 * sizes[0]


@pytest.mark.parametrize("causal", [True, False])
def test_nobody_sees_a_masked_token(causal: bool) -> None:
    attention, x = build(5, causal=causal), tokens(20)
    mask = torch.ones(2, 20, dtype=torch.bool)
    mask[0, [0, 7, 8]] = False
    mask[1, 12:] = False
    y, state = attention(x, None, mask)
    places = torch.arange(20)
    back = places[:, None] - places
    band = (back < 5) & (back >= 0) if causal else back.abs() < 5
    visible = band & mask[:, None] | (back == 0)
    nothing = x[:1, :0]
    expected = naive_attention(attention.heads, x, x, places, places, visible, nothing)
    torch.testing.assert_close(y[mask], expected[mask], rtol=0, atol=1e-12)
    moved, moved_state = attention(x.masked_fill(~mask[..., None], 7.0), None, mask)
    assert torch.equal(moved[mask], y[mask])
    assert torch.equal(moved_state.present, state.present)


def test_a_masked_token_that_sees_nothing_reads_nothing() -> None:
    attention = build(3)
    x = torch.zeros(1, 4, DIM, dtype=torch.float64, requires_grad=True)
    y, _ = attention(x, None, torch.zeros(1, 4, dtype=torch.bool))
    assert torch.equal(y, torch.zeros_like(y))
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert gradient.isfinite().all()


def test_without_causality_a_call_is_a_world_of_its_own() -> None:
    attention, x = build(6, causal=False), tokens(12)
    whole, state = attention(x)
    again, _ = attention(x, state)
    assert torch.equal(again, whole)
    assert state.keys.numel() == state.values.numel() == state.present.numel() == 0


def test_the_state_has_one_size_and_keeps_no_tokens_alive() -> None:
    attention = build(6)
    sizes = []
    for time in (1, 3, 100, 3000):
        with torch.no_grad():
            _, state = attention(tokens(time))
        sizes.append([part.untyped_storage().nbytes() for part in state])
    assert all(size == [2 * 5 * DIM * 8, 2 * 5 * DIM * 8, 2 * 5] for size in sizes)


@pytest.mark.parametrize("causal", [True, False])
def test_a_segment_may_be_taken_in_parts_when_causal(causal: bool) -> None:
    torch.manual_seed(0)
    config = AttentionConfig(num_heads=2, window=6, causal=causal)
    attention = SegmentAttention(DIM, config).double()
    x, h = tokens(6), tokens(12)[:, 6:]
    whole, closed = attention(x, h, attention.begin(x))
    assert closed.length == 0
    if not causal:
        return
    first, segment = attention(x[:, :4], h[:, :4], attention.begin(x))
    assert segment.length == 4
    second, segment = attention(x[:, 4:], h[:, 4:], segment)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole, rtol=0, atol=1e-12)
    assert segment.length == 0


def test_states_of_another_window_or_batch_are_refused() -> None:
    _, state = build(5)(tokens(9))
    with pytest.raises(ValueError, match="state belongs to a batch of 2 streams; x has 3"):
        build(5)(tokens(2, batch=3), state)
    with pytest.raises(ValueError, match=r"carries 4 tokens on; this one, with window=7 .* 6"):
        build(7)(tokens(2), state)
    with pytest.raises(ValueError, match="window=5 and causal=False, carries 0"):
        build(5, causal=False)(tokens(2), state)
    segments = SegmentAttention(DIM, AttentionConfig(num_heads=2, window=5)).double()
    others = SegmentAttention(DIM, AttentionConfig(num_heads=2, window=6)).double()
    with pytest.raises(ValueError, match="segments of 6 tokens kept open; these, with window=5"):
        segments(tokens(2), tokens(2), others.begin(tokens(2)))
    with pytest.raises(ValueError, match="state belongs to a batch of 3 streams; x has 2"):
        segments(tokens(2), tokens(2), segments.begin(tokens(2, batch=3)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"num_heads": 0, "window": 4},
            "`num_heads` of AttentionConfig must be an int >= 1; got 0",
        ),
        ({"num_heads": 1, "window": 0}, "`window` of AttentionConfig must be an int >= 1; got 0"),
        (
            {"num_heads": 1, "window": 4, "num_persistent_tokens": -1},
            "`num_persistent_tokens` of AttentionConfig must be an int >= 0; got -1",
        ),
        (
            {"num_heads": 1, "window": 4, "causal": "no"},
            "`causal` of AttentionConfig must be a bool; got 'no'",
        ),
    ],
)
def test_a_bad_configuration_names_the_field(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AttentionConfig(**options)


def test_heads_need_channels_in_fours() -> None:
    with pytest.raises(ValueError, match=r"multiple of 4 of the 12 channels, .* got 2"):
        SlidingWindowAttention(12, AttentionConfig(num_heads=2, window=4))
