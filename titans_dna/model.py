"""What a classifier has learned: networks, linear parts, and how much of each is let in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from titans_dna.batches import Inputs
from titans_dna.blend import Blend
from titans_dna.inference import embeddings, probabilities
from titans_dna.linear import LinearPart
from titans_dna.network import SequenceNetwork

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Model:
    """Experts and their blend.

    Parameters
    ----------
    networks : tuple of SequenceNetwork
        Alike but for the rows they learned from; each head, averaged over them, is an expert.
    linear : tuple of LinearPart
        The other experts.
    blend : Blend
        A weight for each expert: the heads first.
    both_strands : bool
        Whether the networks' answers are averaged over both strands.
    floor : LinearPart
        What reports show beside: k-mers, or for signals the first linear part. It is let in only
        if it is among the experts.
    """

    networks: tuple[SequenceNetwork, ...]
    linear: tuple[LinearPart, ...]
    blend: Blend
    both_strands: bool
    floor: LinearPart

    @property
    def experts(self) -> tuple[str, ...]:
        """Names of the experts, in the order of the blend's weights."""
        heads = self.networks[0].config.heads if self.networks else ()
        return (*(f"network, {head}" for head in heads), *(part.name for part in self.linear))

    def log_probabilities(self, inputs: Inputs) -> Array:
        """Logarithms of the class probabilities, ``(n, K)``."""
        return self.blend(self.by_expert(inputs))

    def by_expert(self, inputs: Inputs) -> Array:
        """Class probabilities of each expert, ``(E, n, K)``."""
        rows = np.arange(len(inputs))
        answers = []
        if self.networks:
            each = [
                probabilities(network, inputs, rows, both_strands=self.both_strands)
                for network in self.networks
            ]
            answers.extend(np.mean(each, axis=0).transpose(1, 0, 2))
        answers.extend(part.probabilities(inputs) for part in self.linear)
        return np.stack(answers)

    def embed(self, inputs: Inputs) -> Array:
        """What the networks' last layers see, side by side, ``(n, width)``."""
        rows = np.arange(len(inputs))
        return np.concatenate(
            [embeddings(n, inputs, rows, both_strands=self.both_strands) for n in self.networks],
            axis=1,
        )
