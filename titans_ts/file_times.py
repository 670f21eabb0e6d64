"""Times in files: which columns hold them, spellings that polars does not read, what is amiss."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

__all__ = [
    "TIME_NAMES",
    "check_once",
    "check_read",
    "columns_of_times",
    "join_dates_and_times",
    "says_time",
    "unread_times",
    "with_dates",
]

TIME_NAMES = ("date", "datetime", "ds", "time", "timestamp", "year")
"""Columns of rising whole numbers that are called so, in any case, are times."""

_TIME_WORDS = {*TIME_NAMES, "day", "month", "quarter", "stamp", "utc"}
_LIKE_DATES = r"^\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}\b"
_CLOCK_NAMES = ("time", "hour")
_HOUR_WORDS = {"time", "hour", "hours", "hr"}


def columns_of_times(rows: pl.DataFrame) -> list[str]:
    """Names of the columns that hold dates or time stamps."""
    import polars as pl

    return [name for name, dtype in rows.schema.items() if dtype in (pl.Date, pl.Datetime)]


def says_time(name: str) -> bool:
    """Whether a column is called after times and nothing else, as in "Date/Time"."""
    return set(_words(name)) <= _TIME_WORDS and bool(_words(name))


def with_dates(rows: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    """Columns whose values all are dates such as 20241231, months or quarters, as dates.

    Months are 2024-12, quarters 2024Q4 or 2024-Q4; they become their first days.
    """
    import polars as pl

    for name in names:
        column = rows[name]
        if column.dtype.is_integer() and column.is_between(1000_00_00, 3000_00_00).all():
            dates = column.cast(pl.String).str.to_date("%Y%m%d", strict=False)
        elif column.dtype == pl.String:
            dates = _period_starts(column)
        else:
            continue
        if dates.null_count() == column.null_count() < len(column):
            rows = rows.with_columns(dates.alias(name))
    return rows


def join_dates_and_times(rows: pl.DataFrame) -> pl.DataFrame:
    """The only dates and the times of day in a column called "time" or "hour", as one column."""
    import polars as pl

    dates = columns_of_times(rows)
    clocks = [name for name, dtype in rows.schema.items() if dtype == pl.Time]
    clocks = [name for name in clocks if name.lower() in _CLOCK_NAMES]
    if len(dates) != 1 or len(clocks) != 1 or rows.schema[dates[0]] != pl.Date:
        return rows
    return rows.with_columns(pl.col(dates[0]).dt.combine(pl.col(clocks[0]))).drop(clocks)


def unread_times(rows: pl.DataFrame, names: list[str]) -> str | None:
    """The first of these columns that by its name, or by most values, holds times as text."""
    import polars as pl

    for name in names:
        if rows.schema[name] in (pl.String, pl.Time):
            words = rows[name].drop_nulls().cast(pl.String).str.strip_chars()
            like = words.str.contains(r"\d" if says_time(name) else _LIKE_DATES)
            if 2 * like.sum() > len(words):
                return name
    return None


def check_read(rows: pl.DataFrame, time: str | None) -> None:
    """Refuse times that are still text; the message shows one and how to write it."""
    import polars as pl

    if time is None or rows.schema[time] not in (pl.String, pl.Time):
        return
    words = rows[time].cast(pl.String).str.strip_chars()
    months_first = words.str.to_date("%m/%d/%Y", strict=False)
    days_first = words.str.to_date("%d/%m/%Y", strict=False)
    hint = ""
    if months_first.null_count() == words.null_count():
        bad = days_first.is_null() & words.is_not_null()
        hint = "; in dates with slashes the day comes first, unless the year does"
    else:  # what is not written as the others are
        shapes = words.str.replace_all(r"\d", "0")
        bad = (shapes != shapes.mode()[0]).fill_null(value=False)
        bad &= 2 * bad.sum() < len(words)
    row = int(bad.arg_max() or 0) if bad.any() else int(words.is_not_null().arg_max() or 0)
    raise ValueError(
        f"the times in {time!r} cannot be read, such as {words[row]!r} in row {row + 1}; write "
        "them as 2024-12-31, 2024-12-31 23:00:00, 2024-12 for a month or 2024Q4 for a quarter"
        f"{hint}"
    )


def check_once(rows: pl.DataFrame, time: str | None, ids: str | None) -> None:
    """Refuse times that come twice in a series; the message says how the file is to be mended."""
    if time is None:
        return
    own = [time] if ids is None else [ids, time]
    twice = rows.select(own).is_duplicated() & rows[time].is_not_null()
    if not twice.any():
        return
    first = int(twice.arg_max() or 0)
    same = twice & (rows[time] == rows[time][first])
    if ids is not None:
        same &= rows[ids].eq_missing(rows[ids][first])
    second = int(same.arg_true()[1])
    whose = "" if ids is None else f" of series {rows[ids][first]!r}"
    raise ValueError(
        f"the times in {time!r} are duplicated: {rows[time][first]} is in row {first + 1} and in "
        f"row {second + 1}{whose}; {_cure(rows, time, ids, twice)}"
    )


def _cure(rows: pl.DataFrame, time: str, ids: str | None, twice: pl.Series) -> str:
    """What to do about times that come twice."""
    import polars as pl

    own = [time] if ids is None else [ids, time]
    for name in [name for name in rows.columns if name not in own]:
        if _tells_time_of_day(rows[name]) and not rows.select(*own, name).is_duplicated().any():
            return (
                f"column {name!r} tells the time of day: join the two into one column of time "
                "stamps, such as 2024-12-31 23:00:00"
            )
    dtype = rows.schema[time]
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is None:
        import pandas as pd

        from titans_ts.time_hints import PUT_BACK, put_back

        stamps = rows[time].filter(twice).cast(pl.Datetime("us")).unique().to_numpy()
        if put_back(pd.DatetimeIndex(stamps)):
            return PUT_BACK
    apart = "" if ids else ", or, if a column tells several series apart, name it with --id-column"
    return f"keep one row of each{apart}"


def _tells_time_of_day(column: pl.Series) -> bool:
    import polars as pl

    if column.dtype == pl.String:
        words = column.drop_nulls().str.strip_chars()
        clock = r"^([01]?\d|2[0-4])[:.h][0-5]\d([:.][0-5]\d)?( ?[AaPp][Mm])?$"
        return len(words) > 0 and bool(words.str.contains(clock).all())
    if column.dtype.is_integer():
        named = bool(_HOUR_WORDS & set(_words(column.name)))
        return named and bool(column.is_between(0, 24).all())
    return column.dtype == pl.Time


def _period_starts(column: pl.Series) -> pl.Series:
    """First days of months or quarters; null for all else."""
    import polars as pl

    words = column.str.strip_chars()
    if words.str.contains(r"^\d{4}-\d{2}$").all():
        return words.str.to_date("%Y-%m", strict=False)
    quarter = words.str.extract(r"^\d{4}-?[Qq]([1-4])$").cast(pl.Int64)
    month = (3 * quarter - 2).cast(pl.String)
    return (words.str.slice(0, 4) + "-" + month + "-1").str.to_date("%Y-%m-%d", strict=False)


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z]+", name.lower())
