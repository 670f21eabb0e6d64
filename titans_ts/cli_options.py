"""What the commands of `titans-ts` take: each option once, with its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from titans_ts.files import FILES

DATA_HELP = f"A file ({', '.join(FILES)}), or the name of a data set, such as seattle-weather."

Data = Annotated[str, typer.Argument(metavar="DATA", help=DATA_HELP)]
ModelFile = Annotated[Path, typer.Argument(metavar="MODEL", help="File that `fit` wrote.")]
TimeColumn = Annotated[str | None, typer.Option(help="The times, if not ds or the only dates.")]
IdColumn = Annotated[
    str | None, typer.Option(help="Tells the series of a long table apart; else unique_id.")
]
Columns = Annotated[str | None, typer.Option(help="Channels, as in a,b; else y or all.")]
PastCovariates = Annotated[str | None, typer.Option(help="Columns known up to now, as in a,b.")]
FutureCovariates = Annotated[str | None, typer.Option(help="Columns known ahead, too.")]
StaticCovariates = Annotated[str | None, typer.Option(help="Columns constant in a series.")]
PredictionLength = Annotated[int, typer.Option(min=1, help="Rows to forecast.")]
ContextLength = Annotated[
    str, typer.Option(metavar="auto|N", help="Rows of look-back, or chosen from the data.")
]
Memory = Annotated[bool, typer.Option(help="Keep a memory of the season.")]
TargetTransform = Annotated[
    Literal["auto", "none", "log"], typer.Option(help="Learn values or their logarithms.")
]
Network = Annotated[bool, typer.Option(help="Train a network.")]
MaxSteps = Annotated[int | None, typer.Option(min=1, help="Training steps, at most.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of weights and batches.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON.")]


def rows_of(context_length: str) -> int | Literal["auto"]:
    """``--context-length`` as the forecaster takes it."""
    if context_length == "auto":
        return "auto"
    if context_length.isdecimal() and int(context_length) >= 2:
        return int(context_length)
    message = f"{context_length!r} is not auto or a number of rows, 2 or more"
    raise typer.BadParameter(message, param_hint="--context-length")
