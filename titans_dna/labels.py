"""Labels of sequences: given beside them, in a column, in a table by id, in headers or file names.

Whatever they come as, they end as one array with a label for each sequence, of the type they had.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from titans_dna.label_tables import has_ids, labels_by_id, labels_from_table
from titans_dna.label_values import check_labels
from titans_dna.sequence_frames import columns_of, is_frame
from titans_dna.sequence_kinds import index_names, library_of
from titans_dna.sequence_set import Sequences, Strings
from titans_dna.sequence_text import some
from titans_dna.tables import is_table_path, known_column, read_table

__all__ = ["check_labels", "read_labels"]

_COMPRESSED = (".gz", ".bgz", ".bgzf")
_FASTA = (".fa", ".fasta", ".fna", ".ffn", ".frn", ".fas", ".seq", ".txt")
_TABLES = (".csv", ".tsv", ".tab", ".parquet", ".pq")


def read_labels(y: Any, sequences: Sequences, *, X: Any = None, name: str = "y") -> NDArray[Any]:
    r"""Read one label per sequence.

    Parameters
    ----------
    y : labels, shape (n,)
        - an array, list, or pandas or polars Series, in the order of the sequences (of a pandas
          Series the index is not looked at, unless the sequences come from files and it holds just
          their names: then they are labels by name);
        - the name of a column of `X`;
        - a path to CSV, TSV or Parquet, a frame of pandas, polars or pyarrow, or a dict: labels by
          the names of records.
          The columns are found by name (id, name or seqid; label, class or target), else the first
          is the id and the second the label. Labels of other records are ignored;
        - ``"re:PATTERN"`` or a compiled pattern, searched in each header: its only group, or the
          one named label, is the label, e.g. ``r"re:class=(\w+)"``;
        - ``"file"``: the name of the file that a record is from, without suffix; ``"folder"``: the
          name of the folder that this file is in.
    sequences : Sequences
        What is labelled.
    X : data frame or path to a table, optional
        What `sequences` were read from.
    name : str
        What the user calls `y`, for messages.

    Returns
    -------
    ndarray, shape (n,)

    Raises
    ------
    TypeError
        If `y` is none of these kinds, or its labels are of several types.
    ValueError
        If there are more or fewer labels than sequences, if any is missing, or if they are numbers
        that are not whole.

    Examples
    --------
    >>> tokens, headers = np.array([0, 1, 2], np.uint8), ("s1 class=a", "s2 class=b")
    >>> sequences = Sequences(tokens, np.array([0, 1, 3]), descriptions=headers)
    >>> read_labels(r"re:class=(\w+)", sequences)
    array(['a', 'b'], dtype='<U1')
    """
    n = len(sequences)
    if library_of(y) == "pyarrow" and hasattr(y, "column_names"):
        import polars as pl

        y = pl.from_arrow(y)
    if isinstance(y, re.Pattern):
        return _from_headers(y, sequences, name)
    if isinstance(y, (str, os.PathLike)):
        return _named(y, sequences, X, name)
    if isinstance(y, Mapping):
        return labels_by_id(list(y), list(y.values()), sequences, name)
    if is_frame(y) and has_ids(y):
        return labels_from_table(y, sequences, name)
    if _are_by_index(y, sequences):
        values = y.iloc[:, 0] if is_frame(y) else y
        return labels_by_id(list(index_names(y) or ()), values.tolist(), sequences, name)
    return check_labels(y, n, name)


def _are_by_index(y: Any, sequences: Sequences) -> bool:
    """Whether a pandas index names the records of files, each once.

    Beside a pandas X it is no such thing: what shuffles labels to test for chance shuffles it too.
    """
    if sequences.sources is None or sequences.names is None:
        return False
    names = index_names(y) if library_of(y) == "pandas" else None
    return names is not None and sorted(names) == sorted(sequences.names)


def _named(y: Any, sequences: Sequences, X: Any, name: str) -> NDArray[Any]:
    word = os.fspath(y)
    frame = X if is_frame(X) else None
    several = X if isinstance(X, list | tuple) else [X]
    if several and all(map(_is_table, several)):
        frame = _together([read_table(each) for each in several], word)
    if isinstance(y, str):
        if y.startswith("re:"):
            return _from_headers(y[3:], sequences, name)
        if frame is not None and y in columns_of(frame):
            column = known_column(columns_of(frame), y, "X")
            return check_labels(frame[column], len(sequences), f"column {column!r}")
        if y in ("file", "folder"):
            return _from_sources(y, sequences, name)
    if is_table_path(y):
        return labels_from_table(y, sequences, name)
    if frame is not None:
        known_column(columns_of(frame), word, "X")  # raises, and says what is there
    raise ValueError(
        f"{name} is {word!r}, which is none of: a column of a data frame X, a path to CSV, TSV or "
        "Parquet, 're:PATTERN', 'file', 'folder'."
    )


def _is_table(X: Any) -> bool:
    return isinstance(X, str | os.PathLike) and is_table_path(X) and os.path.isfile(X)  # noqa: PTH113


def _together(frames: list[Any], column: str) -> Any:
    """The first table; or of several, what they have in a column, one after the other."""
    if len(frames) == 1 or not all(column in columns_of(frame) for frame in frames):
        return frames[0]
    import polars as pl

    parts = [frame[column] for frame in frames]
    if len({part.dtype for part in parts}) > 1:  # 1 in one file, 01 in another
        parts = [part.cast(pl.String) for part in parts]
    return pl.DataFrame({column: pl.concat(parts)})


def _from_headers(pattern: Any, sequences: Sequences, name: str) -> NDArray[Any]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{name} is no valid pattern: {pattern!r}: {error}.") from error
    if isinstance(compiled.pattern, bytes):
        raise TypeError(f"{name} must be a pattern of str; got bytes.")
    group: Any = "label" if "label" in compiled.groupindex else 1
    if group == 1 and compiled.groups != 1:
        raise ValueError(
            f"the pattern of {name}, {compiled.pattern!r}, has {some(compiled.groups, 'group')}; "
            r"needs one, or one named label, e.g. r're:class=(\w+)' or '(?P<label>...)'."
        )
    headers = sequences.descriptions or sequences.names
    if headers is None:
        raise ValueError(f"{name} is a pattern for headers, and the sequences have none.")
    found = list(map(compiled.search, headers))
    labels = [match.group(group) if match else None for match in found]
    if missing := [header for header, label in zip(headers, labels, strict=True) if not label]:
        raise ValueError(
            f"the pattern of {name}, {compiled.pattern!r}, finds no label in {len(missing)} of "
            f"{some(len(headers), 'header')}; first {missing[0]!r}."
        )
    return np.array(labels)


def _from_sources(kind: str, sequences: Sequences, name: str) -> NDArray[Any]:
    sources: Strings = sequences.sources
    if sources is None:
        raise ValueError(
            f"{name} is {kind!r}, and the sequences come from no files. Read them from paths."
        )
    labels = {source: _label_of(source, kind, name) for source in dict.fromkeys(sources)}
    return np.array([labels[source] for source in sources])


def _label_of(source: str, kind: str, name: str) -> str:
    if source == "standard input" or source.startswith("<"):
        raise ValueError(f"{name} is {kind!r}, and {source} is no file. Read from paths.")
    path = PurePath(os.path.abspath(source))  # noqa: PTH100  # links stay what they are called
    label = path.parent.name
    if kind == "file":
        label = path.name
        for suffixes in (_COMPRESSED, _FASTA + _TABLES):
            known = [suffix for suffix in suffixes if label.lower().endswith(suffix)]
            label = label[: -max(map(len, known), default=0) or None]
    if not label:
        raise ValueError(f"{name} is {kind!r}, and {source!r} has no such name.")
    return label
