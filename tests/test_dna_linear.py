"""The linear parts, what they compare by, the folds they are held to, and the blend of all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dna_inputs import odd_reads, opposite, reads
from scipy.special import log_softmax, softmax
from sklearn.linear_model import Ridge

from titans_core.persistence import load_tree, save_tree
from titans_dna import read_sequences
from titans_dna.blend import Blend
from titans_dna.folds import make_folds
from titans_dna.kernel_part import KernelPart
from titans_dna.kmers import kmer_counts, root_shares
from titans_dna.linear import linear_parts, part_from_dict
from titans_dna.places import Places, Tolerant
from titans_dna.similarity import Anywhere, Numbers

RNG = np.random.default_rng(0)
KINDS: list[Any] = [Places, Tolerant, Anywhere]


def folds_of(y: np.ndarray, n: int = 2) -> list[tuple[np.ndarray, np.ndarray]]:
    return make_folds(y, None, n, 0)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the network on k-mers take few steps."""
    monkeypatch.setattr("titans_dna.kmer_network._FEWEST_STEPS", 30)
    monkeypatch.setattr("titans_dna.kmer_network._MOST_STEPS", 30)


# Similarities


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("both_strands", [False, True])
def test_a_sequence_is_most_like_itself(kind: Any, both_strands: bool) -> None:
    X = read_sequences(reads(20, 40)[0])
    similarity = kind(both_strands)
    similarity.prepare(X)
    s = similarity(X)
    np.testing.assert_allclose(s, s.T, atol=1e-6)
    assert (s >= 0).all()
    assert (s <= 1 + 1e-6).all()
    if not both_strands:
        np.testing.assert_allclose(s.diagonal(), 1, atol=1e-6)
    assert np.linalg.eigvalsh(s.astype(float)).min() > -1e-4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 22, 31, 40])
