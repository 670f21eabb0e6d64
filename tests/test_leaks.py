"""Overlaps and homology groups against brute force, and splits that keep relatives together."""

from __future__ import annotations

import json

import numpy as np
import pytest

from titans_dna import homology
from titans_dna.alphabet import decode, reverse_complement
from titans_dna.leaks import homology_groups, homology_split, leak_report
from titans_dna.sequences import read_sequences

K = 8


def other_strand(sequence: str) -> str:
    return decode(reverse_complement(read_sequences([sequence]).tokens))


def words(sequence: str, k: int) -> set[str]:
    """K-mers of both strands."""
    return {
        strand[i : i + k]
        for strand in (sequence.upper(), other_strand(sequence.upper()))
        for i in range(len(sequence) - k + 1)
        if set(strand[i : i + k]) <= set("ACGT")
    }


def relatives(n: int, *, seed: int = 0) -> list[str]:
    """Sequences of unequal lengths, many with stretches of earlier ones, some whole."""
    rng = np.random.default_rng(seed)
    found: list[str] = []
    for i in range(n):
        bases = "".join(rng.choice(list("ACGTacgtN"), rng.integers(1, 60), p=[0.12] * 8 + [0.04]))
        if i and rng.random() < 0.5:
            source = found[rng.integers(i)]
            if rng.random() < 0.3:
                bases = source
            else:
                at = rng.integers(len(source))
                bases = bases[:20] + source[at : at + rng.integers(2, 20)] + bases[20:]
            bases = other_strand(bases) if rng.random() < 0.5 else bases
        found.append(bases)
    return found


def overlap(a: str, b: str, k: int) -> str:
    a, b = a.upper(), b.upper()
    if a == b:
        return "exact duplicate"
    if a == other_strand(b):
        return "reverse complement"
    return "near duplicate" if words(a, k) & words(b, k) else "none"


@pytest.fixture(params=[1 << 24, 400])
def passes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """All k-mers at once, and in several passes."""
    monkeypatch.setattr(homology, "_PASS_BASES", request.param)
    return request.param


def test_overlaps_are_those_of_comparing_every_pair(passes: int) -> None:
    X = relatives(100)
    train, test = X[::2], X[1::2]
    report = leak_report(train, test, K)
    kinds = ["none", "near duplicate", "reverse complement", "exact duplicate"]
    for i, row in enumerate(test):
        expected = max((overlap(row, other, K) for other in train), key=kinds.index)
        assert kinds[report.kind[i]] == expected
        if expected == "none":
            assert report.match[i] == -1
            assert report.covered[i] == 0
        else:
            assert overlap(row, train[report.match[i]], K) == expected
    assert len(set(report.kind)) == 4
    parts = [report.exact, report.reverse_complement, report.near, report.clean]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(test)))
    np.testing.assert_array_equal(report.overlapping, np.flatnonzero(report.kind))


def test_coverage_is_the_share_of_bases_in_shared_stretches(passes: int) -> None:
    X = relatives(80, seed=1)
    train, test = X[::2], X[1::2]
    known = set().union(*(words(row, K) for row in train))
    report = leak_report(train, test, K)
    for i in report.near:
        row = test[i].upper()
        starts = [s for s in range(len(row) - K + 1) if row[s : s + K] in known]
        shared = {j for s in starts for j in range(s, s + K)}
        assert report.covered[i] == pytest.approx(len(shared) / len(row))


def test_the_match_is_the_row_with_most_shared_kmers() -> None:
    rng = np.random.default_rng(0)
    a, b = ("".join(rng.choice(list("ACGT"), 50)) for _ in range(2))
    report = leak_report([a, b], [a[:12] + "N" + b[:30]], K)
    assert report.match.tolist() == [1]


def test_groups_are_the_components_of_comparing_every_pair(passes: int) -> None:
    X = relatives(70, seed=2)
    groups = homology_groups(X, K)
    label = np.arange(len(X))
    for i in range(len(X)):
        for j in range(i):
            if overlap(X[i], X[j], K) != "none":
                label[label == label[i]] = label[j]
    same = label[:, None] == label
    np.testing.assert_array_equal(groups[:, None] == groups, same)
    first = [int(np.flatnonzero(groups == group)[0]) for group in range(groups.max() + 1)]
    assert first == sorted(first)
    assert 1 < len(first) < len(X)


def test_a_tandem_repeat_joins_only_if_repeats_count() -> None:
    rng = np.random.default_rng(0)
    X = ["".join(rng.choice(list("ACGT"), 40)) + "CA" * 20 for _ in range(3)]
    assert homology_groups(X).tolist() == [0, 0, 0]
    assert homology_groups(X, skip_repeats=True).tolist() == [0, 1, 2]
    assert leak_report(X[:2], X[2:]).near.tolist() == [0]
    report = leak_report(X[:2], X[2:], skip_repeats=True)
    assert report.clean.tolist() == [0]
    assert "tandem repeats left out" in str(report)


def test_rows_without_kmers_are_compared_as_a_whole() -> None:
    train, test = ["ACGTAC", "ANNNNNNNNNNA"], ["GTACGT", "ACGTA", "annnnnnnnnna"]
    report = leak_report(train, test, K)
    assert report.kind.tolist() == [2, 0, 3]
    assert report.to_dict()["n_without_kmers"] == 3
    assert "without 8 plain bases in a row" in str(report)
    assert homology_groups(train + test, K).tolist() == [0, 1, 0, 2, 1]


