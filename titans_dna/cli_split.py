"""Write the two parts of a split as the whole is: its letters, its lines, its columns."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from titans_core.files import GZIP, check_apart, check_target, open_packed
from titans_dna.fasta_sources import Origin, list_origins, read_blocks
from titans_dna.fasta_text import split_runs
from titans_dna.tables import is_table_path, read_verbatim, write_table

__all__ = ["check_parts", "write_parts"]


def check_parts(source: Path, parts: tuple[Path, Path]) -> None:
    """Raise ValueError if the parts cannot be written as the source is, or would destroy a file."""
    if not source.exists():
        raise FileNotFoundError(f"there is no file or folder '{source}'; check the path")
    check_apart(parts[1], {"the file of --train": parts[0]})
    for part in parts:
        check_apart(part, {"the sequences": source})
        if source.is_dir():
            if part.exists():
                raise ValueError(
                    f"'{part}' exists; of a folder each part becomes a folder: name a new one"
                )
            check_target(part)
            continue
        check_target(part)
        if _kind(part) != _kind(source) or part.suffix.lower() == ".zst":
            raise ValueError(
                f"'{part}' would not be of the kind of '{source}'; end its name in {_kind(source)}"
            )


def write_parts(source: Path, parts: tuple[Path, Path], in_test: NDArray[np.bool_]) -> None:
    """Write each record, or row, to one of two files; a folder becomes two folders.

    Parameters
    ----------
    source : Path
        FASTA or table, or a folder of FASTA files, of which those of no record are left out.
    parts : (Path, Path)
        Training and test part.
    in_test : ndarray of bool, shape (n,)
    """
    if is_table_path(source):
        frame = read_verbatim(source)
        with open_packed(parts[0]) as train, open_packed(parts[1]) as test:
            write_table(frame.filter(~in_test), train, parts[0])
            write_table(frame.filter(in_test), test, parts[1])
    elif source.is_dir():
        with _new_folder(parts[0]) as train_folder, _new_folder(parts[1]) as test_folder:
            first = 0
            for origin in list_origins(source):
                at = Path(str(origin.file)).relative_to(source)
                targets = train_folder / at, test_folder / at
                first += _write_file(origin, targets, in_test[first:])
    else:
        _write_file(list_origins(source)[0], parts, in_test)


def _write_file(origin: Origin, targets: tuple[Path, Path], in_test: NDArray[np.bool_]) -> int:
    """Write the parts of one file, those that have a record; return how many records there are."""
    record = -1
    with ExitStack() as stack:
        files: dict[int, IO[bytes]] = {}
        for record, text in _records(origin):
            part = int(in_test[record])
            if part not in files:
                targets[part].parent.mkdir(parents=True, exist_ok=True)
                files[part] = stack.enter_context(open_packed(targets[part]))
            files[part].write(text)
    return record + 1


def _records(origin: Origin) -> Iterator[tuple[int, bytes]]:
    """Number and text of each record, of long ones bit by bit, as it is but for its line ends."""
    record = -1
    for header, body, _ in split_runs(read_blocks(origin), origin.name):
        if header is not None:
            if record >= 0:
                yield record, b"\n"
            record += 1
            yield record, b">" + header + (b"" if body is None else b"\n" + body)
        elif record >= 0 and body is not None:
            yield record, body
    if record >= 0:
        yield record, b"\n"


@contextmanager
def _new_folder(path: Path) -> Iterator[Path]:
    """A folder that gets its name when the block ends, and is gone if it raises."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.mkdir()
        yield temporary
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _kind(path: Path) -> str:
    name = Path(path.name.lower())
    while name.suffix in (*GZIP, ".zst"):
        name = name.with_suffix("")
    return name.suffix if is_table_path(name) else ".fa"
