"""The classifier as its users ask it: kinds of input, streams, company, strands, masks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from dna_inputs import (
    QUICKEST,
    all_speak,
    fit,
    hurried,  # noqa: F401  # pytest finds the fixture by its name here
    odd_reads,
    opposite,
    reads,
    write_fasta,
)

from titans_dna import TitansDNAClassifier, fitting, read_sequences
from titans_dna.alphabet import PAD, encode
from titans_dna.inference import BATCH_BASES

X, Y = reads()
UNSEEN = reads(20, seed=5)[0]


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


def test_a_chromosome_is_predicted_in_bounded_memory(
    quick: TitansDNAClassifier, tmp_path: Path
) -> None:
    quick.save(tmp_path / "model")
    # Not `ru_maxrss`: a child's begins at what its parent had.
    code = f"""
import re, numpy as np, torch
from pathlib import Path
from titans_dna import TitansDNAClassifier
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
classifier = TitansDNAClassifier.load({str(tmp_path / "model")!r})
classifier.predict(["ACGT" * 5000])
before = peak()
tokens = np.random.default_rng(0).integers(0, 4, 600_000).astype(np.uint8)
p = classifier.predict_proba([tokens])
assert np.isfinite(p).all()
print(peak() - before)
"""
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert float(answer.stdout) < 300  # MiB; all cells at once would be over 450
