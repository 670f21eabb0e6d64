"""Many sequences of any lengths as one flat run of tokens."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from titans_dna.alphabet import Tokens

__all__ = ["Offsets", "Sequences", "Strings", "offsets_of"]

Offsets = NDArray[np.int64]
Strings = tuple[str, ...] | None

_LONG = 256  # mean length from which copying slice by slice beats one index for all
_BLOCK = 2**20
_FIELDS = ("names", "descriptions", "sources")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Sequences:
    """Sequences of any lengths, one after the other in a flat array.

    Parameters
    ----------
    tokens : ndarray of uint8, shape (bases,)
        All sequences, without padding; see `titans_dna.alphabet`.
    offsets : ndarray of int64, shape (n + 1,)
        Sequence ``i`` is ``tokens[offsets[i]:offsets[i + 1]]``.
    names, descriptions, sources : tuple of str, optional
        Per sequence: first word of its header, whole header, file that it comes from.

    Examples
    --------
    >>> sequences = Sequences.from_list([np.array([0, 1], np.uint8), np.array([3], np.uint8)])
    >>> len(sequences), sequences.lengths, sequences[1]
    (2, array([2, 1]), array([3], dtype=uint8))
    """

    tokens: Tokens
    offsets: Offsets
    names: Strings = None
    descriptions: Strings = None
    sources: Strings = None

    def __post_init__(self) -> None:
        tokens, offsets = self.tokens, self.offsets
        if tokens.dtype != np.uint8 or tokens.ndim != 1:
            raise TypeError(f"tokens must be 1-d uint8; got {tokens.ndim}-d {tokens.dtype}.")
        if offsets.dtype != np.int64 or offsets.ndim != 1 or not offsets.size:
            raise TypeError("offsets must be 1-d int64, one more than there are sequences.")
        if offsets[0] != 0 or offsets[-1] != tokens.size or (np.diff(offsets) < 0).any():
            raise ValueError(f"offsets must rise from 0 to the {tokens.size} tokens.")
        for field in _FIELDS:
            values = getattr(self, field)
            if values is not None and len(values) != len(self):
                raise ValueError(f"{field} has {len(values)} entries for {len(self)} sequences.")

    def __len__(self) -> int:
        return self.offsets.size - 1

    def __getitem__(self, index: int) -> Tokens:
        index, n = operator.index(index), len(self)
        if not -n <= index < n:
            raise IndexError(f"there is no sequence {index}; there are {n}.")
        index %= n
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequences):
            return NotImplemented
        return (
            np.array_equal(self.offsets, other.offsets)
            and np.array_equal(self.tokens, other.tokens)
            and all(getattr(self, field) == getattr(other, field) for field in _FIELDS)
        )

    __hash__ = None  # type: ignore[assignment]  # arrays compare by value, and can change

    def __repr__(self) -> str:
        return f"<Sequences: {len(self)} sequences, {self.tokens.size} bases>"

    @property
    def lengths(self) -> Offsets:
        """Bases of each sequence, shape (n,)."""
        return np.diff(self.offsets)

    def take(self, indices: Any) -> Sequences:
        """Return the sequences at these places, in this order.

        Parameters
        ----------
        indices : array-like of int, of bool (a mask of shape (n,)), or a slice
            A slice of step 1 shares the tokens; all else copies them.
        """
        if isinstance(indices, slice):
            start, stop, step = indices.indices(len(self))
            if step == 1:
                return self._slice(start, max(start, stop))
        elif not np.size(indices):
            indices = slice(0)  # numpy takes an empty list for floats
        else:
            indices = np.asarray(indices)
        places = np.arange(len(self))[indices]
        lengths = self.lengths[places]
        offsets = offsets_of(lengths)
        return Sequences(
            self._gather(places, lengths, offsets),
            offsets,
            *(_pick(getattr(self, field), places) for field in _FIELDS),
        )

    @classmethod
    def concatenate(cls, parts: Iterable[Sequences]) -> Sequences:
        """Join several into one; names, descriptions and sources stay where all parts have them."""
        parts = list(parts)
        fields = []
        for field in _FIELDS:
            values = [getattr(part, field) for part in parts]
            known = bool(parts) and all(value is not None for value in values)
            fields.append(tuple(v for value in values for v in value) if known else None)
        lengths = [part.lengths for part in parts]
        tokens = [part.tokens for part in parts]
        return cls(
            np.concatenate(tokens) if tokens else np.empty(0, np.uint8),
            offsets_of(np.concatenate(lengths) if lengths else np.empty(0, np.int64)),
            *fields,
        )

    @classmethod
    def from_list(
        cls,
        arrays: Sequence[Tokens],
        *,
        names: Strings = None,
        descriptions: Strings = None,
        sources: Strings = None,
    ) -> Sequences:
        """Join token arrays of shape (length,), one per sequence."""
        lengths = np.fromiter(map(len, arrays), np.int64, len(arrays))
        tokens = np.concatenate(arrays) if len(arrays) else np.empty(0, np.uint8)
        return cls(tokens, offsets_of(lengths), names, descriptions, sources)

    def _slice(self, start: int, stop: int) -> Sequences:
        first, last = self.offsets[start], self.offsets[stop]
        fields = (getattr(self, field) for field in _FIELDS)
        return Sequences(
            self.tokens[first:last],
            self.offsets[start : stop + 1] - first,
            *(value if value is None else value[start:stop] for value in fields),
        )

    def _gather(self, places: Offsets, lengths: Offsets, offsets: Offsets) -> Tokens:
        starts = self.offsets[places]
        if offsets[-1] > _LONG * lengths.size:
            bounds = zip(starts.tolist(), (starts + lengths).tolist(), strict=True)
            return np.concatenate([self.tokens[begin:end] for begin, end in bounds])
        tokens = np.empty(offsets[-1], np.uint8)
        shift = starts - offsets[:-1]
        row = 0
        while row < lengths.size:  # in blocks, as an index takes eight times the room of a token
            stop = min(int(np.searchsorted(offsets, offsets[row] + _BLOCK)), lengths.size)
            begin, end = offsets[row], offsets[stop]
            index = np.arange(begin, end) + np.repeat(shift[row:stop], lengths[row:stop])
            tokens[begin:end] = self.tokens[index]
            row = stop
        return tokens


def offsets_of(lengths: Offsets) -> Offsets:
    """Return where sequences of these lengths begin, and the last one ends."""
    offsets = np.zeros(lengths.size + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def _pick(values: Strings, places: Offsets) -> Strings:
    return None if values is None else tuple(map(values.__getitem__, places.tolist()))
