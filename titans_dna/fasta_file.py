"""Any part of any record of a FASTA file, safe across threads, forks and pickling.

pyfaidx reads the bases. What it would get wrong without a word never reaches it: `fasta_index`
gives it places in a file of regular lines, and every process and thread has a handle of its own.
"""

from __future__ import annotations

import difflib
import operator
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from titans_dna.alphabet import CODES, COMPLEMENT
from titans_dna.fasta_index import Index, index_file
from titans_dna.fasta_sources import FastaError, Origin, read_blocks, shorten
from titans_dna.fasta_text import Header, Names, read_runs

if TYPE_CHECKING:
    from pyfaidx import IndexRecord

__all__ = ["FastaFile", "nearest_names", "reverse_complement_letters"]

_PARTNERS = "".join(CODES[COMPLEMENT[token]] for token in range(len(CODES))) + "A"
_COMPLEMENT = str.maketrans(CODES + "U" + CODES.lower() + "u", _PARTNERS + _PARTNERS.lower())


class FastaFile:
    """A FASTA file open for reading parts of its records; see `titans_dna.open_fasta`.

    It may be used by several threads at once, across a fork, and be pickled; then the file is
    opened again, and must not have changed. Coordinates are 0-based and half-open.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        duplicates: str = "error",
        index_folder: str | os.PathLike[str] | None = None,
    ) -> None:
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(f"`path` must be a path; got {type(path).__name__}.")
        file = Path(os.fsdecode(path)).absolute()
        folder = None if index_folder is None else str(Path(index_folder).absolute())
        self.path = str(file)
        self._options = (duplicates, folder)
        if not os.path.isfile(file):  # noqa: PTH113  # Path.is_file raises where it is too long
            what = "a folder" if os.path.isdir(file) else "no regular file"  # noqa: PTH112
            what = what if os.path.lexists(file) else "no such file"
            raise FastaError(
                f"{shorten(self.path)}: {what}; only a file can be read at random. "
                "Use iter_fasta to read folders and streams in order."
            )
        names = Names(duplicates, ("error", "rename", "first"))
        self._index = index_file(self.path, folder)
        self._rows = _rows(self._index.names, names, self.path)
        self._lengths: dict[str, int] | None = None
        self._local: threading.local | None = threading.local()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the records, in the order of the file."""
        return tuple(self._rows)

    @property
    def lengths(self) -> dict[str, int]:
        """Number of letters of each record."""
        if self._lengths is None:
            lengths = self._index.places[:, 0].tolist()
            self._lengths = {name: lengths[row] for name, row in self._rows.items()}
        return self._lengths

    def fetch(self, name: str, start: int = 0, end: int | None = None, strand: str = "+") -> str:
        """Return a part of a record.

        Parameters
        ----------
        name : str
            First word of its header line.
        start, end : int
            0-based, half-open; by default all of the record.
        strand : {"+", "-"}
            With ``"-"``, the reverse complement of this part.

        Returns
        -------
        str
            ``end - start`` letters, their case as written.

        Raises
        ------
        FastaError
            If there is no such record or part, or the file has changed.
        """
        try:
            row = self._rows[name]
        except (KeyError, TypeError):
            raise FastaError(
                f"{self.path}: has no record {shorten(str(name))!r}; "
                f"{nearest_names(name, self._rows)}"
            ) from None
        length = int(self._index.places[row, 0])
        start, end = operator.index(start), length if end is None else operator.index(end)
        if not 0 <= start <= end <= length:
            raise FastaError(
                f"{self.path}: record {shorten(name)!r} has {length} letters; [{start}, {end}) is "
                "no part of it. Coordinates are 0-based and half-open: "
                f"0 <= start <= end <= {length}."
            )
        if strand not in ("+", "-"):
            raise FastaError(f"`strand` must be '+' or '-'; got {strand!r}.")
        handle = self._handle()
        if start == end:
            return ""
        letters: str = handle.fetch(name, start + 1, end)
        if len(letters) != end - start:
            raise self._changed()
        return letters if strand == "+" else reverse_complement_letters(letters)

    def close(self) -> None:
        """Close the file in all threads; nothing can be fetched any more."""
        self._local = None

    def _handle(self) -> Any:
        """Return the handle of this process and thread, opened if need be; check the file."""
        local, process = self._local, os.getpid()
        if local is None:
            raise FastaError(f"{self.path}: is closed; open it again by open_fasta.")
        opened_by, handle = getattr(local, "handle", (0, None))
        if handle is None or opened_by != process:  # those of a fork share one position
            handle = _open_handle(self._index, self._rows)
            local.handle = (process, handle)
        status = os.fstat(handle.file.fileno())
        if (status.st_size, status.st_mtime_ns) != (self._index.size, self._index.modified):
            raise self._changed()
        return handle

    def _changed(self) -> FastaError:
        return FastaError(f"{self.path}: has changed since it was opened; open it again.")

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def __enter__(self) -> FastaFile:  # noqa: PYI034  # Self needs Python 3.11
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<FastaFile {self.path!r}, {len(self)} records>"

    def __getstate__(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "options": self._options,
            "stamp": self._index.stamp,
            "closed": self._local is None,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        duplicates, index_folder = state["options"]
        self.__init__(  # type: ignore[misc]  # opening again is what unpickling means here
            state["path"], duplicates=duplicates, index_folder=index_folder
        )
        now, then = self._index.stamp, state["stamp"]
        if (now.size, now.modified, now.ends) != (then.size, then.modified, then.ends):
            raise self._changed()
        if state["closed"]:
            self.close()


def reverse_complement_letters(letters: str) -> str:
    """Return the other strand in its own direction, with the case of every letter.

    Examples
    --------
    >>> reverse_complement_letters("AACgr")
    'ycGTT'
    """
    return letters.translate(_COMPLEMENT)[::-1]


def nearest_names(name: Any, names: Mapping[str, Any] | list[str]) -> str:
    """Return a sentence with the known names that are most like `name`.

    Examples
    --------
    >>> nearest_names("1", ["chr1", "chr2"])
    "did you mean 'chr1'?"
    """
    some = [known for known, _ in zip(names, range(10_000), strict=False)]
    asked = str(name)
    swapped = asked.removeprefix("chr") if asked.startswith("chr") else f"chr{asked}"
    near = [swapped] if swapped in names else difflib.get_close_matches(asked, some, 3, 0.5)
    if near:
        return f"did you mean {' or '.join(repr(shorten(known)) for known in near)}?"
    return f"it has {', '.join(repr(shorten(known)) for known in some[:3])}" + (
        f" and {len(names) - 3} more." if len(names) > 3 else "."
    )


def _rows(written: tuple[str, ...], names: Names, path: str) -> dict[str, int]:
    """Row in the index by the name that a record goes by."""
    rows = {name: row for row, name in enumerate(written)}
    if len(rows) == len(written):
        return rows
    if names.policy == "error":  # reading in order finds the line to name
        for header, _ in read_runs(read_blocks(Origin(path, path)), path):
            if header is not None:
                names(header)
    rows = {}
    for row, name in enumerate(written):
        given = names(Header(name, name, 0, path))
        if given is not None:
            rows[given] = row
    return rows


class _Places(Mapping[str, "IndexRecord"]):
    """An index as pyfaidx wants it, without an object for each of a million records."""

    def __init__(self, index: Index, rows: dict[str, int], record: Any) -> None:
        self._index, self._rows, self._record = index, rows, record
        self._recent: dict[str, IndexRecord] = {}

    def __getitem__(self, name: str) -> IndexRecord:
        if (found := self._recent.get(name)) is not None:
            return found
        if len(self._recent) == 4096:
            self._recent.clear()
        length, offset, letters, width = self._index.places[self._rows[name]].tolist()
        end = offset + length + (length - 1) // max(letters, 1) * (width - letters)
        self._recent[name] = found = self._record(
            rlen=length, offset=offset, lenc=letters, lenb=width, bend=end, prev_bend=0
        )
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def _open_handle(index: Index, rows: dict[str, int]) -> Any:
    import pyfaidx

    class Handle(pyfaidx.Faidx):
        def read_fai(self) -> None:
            self.index = _Places(index, rows, pyfaidx.IndexRecord)

    try:
        return Handle(
            index.path,
            indexname=f"{index.path}.no-such-index",  # nothing for it to compare, read or write
            as_raw=True,
            strict_bounds=True,
            rebuild=False,
            build_index=False,
        )
    except pyfaidx.FastaNotFoundError as error:
        raise FastaError(
            f"{index.path}: has gone since it was opened; open the FASTA file again."
        ) from error
