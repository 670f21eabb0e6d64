"""Long-horizon accuracy by the published protocol: every test window, look-back rows only.

    python benchmarks/long_horizon.py [--dataset ETTh1 ...] [--context auto] [--horizon 96 ...]
    python benchmarks/long_horizon.py --dataset mine.csv --split 0.7/0.1/0.2 --horizon 24
    python benchmarks/long_horizon.py --dataset ETTh1 --context 96 --horizon 96 --ablation

Scaler and models are fitted on the training part, every choice is made on the validation part (the
look-back, too, with ``--context auto``). Each test window is forecast twice. "titans": from its own
look-back, as published; no updates, no state carried. "titans, memory": by the stream, whose
memories have read every row up to the window, and nothing else has learned from them. Beside it the
linear part alone (ridge), seasonal naive and naive; with ``--ablation`` the same fit with its
memories frozen where the test part begins, and fits without any, with attention in the network or
with nothing in the memory's place. ILI is also scored on the windows
that PatchTST's figures are of, which leave out the last ones. Each fit has a process of its own.
Runs that the results hold already, of the same code and settings, are not made again.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import _protocol
import _record
import numpy as np
import pandas as pd
import torch
from _horizon_figure import draw

import titans_core
import titans_ts
from titans_core import AttentionConfig
from titans_ts import dataset_info, list_datasets, load_dataset
from titans_ts.evaluation import actual_windows, iter_forecasts, naive_forecasts
from titans_ts.floors import detect_season
from titans_ts.settings import DEFAULT_BACKBONE

DATASETS = ["ETTh1", "ETTm1", "Weather", "ILI"]
HORIZONS, SHORT_HORIZONS = [96, 192, 336, 720], [24, 36, 48, 60]
SPLITS = {"ett-hour": (8640, 2880, 2880), "ett-quarter": (34560, 11520, 11520)}
SEASONS = {"h": 24, "30min": 48, "15min": 96, "10min": 144, "D": 365, "7D": 52}
FORECASTERS: dict[str, dict[str, Any]] = {
    "titans": {},
    "ridge": {"use_memory": False, "use_network": False},
    "titans, attention only": {
        "use_memory": False,
        "backbone": replace(
            DEFAULT_BACKBONE, block="attention", attention=AttentionConfig(num_heads=2, window=64)
        ),
    },
    "titans, no memory": {
        "use_memory": False,
        "backbone": replace(DEFAULT_BACKBONE, num_blocks=0),
    },
}
WITH_MEMORY, FROZEN = "titans, memory", "titans, memory frozen"
PROVIDERS = ["naive", "seasonal naive", *FORECASTERS, FROZEN, WITH_MEMORY]


class Job(NamedTuple):
    dataset: str
    split: str | None
    context: int | str
    horizon: int
    provider: str
    seed: int
    quick: bool
    ablation: bool

    @property
    def scored(self) -> list[str]:
        """What its one fit says the errors of, itself first."""
        if self.provider != "titans":
            return [self.provider]
        return [self.provider, WITH_MEMORY, FROZEN][: 2 + self.ablation]

    @property
    def case(self) -> str:
        return self.case_of("")

    def case_of(self, windows: str) -> str:
        """Name of the case, of some of the windows."""
        name = Path(self.dataset).name + (f" ({self.split})" if self.split else "")
        quick = ", quick" * self.quick
        return f"{name}, look-back {self.context}{windows}, horizon {self.horizon}{quick}"


def load(dataset: str, split: str | None) -> tuple[np.ndarray, tuple[int, int, int], int | None]:
    """Rows, where the parts end, and the season if it is known."""
    if dataset.endswith(".csv"):
        table = pd.read_csv(dataset)
        y = table.select_dtypes("number").to_numpy(float)
        if split is None:
            raise SystemExit("say how to split the file, as in --split 0.7/0.1/0.2")
        parts = SPLITS.get(split) or [float(share) for share in split.split("/")]
        if parts[0] < 1:
            train, test = int(len(y) * parts[0]), int(len(y) * parts[2])
            return y, (train, len(y) - test, len(y)), None
        return y, tuple(np.cumsum(parts).astype(int).tolist()), None
    info = dataset_info(dataset)
    y = load_dataset(dataset).to_numpy()
    return y, info.split_borders(len(y)), SEASONS[info.frequency]


def perform(job: Job) -> list[dict[str, Any]]:
    """Fit and score one forecaster: its rows, with those of the naive floors beside the ridge's."""
    torch.set_num_threads(1)
    y, (train_end, validation_end, test_end), season = load(job.dataset, job.split)
    y = y[:test_end]
    scale = np.nanstd(y[:train_end], axis=0)
    if job.quick:  # the first fifth of the test part, and a short training
        y = y[: validation_end + job.horizon + (test_end - validation_end) // 5]
    actual = actual_windows(y, validation_end, job.horizon)
    rows: list[dict[str, Any]] = []

    def score(provider: str, errors: _protocol.Errors, **costs: tuple[float, str]) -> None:
        scored = {job.case: len(actual)}
        if job.dataset in _protocol.BATCHES:
            windows, kept = _protocol.whole_batches(job.dataset, len(actual))
            scored[job.case_of(windows)] = kept
        for case, kept in scored.items():
            measured = {
                "MSE": (errors.squares[:kept].sum() / errors.known[:kept].sum(), "z-score^2"),
                "MAE": (errors.absolutes[:kept].sum() / errors.known[:kept].sum(), "z-score"),
                "windows": (kept, "1"),
            }
            if case == job.case:
                measured |= {name.replace("_", " "): cost for name, cost in costs.items()}
            for metric, (value, unit) in measured.items():
                rows.append(
                    {"case": case, "provider": provider, "metric": metric,
                     "value": f"{value:.5g}", "unit": unit, "seed": job.seed}
                )  # fmt: skip

    if job.provider == "ridge":
        for name, length in [("naive", 1), ("seasonal naive", season)]:
            repeated = repeats(
                y, validation_end, job.horizon, length or detect_season([y[:train_end]])
            )
            score(name, _protocol.errors_of(repeated, actual, scale))
    forecaster, fit = _protocol.fit(
        y,
        train_end,
        validation_end,
        job.horizon,
        job.context,
        seed=job.seed,
        quick=job.quick,
        **FORECASTERS[job.provider],
    )
    fit_peak = peak()
    window = y[validation_end - forecaster.context_length_ : validation_end]
    took = []
    for _ in range(20):
        begun = time.perf_counter()
        forecaster.predict(context=window)
        took.append(time.perf_counter() - begun)
    forecasts = iter_forecasts(forecaster, y, validation_end, learn=None)
    errors = _protocol.errors_of(forecasts, actual, scale)
    score(
        job.provider,
        errors,
        fit=(fit, "CPU s"),
        fit_peak=(fit_peak, "MiB"),
        predict=(errors.seconds, "CPU s"),
        predict_peak=(peak(), "MiB"),
        one_window=(1000 * statistics.median(took), "ms"),
        look_back=(forecaster.context_length_, "1"),
        gate=(float(forecaster.model_.residual.fresh.gate.mean()), "1"),
    )
    residual = forecaster.model_.residual
    start = forecaster.snapshot()
    recollected = residual.recollection if residual.uses_memory else None
    gate = 0.0 if recollected is None else float(recollected.gate.mean())
    for provider in job.scored[1:]:
        if residual.uses_memory:  # else the stream forecasts as its last window does
            forecaster.restore(start)
            how: Any = "memory" if provider == WITH_MEMORY else False
            forecasts = iter_forecasts(forecaster, y, validation_end, learn=how)
            errors = _protocol.errors_of(forecasts, actual, scale)
        score(provider, errors, memory_gate=(gate, "1"))
    return rows


def repeats(y: np.ndarray, first: int, horizon: int, season: int) -> Iterator[np.ndarray]:
    """The last season before each origin again, some origins at a time."""
    for start in range(first, len(y) - horizon + 1, 128):
        yield naive_forecasts(y[: start + 127 + horizon], start, horizon, season)


def peak() -> float:
    """MiB that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def code() -> str:
    """Identity of the code that is measured."""
    digest = hashlib.sha256()
    for package in (titans_core, titans_ts):
        for path in sorted(Path(package.__file__).parent.rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


def table(jobs: list[Job]) -> None:
    """Mean and range over seeds per horizon, and the mean over horizons."""
    values: dict[tuple[str, str], list[float]] = {}
    for row in _record.read("long_horizon"):
        if row["metric"] == "MSE":
            values.setdefault((row["case"], row["provider"]), []).append(float(row["value"]))
    groups = {job._replace(horizon=0, seed=0, provider="") for job in jobs}
    for group in sorted(groups, key=str):
        horizons = sorted(
            {job.horizon for job in jobs if job._replace(horizon=0, seed=0, provider="") == group}
        )
        print(f"\n{group.case.replace(', horizon 0', '')}: test MSE, range over seeds")
        for provider in PROVIDERS:
            found = [values.get((group._replace(horizon=h).case, provider)) for h in horizons]
            if not any(found):
                continue
            cells = [
                f"{h}: {statistics.mean(v):.4f} ({max(v) - min(v):.4f})" if v else f"{h}: -"
                for h, v in zip(horizons, found, strict=True)
            ]
            whole = [statistics.mean(v) for v in found if v]
            mean = f"mean {statistics.mean(whole):.4f}" if len(whole) == len(horizons) else ""
            print(f"  {provider:24}" + "  ".join(cells) + f"  {mean}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    known = ", ".join(list_datasets())
    parser.add_argument("--dataset", nargs="+", default=DATASETS, help=f"a CSV file, or {known}")
    parser.add_argument("--split", help=f"of a file: {', '.join(SPLITS)}, or shares as 0.7/0.1/0.2")
    parser.add_argument("--context", default="auto", help="rows of look-back, or auto")
    parser.add_argument("--horizon", type=int, nargs="+", help="rows ahead; default: as published")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0, help="leave those before as they are")
    parser.add_argument("--jobs", type=int, default=1, help="processes, of one thread each")
    parser.add_argument("--ablation", action="store_true", help="memories frozen, and none")
    parser.add_argument("--quick", action="store_true", help="a one-minute version")
    options = parser.parse_args()
    torch.set_num_threads(1)  # as the runs; see the column "device"
    context = options.context if options.context == "auto" else int(options.context)
    providers = list(FORECASTERS) if options.ablation else ["titans", "ridge"]
    jobs = [
        Job(
            dataset,
            options.split,
            context,
            horizon,
            provider,
            seed,
            options.quick,
            options.ablation,
        )
        for seed in range(options.first_seed, 1 if options.quick else options.seeds)
        for dataset in options.dataset
        for horizon in options.horizon or (SHORT_HORIZONS if dataset == "ILI" else HORIZONS)
        for provider in providers
        if seed == 0 or provider != "ridge"
    ]
    versions = f", code {code()}"
    done = {
        (row["case"], row["provider"], row["seed"])
        for row in _record.read("long_horizon")
        if row["versions"].endswith(versions)
    }
    missing = [
        job
        for job in jobs
        if not done.issuperset((job.case, provider, str(job.seed)) for provider in job.scored)
    ]
    with ProcessPoolExecutor(
        options.jobs, mp_context=get_context("spawn"), max_tasks_per_child=1
    ) as pool:
        futures = {pool.submit(perform, job): job for job in missing}
        for number, future in enumerate(as_completed(futures), start=1):
            job, found = futures[future], future.result()
            path = _record.record("long_horizon", found, more_versions=versions)
            mine = {
                row["metric"]: row["value"]
                for row in found
                if (row["case"], row["provider"]) == (job.case, job.provider)
            }
            print(
                f"{number}/{len(missing)} {job.case}, {job.provider}, seed {job.seed}: "
                f"MSE {mine['MSE']}, MAE {mine['MAE']}, {mine['fit']} CPU s",
                flush=True,
            )
            draw(str(path.with_suffix(".png")))
    table(jobs)


if __name__ == "__main__":
    main()
