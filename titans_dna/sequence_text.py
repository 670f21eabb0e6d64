"""The one place where the letters of many sequences become tokens, and its error messages."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from titans_dna.alphabet import AlphabetError, encode
from titans_dna.sequence_set import Offsets, Sequences, Strings, offsets_of

__all__ = [
    "Heads",
    "check_lengths",
    "encode_joined",
    "encode_texts",
    "letter_problem",
    "some",
    "where",
]

_NOT_IN_DNA = "EFILPQZJO"  # amino acids whose letters are no nucleotide codes
_PATH_ENDS = (".fa", ".fasta", ".fna", ".ffn", ".frn", ".fas", ".gz", ".csv", ".tsv", ".txt")


@dataclass(frozen=True, slots=True)
class Heads:
    """What is known of sequences besides their letters, and how messages call them.

    `name` is what the user calls the collection, `first` the number of its first sequence here.
    """

    name: str = "X"
    first: int = 0
    names: Strings = None
    descriptions: Strings = None
    sources: Strings = None


def encode_texts(texts: list[Any], heads: Heads) -> Sequences:
    """Turn a list of str, or one of bytes, into sequences; ValueError names the offender."""
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    empty: Any = "" if not texts or isinstance(texts[0], str) else b""
    return encode_joined(empty.join(texts), lengths, heads)


def encode_joined(joined: str | bytes, lengths: Offsets, heads: Heads) -> Sequences:
    """Turn texts that were joined, with their lengths, into sequences."""
    check_lengths(lengths, heads)
    offsets = offsets_of(lengths)
    try:
        tokens = encode(joined)
    except AlphabetError as error:
        if error.letter.isspace():  # around a sequence it does no harm
            bounds = zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
            stripped = [joined[start:stop].strip() for start, stop in bounds]
            if sum(map(len, stripped)) < len(joined):
                return encode_texts(stripped, heads)
        row = int(np.searchsorted(offsets, error.position, side="right")) - 1
        start, stop = int(offsets[row]), int(offsets[row + 1])
        place, text = where(heads, row), joined[start:stop]
        if isinstance(text, str) and _looks_like_path(text):
            raise ValueError(
                f"{place} looks like a path, {_short(text)}, but not every entry of {heads.name} "
                "names an existing file. Correct the path, or pass pathlib.Path objects."
            ) from None
        raise ValueError(
            f"{place} {letter_problem(error.letter, error.position - start)}"
        ) from None
    return Sequences(tokens, offsets, heads.names, heads.descriptions, heads.sources)


def check_lengths(lengths: Offsets, heads: Heads) -> None:
    """Refuse sequences without letters, and no sequences at all."""
    if not lengths.size:
        raise ValueError(f"{heads.name} holds no sequences; needs at least one.")
    if not lengths.all():
        rows = np.flatnonzero(lengths == 0)
        raise ValueError(
            f"{heads.name} has {some(rows.size, 'empty sequence')}; first "
            f"{where(heads, int(rows[0]))}. Drop what has no letters: it has no class."
        )


def letter_problem(letter: str, position: int) -> str:
    """Say what is wrong with a letter that is no code, and what to do about it."""
    if letter.isspace():
        cure = f"white space ({letter!r}) at position {position}. Remove it, e.g. "
        return f"holds {cure}''.join(sequence.split())."
    held = f"holds {letter!r} at position {position}"
    if letter in "-.*":
        return (
            f"{held}: a gap or a stop, no nucleotide code. Pass DNA that is not aligned, e.g. "
            f"sequence.replace({letter!r}, '')."
        )
    if letter in "xX?":
        return f"{held}, not a nucleotide code. Write N for an unknown base."
    if letter.upper() in _NOT_IN_DNA:
        return f"{held}, not a nucleotide code: is this a protein?"
    return f"{held}, not a nucleotide code. Correct it, or write N for an unknown base."


def where(heads: Heads, row: int) -> str:
    """Call a sequence by its number and, if it has one, its name."""
    label = heads.names[row] if heads.names is not None else ""
    return f"{heads.name}[{heads.first + row}]" + (f" ({label!r})" if label else "")


def some(count: int, noun: str) -> str:
    """Count things in words.

    Examples
    --------
    >>> some(2, "label")
    '2 labels'
    """
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _looks_like_path(text: str) -> bool:
    # os.path.exists, as Path.exists raises where the text is too long for a name
    return text.lower().endswith(_PATH_ENDS) or os.path.exists(text)  # noqa: PTH110


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