def test_labels_tell_what_the_overlap_alone_would_score() -> None:
    rng = np.random.default_rng(0)
    known, new = (["".join(rng.choice(list("ACGT"), 60)) for _ in range(10)] for _ in range(2))
    y_train = ["neg"] * 8 + ["pos"] * 2
    test = [row[10:50] for row in known[:9]] + new
    y_test = ["neg"] * 8 + ["neg"] + ["pos"] * 10
    report = leak_report(known, test, y_train=y_train, y_test=y_test)
    found = report.to_dict()
    assert found["n_near"] == 9
    assert found["copying_accuracy"] == pytest.approx(8 / 9)
    assert found["overlap_accuracy"] == 1.0
    assert found["majority_accuracy"] == pytest.approx(10 / 19)
    assert found["classes"] == [
        {"class": "neg", "n_test": 9, "n_overlapping": 9, "n_copied_right": 8},
        {"class": "pos", "n_test": 10, "n_overlapping": 0, "n_copied_right": 0},
    ]
    assert json.loads(json.dumps(found)) == found
    frame = report.to_frame()
    assert frame["test_row"].tolist() == list(range(9))
    assert frame["train_row"].tolist() == list(range(9))
    assert frame["copied_label"].tolist() == ["neg"] * 8 + ["pos"]
    assert "copying the overlapped rows' label is right for 8" in str(report)


def test_a_report_without_overlaps_or_labels_can_be_shown() -> None:
    report = leak_report(["ACGTTGCAAGT"], ["GGGGGGGGGGGG"], K)
    assert report.to_frame().empty
    assert f"share no {report.k} bases" in str(report)
    assert report._repr_html_().startswith("<table><tr><td>training rows</td><td>1</td>")
    assert repr(report) == "<LeakReport: 0 of 1 test rows overlap training>"


def test_names_of_records_come_with_the_frame() -> None:
    report = leak_report({"chr1": "ACGTTGCAAGT"}, {"a": "TTTTTTTTTT", "b": "ACGTTGCAAGT"}, K)
    frame = report.to_frame()
    assert frame[["test_name", "train_name"]].to_numpy().tolist() == [["b", "chr1"]]


def families(sizes: list[int], *, seed: int = 0) -> list[str]:
    """Groups of relatives of these sizes."""
    rng = np.random.default_rng(seed)
    found = []
    for size in sizes:
        core = "".join(rng.choice(list("ACGT"), 40))
        found += ["".join(rng.choice(list("ACGT"), 10)) + core for _ in range(size)]
    return found


@pytest.mark.parametrize("test_size", [0.1, 0.2, 0.5])
def test_a_split_cuts_no_group_and_keeps_sizes_and_classes(test_size: float) -> None:
    sizes = [12, 9, 7, 5, 4, 3, 3, 2, 2, 2] + [1] * 151
    X = families(sizes)
    y = np.random.default_rng(0).choice(["a", "b", "c"], len(X), p=[0.6, 0.3, 0.1])
    train, test = homology_split(X, y, test_size)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(len(X)))
    groups = homology_groups(X)
    assert not set(groups[train]) & set(groups[test])
    assert not len(leak_report([X[i] for i in train], [X[i] for i in test]).overlapping)
    assert abs(len(test) - test_size * len(X)) <= 2
    for name in "abc":
        assert abs((y[test] == name).sum() - test_size * (y == name).sum()) <= 1
    # Large and small groups are in both parts.
    assert {np.bincount(groups)[groups[part]].max() > 1 for part in (train, test)} == {True}


def test_a_split_is_drawn_by_its_random_state_and_stays() -> None:
    X = families([3] * 30 + [1] * 30)
    first, again, other = (homology_split(X, random_state=seed)[1] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert first.tolist() != other.tolist()
    assert np.all(np.diff(first) > 0)


def test_a_giant_group_goes_to_training_with_a_warning_if_the_rest_is_too_small() -> None:
    X = families([90] + [1] * 10)
    with pytest.warns(UserWarning, match="holds 10 of 100 rows, not the share of 0.3 .* 90 of 100"):
        train, test = homology_split(X, test_size=0.3)
    assert (len(train), len(test)) == (90, 10)


def test_one_group_of_all_cannot_be_split() -> None:
    with pytest.raises(ValueError, match="all 5 sequences hang together by shared 30-mers"):
        homology_split(families([5]))


def test_a_class_of_one_group_is_missing_from_a_part_with_a_warning() -> None:
    X = families([4] + [1] * 36)
    with pytest.warns(UserWarning, match="the test part has no row of class 'rare'"):
        homology_split(X, ["rare"] * 4 + ["common"] * 36)


def test_two_sequences_give_a_row_each() -> None:
    train, test = homology_split(families([1, 1]), test_size=0.05)
    assert (len(train), len(test)) == (1, 1)


def test_misuse_is_named() -> None:
    with pytest.raises(ValueError, match="`k` must be an int from 1 to 31; got 32"):
        leak_report(["ACGT"], ["ACGT"], 32)
    with pytest.raises(ValueError, match="`k` must be an int from 1 to 31; got 0"):
        homology_groups(["ACGT"], 0)
    with pytest.raises(ValueError, match="labels of both parts"):
        leak_report(["ACGT"], ["ACGT"], y_train=[1])
    with pytest.raises(ValueError, match="y_test must hold one label for each of the 1"):
        leak_report(["ACGT"], ["ACGT"], y_train=[1], y_test=[1, 2])
    with pytest.raises(ValueError, match="`test_size` must be a share between 0 and 1; got 20"):
        homology_split(["ACGT", "GGGG"], test_size=20)
    with pytest.raises(ValueError, match="y has 1 label for 2 sequences; needs one"):
        homology_split(["ACGT", "GGGG"], [1])
