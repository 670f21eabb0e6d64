"""Files of classifiers: whatever was fitted, they answer as before, bit for bit."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dna_inputs import FAST, QUICKEST, odd_reads, reads

from titans_core import AttentionConfig, BackboneConfig, GatedDeltaConfig, NeuralMemoryConfig
from titans_dna import TitansDNAClassifier

MEMORY = NeuralMemoryConfig(dim=8, chunk_size=4)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the network on k-mers take few steps."""
    monkeypatch.setattr("titans_dna.kmer_network._FEWEST_STEPS", 15)
    monkeypatch.setattr("titans_dna.kmer_network._MOST_STEPS", 15)


def loaded(classifier: TitansDNAClassifier, tmp_path: Path) -> TitansDNAClassifier:
    classifier.save(tmp_path / "model")
    return TitansDNAClassifier.load(tmp_path / "model")


@pytest.mark.parametrize(
    ("length", "changes"),
    [
        (None, {**FAST, "n_networks": 2, "reverse_complement": "average"}),
        (20, {**FAST, "reverse_complement": None}),
        (20, {**FAST, "reverse_complement": "equivariant"}),
        (20, {**QUICKEST, "head": "positional", "soft_mask": "mask"}),
        (None, {**QUICKEST, "class_weight": {"c0": 1, "c1": np.float32(2)}}),
        (None, {**QUICKEST, "random_state": np.int64(3), "reverse_complement": "augment"}),
        (
            None,
            {
                **QUICKEST,
                "backbone": BackboneConfig(
                    memory=MEMORY, block="mag", attention=AttentionConfig(num_heads=2, window=8)
                ),
            },
        ),
        (None, {**QUICKEST, "backbone": BackboneConfig(memory=GatedDeltaConfig(dim=8))}),
    ],
    ids=["average", "places", "equivariant", "mask", "weights", "augment", "attention", "delta"],
)
def test_every_kind_of_classifier_comes_back_whole(
    length: int | None, changes: dict[str, Any], tmp_path: Path
) -> None:
    classifier = TitansDNAClassifier(**changes).fit(*reads(30, length))
    other = loaded(classifier, tmp_path)
    asked = odd_reads(12, length)
    for method in ("predict", "predict_proba", "transform", "decision_function"):
        expected = getattr(classifier, method)(asked)
        np.testing.assert_array_equal(getattr(other, method)(asked), expected)
    assert other.get_params() == classifier.get_params()
    assert other.model_.experts == classifier.model_.experts
    assert other.training_histories_ == classifier.training_histories_
    assert other.strands_ == classifier.strands_
    expected = classifier.held_out_probabilities_
    np.testing.assert_array_equal(other.held_out_probabilities_, expected)
    assert not any(network.training for network in other.model_.networks)


def test_what_is_learned_later_is_learned_alike_by_a_loaded_one(tmp_path: Path) -> None:
    classifier = TitansDNAClassifier(**FAST).fit(*reads(30))
    other = loaded(classifier, tmp_path)
    again = pickle.loads(pickle.dumps(classifier))
    asked, later = odd_reads(12), reads(20, seed=3)
    for learner in (classifier, other, again):
        learner.partial_fit(*later)
    expected = classifier.predict_proba(asked)
    np.testing.assert_array_equal(other.predict_proba(asked), expected)
    np.testing.assert_array_equal(again.predict_proba(asked), expected)


def test_a_report_of_a_loaded_one_is_the_same(tmp_path: Path) -> None:
    for changes in (FAST, QUICKEST):  # the floor is an expert, or stands beside
        classifier = TitansDNAClassifier(**changes).fit(*reads(30))
        data = reads(20, seed=3)
        report = loaded(classifier, tmp_path).score_report(*data)
        assert str(report) == str(classifier.score_report(*data))
        assert "k-mer" in str(report)


def test_equal_fits_give_equal_files_but_for_the_time_they_took(tmp_path: Path) -> None:
    files = []
    for _ in range(2):
        classifier = TitansDNAClassifier(**QUICKEST).fit(*reads(20))
        for history in classifier.training_histories_:
            object.__setattr__(history, "seconds", 0.0)
        classifier.save(tmp_path / "model")
        files.append((tmp_path / "model").read_bytes())
    assert files[0] == files[1]
