"""Sequences in memory, in the kinds that users have them: lists, arrays, Series.

pandas is never imported here: whoever passes its objects has done so. Biopython's objects are known
by what they can do.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np

from titans_dna.alphabet import PAD, Tokens
from titans_dna.sequence_set import Offsets, Sequences, offsets_of
from titans_dna.sequence_text import (
    Heads,
    check_lengths,
    encode_joined,
    encode_texts,
    some,
    where,
)

__all__ = [
    "first_rows",
    "index_names",
    "is_missing",
    "is_sequence",
    "library_of",
    "read_array",
    "read_item",
    "read_items",
    "read_series",
]

_MISSING = {"NoneType", "NAType", "NaTType"}
Item = tuple[str, str | None, str | None, str | None]


def library_of(X: Any) -> str:
    """Return the library that the class of an object, or one of its bases, comes from."""
    libraries = [base.__module__.partition(".")[0] for base in type(X).__mro__]
    known = [library for library in libraries if library in ("pandas", "polars", "pyfaidx")]
    return known[0] if known else libraries[0]


def is_missing(value: Any) -> bool:
    """Tell None, NaN, pandas.NA and NaT."""
    return type(value).__name__ in _MISSING or (isinstance(value, float) and value != value)


def is_sequence(value: Any) -> bool:
    """Tell whether a value is one sequence: text, tokens, or an object that holds letters."""
    if isinstance(value, np.ndarray):
        return bool(value.dtype == np.uint8 and value.ndim == 1)
    if isinstance(value, (str, bytes, bytearray)):
        return True
    if isinstance(value, (type, os.PathLike)) or library_of(value) in ("pandas", "polars"):
        return False
    kind = type(value)
    return any(hasattr(value, k) for k in ("seq", "sequence")) or (
        hasattr(kind, "__bytes__") and hasattr(kind, "__len__")
    )


def read_items(items: list[Any], heads: Heads) -> Sequences:
    """Read a list of str, bytes, token arrays, Biopython's Seq and SeqRecord, or records."""
    kinds = set(map(type, items))
    if all(issubclass(kind, str) for kind in kinds) or kinds <= {bytes, bytearray, np.bytes_}:
        return encode_texts(items, heads)
    _refuse_missing([row for row, item in enumerate(items) if is_missing(item)], heads)
    if kinds == {np.ndarray}:
        return _read_tokens(items, heads)
    parts = [read_item(item, where(heads, row)) for row, item in enumerate(items)]
    texts, *fields = zip(*parts, strict=True)
    if heads.names is None:
        found = [None if None in values else values for values in fields]
        heads = Heads(heads.name, heads.first, *found)
    return encode_texts(list(texts), heads)


def read_item(item: Any, place: str) -> Item:
    """Return letters, name, description and source of one sequence; TypeError if it is none."""
    if isinstance(item, str):
        return item, None, None, None
    if isinstance(item, os.PathLike):
        raise TypeError(f"{place} is a path, {os.fspath(item)!r}, among others. Pass paths alone.")
    if isinstance(item, np.ndarray) or not is_sequence(item):
        spelled = isinstance(item, (list, tuple)) and all(len(str(part)) == 1 for part in item)
        raise TypeError(
            f"{place} must be a str, bytes, or a Biopython Seq or SeqRecord; got "
            f"{type(item).__name__}." + (" Join its letters by ''.join." if spelled else "")
        )
    letters: Any = next(
        (v for k in ("seq", "sequence") if (v := getattr(item, k, None)) is not None), item
    )
    if not isinstance(letters, str):
        try:
            letters = bytes(letters).decode("latin-1")
        except (TypeError, ValueError) as error:  # Biopython has sequences of known length only
            raise ValueError(
                f"{place} is a {type(item).__name__} without letters ({error}). Drop it, or read "
                "its sequence first."
            ) from None
    name = getattr(item, "id", getattr(item, "name", None))
    if name == "<unknown id>":  # Biopython's word for none
        return letters, None, None, None
    return letters, name, getattr(item, "description", name), getattr(item, "source", None)


def read_series(X: Any, heads: Heads) -> Sequences:
    """Read a pandas or polars Series of str, bytes or Biopython's objects."""
    if not len(X):  # of no type that would tell
        return read_items([], heads)
    if library_of(X) == "polars":
        return _read_polars(X, heads)
    if heads.names is None and (names := index_names(X)) is not None:
        heads = Heads(heads.name, names=names)
    _refuse_missing(np.flatnonzero(X.isna()).tolist(), heads)
    _refuse_numbers(X.dtype, getattr(X.dtype, "kind", "O") in "biufcmM", heads)
    return read_items(X.tolist(), heads)


def index_names(X: Any) -> tuple[str, ...] | None:
    """Return the labels of a pandas index, None where it only counts the rows, from 0 on."""
    index = getattr(X, "index", None)
    if index is None or callable(index):
        return None
    if type(index).__name__ == "RangeIndex" and (index.start, index.step) == (0, 1):
        return None
    return tuple(map(str, index.tolist()))


