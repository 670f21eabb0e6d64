"""K-mer counts against counting by hand, and the floor that is built on them."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from sklearn.base import clone, is_classifier
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score

from titans_core.persistence import load_tree, save_tree
from titans_dna import kmer_codes, kmer_counting
from titans_dna.alphabet import decode, reverse_complement
from titans_dna.kmer_codes import canonical_codes, is_repeat
from titans_dna.kmers import KmerBaseline, kmer_counts, kmer_names
from titans_dna.sequences import Sequences, read_sequences


def random_sequences(n: int, longest: int, *, letters: str = "ACGT", seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list(letters), rng.integers(1, longest + 1))) for _ in range(n)]


def planted(n: int, *, seed: int = 0, word: str = "GATTACA") -> tuple[list[str], np.ndarray]:
    """Random sequences of 60 bases; those of class 'yes' hold the word three times."""
    rng = np.random.default_rng(seed)
    X, y = [], []
    for i in range(n):
        bases = "".join(rng.choice(list("ACGT"), 60))
        if i % 2:
            for at in (3, 20, 40):
                bases = bases[:at] + word + bases[at + len(word) :]
        X.append(bases)
        y.append("yes" if i % 2 else "no")
    return X, np.array(y)


def other_strand(sequence: str) -> str:
    return decode(reverse_complement(read_sequences([sequence]).tokens))


def counted_by_hand(sequence: str, k_max: int) -> Counter[str]:
    sequence = sequence.upper()
    words = (sequence[i : i + k] for k in range(1, k_max + 1) for i in range(len(sequence) - k + 1))
    return Counter(word for word in words if set(word) <= set("ACGT"))


@pytest.fixture(params=[1 << 20, 64])
def block_bases(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Blocks larger than the input, and so small that records are cut."""
    monkeypatch.setattr(kmer_codes, "BLOCK_BASES", request.param)
    monkeypatch.setattr(kmer_counting, "BLOCK_BASES", request.param)
    return request.param


@pytest.mark.parametrize("k_max", [1, 3, 5])
@pytest.mark.parametrize(("n", "longest"), [(40, 12), (12, 300), (1, 2000)])
def test_counts_are_those_of_counting_by_hand(
    k_max: int, n: int, longest: int, block_bases: int
) -> None:
    X = random_sequences(n, longest, letters="ACGTACGTACGTACGTNRacgtu")
    counts = kmer_counts(X, k_max)
    names = kmer_names(k_max)
    assert counts.shape == (n, len(names))
    assert counts.has_canonical_format
    for row, sequence in zip(counts.toarray(), X, strict=True):
        expected = counted_by_hand(sequence.replace("u", "t"), k_max)
        assert dict(zip(names, row, strict=True)) == {name: expected[name] for name in names}


def test_both_strands_count_the_sequence_and_its_reverse_complement() -> None:
    X = random_sequences(20, 50, letters="ACGTN")
    both = kmer_counts(X, 4, both_strands=True).toarray()
    np.testing.assert_array_equal(
        both, (kmer_counts(X, 4) + kmer_counts([other_strand(x) for x in X], 4)).toarray()
    )


def test_a_collection_without_sequences_has_no_rows() -> None:
    assert kmer_counts(Sequences.from_list([]), 2).shape == (0, 20)


@pytest.mark.parametrize("k", [1, 2, 5, 30, 31])
def test_codes_of_kmers_are_equal_exactly_where_the_kmers_are_on_either_strand(
    k: int, block_bases: int
) -> None:
    X = random_sequences(8, 150, letters="ACGTACGTACGTACGTACGTACGTN")
    X += [X[0], other_strand(X[1])]
    sequences = read_sequences(X)
    text = decode(sequences.tokens)
    seen: dict[int, str] = {}
    found = set()
    for positions, codes in canonical_codes(sequences, k):
        for position, code in zip(positions.tolist(), codes.tolist(), strict=True):
            word = text[position : position + k]
            word = min(word, other_strand(word))
            assert seen.setdefault(code, word) == word
            found.add(position)
    assert len(set(seen.values())) == len(seen)
    plain = {
        start + i
        for start, sequence in zip(sequences.offsets.tolist(), X, strict=False)
        for i in range(len(sequence) - k + 1)
        if "N" not in sequence[i : i + k]
    }
    assert found == plain


