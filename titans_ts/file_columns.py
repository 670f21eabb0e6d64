"""Which column of a file is what: ids, times, channels and covariates, by option or by itself."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from titans_ts.file_times import (
    TIME_NAMES,
    check_once,
    check_read,
    columns_of_times,
    unread_times,
    with_dates,
)

if TYPE_CHECKING:
    import polars as pl

__all__ = ["ID_COLUMN", "Columns", "as_numbers", "choose_columns"]

ID_COLUMN = "unique_id"

_MISSING = ["", "?", "-", "na", "n/a", "#n/a", "<na>", "nan", "null", "none"]  # in any case


@dataclass(frozen=True)
class Columns:
    """Which columns of a file are what, as `TitansForecaster` takes them.

    ``id_column`` is None for a wide table, whose ``target_columns`` are all that is left.
    """

    time_column: str | None
    id_column: str | None
    target_columns: tuple[str, ...] | None
    past_covariates: tuple[str, ...] = ()
    future_covariates: tuple[str, ...] = ()
    static_covariates: tuple[str, ...] = ()

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameters of the forecaster, those that differ from the defaults."""
        return {name: value for name, value in vars(self).items() if value not in (None, ())}

    @property
    def covariates(self) -> dict[str, list[str]] | None:
        """Names by role, ``past, future, static``, as JSON takes them; None without any."""
        roles = ("past", "future", "static")
        names = {role: list(getattr(self, f"{role}_covariates")) for role in roles}
        return names if any(names.values()) else None


def choose_columns(
    rows: pl.DataFrame,
    time_column: str | None = None,
    columns: str | None = None,
    id_column: str | None = None,
    covariates: Mapping[str, str | None] | None = None,
) -> tuple[pl.DataFrame, Columns]:
    """Keep ids, times, the channels, which must be numbers, and covariates; some may be missing.

    Parameters
    ----------
    rows : polars DataFrame
        As `read_data` returns them.
    time_column : str or None
        The times; None takes "ds" of a long table, else the only dates, if there are any, else
        text that by its name holds times, which is refused, else whole numbers that rise, in a
        column of a wide table that `TIME_NAMES` has.
    columns : str or None
        The channels as a line of CSV, ``"a,b"``; None takes "y" of a long table, else its columns
        of numbers; of a wide one all other columns. Covariates are none of them.
    id_column : str or None
        What tells series apart; None takes "unique_id", if it is there. Else the table is wide.
    covariates : mapping of str to (str or None), optional
        Lines of CSV by the name of the parameter, such as ``past_covariates``.

    Returns
    -------
    polars DataFrame, Columns
        Ids and times, if there are any, then the channels, then covariates.

    Raises
    ------
    ValueError
        If a column is not there or not what it should be; the message names the option to use.
    """
    beside = {role: _names(text) for role, text in (covariates or {}).items() if text}
    taken = [name for names in beside.values() for name in names]
    if id_column is None and ID_COLUMN in rows.columns:
        id_column = ID_COLUMN
    time_column = _choose_times(rows, time_column, id_column, taken)
    own = [name for name in (id_column, time_column) if name is not None]
    others = [name for name in rows.columns if name not in own]
    free = [name for name in others if name not in taken]
    if columns is not None:
        channels = _names(columns)
    elif id_column is None:
        channels = free
    else:
        channels = ["y"] if "y" in free else _numeric(as_numbers(rows, free), free)
    roles = {"columns": channels, **beside}
    _check_named_once(roles, {time_column: "holds the times", id_column: "holds the ids"})
    _check_there(rows, own, roles)
    if time_column is not None:
        rows = with_dates(rows, [time_column])
    check_read(rows, time_column)
    check_once(rows, time_column, id_column)
    rows = as_numbers(rows, others)
    if bad := [name for name in channels if name not in _numeric(rows, channels)]:
        could_be = None if columns is not None else _numeric(rows, free)
        raise ValueError(_not_numbers(rows, bad, could_be))
    if not channels:
        raise ValueError("no column holds numbers to forecast; name some with --columns")
    targets = None if id_column is None else tuple(channels)
    chosen = Columns(
        time_column, id_column, targets, **{role: tuple(names) for role, names in beside.items()}
    )
    return rows.select([*own, *channels, *taken]), chosen


def as_numbers(rows: pl.DataFrame, names: Iterable[str]) -> pl.DataFrame:
    """Columns that are text only because missing values are spelled out, as numbers."""
    import polars as pl

    for name in names:
        if rows.schema[name] == pl.String:
            words = rows[name].str.strip_chars()
            missing = words.str.to_lowercase().is_in(_MISSING)
            numbers = words.set(missing, None).cast(pl.Float64, strict=False)
            if numbers.null_count() == (missing | words.is_null()).sum():
                rows = rows.with_columns(numbers.alias(name))
        elif rows.schema[name] == pl.Null:
            rows = rows.with_columns(pl.col(name).cast(pl.Float64))
    return rows


