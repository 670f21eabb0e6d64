"""What an estimator was given, as what its model reads: DNA sequences, or signals."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from titans_dna.alphabet import SOFT_MASK, UNKNOWN
from titans_dna.batches import Inputs
from titans_dna.labels import check_labels, read_labels
from titans_dna.sequence_frames import is_frame
from titans_dna.sequences import Sequences, is_dna_input, read_sequences
from titans_dna.tables import is_table_path

_FARTHEST = 1e4  # spreads


def read_training(estimator: Any, X: Any, y: Any, *, reset: bool) -> tuple[Inputs, NDArray[Any]]:
    """Inputs and labels of ``fit`` and ``partial_fit``.

    Raises
    ------
    ValueError, TypeError
        X or y is not as the estimator's docstring says, or (``reset=False``) X is not of the kind
        that it was fitted on.
    """
    if y is None:
        raise ValueError(
            f"{type(estimator).__name__} requires y to be passed, but the target y is None. Give "
            "labels, or say where they are: a column, a table, 're:...', 'file' or 'folder'."
        )
    if is_dna_input(X):
        _check_kind(estimator, signal=False, reset=reset)
        # In fitting a column that X cannot have is a mistake.
        column = estimator.column if reset else column_of(estimator, X)
        sequences = read_sequences(X, column=column)
        labels = read_labels(y, sequences, X=X)
        if reset:  # what an earlier fit on numbers knew of their columns
            for name in ("n_features_in_", "feature_names_in_"):
                vars(estimator).pop(name, None)
        return apply_soft_mask(sequences, estimator.soft_mask), labels
    from sklearn.utils.validation import validate_data

    _check_kind(estimator, signal=True, reset=reset, X=X)
    X, y = validate_data(estimator, X, y, reset=reset, dtype=np.float64)
    return X, check_labels(y, len(y))


@contextmanager
def unchanged_by_errors(estimator: Any) -> Iterator[None]:
    """Take back what was assigned to an estimator, if what comes next fails or is interrupted."""
    before = dict(vars(estimator))
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


def read_inputs(estimator: Any, X: Any) -> Inputs:
    """Inputs of ``predict`` and its like: of the kind that the estimator was fitted on."""
    if is_dna_input(X):
        _check_kind(estimator, signal=False, reset=False)
        return prepare(estimator, read_sequences(X, column=column_of(estimator, X)))
    from sklearn.utils.validation import validate_data

    _check_kind(estimator, signal=True, reset=False, X=X)
    numbers: Inputs = validate_data(estimator, X, reset=False, dtype=np.float64)
    return numbers


def column_of(estimator: Any, X: Any) -> str | None:
    """The estimator's sequence column, for what has columns: a list or FASTA has none."""
    table = isinstance(X, str | os.PathLike) and is_table_path(X)
    column: str | None = estimator.column if table or is_frame(X) else None
    return column


def prepare(estimator: Any, sequences: Sequences, first: int = 0) -> Sequences:
    """Sequences as the fitted model reads them; in a stream, `first` is the number of the first.

    Raises
    ------
    ValueError
        The model has weights for each place, and a sequence is of another length.
    """
    length = estimator.length_
    if length is not None and (sequences.lengths != length).any():
        row = int(np.flatnonzero(sequences.lengths != length)[0])
        name = "" if sequences.names is None else f" ({sequences.names[row]!r})"
        raise ValueError(
            f"X[{first + row}]{name} has {sequences.lengths[row]} bases; this classifier has "
            f"weights for each of {length} places, as all its training sequences had that length. "
            "Cut or centre yours alike, or fit with head='pooled' for any length."
        )
    return apply_soft_mask(sequences, estimator.soft_mask)


def apply_soft_mask(sequences: Sequences, policy: str) -> Sequences:
    """Turn lower-case bases into unknown ones, if that is the policy."""
    if policy == "keep":
        return sequences
    tokens = sequences.tokens
    hidden = np.where(tokens & SOFT_MASK, np.uint8(UNKNOWN), tokens)
    return Sequences(
        hidden, sequences.offsets, sequences.names, sequences.descriptions, sequences.sources
    )


@dataclass(frozen=True)
class Scale:
    """Centre and spread of each column of a signal."""

    centre: NDArray[np.float64]
    spread: NDArray[np.float64]

    @classmethod
    def fit(cls, signal: NDArray[Any]) -> Scale:
        """Measure the columns; one that is constant gets its own size."""
        size = np.abs(signal).max(0)
        size[size == 0] = 1
        unit = signal / size  # whose squares are numbers, however large or small they are
        spread = unit.std(0)
        spread[spread < 1e-12] = 1
        return cls(unit.mean(0) * size, spread * size)

    def __call__(self, signal: Any) -> NDArray[np.float32]:
        """Scale a signal; what lies out of all bounds is drawn in, so that it stays a number."""
        with np.errstate(over="ignore"):
            scaled = (signal - self.centre) / self.spread
        return scaled.clip(-_FARTHEST, _FARTHEST).astype(np.float32)


def _check_kind(estimator: Any, *, signal: bool, reset: bool, X: Any = None) -> None:
    if not reset and estimator.signal_ != signal:
        was, got = ("numbers", "DNA sequences")[:: 1 if estimator.signal_ else -1]
        if signal and not _holds_numbers(X):
            got = f"{type(X).__name__} without any" if X is not None else "None"
        raise ValueError(
            f"{type(estimator).__name__} was fitted on {was}; got {got}. Give what it knows, or "
            "fit a new one."
        )


def _holds_numbers(X: Any) -> bool:
    """Whether this is a matrix of numbers, with something in it."""
    array = np.asarray(X)
    return array.ndim == 2 and array.size > 0 and array.dtype.kind in "biuf"
