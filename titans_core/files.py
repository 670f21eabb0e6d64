"""Files that are written whole or not at all, and what is refused before any work is done."""

from __future__ import annotations

import gzip
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

__all__ = [
    "GZIP",
    "check_apart",
    "check_target",
    "open_atomically",
    "open_packed",
    "write_atomically",
]

GZIP = (".gz", ".bgz")
"""What the names of compressed files end with."""


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file that appears complete or not at all.

    Parameters
    ----------
    path : str or path-like
        Where to write. The folder must exist; a regular file is replaced, also behind a symlink.
    data : bytes
        The whole content.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    FileExistsError
        If the path is there and not a regular file: a folder, a pipe, a device.
    """
    with open_atomically(path) as file:
        file.write(data)


@contextmanager
def open_atomically(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a file for writing that appears when the block ends, and not at all if it raises.

    Parameters and errors are those of `write_atomically`.
    """
    target = Path(os.path.realpath(path))  # through a symlink, which replacing would overwrite
    if not target.parent.is_dir():
        raise FileNotFoundError(f"folder '{target.parent}' does not exist; create it before saving")
    if target.exists() and not target.is_file():  # replacing would remove a pipe or a device
        raise FileExistsError(f"'{target}' is no regular file; name one that may be written")
    # Beside the target, so that replacing stays within one file system. Opened by name and not
    # by tempfile, whose files only their owner may read whatever the umask says.
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def open_packed(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a file as `open_atomically` does, compressed if its name ends in ``.gz`` or ``.bgz``."""
    with open_atomically(path) as file:
        if not os.fspath(path).lower().endswith(GZIP):
            yield file
            return
        # Without name and time, equal contents are equal files.
        with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as packed:
            yield cast(IO[bytes], packed)


def check_apart(target: Path, others: dict[str, Path | None]) -> None:
    """Raise ValueError if writing to a path would destroy one of the others, told by their role.

    Paths are compared by the file they lead to, through links and other spellings.
    """
    for role, other in others.items():
        if other is None:
            continue
        same = target.resolve() == other.resolve()
        if same or (target.exists() and other.exists() and target.samefile(other)):
            raise ValueError(f"'{target}' would overwrite {role} '{other}'; name another file")


def check_target(path: Path) -> None:
    """Raise ValueError now for a path that `write_atomically` would refuse after the work."""
    if not os.access(path.resolve().parent, os.W_OK):
        raise ValueError(f"cannot write to folder '{path.parent}'; create it, or name another")
    if path.exists() and not path.is_file():
        raise ValueError(f"'{path}' is no regular file; name one that may be written")
