"""Where the records of a FASTA file lie, so that any part of one can be read by itself.

An index of ours holds for one state of one file: its name is made of the path and of a stamp
(size, times, hash of both ends), so that a file that was replaced, by an older one too, has
another index. It is built under a lock and put in place at once, beside no file of the user's.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import tempfile
import zipfile
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from titans_dna.fasta_sources import FastaError, Origin, read_blocks
from titans_dna.fasta_text import NUCLEOTIDES, parse_header, read_runs, split_runs

if sys.platform != "win32":
    import fcntl

__all__ = ["Index", "Stamp", "index_file", "read_stamp"]

_FORMAT = "1"
_ENDS = 2**16
_BLOCK = 2**20


class Stamp(NamedTuple):
    """State of a file: sizes in bytes, times in ns, hash of its first and last 64 KiB."""

    size: int
    modified: int
    changed: int
    ends: str


@dataclass(frozen=True)
class Index:
    """The records of a file in order; N of them.

    Parameters
    ----------
    path : str
        The plain file whose bytes the offsets count: the user's, or our copy of its text.
    stamp : Stamp
        Of the user's file.
    size, modified : int
        Size and modification time in ns of the file at `path`.
    names : tuple of str
        As written; one may occur twice.
    places : ndarray of int64, shape (N, 4)
        Length, offset of the first letter, letters and bytes in each line but the last.
    """

    path: str
    stamp: Stamp
    size: int
    modified: int
    names: tuple[str, ...]
    places: NDArray[np.int64]


def read_stamp(path: str) -> Stamp:
    """Return the state that a file is in; FastaError if it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            status = os.fstat(file.fileno())
            digest = hashlib.sha256(file.read(_ENDS))
            file.seek(max(0, status.st_size - _ENDS))
            digest.update(file.read(_ENDS))
    except OSError as error:
        raise FastaError(f"{path}: cannot be read at random: {error.strerror or error}.") from error
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns, digest.hexdigest())


def index_file(path: str, folder: str | os.PathLike[str] | None = None) -> Index:
    """Return the index of a FASTA file, built if there is none of its present state.

    Parameters
    ----------
    path : str
        The file, absolute.
    folder : str or PathLike, optional
        Where to keep the index.

    Raises
    ------
    FastaError
        If the file is no FASTA of nucleotides, or the index cannot be written.
    """
    stamp = read_stamp(path)
    own = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    state = hashlib.sha256(repr((_FORMAT, stamp)).encode()).hexdigest()[:16]
    kept = _folder(folder) / f"{own}-{state}.npz"
    with contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return _load(kept, path, stamp)
    try:
        with _locked(kept.parent / f"{own}.lock"):
            with contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
                return _load(kept, path, stamp)  # another process was faster
            _build(path, kept, stamp)
            if read_stamp(path) != stamp:
                kept.unlink()
                raise FastaError(f"{path}: changed while it was read; open it again.")
            for old in kept.parent.glob(f"{own}-*"):
                if not old.name.startswith(kept.stem):
                    old.unlink()
            return _load(kept, path, stamp)
    except OSError as error:
        raise FastaError(
            f"{path}: its index cannot be kept in {kept.parent}: {error.strerror or error}. "
            "Pass another `index_folder`."
        ) from error


