"""A long series fits: two million rows of seven channels, with missing values; what that costs.

    python benchmarks/long_series.py [--linear]
    python benchmarks/long_series.py --dataset ETTm1 --rows 57600

The goal is less than 2 GB of memory (2,000,000,000 bytes), loading included. The forecaster with
its defaults (``--linear``: its linear part alone), fitted on the first rows, forecasts what comes
after them from look-backs alone, at every origin a horizon after the last; beside it naive,
seasonal naive, and scikit-learn's Ridge with its defaults on windows of 512 rows, a horizon apart:
all of them would be 57 GB. Each has a process of its own.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from typing import Any, NamedTuple

import _record
import numpy as np
import pandas as pd
import torch

from titans_ts import TitansForecaster, dataset_info, list_datasets, load_dataset
from titans_ts.channels import fill_forward
from titans_ts.settings import DEFAULT_TRAINING
from titans_ts.windows import sliding_windows

SEASONS = {"min": 1440, "15min": 96, "h": 24, "D": 365}
RIDGE_LOOK_BACK = 512
Costs = dict[str, tuple[float, str]]


class Job(NamedTuple):
    dataset: str
    rows: int
    horizon: int
    provider: str
    quick: bool

    @property
    def case(self) -> str:
        quick = ", quick" * self.quick
        return f"{self.dataset}, first {self.rows} rows, horizon {self.horizon}{quick}"


def perform(job: Job) -> list[dict[str, Any]]:
    """Fit and score one provider; its rows."""
    torch.set_num_threads(1)
    begun = time.process_time()
    table = load_dataset(job.dataset)
    costs: Costs = {"load": (time.process_time() - begun, "CPU s"), "load peak": (_peak(), "MiB")}
    origins = np.arange(job.rows, len(table) - job.horizon + 1, job.horizon)
    forecasts, more = PROVIDERS[job.provider](job, table, origins)
    y = table.to_numpy()
    actual = np.stack([y[o : o + job.horizon] for o in origins])
    scale = np.nanstd(y[: job.rows], axis=0)
    error = (forecasts - actual) / scale
    found: Costs = {
        "MSE": (float(np.nanmean(np.square(error))), "z-score^2"),
        "MAE": (float(np.nanmean(np.abs(error))), "z-score"),
        "windows": (len(origins), "1"),
    }
    if more:
        missing = int(np.isnan(y[: job.rows]).sum())
        found |= {"channels": (len(scale), "1"), "missing values": (missing, "1"), **costs, **more}
    return [
        {"case": job.case, "provider": job.provider, "metric": metric, "value": f"{value:.6g}",
         "unit": unit, "seed": 0}
        for metric, (value, unit) in found.items()
    ]  # fmt: skip


def titans(job: Job, table: pd.DataFrame, origins: np.ndarray) -> tuple[np.ndarray, Costs]:
    """The forecaster with its defaults, and what it costs."""
    short = {"max_steps": 20, "validate_every": 10} if job.quick else {}
    begun = time.process_time()
    forecaster = TitansForecaster(
        job.horizon,
        use_memory=job.provider == "titans",
        use_network=job.provider == "titans",
        training=replace(DEFAULT_TRAINING, accelerator="cpu", **short),
        progress=False,
    ).fit(table.iloc[: job.rows])
    fit, peak, length = time.process_time() - begun, _peak(), forecaster.context_length_
    forecasts, took, y = [], [], table.to_numpy()
    for origin in origins:
        begun = time.perf_counter()
        forecasts.append(forecaster.predict(context=y[origin - length : origin]))
        took.append(time.perf_counter() - begun)
    return np.stack(forecasts), {
        "fit": (fit, "CPU s"),
        "fit peak": (peak, "MiB"),
        "one window": (1000 * statistics.median(took), "ms"),
        "look-back": (length, "1"),
        "gate": (float(forecaster.model_.residual.fresh.gate.mean()), "1"),
    }


def naive(job: Job, table: pd.DataFrame, origins: np.ndarray) -> tuple[np.ndarray, Costs]:
    """Repeat the last row, or the last season."""
    season = 1
    if job.provider == "seasonal naive":
        season = SEASONS[dataset_info(job.dataset).frequency]
    back = season - np.arange(job.horizon) % season
    return fill_forward(table.to_numpy())[origins[:, None] - back], {}


def ridge(job: Job, table: pd.DataFrame, origins: np.ndarray) -> tuple[np.ndarray, Costs]:
    """scikit-learn's Ridge of each channel, on windows without missing values."""
    from sklearn.linear_model import Ridge

    length, y = min(RIDGE_LOOK_BACK, job.rows // 4), table.to_numpy()
    level, scale = np.nanmean(y[: job.rows], axis=0), np.nanstd(y[: job.rows], axis=0)
    z = (y - level) / scale
    filled, forecasts = fill_forward(z), []
    for c in range(z.shape[1]):
        windows = sliding_windows(z[: job.rows, c : c + 1], length + job.horizon)[:: job.horizon, 0]
        windows = windows[~np.isnan(windows).any(axis=1)]
        model = Ridge().fit(windows[:, :length], windows[:, length:])
        forecasts.append(model.predict(np.stack([filled[o - length : o, c] for o in origins])))
    return np.stack(forecasts, axis=-1) * scale + level, {}


def _peak() -> float:
    """MiB that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


PROVIDERS: dict[str, Callable[..., tuple[np.ndarray, Costs]]] = {
    "titans": titans,
    "titans, linear part": titans,
    "naive": naive,
    "seasonal naive": naive,
    "scikit-learn Ridge": ridge,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dataset", default="household-power", choices=list_datasets())
    parser.add_argument("--rows", type=int, default=2_000_000, help="the first, to fit on")
    parser.add_argument("--horizon", type=int, default=60, help="rows ahead")
    parser.add_argument("--linear", action="store_true", help="neither memory nor network")
    parser.add_argument("--quick", action="store_true", help="a short training")
    options = parser.parse_args()
    torch.set_num_threads(1)  # as the runs; see the column "device"
    ours = "titans, linear part" if options.linear else "titans"
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for provider in (ours, "scikit-learn Ridge", "seasonal naive", "naive"):
            job = Job(options.dataset, options.rows, options.horizon, provider, options.quick)
            rows = pool.submit(perform, job).result()
            path = _record.record("long_series", rows)
            said = ", ".join(f"{row['metric']} {row['value']} {row['unit']}" for row in rows)
            print(f"{job.case}, {provider}: {said}", flush=True)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
