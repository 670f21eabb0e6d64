"""How the classifier learns: weights, folds, calibration, later batches, sizes of all kinds."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from dna_inputs import (
    FAST,
    QUICKEST,
    all_speak,
    fit,
    hurried,  # noqa: F401  # pytest finds the fixture by its name here
    opposite,
    reads,
)
from sklearn.metrics import log_loss

from titans_core.training import TrainingConfig
from titans_dna import TitansDNAClassifier, fitting, read_sequences
from titans_dna.alphabet import PAD
from titans_dna.blend import Blend
from titans_dna.kmers import kmer_counts
from titans_dna.members import mutate
from titans_dna.network import opposite_strand

X, Y = reads()
UNSEEN = reads(20, seed=5)[0]


@pytest.fixture(scope="module")
def ragged() -> TitansDNAClassifier:
    return all_speak(fit(X, Y, reverse_complement="average"))


@pytest.fixture(scope="module")
def quick() -> TitansDNAClassifier:
    return fit(X, Y, **QUICKEST)


# Weights, folds, calibration


def overlapping(n: int, seed: int) -> tuple[list[str], list[str]]:
    """Classes that cannot be told apart for sure, three of ``c0`` to one of ``c1``."""
    X, y = reads(2 * n, 30, shares=(0.45, 0.55), seed=seed)
    keep = [row for row in range(2 * n) if y[row] == "c0" or row % 3 == 0]
    return [X[row] for row in keep], [y[row] for row in keep]


def test_class_weights_shift_what_is_predicted() -> None:
    data, asked = overlapping(60, 0), overlapping(60, 1)[0]
    shares = {
        str(weight): np.mean(fit(*data, class_weight=weight).predict_proba(asked)[:, 1])
        for weight in (None, "balanced", {"c1": 12.0})
    }
    plain, balanced, heavy = shares.values()
    assert plain < balanced < heavy
    assert balanced == pytest.approx(0.5, abs=0.12)


def test_relatives_stay_on_one_side_of_every_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    make = fitting.fit_model

    def watched(inputs: Any, y: Any, weights: Any, folds: Any, *others: Any) -> Any:
        seen.extend(folds)
        return make(inputs, y, weights, folds, *others)

    monkeypatch.setattr("titans_dna.classifier.fit_model", watched)
    families = reads(20, 60, seed=8)
    relatives = [x[shift:] + "ACGT" for x in families[0] for shift in range(4)]
    relatives[1::4] = opposite(relatives[1::4])
    labels = [label for label in families[1] for _ in range(4)]
    classifier = fit(relatives, labels, **{**QUICKEST, "n_networks": 2})
    assert len(seen) == 2
    family = np.arange(80) // 4
    for learn, held in seen:
        assert not set(family[learn]) & set(family[held])
        assert sorted([*learn, *held]) == list(range(80))
    assert not set(seen[0][1]) & set(seen[1][1])
    np.testing.assert_array_equal(classifier.held_out_, np.concatenate([h for _, h in seen]))
    assert len(classifier.training_histories_) == len(classifier.model_.networks) == 2
    seen.clear()
    fit(relatives, labels, validation="random", **QUICKEST)
    ((learn, held),) = seen
    assert set(family[learn]) & set(family[held])


def test_strands_are_compared_on_what_all_folds_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[np.ndarray] = []

    class Part:
        def __init__(self, both_strands: bool) -> None:
            self.both_strands = both_strands

        def cross_fit(self, _: Any, y: Any, __: Any, folds: Any) -> list[np.ndarray]:
            heard.append(np.concatenate([held for _, held in folds]))
            # Both strands do better in the first fold, and worse in all the others.
            right = [0.9 if self.both_strands == (i == 0) else 0.6 for i in range(len(folds))]
            told = zip(right, folds, strict=True)
            return [np.where(np.eye(2)[y[held]] > 0, p, 1 - p) for p, (_, held) in told]

    monkeypatch.setattr(fitting, "alike_part", lambda _, both_strands: Part(both_strands))
    classifier = fit(*reads(90, 40), **{**QUICKEST, "n_networks": 3, "reverse_complement": "auto"})
    assert classifier.strands_ is None
    assert len(heard) == 2
    for rows in heard:
        np.testing.assert_array_equal(rows, classifier.held_out_)


def test_who_has_no_say_is_not_asked(
    ragged: TitansDNAClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ragged.model_
    weights = np.ones(len(model.experts))
    weights[:2] = 0  # the network, and the first of the others
    mute = replace(model, blend=Blend(weights))
    asked = read_sequences(UNSEEN)
    expected = mute.blend(model.by_expert(asked))

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("it was asked")

    monkeypatch.setattr("titans_dna.model.probabilities", fail)
    monkeypatch.setattr(model.linear[0], "probabilities", fail)
    np.testing.assert_allclose(mute.log_probabilities(asked), expected, rtol=0, atol=1e-12)


def test_rows_are_answered_a_block_at_a_time(
    ragged: TitansDNAClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = read_sequences(UNSEEN)
    whole = ragged.model_.by_expert(asked), ragged.model_.floor_probabilities(asked)
    most: list[int] = []

    def counted(sequences: Any, *arguments: Any) -> Any:
        most.append(len(sequences))
        return kmer_counts(sequences, *arguments)

    monkeypatch.setattr("titans_dna.kmers.kmer_counts", counted)
    monkeypatch.setattr("titans_dna.model._BLOCK_BASES", 100)
    cut = ragged.model_.by_expert(asked), ragged.model_.floor_probabilities(asked)
    assert 1 <= max(most) <= 5
    for one, other in zip(whole, cut, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def test_what_is_said_of_held_out_rows_stands_in_their_order(ragged: TitansDNAClassifier) -> None:
    y = np.array(Y)[ragged.held_out_]
    p = ragged.held_out_probabilities_
    assert p.shape == (len(y), 2)
    assert np.mean(ragged.classes_[p.argmax(1)] == y) > 0.8
    # The only network has not learned from these rows, so it says now what it said then.
    now = ragged.model_.by_expert(read_sequences(X).take(ragged.held_out_))
    np.testing.assert_allclose(now[0], ragged.held_out_by_expert_[0], atol=1e-6)


def calibration_error(p: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error of the class named, over ten bins."""
    sure = p.max(1)
    bins = np.minimum((sure * 10).astype(int), 9)
    gaps = [abs((right[bins == b] - sure[bins == b]).sum()) for b in range(10)]
    return float(np.sum(gaps) / len(p))


