"""Scores against scikit-learn's, intervals against theory, and what cannot be scored."""

from __future__ import annotations

import json
import math
import re
import time

import numpy as np
import pytest
from sklearn import metrics

from titans_dna.report import score_report
from titans_dna.scores import Probabilities, bootstrap_scores, scores, weighted_scores


def drawn(n: int, n_classes: int, *, seed: int = 0, digits: int = 2) -> Probabilities:
    """Probabilities that know something, with ties."""
    rng = np.random.default_rng(seed)
    label = rng.integers(n_classes, size=n)
    score = rng.normal(size=(n, n_classes)) + 1.2 * np.eye(n_classes)[label]
    proba = np.round(np.exp(score) / np.exp(score).sum(axis=1, keepdims=True), digits)
    return Probabilities(label, proba / proba.sum(axis=1, keepdims=True))


def by_scikit_learn(given: Probabilities, weights: np.ndarray) -> dict[str, float]:
    """Scores with row weights; the calibration error in a plain loop."""
    label, proba, predicted = given.label, given.proba, given.proba.argmax(axis=1)
    top = proba.max(axis=1)
    ece = 0.0
    for low in range(15):
        rows = (top > low / 15) & (top <= (low + 1) / 15)
        if weights[rows].sum():
            right = np.average(predicted[rows] == label[rows], weights=weights[rows])
            sure = np.average(top[rows], weights=weights[rows])
            ece += weights[rows].sum() / weights.sum() * abs(right - sure)
    n_classes = proba.shape[1]
    ranked = [(label == c, proba[:, c]) for c in (range(n_classes) if n_classes > 2 else [1])]
    squares = np.square(proba - np.eye(n_classes)[label]).sum(axis=1) / (2 if n_classes == 2 else 1)
    options = {"sample_weight": weights}
    return {
        "accuracy": metrics.accuracy_score(label, predicted, **options),
        "balanced_accuracy": metrics.balanced_accuracy_score(label, predicted, **options),
        "mcc": metrics.matthews_corrcoef(label, predicted, **options),
        "auroc": np.mean([metrics.roc_auc_score(*each, **options) for each in ranked]),
        "auprc": np.mean([metrics.average_precision_score(*each, **options) for each in ranked]),
        "ece": ece,
        "brier": np.average(squares, weights=weights),
        "log_loss": metrics.log_loss(label, proba, **options),
    }


@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_scores_and_their_resampled_forms_are_scikit_learns(n_classes: int) -> None:
    given = drawn(120, n_classes)
    rng = np.random.default_rng(1)
    weights = np.vstack([np.ones(120), rng.multinomial(120, np.full(120, 1 / 120), size=4)])
    several = weighted_scores(given, weights)
    single = scores(given)
    for i, row in enumerate(weights):
        for name, value in by_scikit_learn(given, row).items():
            assert several[name][i] == pytest.approx(value, abs=1e-9), name
            if not i:
                assert single[name] == pytest.approx(value, abs=1e-9), name


def test_brier_score_of_two_classes_is_scikit_learns() -> None:
    given = drawn(50, 2)
    expected = metrics.brier_score_loss(given.label, given.proba[:, 1])
    assert scores(given)["brier"] == pytest.approx(expected)


def test_calibration_error_worked_by_hand() -> None:
    # Bins of 1/15: .62 and .65 fall into (.6, .667], .9 into (.867, .933], 1 into the last.
    proba = [0.62, 0.65, 0.9, 0.9, 1.0]
    y = [1, 0, 1, 1, 1]
    # |1 right - 1.27 expected| + |2 - 1.8| + |1 - 1|, over 5 rows.
    report = score_report(y, proba, [0, 1], n_bootstrap=0)
    assert report.scores["ece"].value == pytest.approx((0.27 + 0.2 + 0.0) / 5)