@pytest.mark.parametrize(
    ("word", "repeat"),
    [
        ("A" * 30, True),
        ("AC" * 15, True),
        ("AACCGT" * 5, True),
        ("A" * 17 + "G" + "A" * 12, True),
        ("A" * 12 + "GT" + "C" * 16, False),
        ("AACCGTG" * 4 + "AA", False),
        ("ATTGCATGCCGATAGCTTACGGATCCATGC", False),
    ],
)
def test_tandem_repeats_are_told_from_other_kmers_on_both_strands(word: str, repeat: bool) -> None:
    for strand in (word, other_strand(word)):
        ((_, codes),) = canonical_codes(read_sequences([strand]), 30)
        assert is_repeat(codes, 30).tolist() == [repeat]


def test_random_kmers_are_no_repeats() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 1 << 60, 10_000, dtype=np.uint64)
    assert not is_repeat(codes, 30).any()


def test_the_floor_finds_planted_words() -> None:
    floor = KmerBaseline().fit(*planted(300))
    X, y = planted(200, seed=1)
    assert floor.score(X, y) > 0.95
    assert floor.k_ == 6
    proba = floor.predict_proba(X)
    assert floor.classes_.tolist() == ["no", "yes"]
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    np.testing.assert_array_equal(floor.predict(X), floor.classes_[proba.argmax(axis=1)])


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_floor_is_logistic_regression_on_roots_of_shares(n_classes: int) -> None:
    X = random_sequences(60, 40, seed=3)
    y = np.arange(60) % n_classes
    floor = KmerBaseline(k_max=2, C=2.0, both_strands=False).fit(X, y)
    counts = kmer_counts(X, 2).toarray().astype(float)
    shares = [
        block / np.maximum(block.sum(1, keepdims=True), 1)
        for block in (counts[:, :4], counts[:, 4:])
    ]
    expected = LogisticRegression(C=2.0, tol=1e-6, max_iter=1000).fit(np.sqrt(np.hstack(shares)), y)
    # The floor's solver stops early, where accuracy has nothing more to gain.
    np.testing.assert_allclose(
        floor.predict_proba(X), expected.predict_proba(np.sqrt(np.hstack(shares))), atol=0.02
    )


def test_with_both_strands_the_strand_does_not_matter() -> None:
    X, y = planted(80)
    floor = KmerBaseline(k_max=4, C=1.0, both_strands=True).fit(X, y)
    flipped = floor.predict_proba([other_strand(x) for x in X])
    np.testing.assert_allclose(floor.predict_proba(X), flipped, atol=1e-12)


def test_the_strand_is_left_out_where_it_does_not_matter() -> None:
    X, y = planted(300)
    X = [other_strand(x) if i % 4 < 2 else x for i, x in enumerate(X)]
    assert KmerBaseline().fit(X, y).both_strands_ is True


def test_what_is_given_is_not_chosen() -> None:
    X, y = planted(60)
    floor = KmerBaseline(k_max=5, C=0.5, both_strands=False).fit(X, y)
    assert (floor.k_, floor.C_, floor.both_strands_) == (5, 0.5, False)


def test_too_few_sequences_to_choose_from_are_fitted_all_the_same() -> None:
    floor = KmerBaseline(k_max=3).fit(["AATATA", "TATTAA", "CGCGGC", "GCCGCG"], [0, 0, 1, 1])
    assert floor.predict(["ATTTATT", "GGCC", "N"]).tolist()[:2] == [0, 1]
    assert (floor.k_, floor.C_, floor.both_strands_) == (3, 1.0, False)