def _folder(given: str | os.PathLike[str] | None) -> Path:
    """Return the folder for indexes, made if need be; one that was given may be read-only."""
    if given is not None:
        with contextlib.suppress(OSError):
            Path(given).mkdir(parents=True, exist_ok=True)
        return Path(given)
    import pooch

    user = os.getuid() if hasattr(os, "getuid") else None
    cache = Path(pooch.os_cache("titans-stream")) / "fasta"
    temporary = Path(tempfile.gettempdir()) / f"titans-stream-{user}"
    for folder in (cache, temporary):
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # where everyone may write, another user could have made it before us
            foreign = folder == temporary and user not in (None, folder.stat().st_uid)
            if os.access(folder, os.W_OK) and not foreign:
                return folder
    raise FastaError(
        f"nothing can be written in {cache} or {temporary}; pass a folder for the index of the "
        "FASTA file as `index_folder`."
    )


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process and thread in at a time; where locks do not work, all.

    The lock only saves work: what is put in place is whole in any case.
    """
    with path.open("wb") as file:
        if sys.platform != "win32":
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _replacing(path: Path, modified: int | None = None) -> Iterator[IO[bytes]]:
    """Open a file that takes the place of `path` when it is complete, with this time in ns."""
    number, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    try:
        with os.fdopen(number, "wb") as file:
            yield file
        if modified is not None:
            os.utime(name, ns=(modified, modified))
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink()
        raise


def _load(kept: Path, path: str, stamp: Stamp) -> Index:
    # opened here, as numpy leaves a file open that it finds damaged
    with kept.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        names, places, copied = stored["names"], stored["places"], bool(stored["copied"])
        size, modified = (int(value) for value in stored["status"])
    plain = str(kept.with_suffix(".fa")) if copied else path
    status = Path(plain).stat()
    if (status.st_size, status.st_mtime_ns) != (size, modified):
        raise ValueError("this copy is not the one that was indexed")
    return Index(plain, stamp, size, modified, tuple(names.tobytes().decode().split("\n")), places)


def _build(path: str, kept: Path, stamp: Stamp) -> None:
    copied = False
    try:
        with Path(path).open("rb") as file:
            names, places = _scan(file, path)
    except _OddError:
        copied = True
        # the file's own time: copies that two processes make where locks do not work are alike
        with _replacing(kept.with_suffix(".fa"), stamp.modified) as target:
            names, places = _copy(path, target)
    status = (kept.with_suffix(".fa") if copied else Path(path)).stat()
    with _replacing(kept) as target:
        np.savez(
            target,
            names=np.frombuffer("\n".join(names).encode(), dtype=np.uint8),
            places=np.frombuffer(places, dtype=np.int64).reshape(-1, 4),
            copied=np.array(copied),
            status=np.array([status.st_size, status.st_mtime_ns], dtype=np.int64),
        )


class _OddError(Exception):
    """The records of a file cannot be found by arithmetic."""


def _scan(file: IO[bytes], path: str) -> tuple[list[str], Any]:
    """Return names and places if every record has lines of one length, and Unix line ends."""
    names: list[str] = []
    places = array("q")
    record: _Geometry | None = None
    pending = b""  # it is not known yet whether the record ends with it
    if file.read(1) != b">" or path.lower().endswith((".gz", ".bgz", ".bz2", ".zip")):
        raise _OddError  # pyfaidx goes by the suffix
    file.seek(0)
    for header, body, offset in split_runs(_blocks(file), path):
        if header is not None:
            if record is not None:
                places.extend(record.end(pending))
            names.append(_name(header, path))
            record, pending = _Geometry(offset), body or b""
        elif record is not None and body is not None:
            record.add(pending)
            pending = body
    if record is None:
        raise _OddError
    places.extend(record.end(pending))
    return names, places


def _name(header: bytes, path: str) -> str:
    try:
        return parse_header(header, 0, path).name
    except FastaError:
        raise _OddError from None  # reading in order will raise it again, with the line


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    while block := file.read(_BLOCK):
        if b"\r" in block:
            raise _OddError
        yield block


class _Geometry:
    """Lines of a record, of which every one but the last must be equally long."""

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.seen = self.newlines = self.width = 0

    def add(self, body: bytes) -> None:
        """Take in bytes that follow; `_OddError` if their lines do not fit."""
        letters = body.replace(b"\n", b"")
        newlines = len(body) - len(letters)
        if newlines and not self.width:
            self.width = self.seen + body.index(b"\n")
        if newlines:
            ends = body[(self.width - self.seen) % (self.width + 1) :: self.width + 1]
            if not self.width or len(ends) != newlines or ends.count(b"\n") != newlines:
                raise _OddError
        elif self.width and self.seen % (self.width + 1) + len(body) > self.width:
            raise _OddError
        if letters.translate(None, NUCLEOTIDES):
            raise _OddError  # blanks, or an error that reading in order will explain
        self.seen += len(body)
        self.newlines += newlines

    def end(self, body: bytes) -> tuple[int, int, int, int]:
        """Take in the last bytes, and return the place of the record."""
        self.add(body.rstrip(b"\n"))
        length = self.seen - self.newlines
        return _place(length, self.offset, self.width or length)


def _place(length: int, offset: int, width: int) -> tuple[int, int, int, int]:
    return length, offset, width, width + 1 if width else 0


def _copy(path: str, target: IO[bytes]) -> tuple[list[str], Any]:
    """Write the records with one line each, as read in order; return names and places."""
    names: list[str] = []
    places = array("q")
    at = offset = length = 0
    for header, letters in read_runs(read_blocks(Origin(path, path)), path):
        if header is not None:
            if names:
                places.extend(_place(length, offset, length))
                at += target.write(b"\n")
            at += target.write(b">" + header.name.encode() + b"\n")
            names.append(header.name)
            offset, length = at, 0
        at += target.write(letters)
        length += len(letters)
    places.extend(_place(length, offset, length))
    target.write(b"\n")
    return names, places