def test_a_perfect_classifier_has_perfect_scores() -> None:
    y = np.array(["a", "b", "c"] * 5)
    report = score_report(y, np.eye(3)[np.arange(15) % 3], ["a", "b", "c"], n_bootstrap=50)
    for name, score in report.scores.items():
        best = 0.0 if name in ("ece", "brier", "log_loss") else 1.0
        low = 0.796 if name == "accuracy" else best  # 15 right of 15 do not make it certain
        assert score == pytest.approx((best, low, best), abs=1e-3)
    assert report.confusion.tolist() == [[5, 0, 0], [0, 5, 0], [0, 0, 5]]
    np.testing.assert_array_equal(report.recall, 1)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(100):
        p = rng.uniform(size=200)
        y = (rng.random(200) < p).astype(int)  # accuracy of p > 1/2 is 3/4 in truth
        low, high = score_report(y, p, [0, 1], n_bootstrap=200, random_state=seed).scores[
            "accuracy"
        ][1:]
        covered += low <= 0.75 <= high
    assert 0.87 <= covered / 100 <= 0.99


def test_the_calibration_error_lies_within_its_interval_whatever_redrawing_adds() -> None:
    covered = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        p = rng.uniform(size=400)
        y = rng.uniform(size=400) < p
        ece = score_report(y, np.c_[1 - p, p], [0, 1], n_bootstrap=300).scores["ece"]
        assert 0 <= ece.low <= ece.value <= ece.high
        covered.append(ece.low == 0)
    assert np.mean(covered) > 0.9, "of one that is calibrated"


def test_the_calibration_error_says_what_chance_alone_would_show() -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(size=150)
    y = rng.uniform(size=150) < p
    shown = [
        score_report(rng.uniform(size=150) < p, p, [False, True], n_bootstrap=0).scores["ece"].value
        for _ in range(300)
    ]
    report = score_report(y, p, [False, True], n_bootstrap=300)
    (note,) = (each for each in report.notes if each.startswith("ECE"))
    usual, most = (float(word) for word in re.findall(r"0\.\d{3}", note))
    assert usual == pytest.approx(np.mean(shown), abs=0.005)
    assert most == pytest.approx(np.percentile(shown, 97.5), abs=0.015)
    sure = score_report(y, np.where(p > 0.5, 0.999, 0.001), [False, True], n_bootstrap=300)
    assert sure.scores["ece"].low > 0.1, "of one that is far too sure"


def test_the_difference_to_the_floor_is_paired() -> None:
    given, floor = drawn(400, 2, seed=1), drawn(400, 2, seed=1)
    worse = floor.proba.copy()
    worse[::10] = worse[::10, ::-1]
    report = score_report(given.label, given.proba, [0, 1], baseline_proba=worse)
    assert report.difference is not None
    assert report.baseline is not None
    for name, score in report.difference.items():
        gap = report.scores[name].value - report.baseline[name].value
        assert score.value == pytest.approx(gap)
        assert score.low <= score.value <= score.high
    paired = report.difference["accuracy"]
    alone = report.scores["accuracy"]
    assert paired.high - paired.low < 0.8 * (alone.high - alone.low)
    assert paired.low > 0
    assert "better" in str(report)
    same = score_report(given.label, given.proba, [0, 1], baseline_proba=given.proba)
    assert same.difference is not None
    assert all(score == (0, 0, 0) for score in same.difference.values())
    swapped = score_report(given.label, worse, [0, 1], baseline_proba=given.proba)
    assert "WORSE" in str(swapped)


def test_equal_random_states_give_equal_intervals_and_batches_do_not_matter(monkeypatch) -> None:
    given = drawn(60, 3)
    first, again = (bootstrap_scores([given], 40, 7)[0] for _ in range(2))
    monkeypatch.setattr("titans_dna.scores._CELLS", 200)
    in_batches = bootstrap_scores([given], 40, 7)[0]
    for name, values in first.items():
        np.testing.assert_array_equal(values, again[name])
        np.testing.assert_allclose(values, in_batches[name])


def test_a_class_without_rows_leaves_areas_undefined_and_says_so() -> None:
    given = drawn(30, 3)
    label = given.label % 2
    report = score_report(label, given.proba, [0, 1, 2], baseline_proba=given.proba)
    assert math.isnan(report.scores["auroc"].value)
    assert math.isnan(report.scores["auprc"].value)
    expected = metrics.recall_score(
        label, given.proba.argmax(axis=1), labels=[0, 1], average="macro"
    )
    assert report.scores["balanced_accuracy"].value == pytest.approx(expected)
    assert "undefined: the test set has no row of class 2" in str(report)
    assert report.to_dict()["scores"]["auroc"] == {"value": None, "low": None, "high": None}
    assert report.to_dict()["classes"][2]["n"] == 0


