"""``TitansDNAClassifier``: the facade. It checks, stores and translates; others do the work."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)

from titans_core import BackboneConfig, parameters
from titans_core.training_config import TrainingConfig
from titans_dna.answers import answer_frame
from titans_dna.batches import Inputs
from titans_dna.fitting import Recipe, continue_training, fit_model
from titans_dna.folds import make_folds, warn_of_few_held_out, warn_of_no_folds
from titans_dna.inputs import (
    Scale,
    column_of,
    prepare,
    read_inputs,
    read_training,
    unchanged_by_errors,
)
from titans_dna.model import Model
from titans_dna.network import HEADS
from titans_dna.relatives import check_groups, find_relatives, warn_of_relatives
from titans_dna.sequences import Sequences, is_dna_input, iter_sequences
from titans_dna.settings import (
    BATCH_SIZE,
    CONSTRAINTS,
    DEFAULT_BACKBONE,
    LONGEST_ALIGNED,
    default_dilations,
    default_pool,
    default_training,
)

Array = NDArray[np.float64]


class TitansDNAClassifier(
    ClassNamePrefixFeaturesOutMixin, ClassifierMixin, TransformerMixin, BaseEstimator
):
    """Classify DNA sequences of any length with a network whose memory learns as it reads.

    Networks learn from folds of the training sequences; linear models of k-mers, and of the letter
    at each place where all sequences have one length, stand beside them. How much each of them is
    let in is chosen on sequences that it has not learned from, and so are the calibration, the
    training step and whether both strands are read.

    Parameters
    ----------
    head : {"auto", "positional", "pooled"}
        Weights for each place, which needs sequences of one length; pooling over places; or, for
        sequences of one length, both ("auto").
    reverse_complement : {"auto", None, "augment", "average", "equivariant"}
        None reads sequences as they come. "augment" shows training sequences on either strand;
        "average" also averages the answers, so that ``p(x) = p(rc(x))``; "equivariant" gives the
        same by reading both strands with the same weights. "auto" takes "average" unless
        one strand alone tells held-out sequences better by a standard error.
    n_networks : int
        Networks to train, each on its own fold, and to average.
    linear : bool
        Whether linear models take part.
    backbone : BackboneConfig, optional
        The networks' memory; None takes one block of width 32.
    training : TrainingConfig, optional
        How networks are trained; None takes as many steps as the rows call for, with early
        stopping. Its ``seed`` gives way to ``random_state``.
    crop : int
        Of longer sequences, a random stretch of this many bases is learned from at each step. In
        prediction every base is read.
    validation : {"homology", "random"}
        Held-out sequences share no 30-mer with those learned from, as far as that leaves any
        (`titans_dna.relatives`), or are drawn blindly.
    class_weight : dict, "balanced", optional
        Weight of each class in every loss.
    soft_mask : {"keep", "mask"}
        Read lower-case bases like others, or as unknown ones, which no memory is written with.
    column : str, optional
        Sequence column of data frames; None finds it.
    random_state : int
        Seed of folds, weights and batches. The same seed gives the same model on the same machine.
    progress : bool
        Show progress bars on standard error.

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
        Labels, sorted: the order of all probabilities.
    model_ : Model
        Networks, linear models and their blend.
    held_out_ : ndarray of int
        Training rows that were held out from some network.
    held_out_by_expert_ : ndarray of shape (E, len(held_out_), K)
        What each of ``model_.experts`` said about them without having learned from them.
    held_out_probabilities_ : ndarray of shape (len(held_out_), K)
        What the blend makes of that, before relatives are told by their words.
    training_histories_ : tuple of TrainingHistory
    n_features_in_ : int
        For matrices of numbers.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> reads = ["".join(rng.choice(list("ACGT"), 60, p=[g, .5 - g, .5 - g, g]))
    ...          for g in [0.1] * 60 + [0.4] * 60]
    >>> labels = ["rich"] * 60 + ["poor"] * 60
    >>> classifier = TitansDNAClassifier(n_networks=1, progress=False).fit(reads, labels)
    >>> classifier.predict(["GCGCGGGCGC" * 6, "ATTATATAAT" * 6])
    array(['rich', 'poor'], dtype='<U4')
    """

    _parameter_constraints: ClassVar[parameters.Constraints] = CONSTRAINTS
    model_: Model

    def __init__(
        self,
        *,
        head: str = "auto",
        reverse_complement: str | None = "auto",
        n_networks: int = 3,
        linear: bool = True,
        backbone: BackboneConfig | None = None,
        training: TrainingConfig | None = None,
        crop: int = 2048,
        validation: str = "homology",
        class_weight: Mapping[Any, float] | str | None = None,
        soft_mask: str = "keep",
        column: str | None = None,
        random_state: int = 0,
        progress: bool = True,
    ) -> None:
        self.head = head
        self.reverse_complement = reverse_complement
        self.n_networks = n_networks
        self.linear = linear
        self.backbone = backbone
        self.training = training
        self.crop = crop
        self.validation = validation
        self.class_weight = class_weight
        self.soft_mask = soft_mask
        self.column = column
        self.random_state = random_state
        self.progress = progress

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        return tags

    def fit(self, X: Any, y: Any = None, groups: Any = None) -> TitansDNAClassifier:
        """Learn to tell classes.

        Parameters
        ----------
        X : sequences of shape (n,), or matrix of shape (n, p)
            Whatever `read_sequences` takes: lists of text, frames with a column of sequences, uint8
            tokens, FASTA files. Or a matrix of numbers, one for each position: a signal.
        y : labels of shape (n,)
            Whatever `read_labels` takes: an array, a column of X, a table by id, ``"re:..."`` for
            headers, ``"file"`` or ``"folder"``.
        groups : array-like of shape (n,), optional
            What is held out to choose by is held out by whole groups, such as chromosomes, samples
            or patients, in place of ``validation``.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            A parameter, X, y or groups is not as described, or there is but one class.
        """
        parameters.check_params(self, self._parameter_constraints)
        with unchanged_by_errors(self):
            inputs, labels = read_training(self, X, y, reset=True)
            return self._fit(inputs, labels, np.unique(labels), check_groups(groups, len(labels)))

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> TitansDNAClassifier:
        """Go on learning from new sequences.

        The first call fits. Later ones first let the blend learn from what each expert says about
        the new sequences, beside all that it was fitted on before; then the networks, one pass over
        the sequences. Linear models stay as they were fitted. Batches should hold all classes: like
        other networks, these forget what a long run of one class does not show.

        Parameters
        ----------
        X, y
            As in `fit`.
        classes : array of labels, optional
            All labels that will ever come; needed in the first call if y lacks some. Two of them
            must be there, since the first call fits. A class that comes later is learned by the
            networks alone, over a number of batches; a new `fit` learns it better.
        """
        if not hasattr(self, "model_"):
            parameters.check_params(self, self._parameter_constraints)
            with unchanged_by_errors(self):
                inputs, labels = read_training(self, X, y, reset=True)
                known = np.unique(labels if classes is None else classes)
                self._check_labels(labels, known)
                return self._fit(inputs, labels, known)
        inputs, labels = read_training(self, X, y, reset=False)
        if classes is not None and not np.array_equal(np.unique(classes), self.classes_):
            raise ValueError(
                f"`classes={np.unique(classes).tolist()}` is not the same as on last call to "
                f"partial_fit, was: {self.classes_.tolist()}."
            )
        self._check_labels(labels, self.classes_)
        if isinstance(inputs, Sequences):
            inputs = prepare(self, inputs)
        self.model_ = continue_training(
            self.model_,
            self._scaled(inputs),
            np.searchsorted(self.classes_, labels).astype(np.int64),
            self._weights(labels, self.classes_),
            replace(self._recipe(inputs), strands=self.strands_),
        )
        return self

    @property
    def _n_features_out(self) -> int:
        """Width of the embeddings, which `get_feature_names_out` numbers."""
        return sum(network.hidden_width for network in self.model_.networks)

    @property
    def held_out_probabilities_(self) -> Array:
        """What the classifier says about training rows that were held out."""
        self._check_fitted()
        return np.exp(self.model_.blend(self.held_out_by_expert_))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy on sequences and their labels, given in any way that `fit` takes them."""
        from sklearn.metrics import accuracy_score

        inputs, labels = self._read_test(X, y)
        likeliest = self.classes_[self._read(inputs).argmax(axis=1)]
        return float(accuracy_score(labels, likeliest, sample_weight=sample_weight))

    def predict(self, X: Any) -> NDArray[Any]:
        """Labels of sequences, shape (n,)."""
        likeliest = self._log_probabilities(X).argmax(axis=1)
        return self.classes_[likeliest]

    def predict_proba(self, X: Any) -> Array:
        """Probabilities of classes, shape (n, K), columns in the order of ``classes_``."""
        return np.exp(self._log_probabilities(X))

    def predict_log_proba(self, X: Any) -> Array:
        """Their logarithms."""
        return self._log_probabilities(X)

    def decision_function(self, X: Any) -> Array:
        """Log-odds of the second of two classes, shape (n,); log probabilities of more, (n, K)."""
        logs = self._log_probabilities(X)
        return logs[:, 1] - logs[:, 0] if logs.shape[1] == 2 else logs

    def predict_frame(self, X: Any) -> Any:
        """Ids, labels and probabilities as a data frame: polars for polars, else pandas.

        Returns
        -------
        data frame with columns id, prediction, and ``p_<class>`` for each class
        """
        self._check_fitted()
        inputs = read_inputs(self, X)
        return answer_frame(inputs, self._read(inputs), self.classes_, like=X)

    def iter_predict(self, X: Any, *, batch_bases: int = 2**18) -> Iterator[Any]:
        """`predict_frame` in pieces, for files that are larger than memory.

        Parameters
        ----------
        X : as in `predict`
            Of FASTA no more than a batch is in memory at a time.
        batch_bases : int
            Bases of a batch.
        """
        self._check_fitted()
        if not is_dna_input(X):
            yield self.predict_frame(X)
            return
        first = 0
        for sequences in iter_sequences(X, batch_bases=batch_bases, column=column_of(self, X)):
            inputs = prepare(self, sequences, first)
            yield answer_frame(inputs, self._read(inputs), self.classes_, like=X, first=first)
            first += len(sequences)

    def transform(self, X: Any) -> Array:
        """Embeddings: what the last layers of all networks see, shape (n, width)."""
        self._check_fitted()
        return self.model_.embed(self._scaled(read_inputs(self, X)))

    def score_report(self, X: Any, y: Any) -> Any:
        """Scores on sequences it has not seen, with the k-mer floor beside: a `ScoreReport`."""
        from titans_dna.report import score_report

        inputs, labels = self._read_test(X, y)
        floor = self.model_.floor_probabilities(self._scaled(inputs))
        return score_report(labels, np.exp(self._read(inputs)), self.classes_, baseline_proba=floor)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the classifier to one file (safetensors with a JSON header, no pickle)."""
        from titans_dna.model_file import save_classifier

        self._check_fitted()
        save_classifier(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TitansDNAClassifier:
        """Read what `save` wrote: it answers as before, bit for bit.

        Raises
        ------
        FileNotFoundError, ModelFileError
            There is no file, or it is not one that `save` wrote, whole and unchanged.
        """
        from titans_dna.model_file import load_classifier

        classifier = cls()
        load_classifier(classifier, path)
        return classifier

    def _fit(
        self,
        inputs: Inputs,
        labels: NDArray[Any],
        classes: NDArray[Any],
        groups: NDArray[np.int64] | None = None,
    ) -> TitansDNAClassifier:
        present = np.unique(labels).tolist()
        if len(present) < 2:
            raise ValueError(
                f"y holds only one class, {present[0]!r}; a classifier needs samples of "
                "at least 2 classes in the data."
            )
        read, scale = inputs, None
        if isinstance(inputs, np.ndarray):
            scale = Scale.fit(inputs)
            read = scale(inputs)
        y = np.searchsorted(classes, labels).astype(np.int64)
        found = find_relatives(read, y) if isinstance(read, Sequences) else None
        if groups is None and found is not None and self.validation == "homology":
            groups = found.groups
        folds = make_folds(y, groups, self.n_networks, self.random_state)
        if not folds:
            warn_of_no_folds(y, groups)
        else:
            if found is not None and groups is found.groups:
                warn_of_relatives(found)
            warn_of_few_held_out([len(held) for _, held in folds], self.n_networks, y, groups)
        recipe = self._recipe(read)
        related = None if found is None else found.related
        fitted = fit_model(read, y, self._weights(labels, classes), folds, recipe, related)
        # Nothing is assigned before all is there: an interrupted fit leaves the last one whole.
        self.classes_, self.signal_, self.length_ = classes, scale is not None, recipe.length
        self.model_, self.strands_, self.scale_ = fitted.model, fitted.strands, scale
        self.training_histories_ = fitted.histories
        self.held_out_, self.held_out_by_expert_ = fitted.held_out, fitted.held_out_by_expert
        return self

    def _recipe(self, inputs: Inputs) -> Recipe:
        signal = isinstance(inputs, np.ndarray)
        lengths = np.array([inputs.shape[1]]) if isinstance(inputs, np.ndarray) else inputs.lengths
        longest = int(lengths.max())
        aligned = len(np.unique(lengths)) == 1 and longest <= LONGEST_ALIGNED
        heads = (self.head,) if self.head != "auto" else HEADS if aligned else ("pooled",)
        if "positional" in heads and not aligned:
            raise ValueError(
                "`head` of TitansDNAClassifier must be 'pooled' or 'auto' for sequences of several "
                f"lengths, or of more than {LONGEST_ALIGNED} bases; got 'positional', and lengths "
                f"{lengths.min()} to {longest}."
            )
        training = default_training(len(inputs)) if self.training is None else self.training
        strands = self.reverse_complement
        if signal and strands not in (None, "auto"):
            raise ValueError(
                "`reverse_complement` of TitansDNAClassifier must be None or 'auto' for numbers, "
                f"which have no other strand; got {strands!r}."
            )
        return Recipe(
            heads=heads,
            length=longest if "positional" in heads else None,
            strands=None if signal else strands,
            signal=signal,
            backbone=DEFAULT_BACKBONE if self.backbone is None else self.backbone,
            training=replace(training, seed=int(self.random_state)),
            batch_size=BATCH_SIZE,
            crop=self.crop,
            pool=default_pool(longest),
            dilations=default_dilations(longest),
            linear=self.linear,
            progress=self.progress,
        )

    def _weights(self, labels: NDArray[Any], classes: NDArray[Any]) -> Array:
        from sklearn.utils.class_weight import compute_class_weight

        present = np.unique(labels)
        weights = np.ones(len(classes))
        weights[np.isin(classes, present)] = compute_class_weight(
            self.class_weight, classes=present, y=labels
        )
        if not weights[np.isin(classes, present)].any():
            raise ValueError(
                f"`class_weight` of TitansDNAClassifier gives all classes of y the weight 0: "
                f"{self.class_weight!r}. Give those that count one above 0."
            )
        return weights

    def _check_labels(self, labels: NDArray[Any], classes: NDArray[Any]) -> None:
        unknown = np.setdiff1d(labels, classes)
        if len(unknown):
            raise ValueError(
                f"y holds the label {unknown.tolist()[0]!r}, which is none of the classes "
                f"{classes.tolist()}. Name all that will come in the first call of partial_fit."
            )

    def _check_fitted(self) -> None:
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self, "model_")

    def _read_test(self, X: Any, y: Any) -> tuple[Inputs, NDArray[Any]]:
        """Inputs and labels to be scored on."""
        self._check_fitted()
        inputs, labels = read_training(self, X, y, reset=False)
        return (prepare(self, inputs) if isinstance(inputs, Sequences) else inputs), labels

    def _log_probabilities(self, X: Any) -> Array:
        self._check_fitted()
        return self._read(read_inputs(self, X))

    def _read(self, inputs: Inputs) -> Array:
        return self.model_.log_probabilities(self._scaled(inputs))

    def _scaled(self, inputs: Inputs) -> Inputs:
        return inputs if self.scale_ is None else self.scale_(inputs)
