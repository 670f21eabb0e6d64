"""Long words, and who is a relative: what tells sequences of known genomes, and when it may."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dna_inputs import FAST, odd_reads, opposite, reads
from sklearn.linear_model import Ridge

from titans_core.persistence import load_tree, save_tree
from titans_dna import TitansDNAClassifier, homology_groups, read_sequences
from titans_dna import words as words_module
from titans_dna.cli_output import facts_of_model
from titans_dna.relatives import find_relatives
from titans_dna.words import WordPart

STRAINS, READ = 3, 150
RNG = np.random.default_rng(0)


def strain_reads(n: int, seed: int, errors: float = 0.0) -> tuple[list[str], np.ndarray]:
    """Reads of three genomes of 2000 bases that differ in about one base of 50."""
    rng = np.random.default_rng(0)
    ancestor = rng.integers(0, 4, 2000)
    genomes = []
    for _ in range(STRAINS):
        genome = ancestor.copy()
        genome[rng.choice(2000, 40, replace=False)] = rng.integers(0, 4, 40)
        genomes.append(genome)
    rng = np.random.default_rng(seed)
    X, y = [], rng.integers(0, STRAINS, n)
    for strain in y:
        first = rng.integers(0, 2000 - READ)
        read = genomes[strain][first : first + READ].copy()
        wrong = rng.random(READ) < errors
        read[wrong] = rng.integers(0, 4, wrong.sum())
        X.append("".join("ACGT"[base] for base in read))
    return X, y


def thirds(n: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rows = np.arange(n)
    return [(rows[rows % 3 != third], rows[rows % 3 == third]) for third in range(3)]


@pytest.fixture(scope="module")
def part() -> WordPart:
    X, y = strain_reads(300, seed=1)
    part = WordPart()
    part.cross_fit(read_sequences(X), y, np.ones(STRAINS), thirds(300))
    return part


def test_words_tell_strains_a_base_apart(part: WordPart) -> None:
    asked, truth = strain_reads(300, seed=2)
    right = part.probabilities(read_sequences(asked)).argmax(1) == truth
    assert right.mean() > 0.93


def test_the_ridge_is_the_one_that_it_says_it_is(part: WordPart) -> None:
    X, y = strain_reads(300, seed=1)

    def words_of(read: str) -> set[str]:
        return {
            min(w, opposite([w])[0])
            for w in (read[i : i + part.k] for i in range(len(read) - part.k + 1))
        }

    sets = [words_of(read) for read in X]
    everything = sorted(set().union(*sets))
    recurring = [w for w in everything if sum(w in s for s in sets) > 1]
    assert len(recurring) == len(part.known)
    table = np.array([[w in s for w in recurring] for s in sets], float)
    table /= np.sqrt(table.sum(1, keepdims=True))
    off = []
    for penalty in (0.03, 0.3, 3.0):  # one of them was chosen
        ridge = Ridge(alpha=penalty).fit(table, np.eye(STRAINS)[y])
        p = np.exp(part.sharpness * ridge.predict(table))
        p /= p.sum(1, keepdims=True)
        off.append(np.abs(p - part.probabilities(read_sequences(X))).max())
    assert min(off) < 0.01 < sorted(off)[1]


def test_held_out_answers_come_from_the_other_rows() -> None:
    X, y = strain_reads(120, seed=3)
    folds = thirds(120)
    said = WordPart().cross_fit(read_sequences(X), y, np.ones(STRAINS), folds)
    assert (np.concatenate(said).argmax(1) == np.concatenate([y[h] for _, h in folds])).mean() > 0.6
    nothing = RNG.integers(0, STRAINS, 120)  # to find: who knows the answer has seen it
    said = WordPart().cross_fit(read_sequences(X), nothing, np.ones(STRAINS), folds)
    right = np.concatenate(said).argmax(1) == np.concatenate([nothing[h] for _, h in folds])
    assert right.mean() < 0.5


def test_answers_are_of_each_sequence_alone_on_either_strand_and_stored_whole(
    part: WordPart, tmp_path: Path
) -> None:
    asked = strain_reads(20, seed=4, errors=0.05)[0] + odd_reads(40)
    p = part.probabilities(read_sequences(asked))
    assert np.isfinite(p).all()
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-6)
    one_by_one = [part.probabilities(read_sequences([x])) for x in asked]
    np.testing.assert_array_equal(np.concatenate(one_by_one), p)
    np.testing.assert_array_equal(part.probabilities(read_sequences(opposite(asked))), p)
    save_tree(tmp_path / "part", part.to_dict(), kind="part")
    again = WordPart.from_dict(load_tree(tmp_path / "part", kind="part"))
    np.testing.assert_array_equal(again.probabilities(read_sequences(asked)), p)


def test_class_weights_move_words() -> None:
    X, y = strain_reads(150, seed=5, errors=0.1)
    shares = []
    for weights in (np.ones(STRAINS), np.array([1.0, 1.0, 20.0])):
        said = WordPart().cross_fit(read_sequences(X), y, weights, thirds(150))
        shares.append(np.concatenate(said)[:, 2].mean())
    assert shares[1] > shares[0] + 0.05


@pytest.mark.parametrize("length", [5, 40])
def test_without_a_word_in_common_the_shares_of_the_classes_are_all_there_is(length: int) -> None:
    X, y = reads(30, length, shares=(0.5,))[0], np.arange(30) % 3 // 2
    part = WordPart()
    part.cross_fit(read_sequences(X), y, np.ones(2), [])
    p = part.probabilities(read_sequences(["ACGT", "ACGTACGTACGTACGT"]))
    assert (p[:, 0] > p[:, 1]).all()


def test_a_part_of_the_words_will_do(monkeypatch: pytest.MonkeyPatch, part: WordPart) -> None:
    X, y = strain_reads(300, seed=1)
    monkeypatch.setattr(words_module, "_FEWEST_WORDS", len(X) * READ // 3)
    monkeypatch.setattr(words_module, "_MOST_PRODUCTS", 0)
    fewer = WordPart()
    fewer.cross_fit(read_sequences(X), y, np.ones(STRAINS), thirds(300))
    assert 0.2 * len(part.known) < len(fewer.known) < 0.5 * len(part.known)
    asked, truth = strain_reads(300, seed=2)
    right = [
        (each.probabilities(read_sequences(asked)).argmax(1) == truth).mean()
        for each in (fewer, part)
    ]
    assert right[0] > right[1] - 0.1


# Relatives


def test_whoever_can_be_kept_together_is() -> None:
    family = strain_reads(20, seed=6)[0]
    X = reads(100, READ, shares=(0.5,), seed=7)[0] + family
    y = np.arange(120) % 2
    found = find_relatives(read_sequences(X), y)
    np.testing.assert_array_equal(found.groups, homology_groups(X))
    assert not found.n_parted
    assert not found.share_common


def test_a_group_that_leaves_nothing_to_hold_out_is_divided_copies_aside() -> None:
    X = strain_reads(200, seed=8)[0]
    X = X + opposite(X[:20]) + reads(30, READ, shares=(0.5,), seed=9)[0]
    found = find_relatives(read_sequences(X), np.arange(250) % 2)
    strict = homology_groups(X)
    assert found.n_parted == np.bincount(strict).max() > 150
    np.testing.assert_array_equal(found.groups[:20], found.groups[200:220])
    alone = np.bincount(strict)[strict] == 1
    assert len(np.unique(found.groups[alone])) == alone.sum()
    assert len(np.unique(found.groups)) > 100


def test_so_is_one_that_holds_a_whole_class() -> None:
    virus, y = strain_reads(100, seed=10)[0], np.repeat([0, 1], [100, 120])
    X = virus + reads(120, READ, shares=(0.5,), seed=11)[0]
    assert len(np.unique(homology_groups(X)[:100])) == 1
    found = find_relatives(read_sequences(X), y)
    assert found.n_parted == 100
    # All copies of one sequence are not to be parted, and nobody is told that they are.
    copies = find_relatives(read_sequences([virus[0]] * 100 + X[100:]), y)
    assert not copies.n_parted
    assert len(np.unique(copies.groups[:100])) == 1


def test_a_classifier_of_reads_of_known_genomes_knows_them() -> None:
    X, y = strain_reads(300, seed=1)
    asked, truth = strain_reads(200, seed=2)
    with pytest.warns(UserWarning, match=r"300 of 300 sequences hang together .* give `groups`"):
        classifier = TitansDNAClassifier(**FAST | {"n_networks": 2}).fit(X, y)
    assert classifier.model_.kinship is not None
    assert classifier.score(asked, truth) > 0.8
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told = TitansDNAClassifier(**FAST | {"n_networks": 2}, validation="random").fit(X, y)
    assert told.score(asked, truth) > 0.8


# Groups that are given


def test_given_groups_are_held_out_whole() -> None:
    X, y = reads(120, 40)
    chromosomes = np.array(["chr1", "chr2", "chr3", "chrX", "chrY"])[np.arange(120) // 24]
    classifier = TitansDNAClassifier(**FAST | {"n_networks": 3}).fit(X, y, groups=chromosomes)
    held_out = chromosomes[classifier.held_out_]
    order = np.flatnonzero(held_out[1:] != held_out[:-1]) + 1
    assert [len(part) for part in np.split(held_out, order)] == [24] * 3


def test_groups_that_leave_nothing_or_little_to_hold_out_are_named() -> None:
    X, y = reads(60, 40)
    with pytest.warns(UserWarning, match=r"60 sequences are of 1 group\(s\).* more `groups`"):
        TitansDNAClassifier(**FAST).fit(X, y, groups=["one"] * 60)
    uneven = ["large"] * 56 + ["a", "a", "b", "b"]
    message = r"2 of 3 networks .* largest group is 56 sequences: give .* smaller `groups`"
    with pytest.warns(UserWarning, match=message):
        TitansDNAClassifier(**FAST | {"n_networks": 3}).fit(X, y, groups=uneven)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (["a"] * 5, r"`groups` must name the group of each of the 12 sequences; got shape \(5,\)"),
        ("chr1", r"got shape \(\)"),
        (["a"] * 6 + [None] + ["b"] * 5, r"`groups\[6\]` is missing"),
        ([1.0, np.nan] * 6, r"`groups\[1\]` is missing"),
    ],
)
def test_groups_that_do_not_fit_are_refused(groups: Any, message: str) -> None:
    X, y = reads(12, 40)
    with pytest.raises(ValueError, match=message):
        TitansDNAClassifier(**FAST).fit(X, y, groups=groups)


# Kinship: what long words say of relatives, beside what is known of all


@pytest.fixture(scope="module")
def of_two_kinds() -> TitansDNAClassifier:
    """Fitted on reads of known genomes, and as many that are related to nothing."""
    X, y = both_kinds(seed=1)
    return TitansDNAClassifier(**FAST | {"n_networks": 2}, validation="random").fit(X, y)


def both_kinds(seed: int) -> tuple[list[str], np.ndarray]:
    related, strain = strain_reads(200, seed)
    alone = reads(200, READ, shares=(0.4, 0.6), seed=seed)
    return related + alone[0], np.concatenate([strain.astype(str), np.array(alone[1])])


def test_relatives_are_told_by_words_and_others_as_before(
    of_two_kinds: TitansDNAClassifier,
) -> None:
    model = of_two_kinds.model_
    assert model.kinship is not None
    X, y = both_kinds(seed=2)
    sequences = read_sequences(X)
    np.testing.assert_array_equal(model.kinship.knows(sequences), np.arange(400) < 200)
    before = replace(model, kinship=None).log_probabilities(sequences)
    after = model.log_probabilities(sequences)
    np.testing.assert_array_equal(after[200:], before[200:])
    right = [(of_two_kinds.classes_[p.argmax(1)] == y)[:200].mean() for p in (before, after)]
    assert abs(model.kinship.accuracy - right[1]) < 0.1
    facts = facts_of_model(of_two_kinds)["relatives"]
    assert list(facts) == ["all experts", "long words", "accuracy held out"]
    assert right[1] > max(0.9, right[0])
    np.testing.assert_allclose(np.exp(after).sum(1), 1, atol=1e-6)


def test_kinship_is_stored_and_asked_alike_however_sequences_come(
    of_two_kinds: TitansDNAClassifier, tmp_path: Path
) -> None:
    X = both_kinds(seed=3)[0][150:250] + odd_reads(20)
    X = [x for x in X if len(x) == READ]
    p = of_two_kinds.predict_proba(X)
    order = RNG.permutation(len(X))
    again = of_two_kinds.predict_proba([X[i] for i in order])
    np.testing.assert_allclose(again, p[order], atol=1e-6)
    of_two_kinds.save(tmp_path / "model")
    loaded = TitansDNAClassifier.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_proba(X), p)


def test_words_leave_a_late_class_to_the_networks(of_two_kinds: TitansDNAClassifier) -> None:
    X, y = both_kinds(seed=4)
    classes = [*np.unique(y), "late"]
    learner = TitansDNAClassifier(**FAST | {"n_networks": 2}, validation="random").partial_fit(
        X, y, classes=classes
    )
    late = strain_reads(40, seed=5)[0]
    learner.partial_fit(late + X[:40], ["late"] * 40 + list(y[:40]))
    model, asked = learner.model_, read_sequences(late)
    assert model.kinship is not None
    assert model.kinship.knows(asked).all()
    column = list(learner.classes_).index("late")
    with_words = np.exp(model.log_probabilities(asked)[:, column])
    without = np.exp(replace(model, kinship=None).log_probabilities(asked)[:, column])
    # Words never saw this class: a zero from them would end it.
    assert (with_words > without / 10).all()


def test_where_few_are_related_or_nothing_is_linear_there_are_no_words() -> None:
    X, y = reads(120, READ, shares=(0.4, 0.6), seed=6)
    assert TitansDNAClassifier(**FAST).fit(X, y).model_.kinship is None
    X, y = both_kinds(seed=1)
    assert (
        TitansDNAClassifier(**FAST, linear=False, validation="random").fit(X, y).model_.kinship
        is None
    )
