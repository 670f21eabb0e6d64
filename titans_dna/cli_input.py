"""What the commands of `titans-dna` take: their options, and how files become sequences."""

from __future__ import annotations

import warnings
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from titans_core.cli import about

if TYPE_CHECKING:
    from collections.abc import Iterator

    from titans_dna.regions import Region
    from titans_dna.sequences import Sequences

STDIN = Path("-")


class Head(str, Enum):
    """Choices of ``--head``."""

    AUTO = "auto"
    POSITIONAL = "positional"
    POOLED = "pooled"


class Strands(str, Enum):
    """Choices of ``--reverse-complement``."""

    AUTO = "auto"
    NONE = "none"
    AUGMENT = "augment"
    AVERAGE = "average"
    EQUIVARIANT = "equivariant"


class ClassWeight(str, Enum):
    """Choices of ``--class-weight``."""

    BALANCED = "balanced"


class SoftMask(str, Enum):
    """Choices of ``--soft-mask``."""

    KEEP = "keep"
    MASK = "mask"


FILES_HELP = "FASTA (plain or .gz), CSV, TSV or Parquet, or a folder of FASTA; - is FASTA on stdin."
LABELS_HELP = "A column, a table by id, 're:PATTERN' for headers, 'file' or 'folder'."

ModelFile = Annotated[Path, typer.Argument(metavar="MODEL", help="File that `fit` wrote.")]
Files = Annotated[list[Path], typer.Argument(metavar="SEQUENCES", help=FILES_HELP)]
File = Annotated[Path, typer.Argument(metavar="SEQUENCES", help=FILES_HELP)]
Labels = Annotated[str | None, typer.Option(help=LABELS_HELP)]
Bed = Annotated[
    Path | None, typer.Option(help="Regions of SEQUENCES, a genome, labelled by the fourth column.")
]
Column = Annotated[str | None, typer.Option(help="Sequences of a table, if not found.")]
K = Annotated[int, typer.Option("--k", "-k", min=1, max=31, help="Relatives share so many bases.")]
SkipRepeats = Annotated[
    bool, typer.Option("--skip-repeats", help="Do not count shared tandem repeats.")
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of all that is drawn.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table.")]


def as_source(paths: list[Path]) -> Any:
    """Paths as `read_sequences` takes them: one, several, or standard input."""
    if STDIN in paths and len(paths) > 1:
        raise typer.BadParameter("- goes alone", param_hint="SEQUENCES")
    return "-" if paths == [STDIN] else paths[0] if len(paths) == 1 else paths


def name_of(source: Any) -> str:
    """What messages call a source; of several files, the first."""
    if isinstance(source, list):
        source = source[0]
    return "standard input" if str(source) == "-" else str(source)


def read_all(source: Any, column: str | None) -> Sequences:
    """Read sequences whole."""
    from titans_dna.sequences import read_sequences

    with about(name_of(source)):
        return read_sequences(source, column=column, name="SEQUENCES")


def read_labelled(
    source: Any, labels: str | None, column: str | None, bed: Path | None = None
) -> tuple[Sequences, Any]:
    """Sequences and their labels; those of a table may stand in a column called label."""
    if bed is not None:
        if column is not None:
            raise ValueError("`column` is for tables; --bed takes regions of FASTA. Leave it out.")
        return _read_regions(source, labels, bed)
    from titans_dna.label_tables import LABEL_COLUMNS
    from titans_dna.labels import read_labels
    from titans_dna.tables import column_named, is_table_path, read_table

    sequences = read_all(source, column)
    paths = source if isinstance(source, list) else [source]
    if labels is None and all(isinstance(path, Path) and is_table_path(path) for path in paths):
        labels = column_named(read_table(paths[0]).columns, LABEL_COLUMNS)
    if labels is None:
        raise ValueError(
            f"{name_of(source)}: where are the labels? Give --labels: a column of a table, a table "
            "by id, 're:PATTERN' for headers, 'file' or 'folder'"
        )
    with about(name_of(source)):
        return sequences, read_labels(labels, sequences, X=source, name="--labels")


def _read_regions(genome: Any, labels: str | None, bed: Path) -> tuple[Sequences, Any]:
    """Regions of a genome, and what their fourth column or --labels say of them."""
    from titans_dna.labels import read_labels
    from titans_dna.regions import iter_regions
    from titans_dna.sequences import read_sequences

    check_genome(genome)
    regions = regions_of(bed)
    unlabelled = next((region for region in regions if region.label is None), None)
    if labels is None and unlabelled is not None:
        raise ValueError(
            f"{bed}: region '{unlabelled.place}' at line {unlabelled.line} has no fourth column "
            "that is its label; add one, or give --labels"
        )
    y: Any = [region.label for region in regions] if labels is None else labels
    with about(bed):
        sequences = read_sequences(iter_regions(genome, regions), name="SEQUENCES")
        return sequences, read_labels(y, sequences, name="--labels")


def check_genome(source: Any, option: str = "--bed") -> None:
    """Refuse what is no file, and several, where an option asks for regions."""
    if not isinstance(source, Path):
        raise typer.BadParameter("needs a genome in one file, not stdin", param_hint=option)
    if not source.exists():
        raise FileNotFoundError(f"there is no file '{source}'; check the path")


def regions_of(bed: Path) -> list[Region]:
    """Read a BED file."""
    from titans_dna.regions import read_bed

    return read_bed("-" if bed == STDIN else bed)


def windows_of(genome: Path, width: int, step: int | None, length: int | None) -> Iterator[Region]:
    """Windows along a genome; records too short for the model are left out, with a warning.

    Parameters
    ----------
    genome : Path
    width, step : int
        As in `titans_dna.iter_windows`.
    length : int, optional
        Bases of every sequence that the model reads.
    """
    from titans_dna.fasta import open_fasta
    from titans_dna.regions import iter_windows

    if length is not None and width != length:
        raise ValueError(
            f"the model reads DNA of {length} bases, since it weighs by place; got --window "
            f"{width}. Give --window {length}, or fit a model with --head pooled"
        )
    with open_fasta(genome) as opened:
        short = [name for name, bases in opened.lengths.items() if bases < (length or 0)]
    if short:
        warnings.warn(
            f"{genome}: records shorter than the {length} bases that the model reads are left "
            f"out: {len(short)}, such as {short[0]!r}",
            stacklevel=2,
        )
    windows = iter_windows(genome, width, step)
    return (each for each in windows if length is None or each.end - each.start == length)


def check_lengths(regions: list[Region], length: int | None) -> None:
    """Refuse regions of other lengths than a model reads, before the work on those before."""
    for region in regions:
        if length is not None and region.end - region.start != length:
            raise ValueError(
                f"{region.source}: region '{region.place}' at line {region.line} has "
                f"{region.end - region.start} bases; the model reads DNA of {length}, since it "
                "weighs by place. Fit one with --head pooled to read any length"
            )
