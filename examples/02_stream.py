"""Stream a year day by day: forecast first, then reveal; and roll back a bad day."""

from titans_ts import TitansForecaster, load_dataset
from titans_ts.evaluation import actual_windows, rolling_forecasts

y = load_dataset("seattle-weather").to_numpy()
start = 3 * 365 + 1
forecaster = TitansForecaster(7, 56, use_network=False).fit(y[:start])

before = forecaster.snapshot()
scale = y[:start].std(axis=0)
actual = actual_windows(y, start, 7) / scale
for learn in (False, True):
    forecaster.restore(before)
    error = rolling_forecasts(forecaster, y, start, learn=learn) / scale - actual
    print(f"learn={learn!s:5}  mean squared error of 2015: {(error**2).mean():.4f}")

origin = forecaster.snapshot()
forecast = forecaster.predict()
forecaster.update(y[-1:] * 1000)  # a broken sensor
forecaster.restore(origin)  # never happened
assert (forecaster.predict() == forecast).all()
print("rolled back bit for bit")