def test_one_row_can_be_scored() -> None:
    report = score_report(["b"], [[0.25, 0.75]], ["a", "b"], n_bootstrap=10)
    assert report.scores["accuracy"] == pytest.approx((1, 0.207, 1), abs=1e-3)
    assert report.scores["mcc"] == (0, 0, 0)
    assert report.scores["ece"].value == pytest.approx(0.25)


def test_a_rare_class_that_resamples_miss_keeps_its_interval() -> None:
    given = drawn(80, 2)
    label = np.zeros(80, dtype=int)
    label[:2] = 1
    score = score_report(label, given.proba, [0, 1]).scores["auroc"]
    assert score.low <= score.value <= score.high


def test_reports_can_be_read_in_all_forms() -> None:
    given = drawn(60, 3)
    names = ["<a>", "b", "c"]
    y = np.array(names)[given.label]
    report = score_report(y, given.proba, names, baseline_proba=given.proba, model="Mine")
    tree = report.to_dict()
    assert json.loads(json.dumps(tree, allow_nan=False)) == tree
    frame = report.to_frame()
    assert frame.index.tolist() == list(report.scores)
    assert frame.loc["mcc", "value"] == report.scores["mcc"].value
    assert frame.loc["mcc", "difference_high"] == 0
    assert list(score_report(y, given.proba, names).to_frame()) == ["value", "low", "high"]
    assert np.sum(tree["confusion"]) == 60
    text = str(report)
    for word in (
        "Mine",
        "k-mer baseline",
        "MCC",
        "ECE (15 bins)",
        "true \\ predicted",
        "precision",
    ):
        assert word in text
    assert all(line == line.rstrip() for line in text.splitlines())
    html = report._repr_html_()
    assert "&lt;a&gt;" in html
    assert "<a>" not in html
    assert repr(report).startswith("<ScoreReport: Mine, 60 test rows, accuracy 0.")


def test_a_thousand_resamples_of_a_thousand_rows_are_cheap() -> None:
    given = drawn(1000, 2)
    start = time.process_time()
    report = score_report(given.label, given.proba, [0, 1], baseline_proba=given.proba)
    assert time.process_time() - start < 5  # it takes under one second; the machine may be busy
    assert report.n_bootstrap == 1000


def test_very_many_rows_get_fewer_resamples(monkeypatch) -> None:
    monkeypatch.setattr("titans_dna.scores._WORK", 120 * 100 * 2)
    given = drawn(100, 2)
    assert score_report(given.label, given.proba, [0, 1]).n_bootstrap == 120
    monkeypatch.setattr("titans_dna.scores._WORK", 1)
    assert score_report(given.label, given.proba, [0, 1]).n_bootstrap == 100


def test_misuse_is_named() -> None:
    good = [[0.5, 0.5], [0.1, 0.9]]
    with pytest.raises(ValueError, match=r"y_true holds 'x' at row 1, which is none of .*'a', 'b'"):
        score_report(["a", "x"], good, ["a", "b"])
    with pytest.raises(ValueError, match=r"proba must have shape \(2, 3\)"):
        score_report([0, 1], good, [0, 1, 2])
    with pytest.raises(ValueError, match="baseline_proba must have shape"):
        score_report([0, 1], good, [0, 1], baseline_proba=good[:1])
    with pytest.raises(ValueError, match=r"row 1 is .* before the softmax"):
        score_report([0, 1], [[0.5, 0.5], [2.0, -1.0]], [0, 1])
    with pytest.raises(ValueError, match="row 0 is "):
        score_report([0, 1], [[math.nan, 1.0], [0.5, 0.5]], [0, 1])
    with pytest.raises(ValueError, match="two different labels; got \\[1, 1\\]"):
        score_report([1, 1], good, [1, 1])
    with pytest.raises(ValueError, match="n >= 1; got \\(0,\\)"):
        score_report([], np.zeros((0, 2)), [0, 1])
    with pytest.raises(ValueError, match="`n_bootstrap` must be an int >= 0; got -1"):
        score_report([0, 1], good, [0, 1], n_bootstrap=-1)
