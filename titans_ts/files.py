"""Between files and the forecaster: rows as the model takes them in, wide or long.

polars and pandas are imported only when rows are read: importing this module is cheap.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from titans_ts.file_columns import ID_COLUMN, as_numbers
from titans_ts.file_times import (
    check_once,
    check_read,
    columns_of_times,
    join_dates_and_times,
    says_time,
    with_dates,
)

if TYPE_CHECKING:
    import polars as pl

    from titans_ts.frames import Layout

__all__ = [
    "FILES",
    "match_layout",
    "read_ahead",
    "read_data",
    "read_file",
]

FILES = (".csv", ".csv.gz", ".parquet")


def read_data(data: str, id_column: str | None = None) -> pl.DataFrame:
    """Read a file or a registered data set; the spelling decides, not what lies around.

    Parameters
    ----------
    data : str
        A path that ends as one of `FILES` does, or a name that `load_dataset` knows.
    id_column : str, optional
        What tells series apart; None takes "unique_id", if it is there.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is neither, or the file holds no table with rows.
    """
    from titans_ts.datasets import load_dataset

    if data.lower().endswith(FILES):
        return read_file(Path(data), id_column)
    if os.sep in data or Path(data).suffix:
        raise ValueError(f"'{data}' is no data set, and as a file must end in {', '.join(FILES)}")
    return load_dataset(data, engine="polars")


def read_file(path: Path, id_column: object = None) -> pl.DataFrame:
    """Read a table with at least one row: parquet by its suffix, else text with commas.

    In text, ids are taken as they are written, ``01`` is not ``1``; they are numbers only if all
    are whole ones without anything before them. Dates may be written as 2024-12-31, 31/12/2024 or
    31.12.2024 and, in a column whose name says so, as 20241231, 2024-12 or 2024Q4, which are the
    first days of a month and of a quarter. Times of day in a column "time" are joined to the only
    dates.

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
    ids = ID_COLUMN if id_column is None else str(id_column)
    try:
        parquet = path.suffix.lower() == ".parquet"
        rows = pl.read_parquet(path) if parquet else _read_text(path, ids)
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"cannot read '{path}': {error}") from error
    if rows.is_empty():
        raise ValueError(f"'{path}' has no rows")
    if not columns_of_times(rows):
        first = [name for name in rows.columns[:1] if name != ids and rows[name].dtype == pl.String]
        rows = with_dates(rows, [name for name in rows.columns if says_time(name)] or first)
    return join_dates_and_times(rows)


def _read_text(path: Path, ids: str) -> pl.DataFrame:
    import polars as pl

    names = pl.read_csv(path, n_rows=0).columns
    if len(names) == 1 and (other := [mark for mark in ";\t|" if mark in names[0]]):
        raise ValueError(
            f"'{path}' has its columns apart by {other[0]!r}; write it with commas, "
            "and numbers with points"
        )
    text = {ids: pl.String} if ids in names else None
    rows = pl.read_csv(path, try_parse_dates=True, infer_schema_length=None, schema_overrides=text)
    if text is None:
        return rows
    whole = rows[ids].cast(pl.Int64, strict=False)
    plain = whole.cast(pl.String).eq_missing(rows[ids]).all()
    return rows.with_columns(whole) if plain else rows


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
    rows, times = _match_times(rows, layout)
    if times and (not layout.long or layout.id_name in rows.columns):
        check_once(rows, times[0], layout.id_name)
    channels = [name for name in rows.columns if name in layout.columns]
    rows, covariates = _match_covariates(
        as_numbers(rows, channels), layout.roles.covariates, layout
    )
    values = channels + covariates
    if layout.long:
        return _match_long(rows, layout, values)
    if layout.kind == "polars":
        return rows.select(values if layout.time is None else [*times, *values])
    if layout.kind == "numpy":
        return rows.drop(times).to_numpy()
    if layout.kind == "pandas" and layout.time == "datetime" and times:
        import pandas as pd

        index = pd.DatetimeIndex(rows[times[0]].to_list())
        text = [name for name in values if not rows.schema[name].is_numeric()]
        columns = {name: rows[name].to_numpy() for name in values if name not in text}
        return pd.DataFrame(columns | {name: rows[name].to_list() for name in text}, index)
    return rows


