"""``titans-ts fit | forecast | backtest | info``: the forecaster from a shell, file in, file out.

Standard output holds results and nothing else; progress, tables and errors go to standard error.
A file that is written appears whole or not at all. Only typer is imported at the start: torch and
polars wait until a command needs them.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from titans_core.cli import (
    STDOUT,
    about,
    check_output_name,
    make_app,
    print_facts,
    separator_of,
    show_version,
    user_errors,
    write_texts,
)
from titans_core.files import check_apart, check_target, open_atomically
from titans_ts.cli_backtest import backtest
from titans_ts.cli_options import (
    AsJson,
    Columns,
    ContextLength,
    Data,
    FutureCovariates,
    IdColumn,
    MaxSteps,
    Memory,
    ModelFile,
    Network,
    PastCovariates,
    PredictionLength,
    Quiet,
    Seed,
    StaticCovariates,
    TargetTransform,
    TimeColumn,
    rows_of,
)
from titans_ts.file_columns import choose_columns
from titans_ts.file_forecasts import forecast_facts, forecast_table
from titans_ts.files import FILES, match_layout, read_ahead, read_data, read_file

if TYPE_CHECKING:
    from titans_ts.forecaster import TitansForecaster

app = make_app("Forecast multivariate time series, and go on learning from new rows.")


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=show_version("titans-ts"), is_eager=True, help="Show the version."
        ),
    ] = False,
) -> None:
    """Forecast multivariate time series, and go on learning from new rows."""


@app.command()
@user_errors("titans-ts")
def fit(
    data: Data,
    output: Annotated[Path, typer.Option("--output", "-o", help="Model file to write.")],
    time_column: TimeColumn = None,
    id_column: IdColumn = None,
    columns: Columns = None,
    past_covariates: PastCovariates = None,
    future_covariates: FutureCovariates = None,
    static_covariates: StaticCovariates = None,
    prediction_length: PredictionLength = 24,
    context_length: ContextLength = "auto",
    validation_size: Annotated[float, typer.Option(help="Last part, a share or rows.")] = 0.2,
    target_transform: TargetTransform = "auto",
    memory: Memory = True,
    network: Network = True,
    max_steps: MaxSteps = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Learn from a table, wide or long; write a model."""
    look_back = rows_of(context_length)
    if max_steps is not None and not network:
        raise typer.BadParameter("goes with a network only", param_hint="--max-steps")
    if data.lower().endswith(FILES):
        check_apart(output, {"the data": Path(data)})
    check_target(output)  # now, not after minutes of training
    from titans_ts.forecaster import TitansForecaster
    from titans_ts.settings import DEFAULT_TRAINING

    begun = time.perf_counter()
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
        forecaster = TitansForecaster(
            prediction_length=prediction_length,
            context_length=look_back,
            validation_size=int(validation_size)
            if validation_size.is_integer()
            else validation_size,
            target_transform=target_transform,
            use_memory=memory,
            use_network=network,
            training=None if max_steps is None else replace(DEFAULT_TRAINING, max_steps=max_steps),
            random_state=seed,
            progress=not quiet,
            **chosen.parameters,
        ).fit(rows)
    forecaster.save(output)
    if not quiet:
        facts = _facts(forecaster) | {"seconds": round(time.perf_counter() - begun, 1)}
        del facts["parameters"], facts["version"]  # which the user just gave, and has
        print_facts(facts, to_stderr=True)


@app.command()
@user_errors("titans-ts")
def forecast(
    model: ModelFile,
    new: Annotated[Path | None, typer.Option(help="Learn these rows first.")] = None,
    future: Annotated[
        Path | None, typer.Option(help="Future covariates of the rows to forecast.")
    ] = None,
    prediction_length: Annotated[
        int | None, typer.Option(min=1, help="As fitted; a longer one rolls on.")
    ] = None,
    levels: Annotated[str, typer.Option(help="Quantiles beside the forecast.")] = "0.1,0.9",
    output: Annotated[Path, typer.Option("--output", "-o", help="File; - is stdout.")] = STDOUT,
    as_json: AsJson = False,
    save: Annotated[Path | None, typer.Option(help="Write the model as it then is.")] = None,
) -> None:
    """Forecast the rows that follow, with quantiles."""
    try:
        wanted = sorted({float(level) for level in levels.split(",")})
    except ValueError:
        message = f"{levels!r} is not a list of numbers such as 0.1,0.9"
        raise typer.BadParameter(message, param_hint="--levels") from None
    check_output_name(output, as_json, others=(".parquet",))
    read = {"the new rows": new, "the future covariates": future}
    if output != STDOUT:
        check_apart(output, {"the model": model, **read, "the file of --save": save})
    if save is not None:
        check_apart(save, read)
    for target in {output, save or output} - {STDOUT}:
        check_target(target)
    from titans_ts.forecaster import TitansForecaster

    forecaster = TitansForecaster.load(model)
    ahead = read_ahead(future, forecaster._layout)
    if new is not None:
        rows = read_file(new, forecaster._layout.id_name)
        with about(new):
            forecaster.update(match_layout(rows, forecaster._layout))
    result = forecast_facts(forecaster, prediction_length, wanted, ahead)
    if as_json:
        write_texts(output, [json.dumps(result) + "\n"])
    elif output.suffix.lower() == ".parquet":
        with open_atomically(output) as file:
            forecast_table(result).write_parquet(file)
    else:
        write_texts(output, [forecast_table(result).write_csv(separator=separator_of(output))])
    if save is not None:  # last: if anything failed before, the same command can be run again
        forecaster.save(save)


app.command()(user_errors("titans-ts")(backtest))


@app.command()
@user_errors("titans-ts")
def info(model: ModelFile, as_json: AsJson = False) -> None:
    """Show what a model learned, and where it stands."""
    from titans_ts.forecaster import TitansForecaster

    facts = _facts(TitansForecaster.load(model))
    typer.echo(json.dumps(facts, indent=2)) if as_json else print_facts(facts)


def _facts(forecaster: TitansForecaster) -> dict[str, Any]:
    """What there is to know about a fitted forecaster, as JSON takes it."""
    from titans_core import __version__
    from titans_ts.describe import fitted_facts

    return {
        **fitted_facts(forecaster),
        "parameters": {
            name: asdict(value) if name in ("backbone", "training") and value else value
            for name, value in forecaster.get_params().items()
        },
        "version": __version__,
    }


if __name__ == "__main__":
    app()
