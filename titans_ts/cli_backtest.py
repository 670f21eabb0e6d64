"""``titans-ts backtest``: how well a forecaster would have forecast a file."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from titans_core.cli import about, write_texts
from titans_core.files import check_apart, check_target, open_atomically
from titans_ts.cli_options import (
    AsJson,
    Columns,
    ContextLength,
    Data,
    FutureCovariates,
    IdColumn,
    MaxSteps,
    Memory,
    Network,
    PastCovariates,
    PredictionLength,
    Seed,
    StaticCovariates,
    TargetTransform,
    TimeColumn,
    rows_of,
)
from titans_ts.file_columns import choose_columns
from titans_ts.files import FILES, read_data

if TYPE_CHECKING:
    from titans_ts.backtest_result import BacktestResult

__all__ = ["backtest"]

_TABLES = (".csv", ".parquet")


def backtest(
    data: Data,
    n_windows: Annotated[int, typer.Option(min=1, help="Cutoffs to forecast from.")] = 5,
    step: Annotated[
        int | None, typer.Option(min=1, help="Rows between cutoffs; else no target comes twice.")
    ] = None,
    refit: Annotated[
        str,
        typer.Option(
            metavar="no|update|K",
            help="Later rows: read by the memories alone, learned, or fitted at every K-th cutoff.",
        ),
    ] = "no",
    columns: Columns = None,
    time_column: TimeColumn = None,
    id_column: IdColumn = None,
    past_covariates: PastCovariates = None,
    future_covariates: FutureCovariates = None,
    static_covariates: StaticCovariates = None,
    prediction_length: PredictionLength = 24,
    context_length: ContextLength = "auto",
    season_length: Annotated[
        int | None, typer.Option(min=1, help="Rows of a season; else it is found.")
    ] = None,
    target_transform: TargetTransform = "auto",
    memory: Memory = True,
    network: Network = True,
    max_steps: MaxSteps = None,
    seed: Seed = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Every forecast, .csv or .parquet.")
    ] = None,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Forecast from past cutoffs, beside ridge and naive; show errors and skill."""
    how, look_back = _refit(refit), rows_of(context_length)
    if max_steps is not None and not network:
        raise typer.BadParameter("goes with a network only", param_hint="--max-steps")
    if output is not None:
        if output.suffix.lower() not in _TABLES:
            message = f"'{output}' must end in {' or '.join(_TABLES)}"
            raise typer.BadParameter(message, param_hint="--output")
        if data.lower().endswith(FILES):
            check_apart(output, {"the data": Path(data)})
        check_target(output)  # now, not after minutes of training
    from titans_ts.forecaster import TitansForecaster
    from titans_ts.settings import DEFAULT_TRAINING

    rows = read_data(data, id_column)
    with about(data):
        rows, chosen = choose_columns(
            rows,
            time_column,
            columns,
            id_column,
            {
                "past_covariates": past_covariates,
                "future_covariates": future_covariates,
                "static_covariates": static_covariates,
            },
        )
        forecaster: Any = TitansForecaster(
            prediction_length=prediction_length,
            context_length=look_back,
            target_transform=target_transform,
            use_memory=memory,
            use_network=network,
            training=None if max_steps is None else replace(DEFAULT_TRAINING, max_steps=max_steps),
            random_state=seed,
            **chosen.parameters,
        )
        result: BacktestResult = forecaster.backtest(
            rows,
            n_windows=n_windows,
            step=step,
            refit=how,
            season_length=season_length,
            progress=not quiet,
        )
    if output is not None:
        _write(result, output)
    facts = facts_of(result) | {"covariates": chosen.covariates}
    typer.echo(json.dumps(facts, indent=2) if as_json else str(result))


def facts_of(result: BacktestResult) -> dict[str, Any]:
    """What a backtest found as plain numbers, for JSON; what is undefined is null."""

    def rows(table: Any) -> list[dict[str, Any]]:
        return [
            {
                name: None if isinstance(value, float) and not math.isfinite(value) else value
                for name, value in row.items()
            }
            for row in table.to_dicts()
        ]

    return {
        "n_windows": result.n_windows,
        "step": result.step,
        "prediction_length": result.prediction_length,
        "refit": result.refit,
        "n_fits": result.n_fits,
        "season_length": result.season_length,
        "channels": [str(name) for name in result.channels],
        "not_scored": [str(name) for name in result.left_out],
        "models": rows(result.summary()),
        "by_channel": rows(result.summary(by_channel=True)),
    }


def _refit(text: str) -> Any:
    """``--refit`` as `backtest` takes it."""
    if text in ("no", "update"):
        return False if text == "no" else text
    if text.isdecimal() and int(text):
        return int(text)
    raise typer.BadParameter(f"{text!r} is not no, update or a number", param_hint="--refit")


def _write(result: BacktestResult, output: Path) -> None:
    if output.suffix.lower() == ".csv":
        write_texts(output, [result.frame.write_csv()])
        return
    with open_atomically(output) as file:
        result.frame.write_parquet(file)
