"""What the commands of `titans-ts` take: each option once, with its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from titans_ts.files import FILES

DATA_HELP = f"A file ({', '.join(FILES)}), or the name of a data set, such as seattle-weather."

Data = Annotated[str, typer.Argument(metavar="DATA", help=DATA_HELP)]
ModelFile = Annotated[Path, typer.Argument(metavar="MODEL", help="File that `fit` wrote.")]
TimeColumn = Annotated[str | None, typer.Option(help="The times, if not the only dates.")]
Columns = Annotated[str | None, typer.Option(help="Channels, as in a,b; else all.")]
PredictionLength = Annotated[int, typer.Option(min=1, help="Rows to forecast.")]
ContextLength = Annotated[int, typer.Option(min=2, help="Rows of look-back.")]
Network = Annotated[bool, typer.Option(help="Train a network, or linear only.")]
MaxSteps = Annotated[int | None, typer.Option(min=1, help="Training steps, at most.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of weights and batches.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON.")]
