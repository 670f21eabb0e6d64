"""Stream a machine, row by row: forecast, then reveal. Its cycle shortens, and `update` follows."""

import numpy as np

from titans_ts import TitansForecaster
from titans_ts.evaluation import actual_windows, rolling_forecasts

rng = np.random.default_rng(0)
cycle = np.where(np.arange(4000) < 2400, 24, 19)  # rows that a cycle takes: worn from 2400 on
y = np.sin(np.cumsum(2 * np.pi / cycle)) + 0.2 * rng.normal(size=4000)
start, worn = 2000, 2400
forecaster = TitansForecaster(12, 48, use_network=False, progress=False).fit(y[:start])

before = forecaster.snapshot()
actual = actual_windows(y[:, None], start, 12)
for learn in (False, True):
    forecaster.restore(before)
    errors = np.square(rolling_forecasts(forecaster, y[:, None], start, learn=learn) - actual)
    parts = {"as it was": (start, worn), "first worn cycles": (worn, worn + 200)}
    parts |= {"later": (worn + 600, 4000)}
    means = {name: errors[a - start : b - start].mean() for name, (a, b) in parts.items()}
    shown = ", ".join(f"{name} {mean:.3f}" for name, mean in means.items())
    print(f"learn={learn!s:5}  mean squared error: {shown}  (noise alone: 0.040)")

origin = forecaster.snapshot()
forecast = forecaster.predict()
forecaster.update(y[-1:] * 1000)  # a broken sensor
forecaster.restore(origin)  # never happened
assert (forecaster.predict() == forecast).all()
print("rolled back bit for bit")
