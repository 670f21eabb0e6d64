"""Rows of input as tensors: padded batches of like lengths, crops of what is long."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from titans_dna.alphabet import PAD
from titans_dna.sequences import Sequences

Rows = NDArray[np.int64]
Inputs = Sequences | NDArray[np.float32]
"""DNA sequences, or signals: a matrix with a number for each position."""


def take_rows(inputs: Inputs, rows: Rows) -> Inputs:
    """Some rows of either kind, in this order."""
    return inputs[rows] if isinstance(inputs, np.ndarray) else inputs.take(rows)


def take_batch(
    inputs: Inputs,
    rows: Rows,
    *,
    crop: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Make one batch of some rows.

    Parameters
    ----------
    inputs : Sequences or ndarray of shape (n, p)
    rows : ndarray of int
    crop : int, optional
        Of longer sequences take a stretch of this length.
    generator : torch.Generator, optional
        Draws the place of each stretch; None takes the middle.

    Returns
    -------
    Tensor of shape (len(rows), longest)
        uint8 tokens padded on the right, or float32 signals.
    """
    if isinstance(inputs, np.ndarray):
        return torch.from_numpy(inputs[rows])
    starts, lengths = inputs.offsets[rows], inputs.lengths[rows]
    if crop is not None and (lengths > crop).any():
        room = np.maximum(lengths - crop, 0)
        if generator is None:
            starts = starts + room // 2
        else:
            share = torch.rand(len(rows), generator=generator, dtype=torch.float64).numpy()
            starts = starts + (share * (room + 1)).astype(np.int64)
        lengths = np.minimum(lengths, crop)
    places = starts[:, None] + np.arange(lengths.max())
    inside = places < (starts + lengths)[:, None]
    tokens = inputs.tokens[np.where(inside, places, 0)]
    return torch.from_numpy(np.where(inside, tokens, np.uint8(PAD)))


def like_lengths(lengths: NDArray[np.int64], most_bases: int) -> Iterator[Rows]:
    """Rows by length, as many at a time as their padded batch has room for; at least one."""
    order = np.argsort(lengths, kind="stable")
    first = 0
    while first < len(order):
        most = max(1, most_bases // max(1, int(lengths[order[first]])))
        widths = lengths[order[first : first + most]]  # ascending: the last is the batch's
        fits = int(np.count_nonzero(widths * np.arange(1, len(widths) + 1) <= most_bases))
        yield order[first : first + max(1, fits)]
        first += max(1, fits)
