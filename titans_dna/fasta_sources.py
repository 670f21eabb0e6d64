"""Where FASTA text comes from: paths, folders, open files, standard input, plain or compressed.

Everything ends as blocks of bytes with Unix line ends. Whether a file is compressed is read from
its first bytes, never from its name.
"""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Any, NamedTuple

__all__ = ["SUFFIXES", "FastaError", "Origin", "list_origins", "read_blocks", "shorten"]

SUFFIXES = (".fa", ".fasta", ".fna", ".ffn", ".frn", ".fas")
"""What names of FASTA files in a folder end with; ``.gz`` or ``.bgz`` may follow."""

BLOCK = 2**20
GZIP = b"\x1f\x8b"
_BGZF_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
_UNREADABLE = {
    b"BZh": "is compressed by bzip2; decompress it, or recompress it by gzip or bgzip",
    b"\xfd7zXZ\0": "is compressed by xz; decompress it, or recompress it by gzip or bgzip",
    b"\x28\xb5\x2f\xfd": "is compressed by zstd; decompress it, or recompress it by gzip or bgzip",
    b"PK\3\4": "is a zip archive; unpack it first",
    b"\x43\x27\x41\x1a": "is a 2bit file; convert it by twoBitToFa",
    b"\x1a\x41\x27\x43": "is a 2bit file; convert it by twoBitToFa",
    b"BAM\1": "is a BAM file; convert it by `samtools fasta`",
    b"\xff\xfe": "is UTF-16 text; convert it by `iconv -f UTF-16 -t UTF-8`",
    b"\xfe\xff": "is UTF-16 text; convert it by `iconv -f UTF-16 -t UTF-8`",
}


class FastaError(ValueError):
    """A FASTA or BED source that cannot be read, and what to do about it."""


class Origin(NamedTuple):
    """One place to read from: what messages call it, and a path or an open file."""

    name: str
    file: str | IO[Any]


def shorten(text: str, length: int = 80) -> str:
    """Return `text`, or its start, for a message.

    Examples
    --------
    >>> shorten("ACGTACGT", 4)
    'ACGT...'
    """
    return text if len(text) <= length else text[:length] + "..."


def list_origins(source: Any) -> list[Origin]:
    """Return the files that `source` names, in order; those of a folder sorted by path.

    Parameters
    ----------
    source : str, PathLike, open file, or list of these
        A file, a folder (searched to any depth for names that end in `SUFFIXES`, hidden ones left
        out), or ``"-"``, standard input.

    Raises
    ------
    FastaError
        If there is no such file, or none in the folder.
    TypeError
        If `source` is none of these kinds.
    """
    if isinstance(source, (list, tuple)):
        if not source:
            raise FastaError("the list of FASTA sources is empty; name at least one file.")
        return [origin for one in source for origin in list_origins(one)]
    if isinstance(source, str) and source == "-":
        return [Origin("standard input", getattr(sys.stdin, "buffer", sys.stdin))]
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        if not isinstance(path, str):
            path = os.fsdecode(path)
        # os.path, as Path.is_dir raises where a sequence was taken for a path, and is too long
        if os.path.isdir(path):  # noqa: PTH112
            return [Origin(found, found) for found in _files_of(path)]
        if not os.path.lexists(path):
            raise FastaError(f"{shorten(path)!r}: no such file or folder.{_meant(path)}")
        return [Origin(path, path)]
    if callable(getattr(source, "read", None)):
        name = getattr(source, "name", None)
        return [Origin(name if isinstance(name, str) else f"<{type(source).__name__}>", source)]
    raise TypeError(
        "a FASTA source must be a path, a folder, an open file, '-' for standard input, a "
        f"pyfaidx.Fasta or a list of these; got {type(source).__name__}."
    )


def read_blocks(origin: Origin) -> Iterator[bytes]:
    """Yield the text of a source, decompressed and with Unix line ends, in blocks of about 1 MiB.

    Raises
    ------
    FastaError
        If it cannot be read, is truncated or damaged, or is of a kind that holds no such text.
    """
    if isinstance(origin.file, str):
        with _open(origin.file) as file:
            yield from _unix_line_ends(_plain(file, origin.name))
    else:
        yield from _unix_line_ends(_plain(origin.file, origin.name))


