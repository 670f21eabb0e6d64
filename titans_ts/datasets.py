"""Real data by name: one bundled set, and the public benchmark sets found or downloaded.

The sets, their checksums, licences and splits are listed in ``datasets/registry.toml``.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, overload

from titans_core.registry import RegisteredFile, locate, lookup, read_registry

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    import polars as pl

__all__ = ["DatasetInfo", "dataset_info", "list_datasets", "load_dataset"]

_REGISTRY = "registry.toml"
_ROWS_AT_ONCE = 100_000  # of a file that are text in memory


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """What is known of a data set before it is read.

    Parameters
    ----------
    name, title : str
        The name that `load_dataset` takes; what was measured, how often.
    path, sha256 : str
        Place of the file in the folder that ``TITANS_DATA`` names, and its checksum as stored.
    source, licence, citation : str
        Where it comes from, under which terms, and whom to cite.
    frequency : str
        Step between two rows, as a pandas offset.
    split : tuple of three numbers
        Train, validation and test: rows from the start (int), or shares of all rows (float).
    url, member : str, optional
        Where it can be downloaded; the file inside, if it is an archive.
    time_columns, time_format : tuple of str and str, optional
        Columns that, joined by a space, give the time stamps in that `strptime` format.
    drop : tuple of str
        Columns that `load_dataset` leaves out.
    notes : str
        What is odd in the data.
    """

    name: str
    title: str
    path: str
    sha256: str
    source: str
    licence: str
    citation: str
    frequency: str
    split: tuple[float, float, float]
    url: str | None = None
    member: str | None = None
    time_columns: tuple[str, ...] = ()
    time_format: str | None = None
    drop: tuple[str, ...] = ()
    notes: str = ""

    @property
    def file(self) -> str:
        """Bare file name."""
        return self._registered.name

    @property
    def _registered(self) -> RegisteredFile:
        return RegisteredFile(path=self.path, sha256=self.sha256, url=self.url)

    def split_borders(self, n_rows: int) -> tuple[int, int, int]:
        """Return the rows at which the train, validation and test parts end.

        Parameters
        ----------
        n_rows : int
            Rows of the data set as loaded.

        Returns
        -------
        train_end, validation_end, test_end : int
            The parts are ``[:train_end]``, ``[train_end:validation_end]`` and
            ``[validation_end:test_end]``. Shares are rounded down for train and test; validation
            takes the rest, as in the published benchmarks.

        Raises
        ------
        ValueError
            If there are fewer rows than the split needs.

        Examples
        --------
        >>> dataset_info("ILI").split_borders(966)
        (676, 773, 966)
        """
        train, validation, test = self.split
        if isinstance(train, float):
            return int(n_rows * train), n_rows - int(n_rows * test), n_rows
        borders = int(train), int(train + validation), int(train + validation + test)
        if n_rows < borders[-1]:
            raise ValueError(
                f"the split of {self.name!r} needs {borders[-1]} rows; got {n_rows}. "
                "Give it the data set as load_dataset returns it."
            )
        return borders


def list_datasets() -> list[str]:
    """Return the names that `load_dataset` knows, the bundled set first.

    Examples
    --------
    >>> list_datasets()[:2]
    ['seattle-weather', 'ETTh1']
    """
    return list(read_registry(_REGISTRY))


def dataset_info(name: str) -> DatasetInfo:
    """Return source, licence, checksum, split and oddities of a data set.

    Parameters
    ----------
    name : str
        One of `list_datasets`.

    Raises
    ------
    ValueError
        If the name is unknown; the message lists the nearest ones.
    """
    return DatasetInfo(name=name, **lookup(read_registry(_REGISTRY), name))


@overload
def load_dataset(name: str, *, engine: Literal["pandas"] = "pandas") -> pd.DataFrame: ...
@overload
def load_dataset(name: str, *, engine: Literal["polars"]) -> pl.DataFrame: ...
def load_dataset(
    name: str, *, engine: Literal["pandas", "polars"] = "pandas"
) -> pd.DataFrame | pl.DataFrame:
    """Load a data set as a wide frame of float64 columns, one row per time step.

    The file is looked for among the bundled ones, in the folder that the environment variable
    ``TITANS_DATA`` names, and in the user's cache; else it is downloaded into the cache. Its
    checksum is verified wherever it was found.

    Parameters
    ----------
    name : str
        One of `list_datasets`.
    engine : {"pandas", "polars"}
        Kind of the answer. pandas: time stamps as index (row numbers for a set without them).
        polars: time stamps as first column.

    Returns
    -------
    pandas.DataFrame or polars.DataFrame
        The values as published: nothing is filled, sorted or repaired. ``dataset_info(name).notes``
        says what is odd.

    Raises
    ------
    ValueError
        If the name or the engine is unknown, or a file is not the registered one.
    FileNotFoundError
        If ``TITANS_DATA`` names no folder, or the set is absent and cannot be downloaded.
    ConnectionError
        If the download fails.

    Examples
    --------
    >>> load_dataset("seattle-weather").shape
    (1461, 4)
    """
    if engine not in ("pandas", "polars"):
        raise ValueError(f"`engine` must be 'pandas' or 'polars'; got {engine!r}.")
    info = dataset_info(name)
    frame = _read(info, locate(info._registered, dataset=name, source=info.source))
    if engine == "pandas":
        return frame

    import polars as pl

    times = {str(frame.index.name): frame.index.to_numpy()} if info.time_columns else {}
    return pl.DataFrame({**times, **{str(c): frame[c].to_numpy() for c in frame.columns}})


def _read(info: DatasetInfo, file: Path) -> pd.DataFrame:
    import pandas as pd

    source: Path | io.BytesIO = file
    if info.member is not None:
        with zipfile.ZipFile(file) as archive:
            source = io.BytesIO(archive.read(info.member))
    # "?" is UCI's missing value; without low_memory a column is not typed piece by piece.
    options: dict[str, Any] = {"na_values": ["?"], "low_memory": False}
    # In pieces: as text a long file takes many times what its numbers do.
    with pd.read_csv(source, chunksize=_ROWS_AT_ONCE, **options) as pieces:
        tables = [_numbers(info, table) for table in pieces]
    return tables[0] if len(tables) == 1 else pd.concat(tables)


def _numbers(info: DatasetInfo, table: pd.DataFrame) -> pd.DataFrame:
    """The columns that are loaded, as float64, with the times in the index."""
    import pandas as pd

    values = table.drop(columns=[*info.time_columns, *info.drop]).astype("float64")
    if info.time_columns:
        text = table[info.time_columns[0]]
        for column in info.time_columns[1:]:
            text = text + " " + table[column]
        times = pd.to_datetime(text, format=info.time_format)
        values.index = pd.DatetimeIndex(times, name=" ".join(info.time_columns))
    return values
