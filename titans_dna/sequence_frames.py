"""Sequences in data frames: which column holds them, and which their names."""

from __future__ import annotations

from typing import Any

from titans_dna.alphabet import AlphabetError, encode
from titans_dna.sequence_kinds import index_names, is_missing, library_of, read_series
from titans_dna.sequence_set import Sequences, Strings
from titans_dna.sequence_text import Heads
from titans_dna.tables import ID_COLUMNS, column_named, known_column, plain

__all__ = ["columns_of", "frame_names", "has_text", "is_frame", "read_frame"]

_SEQUENCE_COLUMNS = {"sequence", "seq", "dna"}
# These may well hold nothing but nucleotide codes, as labels A and B do.
_OTHER_COLUMNS = {*ID_COLUMNS, "label", "class", "target", "y", "split", "strand"}


def is_frame(X: Any) -> bool:
    """Tell a pandas or polars data frame."""
    names = {base.__name__ for base in type(X).__mro__}  # LazyFrame.columns would warn
    return library_of(X) in ("pandas", "polars") and bool(names & {"DataFrame", "LazyFrame"})


def columns_of(X: Any) -> list[Any]:
    """Return the names of the columns."""
    return list(X.columns)


def read_frame(X: Any, column: Any, name: str) -> Sequences:
    """Read the column of sequences; names come from a column for them, or pandas' index."""
    if not hasattr(X, "shape"):  # a polars LazyFrame
        raise TypeError(f"{name} is a {type(X).__name__}. Pass {name}.collect().")
    columns = columns_of(X)
    column = _find(X, columns, name) if column is None else known_column(columns, column, name)
    names = frame_names(X, [c for c in columns if c != column])
    return read_series(X[column], Heads(name, names=names))


def frame_names(X: Any, columns: list[Any]) -> Strings:
    """Return the names of the rows; those that are missing are empty."""
    column = column_named(columns, ID_COLUMNS)
    if column is None or columns.count(column) > 1:
        return index_names(X)
    values = X[column].to_list()
    return tuple("" if is_missing(value) else str(value) for value in values)


def has_text(X: Any) -> bool:
    """Tell whether any column of a frame holds text."""
    columns = columns_of(X)
    return any(_texts(X[c]) is not None for c in columns if columns.count(c) == 1)


def _find(X: Any, columns: list[Any], name: str) -> Any:
    named = [column for column in columns if plain(column) in _SEQUENCE_COLUMNS]
    if len(named) == 1:
        return known_column(columns, named[0], name)
    if named:
        raise ValueError(f"{name} has several columns of sequences, {named}. Name one: `column`.")
    found, others = [], []
    for column in columns:
        if columns.count(column) > 1 or plain(column) in _OTHER_COLUMNS:
            continue
        if (texts := _texts(X[column])) is None:
            continue
        if (problem := _why_not_dna(texts)) is None:
            found.append(column)
        else:
            others.append(f"{column!r} ({problem})")
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(
            f"{name} has several columns that could be the sequences, {found}. Name one: `column`."
        )
    why = f" Of its columns of text, none holds DNA only: {', '.join(others)}." if others else ""
    raise ValueError(
        f"{name} has no column of sequences; it has {columns}.{why} Name it 'sequence', or say "
        "which it is: `column`."
    )


def _texts(series: Any) -> list[str] | None:
    """Return the entries that are not missing, if there are any and all of them are text."""
    dtype = str(series.dtype)
    if getattr(series.dtype, "kind", "O") in "biufcmM" or dtype.startswith(("Int", "UInt", "Flo")):
        return None
    values = [value for value in series.to_list() if not is_missing(value)]
    return values if values and all(isinstance(value, str) for value in values) else None


def _why_not_dna(texts: list[str]) -> str | None:
    if max(map(len, texts)) < 2:
        return "single letters"
    try:
        encode("".join([text.strip() for text in texts]))
    except AlphabetError as error:
        return f"holds {error.letter!r}"
    return None
