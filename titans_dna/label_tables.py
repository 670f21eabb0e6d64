"""Labels by the names of records, from tables and dicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from titans_dna.label_values import check_labels
from titans_dna.sequence_frames import columns_of, is_frame
from titans_dna.sequence_kinds import is_missing
from titans_dna.sequence_set import Sequences
from titans_dna.sequence_text import some
from titans_dna.tables import ID_COLUMNS, column_named, known_column, read_table

__all__ = ["LABEL_COLUMNS", "has_ids", "labels_by_id", "labels_from_table"]

LABEL_COLUMNS = ("label", "class", "target")


def has_ids(frame: Any) -> bool:
    """Tell whether a frame has ids beside labels: a column for them, or the first of two."""
    if not hasattr(frame, "shape"):  # a polars LazyFrame
        raise TypeError(f"labels must not be a {type(frame).__name__}. Call its collect().")
    columns = columns_of(frame)
    return len(columns) == 2 or (len(columns) > 1 and column_named(columns, ID_COLUMNS) is not None)


def labels_from_table(table: Any, sequences: Sequences, name: str) -> NDArray[Any]:
    """Read labels by id from a data frame or a table file."""
    if is_frame(table):
        frame, place = table, name
    else:
        frame, place = read_table(table, first_is_id=True), Path(table).name
        # Where the first line names a record it is no header.
        if columns_of(frame)[0] in set(sequences.names or ()):
            frame = read_table(table, header=False)
    columns = columns_of(frame)
    if len(columns) < 2:
        raise ValueError(
            f"{place} must have a column of ids and one of labels; it has {columns}. For labels in "
            "the order of the sequences pass the column itself."
        )
    ids = column_named(columns, ID_COLUMNS)
    labels = column_named(columns, LABEL_COLUMNS)
    if ids is None and labels is None:
        ids, labels = columns[:2]
    elif ids is None or labels is None:
        others = [column for column in columns if column not in (ids, labels)]
        if len(others) > 1:
            wanted = "ids" if ids is None else "labels"
            known = ID_COLUMNS if ids is None else LABEL_COLUMNS
            raise ValueError(
                f"{place} has several columns that could be the {wanted}, {others}. Call one "
                f"{known[0]!r}."
            )
        ids, labels = (others[0], labels) if ids is None else (ids, others[0])
    ids, labels = (frame[known_column(columns, column, place)] for column in (ids, labels))
    return labels_by_id(ids.to_list(), labels.to_list(), sequences, place)


def labels_by_id(
    ids: list[Any], labels: list[Any], sequences: Sequences, name: str
) -> NDArray[Any]:
    """Give each record the label that stands beside its name."""
    if sequences.names is None:
        raise ValueError(
            f"{name} gives labels by id, and the sequences have no names. Pass labels in the order "
            "of the sequences, or sequences with names."
        )
    found: dict[str, Any] = {}
    for row, (key, label) in enumerate(zip(ids, labels, strict=True)):
        if is_missing(key):
            raise ValueError(f"{name} has no id in row {row}. Fill it in, or drop the row.")
        known = found.setdefault(str(key), label)
        if known is not label and known != label:
            raise ValueError(
                f"{name} has two labels for {str(key)!r}: {known!r} and {label!r}. Keep one."
            )
    missing = [record for record in sequences.names if record not in found]
    if missing:
        extra = found.keys() - set(sequences.names)
        hint = (
            f" It has {some(len(extra), 'id')} of no record, e.g. {min(extra)!r}." if extra else ""
        )
        raise ValueError(
            f"{name} has no label for {len(missing)} of {some(len(sequences), 'record')}; first "
            f"{', '.join(map(repr, missing[:3]))}.{hint}"
        )
    unlabelled = [record for record in sequences.names if is_missing(found[record])]
    if unlabelled:
        raise ValueError(
            f"{name} has an empty label for {some(len(unlabelled), 'record')}; first "
            f"{', '.join(map(repr, unlabelled[:3]))}. Fill it in, or drop the record."
        )
    return check_labels([found[record] for record in sequences.names], len(sequences), name)
