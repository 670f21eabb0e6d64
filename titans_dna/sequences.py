"""DNA sequences in, whatever they come as: text, tokens, frames, files.

Everything that takes sequences reads them here, into one `Sequences`, or into batches of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from titans_dna.sequence_files import cut, file_sequences, is_file_source, is_path_list
from titans_dna.sequence_frames import has_text, is_frame, read_frame
from titans_dna.sequence_kinds import (
    is_sequence,
    library_of,
    read_array,
    read_items,
    read_series,
)
from titans_dna.sequence_set import Sequences
from titans_dna.sequence_text import Heads

__all__ = ["Sequences", "is_dna_input", "iter_sequences", "read_sequences"]


def read_sequences(X: Any, *, column: Any = None, name: str = "X") -> Sequences:
    """Read sequences, all at once.

    Parameters
    ----------
    X : sequences, shape (n,)
        - a list, tuple, iterator, array, or pandas or polars Series of str, bytes, Biopython Seq or
          SeqRecord, or `titans_dna.Record`; a dict of them by name;
        - a pandas or polars data frame with a column of them;
        - a uint8 matrix of tokens, shape (n, length), padded on the right with
          `titans_dna.alphabet.PAD`; a list of token arrays; a matrix of single characters;
        - a path (a str is always one), a list of paths, a folder, an open file, ``"-"`` for
          standard input or a `pyfaidx.Fasta`: FASTA, or by its suffix CSV, TSV or Parquet. A list
          of str is one of paths where every entry names an existing file, else one of sequences.
    column : str, optional
        Column with the sequences. By default the one named sequence, seq or dna in any case, else
        the only column of text that holds nothing but nucleotide codes.
    name : str
        What the user calls `X`, for messages.

    Returns
    -------
    Sequences
        Named by records, by the column id, name or seqid, or by the index of a pandas object.

    Raises
    ------
    TypeError
        If `X`, or one of its entries, is none of these kinds.
    ValueError
        If sequences are missing, empty or hold what is no nucleotide code; positions count from 0.

    Examples
    --------
    >>> read_sequences(["ACGT", "nnA"]).lengths
    array([4, 3])
    """
    if not isinstance(X, Sequences) and is_file_source(X):
        return next(file_sequences(X, None, column, name))
    if column is not None and not is_frame(X):
        raise ValueError(
            f"`column` is for data frames and tables; {name} is neither. Leave it out."
        )
    if isinstance(X, Sequences):
        return X
    if is_frame(X):
        return read_frame(X, column, name)
    if library_of(X) in ("pandas", "polars"):
        return read_series(X, Heads(name))
    if hasattr(X, "__array__"):
        return read_array(np.asarray(X), Heads(name))
    if isinstance(X, Mapping):
        return read_items(list(X.values()), Heads(name, names=tuple(map(str, X))))
    if is_sequence(X):
        raise TypeError(f"{name} is a single {type(X).__name__}; wrap it in a list: [{name}].")
    if isinstance(X, (list, tuple)) or hasattr(X, "__next__"):
        return read_items(list(X), Heads(name))
    raise TypeError(
        f"{name} must be a list, array or Series of sequences, a data frame with a column of them, "
        f"uint8 tokens, or a path; got {type(X).__name__}."
    )


def iter_sequences(
    X: Any, *, batch_bases: int = 2**22, column: Any = None, name: str = "X"
) -> Iterator[Sequences]:
    """Read sequences in batches of at most `batch_bases` bases; what is longer comes alone.

    Takes what `read_sequences` takes. Of FASTA and of iterators no more than about a batch is in
    memory at a time.

    Examples
    --------
    >>> [batch.lengths for batch in iter_sequences(["ACG", "T", "ACGTA"], batch_bases=4)]
    [array([3, 1]), array([5])]
    """
    if batch_bases < 1:
        raise ValueError(f"batch_bases must be an int >= 1; got {batch_bases}.")
    if not isinstance(X, Sequences) and is_file_source(X):
        yield from file_sequences(X, batch_bases, column, name)
    elif hasattr(X, "__next__"):
        yield from _batches(X, batch_bases, name)
    else:
        yield from cut(read_sequences(X, column=column, name=name), batch_bases)


def is_dna_input(X: Any) -> bool:
    """Tell whether X is something that `read_sequences` reads, rather than a matrix of numbers.

    Examples
    --------
    >>> is_dna_input(["ACGT"]), is_dna_input(np.zeros((2, 4), np.uint8)), is_dna_input([[0.5, 1.0]])
    (True, True, False)
    """
    if isinstance(X, (Sequences, str, bytes, os.PathLike, Mapping)) or is_file_source(X):
        return True
    if is_frame(X):
        return not hasattr(X, "shape") or has_text(X)
    if library_of(X) in ("pandas", "polars"):
        return any(map(is_sequence, X.to_list()))
    if hasattr(X, "__array__"):
        X = np.asarray(X)
        if X.dtype.kind == "O":
            return any(map(is_sequence, X.ravel().tolist()))
        return X.dtype.kind in "UST" or (X.dtype == np.uint8 and X.ndim == 2)
    if isinstance(X, (list, tuple)):
        return not X or any(map(is_sequence, X)) or is_path_list(X)
    return hasattr(X, "__next__") or is_sequence(X)


def _batches(items: Iterator[Any], batch_bases: int, name: str) -> Iterator[Sequences]:
    batch: list[Any] = []
    size = first = 0
    for item in items:
        length = _length(item)
        if batch and size + length > batch_bases:
            yield read_items(batch, Heads(name, first))
            first, size, batch = first + len(batch), 0, []
        batch.append(item)
        size += length
    if batch or not first:
        yield read_items(batch, Heads(name, first))


def _length(item: Any) -> int:
    for field in ("seq", "sequence"):
        item = getattr(item, field, item)
    return len(item) if hasattr(item, "__len__") else 0  # what has none is refused when it is read
