"""Tables of sequences and labels: CSV, TSV and Parquet files, and which column is what."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import IO, Any

__all__ = [
    "ID_COLUMNS",
    "column_named",
    "is_table_path",
    "known_column",
    "plain",
    "read_table",
    "read_verbatim",
    "write_table",
]

ID_COLUMNS = ("id", "name", "seqid")
_SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
_COMPRESSED = (".gz", ".zst")
_PARQUET = (".parquet", ".pq")


def is_table_path(path: Any) -> bool:
    """Tell by its suffix whether a path is one of a table."""
    return _suffix(path) in (*_SEPARATORS, *_PARQUET)


def read_table(
    path: str | os.PathLike[str], *, header: bool = True, first_is_id: bool = False
) -> Any:
    """Read a table as a polars frame; ValueError names the file.

    Columns named as ids are text, as an id such as 007 is no number. So is the first one where none
    is named so, if `first_is_id`. Without `header` it is the first one. Other columns are numbers
    if their values are written as these numbers would be: 1, not 01. Blank lines are passed over.
    """
    import polars as pl

    if not Path(path).is_file():
        raise ValueError(f"{os.fspath(path)!r}: no such file.")
    try:
        if _suffix(path) in _PARQUET:
            frame = pl.read_parquet(Path(path))
            ids = [c for c in frame.columns if plain(c) in ID_COLUMNS]
            return frame.with_columns(pl.col(ids).cast(pl.String)) if ids else frame
        separator = _SEPARATORS[_suffix(path)]
        options: dict[str, Any] = {"separator": separator, "has_header": header}
        columns = pl.read_csv(Path(path), n_rows=1, infer_schema=False, **options).columns
        ids = [c for c in columns if plain(c) in ID_COLUMNS]
        ids = columns[:1] if not header or (first_is_id and not ids) else ids
        text = dict.fromkeys(ids, pl.String)
        # All rows decide on a type, or a label in the last one may not fit.
        frame = pl.read_csv(Path(path), schema_overrides=text, infer_schema_length=None, **options)
        frame = _as_written(frame, Path(path), options)
        return frame.filter(~pl.all_horizontal(pl.all().is_null()))  # blank lines
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        raise ValueError(f"{os.fspath(path)!r} is no table that can be read: {error}") from error


def _as_written(frame: Any, path: Path, options: dict[str, Any]) -> Any:
    """Columns whose values would be written otherwise, such as 01 for 1 or 1e5, as text."""
    import polars as pl

    guessed = [c for c in frame.columns if frame.schema[c] != pl.String]
    if not guessed:
        return frame
    text = pl.read_csv(path, columns=guessed, infer_schema=False, **options)
    changed = [c for c in guessed if not (frame[c].cast(pl.String) == text[c]).all()]
    return frame.with_columns(text.select(changed)) if changed else frame


def read_verbatim(path: str | os.PathLike[str]) -> Any:
    """Read a table as a polars frame to be written again: all cells of text files are text."""
    import polars as pl

    if _suffix(path) in _PARQUET:
        return pl.read_parquet(Path(path))
    return pl.read_csv(Path(path), separator=_SEPARATORS[_suffix(path)], infer_schema=False)


def write_table(frame: Any, file: IO[bytes], path: str | os.PathLike[str]) -> None:
    """Write a polars frame to an open file, in the format that the suffix of `path` tells."""
    if _suffix(path) in _PARQUET:
        frame.write_parquet(file)
    else:
        frame.write_csv(file, separator=_SEPARATORS[_suffix(path)])


def plain(column: Any) -> str:
    """Return the name of a column without what does not matter: case, and space around it."""
    return str(column).strip().lower()


def column_named(columns: list[Any], names: tuple[str, ...]) -> Any:
    """Return the first column that bears one of these names, in their order; None if none does."""
    lower = [plain(column) for column in columns]
    return next((columns[lower.index(name)] for name in names if name in lower), None)


def known_column(columns: list[Any], column: Any, name: str) -> Any:
    """Return `column` if the frame has it once; ValueError with the nearest if not."""
    count = columns.count(column)
    if count == 1:
        return column
    if count:
        raise ValueError(f"{name} has {count} columns {column!r}. Rename or drop one.")
    near = difflib.get_close_matches(str(column), map(str, columns), n=1)
    guess = f"Did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"{name} has no column {column!r}. {guess}It has {columns}.")


def _suffix(path: Any) -> str:
    name = os.fspath(path)
    parts = Path(name if isinstance(name, str) else os.fsdecode(name)).suffixes
    if parts and parts[-1].lower() in _COMPRESSED:
        parts = parts[:-1]
    return parts[-1].lower() if parts else ""
