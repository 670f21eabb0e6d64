"""DNA that classifiers can tell apart in no time, and settings that make them small."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from titans_core import BackboneConfig, NeuralMemoryConfig
from titans_core.training import TrainingConfig
from titans_dna import TitansDNAClassifier
from titans_dna.alphabet import decode, encode, reverse_complement
from titans_dna.blend import Blend

FAST: dict[str, Any] = {
    "n_networks": 1,
    "backbone": BackboneConfig(memory=NeuralMemoryConfig(dim=8, chunk_size=4), num_blocks=1),
    "training": TrainingConfig(max_steps=15, learning_rate=5e-3, validate_every=5),
    "progress": False,
}
QUICKEST: dict[str, Any] = {**FAST, "linear": False, "reverse_complement": None}


def reads(
    n: int = 60, length: int | None = None, *, shares: tuple[float, ...] = (0.2, 0.8), seed: int = 0
) -> tuple[list[str], list[str]]:
    """Sequences of ``c0``, ``c1`` and so on in turn, each class with its own share of G and C."""
    rng = np.random.default_rng(seed)
    X, y = [], []
    for row in range(n):
        share = shares[row % len(shares)]
        bases = int(rng.integers(20, 70)) if length is None else length
        p = [(1 - share) / 2, share / 2, share / 2, (1 - share) / 2]
        X.append("".join(rng.choice(list("ACGT"), bases, p=p)))
        y.append(f"c{row % len(shares)}")
    return X, y


def odd_reads(n: int, length: int | None = None) -> list[str]:
    """Sequences with every IUPAC code, lower case, runs of N, and lengths from 1."""
    rng = np.random.default_rng(99)
    found = []
    for row in range(n):
        bases = (row % 40) + 1 if length is None else length
        letters = rng.choice(list("ACGTACGTACGTRYSWKMBDHVNacgtryn"), bases)
        if row % 3 == 0:
            letters[bases // 3 : bases // 2] = "N"
        found.append("".join(letters))
    return found


def opposite(X: list[str]) -> list[str]:
    """The other strand of each."""
    return [decode(reverse_complement(encode(x))) for x in X]


def write_fasta(path: Path, X: list[str], names: list[str] | None = None) -> Path:
    names = [f"r{row}" for row in range(len(X))] if names is None else names
    path.write_text("".join(f">{name}\n{x}\n" for name, x in zip(names, X, strict=True)))
    return path


def fit(*data: Any, **changes: Any) -> TitansDNAClassifier:
    return TitansDNAClassifier(**{**FAST, **changes}).fit(*data)


def all_speak(classifier: TitansDNAClassifier) -> TitansDNAClassifier:
    """Let every expert in, so that none hides its faults behind a weight of zero."""
    experts = len(classifier.model_.experts)
    object.__setattr__(classifier.model_, "blend", Blend(np.full(experts, 0.7)))
    return classifier


@pytest.fixture(scope="module", autouse=True)
def hurried() -> Iterator[None]:
    """Let the network on k-mers take few steps, too; it has no parameter for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("titans_dna.kmer_network._FEWEST_STEPS", 15)
        patch.setattr("titans_dna.kmer_network._MOST_STEPS", 15)
        yield
