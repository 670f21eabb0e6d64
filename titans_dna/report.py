"""One table that says how good a classifier is, how sure that is, and what k-mers alone reach."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from titans_dna.kmer_counting import is_int
from titans_dna.scores import (
    HIGHER_IS_BETTER,
    N_BINS,
    Probabilities,
    bootstrap_scores,
    calibrated_errors,
    scores,
    wilson,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Score", "ScoreReport", "score_report"]

_TITLES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "mcc": "MCC",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "ece": f"ECE ({N_BINS} bins)",
    "brier": "Brier score",
    "log_loss": "log loss",
}


class Score(NamedTuple):
    """A score and its 95 % confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "undefined"
        if math.isnan(self.low):
            return f"{self.value:.3f}"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, repr=False)
class ScoreReport:
    """Scores of a classifier beside the k-mer floor; made by `score_report`.

    Attributes
    ----------
    model : str
    n : int
        Test rows.
    classes : tuple
    scores : dict of str to Score
        accuracy, balanced_accuracy, mcc, auroc, auprc, ece, brier, log_loss; see `score_report`.
    baseline, difference : dict of str to Score, or None
        Scores of the floor, and model less floor on the same resamples.
    confusion : ndarray of int64, shape (K, K)
        Rows: true class; columns: predicted class.
    precision, recall, f1 : ndarray of shape (K,)
    notes : tuple of str
        Why a score is undefined; what calibration error chance alone would show.
    """

    model: str
    n: int
    classes: tuple[Any, ...]
    scores: dict[str, Score]
    baseline: dict[str, Score] | None
    difference: dict[str, Score] | None
    confusion: NDArray[np.int64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    n_bootstrap: int
    notes: tuple[str, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """One row per score, indexed by its name."""
        import pandas as pd

        columns: dict[str, list[float]] = {}
        parts = (("", self.scores), ("baseline_", self.baseline), ("difference_", self.difference))
        for prefix, part in parts:
            for field in Score._fields if part is not None else ():
                columns[prefix + field] = [getattr(score, field) for score in (part or {}).values()]
        return pd.DataFrame(columns, index=pd.Index(list(self.scores), name="score"))

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain numbers, for JSON; what is undefined becomes None."""

        def plain(part: dict[str, Score] | None) -> dict[str, Any] | None:
            if part is None:
                return None
            return {
                name: {key: _number(value) for key, value in score._asdict().items()}
                for name, score in part.items()
            }

        support = self.confusion.sum(axis=1)
        return {
            "model": self.model,
            "n": self.n,
            "n_bootstrap": self.n_bootstrap,
            "scores": plain(self.scores),
            "baseline": plain(self.baseline),
            "difference": plain(self.difference),
            "classes": [
                {
                    "class": name,
                    "precision": _number(self.precision[c]),
                    "recall": _number(self.recall[c]),
                    "f1": _number(self.f1[c]),
                    "n": int(support[c]),
                }
                for c, name in enumerate(self.classes)
            ],
            "confusion": self.confusion.tolist(),
            "notes": list(self.notes),
        }

    def _tables(self) -> list[list[list[str]]]:
        """Scores, classes and confusion as cells, the first row of each being its head."""
        head = ["", self.model]
        if self.baseline is not None:
            head += ["k-mer baseline", "difference"]
        main = [head]
        for name, score in self.scores.items():
            row = [_TITLES[name], str(score)]
            if self.baseline is not None and self.difference is not None:
                row += [str(self.baseline[name]), _verdict(name, self.difference[name])]
            main.append(row)
        per_class = [["class", "precision", "recall", "F1", "rows"]]
        confusion = [["true \\ predicted", *(str(name) for name in self.classes)]]
        for c, name in enumerate(self.classes):
            values = (self.precision[c], self.recall[c], self.f1[c])
            numbers = ["-" if math.isnan(value) else f"{value:.3f}" for value in values]
            per_class.append([str(name), *numbers, str(self.confusion[c].sum())])
            confusion.append([str(name), *map(str, self.confusion[c])])
        return [main, per_class, confusion]

    def _footer(self) -> list[str]:
        lines = list(self.notes)
        if self.n_bootstrap:
            lines.insert(
                0,
                f"In brackets: 95 % intervals from {self.n_bootstrap} resamples, of accuracies "
                "Wilson's.",
            )
        return lines

    def __str__(self) -> str:
        parts = [f"{self.n} test rows, {len(self.classes)} classes"]
        for table in self._tables():
            widths = [max(map(len, column)) for column in zip(*table, strict=True)]
            lines = [
                "  ".join(
                    f"{cell:<{width}}" if i == 0 else f"{cell:>{width}}"
                    for i, (cell, width) in enumerate(zip(row, widths, strict=True))
                ).rstrip()
                for row in table
            ]
            parts.append("\n".join(lines))
        return "\n\n".join([*parts, *filter(None, ["\n".join(self._footer())])])

    def __repr__(self) -> str:
        accuracy = self.scores["accuracy"]
        return f"<ScoreReport: {self.model}, {self.n} test rows, accuracy {accuracy}>"

    def _repr_html_(self) -> str:
        def cells(row: list[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) + "</tr>"

        tables = []
        for head, *rows in self._tables():
            body = "".join(cells(row, "td") for row in rows)
            tables.append(f"<table>{cells(head, 'th')}{body}</table>")
        notes = "".join(f"<p>{escape(line)}</p>" for line in self._footer())
        return "".join(tables) + notes


def score_report(
    y_true: Any,
    proba: Any,
    classes: Any,
    *,
    baseline_proba: Any = None,
    model: str = "TitansDNAClassifier",
    n_bootstrap: int = 1000,
    random_state: int = 0,
) -> ScoreReport:
    """Score class probabilities on a test set, beside those of the k-mer floor.

    The scores are accuracy; balanced accuracy (mean recall of the classes in the test set);
    Matthews' correlation coefficient; areas under the ROC and the precision-recall curve (of the
    second of two classes, else the mean of each class against the rest); the expected calibration
    error of the likeliest class over 15 bins of equal width; the Brier score (for more than two
    classes, the sum over classes); and the log loss. Intervals are percentiles of scores on redrawn
    test rows, of accuracies Wilson's: they cover the choice of test rows, not of training rows or
    seeds. The calibration error is never 0 on few rows: its interval is less what redrawing alone
    adds, and reaches down to 0 where a calibrated classifier would often show as much.

    Parameters
    ----------
    y_true : array-like of shape (n,)
        True labels.
    proba : array-like of shape (n, K), or (n,) for two classes
        Probability of each class, rows summing to 1; with (n,), that of the second class.
    classes : array-like of shape (K,)
        Labels in the order of the columns: the classifier's ``classes_``.
    baseline_proba : array-like like proba, optional
        Probabilities of the floor, such as `titans_dna.kmers.KmerBaseline`'s.
    model : str
        Name in the table.
    n_bootstrap : int
        Resamples of the test rows, 0 for no intervals; fewer (100 at least) are drawn where
        there are very many rows.
    random_state : int
        The same number draws the same resamples.

    Returns
    -------
    ScoreReport

    Raises
    ------
    ValueError
        A label is not among the classes, or the probabilities are none.

    Examples
    --------
    >>> report = score_report([0, 1, 1, 0], [0.2, 0.9, 0.4, 0.1], [0, 1], n_bootstrap=0)
    >>> report.scores["accuracy"].value, report.confusion.tolist()
    (0.75, [[2, 0], [1, 1]])
    """
    names = tuple(np.asarray(classes).tolist())
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(f"classes must be at least two different labels; got {list(names)}.")
    if not (is_int(n_bootstrap) and n_bootstrap >= 0):
        raise ValueError(f"`n_bootstrap` must be an int >= 0; got {n_bootstrap!r}.")
    label = _labels(y_true, names)
    models = [Probabilities(label, _proba(proba, len(label), len(names), "proba"))]
    if baseline_proba is not None:
        given = _proba(baseline_proba, len(label), len(names), "baseline_proba")
        models.append(Probabilities(label, given))
    values = [scores(each) for each in models]
    drawn = bootstrap_scores(models, n_bootstrap, random_state) if n_bootstrap else []
    notes = _notes(label, names)
    for value, redrawn in zip(values, drawn, strict=False):
        # Chance moves the shares of bins, and moves them once more as rows are redrawn: taken off.
        more = redrawn["ece"].mean() - value["ece"]
        redrawn["ece"] = (redrawn["ece"] - more).clip(0)
    found = [
        {key: _with_interval(value[key], drawn[i][key] if drawn else None) for key in value}
        for i, value in enumerate(values)
    ]
    for i, redrawn in enumerate(drawn):
        right = found[i]["accuracy"].value
        found[i]["accuracy"] = Score(right, *map(float, wilson(right, len(label))))
        by_chance = calibrated_errors(models[i], len(redrawn["ece"]), random_state)
        usual, most = float(by_chance.mean()), float(np.percentile(by_chance, 97.5))
        if found[i]["ece"].value <= most:
            found[i]["ece"] = found[i]["ece"]._replace(low=0.0)
        if not i:
            chance = (
                f"would show {usual:.3f} on average, and more than {most:.3f} in one of 40 cases"
            )
            notes += (f"ECE: on these rows a calibrated classifier {chance}.",)
    difference = None
    if baseline_proba is not None:
        difference = {
            key: _with_interval(
                values[0][key] - values[1][key], drawn[0][key] - drawn[1][key] if drawn else None
            )
            for key in values[0]
        }

    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    every = np.arange(len(names))
    predicted = models[0].predicted
    precision, recall, f1, _ = precision_recall_fscore_support(
        label, predicted, labels=every, zero_division=np.nan
    )
    return ScoreReport(
        model,
        len(label),
        names,
        found[0],
        found[1] if baseline_proba is not None else None,
        difference,
        confusion_matrix(label, predicted, labels=every),
        precision,
        recall,
        f1,
        len(drawn[0]["accuracy"]) if drawn else 0,
        notes,
    )


def _labels(y_true: Any, names: tuple[Any, ...]) -> NDArray[np.int64]:
    y_true = np.asarray(y_true)
    if y_true.ndim != 1 or not len(y_true):
        raise ValueError(f"y_true must be labels of shape (n,), n >= 1; got {y_true.shape}.")
    number = {name: i for i, name in enumerate(names)}
    label = np.array([number.get(value, -1) for value in y_true.tolist()], dtype=np.int64)
    if label.min() < 0:
        row = int(label.argmin())
        raise ValueError(
            f"y_true holds {y_true.tolist()[row]!r} at row {row}, which is none of the classes "
            f"{list(names)}."
        )
    return label


def _proba(proba: Any, n: int, n_classes: int, name: str) -> NDArray[np.float64]:
    try:
        proba = np.asarray(proba, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be probabilities, not labels or text: {error}.") from None
    if proba.ndim == 1 and n_classes == 2:
        proba = np.stack([1 - proba, proba], axis=1)
    if proba.shape != (n, n_classes):
        raise ValueError(
            f"{name} must have shape {(n, n_classes)}, a row per label and a column per class; "
            f"got {proba.shape}."
        )
    sums = proba.sum(axis=1)
    odd = ~(np.isfinite(proba).all(axis=1) & (proba.min(axis=1) >= -1e-6) & (abs(sums - 1) < 1e-3))
    if odd.any():
        row = int(odd.argmax())
        raise ValueError(
            f"{name} must hold probabilities that sum to 1 in each row; row {row} is "
            f"{proba[row].tolist()}. Are these scores before the softmax?"
        )
    proba = np.clip(proba, 0, None)
    return np.asarray(proba / proba.sum(axis=1, keepdims=True))


def _with_interval(value: float, drawn: NDArray[np.float64] | None) -> Score:
    # A resample can lack a rare class: its areas are undefined and do not count.
    drawn = drawn[~np.isnan(drawn)] if drawn is not None else None
    if drawn is None or not len(drawn) or math.isnan(value):
        return Score(value, math.nan, math.nan)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Score(value, float(low), float(high))


def _notes(label: NDArray[np.int64], names: tuple[Any, ...]) -> tuple[str, ...]:
    counts = np.bincount(label, minlength=len(names))
    missing = [str(name) for name, count in zip(names, counts, strict=True) if not count]
    if not missing:
        return ()
    return (
        f"AUROC and AUPRC are undefined: the test set has no row of class {', '.join(missing)}.",
        "Balanced accuracy is the mean over the classes that the test set has.",
    )


def _verdict(name: str, difference: Score) -> str:
    """The difference, marked where its interval leaves no doubt of its sign."""
    if math.isnan(difference.low) or difference.low <= 0 <= difference.high:
        return str(difference)
    better = (difference.low > 0) == HIGHER_IS_BETTER[name]
    return f"{difference} {'better' if better else 'WORSE'}"


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