def read_array(X: Any, heads: Heads) -> Sequences:
    """Read a numpy array: 1-d of text or objects, a matrix of tokens, or one of characters."""
    name = heads.name
    if X.ndim == 2 and X.dtype.kind in "OUST" and X.shape[1] == 1:
        X = X[:, 0]
    if X.ndim == 1 and X.dtype.kind in "OUST":
        return read_items(X.tolist(), heads)
    if X.dtype == np.uint8 and X.ndim == 2:
        return _read_matrix(X, heads)
    if X.dtype == np.uint8 and X.ndim == 1:
        raise ValueError(
            f"{name} is one sequence of {some(X.size, 'token')}; needs shape (n, length). Pass "
            f"{name}[None, :], or a list of such arrays."
        )
    if X.ndim == 2 and X.dtype.kind in "OUST":
        return _read_characters(X, heads)
    raise TypeError(
        f"{name} must hold text, shape (n,), or uint8 tokens, shape (n, length); got {X.dtype} of "
        f"shape {X.shape}. Make tokens by titans_dna.alphabet.encode; one-hot "
        "bases by argmax, as uint8."
    )


def first_rows(rows: list[int]) -> str:
    """Say which rows, the first three of them.

    Examples
    --------
    >>> first_rows([4, 7]), first_rows([4, 7, 8, 9])
    ('rows 4, 7', 'rows 4, 7, 8, ...')
    """
    shown = ", ".join(map(str, rows[:3])) + (", ..." if len(rows) > 3 else "")
    return f"row{'' if len(rows) == 1 else 's'} {shown}"


def _read_tokens(arrays: list[Tokens], heads: Heads) -> Sequences:
    for row, array in enumerate(arrays):
        if array.dtype != np.uint8 or array.ndim != 1:
            raise TypeError(
                f"{where(heads, row)} must be uint8 tokens of shape (length,); got {array.dtype} "
                f"of shape {array.shape}. Make tokens by titans_dna.alphabet.encode."
            )
    lengths = np.fromiter(map(len, arrays), np.int64, len(arrays))
    return _check_tokens(np.concatenate(arrays), lengths, heads)


def _read_matrix(X: Tokens, heads: Heads) -> Sequences:
    lengths = _trimmed(X != PAD)
    return _check_tokens(X[np.arange(X.shape[1]) < lengths[:, None]], lengths, heads)


def _trimmed(filled: Any) -> Offsets:
    """Length of each row up to its last filled place, from a mask of shape (n, length)."""
    n, length = filled.shape
    if not filled.size:
        return np.zeros(n, np.int64)
    return np.where(filled.any(axis=1), length - filled[:, ::-1].argmax(axis=1), 0)


def _check_tokens(tokens: Tokens, lengths: Offsets, heads: Heads) -> Sequences:
    check_lengths(lengths, heads)
    found = Sequences(tokens, offsets_of(lengths), heads.names)
    bad = np.flatnonzero((tokens > 31) | (tokens & 15 == PAD))
    if bad.size:
        row = int(np.searchsorted(found.offsets, bad[0], side="right")) - 1
        token, column = tokens[bad[0]], bad[0] - found.offsets[row]
        raise ValueError(
            f"{where(heads, row)} holds {token} at position {column}, "
            + (
                "the padding, which may only stand to the right of a sequence."
                if token == PAD
                else "no token of a base. Make tokens by titans_dna.alphabet.encode; for ASCII "
                f"letters pass {heads.name}.view('S1')."
            )
        )
    return found


def _read_characters(X: Any, heads: Heads) -> Sequences:
    kind = "S" if X.dtype.kind == "S" else "U"
    cells, wrong = X, []
    if X.dtype.newbyteorder("=") != np.dtype(f"{kind}1"):
        cells = X.ravel().tolist()
        text = bytes if kind == "S" else str
        wrong = [i for i, cell in enumerate(cells) if not isinstance(cell, text) or len(cell) > 1]
    if wrong:
        row, column = divmod(wrong[0], X.shape[1])
        raise ValueError(
            f"{heads.name} has shape {X.shape}, so each cell must hold one letter; [{row}, "
            f"{column}] is {cells[wrong[0]]!r}. For whole sequences pass one column, e.g. "
            f"{heads.name}[:, 0]."
        )
    letters = np.array(cells, dtype=f"{kind}1").reshape(X.shape)
    codes = letters.view(np.uint8 if kind == "S" else np.uint32).reshape(X.shape)
    lengths = _trimmed(codes != 0)
    flat = codes[np.arange(X.shape[1]) < lengths[:, None]].tobytes()
    order = "utf-32-le" if sys.byteorder == "little" else "utf-32-be"
    return encode_joined(flat if kind == "S" else flat.decode(order, "replace"), lengths, heads)


def _read_polars(X: Any, heads: Heads) -> Sequences:
    _refuse_missing(np.flatnonzero(X.is_null().to_numpy()).tolist(), heads)
    kind = str(X.dtype)
    _refuse_numbers(X.dtype, not kind.startswith(("String", "Cat", "Enum", "Binary", "Obj")), heads)
    if not kind.startswith(("String", "Cat", "Enum")):
        return read_items(X.to_list(), heads)

    import polars as pl

    texts = X.cast(pl.String)
    lengths = texts.str.len_chars().to_numpy().astype(np.int64)
    return encode_joined(texts.str.join("").item(), lengths, heads)


def _refuse_missing(rows: list[int], heads: Heads) -> None:
    if rows:
        places = first_rows([heads.first + row for row in rows])
        raise ValueError(
            f"{heads.name} has {some(len(rows), 'missing sequence')}, in {places}. Drop them, e.g. "
            "by dropna() in pandas, drop_nulls() in polars."
        )


def _refuse_numbers(dtype: Any, numeric: bool, heads: Heads) -> None:
    if numeric:
        raise TypeError(
            f"{heads.name} must hold sequences; got dtype {dtype}. Pass the column of sequences."
        )
