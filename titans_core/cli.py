"""What the command lines share: the shape of an app, errors in one line, tables of facts.

Standard output holds results and nothing else; all that goes with them is on standard error.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from titans_core.files import GZIP, open_packed

__all__ = [
    "STDOUT",
    "about",
    "check_output_name",
    "make_app",
    "print_facts",
    "separator_of",
    "show_version",
    "user_errors",
    "write_texts",
]

STDOUT = Path("-")

_JSON = (".json", ".jsonl", ".ndjson")
_TABLES = (".csv", ".tsv")
# Neither, and not written by any command unless it says so.
_OTHERS = (".arrow", ".bz2", ".feather", ".parquet", ".xlsx", ".xz", ".zip", ".zst")


def make_app(summary: str) -> typer.Typer:
    """Make an app for commands; `summary` is what its help begins with."""
    return typer.Typer(
        help=summary,
        no_args_is_help=True,
        rich_markup_mode=None,  # plain help shows every name in full at 80 columns
        add_completion=False,
        pretty_exceptions_enable=False,  # an error that is ours to mend shows Python's traceback
    )


@contextmanager
def user_errors(program: str) -> Iterator[None]:
    """End with one readable line and exit code 1 where the user, not the program, is at fault.

    Warnings for users become a line of standard error, too.
    """
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any) -> None:
            if category is UserWarning:
                typer.echo(f"{program}: warning: {_in_one_line(message)}", err=True)
            else:
                others(message, category, *where)

        warnings.showwarning = show  # type: ignore[assignment]
        try:
            yield
        except BrokenPipeError:  # as in `| head`: typer ends quietly
            raise
        except (FloatingPointError, OSError, TypeError, ValueError) as error:  # first: diverged
            typer.echo(f"{program}: error: {_in_one_line(error)}", err=True)
            raise typer.Exit(1) from error


@contextmanager
def about(source: object) -> Iterator[None]:
    """Say which file or data set an error is about, unless it does so itself."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if str(source) in str(error):
            raise
        raise ValueError(f"{source}: {error}") from error


def show_version(program: str) -> Callable[[bool], None]:
    """Return what ``--version`` calls."""

    def show(wanted: bool) -> None:
        if wanted:
            from importlib.metadata import PackageNotFoundError, version

            try:
                number = version("titans-stream")
            except PackageNotFoundError:  # a checkout that is not installed
                from titans_core import __version__ as number
            typer.echo(f"{program} {number}")
            raise typer.Exit

    return show


def check_output_name(output: Path, as_json: bool, others: tuple[str, ...] = ()) -> None:
    """Refuse ``--output`` whose name promises another format than what is written.

    Parameters
    ----------
    output : Path
    as_json : bool
        Whether JSON is written, else CSV, or TSV by its name; either may be compressed.
    others : tuple of str
        Suffixes of what the command writes besides.
    """
    suffix = _suffix(output)
    written = "JSON" if as_json else "CSV"
    cure = None
    if suffix in (_TABLES + others if as_json else _JSON):
        cure = "leave out --json, or name it .json" if as_json else "add --json, or name it .csv"
    elif suffix in _OTHERS and suffix not in others:
        cure = f"name it {'.json' if as_json else ' or '.join(('.csv', '.tsv', *others))}"
    if cure is not None:
        message = f"'{output}' would hold {written}; {cure}"
        raise typer.BadParameter(message, param_hint="--output")


def separator_of(output: Path) -> str:
    """What stands between the columns of a table of this name: a tab in TSV, else a comma."""
    return "\t" if _suffix(output) == ".tsv" else ","


def _suffix(output: Path) -> str:
    name = Path(output.name.lower())
    return (name.with_suffix("") if name.suffix in GZIP else name).suffix


def write_texts(output: Path, texts: Iterable[str]) -> None:
    """Write texts one by one as they come: to standard output, or to a file that appears whole.

    The file is compressed if its name ends in ``.gz``.
    """
    if output == STDOUT:
        for text in texts:
            typer.echo(text, nl=False)
        return
    with open_packed(output) as file:
        for text in texts:
            file.write(text.encode())


def print_facts(facts: dict[str, Any], *, to_stderr: bool = False) -> None:
    """Print names and values as a table; a dict is a line for each entry."""
    from rich.console import Console
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        if isinstance(value, dict):
            value = "\n".join(
                f"{key.replace('_', ' ')}: {_listed(entry)}" for key, entry in value.items()
            )
        table.add_row(name.replace("_", " "), "none" if value is None else _listed(value))
    # Names come from the user's file: they are text, not markup.
    Console(stderr=to_stderr, markup=False, emoji=False, highlight=False).print(table)


def _listed(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def _in_one_line(message: object) -> str:
    return " ".join(str(message).split())
