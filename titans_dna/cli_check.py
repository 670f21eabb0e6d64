"""What `titans-dna check` says about a file, after reading all of it."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from titans_dna.alphabet import decode
from titans_dna.fasta import FastaError, FastaFile, Piece, iter_pieces, open_fasta
from titans_dna.regions import Region, iter_regions, read_bed
from titans_dna.sequence_text import some
from titans_dna.sequences import iter_sequences
from titans_dna.tables import is_table_path

__all__ = ["check_regions", "check_sequences", "is_bed_path"]

_SHOWN = 3
_MOST_LABELS = 20
_LOWER_CASE = bytes(range(ord("a"), ord("z") + 1))


def is_bed_path(path: Path) -> bool:
    """Tell by its suffix whether a path is one of a BED file."""
    return path.name.lower().removesuffix(".gz").endswith(".bed")


def check_sequences(source: Any, *, column: str | None = None) -> dict[str, Any]:
    """Read FASTA, or a table of sequences, to its end.

    Parameters
    ----------
    source : Path or "-"
        A file or folder, or standard input.
    column : str, optional
        Column of a table.

    Returns
    -------
    dict
        Counts and shares; `problems`, which `fit` or `predict` would refuse, and `warnings`.
    """
    tally, problems = _Tally(), []
    try:
        for piece in _pieces(source, column):
            tally.add(piece)
    except ValueError as error:  # the first is the last: what follows it cannot be told
        problems.append(str(error))
    return tally.facts(problems)


def check_regions(bed: Any, genome: Path | None = None) -> dict[str, Any]:
    """Read a BED file to its end, and look up each region if there is a genome.

    Parameters
    ----------
    bed : Path or "-"
    genome : Path, optional
        FASTA file.

    Returns
    -------
    dict
        As from `check_sequences`.
    """
    problems: list[str] = []
    regions: list[Region] = []
    try:
        regions = read_bed(bed)
        if genome is not None:
            with open_fasta(genome) as fasta:
                problems = _misplaced(regions, fasta)
    except FastaError as error:
        problems.append(str(error))
    copies = Counter((each.name, each.start, each.end, each.strand) for each in regions)
    n_copies = len(regions) - len(copies)
    labels = Counter("none" if each.label is None else each.label for each in regions)
    warnings = []
    if n_copies:
        first = next(key for key, count in copies.items() if count > 1)
        warnings.append(f"{some(n_copies, 'region')} again, e.g. {first[0]}:{first[1]}-{first[2]}")
    n_divided = sum(each.blocks > 1 for each in regions)
    if n_divided:
        warnings.append(
            f"{some(n_divided, 'region')} of several blocks: the whole of it is read, what lies "
            "between blocks, too"
        )
    return {
        "regions": len(regions),
        "records": len({each.name for each in regions}),
        "bases": sum(each.end - each.start for each in regions),
        "length": _lengths(array("q", (each.end - each.start for each in regions))),
        "strands": dict(Counter(each.strand for each in regions)),
        "labels": dict(labels) if len(labels) <= _MOST_LABELS else f"{len(labels)} different",
        "duplicate_regions": n_copies,
        "warnings": warnings,
        "problems": problems,
    }


class _Tally:
    """Counts over pieces of records; of a record no more is kept than its length and a digest."""

    def __init__(self) -> None:
        self.lengths = array("q")
        self.files: set[str] = set()
        self.bases = self.unknown = self.plain = self.strong = self.masked = 0
        self.names: set[str] = set()
        self.letters: set[bytes] = set()
        self.same_name: list[str] = []
        self.same_letters: list[str] = []
        self.empty: list[str] = []
        self.blank: list[str] = []
        self._begin()

    def _begin(self) -> None:
        self._length = self._plain = 0
        self._digest = hashlib.blake2b(digest_size=12)

    def add(self, piece: Piece) -> None:
        """Count a piece; pieces come in order."""
        letters = piece.sequence.upper().replace(b"U", b"T")
        strong = letters.count(b"G") + letters.count(b"C")
        plain = strong + letters.count(b"A") + letters.count(b"T")
        self.bases += len(letters)
        self.unknown += letters.count(b"N")
        self.strong += strong
        self.plain += plain
        self.masked += len(letters) - len(piece.sequence.translate(None, _LOWER_CASE))
        self._length += len(letters)
        self._plain += plain
        self._digest.update(letters)
        if piece.is_last:
            self._end(piece)

    def _end(self, piece: Piece) -> None:
        self.files.add(piece.source)
        name = piece.name or f"row {len(self.lengths)}"  # of a table, or list of reads
        self.lengths.append(self._length)
        if not self._length:
            self.empty.append(name)
        elif not self._plain:
            self.blank.append(name)
        else:
            _note(self._digest.digest(), self.letters, name, self.same_letters)
        if piece.name:  # rows of a table may have none
            _note(piece.name, self.names, piece.name, self.same_name)
        self._begin()

    def facts(self, problems: list[str]) -> dict[str, Any]:
        """All that was counted."""
        if self.empty:
            problems = [f"{_of(self.empty)} no letters: drop what has no class", *problems]
        warnings = []
        if self.blank:
            warnings.append(f"{_of(self.blank)} no base that is known")
        if self.same_name:
            warnings.append(
                f"{_of(self.same_name)} the name of an earlier one: regions of it cannot be "
                "fetched, and labels by id are those of both"
            )
        if self.same_letters:
            warnings.append(
                f"{_of(self.same_letters)} the bases of an earlier one: `titans-dna split` keeps "
                "such records together"
            )
        return {
            "files": len(self.files),
            "records": len(self.lengths),
            "bases": self.bases,
            "length": _lengths(self.lengths),
            "gc_share": self.strong / max(self.plain, 1),
            "n_share": self.unknown / max(self.bases, 1),
            "other_codes_share": (self.bases - self.plain - self.unknown) / max(self.bases, 1),
            "soft_masked_share": self.masked / max(self.bases, 1),
            "duplicate_names": len(self.same_name),
            "duplicate_sequences": len(self.same_letters),
            "warnings": warnings,
            "problems": problems,
        }


def _pieces(source: Any, column: str | None) -> Iterator[Piece]:
    if not is_table_path(source):
        yield from iter_pieces(source)
        return
    for batch in iter_sequences(source, column=column):
        names = batch.names or ("",) * len(batch)
        for row, name in enumerate(names):
            letters = decode(batch[row]).encode()
            yield Piece(name, name, 0, letters, is_last=True, line=row, source=str(source))


def _note(key: Any, seen: set[Any], name: str, repeated: list[str]) -> None:
    if key in seen:
        repeated.append(name)
    seen.add(key)


def _misplaced(regions: list[Region], genome: FastaFile) -> list[str]:
    """What is wrong with regions that are not in the genome."""
    problems = []
    for region in regions:
        length = genome.lengths.get(region.name)
        if length is None or region.end > length:
            try:
                next(iter_regions(genome, [region]))
            except FastaError as error:
                problems.append(str(error))
    return problems


def _lengths(lengths: array[int]) -> dict[str, Any] | None:
    if not lengths:
        return None
    middle = median(lengths)
    whole = int(middle) if middle == int(middle) else middle
    return {"min": min(lengths), "median": whole, "max": max(lengths)}


def _of(names: list[str]) -> str:
    """Records that share a trait, counted, as the subject of a sentence."""
    shown = ", ".join(map(repr, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")
    return f"{some(len(names), 'record')} ({shown}) {'has' if len(names) == 1 else 'have'}"