def test_the_blend_is_no_worse_calibrated_than_its_experts() -> None:
    data, asked = overlapping(110, 0), overlapping(220, 1)
    training = TrainingConfig(max_steps=40, learning_rate=5e-3, validate_every=20)
    classifier = fit(*data, training=training)
    y = np.searchsorted(classifier.classes_, asked[1])
    rows = np.arange(len(y))

    def scores(p: np.ndarray) -> tuple[float, float]:
        return -np.log(p[rows, y]).mean(), calibration_error(p, p.argmax(1) == y)

    blended = scores(classifier.predict_proba(asked[0]))
    experts = [scores(p) for p in classifier.model_.by_expert(read_sequences(asked[0]))]
    assert blended[0] <= np.mean([loss for loss, _ in experts])
    assert blended[1] <= np.mean([error for _, error in experts]) + 0.02
    assert blended[1] < 0.15


# Learning on


def test_later_batches_may_bring_classes_that_the_first_one_lacks() -> None:
    three = reads(90, shares=(0.1, 0.5, 0.9))
    first = [row for row, label in enumerate(three[1]) if label != "c2"]
    classifier = TitansDNAClassifier(**QUICKEST)
    classes = ["c2", "c0", "c1"]
    assert classifier.partial_fit(
        [three[0][i] for i in first], [three[1][i] for i in first], classes
    )
    assert classifier.classes_.tolist() == ["c0", "c1", "c2"]
    asked, labels = reads(60, shares=(0.1, 0.5, 0.9), seed=3)
    before = classifier.score(asked, labels)
    assert classifier.predict_proba(asked).shape == (60, 3)
    for _ in range(20):
        classifier.partial_fit(*three)
    assert classifier.score(asked, labels) > max(before, 0.75)


