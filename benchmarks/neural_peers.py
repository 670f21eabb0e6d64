"""neuralforecast's NHITS and PatchTST beside the forecaster in one run: errors and CPU time.

    pip install neuralforecast==3.3.0  # perhaps in an environment of its own
    python benchmarks/neural_peers.py [--dataset ETTh1] [--context 512] [--horizon 96] [--steps N]
    python benchmarks/neural_peers.py --dataset ILI --context 104 --horizon 24

The published protocol: scaler and models fitted on the training part, choices made on the
validation part, every window of the test part forecast from its own look-back. The peers get rows
that are standardised already and squared error as their loss, since it is what is scored; they end
early when validation has not improved for five checks, 100 steps apart. NHITS gets windows that are
standardised one by one (its squared error was 0.495 without, 0.478 with), PatchTST steps of 128
windows instead of 1024, for time; else they have their defaults. ``--steps`` ends their trainings
there: PatchTST's default of 5000 takes hours on one core. On ILI, PatchTST has the sizes, dropout,
batches and learning rate of its authors' script, and is scored on their windows, too. CPU seconds
are those of fitting and of forecasting all test windows, imports not counted. Each has a process of
its own, of one thread.
"""

from __future__ import annotations

import argparse
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing import get_context
from typing import Any, NamedTuple

import _protocol
import _record
import numpy as np
import pandas as pd
import torch

from titans_ts import dataset_info, list_datasets, load_dataset
from titans_ts.evaluation import actual_windows, rolling_forecasts

OURS: dict[str, dict[str, Any]] = {
    "titans": {},
    "ridge": {"use_memory": False, "use_network": False},
}
PEERS: dict[str, dict[str, Any]] = {
    "NHITS": {"scaler_type": "standard"},
    "PatchTST": {"windows_batch_size": 128},
}
AUTHORS: dict[tuple[str, str], dict[str, Any]] = {
    ("PatchTST", "ILI"): {
        "windows_batch_size": 16 * 7,  # of single channels
        "learning_rate": 2.5e-3,
        "encoder_layers": 3,
        "n_heads": 4,
        "hidden_size": 16,
        "linear_hidden_size": 128,
        "dropout": 0.3,
        "fc_dropout": 0.3,
        "patch_len": 24,
        "stride": 2,
    }
}


class Job(NamedTuple):
    dataset: str
    context: int
    horizon: int
    provider: str
    steps: int | None
    quick: bool

    def case(self, windows: str = "") -> str:
        """Name of the case, of all windows or of some."""
        quick = ", quick" * self.quick
        return f"{self.dataset}, look-back {self.context}{windows}, horizon {self.horizon}{quick}"

    @property
    def name(self) -> str:
        limit = f", at most {self.steps} steps" if self.steps else ""
        return self.provider if self.provider in OURS else f"neuralforecast {self.provider}{limit}"


def perform(job: Job) -> list[dict[str, Any]]:
    """Fit and score one forecaster: its rows."""
    torch.set_num_threads(1)
    info, y = dataset_info(job.dataset), load_dataset(job.dataset).to_numpy()
    borders = info.split_borders(len(y))
    train_end, validation_end, test_end = borders
    y = y[:test_end]
    level, scale = y[:train_end].mean(axis=0), y[:train_end].std(axis=0)
    if job.provider in OURS:
        forecasts, seconds = titans(job, y, borders)
        forecasts = (forecasts - level) / scale
    else:
        forecasts, seconds = peer(job, (y - level) / scale, borders)
    whole = forecasts - (actual_windows(y, validation_end, job.horizon) - level) / scale
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    scored = {job.case(): whole}
    if job.dataset in _protocol.BATCHES:
        windows, kept = _protocol.whole_batches(job.dataset, len(whole))
        scored[job.case(windows)] = whole[:kept]
    return [
        {"case": case, "provider": job.name, "metric": metric, "value": f"{value:.5g}",
         "unit": unit, "seed": 0}
        for case, error in scored.items()
        for metric, value, unit in (
            ("MSE", np.square(error).mean(), "z-score^2"),
            ("MAE", np.abs(error).mean(), "z-score"),
            ("windows", len(error), "1"),
            ("fit and forecast", seconds, "CPU s"),
            ("peak", peak, "MiB"),
        )
    ]  # fmt: skip


def titans(job: Job, y: np.ndarray, borders: tuple[int, int, int]) -> tuple[np.ndarray, float]:
    """Forecasts of every test window and CPU seconds."""
    train_end, validation_end, _ = borders
    begun = time.process_time()
    forecaster, _ = _protocol.fit(
        y,
        train_end,
        validation_end,
        job.horizon,
        job.context,
        quick=job.quick,
        **OURS[job.provider],
    )
    forecasts = rolling_forecasts(forecaster, y, validation_end, learn=None)
    return forecasts, time.process_time() - begun


def peer(job: Job, z: np.ndarray, borders: tuple[int, int, int]) -> tuple[np.ndarray, float]:
    """The same by a model of neuralforecast."""
    from neuralforecast import NeuralForecast, models
    from neuralforecast.losses.pytorch import MSE

    train_end, validation_end, test_end = borders
    times, channels = np.arange(len(z)), z.shape[1]
    table = pd.DataFrame(
        {
            "unique_id": np.repeat(np.arange(channels), len(z)),
            "ds": np.tile(times, channels),
            "y": z.T.ravel(),
        }
    )
    limit = {"max_steps": job.steps} if job.steps else {}  # else its own
    model = getattr(models, job.provider)(
        h=job.horizon,
        input_size=job.context,
        loss=MSE(),
        early_stop_patience_steps=5,
        val_check_steps=100,
        random_seed=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        **limit,
        **PEERS[job.provider] | AUTHORS.get((job.provider, job.dataset), {}),
    )
    begun = time.process_time()
    found = NeuralForecast([model], freq=1).cross_validation(
        table,
        val_size=validation_end - train_end,
        test_size=test_end - validation_end,
        n_windows=None,
        step_size=1,
    )
    seconds = time.process_time() - begun
    found = found.sort_values(["cutoff", "ds", "unique_id"])
    forecasts = found[job.provider].to_numpy().reshape(-1, job.horizon, channels)
    actual = actual_windows(z, validation_end, job.horizon)
    if not np.allclose(found["y"].to_numpy().reshape(actual.shape), actual, atol=1e-5):
        raise SystemExit("neuralforecast scored other windows than ours")
    return forecasts, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dataset", default="ETTh1", choices=list_datasets())
    parser.add_argument("--context", type=int, default=512, help="rows of look-back")
    parser.add_argument("--horizon", type=int, default=96, help="rows ahead")
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--steps", type=int, help="the peers train for no more than these")
    parser.add_argument("--quick", action="store_true", help="a short training of ours")
    options = parser.parse_args()
    if options.peers and find_spec("neuralforecast") is None:
        parser.error("neuralforecast is not installed: pip install it, or give --peers no name")
    torch.set_num_threads(1)  # as the runs; see the column "device"
    case = (options.dataset, options.context, options.horizon)
    jobs = [Job(*case, provider, None, options.quick) for provider in OURS]
    jobs += [Job(*case, provider, options.steps, options.quick) for provider in options.peers]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for job in jobs:
            rows = pool.submit(perform, job).result()
            more = "" if job.provider in OURS else f", neuralforecast {version('neuralforecast')}"
            path = _record.record("neural_peers", rows, more_versions=more)
            mine = [row for row in rows if row["case"] == job.case()]
            said = ", ".join(f"{row['metric']} {row['value']} {row['unit']}" for row in mine)
            print(f"{job.case()}, {job.name}: {said}", flush=True)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
