"""Scores of class probabilities: the values, and how they vary when the test rows are redrawn."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "HIGHER_IS_BETTER",
    "N_BINS",
    "Probabilities",
    "bootstrap_scores",
    "calibrated_errors",
    "scores",
    "wilson",
]

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

HIGHER_IS_BETTER = {
    "accuracy": True,
    "balanced_accuracy": True,
    "mcc": True,
    "auroc": True,
    "auprc": True,
    "ece": False,
    "brier": False,
    "log_loss": False,
}
N_BINS = 15
"""Bins of the calibration error: of equal width, as where it was published (Guo et al., 2017)."""

_CELLS = 1 << 22  # rows times resamples looked at together
_WORK = 1 << 26  # rows times classes times resamples in all; fewer resamples beyond
_FEWEST = 100


@dataclass(frozen=True)
class Groups:
    """Rows with equal keys, side by side: sorted once, summed under many weightings."""

    order: Labels
    first: Labels
    keys: NDArray

    @classmethod
    def of(cls, keys: NDArray) -> Groups:
        """Sort by rising keys."""
        order = np.argsort(keys, kind="stable")
        rising = keys[order]
        first = np.flatnonzero(np.r_[True, rising[1:] != rising[:-1]])
        return cls(order, first, rising[first])

    def sum(self, columns: Array) -> Array:
        """Sum columns that are in this order: ``(resamples, n) -> (resamples, groups)``."""
        return np.add.reduceat(columns, self.first, axis=1)


@dataclass(frozen=True)
class Probabilities:
    """Class probabilities beside the true classes, and what all scores are made from.

    Parameters
    ----------
    label : ndarray of int64, shape (n,)
        True class, 0 ... K - 1.
    proba : ndarray of float, shape (n, K)
    """

    label: Labels
    proba: Array

    @cached_property
    def predicted(self) -> Labels:
        """Likeliest class of each row."""
        return self.proba.argmax(axis=1)

    @cached_property
    def bins(self) -> Labels:
        """Calibration bin of each row, by the probability of its likeliest class."""
        top = self.proba.max(axis=1)
        return np.clip(np.ceil(top * N_BINS).astype(np.int64) - 1, 0, N_BINS - 1)

    @cached_property
    def gap(self) -> Array:
        """Of each row: whether it is right, less how sure it was."""
        return (self.predicted == self.label) - self.proba.max(axis=1)

    @cached_property
    def brier(self) -> Array:
        """Squared error of each row; of two classes one is counted, as is usual."""
        truth = np.eye(self.proba.shape[1])[self.label]
        scale = 0.5 if self.proba.shape[1] == 2 else 1.0
        return scale * np.square(self.proba - truth).sum(axis=1)

    @cached_property
    def log_loss(self) -> Array:
        """Minus the log probability of the true class of each row, clipped at rounding."""
        given = self.proba[np.arange(len(self.label)), self.label]
        return -np.log(np.clip(given, np.finfo(float).eps, 1))

    @property
    def ranked_classes(self) -> range:
        """Classes whose ranking is scored: the second of two, else each against the rest."""
        return range(1, 2) if self.proba.shape[1] == 2 else range(self.proba.shape[1])

    @cached_property
    def rankings(self) -> list[tuple[Groups, NDArray[np.bool_]]]:
        """For each ranked class: rows by falling score, and which of them are of the class."""
        ranked = []
        for c in self.ranked_classes:
            groups = Groups.of(-self.proba[:, c])
            ranked.append((groups, self.label[groups.order] == c))
        return ranked

    @cached_property
    def by_cell(self) -> Groups:
        """Rows by cell of the confusion matrix."""
        return Groups.of(self.label * self.proba.shape[1] + self.predicted)

    @cached_property
    def by_bin(self) -> Groups:
        """Rows by calibration bin."""
        return Groups.of(self.bins)


def scores(given: Probabilities) -> dict[str, float]:
    """All scores; NaN where a class that the score needs has no row."""
    from sklearn.metrics import (
        average_precision_score,
        log_loss,
        matthews_corrcoef,
        recall_score,
        roc_auc_score,
    )

    label, proba, predicted = given.label, given.proba, given.predicted
    n_classes = proba.shape[1]
    auroc = auprc = math.nan
    if len(np.unique(label)) == n_classes:
        ranked = [(label == c, proba[:, c]) for c in given.ranked_classes]
        auroc = float(np.mean([roc_auc_score(*each) for each in ranked]))
        auprc = float(np.mean([average_precision_score(*each) for each in ranked]))
    seen = np.union1d(label, predicted)
    error = np.bincount(given.bins, given.gap, minlength=N_BINS)
    return {
        "accuracy": float((predicted == label).mean()),
        "balanced_accuracy": float(
            recall_score(label, predicted, labels=np.unique(label), average="macro")
        ),
        # Zero by convention where one class is all there is, of which scikit-learn warns.
        "mcc": float(matthews_corrcoef(label, predicted)) if len(seen) > 1 else 0.0,
        "auroc": auroc,
        "auprc": auprc,
        "ece": float(np.abs(error).sum() / len(label)),
        "brier": float(given.brier.mean()),
        "log_loss": float(log_loss(label, _clipped(proba), labels=np.arange(n_classes))),
    }


def _clipped(proba: Array) -> Array:
    """Rows that sum to one exactly: scikit-learn warns of float32's rounding."""
    return proba / proba.sum(axis=1, keepdims=True)


