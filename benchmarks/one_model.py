"""One model for all horizons, beside one for each: what the convenience costs.

    python benchmarks/one_model.py [--dataset ETTh1 ...] [--context auto] [--horizon 96 ...]

A forecaster fitted for the longest horizon answers the shorter ones, too, by its first rows. It is
scored as in long_horizon.py, from each test window's own look-back and by the stream, on the very
windows of the forecasters that are fitted for each horizon. Each fit has a process of its own.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import _protocol
import _record
import numpy as np
import torch
from long_horizon import HORIZONS, SHORT_HORIZONS, load

from titans_ts.evaluation import actual_windows, rolling_forecasts


def perform(
    dataset: str, context: int | str, fitted: int, horizons: list[int], quick: bool
) -> list[dict[str, Any]]:
    """Fit for one horizon, score others no longer than it."""
    torch.set_num_threads(1)
    y, (train_end, validation_end, test_end), _ = load(dataset, None)
    y = y[:test_end]
    level, scale = y[:train_end].mean(axis=0), y[:train_end].std(axis=0)
    forecaster, seconds = _protocol.fit(y, train_end, validation_end, fitted, context, quick=quick)
    start, rows = forecaster.snapshot(), []
    for horizon in horizons:
        actual = (actual_windows(y, validation_end, horizon) - level) / scale
        # Rows that nobody reads, so that the last origins are those of this horizon.
        padded = np.concatenate([y, np.full((fitted - horizon, y.shape[1]), np.nan)])
        name = "one for each" if len(horizons) == 1 else "one for all"
        measured: list[tuple[str, str, float, str]] = [(name, "fit", seconds, "CPU s")]
        for how, provider in ((None, name), ("memory", f"{name}, memory")):
            forecaster.restore(start)
            found = rolling_forecasts(forecaster, padded, validation_end, learn=how)
            error = (found[:, :horizon] - level) / scale - actual
            measured += [
                (provider, "MSE", float(np.square(error).mean()), "z-score^2"),
                (provider, "MAE", float(np.abs(error).mean()), "z-score"),
                (provider, "windows", len(error), "1"),
            ]
        case = f"{dataset}, look-back {context}, horizon {horizon}{', quick' * quick}"
        rows += [
            {"case": case, "provider": provider, "metric": metric, "value": f"{value:.5g}",
             "unit": unit, "seed": 0}
            for provider, metric, value, unit in measured
        ]  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dataset", nargs="+", default=["ETTh1", "ETTm1"])
    parser.add_argument("--context", default="auto", help="rows of look-back, or auto")
    parser.add_argument("--horizon", type=int, nargs="+", help="rows ahead; default: as published")
    parser.add_argument("--quick", action="store_true", help="a short training")
    options = parser.parse_args()
    torch.set_num_threads(1)  # as the runs; see the column "device"
    context = options.context if options.context == "auto" else int(options.context)
    published = (HORIZONS, SHORT_HORIZONS)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for dataset in options.dataset:
            horizons = sorted(set(options.horizon or published[dataset == "ILI"]))
            if len(horizons) < 2:
                parser.error("--horizon needs two or more, to be served by one model")
            for fitted, scored in [(horizons[-1], horizons), *((h, [h]) for h in horizons)]:
                job = (dataset, context, fitted, scored, options.quick)
                rows = pool.submit(perform, *job).result()
                path = _record.record("one_model", rows)
                for row in rows:
                    if row["metric"] in ("MSE", "fit"):
                        said = f"{row['metric']} {row['value']} {row['unit']}"
                        print(f"{row['case']}, {row['provider']}: {said}", flush=True)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