def read_ahead(path: Path | None, layout: Layout) -> Any:
    """Read what is known ahead, as ``future`` of the forecasts of a model takes it.

    Parameters
    ----------
    path : Path or None
        What ``--future`` names.
    layout : Layout
        That of the fitted series.

    Returns
    -------
    polars DataFrame, ndarray or None
        Ids and times, if there are any, and the future covariates; None for a model without.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a model with future covariates gets none, or one without gets some.
    """
    names = layout.roles.future_covariates
    if path is None:
        if names:
            raise ValueError(
                f"the model was fitted with the future covariates {', '.join(map(str, names))}; "
                "give a file that holds them for the rows to forecast, with --future"
            )
        return None
    if not names:
        raise ValueError(
            f"'{path}' is of no use: the model was fitted without future covariates; leave out "
            "--future, or name its columns with --future-covariates of fit"
        )
    rows, times = _match_times(read_file(path, layout.id_name), layout)
    if layout.kind in ("numpy", "arrays"):
        return rows.drop(times).to_numpy()
    rows, covariates = _match_covariates(rows, names, layout)
    if layout.long:
        return _with_ids(rows, layout, covariates)
    return rows.select([*([] if layout.time is None else times), *covariates])


def _match_times(rows: pl.DataFrame, layout: Layout) -> tuple[pl.DataFrame, list[str]]:
    """The rows with times in the zone of the model, and the columns that hold times."""
    import polars as pl

    known = layout.time_name in rows.columns
    times = [str(layout.time_name)] if known else columns_of_times(rows)
    if layout.axis != "counts":
        rows = with_dates(rows, times)
    for name in times:
        check_read(rows, name)
    zoned = [name for name in times if getattr(rows.schema[name], "time_zone", None)]
    if layout.timezone is not None:  # a text file gives offsets, which polars reads as UTC
        rows = rows.with_columns(pl.col(zoned).dt.convert_time_zone(layout.timezone))
    return rows, times


def _match_covariates(
    rows: pl.DataFrame, wanted: tuple[str | int, ...], layout: Layout
) -> tuple[pl.DataFrame, list[str]]:
    """The rows with covariates of the type that was learned, and which of those are there."""
    import polars as pl

    there = [name for name in rows.columns if name in wanted]
    text = [name for name in there if name in dict(layout.categories)]
    rows = as_numbers(rows, [name for name in there if name not in text])
    return rows.with_columns(pl.col(text).cast(pl.String)), there  # 17 is a category there


def _with_ids(rows: pl.DataFrame, layout: Layout, values: list[str]) -> pl.DataFrame:
    """Ids, of the type that was learned, times and values."""
    import polars as pl

    own = [str(layout.id_name), str(layout.time_name)]
    if unknown := [name for name in own if name not in rows.columns]:
        raise ValueError(f"there is no column {unknown[0]!r}; it has {rows.columns}")
    if not str(layout.id_dtype).lower().startswith(("int", "uint")):
        rows = rows.with_columns(pl.col(own[0]).cast(pl.String))  # 17 is a name there
    return rows.select([*own, *values])


def _match_long(rows: pl.DataFrame, layout: Layout, values: list[str]) -> Any:
    rows = _with_ids(rows, layout, values)
    if layout.kind == "pyarrow":
        return rows.to_arrow()
    if layout.kind == "polars":
        return rows
    import pandas as pd

    frame = pd.DataFrame({name: rows[name].to_list() for name in rows.columns})
    time = str(layout.time_name)
    dates = {time: pd.to_datetime(frame[time])} if rows.schema[time].is_temporal() else {}
    return frame.assign(**dates)
