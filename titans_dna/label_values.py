"""Labels in memory: one array, of one type, with nothing missing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from titans_dna.sequence_kinds import first_rows, is_missing, library_of
from titans_dna.sequence_text import some

__all__ = ["check_labels"]


def check_labels(y: Any, n: int, name: str = "y") -> NDArray[Any]:
    """Return labels of shape (n,) as an array of their own type: str, bool or whole numbers.

    Raises
    ------
    TypeError
        If they are of several types, or of none of these.
    ValueError
        If they are not n in one dimension, if some are missing, or are numbers that are not whole.
        The wording is scikit-learn's where it has one.

    Examples
    --------
    >>> check_labels(["a", "b"], 2)
    array(['a', 'b'], dtype='<U1')
    """
    if y is None:
        raise ValueError(f"requires {name} to be passed, but the target {name} is None")
    labels = _column(y, name)
    if len(labels) != n:
        raise ValueError(
            f"{name} has {some(len(labels), 'label')} for {some(n, 'sequence')}; needs one for "
            "each."
        )
    if labels.dtype.kind in "OT":
        labels = _of_one_type(labels.tolist(), name)
    if labels.dtype.kind == "f":
        _check_whole(labels, name)
    if labels.dtype.kind not in "biufU" or labels.ndim != 1:
        raise TypeError(
            f"{name} must hold labels that are str, bool or whole numbers; got dtype "
            f"{labels.dtype}. Convert them, e.g. by astype(str)."
        )
    return labels


def _column(y: Any, name: str) -> NDArray[Any]:
    """Return labels as an array of shape (n,), which may still be one of objects."""
    if library_of(y) == "polars" and hasattr(y, "to_list"):
        return _objects(y.to_list())
    if isinstance(y, (list, tuple)):
        nested = next((row for row, v in enumerate(y) if isinstance(v, (list, tuple))), None)
        if nested is not None:
            raise ValueError(f"{name} should be a 1d array; {name}[{nested}] is {y[nested]!r}.")
        return _objects(list(y))
    if hasattr(y, "isna") and hasattr(y, "astype"):  # keeps whole numbers whole beside missing ones
        y = y.astype(object)

    from sklearn.utils.validation import column_or_1d

    array = np.asarray(y)
    if array.ndim == 0:
        raise TypeError(f"{name} must be one label per sequence; got {type(y).__name__}.")
    return column_or_1d(array, warn=True)


def _objects(values: list[Any]) -> NDArray[Any]:
    return np.fromiter(values, dtype=object, count=len(values))


def _of_one_type(values: list[Any], name: str) -> NDArray[Any]:
    """Return labels as an array of what they are."""
    _refuse_missing([row for row, value in enumerate(values) if is_missing(value)], name)
    first: dict[type, int] = {}
    for row, value in enumerate(values):
        first.setdefault(type(value), row)
    words: dict[str, int] = {}
    for kind, row in first.items():
        words.setdefault(_word(kind), row)
    if len(words) > 1:
        (one, i), (other, j), *_ = words.items()
        raise TypeError(
            f"{name} holds labels of several types: {one} in row {i}, {other} in row {j}. Convert "
            f"them, e.g. [str(label) for label in {name}]."
        )
    return np.array(values)


def _word(kind: type) -> str:
    kinds = {str: "str", bool: "bool", np.bool_: "bool", int: "number", float: "number"}
    kinds[np.number] = "number"
    return next((word for base, word in kinds.items() if issubclass(kind, base)), kind.__name__)


def _check_whole(labels: NDArray[Any], name: str) -> None:
    _refuse_missing(np.flatnonzero(np.isnan(labels)).tolist(), name)
    if np.isinf(labels).any():
        raise ValueError(
            f"Input {name} contains infinity or a value too large for {labels.dtype!r}, in "
            f"{first_rows(np.flatnonzero(np.isinf(labels)).tolist())}."
        )
    if (odd := np.flatnonzero(labels != np.floor(labels))).size:
        raise ValueError(
            "Unknown label type: continuous. Maybe you are trying to fit a classifier, which "
            "expects discrete classes on a regression target with continuous values: "
            f"{name}[{odd[0]}] is {labels[odd[0]]}."
        )


def _refuse_missing(rows: list[int], name: str) -> None:
    if rows:
        raise ValueError(
            f"Input {name} contains NaN: {some(len(rows), 'label')} missing, in "
            f"{first_rows(rows)}. Drop these sequences, or fill in their labels."
        )
