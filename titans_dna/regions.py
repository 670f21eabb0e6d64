"""Regions of a genome: BED files, and the sequences of their lines.

As in every BED file, and everywhere here, positions are 0-based and half-open.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import IO, Any, NamedTuple

from titans_dna.fasta import FastaError, FastaFile, Record, open_fasta
from titans_dna.fasta_file import nearest_names
from titans_dna.fasta_sources import Origin, list_origins, read_blocks, shorten

__all__ = ["Region", "iter_regions", "iter_windows", "read_bed"]


class Region(NamedTuple):
    """A line of a BED file: `start` to `end` of the record `name`, 0-based and half-open.

    `label` is its fourth column, None if there is none or it is ``.``; `score` likewise; `strand`
    is ``+``, ``-`` or ``.``; `line` its number in `source`, counted from 1. `blocks` counts the
    parts that a line of twelve columns divides it into, as exons: they are not cut out.
    """

    name: str
    start: int
    end: int
    label: str | None = None
    score: float | None = None
    strand: str = "."
    line: int = 0
    source: str = "region"
    blocks: int = 1

    @property
    def place(self) -> str:
        """The region as text, as in ``chr1:100-200(-)``; without strand if that is ``.``."""
        return f"{self.name}:{self.start}-{self.end}" + f"({self.strand})" * (self.strand != ".")


def read_bed(path: str | os.PathLike[str] | IO[Any]) -> list[Region]:
    """Read the regions of a BED file.

    Parameters
    ----------
    path : str, PathLike or open file
        Lines of at least three columns, tab- or else blank-separated; plain or compressed by gzip.
        What is beyond the sixth column is not read, but for the number of blocks. Comments,
        ``track`` and ``browser`` lines are left out. ``"-"`` is standard input.

    Returns
    -------
    list of Region

    Raises
    ------
    FastaError
        If a line is no region; the message names it.

    Examples
    --------
    >>> from io import BytesIO
    >>> for region in read_bed(BytesIO(b"chr1 10 20 exon 0 -")):
    ...     print(region.label, region.place)
    exon chr1:10-20(-)
    """
    origins = list_origins(path)
    if len(origins) != 1:
        raise FastaError("read_bed takes one BED file, not a folder or a list.")
    text = b"".join(read_blocks(origins[0])).decode("utf-8", "replace")
    regions = []
    for number, line in enumerate(text.split("\n"), start=1):
        words = line.split(None, 1)
        if words and words[0] not in ("track", "browser") and not words[0].startswith("#"):
            regions.append(_parse(line, number, origins[0]))
    if not regions:
        raise FastaError(
            f"{origins[0].name}: holds no regions; a line of BED is 'chr1', a tab, a start, a tab "
            "and an end."
        )
    return regions


def iter_windows(
    genome: FastaFile | str | os.PathLike[str], width: int, step: int | None = None
) -> Iterator[Region]:
    r"""Yield regions of one width along every record, to scan a genome with.

    Parameters
    ----------
    genome : FastaFile, str or PathLike
        What `open_fasta` returned, or takes.
    width : int
        Bases of a window. The last one of a record ends where the record ends; a record that is
        shorter is a window by itself.
    step : int, optional
        Bases from the start of one to that of the next; None is `width`.

    Yields
    ------
    Region

    Raises
    ------
    ValueError
        Width or step is not such a number.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "toy.fa").write_text(">chr1\nAACCGGTT\n>chr2\nACG\n")
    >>> with open_fasta(folder / "toy.fa", index_folder=folder) as genome:
    ...     print([region.place for region in iter_windows(genome, 4, 3)])
    ['chr1:0-4', 'chr1:3-7', 'chr1:4-8', 'chr2:0-3']
    """
    step = width if step is None else step
    for name, value in (("width", width), ("step", step)):
        if type(value) is not int or value < 1:
            raise ValueError(f"`{name}` must be an int >= 1; got {value!r}.")
    return _tile(genome, width, step)


def _tile(genome: FastaFile | str | os.PathLike[str], width: int, step: int) -> Iterator[Region]:
    if not isinstance(genome, FastaFile):
        with open_fasta(genome) as opened:
            yield from _tile(opened, width, step)
        return
    for name, length in genome.lengths.items():
        last = max(0, length - width)
        for start in range(0, last, step):
            yield Region(name, start, start + width, source="window")
        if length:
            yield Region(name, last, length, source="window")


def iter_regions(
    genome: FastaFile | str | os.PathLike[str],
    bed: str | os.PathLike[str] | IO[Any] | Iterable[Region],
) -> Iterator[Record]:
    r"""Yield the sequence of every region, in the order of the BED file.

    Parameters
    ----------
    genome : FastaFile, str or PathLike
        What `open_fasta` returned, or takes.
    bed : str, PathLike, open file, or iterable of Region
        What `read_bed` takes or returned.

    Yields
    ------
    Record
        Named by the fourth column, if there is one, else by its place, as in ``chr1:100-200(-)``;
        the place always ends the description. On the ``-`` strand, the reverse complement. `line`
        and `source` are those of the BED file.

    Raises
    ------
    FastaError
        If a region is not in the genome: before the first is read, but for an iterator's.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "toy.fa").write_text(">chr1\nAACCGG\n")
    >>> with open_fasta(folder / "toy.fa", index_folder=folder) as genome:
    ...     for record in iter_regions(genome, [Region("chr1", 1, 4, strand="-")]):
    ...         print(record.name, record.sequence)
    chr1:1-4(-) GGT
    """
    given: Any = bed
    if isinstance(bed, (str, os.PathLike)) or hasattr(bed, "read"):
        given = read_bed(given)
    return _fetch_all(genome, given)


def _fetch_all(
    genome: FastaFile | str | os.PathLike[str], regions: Iterable[Region]
) -> Iterator[Record]:
    ours = None if isinstance(genome, FastaFile) else open_fasta(genome)
    fasta = genome if isinstance(genome, FastaFile) else ours
    assert fasta is not None
    try:
        if isinstance(regions, list | tuple):  # now, not after the work on those before
            for region in regions:
                _check_place(fasta, region)
        for region in regions:
            yield _fetch(fasta, region)
    finally:
        if ours is not None:
            ours.close()


def _check_place(fasta: FastaFile, region: Region) -> None:
    length = fasta.lengths.get(region.name)
    where = f"{region.source}: region {shorten(region.place)!r} at line {region.line}"
    if length is None:
        raise FastaError(
            f"{where} is on no record of {fasta.path}; {nearest_names(region.name, fasta.lengths)}"
        )
    if not 0 <= region.start <= region.end <= length:
        raise FastaError(
            f"{where} is not within the {length} letters of record {shorten(region.name)!r} of "
            f"{fasta.path}; is the BED file for another version of the genome?"
        )


def _fetch(fasta: FastaFile, region: Region) -> Record:
    _check_place(fasta, region)
    strand = "-" if region.strand == "-" else "+"
    letters = fasta.fetch(region.name, region.start, region.end, strand)
    name = region.place if region.label is None else region.label
    description = region.place if region.label is None else f"{region.label} {region.place}"
    return Record(name, description, letters, region.line, region.source)


def _parse(line: str, number: int, origin: Origin) -> Region:
    columns = line.split("\t") if "\t" in line else line.split()
    columns = [column.strip() for column in columns]

    def refuse(problem: str) -> FastaError:
        shown = shorten(line.strip(), 60)
        return FastaError(f"{origin.name}: line {number}, {shown!r}, {problem}")

    if len(columns) < 3 or not columns[0]:
        raise refuse("is no region: it needs a name, a start and an end.")
    try:
        start, end = int(columns[1]), int(columns[2])
    except ValueError:
        raise refuse("has a start or end that is no whole number; is this a header line?") from None
    if not 0 <= start < end:
        problem = "starts before 0" if start < 0 else "ends where it starts, or before"
        raise refuse(f"{problem}; positions are 0-based and half-open: 0 <= start < end.")
    label, score, strand = (columns[3:6] + ["."] * 3)[:3]
    try:
        value = None if score in (".", "") else float(score)
    except ValueError:
        raise refuse(f"has {score!r} as its score, the fifth column, not a number.") from None
    if strand not in ("+", "-", ".", ""):
        raise refuse(f"has {strand!r} as its strand, the sixth column, not '+', '-' or '.'.")
    label_or_none = None if label in (".", "") else label
    blocks = int(columns[9]) if len(columns) >= 12 and columns[9].isdecimal() else 1
    place = (columns[0], start, end, label_or_none, value, strand or ".")
    return Region(*place, number, origin.name, blocks)