def bootstrap_scores(
    models: list[Probabilities], n_bootstrap: int, random_state: int
) -> list[dict[str, Array]]:
    """Score redrawn test rows, the same for every model.

    Returns
    -------
    list of dict
        For each model the scores of each resample, shape (resamples,): ``n_bootstrap`` of them, or
        as few as 100 where there are very many rows. NaN where a resample lacks a class.
    """
    n, n_classes = models[0].proba.shape
    n_bootstrap = min(n_bootstrap, max(_FEWEST, _WORK // (n * n_classes)))
    rng = np.random.default_rng(random_state)
    step = max(1, _CELLS // max(n, n_classes**2))
    parts: list[list[dict[str, Array]]] = [[] for _ in models]
    for first in range(0, n_bootstrap, step):
        drawn = rng.integers(n, size=(min(step, n_bootstrap - first), n))
        drawn += n * np.arange(len(drawn))[:, None]
        weights = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        for part, model in zip(parts, models, strict=True):
            part.append(weighted_scores(model, weights.astype(np.float64)))
    return [{name: np.concatenate([p[name] for p in part]) for name in part[0]} for part in parts]


def calibrated_errors(given: Probabilities, draws: int, random_state: int) -> Array:
    """Calibration errors that chance alone would show on these rows, shape (draws,).

    Each draw lets a row be right as often as the probability of its likeliest class says.
    """
    top = given.proba.max(axis=1)[given.by_bin.order]
    rng = np.random.default_rng(random_state)
    step = max(1, _CELLS // len(top))
    errors = []
    for first in range(0, draws, step):
        right = rng.random((min(step, draws - first), len(top))) < top
        errors.append(np.abs(given.by_bin.sum(right - top)).sum(axis=1))
    return np.concatenate(errors) / len(top)


def wilson(share: Any, rows: Any) -> tuple[Any, Any]:
    """95 % interval of shares of so many rows: within 0 and 1, and open where few rows agree.

    Examples
    --------
    >>> low, high = wilson(1.0, 20)
    >>> round(low, 2), round(high, 2)
    (0.84, 1.0)
    """
    z = 1.96
    centre = (share + z**2 / (2 * rows)) / (1 + z**2 / rows)
    spread = z * np.sqrt(share * (1 - share) / rows + (z / (2 * rows)) ** 2) / (1 + z**2 / rows)
    return centre - spread, centre + spread


def weighted_scores(given: Probabilities, weights: Array) -> dict[str, Array]:
    """Scores under several weightings of the rows at once.

    Parameters
    ----------
    weights : ndarray of float, shape (resamples, n)

    Returns
    -------
    dict of ndarray, shape (resamples,)
    """
    n_classes = given.proba.shape[1]
    confusion = np.zeros((len(weights), n_classes**2))
    confusion[:, given.by_cell.keys] = given.by_cell.sum(weights[:, given.by_cell.order])
    confusion = confusion.reshape(-1, n_classes, n_classes)
    total = weights.sum(axis=1)
    right, true = np.einsum("bkk->bk", confusion), confusion.sum(axis=2)
    predicted = confusion.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = right / true
        # Matthews' coefficient of K classes (Gorodkin, 2004); zero where one factor is.
        covariance = right.sum(axis=1) * total - (true * predicted).sum(axis=1)
        spread = np.sqrt(
            (total**2 - (true**2).sum(axis=1)) * (total**2 - (predicted**2).sum(axis=1))
        )
        mcc = np.where(spread > 0, covariance / spread, 0.0)
    areas = [_areas(*ranking, weights) for ranking in given.rankings]
    auroc, auprc = np.mean(areas, axis=0)
    error = given.by_bin.sum((weights * given.gap)[:, given.by_bin.order])
    return {
        "accuracy": right.sum(axis=1) / total,
        "balanced_accuracy": np.nansum(recall, axis=1) / (true > 0).sum(axis=1),
        "mcc": mcc,
        "auroc": auroc,
        "auprc": auprc,
        "ece": np.abs(error).sum(axis=1) / total,
        "brier": weights @ given.brier / total,
        "log_loss": weights @ given.log_loss / total,
    }


def _areas(groups: Groups, positive: NDArray[np.bool_], weights: Array) -> tuple[Array, Array]:
    """Areas under the ROC curve and (as steps) under the precision-recall curve."""
    weights = weights[:, groups.order]
    # Equal scores are one step.
    hits, all_rows = groups.sum(weights * positive), groups.sum(weights)
    found, seen = np.cumsum(hits, axis=1), np.cumsum(all_rows, axis=1)
    n_positive, n_negative = found[:, -1], seen[:, -1] - found[:, -1]
    with np.errstate(invalid="ignore", divide="ignore"):
        # A negative is outranked by the positives above it and by half of those beside it.
        auroc = ((all_rows - hits) * (found - hits / 2)).sum(axis=1) / (n_positive * n_negative)
        precision = np.where(seen > 0, found / seen, 0.0)
        auprc = (hits * precision).sum(axis=1) / n_positive
    return auroc, np.where(n_negative > 0, auprc, np.nan)
