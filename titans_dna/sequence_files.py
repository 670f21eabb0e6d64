"""Sequences from files: FASTA in batches of bounded size, tables as a whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from titans_dna.alphabet import AlphabetError, Tokens, encode
from titans_dna.fasta_text import NUCLEOTIDES
from titans_dna.sequence_frames import read_frame
from titans_dna.sequence_kinds import library_of
from titans_dna.sequence_set import Sequences
from titans_dna.tables import is_table_path, read_table

__all__ = [
    "check_path",
    "cut",
    "file_sequences",
    "is_file_source",
    "is_path_list",
    "read_table_file",
]

_CHUNK = 2**20  # letters that become tokens in one go


def is_file_source(X: Any) -> bool:
    """Tell a path, a list of paths, an open file and a `pyfaidx.Fasta`."""
    if isinstance(X, (str, os.PathLike)) or is_path_list(X):
        return True
    library = library_of(X)  # columns and row labels of a frame are attributes, too
    return (library == "pyfaidx" and hasattr(X, "faidx")) or (
        library not in ("pandas", "polars") and hasattr(X, "read")
    )


def is_path_list(X: Any) -> bool:
    """Tell a list of paths: of path objects, or of strings that all name existing files."""
    if not isinstance(X, (list, tuple)) or not X:
        return False
    if isinstance(X[0], os.PathLike):
        return all(isinstance(entry, (str, os.PathLike)) for entry in X)
    # os.path.isfile, as Path.is_file raises where the text is too long for a name
    return all(isinstance(entry, str) and os.path.isfile(entry) for entry in X)  # noqa: PTH113


def check_path(X: Any, name: str) -> None:
    """Refuse a str that is no path: a sequence, or the text of a FASTA file."""
    # os.path.exists, as Path.exists raises where the text is too long for a name
    if not isinstance(X, str) or X == "-" or os.path.exists(X):  # noqa: PTH110
        return
    if not X or X.lstrip().startswith(">") or "\n" in X:
        raise ValueError(
            f"{name} is a str, which must be a path; got text. Pass a list of sequences or, if it "
            f"is FASTA, io.StringIO({name})."
        )
    try:
        encode(X)
    except AlphabetError:
        return
    raise ValueError(
        f"{name} is a str that names no file and looks like a sequence; wrap it in a list: "
        f"[{name}]."
    )


def file_sequences(X: Any, batch_bases: int | None, column: Any, name: str) -> Iterator[Sequences]:
    """Yield the sequences of files, FASTA in batches of bounded size; None is all in one batch."""
    paths = list(X) if is_path_list(X) else [X]
    for path in paths:
        check_path(path, name)
    tables = [path for path in paths if _is_table(path)]
    if not tables:
        if column is not None:
            raise ValueError(f"`column` is for tables; {name} is FASTA. Leave it out.")
        yield from _fasta_batches(X, batch_bases, name)
    elif len(tables) == len(paths):
        found = Sequences.concatenate([read_table_file(path, column) for path in paths])
        yield from cut(found, batch_bases)
    else:
        raise ValueError(f"{name} mixes tables and FASTA files. Pass one kind at a time.")


def read_table_file(path: Any, column: Any) -> Sequences:
    """Read the sequences of a CSV, TSV or Parquet file."""
    label, frame = Path(path).name, read_table(path)
    if first := next((c for c in frame.columns if _is_dna(c)), None):
        raise ValueError(
            f"{label} has no header line: its first line holds {first!r}. Add one, e.g. "
            "sequence,label."
        )
    found = read_frame(frame, column, label)
    sources = (os.fspath(path),) * len(found)
    return Sequences(found.tokens, found.offsets, found.names, None, sources)


def cut(sequences: Sequences, batch_bases: int | None) -> Iterator[Sequences]:
    """Yield neighbours in batches of at most so many bases; what is longer comes alone."""
    start, n, offsets = 0, len(sequences), sequences.offsets
    while start < n:
        stop = n
        if batch_bases is not None:
            stop = int(np.searchsorted(offsets, offsets[start] + batch_bases, side="right")) - 1
            stop = max(stop, start + 1)
        yield sequences.take(slice(start, stop))
        start = stop


def _is_table(path: Any) -> bool:
    return isinstance(path, (str, os.PathLike)) and is_table_path(path) and not Path(path).is_dir()


def _is_dna(text: str) -> bool:
    # a dozen letters, as words such as "backward" consist of nucleotide codes, too
    return len(text) >= 12 and not text.encode().translate(None, NUCLEOTIDES)


class _Buffer:
    """Letters that arrive piece by piece, as tokens; at its end may be a record not yet whole."""

    def __init__(self) -> None:
        self.size = 0
        self.records: list[tuple[str, str, str]] = []
        self._ends = [0]
        self._tokens: list[Tokens] = []
        self._pieces: list[bytes] = []
        self._waiting = 0

    def add(self, piece: Any) -> None:
        self._pieces.append(piece.sequence)
        self.size += len(piece.sequence)
        self._waiting += len(piece.sequence)
        if self._waiting >= _CHUNK:
            self._encode()
        if piece.is_last:
            if self.size == self._ends[-1]:
                raise ValueError(
                    f"{piece.source}: record {piece.name!r} at line {piece.line} has no sequence. "
                    "Drop it: what has no letters has no class."
                )
            self._ends.append(self.size)
            self.records.append((piece.name, piece.description, piece.source))

    def release(self) -> Sequences:
        """Return the records that are whole, and keep the letters of the one that is not."""
        self._encode()
        done, tokens = self._ends[-1], np.concatenate(self._tokens)
        fields = zip(*self.records, strict=True)
        found = Sequences(tokens[:done], np.array(self._ends, np.int64), *fields)
        self._tokens, self.size = [tokens[done:].copy()], self.size - done
        self._ends, self.records = [0], []
        return found

    def _encode(self) -> None:
        self._tokens.append(encode(b"".join(self._pieces)))
        self._pieces, self._waiting = [], 0


def _fasta_batches(source: Any, batch_bases: int | None, name: str) -> Iterator[Sequences]:
    from titans_dna.fasta import iter_pieces

    buffer, found = _Buffer(), False
    for piece in iter_pieces(source):
        # What is whole goes out before a record that does not fit beside it any more.
        full = batch_bases is not None and buffer.size + len(piece.sequence) > batch_bases
        if full and buffer.records:
            yield buffer.release()
        buffer.add(piece)
        found = True
    if not found:  # a pyfaidx.Fasta may leave out all
        raise ValueError(f"{name} holds no sequences; needs at least one.")
    yield buffer.release()
