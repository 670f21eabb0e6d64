"""DNA letters as small numbers: one byte a base, the fifteen IUPAC codes, soft masking kept.

A token is a ``uint8``: its low four bits say which code it is, an index into `CODES`, and bit 4
says that the letter was lower case (soft-masked). `PAD` fills up batches of unequal lengths.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CODES",
    "COMPLEMENT",
    "MIXTURES",
    "PAD",
    "SOFT_MASK",
    "UNKNOWN",
    "AlphabetError",
    "decode",
    "encode",
    "reverse_complement",
]

Tokens = NDArray[np.uint8]

CODES = "ACGTRYSWKMBDHVN"
"""The letter of each token; U is read as T."""

UNKNOWN = CODES.index("N")
PAD = 15
SOFT_MASK = 16
"""Bit that marks a lower-case base."""

_BASES = {
    "A": "A",
    "C": "C",
    "G": "G",
    "T": "T",
    "R": "AG",
    "Y": "CT",
    "S": "CG",
    "W": "AT",
    "K": "GT",
    "M": "AC",
    "B": "CGT",
    "D": "AGT",
    "H": "ACT",
    "V": "ACG",
    "N": "ACGT",
}
_PAIRS = {"A": "T", "C": "G", "G": "C", "T": "A"}

MIXTURES: NDArray[np.float32] = np.array(
    [[(base in _BASES[code]) / len(_BASES[code]) for base in "ACGT"] for code in CODES]
    + [[0.0] * 4],
    dtype=np.float32,
)
"""Share of A, C, G and T in each token, shape (16, 4); the padding is none of them."""

_BY_BASES = {frozenset(bases): code for code, bases in _BASES.items()}
COMPLEMENT: Tokens = np.arange(256, dtype=np.uint8)
"""Complement of each token: index with tokens, as in ``COMPLEMENT[tokens]``."""
for _index, _code in enumerate(CODES):
    _other = CODES.index(_BY_BASES[frozenset(_PAIRS[base] for base in _BASES[_code])])
    COMPLEMENT[_index], COMPLEMENT[_index | SOFT_MASK] = _other, _other | SOFT_MASK

_INVALID = 255
_ENCODE = bytearray([_INVALID] * 256)
for _index, _code in enumerate(CODES + "U"):
    _token = CODES.index("T") if _code == "U" else _index
    _ENCODE[ord(_code)], _ENCODE[ord(_code.lower())] = _token, _token | SOFT_MASK
_ENCODE_TABLE = bytes(_ENCODE)
_DECODE_TABLE = bytes(
    (CODES[token & 15].lower() if token & SOFT_MASK else CODES[token & 15]).encode()[0]
    if token & 15 != PAD and token < 32
    else ord("-")
    for token in range(256)
)


class AlphabetError(ValueError):
    """A letter that is no nucleotide code.

    Attributes
    ----------
    letter : str
        The first such letter.
    position : int
        Where it stands, counted from 0.
    """

    def __init__(self, letter: str, position: int) -> None:
        super().__init__(f"position {position} holds {letter!r}, not a nucleotide code")
        self.letter = letter
        self.position = position


def encode(sequence: str | bytes) -> Tokens:
    """Turn letters into tokens.

    Parameters
    ----------
    sequence : str or bytes
        IUPAC nucleotide codes in either case; U is read as T.

    Returns
    -------
    ndarray of uint8, shape (length,)

    Raises
    ------
    AlphabetError
        A letter is no nucleotide code.

    Examples
    --------
    >>> encode("ACGTNa")
    array([ 0,  1,  2,  3, 14, 16], dtype=uint8)
    """
    raw = sequence.encode("latin-1", "replace") if isinstance(sequence, str) else bytes(sequence)
    tokens = np.frombuffer(bytearray(raw.translate(_ENCODE_TABLE)), dtype=np.uint8)
    if tokens.size and tokens.max() == _INVALID:
        position = int(tokens.argmax())
        letter = sequence[position] if isinstance(sequence, str) else chr(raw[position])
        raise AlphabetError(letter, position)
    return tokens


def decode(tokens: Tokens) -> str:
    """Turn tokens back into letters; the padding becomes ``-``.

    Examples
    --------
    >>> decode(encode("acgTRn"))
    'acgTRn'
    """
    return np.ascontiguousarray(tokens, dtype=np.uint8).tobytes().translate(_DECODE_TABLE).decode()


def reverse_complement(tokens: Tokens) -> Tokens:
    """Return the other strand, read in its own direction.

    Examples
    --------
    >>> decode(reverse_complement(encode("AACGR")))
    'YCGTT'
    """
    return COMPLEMENT[tokens[::-1]]
