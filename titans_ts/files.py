"""Between files and the forecaster: rows as the model takes them in, its forecasts as text out.

polars and pandas are imported only when rows are read: importing this module is cheap.
"""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

    from titans_ts.frames import Layout

__all__ = [
    "FILES",
    "choose_columns",
    "forecast_to_csv",
    "match_layout",
    "read_data",
    "read_file",
]

FILES = (".csv", ".csv.gz", ".parquet")


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


def choose_columns(
    rows: pl.DataFrame, time_column: str | None, columns: str | None
) -> tuple[pl.DataFrame, str | None]:
    """Keep the times and the channels, which must be numbers.

    Parameters
    ----------
    rows : polars DataFrame
        As `read_data` returns them.
    time_column : str or None
        The times; None takes the only dates, if there are any.
    columns : str or None
        The channels as a line of CSV, ``"a,b"``; None takes all other columns.

    Returns
    -------
    polars DataFrame, str or None
        The times, if there are any, then the channels; the name of the times.

    Raises
    ------
    ValueError
        If a column is not there or not what it should be; the message names the option to use.
    """
    stamps = _stamps(rows)
    if time_column is None and len(stamps) > 1:
        raise ValueError(f"several columns hold times, {stamps}; name one with --time-column")
    time_column = stamps[0] if time_column is None and stamps else time_column
    others = [name for name in rows.columns if name != time_column]
    channels = others if columns is None else next(csv.reader([columns], skipinitialspace=True))
    kept = channels if time_column is None else [time_column, *channels]
    if twice := [name for name in channels if kept.count(name) > 1]:
        why = "holds the times" if twice[0] == time_column else "is named more than once"
        raise ValueError(f"column {twice[0]!r} {why}; name each channel once in --columns")
    if unknown := [name for name in kept if name not in rows.columns]:
        raise ValueError(f"there is no column {unknown[0]!r}; name some of {rows.columns}")
    if time_column is not None and str(rows.schema[time_column]) == "String":
        raise ValueError(
            f"the times in {time_column!r} cannot be read, such as {rows[time_column][0]!r}; "
            "write them as 2024-12-31 or 2024-12-31 23:00:00"
        )
    if bad := [name for name in channels if not rows.schema[name].is_numeric()]:
        numbers = ",".join(name for name in others if rows.schema[name].is_numeric())
        raise ValueError(
            f"{', '.join(map(repr, bad))} does not hold numbers; choose the channels, as in "
            f"--columns {numbers or 'a,b'}"
        )
    return rows.select(kept), time_column


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
    polars or pandas DataFrame, or ndarray
        For `update`, which checks them. An axis that no file has is left to it to refuse.
    """
    import polars as pl

    stamps = [str(layout.time_name)] if layout.time_name in rows.columns else _stamps(rows)
    zoned = [name for name in stamps if getattr(rows.schema[name], "time_zone", None)]
    if layout.timezone is not None:  # a text file gives offsets, which polars reads as UTC
        rows = rows.with_columns(pl.col(zoned).dt.convert_time_zone(layout.timezone))
    channels = [name for name in rows.columns if name in layout.columns]
    if layout.kind == "polars":
        return rows.select(channels if layout.time is None else [str(layout.time_name), *channels])
    if layout.kind == "numpy":
        return rows.drop(stamps).to_numpy()
    if layout.kind == "pandas" and layout.time == "datetime" and stamps:
        import pandas as pd

        index = pd.DatetimeIndex(rows[stamps[0]].to_list())
        return pd.DataFrame(rows.select(channels).to_numpy(), index, channels)
    return rows


def _stamps(rows: pl.DataFrame) -> list[str]:
    import polars as pl

    return [name for name, dtype in rows.schema.items() if dtype in (pl.Date, pl.Datetime)]


def forecast_to_csv(forecast: dict[str, Any]) -> str:
    """Write a row per time; the forecast of a channel has its name, a quantile ``channel_qlevel``.

    Examples
    --------
    >>> wind = {"point": [3.0], "quantiles": {"0.1": [2.0], "0.9": [5.0]}}
    >>> forecast = {"time_column": "day", "times": ["2024-12-31"], "channels": {"wind": wind}}
    >>> print(forecast_to_csv(forecast), end="")
    day,wind,wind_q0.1,wind_q0.9
    2024-12-31,3.0,2.0,5.0
    """
    times = forecast["times"]
    table = {} if times is None else {forecast["time_column"] or "time": times}
    for name, channel in forecast["channels"].items():
        table[name] = channel["point"]
        table |= {f"{name}_q{level}": values for level, values in channel["quantiles"].items()}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table)
    writer.writerows(zip(*table.values(), strict=True))
    return text.getvalue()
