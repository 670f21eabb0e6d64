"""Between files and the forecaster: rows as the model takes them in, wide or long.

polars and pandas are imported only when rows are read: importing this module is cheap.
"""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

    from titans_ts.frames import Layout

__all__ = [
    "FILES",
    "Columns",
    "choose_columns",
    "match_layout",
    "read_data",
    "read_file",
]

FILES = (".csv", ".csv.gz", ".parquet")
ID_COLUMN = "unique_id"
_MISSING = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None"]


def read_data(data: str) -> pl.DataFrame:
    """Read a file or a registered data set; the spelling decides, not what lies around.

    Parameters
    ----------
    data : str
        A path that ends as one of `FILES` does, or a name that `load_dataset` knows.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is neither, or the file holds no table with rows.
    """
    from titans_ts.datasets import load_dataset

    if data.lower().endswith(FILES):
        return read_file(Path(data))
    if os.sep in data or Path(data).suffix:
        raise ValueError(f"'{data}' is no data set, and as a file must end in {', '.join(FILES)}")
    return load_dataset(data, engine="polars")


def read_file(path: Path) -> pl.DataFrame:
    """Read a table with at least one row: parquet by its suffix, else text with commas.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it holds no table, or no rows.
    """
    import polars as pl

    if not path.is_file():
        raise FileNotFoundError(f"there is no file '{path}'; check the path")
    try:
        if path.suffix.lower() == ".parquet":
            rows = pl.read_parquet(path)
        else:
            rows = pl.read_csv(path, try_parse_dates=True, infer_schema_length=None)
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"cannot read '{path}': {error}") from error
    if rows.is_empty():
        raise ValueError(f"'{path}' has no rows")
    return rows


