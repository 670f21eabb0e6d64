"""Labelled sequences by name: one bundled set, and the public benchmark sets found or downloaded.

The sets, their checksums, licences and leaks are listed in ``datasets/registry-dna.toml``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, overload

from titans_core.registry import RegisteredFile, locate, lookup, read_registry

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

__all__ = ["DatasetFile", "DatasetInfo", "dataset_info", "list_datasets", "load_dataset"]

_REGISTRY = "registry-dna.toml"


@dataclass(frozen=True, kw_only=True)
class DatasetFile:
    """A file of a data set, and what it says of all its rows.

    Parameters
    ----------
    file : RegisteredFile
        Where it may lie, and its checksum.
    label, split : str
        Label and part (train, dev or test) of its rows; empty where the rows themselves say it.
    """

    file: RegisteredFile
    label: str = ""
    split: str = ""


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """What is known of a data set before it is read.

    Parameters
    ----------
    name, title : str
        The name that `load_dataset` takes; what has to be told from what.
    kind : {"table", "records", "coding-windows", "genome-windows"}
        How the rows are made of the files: see the head of the registry.
    classes : tuple of str or int
        Every label. Of two classes the negative one comes first.
    rows : int
        Rows of the data set as loaded.
    files : tuple of DatasetFile
        The files, with their checksums.
    source, licence, citation : str
        Where it comes from, under which terms, and whom to cite.
    notes : str
        What is odd in the data, and how far the test rows are copies of training rows.
    columns, header : tuple of str and bool
        Of a table: its columns from the left, and whether its first line names them.
    window, step : int
        Of windows: their length, and the distance between the starts of two, in bases.
    region : tuple of int
        Part of the genome that windows are cut from, 0-based and half-open; empty: all of it.
    min_coding : float
        Share of a window that exons have to cover to make it a coding one.
    skip : tuple of str
        Records of the genomes that are left out.
    """

    name: str
    title: str
    kind: Literal["table", "records", "coding-windows", "genome-windows"]
    classes: tuple[str | int, ...]
    rows: int
    files: tuple[DatasetFile, ...]
    source: str
    licence: str
    citation: str
    notes: str
    columns: tuple[str, ...] = ()
    header: bool = False
    window: int = 0
    step: int = 0
    region: tuple[int, ...] = ()
    min_coding: float = 0.0
    skip: tuple[str, ...] = ()


def list_datasets() -> list[str]:
    """Return the names that `load_dataset` knows, the bundled set first.

    Examples
    --------
    >>> list_datasets()[:2]
    ['chloroplast', 'uci-splice']
    """
    return list(read_registry(_REGISTRY))


def dataset_info(name: str) -> DatasetInfo:
    """Return source, licence, checksums, classes and oddities of a data set.

    Parameters
    ----------
    name : str
        One of `list_datasets`.

    Raises
    ------
    ValueError
        If the name is unknown; the message lists the nearest ones.

    Examples
    --------
    >>> dataset_info("chloroplast").classes
    ('non-coding', 'coding')
    """
    entry = lookup(read_registry(_REGISTRY), name)
    files = tuple(_dataset_file(**file) for file in entry.pop("files"))
    return DatasetInfo(name=name, files=files, **entry)


@overload
def load_dataset(name: str, *, engine: Literal["pandas"] = "pandas") -> pd.DataFrame: ...
@overload
def load_dataset(name: str, *, engine: Literal["polars"]) -> pl.DataFrame: ...
def load_dataset(
    name: str, *, engine: Literal["pandas", "polars"] = "pandas"
) -> pd.DataFrame | pl.DataFrame:
    """Load a data set as a frame, one labelled sequence a row.

    The files are looked for among the bundled ones, in the folder that the environment variable
    ``TITANS_DATA`` names, and in the user's cache; else they are downloaded into the cache. Their
    checksums are verified wherever they were found.

    Parameters
    ----------
    name : str
        One of `list_datasets`.
    engine : {"pandas", "polars"}
        Kind of the answer.

    Returns
    -------
    pandas.DataFrame or polars.DataFrame
        `id`, `sequence` and `label`; where the set has an official split, `split`: train, dev or
        test; of windows also `chrom`, `start` and `end`, 0-based and half-open. Ids are unique,
        the published ones or else file and row. Sequences are in upper case, for where these files
        have lower case it is noise, or a leak; beyond that nothing is repaired, and no copies are
        removed. ``dataset_info(name).notes`` says what is odd.

    Raises
    ------
    ValueError
        If the name or the engine is unknown, or a file is not the registered one.
    FileNotFoundError
        If ``TITANS_DATA`` names no folder, or a file is absent and cannot be downloaded.
    ConnectionError
        If the download fails.

    Examples
    --------
    >>> load_dataset("chloroplast").columns.tolist()
    ['id', 'sequence', 'label', 'split', 'chrom', 'start', 'end']
    """
    if engine not in ("pandas", "polars"):
        raise ValueError(f"`engine` must be 'pandas' or 'polars'; got {engine!r}.")
    info = dataset_info(name)
    paths = [locate(one.file, dataset=name, source=info.source) for one in info.files]

    from titans_dna.dataset_rows import read_columns

    columns = read_columns(info, paths)
    if engine == "polars":
        import polars as pl

        return pl.DataFrame(columns)
    import pandas as pd

    return pd.DataFrame(columns)


def _dataset_file(*, label: str = "", split: str = "", **file: Any) -> DatasetFile:
    return DatasetFile(file=RegisteredFile(**file), label=label, split=split)