def test_the_first_batch_may_not_be_of_one_class_only() -> None:
    with pytest.raises(ValueError, match=r"only one class, 'c0'.*at least 2 classes"):
        TitansDNAClassifier(**FAST).partial_fit(X[::2], Y[::2], ["c0", "c1"])


@pytest.mark.parametrize("strands", [None, "augment", "average", "equivariant"])
def test_later_batches_are_read_on_the_strands_that_the_first_was(
    strands: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    turned = []

    def watched(sequences: torch.Tensor) -> torch.Tensor:
        turned.append(len(sequences))
        return opposite_strand(sequences)

    classifier = fit(X, Y, **{**QUICKEST, "reverse_complement": strands})
    monkeypatch.setattr("titans_dna.members.opposite_strand", watched)
    classifier.partial_fit(X, Y)
    assert bool(turned) == (strands in ("augment", "average"))


def test_training_draws_a_few_bases_anew_and_nothing_else() -> None:
    text = "ACGTacgtNRYnr" * 4000
    tokens = torch.from_numpy(read_sequences([text]).tokens.copy())[None]
    batch = torch.cat([tokens, torch.full((1, 500), PAD, dtype=torch.uint8)], dim=1)
    before = batch.clone()
    after = mutate(batch, torch.Generator().manual_seed(0))
    assert torch.equal(batch, before), "the data themselves stay"
    base = (before & 15) < 4
    assert torch.equal(after[~base], before[~base]), "mixtures, unknown bases and padding stay"
    assert (after[base] & 15 < 4).all()
    changed = after[base] & 15 != before[base] & 15
    # A twentieth is drawn anew, a quarter of which as it was; 4 standard deviations of 32,000.
    assert changed.float().mean().item() == pytest.approx(0.05 * 0.75, abs=4 * 0.0011)
    drawn = torch.bincount(after[base][changed].long() & 15)
    assert drawn.min() > 0.8 * drawn.max(), "all four alike"


def test_sequences_are_changed_in_training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def watched(sequences: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        seen.append("a batch")
        return mutate(sequences, generator)

    monkeypatch.setattr("titans_dna.members.mutate", watched)
    classifier = fit(X, Y, **QUICKEST)
    assert seen
    seen.clear()
    classifier.predict_proba(UNSEEN)
    fit(np.random.default_rng(0).normal(size=(40, 30)), Y[:40], **QUICKEST)
    assert not seen, "neither in prediction nor in signals"


def test_a_class_that_drifts_is_followed(ragged: TitansDNAClassifier, tmp_path: Path) -> None:
    ragged.save(tmp_path / "model")
    learner = TitansDNAClassifier.load(tmp_path / "model")
    drifted = reads(60, shares=(0.8, 0.2), seed=11)  # each is what the other was
    asked = reads(40, shares=(0.8, 0.2), seed=12)
    before = ragged.score(*asked)
    assert before < 0.2
    for _ in range(10):
        assert learner.partial_fit(*drifted) is learner
    assert learner.score(*asked) > 0.7
    assert ragged.score(*asked) == before


def of_classes(classes: set[str], X: list[str], y: list[str]) -> tuple[list[str], list[str]]:
    kept = [row for row, label in enumerate(y) if label in classes]
    return [X[row] for row in kept], [y[row] for row in kept]


def test_a_class_that_comes_late_is_learned_by_and_by() -> None:
    data, asked = (reads(n, shares=(0.2, 0.5, 0.8), seed=n) for n in (180, 90))
    first, late = of_classes({"c0", "c1"}, *data), of_classes({"c2"}, *data)
    old, new = of_classes({"c0", "c1"}, *asked), of_classes({"c2"}, *asked)[0]
    learner = TitansDNAClassifier(**FAST).partial_fit(*first, classes=["c0", "c1", "c2"])
    kept, hoped = learner.score(*old), [learner.predict_proba(new)[:, 2].mean()]
    for _ in range(3):
        learner.partial_fit(*late)
        hoped.append(learner.predict_proba(new)[:, 2].mean())
    assert hoped == sorted(hoped)
    assert learner.score(*old) >= kept - 0.05
    for _ in range(12):
        learner.partial_fit(*data)
    assert learner.score(*asked) > 0.8


@pytest.mark.parametrize("size", [1, 4, 30])
def test_more_rows_of_the_same_kind_do_no_harm_however_few_come_at_a_time(size: int) -> None:
    X, y = reads(240, shares=(0.44, 0.56), seed=15)
    asked, truth = reads(300, shares=(0.44, 0.56), seed=16)
    learner = TitansDNAClassifier(**FAST).fit(X[:200], y[:200])
    before = log_loss(truth, learner.predict_proba(asked))
    for first in range(200, 200 + min(40, 12 * size), size):
        learner.partial_fit(X[first : first + size], y[first : first + size])
    assert log_loss(truth, learner.predict_proba(asked)) < before + 0.02


@pytest.mark.parametrize("beside", [1, 10], ids=["a family", "single ones"])
def test_a_stretch_that_most_share_makes_no_relatives(beside: int) -> None:
    flanks = reads(1 + beside, 35, shares=(0.5,), seed=17)[0]
    X, y = reads(120, seed=18)
    X = [flanks[1 + row % beside if row < 10 else 0] + each for row, each in enumerate(X)]
    with pytest.warns(UserWarning, match=r"more than 10% .* share stretches of 30 .* primers"):
        classifier = TitansDNAClassifier(**FAST | {"n_networks": 2}).fit(X, y)
    assert len(classifier.held_out_) > len(X) / 3


def test_learning_on_leaves_what_was_learned_whole_when_it_fails(
    quick: TitansDNAClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, expected = quick.model_, quick.predict_proba(UNSEEN)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("titans_core.training_run.TrainingRun.check", interrupted)
    for learn in (quick.partial_fit, quick.fit):
        with pytest.raises(KeyboardInterrupt):
            learn(X, Y)
        assert quick.model_ is model
    np.testing.assert_array_equal(quick.predict_proba(UNSEEN), expected)


# Small, short and long


@pytest.mark.parametrize(("length", "dilations"), [(149, (1, 2)), (150, (1, 2, 4))])
def test_cells_see_further_in_longer_sequences(length: int, dilations: tuple[int, ...]) -> None:
    X, y = reads(40, length)
    classifier = fit(X, y, **QUICKEST)
    config = classifier.model_.networks[0].config
    assert config.dilations == dilations
    assert 2 * config.reach > 0.4 * length


@pytest.mark.parametrize("lengths", [(1, 1), (1, 3), (2, 2)])
def test_any_length_from_one_will_do(lengths: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    X = [x * int(rng.integers(lengths[0], lengths[1] + 1)) for x in "AG" * 10]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "nothing can be held out")  # all are relatives
        classifier = fit(X, Y[:20])
    assert classifier.score(X, Y[:20]) == 1


def test_a_handful_of_rows_will_do() -> None:
    for n in (2, 3):
        with pytest.warns(UserWarning, match=r"nothing can be held out, as a class has 1 row:"):
            classifier = fit(X[:n], Y[:n])
        p = classifier.predict_proba(UNSEEN)
        assert np.isfinite(p).all()
    assert classifier.held_out_probabilities_.shape == (len(classifier.held_out_), 2)


def test_rows_that_are_all_alike_are_learned_as_they_are() -> None:
    with pytest.warns(UserWarning, match=r"the 12 sequences are of 1 group.*validation='random'"):
        classifier = fit(["ACGTACGTAC"] * 12, Y[:12])
    np.testing.assert_allclose(classifier.predict_proba(["ACGTACGTAC"]), 0.5, atol=0.1)
    unknown = fit(["N" * 12] * 12, Y[:12], validation="random")
    assert np.isfinite(unknown.predict_proba(["N" * 12, "ACGTACGTACGT"])).all()


def test_a_rare_class_costs_the_others_nothing() -> None:
    rare = "".join(np.random.default_rng(9).choice(list("ACGT"), len(X[0])))
    for extra in ([rare], [rare, rare[::-1]]):
        classifier = fit([*X, *extra], [*Y, *["rare"] * len(extra)], **QUICKEST)
        assert len(classifier.held_out_)
        assert classifier.held_out_.max() < len(X), "the rare one is always learned from"
        assert "rare" in classifier.classes_


def test_labels_are_scored_in_all_the_ways_they_are_learned(
    quick: TitansDNAClassifier, tmp_path: Path
) -> None:
    names = [f"r{i}" for i in range(len(X))]
    (tmp_path / "s.fa").write_text("".join(f">{n}\n{x}\n" for n, x in zip(names, X, strict=True)))
    table = pd.DataFrame({"id": names, "label": Y}).sample(frac=1, random_state=0)
    table.to_csv(tmp_path / "labels.csv", index=False)
    expected = quick.score(X, Y)
    assert quick.score(tmp_path / "s.fa", tmp_path / "labels.csv") == expected
    assert quick.score(pd.DataFrame({"sequence": X, "label": Y}), "label") == expected
    assert quick.score(X, Y, sample_weight=np.ones(len(X))) == pytest.approx(expected)
    with pytest.raises(ValueError, match="needs one for each"):
        quick.score(X, Y[:-1])


@pytest.mark.parametrize(
    ("asked", "got"),
    [(None, "None"), (pd.DataFrame({"sequence": []}), "DataFrame without any"), ({1}, "set with")],
)
def test_what_holds_nothing_is_not_called_numbers(
    quick: TitansDNAClassifier, asked: object, got: str
) -> None:
    with pytest.raises(ValueError, match=f"was fitted on DNA sequences; got {got}"):
        quick.predict(asked)


def test_numbers_of_any_size_will_do() -> None:
    y = np.arange(30) % 2
    X = np.random.default_rng(0).normal(size=(30, 3)) + 3 * y[:, None]
    expected = fit(X, y).predict_proba(X)
    for scale in (1e-200, 1e30, 1e200):
        classifier = fit(X * scale, y)
        np.testing.assert_allclose(classifier.predict_proba(X * scale), expected, atol=1e-3)
        far = np.array([[1e300, -1e300, 0], [0, 0, 1e-300]])
        assert np.isfinite(classifier.predict_log_proba(far)).all()


def test_a_constant_column_says_nothing() -> None:
    y = np.arange(30) % 2
    X = np.random.default_rng(0).normal(size=(30, 3)) + 3 * y[:, None]
    X[:, 1] = 1e20 / 3
    assert fit(X, y).score(X, y) > 0.9


def test_long_sequences_are_learned_from_in_crops_and_read_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    widths = []
    from titans_dna.network import SequenceNetwork

    embed = SequenceNetwork.embed

    def watched(network: SequenceNetwork, sequences: torch.Tensor) -> Any:
        if network.training:
            widths.append(sequences.shape[1])
        return embed(network, sequences)

    monkeypatch.setattr(SequenceNetwork, "embed", watched)
    X, y = reads(24, 900)
    classifier = fit(X, y, crop=100, **QUICKEST)
    assert set(widths) == {100}
    assert classifier.length_ is None
    assert classifier.score(*reads(12, 900, seed=2)) > 0.8
    ends = ["A" * 400 + x[:100] + "A" * 400 for x in X[:2]]
    changed = ["G" * 400 + x[400:] for x in ends]
    assert np.abs(classifier.predict_proba(ends) - classifier.predict_proba(changed)).max() > 1e-4


def test_places_are_learned_where_all_sequences_have_one_length() -> None:
    rng = np.random.default_rng(0)
    X = np.array([list("".join(rng.choice(list("ACGT"), 24))) for _ in range(80)])
    y = np.arange(80) % 2
    X[y == 1, 11:14] = list("TAT")  # the same letters are anywhere in the other class
    X[y == 0, 3:6] = list("TAT")
    data = ["".join(row) for row in X], y
    classifier = fit(*data)
    assert classifier.length_ == 24
    assert any("positional" in name for name in classifier.model_.experts)
    assert classifier.score(*data) > 0.9
    pooled = fit(*data, head="pooled", **QUICKEST)
    assert pooled.length_ is None
    assert pooled.predict(["ACGT", "ACGTACGTACGT" * 9]).shape == (2,)
