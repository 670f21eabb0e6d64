"""A stream drifts from what was fitted: how soon, and how well, is it forecast again?

    python benchmarks/drift_stream.py [--case NAME ...] [--seeds 3]

Forecast six rows (of the data sets more), then reveal them, to the end. Made-up series move once:
level, trend, the season's phase, its length, its noise. Beside ``update``: the same without the
seasonal memory, what only reads on (``learn=False``), a new fit before the last part, and the last
season repeated. MSE in units of the training part's variance, of the first windows after the move
and of the last third, and how many values the intervals of 80 % hold there.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import _record
import numpy as np

from titans_ts import TitansForecaster, load_dataset
from titans_ts.windows import Array

ROWS, FITTED = 4200, 3000  # of made-up series; the move comes where the fit ends


def wandering(seed: int) -> Array:
    y = np.random.default_rng(seed).normal(size=ROWS)
    for t in range(1, ROWS):
        y[t] += 0.8 * y[t - 1]
    return y


def cycles(seed: int, length: int = 24, phase: float = 0.0, noise: float = 0.3) -> Array:
    moved = np.arange(ROWS) >= FITTED
    angle = np.cumsum(2 * np.pi / np.where(moved, length, 24)) + phase * moved
    size = np.where(moved, noise, 0.3)
    return 3 * np.sin(angle) + size * np.random.default_rng(seed).normal(size=ROWS)


MOVED = (np.arange(ROWS) - FITTED).clip(0)
MADE: dict[str, Callable[[int], Array]] = {
    "nothing moves": wandering,
    "level, 6 standard deviations": lambda seed: wandering(seed) + 10 * (MOVED > 0),
    "trend, 3 % of a standard deviation a row": lambda seed: wandering(seed) + 0.05 * MOVED,
    "phase of the season": lambda seed: cycles(seed, phase=2.0),
    "length of the season": lambda seed: cycles(seed, length=19),
    "three times the noise around a season": lambda seed: cycles(seed, noise=0.9),
}
# Rows, of which half are fitted; rows ahead; look-back; the season that the floor repeats.
REAL = {
    "ETTh1": (8000, 24, 96, 24),
    "elec2": (12000, 48, 96, 48),
    "metro-traffic": (16000, 24, 96, 24),
}
SETTINGS: dict[str, Any] = {"use_network": False, "progress": False}


def stream(forecaster: TitansForecaster, y: Array, first: int, learn: Any) -> Array:
    """Of forecasts one after the other: squared error, and what 80 % intervals hold, ``(n, 2)``."""
    ahead, found = forecaster.prediction_length, []
    for origin in range(first, len(y) - ahead + 1, ahead):
        rows = y[origin : origin + ahead]
        low, high = np.moveaxis(forecaster.predict_interval(0.8)[..., 0, :], -1, 0)
        known = ~np.isnan(rows)
        held = ((low <= rows) & (rows <= high))[known].mean() if known.any() else np.nan
        found.append([np.nanmean(np.square(forecaster.predict() - rows)), held])
        forecaster.update(rows, learn=learn)
    return np.array(found)


def run(case: str, seed: int) -> dict[str, Array]:
    """By provider, what `stream` finds from the move on; of the floor the errors alone."""
    if case in MADE:
        y, fitted, ahead, context, season = MADE[case](seed)[:, None], FITTED, 6, 48, 24
    else:
        rows, ahead, context, season = REAL[case]
        y = load_dataset(case).select_dtypes("number").to_numpy(float)[:rows]
        fitted = rows // 2
    y = (y - np.nanmean(y[:fitted], axis=0)) / (np.nanstd(y[:fitted], axis=0) + 1e-12)
    late = fitted + (len(y) - fitted) * 2 // 3
    late = fitted + (late - fitted) // ahead * ahead

    def fit(last: int, **changes: Any) -> TitansForecaster:
        return TitansForecaster(ahead, context, **SETTINGS | changes).fit(y[:last])

    found = {
        "update": stream(fit(fitted), y, fitted, True),
        "update, no memory": stream(fit(fitted, use_memory=False), y, fitted, True),
        "learn=False": stream(fit(fitted), y, fitted, False),
        "fitted anew": stream(fit(late), y, late, False),
    }
    origins = range(fitted, len(y) - ahead + 1, ahead)
    before = [-(-ahead // season) * season] * len(origins)
    last = [y[o - b : o - b + ahead] for o, b in zip(origins, before, strict=True)]
    truth = [y[o : o + ahead] for o in origins]
    found["last season"] = np.array(
        [[np.nanmean(np.square(a - b))] for a, b in zip(last, truth, strict=True)]
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--case", choices=[*MADE, *REAL], nargs="+", default=[*MADE, *REAL])
    parser.add_argument("--seeds", type=int, default=3, help="of the made-up series")
    options = parser.parse_args()
    rows = []
    for case in options.case:
        for seed in range(options.seeds if case in MADE else 1):
            for provider, errors in run(case, seed).items():
                whole = provider != "fitted anew"
                third = len(errors) // 3 if whole else len(errors)
                scores = {"MSE, last third": errors[-third:, 0].mean()}
                if whole:
                    scores["MSE, first 20 windows"] = errors[:20, 0].mean()
                if errors.shape[1] > 1:
                    scores["80 % intervals hold, last third"] = np.nanmean(errors[-third:, 1])
                for metric, value in scores.items():
                    rows.append(
                        {"case": case, "provider": provider, "metric": metric,
                         "value": f"{value:.4g}", "unit": "1", "seed": seed}
                    )  # fmt: skip
                shown = ", ".join(f"{metric} {value:.4g}" for metric, value in scores.items())
                print(f"{case}, seed {seed}, {provider}: {shown}", flush=True)
    print(f"wrote {_record.record('drift_stream', rows)}")


if __name__ == "__main__":
    main()
