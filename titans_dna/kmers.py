"""The floor that every report shows: logistic regression on k-mer counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from titans_core.parameters import check_params, describe, get_params, set_params
from titans_dna.kmer_counting import first_columns, is_int, kmer_counts, kmer_names, reverse_columns
from titans_dna.label_values import check_labels
from titans_dna.relatives import find_relatives
from titans_dna.sequences import Sequences, read_sequences

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["KmerBaseline", "kmer_counts", "kmer_names"]

# What cross-validation chooses from. k: the largest, and one that few or short sequences can fill.
_C_GRID = (0.3, 3.0)  # beside _PLAIN_C
_PLAIN_C = 1.0
_FOLDS = 3
# It looks at no more than this: a floor must not cost more than what stands on it.
_CHOICE_ROWS = 4000
_CHOICE_BASES = 1 << 19
_COMMON_COLUMNS = 340  # k <= 4
_DENSE_CELLS = 1 << 26
_LEARNED = ("k_", "C_", "both_strands_", "coef_", "intercept_")
_CONSTRAINTS = {
    "k_max": ("an int from 1 to 8", lambda v: is_int(v) and 1 <= v <= 8),
    "C": ("'auto' or a number > 0", lambda v: v == "auto" or (_is_real(v) and 0 < v < np.inf)),
    "both_strands": ("'auto', True or False", lambda v: v == "auto" or isinstance(v, bool)),
    "random_state": ("an int >= 0", lambda v: is_int(v) and v >= 0),
}


class KmerBaseline:
    """Logistic regression on k-mer frequencies: the floor that a network has to beat.

    A sequence becomes, for each k, the square roots of the shares of its k-mers: vectors of
    length one. With the defaults, the largest k, the penalty and whether the strand counts are
    chosen by 3-fold cross-validation (log loss) on up to 4,000 training sequences and half a
    million bases, relatives kept together as in `titans_dna.relatives`.

    Parameters
    ----------
    k_max : int
        Largest k to use, 1 to 8.
    C : float or 'auto'
        Inverse strength of the penalty, as in `sklearn.linear_model.LogisticRegression`. 'auto'
        chooses it, and whether the largest k is ``k_max`` or two less.
    both_strands : bool or 'auto'
        Count the k-mers of both strands, so that a sequence and its reverse complement get the
        same answer.
    class_weight : dict, 'balanced' or None
        As in `sklearn.linear_model.LogisticRegression`.
    random_state : int
        Draws the sequences and the folds of the cross-validation.

    Attributes
    ----------
    classes_ : ndarray
    k_, C_, both_strands_ : int, float, bool
        What was chosen; where a class has too few unrelated sequences for that (three): k_max,
        C = 1 and one strand.
    coef_, intercept_ : ndarray of shape (classes, columns), (classes,)
        Weights of the softmax; columns as in `kmer_names`.

    Examples
    --------
    >>> X = ["AATATA", "TATTAA", "CGCGGC", "GCCGCG"]
    >>> floor = KmerBaseline(k_max=2).fit(X, [0, 0, 1, 1])
    >>> floor.predict(["ATATTTAA", "GGCGCC"])
    array([0, 1])
    """

    _estimator_type = "classifier"  # what scikit-learn before 1.6 goes by

    def __init__(
        self,
        k_max: int = 6,
        C: float | str = "auto",
        both_strands: bool | str = "auto",
        class_weight: dict[Any, float] | str | None = None,
        random_state: int = 0,
    ) -> None:
        self.k_max = k_max
        self.C = C
        self.both_strands = both_strands
        self.class_weight = class_weight
        self.random_state = random_state

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: ARG002 (scikit-learn's signature)
        """Parameters by name, as `sklearn.base.clone` wants them."""
        return get_params(self)

    def set_params(self, **params: Any) -> KmerBaseline:
        """Change parameters by name."""
        set_params(self, params)
        return self

    def __repr__(self) -> str:
        return describe(self)

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags(),
            input_tags=InputTags(string=True, two_d_array=False),
        )

    def fit(self, X: Any, y: Any) -> KmerBaseline:
        """Fit on sequences and their labels.

        Parameters
        ----------
        X : sequences
            What `titans_dna.sequences.read_sequences` takes.
        y : array-like of shape (n,)
            Labels of at least two classes.
        """
        check_params(self, _CONSTRAINTS)
        sequences = read_sequences(X)
        y = check_labels(y, len(sequences))
        self.classes_, label = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"KmerBaseline needs labels of at least two classes; got {self.classes_.tolist()}."
            )
        counts = kmer_counts(sequences, self.k_max)
        self._choose(sequences, counts, y, label)
        features = root_shares(counts, self.k_, self.both_strands_)
        self.coef_, self.intercept_ = self._regress(features, y, self.C_)
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probability of each class, shape (n, classes), in the order of `classes_`."""
        if not hasattr(self, "coef_"):
            from sklearn.exceptions import NotFittedError

            raise NotFittedError(
                "This KmerBaseline instance is not fitted yet. Call 'fit' with sequences and "
                "labels before using it."
            )
        features = root_shares(kmer_counts(X, self.k_), self.k_, self.both_strands_)
        return _softmax(features @ self.coef_.T + self.intercept_)

    def predict(self, X: Any) -> NDArray[Any]:
        """Likeliest class of each sequence, shape (n,)."""
        likeliest = self.predict_proba(X).argmax(axis=1)
        return self.classes_[likeliest]

    def score(self, X: Any, y: Any) -> float:
        """Accuracy."""
        predicted = self.predict(X)
        return float((predicted == check_labels(y, len(predicted))).mean())

    def to_dict(self) -> dict[str, Any]:
        """Parameters and all that was learned, as plain values and arrays of numbers."""
        params = get_params(self)
        if isinstance(self.class_weight, dict):  # a tree that is saved has str keys only
            params["class_weight"] = list(self.class_weight.items())
        learned = {name: getattr(self, name) for name in _LEARNED}
        return {"params": params, "classes": self.classes_.tolist(), **learned}

    @classmethod
    def from_dict(cls, tree: dict[str, Any]) -> KmerBaseline:
        """What `to_dict` gave: it predicts the same."""
        baseline = cls(**tree["params"])
        if isinstance(baseline.class_weight, list):
            baseline.class_weight = dict(baseline.class_weight)
        baseline.classes_ = np.array(tree["classes"])
        for name in _LEARNED:
            setattr(baseline, name, tree[name])
        return baseline

    def _regress(
        self, features: csr_matrix, y: Any, C: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Weights (classes, columns) and intercepts of a softmax."""
        from sklearn.linear_model import LogisticRegression
        from threadpoolctl import threadpool_limits

        # With features of length one, a gradient below 1e-3 leaves nothing to gain in accuracy.
        model = LogisticRegression(C=C, class_weight=self.class_weight, tol=1e-3, max_iter=2000)
        x, centre = _centred(features)
        # The solver works on vectors so short that BLAS threads only wait for each other.
        with threadpool_limits(1):
            model.fit(x, y)
        coef, intercept = model.coef_, model.intercept_ - model.coef_[:, : len(centre)] @ centre
        if len(coef) == 1:  # two classes: the first has score 0
            coef, intercept = np.vstack([0 * coef, coef]), np.append(0.0, intercept)
        return coef, intercept

    def _choose(
        self, sequences: Sequences, counts: csr_matrix, y: Any, label: NDArray[np.int64]
    ) -> None:
        """Set `k_`, `C_` and `both_strands_`, by cross-validation what is not given."""
        self.k_ = int(self.k_max)
        self.C_ = _PLAIN_C if self.C == "auto" else float(self.C)
        self.both_strands_ = False if self.both_strands == "auto" else bool(self.both_strands)
        if self.C != "auto" and self.both_strands != "auto":
            return
        rows = np.random.default_rng(self.random_state).permutation(len(y))[:_CHOICE_ROWS]
        rows = rows[: np.searchsorted(np.cumsum(sequences.lengths[rows]), _CHOICE_BASES) + 1]
        rows.sort()
        folds = _folds(sequences.take(rows), label[rows], len(self.classes_), self.random_state)
        if folds is None:
            return
        counts, y, label = counts[rows], y[rows], label[rows]

        def tried(k: int, both_strands: bool, C: float) -> tuple[float, int, bool, float]:
            features = root_shares(counts, k, both_strands)
            loss = 0.0
            for train, test in folds:
                coef, intercept = self._regress(features[train], y[train], C)
                proba = _softmax(features[test] @ coef.T + intercept)
                loss -= np.log(proba[np.arange(len(test)), label[test]] + 1e-300).sum()
            return loss, k, both_strands, C

        # One after the other, k first: trying all combinations costs more than it finds.
        best = tried(self.k_, self.both_strands_, self.C_)
        if self.C == "auto" and self.k_ > 2:
            best = min(best, tried(self.k_ - 2, self.both_strands_, self.C_))
        if self.both_strands == "auto":
            best = min(best, tried(best[1], True, self.C_))
        if self.C == "auto":
            best = min(best, *(tried(best[1], best[2], C) for C in _C_GRID))
        _, self.k_, self.both_strands_, self.C_ = best


def _folds(
    sequences: Sequences, label: NDArray[np.int64], n_classes: int, random_state: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]] | None:
    """Folds that keep relatives together and have every class in training; None without any."""
    from sklearn.model_selection import StratifiedGroupKFold

    groups = find_relatives(sequences, label).groups
    unrelated = np.unique(np.stack([label, groups]), axis=1)[0]
    if np.bincount(unrelated, minlength=n_classes).min() < _FOLDS:
        return None
    splitter = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=random_state)
    folds = list(splitter.split(label, label, groups))
    if any(len(np.unique(label[train])) < n_classes or not len(test) for train, test in folds):
        return None
    return folds


def root_shares(counts: csr_matrix, k: int, both_strands: bool) -> csr_matrix:
    """For each length up to k, the square roots of the shares of the k-mers."""
    from scipy.sparse import csr_matrix

    firsts = first_columns(k)
    counts = counts[:, : firsts[-1]]
    if both_strands:
        counts = counts + counts[:, reverse_columns(k)]
    n, row = counts.shape[0], np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    length = np.repeat(np.arange(k), np.diff(firsts))[counts.indices]
    block = row * k + length
    totals = np.bincount(block, counts.data, minlength=n * k)
    shares = np.sqrt(counts.data / totals[block])
    return csr_matrix((shares, counts.indices, counts.indptr), counts.shape)


def _centred(features: csr_matrix) -> tuple[Any, NDArray[np.float64]]:
    """Take the means off the first columns, those of short k-mers; return what was taken off.

    These columns have hardly a zero anyway, and without their means the solver needs a fraction of
    the steps.
    """
    from scipy.sparse import csr_matrix, hstack

    common = min(features.shape[1], _COMMON_COLUMNS)
    if features.shape[0] * common > _DENSE_CELLS:
        return features, np.zeros(0)
    centre = np.asarray(features[:, :common].mean(axis=0)).ravel()
    dense = features[:, :common].toarray() - centre
    if features.shape[1] == common:
        return dense, centre
    return hstack([csr_matrix(dense), features[:, common:]], format="csr"), centre


def _softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    proba = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(proba / proba.sum(axis=1, keepdims=True))


def _is_real(value: object) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
