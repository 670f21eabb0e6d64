"""A look-back of four days, and a memory of months: the memory learning, frozen, and absent."""

from titans_ts import TitansForecaster, load_dataset
from titans_ts.evaluation import actual_windows, rolling_forecasts

train, start, end = 8640, 11520, 14400  # rows, as published
y = load_dataset("ETTh1").to_numpy()[:end]
y = (y - y[:train].mean(axis=0)) / y[:train].std(axis=0)
actual = actual_windows(y, start, 96)


def fit(**options):
    return TitansForecaster(
        96, 96, validation_size=2880, refit=False, use_network=False, progress=False, **options
    ).fit(y[:start])


def error(forecaster, learn):
    return ((rolling_forecasts(forecaster, y, start, learn=learn) - actual) ** 2).mean()


forecaster, blind = fit(), fit(use_memory=False)
begun = forecaster.snapshot()
print(f"absent    mean squared error {error(blind, learn=None):.4f}")
print(f"frozen    mean squared error {error(forecaster, learn=False):.4f}")
forecaster.restore(begun)
print(f"learning  mean squared error {error(forecaster, learn='memory'):.4f}")
