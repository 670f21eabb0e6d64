"""Members: single networks, each trained on some rows and stopped by others."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from titans_core.training import TrainingConfig, TrainingHistory, fit_network
from titans_dna.batches import Inputs, Rows, take_batch
from titans_dna.inference import probabilities
from titans_dna.network import NetworkConfig, SequenceNetwork, opposite_strand

Array = NDArray[np.float64]

_LABEL_SMOOTHING = 0.05
_TRAINING_BASES = 2**16  # most padded bases of a training batch
_MUTATED = 0.05  # share of the bases that training draws anew, each time it shows a sequence


def build_network(config: NetworkConfig, seed: int) -> SequenceNetwork:
    """Draw a network's first weights, without touching the caller's random state."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return SequenceNetwork(config).float()  # whatever the default dtype is


def train_member(
    inputs: Inputs,
    y: NDArray[np.int64],
    class_weights: Array,
    rows: Rows,
    held_out: Rows | None,
    *,
    network: SequenceNetwork,
    training: TrainingConfig,
    batch_size: int,
    crop: int,
    strands: str | None,
    progress: bool,
    description: str = "training",
) -> tuple[SequenceNetwork, TrainingHistory]:
    """Train one network in place, and keep the weights that were best on the held-out rows.

    Parameters
    ----------
    inputs : Sequences or ndarray of shape (n, p)
    y : ndarray of int, shape (n,)
        Index of each row's class.
    class_weights : ndarray of shape (K,)
        Weight of each class in the loss.
    rows, held_out : ndarray of int
        What to learn from, and what to choose the training step by; None keeps the last weights.
    network : SequenceNetwork
    training : TrainingConfig
    batch_size, crop : int
        Sequences a step, and the longest stretch of one that is learned from at a time.
    strands : {None, "augment", "average", "equivariant"}
        "augment" and "average" show either strand at random.
    """
    weights = torch.tensor(class_weights, dtype=torch.float32)
    targets = torch.tensor(y)
    size = _batch_rows(inputs, rows, batch_size, crop)

    def sample_batch(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = rows[torch.randint(len(rows), (size,), generator=generator).numpy()]
        batch = take_batch(inputs, chosen, crop=crop, generator=generator)
        if strands in ("augment", "average"):
            turned = torch.rand(size, generator=generator) < 0.5
            batch[turned] = opposite_strand(batch[turned])
        if not network.config.signal:
            batch = mutate(batch, generator)
        return batch, targets[chosen]

    def compute_loss(network: Any, batch: tuple[Tensor, Tensor]) -> Tensor:
        sequences, classes = batch
        logits = network(sequences)
        return functional.cross_entropy(
            logits.flatten(0, 1),
            classes.repeat_interleave(logits.shape[1]),
            weights.to(sequences.device),
            label_smoothing=_LABEL_SMOOTHING,
        )

    def validate(network: nn.Module) -> float:
        assert held_out is not None
        p = probabilities(network, inputs, held_out, both_strands=strands == "average", crop=crop)
        picked = p[np.arange(len(held_out)), :, y[held_out]].clip(1e-7)
        row_weights = class_weights[y[held_out]]
        return float(-(row_weights @ np.log(picked).mean(1)) / row_weights.sum())

    history = fit_network(
        network,
        sample_batch,
        compute_loss,
        None if held_out is None else validate,
        training,
        progress=progress,
        description=description,
    )
    return network, history


def mutate(sequences: Tensor, generator: torch.Generator) -> Tensor:
    """Draw some bases of a batch of tokens anew; mixtures, unknown bases and padding stay."""
    drawn = torch.rand(sequences.shape, generator=generator) < _MUTATED
    bases = torch.randint(4, sequences.shape, generator=generator, dtype=sequences.dtype)
    return torch.where(drawn & ((sequences & 15) < 4), bases, sequences)


def _batch_rows(inputs: Inputs, rows: Rows, batch_size: int, crop: int) -> int:
    if isinstance(inputs, np.ndarray):
        longest = inputs.shape[1]
    else:
        longest = min(crop, int(inputs.lengths[rows].max()))
    return max(2, min(batch_size, _TRAINING_BASES // longest))