def _open(path: str) -> IO[bytes]:
    try:
        return Path(path).open("rb")
    except OSError as error:
        raise FastaError(f"{shorten(path)}: cannot be opened: {error.strerror}.") from error


def _files_of(folder: str) -> list[str]:
    """FASTA files of a folder and the folders in it, sorted."""
    found = []
    for at, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        for name in names:
            plain = name.lower().removesuffix(".gz").removesuffix(".bgz")
            if plain.endswith(SUFFIXES) and not name.startswith("."):
                found.append(str(Path(at) / name))
    if not found:
        raise FastaError(
            f"{folder}: a folder without FASTA files; their names must end in "
            f"{', '.join(SUFFIXES)}, with or without .gz. Rename them, or pass a list of paths."
        )
    return sorted(found, key=lambda path: Path(path).parts)


def _meant(path: str) -> str:
    if len(path) >= 4 and set(path.upper()) <= set("ACGTUN"):
        return " It looks like a sequence: pass sequences themselves in a list."
    return ""


def _plain(file: IO[Any], name: str) -> Iterator[bytes]:
    """Blocks of a file as they are, or decompressed; without a UTF-8 byte order mark."""
    blocks, start = _peek(_read(file, name))
    if start.startswith(GZIP):
        blocks, start = _peek(_inflate(blocks, name))
    for magic, message in _UNREADABLE.items():
        if start.startswith(magic):
            raise FastaError(f"{name}: {message}.")
    if start.startswith(b"\xef\xbb\xbf"):
        blocks = chain([next(blocks)[3:]], blocks)
    return blocks


def _peek(blocks: Iterator[bytes]) -> tuple[Iterator[bytes], bytes]:
    """Blocks unchanged, but the first long enough to know the file by; and this one."""
    start = b""
    for block in blocks:
        start += block
        if len(start) >= 18:
            break
    return (chain([start], blocks) if start else iter(())), start


def _read(file: IO[Any], name: str) -> Iterator[bytes]:
    while True:
        try:
            block = file.read(BLOCK)
        except UnicodeDecodeError as error:
            raise FastaError(f"{name}: cannot be decoded; open it in binary mode, 'rb'.") from error
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise FastaError(f"{name}: cannot be read: {error}.") from error
        if not block:
            return
        if isinstance(block, str):
            block = block.encode("utf-8", "surrogateescape")
        yield bytes(block)


def _inflate(blocks: Iterable[bytes], name: str) -> Iterator[bytes]:
    """Decompress gzip of one or many members; BGZF must end with its mark.

    A file cut between two members would else look whole, and its last records be missing.
    """
    member, blocked, tail = None, None, b""
    for block in chain(blocks, [b""]):  # the last, empty one lets out what is still inside
        if blocked is None:
            blocked = block[3:4] == b"\x04" and block[12:14] == b"BC"
        tail = (tail + block[-len(_BGZF_END) :])[-len(_BGZF_END) :]
        rest = block
        while True:
            if member is None:
                rest = rest.lstrip(b"\0")  # tapes are filled up with zeros
                if not rest:
                    break
                member = zlib.decompressobj(31)
            try:
                text = member.decompress(rest, BLOCK)
            except zlib.error as error:
                raise FastaError(
                    f"{name}: the gzip data is damaged ({error}); get the file again."
                ) from error
            if text:
                yield text
            if member.eof:
                rest, member = member.unused_data, None
            elif member.unconsumed_tail or len(text) == BLOCK:
                rest = member.unconsumed_tail
            else:
                break
    if member is not None or (blocked and tail != _BGZF_END):
        raise FastaError(f"{name}: the gzip data is truncated; get the file again.")


def _unix_line_ends(blocks: Iterable[bytes]) -> Iterator[bytes]:
    r"""Turn ``\r\n`` and ``\r`` into ``\n``, also where a block ends between the two."""
    held = b""
    for block in blocks:
        if held or b"\r" in block:
            text = held + block
            held = b"\r" if text.endswith(b"\r") else b""
            text = text[: len(text) - len(held)]
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            if text:
                yield text
        else:
            yield block
    if held:
        yield b"\n"
