"""Files of the data sets: found, verified, downloaded once.

Each head has a registry, a TOML file in the folder ``datasets/``, and reads its own files. Where a
file may lie, and that it is the right one, is the same for both.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["RegisteredFile", "bundle_folder", "cache_folder", "locate", "lookup", "read_registry"]


@dataclass(frozen=True, kw_only=True)
class RegisteredFile:
    """One file of a data set.

    Parameters
    ----------
    path : str
        Its place in the folder that ``TITANS_DATA`` names.
    sha256 : str
        Its checksum as stored, compressed or not.
    url : str, optional
        Where it can be downloaded.
    name : str, optional
        What it is called in the cache, among the bundled files, and in ``TITANS_DATA`` where it
        lies at the top; the last part of `path` unless that is too common, as ``train.csv`` is.

    Examples
    --------
    >>> RegisteredFile(path="ts/ETTh1.csv", sha256="f18d").name
    'ETTh1.csv'
    """

    path: str
    sha256: str
    url: str | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.path.rsplit("/", 1)[-1])


def bundle_folder() -> Path:
    """Folder of registries and bundled files: inside the wheel, or at the root of a checkout."""
    installed = Path(__file__).parent / "_datasets"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "datasets"


def cache_folder() -> Path:
    """Folder of the user's that downloads are kept in."""
    import pooch

    return Path(pooch.os_cache("titans-stream"))


def read_registry(file_name: str) -> dict[str, dict[str, Any]]:
    """Read a registry: one table a data set, in the order of the file.

    Parameters
    ----------
    file_name : str
        A TOML file among the bundled ones.
    """
    return tomllib.loads((bundle_folder() / file_name).read_text(encoding="utf-8"))


def lookup(registry: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
    """Return what the registry says of a data set, with tuples in the place of lists.

    Parameters
    ----------
    registry : dict
        As `read_registry` returns it.
    name : str
        The data set.

    Raises
    ------
    ValueError
        If the name is unknown; the message lists the nearest ones.

    Examples
    --------
    >>> lookup({"ETTh1": {"drop": ["OT"]}}, "ETTh1")
    {'drop': ('OT',)}
    """
    if name not in registry:
        by_lower = {known.lower(): known for known in registry}
        near = difflib.get_close_matches(str(name).lower(), by_lower)
        guess = f"Did you mean {' or '.join(repr(by_lower[n]) for n in near)}? " if near else ""
        raise ValueError(f"unknown data set {name!r}. {guess}Known: {', '.join(registry)}.")
    # Lists become tuples, so that the frozen records made of them are hashable, too.
    return {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in registry[name].items()
    }


def locate(file: RegisteredFile, *, dataset: str, source: str) -> Path:
    """Return where a file lies, verified; download it into the cache if it is nowhere.

    It is looked for among the bundled files, in the folder that the environment variable
    ``TITANS_DATA`` names, and in the user's cache.

    Parameters
    ----------
    file : RegisteredFile
        The file.
    dataset, source : str
        The data set it belongs to and where that comes from, for the messages.

    Raises
    ------
    ValueError
        If the file found or downloaded is not the registered one: it is refused, not passed over.
    FileNotFoundError
        If ``TITANS_DATA`` names no folder, or the file is absent and cannot be downloaded.
    ConnectionError
        If the download fails.
    """
    found = next((path for path in _candidates(file) if path.is_file()), None)
    if found is None:
        return _download(file, dataset, source)
    got = hashlib.sha256(found.read_bytes()).hexdigest()
    if got != file.sha256:
        raise ValueError(
            f"{found} is not the registered file of the data set {dataset!r}: expected sha256 "
            f"{file.sha256}, got {got}. It is damaged or another version: remove it, and the "
            "right one is looked for elsewhere."
        )
    return found


def _candidates(file: RegisteredFile) -> Iterator[Path]:
    yield bundle_folder() / file.name
    if named := os.environ.get("TITANS_DATA"):
        folder = Path(named).expanduser()
        if not folder.is_dir():
            raise FileNotFoundError(
                f"the environment variable TITANS_DATA names {named!r}, which is no folder: "
                "create it, correct the name, or unset the variable."
            )
        yield folder / file.path
        yield folder / file.name
    yield cache_folder() / file.name


def _download(file: RegisteredFile, dataset: str, source: str) -> Path:
    cache = cache_folder()
    by_hand = (
        f"To do without a download, put the file {file.name} (sha256 {file.sha256}) into {cache} "
        f"or into the folder that TITANS_DATA names; it comes from {source}."
    )
    if file.url is None:
        raise FileNotFoundError(
            f"the data set {dataset!r} is not on this machine and has no download. {by_hand}"
        )

    import pooch

    try:
        # pooch writes to a temporary file, verifies that, and only then moves it into place, so a
        # broken download or a second process never shows half a file.
        return Path(pooch.retrieve(file.url, f"sha256:{file.sha256}", file.name, cache))
    except ValueError as error:
        raise ValueError(
            f"the download of the data set {dataset!r} from {file.url} was refused, nothing was "
            f"kept: {error} Try again; if it happens twice, the file there has changed. {by_hand}"
        ) from error
    except OSError as error:
        raise ConnectionError(
            f"could not download the data set {dataset!r} from {file.url}: {error}. {by_hand}"
        ) from error
