"""What a classifier has learned: networks, linear parts, and how much of each is let in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from titans_dna.batches import Inputs
from titans_dna.blend import Blend
from titans_dna.inference import embeddings, probabilities
from titans_dna.kinship import Kinship
from titans_dna.linear import LinearPart
from titans_dna.network import SequenceNetwork
from titans_dna.sequence_files import cut
from titans_dna.sequences import Sequences

Array = NDArray[np.float64]

_BLOCK_BASES = 2**16


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
    known : ndarray of bool, shape (K,)
        Classes that the linear parts have learned; of others they say what the networks do.
    kinship : Kinship, optional
        What is known of relatives of the training sequences, beside what the experts say.
    """

    networks: tuple[SequenceNetwork, ...]
    linear: tuple[LinearPart, ...]
    blend: Blend
    both_strands: bool
    floor: LinearPart
    known: NDArray[np.bool_]
    kinship: Kinship | None = None

    @property
    def experts(self) -> tuple[str, ...]:
        """Names of the experts, in the order of the blend's weights."""
        heads = self.networks[0].config.heads if self.networks else ()
        return (*(f"network, {head}" for head in heads), *(part.name for part in self.linear))

    def log_probabilities(self, inputs: Inputs) -> Array:
        """Logarithms of the class probabilities, ``(n, K)``: who has no say is not asked."""
        weights = self.blend.weights
        heard = weights > 0
        said = Blend(weights[heard])(self._answers(inputs, heard))
        if self.kinship is not None and isinstance(inputs, Sequences):
            self._recognise(self.kinship, inputs, said)
        return said

    def by_expert(self, inputs: Inputs) -> Array:
        """Class probabilities of each expert, ``(E, n, K)``."""
        return self._answers(inputs, np.ones(len(self.experts), bool))

    def floor_probabilities(self, inputs: Inputs) -> Array:
        """Class probabilities of the floor, ``(n, K)``."""
        return np.concatenate([self.floor.probabilities(block) for block in _blocks(inputs)])

    def embed(self, inputs: Inputs) -> Array:
        """What the networks' last layers see, side by side, ``(n, width)``."""
        rows = np.arange(len(inputs))
        return np.concatenate(
            [embeddings(n, inputs, rows, both_strands=self.both_strands) for n in self.networks],
            axis=1,
        )

    def _answers(self, inputs: Inputs, asked: NDArray[np.bool_]) -> Array:
        """What those of the experts that are asked say, ``(number asked, n, K)``."""
        n_heads = len(self.experts) - len(self.linear)
        heads, parts = asked[:n_heads], asked[n_heads:]
        all_known = bool(self.known.all())
        blocks = []
        for block in _blocks(inputs):
            answers: list[Array] = []
            linear = [part.probabilities(block) for part in compress(self.linear, parts)]
            if heads.any() or not all_known:
                rows = np.arange(len(block))
                each = [
                    probabilities(network, block, rows, both_strands=self.both_strands)
                    for network in self.networks
                ]
                by_head = np.mean(each, axis=0).transpose(1, 0, 2)
                answers.extend(by_head[heads])
                linear = [self._defer(said, by_head.mean(axis=0)) for said in linear]
            blocks.append(np.stack(answers + linear))
        return np.concatenate(blocks, axis=1)

    def _recognise(self, kinship: Kinship, sequences: Sequences, said: Array) -> None:
        """Let long words change what is said ``(n, K)`` of relatives of the training sequences."""
        first = 0
        for block in cut(sequences, _BLOCK_BASES):
            known = np.flatnonzero(kinship.knows(block))
            if len(known):
                before = np.exp(said[first + known])
                by_words = kinship.words.probabilities(block.take(known))
                both = np.stack([before, self._defer(by_words, before)])
                said[first + known] = kinship.blend(both)
            first += len(block)

    def _defer(self, said: Array, by_others: Array) -> Array:
        """What a linear part says ``(n, K)``, with others' shares of classes new to it."""
        new = np.where(self.known, 0, by_others).sum(axis=1, keepdims=True)
        return np.where(self.known, said * (1 - new), by_others)


def _blocks(inputs: Inputs) -> Iterable[Inputs]:
    """Some rows at a time: what an expert needs for a row is thousands of times its bases."""
    if isinstance(inputs, Sequences):
        return cut(inputs, _BLOCK_BASES)
    rows = max(1, _BLOCK_BASES // inputs.shape[1])
    return (inputs[first : first + rows] for first in range(0, len(inputs), rows))
