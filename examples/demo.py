"""Forecast Seattle's weather two weeks ahead: Titans beside its floors, still and streaming.

Run by `make demo`. Prints two tables and writes outputs/demo.png.
"""

import time
from pathlib import Path

from rich.console import Console
from rich.table import Table
from sklearn.metrics import mean_absolute_error, mean_squared_error

from titans_ts import TitansForecaster, dataset_info, load_dataset
from titans_ts.evaluation import actual_windows, naive_forecasts, rolling_forecasts
from titans_ts.metrics import mean_absolute_scaled_error
from titans_ts.plots import plot_forecast

PREDICTION_LENGTH, CONTEXT_LENGTH, SEASON_LENGTH = 14, 120, 365
PICTURE = Path("outputs/demo.png")

console = Console()
weather = load_dataset("seattle-weather")
train_end, validation_end, _ = dataset_info("seattle-weather").split_borders(len(weather))
y = weather.to_numpy()
level, scale = y[:train_end].mean(axis=0), y[:train_end].std(axis=0)  # errors in z-scores


def fit(**options):
    """Fit on 2012-2014, whose last year is for validation; 2015 is the test year."""
    return TitansForecaster(
        PREDICTION_LENGTH,
        CONTEXT_LENGTH,
        patch_length=7,
        validation_size=validation_end - train_end,
        **options,
    ).fit(y[:validation_end])


def show(title, forecasts):
    """Print the errors of each forecaster over every window of the test year."""
    z = {name: (forecast - level) / scale for name, forecast in forecasts.items()}
    console.print(f"\n[bold]{title}[/bold]")
    table = Table("", "MAE", "MSE", "MASE")
    for name, forecast in z.items():
        flat = actual.reshape(-1, y.shape[1]), forecast.reshape(-1, y.shape[1])
        mase = mean_absolute_scaled_error(actual, forecast, training, SEASON_LENGTH).mean()
        errors = mean_absolute_error(*flat), mean_squared_error(*flat), mase
        table.add_row(name, *(f"{error:.3f}" for error in errors))
    console.print(table)


started = time.perf_counter()
console.print(f"Seattle weather, {len(y)} days: {', '.join(weather.columns)}")
console.print("Fitted on 2012-2014 (the last year validates), tested on 2015; errors are z-scored.")
titans, ridge = fit(), fit(use_memory=False, use_network=False)
gate = titans.model_.residual.streaming.gate.mean()
console.print(f"Validation lets in {gate:.0%} of what the network adds to its ridge.")

first, models = validation_end, {"Titans": titans, "ridge": ridge}
actual = (actual_windows(y, first, PREDICTION_LENGTH) - level) / scale
training = (y[:train_end] - level) / scale
floors = {
    "seasonal naive (last year)": naive_forecasts(y, first, PREDICTION_LENGTH, SEASON_LENGTH),
    "naive (last day)": naive_forecasts(y, first, PREDICTION_LENGTH),
}
forecasts = {name: rolling_forecasts(model, y, first, learn=None) for name, model in models.items()}
show(
    f"Each {PREDICTION_LENGTH}-day window from the {CONTEXT_LENGTH} days before it",
    forecasts | floors,
)

start = titans.snapshot()
forecasts = {name: rolling_forecasts(model, y, first, learn=True) for name, model in models.items()}
show("The same while streaming: forecast, reveal the day, update()", forecasts | floors)

titans.restore(start)
interval = rolling_forecasts(titans, y, first, learn=True, levels=[0.1, 0.9])
truth = actual_windows(y, first, PREDICTION_LENGTH)
inside = ((truth >= interval[..., 0]) & (truth <= interval[..., 1])).mean()
console.print(f"The 80 % interval held {inside:.0%} of the year's values while streaming.")

# The last window of the year, as a picture: history, quantiles, and what then came.
titans.restore(start)
past, future = weather.iloc[:-PREDICTION_LENGTH], weather.iloc[-PREDICTION_LENGTH:]
quantiles = titans.predict_quantiles(context=past)
PICTURE.parent.mkdir(exist_ok=True)
figure = plot_forecast(past.iloc[-60:], quantiles, actual=future)
figure.savefig(PICTURE, dpi=120)
console.print(f"wrote {PICTURE} in {time.perf_counter() - started:.0f} s")
