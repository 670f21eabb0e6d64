"""What trained networks answer: rows in batches of like lengths, long sequences piece by piece."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from titans_dna.alphabet import Tokens
from titans_dna.batches import Inputs, Rows, like_lengths, take_batch
from titans_dna.network import Features, SequenceNetwork, opposite_strand
from titans_dna.streaming import long_features, opposite

Array = NDArray[np.float64]
Answer = Callable[[SequenceNetwork, Features], Tensor]

BATCH_BASES = 2**16
"""Longer sequences are streamed."""
_TOGETHER = 2**14  # padded bases of shorter ones that are read at a time


def probabilities(
    network: nn.Module,
    inputs: Inputs,
    rows: Rows,
    *,
    both_strands: bool = False,
    crop: int | None = None,
) -> Array:
    """Class probabilities by each head, ``(len(rows), H, K)``.

    A row's answer does not depend, beyond rounding, on the rows it is asked for with.

    Parameters
    ----------
    network : SequenceNetwork
        In eval mode; Fabric's wrapper of one will do.
    inputs : Sequences or ndarray of shape (n, p)
    rows : ndarray of int
    both_strands : bool
        Average over both strands.
    crop : int, optional
        Of longer sequences read only the middle.
    """

    def answer(network: SequenceNetwork, features: Features) -> Tensor:
        return network.logits(features).softmax(-1)

    return _answer_rows(network, inputs, rows, answer, both_strands, crop)


def embeddings(
    network: nn.Module, inputs: Inputs, rows: Rows, *, both_strands: bool = False
) -> Array:
    """What the network's last layer sees: ``(len(rows), width)``."""
    return _answer_rows(network, inputs, rows, SequenceNetwork.hidden, both_strands, None)


@torch.no_grad()
def _answer_rows(
    module: Any,
    inputs: Inputs,
    rows: Rows,
    answer: Answer,
    both_strands: bool,
    crop: int | None,
) -> Array:
    network: SequenceNetwork = module if isinstance(module, SequenceNetwork) else module.module
    device = network.stem.weight.device
    if isinstance(inputs, np.ndarray):
        lengths = np.full(len(rows), inputs.shape[1], np.int64)
        # scikit-learn wants the same to the last digits, whatever rows are asked for together.
        network, dtype = deepcopy(network).double(), torch.float64
    else:
        lengths, dtype = inputs.lengths[rows], torch.uint8
    if crop is not None:
        lengths = np.minimum(lengths, crop)
    parts, order = [], []
    for batch in like_lengths(lengths, min(_TOGETHER, BATCH_BASES)):  # a longer one comes alone
        order.append(batch)
        if not isinstance(inputs, np.ndarray) and lengths[batch[0]] > BATCH_BASES:
            tokens = inputs[int(rows[batch[0]])]
            start = (len(tokens) - lengths[batch[0]]) // 2  # the middle, if it is cropped
            tokens = tokens[start : start + lengths[batch[0]]]
            found = _answer_long(network, tokens, answer, both_strands)
        else:
            sequences = take_batch(inputs, rows[batch], crop=crop).to(device, dtype)
            strands = [sequences, opposite_strand(sequences)] if both_strands else [sequences]
            found = _mean([answer(network, network.features(*network.embed(s))) for s in strands])
        parts.append(found.double().cpu().numpy())
    found_rows = np.concatenate(parts)
    answers = np.empty_like(found_rows)
    answers[np.concatenate(order)] = found_rows
    return answers


def _answer_long(
    network: SequenceNetwork, tokens: Tokens, answer: Answer, both_strands: bool
) -> Tensor:
    def read(start: int, stop: int) -> Tokens:
        return tokens[start:stop]

    readers = [read, opposite(read, len(tokens))] if both_strands else [read]
    return _mean([answer(network, long_features(network, r, len(tokens))) for r in readers])


def _mean(answers: list[Tensor]) -> Tensor:
    return answers[0] if len(answers) == 1 else (answers[0] + answers[1]) / 2
