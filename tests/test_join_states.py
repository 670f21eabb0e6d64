"""States of streams that stand at the same token become one, and come apart again."""

from __future__ import annotations

import pytest
import torch

from titans_core import AttentionConfig, Backbone, BackboneConfig, NeuralMemoryConfig
from titans_core.state import BackboneState, join_states, map_state, state_position

KINDS = ("lmm", "mac", "mag", "mal")


def backbone(block: str) -> Backbone:
    memory = NeuralMemoryConfig(dim=8, chunk_size=4)
    attention = None if block == "lmm" else AttentionConfig(num_heads=2, window=4)
    config = BackboneConfig(memory=memory, num_blocks=2, block=block, attention=attention)
    return Backbone(config).eval()


def read(model: Backbone, x: torch.Tensor) -> BackboneState:
    with torch.no_grad():
        state: BackboneState = model(x)[1]
    return state


@pytest.mark.parametrize("block", KINDS)
def test_a_joined_state_goes_on_as_its_streams_do(block: str) -> None:
    model = backbone(block)
    x, more = torch.randn(5, 7, 8), torch.randn(5, 6, 8)
    apart = [read(model, rows) for rows in x.split([2, 3])]
    joined = join_states(apart)
    with torch.no_grad():
        together, _ = model(more, joined)
        for rows, state, new in zip(together.split([2, 3]), apart, more.split([2, 3]), strict=True):
            torch.testing.assert_close(model(new, state)[0], rows)
    taken = map_state(lambda tensor: tensor[:2], joined)
    with torch.no_grad():
        torch.testing.assert_close(model(more[:2], taken)[0], together[:2])
    assert state_position(joined) == state_position(apart[0]) == state_position(apart[1])


@pytest.mark.parametrize("block", KINDS)
def test_states_at_different_tokens_are_refused_and_told_apart(block: str) -> None:
    model = backbone(block)
    early, late = (read(model, torch.randn(1, n, 8)) for n in (5, 7))
    assert state_position(early) != state_position(late)
    with pytest.raises(ValueError, match="states must stand at the same token; they differ in"):
        join_states([early, late])


def test_nothing_cannot_be_joined() -> None:
    with pytest.raises(ValueError, match="at least one state"):
        join_states([])