def _names(line: str) -> list[str]:
    return next(csv.reader([line], skipinitialspace=True), [])


def _numeric(rows: pl.DataFrame, names: list[str]) -> list[str]:
    return [name for name in names if rows.schema[name].is_numeric()]


def _not_numbers(rows: pl.DataFrame, bad: list[str], others: list[str] | None) -> str:
    """What is wrong with channels that are no numbers: some values, or all of them.

    ``others`` could be channels; None if the user named the channels, who is not to name others.
    """
    import polars as pl

    name = bad[0]
    words = rows[name].cast(pl.String).str.strip_chars()
    wrong = words.cast(pl.Float64, strict=False).is_null() & words.is_not_null()
    wrong &= ~words.str.to_lowercase().is_in(_MISSING)
    row = int(wrong.arg_max() or 0)
    word = words[row]
    choose = f"choose the channels, as in --columns {','.join(others or []) or 'a,b'}"
    commas = words.filter(wrong).str.contains(r"^[-+]?\d[\d.,]*,\d[\d.]*$").sum()
    if 2 * commas > wrong.sum() or 2 * wrong.sum() <= len(rows):
        more = f" and {wrong.sum() - 1} more" if wrong.sum() > 1 else ""
        alike = int((words == word).sum())
        often = f" ({word!r} {alike} times)" if alike > 1 else ""
        cure = (
            f"an empty field is a missing value: leave it empty, as pandas.read_csv(..., "
            f"na_values={word!r}) and to_csv do"
        )
        if 2 * commas > wrong.sum():
            cure = (
                "write 3.5 with a point, and 1234 without marks between thousands; pandas.read_csv "
                "reads others by its decimal and thousands"
            )
        return (
            f"{name!r} does not hold numbers alone but {word!r} in row {row + 1}{more}{often}; "
            f"{cure}{f', or {choose}' if others else ''}"
        )
    if others is None:
        choose = (
            "a channel must hold numbers: leave it out of --columns, or, if it helps to forecast "
            "others, name it as a covariate"
        )
    elif name == rows.columns[0] and rows.schema[name] == pl.String:
        choose += (
            ". If it holds the times, write them as 2024-12-31 or 2024-12-31 23:00:00; if it tells "
            f"series apart, say --id-column {name}"
        )
    return f"{', '.join(map(repr, bad))} does not hold numbers but {word!r}; {choose}"


def _choose_times(
    rows: pl.DataFrame, time_column: str | None, id_column: str | None, taken: list[str]
) -> str | None:
    """The column of times: as named, or the only one that can be it."""
    if time_column is not None:
        return time_column
    if id_column is not None and "ds" in rows.columns:
        return "ds"
    stamps = [name for name in columns_of_times(rows) if name not in (id_column, *taken)]
    if not stamps:
        free = [name for name in rows.columns if name not in (id_column, *taken)]
        if (unread := unread_times(rows, free)) is not None:
            return unread
    if len(stamps) > 1:
        raise ValueError(f"several columns hold times, {stamps}; name one with --time-column")
    if id_column is not None and not stamps:
        raise ValueError(
            f"a long table, with several series told apart by {id_column!r}, needs times; name "
            f"their column with --time-column, one of {rows.columns}"
        )
    if not stamps and id_column is None:
        stamps = [n for n in rows.columns if n.lower() in TIME_NAMES and _rises(rows[n])]
    return stamps[0] if stamps else None


def _rises(column: pl.Series) -> bool:
    """Whether these are whole numbers, each larger than the one before."""
    whole = column.dtype.is_integer() and column.null_count() == 0 and len(column) > 1
    return whole and bool((column.diff(null_behavior="drop") > 0).all())


def _check_named_once(roles: dict[str, list[str]], own: dict[str | None, str]) -> None:
    """Refuse a column that is named twice, or that holds the times or the ids."""
    named: dict[str, str] = {}
    for role, names in roles.items():
        option = _option(role)
        for name in names:
            if name not in named and name not in own:
                named[name] = option
                continue
            what = own.get(name) or "is named more than once"
            cure = f"name each channel once in {option}"
            if role != "columns":
                cure = f"name each covariate once, in {option} or in another option"
            raise ValueError(f"column {name!r} {what}; {cure}")


def _check_there(rows: pl.DataFrame, own: list[str], roles: dict[str, list[str]]) -> None:
    for role, names in {"own": own, **roles}.items():
        if unknown := [name for name in names if name not in rows.columns]:
            where = "" if role in ("own", "columns") else f" for {_option(role)}"
            raise ValueError(
                f"there is no column {unknown[0]!r}{where}; name some of {rows.columns}"
            )


def _option(role: str) -> str:
    return f"--{role.replace('_', '-')}"