@dataclass(frozen=True)
class Columns:
    """Which columns of a file are what, as `TitansForecaster` takes them.

    ``id_column`` is None for a wide table, whose ``target_columns`` are all that is left.
    """

    time_column: str | None
    id_column: str | None
    target_columns: tuple[str, ...] | None

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameters of the forecaster, those that differ from the defaults."""
        return {name: value for name, value in vars(self).items() if value is not None}


def choose_columns(
    rows: pl.DataFrame,
    time_column: str | None = None,
    columns: str | None = None,
    id_column: str | None = None,
) -> tuple[pl.DataFrame, Columns]:
    """Keep ids, times and the channels, which must be numbers; some may be missing.

    Parameters
    ----------
    rows : polars DataFrame
        As `read_data` returns them.
    time_column : str or None
        The times; None takes "ds" of a long table, else the only dates, if there are any.
    columns : str or None
        The channels as a line of CSV, ``"a,b"``; None takes "y" of a long table, else its columns
        of numbers; of a wide one all other columns.
    id_column : str or None
        What tells series apart; None takes "unique_id", if it is there. Else the table is wide.

    Returns
    -------
    polars DataFrame, Columns
        Ids and times, if there are any, then the channels.

    Raises
    ------
    ValueError
        If a column is not there or not what it should be; the message names the option to use.
    """
    if id_column is None and ID_COLUMN in rows.columns:
        id_column = ID_COLUMN
    stamps = [name for name in _stamps(rows) if name != id_column]
    if time_column is None and id_column is not None and "ds" in rows.columns:
        time_column = "ds"
    if time_column is None and len(stamps) > 1:
        raise ValueError(f"several columns hold times, {stamps}; name one with --time-column")
    time_column = stamps[0] if time_column is None and stamps else time_column
    if id_column is not None and time_column is None:
        raise ValueError(
            f"a long table, with several series told apart by {id_column!r}, needs times; name "
            f"their column with --time-column, one of {rows.columns}"
        )
    own = [name for name in (id_column, time_column) if name is not None]
    others = [name for name in rows.columns if name not in own]
    if columns is not None:
        channels = next(csv.reader([columns], skipinitialspace=True))
    elif id_column is None:
        channels = others
    else:
        channels = ["y"] if "y" in others else _numeric(_as_numbers(rows, others), others)
    kept = [*own, *channels]
    if twice := [name for name in channels if kept.count(name) > 1]:
        why = {time_column: "holds the times", id_column: "holds the ids"}
        raise ValueError(
            f"column {twice[0]!r} {why.get(twice[0], 'is named more than once')}; name each "
            "channel once in --columns"
        )
    if unknown := [name for name in kept if name not in rows.columns]:
        raise ValueError(f"there is no column {unknown[0]!r}; name some of {rows.columns}")
    if time_column is not None and str(rows.schema[time_column]) == "String":
        raise ValueError(
            f"the times in {time_column!r} cannot be read, such as {rows[time_column][0]!r}; "
            "write them as 2024-12-31 or 2024-12-31 23:00:00"
        )
    rows = _as_numbers(rows, others)
    if bad := [name for name in channels if name not in _numeric(rows, channels)]:
        numbers = ",".join(_numeric(rows, others))
        raise ValueError(
            f"{', '.join(map(repr, bad))} does not hold numbers; choose the channels, as in "
            f"--columns {numbers or 'a,b'}"
        )
    if not channels:
        raise ValueError("no column holds numbers to forecast; name some with --columns")
    targets = None if id_column is None else tuple(channels)
    return rows.select(kept), Columns(time_column, id_column, targets)


def match_layout(rows: pl.DataFrame, layout: Layout) -> Any:
    """Turn rows of a file into what the model was fitted on: its columns, time zone and kind.

    Parameters
    ----------
    rows : polars DataFrame
        As `read_file` returns them.
    layout : Layout
        That of the fitted series.

    Returns
    -------
    polars or pandas DataFrame, pyarrow Table or ndarray
        For `update`, which checks them. An axis that no file has is left to it to refuse.
    """
    import polars as pl

    stamps = [str(layout.time_name)] if layout.time_name in rows.columns else _stamps(rows)
    zoned = [name for name in stamps if getattr(rows.schema[name], "time_zone", None)]
    if layout.timezone is not None:  # a text file gives offsets, which polars reads as UTC
        rows = rows.with_columns(pl.col(zoned).dt.convert_time_zone(layout.timezone))
    channels = [name for name in rows.columns if name in layout.columns]
    rows = _as_numbers(rows, channels)
    if layout.long:
        return _match_long(rows, layout, channels)
    if layout.kind == "polars":
        return rows.select(channels if layout.time is None else [str(layout.time_name), *channels])
    if layout.kind == "numpy":
        return rows.drop(stamps).to_numpy()
    if layout.kind == "pandas" and layout.time == "datetime" and stamps:
        import pandas as pd

        index = pd.DatetimeIndex(rows[stamps[0]].to_list())
        return pd.DataFrame(rows.select(channels).to_numpy(), index, channels)
    return rows


def _match_long(rows: pl.DataFrame, layout: Layout, channels: list[str]) -> Any:
    import polars as pl

    own = [str(layout.id_name), str(layout.time_name)]
    if unknown := [name for name in own if name not in rows.columns]:
        raise ValueError(f"there is no column {unknown[0]!r}; it has {rows.columns}")
    if not str(layout.id_dtype).lower().startswith(("int", "uint")):
        rows = rows.with_columns(pl.col(own[0]).cast(pl.String))  # 17 is a name there
    rows = rows.select([*own, *channels])
    if layout.kind == "pyarrow":
        return rows.to_arrow()
    if layout.kind == "polars":
        return rows
    import pandas as pd

    frame = pd.DataFrame({name: rows[name].to_list() for name in rows.columns})
    dates = {own[1]: pd.to_datetime(frame[own[1]])} if rows.schema[own[1]].is_temporal() else {}
    return frame.assign(**dates)


def _as_numbers(rows: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    """Columns that are text only because missing values are spelled out, as numbers."""
    import polars as pl

    for name in names:
        if rows.schema[name] == pl.String:
            words = rows[name].str.strip_chars()
            numbers = words.set(words.is_in(_MISSING), None).cast(pl.Float64, strict=False)
            if numbers.null_count() == (words.is_in(_MISSING) | words.is_null()).sum():
                rows = rows.with_columns(numbers.alias(name))
        elif rows.schema[name] == pl.Null:
            rows = rows.with_columns(pl.col(name).cast(pl.Float64))
    return rows


def _numeric(rows: pl.DataFrame, names: list[str]) -> list[str]:
    return [name for name in names if rows.schema[name].is_numeric()]


def _stamps(rows: pl.DataFrame) -> list[str]:
    import polars as pl

    return [name for name, dtype in rows.schema.items() if dtype in (pl.Date, pl.Datetime)]