def test_fitting_twice_gives_the_same() -> None:
    X, y = planted(90)
    first, second = (KmerBaseline(k_max=4).fit(X, y).predict_proba(X) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_class_weights_reach_the_regression() -> None:
    X, y = random_sequences(100, 30, seed=1), np.arange(100) % 10 == 0
    plain = KmerBaseline(2, 1.0, False).fit(X, y).predict_proba(X)
    weighted = KmerBaseline(2, 1.0, False, class_weight="balanced").fit(X, y).predict_proba(X)
    assert weighted[:, 1].mean() > 2 * plain[:, 1].mean()


def test_scikit_learn_takes_the_floor_for_a_classifier() -> None:
    X, y = planted(60)
    floor = KmerBaseline(k_max=3, C=1.0, both_strands=False)
    assert is_classifier(floor)
    assert clone(floor).get_params() == floor.get_params()
    assert cross_val_score(floor, X, y, cv=3).shape == (3,)
    search = GridSearchCV(floor, {"k_max": [1, 5]}, cv=3).fit(np.array(X, dtype=object), y)
    assert search.best_params_ == {"k_max": 5}


@pytest.mark.parametrize("weights", [None, {"no": 1.0, "yes": 2.0}])
def test_a_saved_floor_predicts_the_same(tmp_path, weights: dict[str, float] | None) -> None:
    X, y = planted(60)
    floor = KmerBaseline(k_max=4, class_weight=weights).fit(X, y)
    save_tree(tmp_path / "floor", floor.to_dict(), kind="floor")
    loaded = KmerBaseline.from_dict(load_tree(tmp_path / "floor", kind="floor"))
    assert loaded.get_params() == floor.get_params()
    np.testing.assert_array_equal(loaded.predict(X), floor.predict(X))
    np.testing.assert_array_equal(loaded.predict_proba(X), floor.predict_proba(X))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"k_max": 0}, "`k_max` of KmerBaseline must be an int from 1 to 8; got 0"),
        ({"C": -1.0}, "`C` of KmerBaseline must be 'auto' or a number > 0; got -1.0"),
        ({"both_strands": "yes"}, "`both_strands` of KmerBaseline must be 'auto', True or False"),
        ({"random_state": None}, "`random_state` of KmerBaseline must be an int >= 0; got None"),
    ],
)
def test_parameters_are_checked_when_fitting(params: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KmerBaseline(**params).fit(["ACGT", "GGGG"], [0, 1])


def test_a_column_of_labels_is_scored_row_by_row() -> None:
    X, y = ["ACGTACGTAC", "GGGGCCCCGG"] * 10, np.array(["a", "b"] * 10)
    baseline = KmerBaseline().fit(X, y)
    with pytest.warns(DataConversionWarning):
        assert baseline.score(X, y[:, None]) == baseline.score(X, y) == 1
    with pytest.raises(ValueError, match="label missing"):
        baseline.fit(X, [None, *y[1:]])


def test_misuse_is_named() -> None:
    with pytest.raises(ValueError, match="y has 1 label for 2 sequences; needs one"):
        KmerBaseline().fit(["ACGT", "GGGG"], [0])
    with pytest.raises(ValueError, match="at least two classes; got \\[1\\]"):
        KmerBaseline().fit(["ACGT", "GGGG"], [1, 1])
    with pytest.raises(NotFittedError, match="Call 'fit'"):
        KmerBaseline().predict(["ACGT"])
    with pytest.raises(ValueError, match="`k_max` must be an int from 1 to 12; got 13"):
        kmer_counts(["ACGT"], 13)


def test_the_dict_of_a_floor_is_plain_but_for_its_arrays() -> None:
    tree = KmerBaseline(k_max=1, C=1.0, both_strands=False).fit(*planted(10)).to_dict()
    assert json.dumps({k: v for k, v in tree.items() if k not in ("coef_", "intercept_")})
