"""Bad input to the classifier meets an error that names the offender and the cure."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dna_inputs import QUICKEST, reads, write_fasta

from titans_core.persistence import ModelFileError, load_tree, save_tree
from titans_dna import BackboneConfig, TitansDNAClassifier

X, Y = reads(24)
NUMBERS = np.random.default_rng(0).normal(size=(24, 5))


def unfitted(**changes: Any) -> TitansDNAClassifier:
    return TitansDNAClassifier(**{**QUICKEST, **changes})


@pytest.fixture(scope="module")
def ragged() -> TitansDNAClassifier:
    return unfitted().fit(X, Y)


@pytest.fixture(scope="module")
def aligned() -> TitansDNAClassifier:
    return unfitted().fit(*reads(24, 30))


@pytest.fixture(scope="module")
def on_numbers() -> TitansDNAClassifier:
    return unfitted().fit(NUMBERS, Y)


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("head", "both", "'auto', 'positional' or 'pooled'; got 'both'"),
        ("head", None, "'auto', 'positional' or 'pooled'; got None"),
        (
            "reverse_complement",
            True,
            "'auto', None, 'augment', 'average' or 'equivariant'; got True",
        ),
        ("n_networks", 0, "an int >= 1; got 0"),
        ("n_networks", 1.0, "an int >= 1; got 1.0"),
        ("n_networks", True, "an int >= 1; got True"),
        ("linear", 1, "a bool; got 1"),
        ("backbone", 32, "a BackboneConfig or None; got 32"),
        ("training", {"max_steps": 3}, "a TrainingConfig or None; got {'max_steps': 3}"),
        ("crop", 63, "an int >= 64; got 63"),
        ("validation", "blind", "'homology' or 'random'; got 'blind'"),
        (
            "class_weight",
            "equal",
            "None, 'balanced' or a dict of weights >= 0 by class; got 'equal'",
        ),
        ("class_weight", {"c0": -1}, "a dict of weights >= 0 by class; got {'c0': -1}"),
        ("class_weight", {"c0": np.nan}, "a dict of weights >= 0 by class; got {'c0': nan}"),
        ("class_weight", {"c0": "1"}, "a dict of weights >= 0 by class; got {'c0': '1'}"),
        ("class_weight", [1, 2], "a dict of weights >= 0 by class; got [1, 2]"),
        ("soft_mask", True, "'keep' or 'mask'; got True"),
        ("column", 3, "a str or None; got 3"),
        ("random_state", -1, "an int in [0, 2**32); got -1"),
        ("random_state", None, "an int in [0, 2**32); got None"),
        ("random_state", 2**32, "an int in [0, 2**32); got 4294967296"),
        ("progress", "yes", "a bool; got 'yes'"),
    ],
)
def test_a_wrong_parameter_is_named_with_what_it_must_be(
    name: str, value: Any, wanted: str
) -> None:
    with pytest.raises(ValueError, match=f"`{name}` of TitansDNAClassifier.*{re.escape(wanted)}"):
        unfitted(**{name: value}).fit(X, Y)
    with pytest.raises(ValueError, match=f"`{name}` of TitansDNAClassifier"):
        unfitted(**{name: value}).partial_fit(X, Y)


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        (X, None, ValueError, "requires y to be passed.*Give labels, or say where they are"),
        (X, Y[:-1], ValueError, "y has 23 labels for 24 sequences; needs one for each"),
        (X, ["one"] * 24, ValueError, "y holds only one class, 'one'.*at least 2 classes"),
        (X, [0.5, 1] * 12, ValueError, "Unknown label type: continuous.*y.0. is 0.5"),
        (
            X,
            [None, "a"] * 12,
            ValueError,
            "12 labels missing, in rows 0, 2.*Drop these",
        ),
        (X, [1, "a"] * 12, TypeError, "labels of several types: number in row 0, str in row 1"),
        (X, "kind", ValueError, "y is 'kind', which is none of"),
        (X, "file", ValueError, "y is 'file', and the sequences come from no files"),
        ([], [], ValueError, "X"),
        ([*X[:-1], ""], Y, ValueError, r"X\[23\]"),
        ([*X[:-1], "ACE"], Y, ValueError, r"X\[23\].*'E'"),
        ([*X[:-1], None], Y, ValueError, "X.*missing.*23"),
        ([*X[:-1], 7], Y, TypeError, r"X\[23\].*int"),
        ("ACGT", Y, ValueError, "looks like a sequence; wrap it in a list"),
        (pd.DataFrame({"a": X, "b": X}), Y, ValueError, "column"),
        (NUMBERS, Y[:-1], ValueError, r"inconsistent numbers of samples: \[24, 23\]"),
        (NUMBERS * np.nan, Y, ValueError, "Input X contains NaN"),
        (NUMBERS[:, 0], Y, ValueError, "Expected 2D array, got 1D"),
        (NUMBERS[:0], [], ValueError, "0 sample"),
    ],
)
def test_fit_refuses_what_it_cannot_learn_from(
    x: Any, y: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        unfitted().fit(x, y)


def test_weights_of_zero_for_all_classes_leave_nothing_to_learn() -> None:
    with pytest.raises(ValueError, match=r"`class_weight`.*all classes of y the weight 0"):
        unfitted(class_weight={"c0": 0, "c1": 0}).fit(X, Y)


def test_weights_of_classes_that_are_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match="c1"):
        unfitted(class_weight={"c0": 1, "no": 2}).fit(X, Y)


def test_a_positional_head_needs_one_length_and_not_too_long() -> None:
    message = r"`head` .*'pooled' or 'auto' for sequences of several lengths.*lengths 2\d to 6\d"
    with pytest.raises(ValueError, match=message):
        unfitted(head="positional").fit(X, Y)
    with pytest.raises(ValueError, match=r"of more than 600 bases.*lengths 700 to 700"):
        unfitted(head="positional").fit(*reads(4, 700))


def test_numbers_have_no_other_strand() -> None:
    with pytest.raises(ValueError, match=r"`reverse_complement`.*None or 'auto' for numbers"):
        unfitted(reverse_complement="average").fit(NUMBERS, Y)


def test_another_length_than_that_of_the_places_is_refused_with_the_cure(
    aligned: TitansDNAClassifier, tmp_path: Path
) -> None:
    message = (
        r"X\[1\] has 3 bases; this classifier has weights for each of 30 places.*"
        "Cut or centre yours alike, or fit with head='pooled' for any length"
    )
    for call in (aligned.predict, aligned.transform, aligned.predict_frame):
        with pytest.raises(ValueError, match=message):
            call(["A" * 30, "ACG"])
    path = write_fasta(tmp_path / "x.fa", ["A" * 30, "ACG"], ["good", "short"])
    with pytest.raises(ValueError, match=r"X\[1\] \('short'\) has 3 bases"):
        aligned.predict(path)
    with pytest.raises(ValueError, match=r"X\[0\] has 3 bases"):
        aligned.partial_fit(["ACG"], ["c0"])


def test_sequences_and_numbers_do_not_mix(
    ragged: TitansDNAClassifier, on_numbers: TitansDNAClassifier
) -> None:
    with pytest.raises(ValueError, match=r"fitted on DNA sequences; got numbers.*fit a new"):
        ragged.predict(NUMBERS)
    with pytest.raises(ValueError, match=r"fitted on numbers; got DNA sequences.*fit a new"):
        on_numbers.predict(X)
    with pytest.raises(ValueError, match="was fitted on numbers; got DNA sequences"):
        on_numbers.partial_fit(X, Y)
    with pytest.raises(ValueError, match=r"X has 3 features, but .* is expecting 5"):
        on_numbers.predict(NUMBERS[:, :3])


@pytest.mark.parametrize("method", ["predict", "predict_proba", "transform", "predict_frame"])
def test_what_is_asked_is_checked_like_what_is_learned(
    ragged: TitansDNAClassifier, method: str
) -> None:
    ask = getattr(ragged, method)
    with pytest.raises(ValueError, match=r"X\[0\].*'E'"):
        ask(["ACE"])
    with pytest.raises(ValueError, match="X"):
        ask([])
    with pytest.raises(ValueError, match="looks like a sequence; wrap it in a list"):
        ask("ACGT")
    with pytest.raises((ValueError, TypeError), match=r"X\[1\]|X.*row 1"):
        ask(["ACGT", None])


def test_streams_are_checked_batch_by_batch(ragged: TitansDNAClassifier) -> None:
    stream = ragged.iter_predict(iter(["ACGT", "ACE"]), batch_bases=4)
    assert len(next(stream)) == 1
    with pytest.raises(ValueError, match=r"X\[1\].*'E'"):
        next(stream)
    with pytest.raises(ValueError, match="batch_bases must be an int >= 1; got 0"):
        next(ragged.iter_predict(X, batch_bases=0))


def test_labels_that_come_later_must_be_known(ragged: TitansDNAClassifier) -> None:
    message = r"y holds the label 'c9', which is none of the classes \['c0', 'c1'\]. Name all"
    with pytest.raises(ValueError, match=message):
        ragged.partial_fit(X[:3], ["c0", "c9", "c1"])
    with pytest.raises(ValueError, match=message):
        unfitted().partial_fit(X[:3], ["c0", "c9", "c1"], classes=["c0", "c1"])
    with pytest.raises(ValueError, match=r"is not the same as on last call to partial_fit"):
        ragged.partial_fit(X, Y, classes=["c0", "c1", "c2"])


def test_files_that_are_no_classifiers_are_named(
    ragged: TitansDNAClassifier, tmp_path: Path
) -> None:
    path = tmp_path / "model"
    with pytest.raises(FileNotFoundError, match="there is no file"):
        TitansDNAClassifier.load(path)
    path.write_text(">r\nACGT\n")
    with pytest.raises(ModelFileError, match="is not a titans-stream file"):
        TitansDNAClassifier.load(path)
    save_tree(path, {}, kind="TitansForecaster")
    with pytest.raises(ModelFileError, match="holds a TitansForecaster, not a TitansDNAClassifier"):
        TitansDNAClassifier.load(path)
    ragged.save(path)
    tree = load_tree(path, kind="TitansDNAClassifier")
    save_tree(path, {**tree, "layout_version": 99}, kind="TitansDNAClassifier")
    with pytest.raises(ModelFileError, match=r"saved in layout 99; this version.*reads 3"):
        TitansDNAClassifier.load(path)
    ragged.save(path)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(ModelFileError, match="is damaged"):
        TitansDNAClassifier.load(path)
    with pytest.raises(FileNotFoundError, match=r"folder .* does not exist"):
        ragged.save(tmp_path / "no" / "model")


def test_configs_know_their_own_errors() -> None:
    with pytest.raises((ValueError, TypeError), match="num_blocks"):
        unfitted(backbone=BackboneConfig(memory=QUICKEST["backbone"].memory, num_blocks=-1))
