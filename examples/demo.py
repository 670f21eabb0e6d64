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
    actual = (actual_windows(y, validation_end, PREDICTION_LENGTH) - level) / scale
    training = (y[:train_end] - level) / scale
    table = Table(title=title, title_justify="left")
    for column in ("", "MAE", "MSE", "MASE"):
        table.add_column(column, justify="left" if column == "" else "right")
    for name, forecast in forecasts.items():
        z = (forecast - level) / scale
        flat = actual.reshape(-1, y.shape[1]), z.reshape(-1, y.shape[1])
        mase = mean_absolute_scaled_error(actual, z, training, SEASON_LENGTH).mean()
        errors = mean_absolute_error(*flat), mean_squared_error(*flat), mase
        table.add_row(name, *(f"{error:.3f}" for error in errors))
    console.print(table)


started = time.perf_counter()
console.print(
    f"Seattle weather: {len(y)} days, {', '.join(weather.columns)}; fit on 2012-2014, test on 2015"
)
titans, ridge = fit(), fit(use_network=False)
gate = titans.model_.residual.streaming.gate
console.print(f"validation lets in {gate:.0%} of what the network says the ridge leaves\n")

floors = {
    "seasonal naive (last year)": naive_forecasts(
        y, validation_end, PREDICTION_LENGTH, SEASON_LENGTH
    ),
    "naive (last day)": naive_forecasts(y, validation_end, PREDICTION_LENGTH),
}
still = {"Titans": titans, "ridge": ridge}
show(
    f"Every {PREDICTION_LENGTH}-day window of 2015, from its own {CONTEXT_LENGTH} days (z-scores)",
    {name: rolling_forecasts(model, y, validation_end, learn=None) for name, model in still.items()}
    | floors,
)
before = {name: model.snapshot() for name, model in still.items()}
show(
    "The same while streaming: each day is revealed after its forecast, and learned by update()",
    {name: rolling_forecasts(model, y, validation_end, learn=True) for name, model in still.items()}
    | floors,
)

# The last window of the year, as a picture: history, quantiles, and what then came.
titans.restore(before["Titans"])
past, future = weather.iloc[:-PREDICTION_LENGTH], weather.iloc[-PREDICTION_LENGTH:]
quantiles = titans.predict_quantiles(context=past)
PICTURE.parent.mkdir(exist_ok=True)
figure = plot_forecast(past.iloc[-60:], quantiles, actual=future)
figure.savefig(PICTURE, dpi=120)
console.print(f"wrote {PICTURE} in {time.perf_counter() - started:.0f} s")
