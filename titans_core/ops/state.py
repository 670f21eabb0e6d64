"""The value carried between calls of one stream of the memory operation."""

from __future__ import annotations

from typing import NamedTuple

from titans_core.ops.memory_mlp import Weights


class NeuralMemoryState(NamedTuple):
    """All that a stream needs to go on, of fixed size: no token is ever buffered.

    Parameters
    ----------
    anchor, weights, momentum : tuple of Tensor
        Per layer ``(B, H, d_in, d_out)``: the weights at the start of the open chunk (where
        surprise is measured), the memory now, and the past surprise carried on.
    offset : int
        Tokens already taken into the open chunk, ``0 <= offset < chunk_size``.
    """

    anchor: Weights
    weights: Weights
    momentum: Weights
    offset: int
