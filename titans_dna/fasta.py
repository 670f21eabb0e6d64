"""Read FASTA: whole records, pieces of them, or any part by name.

Coordinates are 0-based and half-open, here and everywhere else: the first three bases are
``start=0, end=3``. What Biopython reads is read the same way; what is no DNA raises `FastaError`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from titans_dna.fasta_file import FastaFile
from titans_dna.fasta_sources import FastaError, Origin, list_origins, read_blocks
from titans_dna.fasta_text import Duplicates, Header, Names, read_runs

__all__ = [
    "FastaError",
    "FastaFile",
    "Piece",
    "Record",
    "iter_fasta",
    "iter_pieces",
    "open_fasta",
]


class Record(NamedTuple):
    """A sequence and where it comes from.

    `name` is the first word of the header line, `description` all of it; `sequence` has its case
    as written; `line` is the number of the header line in `source`, counted from 1.
    """

    name: str
    description: str
    sequence: str
    line: int
    source: str


class Piece(NamedTuple):
    """A part of a record: the letters from `start` on, 0-based; the rest as in `Record`."""

    name: str
    description: str
    start: int
    sequence: bytes
    is_last: bool
    line: int
    source: str


def iter_fasta(source: Any, *, duplicates: Duplicates = "keep") -> Iterator[Record]:
    r"""Yield the records of FASTA sources, one after the other, without an index.

    Parameters
    ----------
    source : str, PathLike, open file, pyfaidx.Fasta, or list of these
        A path, a folder (all FASTA files in it, by their suffix, sorted), a file open in binary or
        text mode, or ``"-"``, standard input. gzip and BGZF are recognised by their first bytes.
        A `pyfaidx.Fasta` gives its file, with its own names and case.
    duplicates : {"keep", "error", "rename", "first"}
        What becomes of a record that has the name of an earlier one of any file: it is kept,
        raises, is called ``name_2``, or is left out. All but ``"keep"`` remember every name.

    Yields
    ------
    Record

    Raises
    ------
    FastaError
        If a source does not exist, is empty, truncated or no FASTA, or holds other letters than
        the IUPAC nucleotide codes; the message names file, record and line.

    Examples
    --------
    >>> from io import BytesIO
    >>> for record in iter_fasta(BytesIO(b">chr1 first\nACGT\nnn\n>chr2\nGG\n")):
    ...     print(record.name, record.sequence)
    chr1 ACGTnn
    chr2 GG
    """
    return _records(_runs(_flatten(source), Names(duplicates)))


def iter_pieces(
    source: Any, piece_length: int = 2**20, *, duplicates: Duplicates = "keep"
) -> Iterator[Piece]:
    r"""Yield the records of FASTA sources in pieces; never more than about one is in memory.

    Parameters
    ----------
    source, duplicates
        As for `iter_fasta`.
    piece_length : int
        Letters in each piece but the last of a record, which may have fewer. A record without
        letters is one empty piece.

    Yields
    ------
    Piece

    Raises
    ------
    FastaError
        As for `iter_fasta`; pieces before the fault have been yielded by then.

    Examples
    --------
    >>> from io import BytesIO
    >>> for piece in iter_pieces(BytesIO(b">chr1\nACG\nTTG\nA\n"), 3):
    ...     print(piece.start, piece.sequence, piece.is_last)
    0 b'ACG' False
    3 b'TTG' False
    6 b'A' True
    """
    if type(piece_length) is not int or piece_length < 1:
        raise ValueError(f"`piece_length` must be an int >= 1; got {piece_length!r}.")
    return _pieces(_runs(_flatten(source), Names(duplicates)), piece_length)


def open_fasta(
    path: str | os.PathLike[str],
    *,
    duplicates: Duplicates = "error",
    index_folder: str | os.PathLike[str] | None = None,
) -> FastaFile:
    r"""Open a FASTA file for reading any part of any record.

    Parameters
    ----------
    path : str or PathLike
        A file, plain or compressed by gzip or bgzip.
    duplicates : {"error", "rename", "first"}
        What becomes of a record that has the name of an earlier one.
    index_folder : str or PathLike, optional
        Where the index is kept; by default the user's cache, or the system's folder for temporary
        files if nothing can be written there.

    Returns
    -------
    FastaFile
        With ``fetch(name, start, end, strand)``, ``names``, ``lengths`` and ``close()``.

    Raises
    ------
    FastaError
        As for `iter_fasta`.

    Notes
    -----
    The first opening reads the file once to index it. Nothing is written beside the file, and a
    ``.fai`` there is not used. A file that is compressed, or has Windows line ends, blank lines or
    lines of unequal length, cannot be read at random as it is: a plain copy of its letters is kept
    with the index.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "toy.fa").write_text(">chr1\nAACCGG\n")
    >>> with open_fasta(folder / "toy.fa", index_folder=folder) as genome:
    ...     genome.fetch("chr1", 1, 4), genome.fetch("chr1", 1, 4, "-"), genome.lengths
    ('ACC', 'GGT', {'chr1': 6})
    """
    return FastaFile(path, duplicates=duplicates, index_folder=index_folder)


_Runs = Iterator[tuple["Header | None", bytes]]
"""Letters in order; with None, they go on with the last record."""


def _flatten(source: Any) -> list[Any]:
    """Origins and pyfaidx objects, in order, checked."""
    pyfaidx = sys.modules.get("pyfaidx")
    if pyfaidx is not None and isinstance(source, pyfaidx.Fasta):
        _check_pyfaidx(source)
        return [source]
    if isinstance(source, (list, tuple)) and source:
        return [one for given in source for one in _flatten(given)]
    return list(list_origins(source))


def _runs(sources: list[Any], names: Names) -> _Runs:
    for one in sources:
        if isinstance(one, Origin):
            runs = read_runs(read_blocks(one), one.name)
        else:
            runs = _runs_of_pyfaidx(one)
        yield from runs if names.policy == "keep" else _renamed(runs, names)


def _renamed(runs: _Runs, names: Callable[[Header], str | None]) -> _Runs:
    """Runs of the records for which `names` gives a name, with this name."""
    kept = False
    for header, letters in runs:
        if header is None:
            if kept:
                yield None, letters
            continue
        name = names(header)
        kept = name is not None
        if name is not None:
            yield header._replace(name=name), letters


def _runs_of_pyfaidx(fasta: Any) -> _Runs:
    """Runs of the file of a pyfaidx object, with its keys and its case."""
    path, faidx = str(fasta.filename), fasta.faidx
    first = Names("first" if faidx.duplicate_action == "first" else "keep")

    def key(header: Header) -> str | None:
        name = faidx.key_function(header.description if faidx.read_long_names else header.name)
        return first(header._replace(name=name)) if faidx.filt_function(name) else None

    for header, letters in _renamed(read_runs(read_blocks(Origin(path, path)), path), key):
        yield header, letters.upper() if faidx.sequence_always_upper else letters


def _check_pyfaidx(fasta: Any) -> None:
    """Refuse what has no file of the very letters it would give."""
    faidx = fasta.faidx
    if (
        type(fasta).__name__ != "Fasta"
        or faidx.split_char
        or faidx.duplicate_action not in ("stop", "first")
        or getattr(faidx, "_fs", None) is not None
    ):
        raise TypeError(
            "a pyfaidx object with variants, a remote file, `split_char` or this "
            "`duplicate_action` cannot be read in order; pass the path of a FASTA file."
        )


def _records(runs: _Runs) -> Iterator[Record]:
    record: Header | None = None
    parts: list[str] = []
    for header, letters in runs:
        if header is None:
            parts.append(letters.decode("ascii"))
            continue
        if record is not None:
            name, description, line, source = record
            yield Record(name, description, "".join(parts), line, source)
        record, parts = header, [letters.decode("ascii")]
    if record is not None:
        name, description, line, source = record
        yield Record(name, description, "".join(parts), line, source)


def _pieces(runs: _Runs, length: int) -> Iterator[Piece]:
    record: Header | None = None
    held, start = bytearray(), 0
    for header, letters in runs:
        if header is not None:
            if record is not None:
                yield _piece(record, start, bytes(held), is_last=True)
                held.clear()
            record, start = header, 0
        assert record is not None
        held += letters
        while len(held) > length:  # not before more is known to follow
            yield _piece(record, start, bytes(held[:length]), is_last=False)
            del held[:length]
            start += length
    if record is not None:
        yield _piece(record, start, bytes(held), is_last=True)


def _piece(record: Header, start: int, letters: bytes, is_last: bool) -> Piece:
    name, description, line, source = record
    return Piece(name, description, start, letters, is_last, line, source)
