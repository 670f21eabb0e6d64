"""Forecast with a covariate that is known ahead, and see what it contributed."""

import numpy as np

from titans_ts import TitansForecaster, load_dataset

weather = load_dataset("seattle-weather")
rng = np.random.default_rng(0)
fair = rng.random(len(weather)) < 0.1  # days of a street fair, planned ahead
visitors = 5 * weather["temp_max"] + 40 * fair + rng.normal(0, 5, len(weather))
table = weather.assign(visitors=visitors, fair=fair)[["visitors", "fair", "precipitation"]]

forecaster = TitansForecaster(
    prediction_length=7,
    context_length=56,
    use_network=False,
    future_covariates=["fair"],
    past_covariates=["precipitation"],
)
forecaster.fit(table[:-70])
blind = TitansForecaster(7, 56, use_network=False).fit(table[["visitors"]][:-70])

errors = []
for start in range(len(table) - 70, len(table), 7):
    known, ahead = table[:start], table[start : start + 7]
    told = forecaster.predict(context=known, future=ahead[["fair"]])
    untold = blind.predict(context=known[["visitors"]])
    errors.append([(f - ahead[["visitors"]]).abs().mean().item() for f in (told, untold)])
print("mean absolute error with covariates {:.1f}, without {:.1f}".format(*np.mean(errors, axis=0)))

explanation = forecaster.explain(future=table[["fair"]][-70:-63])
frame = explanation.frame
effect = frame[frame["part"] == "future fair"]["contribution"]
print(f"a fair is worth {effect.max() - effect.min():.0f} visitors (truly 40)")
print(explanation)
