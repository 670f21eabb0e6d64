"""From the files of a data set to its rows: tables, FASTA records, and windows of genomes."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from titans_dna.fasta import iter_fasta
from titans_dna.regions import read_bed

if TYPE_CHECKING:
    from titans_dna.datasets import DatasetFile, DatasetInfo

__all__ = ["TEST_SHARE", "read_columns"]

TEST_SHARE = 0.2
"""Share of the bases of a chromosome, at its end, whose windows are the test part."""


class _Row(NamedTuple):
    """A row of the frame; a column that is None in all rows is left out."""

    id: str
    sequence: str
    label: str | int
    split: str | None = None
    chrom: str | None = None
    start: int | None = None
    end: int | None = None


def read_columns(info: DatasetInfo, paths: Sequence[Path]) -> dict[str, list[Any]]:
    """Read the files of a data set.

    Parameters
    ----------
    info : DatasetInfo
        What the registry says of it.
    paths : sequence of pathlib.Path
        Where its files lie, in the order of ``info.files``.

    Returns
    -------
    dict of str to list
        The columns that the set has, all of one length.
    """
    if info.kind == "coding-windows":
        rows = list(_coding_windows(info, *paths))
    else:
        files = zip(info.files, paths, strict=True)
        rows = [row for one, path in files for row in _read_file(info, one, path)]
    if info.kind == "genome-windows":
        rows = _balanced(rows)
    cells = zip(*rows, strict=True)
    columns = {name: list(cell) for name, cell in zip(_Row._fields, cells, strict=True)}
    columns["id"] = _unique(columns["id"])
    return {name: values for name, values in columns.items() if values[0] is not None}


def _read_file(info: DatasetInfo, one: DatasetFile, path: Path) -> Iterator[_Row]:
    if info.kind == "table":
        return _read_table(info, one, path)
    if info.kind == "genome-windows":
        return _genome_windows(info, one, path)
    return _read_records(one, path)


def _read_table(info: DatasetInfo, one: DatasetFile, path: Path) -> Iterator[_Row]:
    classes = {str(known): known for known in info.classes}
    with path.open(encoding="utf-8", newline="") as file:
        lines = csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        if info.header:
            next(lines)
        for number, line in enumerate(lines, start=1):
            # UCI pads its columns with spaces and tabs.
            cell = dict(zip(info.columns, (text.strip() for text in line), strict=True))
            name = cell.get("id", f"{_stem(one)}-{number}")
            yield _Row(name, cell["sequence"].upper(), classes[cell["label"]], one.split or None)


def _read_records(one: DatasetFile, path: Path) -> Iterator[_Row]:
    for number, record in enumerate(iter_fasta(path), start=1):
        name = f"{_stem(one)}-{number}"
        yield _Row(name, record.sequence.upper(), one.label, one.split or None)


def _coding_windows(info: DatasetInfo, fasta: Path, bed: Path) -> Iterator[_Row]:
    """Windows of the + strand that exons of either strand cover enough of, or nothing of."""
    (record,) = iter_fasta(fasta)
    coding = np.zeros(len(record.sequence), bool)
    for exon in read_bed(bed):
        coding[exon.start : exon.end] = True
    non_coding_label, coding_label = info.classes
    begin, stop = info.region
    for start, end, split in _windows(begin, stop, info.window, info.step):
        share = coding[start:end].mean()
        if share == 0 or share >= info.min_coding:
            label = coding_label if share else non_coding_label
            sequence = record.sequence[start:end].upper()
            name = f"{record.name}:{start}-{end}"
            yield _Row(name, sequence, label, split, record.name, start, end)


def _genome_windows(info: DatasetInfo, one: DatasetFile, path: Path) -> Iterator[_Row]:
    """Windows of all chromosomes of a genome that hold nothing but A, C, G and T."""
    for record in iter_fasta(path):
        if record.name in info.skip:
            continue
        genome = record.sequence.upper()
        for start, end, split in _windows(0, len(genome), info.window, info.step):
            sequence = genome[start:end]
            if not re.search("[^ACGT]", sequence):
                name = f"{one.label}/{record.name}:{start}-{end}"
                yield _Row(name, sequence, one.label, split, record.name, start, end)


def _windows(begin: int, stop: int, window: int, step: int) -> Iterator[tuple[int, int, str]]:
    """Start, end and part of each window; one that lies across the border of the parts is none."""
    border = stop - int((stop - begin) * TEST_SHARE)
    for start in range(begin, stop - window + 1, step):
        end = start + window
        if end <= border or start >= border:
            yield start, end, "train" if end <= border else "test"


def _balanced(rows: list[_Row]) -> list[_Row]:
    """Keep of each part as many rows of each class as its smallest class has, evenly spaced."""
    kept = []
    for split in ("train", "test"):
        by_label: dict[str | int, list[_Row]] = {}
        for row in rows:
            if row.split == split:
                by_label.setdefault(row.label, []).append(row)
        count = min(map(len, by_label.values()))
        for own in by_label.values():
            kept += [own[i * len(own) // count] for i in range(count)]
    return kept


def _unique(names: list[str]) -> list[str]:
    """Let names that occurred before end in _2, _3, ..."""
    seen: dict[str, int] = {}
    unique = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        unique.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return unique


def _stem(one: DatasetFile) -> str:
    return one.file.name.rsplit(".", 1)[0]
