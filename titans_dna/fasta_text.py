"""The FASTA format itself: where records begin, which letters are theirs, what is wrong with them.

Nothing here looks at lines one by one: blocks are cut at headers, and line ends are deleted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple, NoReturn, get_args

from titans_dna.alphabet import CODES
from titans_dna.fasta_sources import FastaError, shorten

__all__ = [
    "NUCLEOTIDES",
    "Duplicates",
    "Header",
    "Names",
    "parse_header",
    "read_runs",
    "split_runs",
]

Duplicates = Literal["keep", "error", "rename", "first"]

NUCLEOTIDES = (CODES + "U" + CODES.lower() + "u").encode()
_OTHER = re.compile(b"[^" + NUCLEOTIDES + b"\n \t]")
_LONGEST_HEADER = 2**24
_FOREIGN = {
    "@": "is this FASTQ? Convert it, e.g. by `seqtk seq -a reads.fastq > reads.fasta`",
    ";": "remove the comment lines before the first record",
    "#": "remove the comment lines before the first record",
    "!": "remove the comment lines before the first record",
    "<": "is this a web page? Download the file itself",
    "LOCUS": "is this GenBank? Convert it by Biopython's SeqIO.convert",
    "ID ": "is this EMBL? Convert it by Biopython's SeqIO.convert",
}


class Header(NamedTuple):
    """A header line: its first word, all of it, its number, counted from 1, and its file."""

    name: str
    description: str
    line: int
    source: str


class Names:
    """What becomes of a record whose name an earlier one has.

    Parameters
    ----------
    duplicates : {"keep", "error", "rename", "first"}
        Keep both, raise FastaError, call the later ones ``name_2``, ``name_3``, ..., or drop them.
        Only ``"keep"`` does not remember every name.
    """

    def __init__(self, duplicates: str, allowed: tuple[str, ...] = get_args(Duplicates)) -> None:
        if duplicates not in allowed:
            raise ValueError(f"`duplicates` must be one of {allowed}; got {duplicates!r}.")
        self.policy = duplicates
        self._seen: set[str] = set()
        self._last: dict[str, int] = {}

    def __call__(self, header: Header) -> str | None:
        """Return the name to use; None if the record is to be dropped."""
        name, _, line, source = header
        if self.policy == "keep":
            return name
        if name in self._seen:
            if self.policy == "first":
                return None
            if self.policy == "error":
                raise FastaError(
                    f"{source}: record {shorten(name)!r} at line {line} has the name of an earlier "
                    "record; give it another, or pass duplicates='rename' or 'first'."
                )
            number = self._last.get(name, 1) + 1
            while f"{name}_{number}" in self._seen:
                number += 1
            self._last[name] = number
            name = f"{name}_{number}"
        self._seen.add(name)
        return name


def split_runs(
    blocks: Iterable[bytes], source: str
) -> Iterator[tuple[bytes | None, bytes | None, int]]:
    r"""Cut text into runs of lines that belong to one record.

    Yields
    ------
    header : bytes or None
        The header line without ``>`` and line end; None if the run goes on with the last record,
        or stands before the first.
    body : bytes or None
        The lines below, without the line end before the next header; None if there are none.
    offset : int
        Where in the text the body begins.

    Examples
    --------
    >>> list(split_runs([b">a\nAC\n", b"GT\n>b\n"], "example"))
    [(b'a', b'AC', 3), (None, b'\nGT', 5), (b'b', None, 0)]
    """
    rest, offset = b"\n", -1  # as if a line had ended before the first byte
    for block in blocks:
        data, rest = rest + block, b""
        if data.endswith(b"\n"):  # the one before a header, perhaps
            data, rest = data[:-1], b"\n"
        # looking for one byte first is what makes large records fast
        first, *others = data.split(b"\n>") if b">" in data else (data,)
        if first:
            yield None, first, offset
        offset += len(first)
        unfinished = others.pop() if others and b"\n" not in others[-1] else None
        for other in others:
            header, newline, body = other.partition(b"\n")
            yield header, body if newline else None, offset + 3 + len(header)
            offset += 2 + len(other)
        if unfinished is not None:
            rest = b"\n>" + unfinished + rest
            if len(rest) > _LONGEST_HEADER:
                raise FastaError(
                    f"{source}: the header line {shorten(_decode(unfinished[:99]), 40)!r} does not "
                    "end; is this a text file? Write the sequence below the header."
                )
    if rest.startswith(b"\n>"):
        yield rest[2:].removesuffix(b"\n"), None, 0


def parse_header(header: bytes, line: int, source: str) -> Header:
    """Return name and description of a header line; FastaError if it has no name."""
    if b"\0" in header:
        raise FastaError(f"{source}: line {line} holds a NUL byte; {_NUL}.")
    description = (header.decode() if header.isascii() else _decode(header)).rstrip()
    words = description.split(None, 1)
    if not words:
        raise FastaError(
            f"{source}: the record at line {line} has no name; write one after its '>'."
        )
    return Header(words[0], description, line, source)


def read_runs(blocks: Iterable[bytes], source: str) -> Iterator[tuple[Header | None, bytes]]:
    r"""Yield the letters of all records in order, checked, a block at a time.

    Yields
    ------
    header : Header or None
        Of the record that begins here; None if the letters go on with the last one.
    letters : bytes
        Nucleotide codes with their case as written.

    Raises
    ------
    FastaError
        If there is no record, text before the first, a record without a name, or a letter that is
        no nucleotide code.

    Examples
    --------
    >>> [letters for _, letters in read_runs([b">a\nAC\nGT\n>b\nnn"], "example")]
    [b'ACGT', b'nn']
    """
    line, record = 0, None
    for header, body, _ in split_runs(blocks, source):
        if header is not None:
            line += 1
            record = begun = parse_header(header, line, source)
            if body is None:
                yield begun, b""
                continue
            line += 1
        elif record is None:
            if body is not None and body.strip():
                _refuse_start(body, line, source)
            line += (body or b"").count(b"\n")
            continue
        else:
            begun = None
        assert body is not None
        letters = body.replace(b"\n", b"")
        newlines = len(body) - len(letters)
        if other := letters.translate(None, NUCLEOTIDES):
            if other.strip(b" \t"):
                _refuse_letter(record, body, line, source)
            letters = letters.translate(None, b" \t")
        line += newlines
        yield begun, letters
    if record is None:
        raise FastaError(
            f"{source}: is empty, or holds blank lines only; a FASTA record is a line '>name' and "
            "lines of letters."
        )


_NUL = "is this UTF-16 or a binary file? Convert it to plain text, e.g. by `iconv -t UTF-8`"


def _decode(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")


def _refuse_start(text: bytes, line: int, source: str) -> NoReturn:
    line += text[: len(text) - len(text.lstrip())].count(b"\n")
    start = _decode(text.strip()[:200]).split("\n")[0]
    if any(ord(letter) < 9 for letter in start):
        raise FastaError(f"{source}: line {line} holds binary data; {_NUL}.")
    for magic, question in _FOREIGN.items():
        if start.startswith(magic):
            raise FastaError(
                f"{source}: line {line} begins with {shorten(start, 20)!r} instead of '>': "
                f"{question}."
            )
    raise FastaError(
        f"{source}: line {line} is {shorten(start, 40)!r}, but a FASTA file begins with a header "
        "line: put '>name' before the sequence."
    )


def _refuse_letter(record: Header, body: bytes, line: int, source: str) -> NoReturn:
    """Raise the error of the first wrong letter of `body`, which begins in line `line`."""
    found = _OTHER.search(body)
    assert found is not None
    at, letter = found.start(), body[found.start()]
    line += body.count(b"\n", 0, at)
    shown = ascii(_decode(body[at : at + 1]))
    if chr(letter) in "EFILPQZJOXefilpqzjox*":
        question = "is this a protein FASTA? X for an unknown base must be written N"
    elif letter == 0:
        question = _NUL
    elif chr(letter) in "-.~":
        question = "is this an alignment? Remove its gaps"
    elif chr(letter) in "0123456789":
        question = "is this a file of qualities, or are the lines numbered? Keep letters only"
    elif chr(letter) == ">":
        question = "start the next record on a new line"
    elif chr(letter) in ";#!":
        question = "remove comment lines"
    elif letter > 127 or letter < 32:
        question = "is this a binary file? FASTA is plain text"
    else:
        question = f"it may hold {CODES} and U, in either case"
    raise FastaError(
        f"{source}: record {shorten(record.name)!r} at line {line} holds {shown}, not a nucleotide "
        f"code: {question}."
    )
