"""The classifier as its users meet it: inputs, strands, company, weights, later batches."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from dna_inputs import FAST, QUICKEST, odd_reads, opposite, reads, write_fasta

from titans_core.training import TrainingConfig
from titans_dna import TitansDNAClassifier, fitting, read_sequences
from titans_dna.alphabet import PAD, encode
from titans_dna.blend import Blend
from titans_dna.inference import BATCH_BASES
from titans_dna.network import opposite_strand

X, Y = reads()
UNSEEN = reads(20, seed=5)[0]


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


@pytest.fixture(scope="module")
def ragged() -> TitansDNAClassifier:
    return all_speak(fit(X, Y, reverse_complement="average"))


@pytest.fixture(scope="module")
def aligned() -> TitansDNAClassifier:
    return all_speak(fit(*reads(length=31), reverse_complement=None))


@pytest.fixture(scope="module")
def quick() -> TitansDNAClassifier:
    return fit(X, Y, **QUICKEST)


# What is asked, and how


def test_it_tells_classes_apart(ragged: TitansDNAClassifier) -> None:
    assert ragged.score(*reads(60, seed=7)) > 0.9
    p = ragged.predict_proba(UNSEEN)
    np.testing.assert_allclose(p.sum(1), 1)
    np.testing.assert_array_equal(ragged.classes_[p.argmax(1)], ragged.predict(UNSEEN))
    np.testing.assert_allclose(np.exp(ragged.predict_log_proba(UNSEEN)), p)
    odds = ragged.decision_function(UNSEEN)
    np.testing.assert_allclose(odds, np.log(p[:, 1] / p[:, 0]))


def test_the_kinds_of_input_get_the_same_answers(
    ragged: TitansDNAClassifier, tmp_path: Path
) -> None:
    expected = ragged.predict_proba(UNSEEN)
    rows = list(map(encode, UNSEEN))
    matrix = np.full((len(rows), max(map(len, rows))), PAD, np.uint8)
    for row, tokens in zip(matrix, rows, strict=True):
        row[: len(tokens)] = tokens
    path = write_fasta(tmp_path / "unseen.fa", UNSEEN)
    frame = pd.DataFrame({"id": range(20), "sequence": UNSEEN})
    frame.to_csv(tmp_path / "unseen.csv", index=False)
    kinds: list[Any] = [
        tuple(UNSEEN),
        [x.encode() for x in UNSEEN],
        [x.lower() for x in UNSEEN],
        np.array(UNSEEN),
        np.array(UNSEEN, dtype=object),
        pd.Series(UNSEEN),
        pl.Series(UNSEEN),
        frame,
        pl.DataFrame({"sequence": UNSEEN, "gc": [0.5] * 20}),
        rows,
        matrix,
        iter(UNSEEN),
        path,
        str(path),
        [path],
        tmp_path / "unseen.csv",
        read_sequences(UNSEEN),
    ]
    for kind in kinds:
        np.testing.assert_array_equal(ragged.predict_proba(kind), expected)


def test_fitting_on_any_kind_of_input_is_the_same_fit(
    quick: TitansDNAClassifier, tmp_path: Path
) -> None:
    headers = [f"r{row} class={label}" for row, label in enumerate(Y)]
    fasta = write_fasta(tmp_path / "all.fa", X, headers)
    frame = pl.DataFrame({"dna": X, "kind": Y})
    expected = quick.predict_proba(UNSEEN)
    for data in ((np.array(X), np.array(Y)), (frame, "kind"), (fasta, r"re:class=(\w+)")):
        np.testing.assert_array_equal(fit(*data, **QUICKEST).predict_proba(UNSEEN), expected)


@pytest.mark.parametrize(
    "labels", [("no", "yes"), (3, 11), (False, True), (-1.0, 2.0), ("ø", "é-site")]
)
def test_labels_come_back_as_what_they_were(labels: tuple[Any, Any], tmp_path: Path) -> None:
    y = [labels[label == "c1"] for label in Y]
    classifier = fit(X[:30], y[:30], **QUICKEST)
    assert classifier.classes_.tolist() == sorted(labels)
    assert type(classifier.classes_.tolist()[0]) is type(labels[0])
    predicted = classifier.predict(UNSEEN)
    assert predicted.dtype == classifier.classes_.dtype
    assert set(predicted.tolist()) <= set(labels)
    assert np.mean(predicted == [labels[i % 2] for i in range(20)]) > 0.7
    classifier.save(tmp_path / "model")
    loaded = TitansDNAClassifier.load(tmp_path / "model")
    assert loaded.classes_.dtype == classifier.classes_.dtype
    np.testing.assert_array_equal(loaded.predict(UNSEEN), predicted)


def test_frames_answer_in_their_own_library_with_the_names_of_records(
    ragged: TitansDNAClassifier, tmp_path: Path
) -> None:
    p = ragged.predict_proba(UNSEEN)
    frame = ragged.predict_frame(UNSEEN)
    assert isinstance(frame, pd.DataFrame)
    assert list(frame.columns) == ["id", "prediction", "p_c0", "p_c1"]
    assert frame["id"].tolist() == list(range(20))
    np.testing.assert_array_equal(frame[["p_c0", "p_c1"]], p)
    asked = pl.DataFrame({"id": [f"q{i}" for i in range(20)], "sequence": UNSEEN})
    answered = ragged.predict_frame(asked)
    assert isinstance(answered, pl.DataFrame)
    assert answered["id"].to_list() == asked["id"].to_list()
    assert answered["prediction"].to_list() == ragged.predict(UNSEEN).tolist()
    path = write_fasta(tmp_path / "unseen.fa", UNSEEN)
    assert ragged.predict_frame(path)["id"].tolist() == [f"r{row}" for row in range(20)]


@pytest.mark.parametrize("batch_bases", [1, 100, 2**20])
def test_predicting_in_a_stream_is_predicting_at_once(
    ragged: TitansDNAClassifier, tmp_path: Path, batch_bases: int
) -> None:
    path = write_fasta(tmp_path / "unseen.fa", UNSEEN)
    for asked in (UNSEEN, path, iter(UNSEEN)):
        parts = list(ragged.iter_predict(asked, batch_bases=batch_bases))
        whole = ragged.predict_frame(path if asked is path else UNSEEN)
        joined = pd.concat(parts, ignore_index=True)
        pd.testing.assert_frame_equal(joined, whole, rtol=0, atol=1e-6)
        assert len(parts) == {1: 20, 2**20: 1}.get(batch_bases, len(parts))


def test_a_stream_is_read_no_further_than_it_is_asked_for(quick: TitansDNAClassifier) -> None:
    taken = []

    def endless() -> Any:
        while True:
            taken.append(1)
            yield "ACGTACGTAC"

    stream = quick.iter_predict(endless(), batch_bases=100)
    assert len(next(stream)) == 10
    assert len(taken) <= 11


# Company and strands


def test_no_answer_depends_on_its_company(
    ragged: TitansDNAClassifier, aligned: TitansDNAClassifier
) -> None:
    for classifier, asked in ((ragged, odd_reads(40)), (aligned, odd_reads(40, 31))):
        together = classifier.predict_proba(asked)
        embedded = classifier.transform(asked)
        order = np.random.default_rng(0).permutation(len(asked))
        shuffled = [asked[i] for i in order]
        np.testing.assert_allclose(classifier.predict_proba(shuffled), together[order], atol=1e-6)
        alone = np.concatenate([classifier.predict_proba([x]) for x in asked])
        np.testing.assert_allclose(alone, together, rtol=0, atol=1e-6)
        three = [classifier.transform(asked[i : i + 3]) for i in range(0, 40, 3)]
        np.testing.assert_allclose(np.concatenate(three), embedded, rtol=0, atol=1e-5)
    beside = ragged.predict_proba([*odd_reads(5), "ACGT" * 700])[:5]
    np.testing.assert_allclose(beside, ragged.predict_proba(odd_reads(5)), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("strands", "length"),
    [("average", None), ("equivariant", None), ("average", 31), ("equivariant", 40)],
)
def test_both_strands_of_a_sequence_get_the_same_probabilities(
    strands: str, length: int | None, ragged: TitansDNAClassifier
) -> None:
    classifier = ragged
    if (strands, length) != ("average", None):
        classifier = all_speak(fit(*reads(40, length), reverse_complement=strands))
    assert len(classifier.model_.experts) > 3  # the linear ones too
    asked = [*odd_reads(40, length), *reads(20, length, seed=3)[0]]
    np.testing.assert_allclose(
        classifier.predict_proba(asked),
        classifier.predict_proba(opposite(asked)),
        rtol=0,
        atol=1e-6,
    )


def test_one_strand_is_told_from_the_other_where_it_matters() -> None:
    rng = np.random.default_rng(1)
    X = ["".join(rng.choice(list("ACGT"), 40, p=[0.55, 0.15, 0.15, 0.15])) for _ in range(60)]
    X[::2] = opposite(X[::2])
    y = np.arange(60) % 2
    classifier = fit(X, y)
    assert classifier.strands_ is None
    assert classifier.score(X, y) > 0.9
    assert np.mean(classifier.predict(opposite(X)) == y) < 0.1


def test_sequences_longer_than_a_batch_are_read_piece_by_piece_to_the_same_answer(
    quick: TitansDNAClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = ["".join(reads(1, 3000, shares=(s,))[0]) + "N" * 200 + "ACG" * 50 for s in (0.2, 0.8)]
    expected = quick.predict_proba(long)
    assert max(map(len, long)) < BATCH_BASES
    monkeypatch.setattr("titans_dna.inference.BATCH_BASES", 500)
    monkeypatch.setattr(fitting, "TOKEN_BASES", 16)
    np.testing.assert_allclose(quick.predict_proba(long), expected, rtol=0, atol=1e-5)


# Bases that are no bases


def test_runs_of_unknown_bases_do_not_drown_what_is_known(ragged: TitansDNAClassifier) -> None:
    p = ragged.predict_proba(["N", "N" * 300, "n" * 40])
    assert np.isfinite(p).all()
    diluted = ["N" * 100 + x + "N" * 100 for x in reads(20, 60, seed=4)[0]]
    assert np.mean(ragged.predict(diluted) == reads(20, 60, seed=4)[1]) > 0.8


def test_soft_masked_bases_are_unknown_ones_where_the_policy_says_so(
    quick: TitansDNAClassifier,
) -> None:
    mixed = [x[:10] + x[10:20].lower() + x[20:] for x in X]
    masked = fit(mixed, Y, soft_mask="mask", **QUICKEST)
    hidden = [x[:10] + "N" * 10 + x[20:] for x in X]
    by_hand = fit(hidden, Y, **QUICKEST)
    np.testing.assert_array_equal(masked.predict_proba(mixed), by_hand.predict_proba(hidden))
    other = [x[:10] + "ggggacggcg" + x[20:] for x in X]
    np.testing.assert_array_equal(masked.predict_proba(mixed), masked.predict_proba(other))
    upper = [x.upper() for x in mixed]
    np.testing.assert_array_equal(quick.predict_proba(mixed), quick.predict_proba(upper))
    assert not np.array_equal(masked.predict_proba(mixed), masked.predict_proba(upper))


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

    def watched(inputs: Any, y: Any, weights: Any, folds: Any, recipe: Any) -> Any:
        seen.extend(folds)
        return make(inputs, y, weights, folds, recipe)

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


@pytest.mark.parametrize("lengths", [(1, 1), (1, 3), (2, 2)])
def test_any_length_from_one_will_do(lengths: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    X = [x * int(rng.integers(lengths[0], lengths[1] + 1)) for x in "AG" * 10]
    classifier = fit(X, Y[:20])
    assert classifier.score(X, Y[:20]) == 1


def test_a_handful_of_rows_will_do() -> None:
    for n in (2, 3):
        classifier = fit(X[:n], Y[:n])
        p = classifier.predict_proba(UNSEEN)
        assert np.isfinite(p).all()
    assert classifier.held_out_probabilities_.shape == (len(classifier.held_out_), 2)


def test_rows_that_are_all_alike_are_learned_as_they_are() -> None:
    classifier = fit(["ACGTACGTAC"] * 12, Y[:12])
    np.testing.assert_allclose(classifier.predict_proba(["ACGTACGTAC"]), 0.5, atol=0.1)
    unknown = fit(["N" * 12] * 12, Y[:12])
    assert np.isfinite(unknown.predict_proba(["N" * 12, "ACGTACGTACGT"])).all()


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


def test_a_chromosome_is_predicted_in_bounded_memory(
    quick: TitansDNAClassifier, tmp_path: Path
) -> None:
    quick.save(tmp_path / "model")
    code = f"""
import resource, numpy as np, torch
from titans_dna import TitansDNAClassifier
classifier = TitansDNAClassifier.load({str(tmp_path / "model")!r})
classifier.predict(["ACGT" * 5000])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
tokens = np.random.default_rng(0).integers(0, 4, 600_000).astype(np.uint8)
p = classifier.predict_proba([tokens])
assert np.isfinite(p).all()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert float(answer.stdout) < 300  # MiB; all cells at once would be over 450