def test_either_strand_is_alike_where_both_count(kind: Any, length: int) -> None:
    landmarks = read_sequences(reads(15, length)[0])
    asked = odd_reads(15, length)
    similarity = kind(True)
    similarity.prepare(landmarks)
    one, other = (similarity(read_sequences(x)) for x in (asked, opposite(asked)))
    np.testing.assert_allclose(one, other, rtol=0, atol=2e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_how_alike_two_sequences_are_depends_on_no_others(kind: Any) -> None:
    X = read_sequences([*odd_reads(40, 50), *reads(40, 50)[0]])
    for both_strands in (False, True):
        similarity = kind(both_strands)
        similarity.prepare(X)
        alone = np.concatenate([similarity(X.take([row])) for row in range(80)])
        np.testing.assert_array_equal(alone, similarity(X))


@pytest.mark.parametrize("length", [1, 2, 3, 12, 63, 64, 65, 66, 130])
def test_places_are_the_cosines_of_words_at_places(length: int) -> None:
    X = odd_reads(9, length)
    similarity = Places()
    similarity.prepare(read_sequences(X))
    found = similarity(read_sequences(X))

    def words(x: str, k: int) -> set[tuple[int, str]]:
        all_words = [(i, x[i : i + k].upper()) for i in range(len(x) - k + 1)]
        return {(i, word) for i, word in all_words if set(word) <= set("ACGT")}

    for i, a in enumerate(X):
        for j, b in enumerate(X):
            cosines = []
            for k in range(1, min(length, 3) + 1):
                mine, theirs = words(a, k), words(b, k)
                sizes = (len(mine) * len(theirs)) ** 0.5
                cosines.append(len(mine & theirs) / sizes if sizes else 0)
            assert found[i, j] == pytest.approx(np.mean(cosines), abs=1e-6)


@pytest.mark.parametrize("length", [3, 4, 12, 41])
def test_tolerant_words_are_the_cosines_of_smeared_words(length: int) -> None:
    X = [*odd_reads(6, length), "A" * length, "AC" * (length // 2) + "A" * (length % 2)]
    similarity = Tolerant()
    similarity.prepare(read_sequences(X))
    found = similarity(read_sequences(X))

    def smeared(x: str, k: int, deviation: int) -> dict[tuple[int, str], float]:
        places = len(x) - k + 1
        centres = -(-places // deviation)
        first = (places - 1 - (centres - 1) * deviation) / 2
        seen: dict[tuple[int, str], float] = {}
        for place in range(places):
            word = x[place : place + k].upper()
            for centre in range(centres):
                apart = (place - first) / deviation - centre
                if set(word) <= set("ACGT") and abs(apart) <= 3:
                    weight = round(64 * np.exp(-(apart**2) / 2))
                    seen[centre, word] = seen.get((centre, word), 0) + weight
        return seen

    sizes = [(k, deviation) for k, deviation in ((3, 4), (4, 10)) if k <= length]
    for i, a in enumerate(X):
        for j, b in enumerate(X):
            cosines = []
            for k, deviation in sizes:
                mine, theirs = smeared(a, k, deviation), smeared(b, k, deviation)
                norm = np.sqrt(
                    sum(v**2 for v in mine.values()) * sum(v**2 for v in theirs.values())
                )
                shared = sum(v * theirs.get(cell, 0) for cell, v in mine.items())
                cosines.append(shared / norm if norm else 0)
            assert found[i, j] == pytest.approx(np.mean(cosines), abs=1e-6)


def test_tolerant_words_may_move_a_little() -> None:
    word = "ACGTTGCA"

    def at(place: int) -> str:
        return "N" * place + word + "N" * (60 - place)

    similarity = Tolerant()
    similarity.prepare(read_sequences([at(26)]))
    s = similarity(read_sequences([at(26), at(28), at(32), at(60)]))[:, 0]
    assert s[0] == pytest.approx(1, abs=1e-5)
    assert s[0] > s[1] > s[2] > s[3] + 0.1


def test_words_anywhere_do_not_care_where() -> None:
    similarity = Anywhere()
    similarity.prepare(read_sequences(["ACGTTGCA" + "N" * 30]))
    s = similarity(read_sequences(["ACGTTGCA", "NNNACGTTGCANN", "CCCCCCCC"]))[:, 0]
    assert s[0] == pytest.approx(s[1], abs=1e-6)
    assert s[2] < 0.5


@pytest.mark.parametrize("both_strands", [False, True])
@pytest.mark.parametrize("length", [3, 40, 300, 2500])
def test_words_anywhere_are_compared_in_double_precision(length: int, both_strands: bool) -> None:
    X = read_sequences(reads(12, length)[0])
    similarity = Anywhere(both_strands)
    similarity.prepare(X)
    shares = root_shares(kmer_counts(X, 6), 6, both_strands).toarray().astype(float)
    np.testing.assert_allclose(similarity(X), shares @ shares.T / 6, rtol=0, atol=5e-7)


def test_numbers_are_compared_by_products_or_differences() -> None:
    X = RNG.normal(size=(6, 4)).astype(np.float32)
    for products in (True, False):
        similarity = Numbers(products)
        similarity.prepare(X)
        apart = ((X[:, None] - X[None]) ** 2).sum(2)
        expected = X @ X.T / 4 if products else 1 - apart / 8
        np.testing.assert_allclose(similarity(X), expected, atol=1e-5)


# Parts


def test_the_kernel_part_is_a_ridge_and_its_held_out_answers_are_those_of_refits() -> None:
    X = RNG.normal(size=(50, 4)).astype(np.float32)
    y = (X[:, 0] > 0).astype(np.int64)
    folds = folds_of(y)
    part = KernelPart("places", [Numbers(products=True)])
    said = part.cross_fit(X, y, np.ones(2), folds)
    for (learn, held), p in zip(folds, said, strict=True):
        # For products over p the ridge on the features has p times the penalty.
        candidates = []
        for penalty in (0.1, 1.0, 10.0):
            mean = np.eye(2)[y[learn]].mean(0)
            ridge = Ridge(alpha=4 * penalty, fit_intercept=False)
            ridge.fit(X[learn], np.eye(2)[y[learn]] - mean)
            scores = ridge.predict(X[held]) + mean
            candidates.append(np.abs(softmax(part.sharpness * scores, axis=1) - p).max())
        assert min(candidates) < 1e-2


def test_few_landmarks_stand_for_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("titans_dna.kernel_part._MOST_LANDMARKS", 25)
    X, labels = reads(150, 30)
    y = (np.array(labels) == "c1").astype(np.int64)
    sequences = read_sequences(X)
    part = KernelPart("alike", [Anywhere()], 2.0)
    part.cross_fit(sequences, y, np.ones(2), folds_of(y))
    assert part.coefficients.shape == (25, 2)
    assert (part.probabilities(sequences).argmax(1) == y).mean() > 0.9


def test_columns_that_repeat_each_other_do_not_break_the_ridge() -> None:
    X = np.repeat(RNG.normal(size=(300, 1)), 2, axis=1).astype(np.float32)
    y = (X[:, 0] > 0).astype(np.int64)
    for scale in (1, 0):
        part = KernelPart("places", [Numbers(products=True)])
        part.cross_fit(X * np.float32(scale), y, np.ones(2), folds_of(y))
        assert np.isfinite(part.probabilities(X)).all()


@pytest.mark.parametrize("length", [None, 30])
@pytest.mark.parametrize("both_strands", [False, True])
def test_every_part_learns_and_is_stored_and_read_again(
    length: int | None, both_strands: bool, tmp_path: Path
) -> None:
    X, labels = reads(60, length, shares=(0.15, 0.85))
    y = (np.array(labels) == "c1").astype(np.int64)
    sequences, asked = read_sequences(X), read_sequences(odd_reads(20, length))
    parts = linear_parts(sequences, length=length, both_strands=both_strands, random_state=0)
    assert len({part.name for part in parts}) == len(parts)
    folds = folds_of(y)
    for part in parts:
        said = part.cross_fit(sequences, y, np.ones(2), folds)
        assert [len(p) for p in said] == [len(held) for _, held in folds]
        right = [p.argmax(1) == y[held] for p, (_, held) in zip(said, folds, strict=True)]
        assert np.concatenate(right).mean() > 0.8, part.name
        p = part.probabilities(asked)
        np.testing.assert_allclose(p.sum(1), 1, atol=1e-6)
        save_tree(tmp_path / "part", part.to_dict(), kind="part")
        again = part_from_dict(load_tree(tmp_path / "part", kind="part"))
        assert again.name == part.name
        np.testing.assert_array_equal(again.probabilities(asked), p)
        if both_strands:
            turned = part.probabilities(read_sequences(opposite(odd_reads(20, length))))
            np.testing.assert_allclose(turned, p, rtol=0, atol=2e-6)


def test_held_out_answers_are_not_learned_from() -> None:
    X = read_sequences(reads(60, 30, shares=(0.5, 0.5))[0])
    y = RNG.integers(0, 2, 60)  # nothing to find: who knows the answer has seen it
    folds = folds_of(y, 5)
    for part in linear_parts(X, length=30, both_strands=False, random_state=0):
        said = part.cross_fit(X, y, np.ones(2), folds)
        right = [p.argmax(1) == y[held] for p, (_, held) in zip(said, folds, strict=True)]
        assert np.concatenate(right).mean() < 0.75, part.name


def test_class_weights_move_every_part() -> None:
    X, labels = reads(120, 30, shares=(0.45, 0.55))
    y = (np.array(labels) == "c1").astype(np.int64)
    sequences, folds = read_sequences(X), folds_of(y)
    means = []
    for weights in (np.ones(2), np.array([1.0, 8.0])):
        parts = linear_parts(sequences, length=30, both_strands=False, random_state=0)
        said = [np.concatenate(p.cross_fit(sequences, y, weights, folds)) for p in parts]
        means.append([p[:, 1].mean() for p in said])
    assert (np.array(means[1]) > np.array(means[0]) + 0.02).all()


# Folds


def test_folds_are_disjoint_stratified_and_whole() -> None:
    y = np.repeat([0, 1, 2], [50, 30, 20])
    for n in (1, 3, 5, 7):
        folds = make_folds(y, None, n, 0)
        assert len(folds) == n
        held = np.concatenate([held for _, held in folds])
        assert len(set(held)) == len(held)
        for learn, out in folds:
            assert sorted([*learn, *out]) == list(range(100))
            assert set(y[learn]) == set(y[out]) == {0, 1, 2}


def test_folds_never_cut_a_group() -> None:
    rng = np.random.default_rng(1)
    y, groups = rng.integers(0, 2, 200), rng.integers(0, 40, 200)
    for learn, held in make_folds(y, groups, 5, 0):
        assert not set(groups[learn]) & set(groups[held])


@pytest.mark.parametrize(
    ("y", "groups"),
    [([0, 1], None), ([0, 0, 0, 1], None), ([0, 1] * 5, [3] * 10)],
)
def test_too_few_rows_or_groups_give_no_folds(y: list[int], groups: list[int] | None) -> None:
    assert make_folds(np.array(y), None if groups is None else np.array(groups), 3, 0) == []


def test_a_class_in_one_group_only_is_always_learned_from() -> None:
    y = np.array([0, 1] * 20 + [2] * 5)
    groups = np.append(np.arange(40), [40] * 5)
    folds = make_folds(y, groups, 5, 0)
    assert folds
    assert all(2 in y[learn] for learn, _ in folds)


def test_a_class_too_rare_for_all_folds_is_never_held_out_nor_are_its_relatives() -> None:
    y = np.array([0, 1] * 40 + [2] * 3)
    groups = np.append(np.arange(80), [100, 101, 7])  # the last is related to row 7
    for folds in (make_folds(y, None, 3, 0), make_folds(y, groups, 3, 0)):
        assert len(folds) == 3
        for learn, held in folds:
            assert set(y[held]) == {0, 1}
            assert {80, 81, 82} <= set(learn)
    assert all(7 in learn for learn, _ in make_folds(y, groups, 3, 0))


# The blend


def test_equal_shares_are_the_geometric_mean() -> None:
    p = RNG.dirichlet([1, 1, 1], size=(2, 7))
    expected = np.sqrt(p[0] * p[1])
    blended = np.exp(Blend.equal(2)(p))
    np.testing.assert_allclose(blended, expected / expected.sum(1, keepdims=True))


def test_the_blend_trusts_who_was_right_and_makes_up_for_who_was_too_sure() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(2000, 3))
    y = np.array([rng.choice(3, p=p) for p in softmax(scores, axis=1)])
    noise = rng.normal(size=(2000, 3))
    experts = np.stack([softmax(4 * scores, axis=1), softmax(noise, axis=1)])
    blend = Blend.fit(experts, y, np.ones(2000))
    assert blend.weights == pytest.approx([0.25, 0], abs=0.05)
    assert np.abs(blend(experts) - log_softmax(scores, axis=1)).mean() < 0.1


def test_few_rows_leave_the_weights_near_where_they_began() -> None:
    experts = np.array([[[0.9, 0.1]], [[0.1, 0.9]]])
    blend = Blend.fit(experts, np.array([0]), np.ones(1))
    np.testing.assert_allclose(blend.weights, 0.5, atol=0.6)
    prior = Blend(np.array([0.2, 1.1]))
    kept = Blend.fit(np.full((2, 1, 2), 0.5), np.array([0]), np.ones(1), prior=prior)
    np.testing.assert_allclose(kept.weights, prior.weights, atol=1e-6)


def test_a_blend_fitted_batch_by_batch_is_nearly_the_one_fitted_on_all_rows() -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal(size=(800, 3))
    y = np.array([rng.choice(3, p=p) for p in softmax(truth, axis=1)])
    noisy = [truth + rng.normal(scale=scale, size=truth.shape) for scale in (0.5, 1.0, 2.0)]
    experts = softmax(np.stack(noisy), axis=2)
    whole = Blend.fit(experts, y, np.ones(800))
    online = Blend.fit(experts[:, :400], y[:400], np.ones(400))
    for row in range(400, 800, 4):
        batch = slice(row, row + 4)
        online = Blend.fit(experts[:, batch], y[batch], np.ones(4), prior=online)
    np.testing.assert_allclose(online.weights, whole.weights, atol=0.05)
    np.testing.assert_allclose(online.precision, whole.precision, rtol=0.1, atol=20)


def test_the_slope_of_the_blend_is_right() -> None:
    rng = np.random.default_rng(3)
    experts = rng.dirichlet([1, 1, 1], size=(3, 40))
    y, weights = rng.integers(0, 3, 40), rng.uniform(0.5, 2, 40)
    best = Blend.fit(experts, y, weights).weights

    def loss(w: np.ndarray) -> float:
        logs = Blend(w)(experts)[np.arange(40), y]
        return float(-(weights / weights.mean()) @ logs + ((w - 1 / 3) ** 2).sum())

    for i in range(3):
        for step in (1e-3, -1e-3):
            moved = np.maximum(best + step * np.eye(3)[i], 0)
            assert loss(moved) >= loss(best) - 1e-6


def test_probabilities_of_zero_are_no_infinite_evidence() -> None:
    experts = np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [0.5, 0.5]]])
    blend = Blend.fit(experts, np.array([1, 0]), np.ones(2))
    assert np.isfinite(blend(experts)).all()
