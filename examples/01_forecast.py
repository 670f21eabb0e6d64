"""Fit on a data frame, forecast with intervals, and hold the forecast against what came."""

from titans_ts import TitansForecaster, load_dataset

weather = load_dataset("seattle-weather")[["temp_max", "temp_min", "wind"]]
past, future = weather[:-14], weather[-14:]

forecaster = TitansForecaster(prediction_length=14, context_length=56).fit(past)
forecast = forecaster.predict()
interval = forecaster.predict_quantiles([0.1, 0.9])

print(forecast.round(1).head(3))
low, high = (interval.xs(level, axis=1, level=1) for level in (0.1, 0.9))
inside = ((future >= low) & (future <= high)).to_numpy().mean()
error = (future - forecast).abs().to_numpy().mean()
print(f"mean absolute error {error:.2f}; {inside:.0%} of the days lie in the 80 % interval")
