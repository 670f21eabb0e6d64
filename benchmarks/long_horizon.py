"""Long-horizon accuracy by the published protocol: every test window, look-back rows only.

    python benchmarks/long_horizon.py --dataset ETTh1 --context 96 --horizon 96

Scaler and models are fitted on the training part, every choice is made on the validation part, and
each test window is forecast from its own look-back (no updates, no state carried). Beside Titans:
its linear part alone (ridge, the floor), seasonal naive and naive, and the memory's ablation:
frozen (no learning at test time), and no block at all (neither the memory nor its SwiGLU).

At look-back 96 the memory sees 4 persistent tokens and 6 patches, less than one chunk: it learns
from each, but all its surprise is taken at M_0. At 512 there are 36 tokens, two and a bit chunks.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from typing import Any

import _record
import numpy as np
from matplotlib.figure import Figure

from titans_ts import TitansForecaster, dataset_info, load_dataset
from titans_ts.evaluation import actual_windows, naive_forecasts, rolling_forecasts
from titans_ts.settings import DEFAULT_BACKBONE, DEFAULT_TRAINING

SEASONS = {"h": 24, "30min": 48, "15min": 96, "10min": 144, "D": 365, "7D": 52}


def memory_variants() -> dict[str, dict[str, Any]]:
    """The forecaster and its ablations, as options."""
    memory = replace(DEFAULT_BACKBONE.memory, test_time_learning=False)
    return {
        "ridge": {"use_network": False},
        "titans": {},
        "titans, memory frozen": {"backbone": replace(DEFAULT_BACKBONE, memory=memory)},
        "titans, no block": {"backbone": replace(DEFAULT_BACKBONE, num_blocks=0)},
    }


def run(dataset: str, context: int, horizon: int, seeds: int, quick: bool) -> list[dict[str, Any]]:
    y = load_dataset(dataset).to_numpy()
    info = dataset_info(dataset)
    train_end, validation_end, test_end = info.split_borders(len(y))
    y = y[:test_end]
    level, scale = y[:train_end].mean(axis=0), y[:train_end].std(axis=0)
    if quick:  # the first fifth of the test part, and a short training
        y = y[: validation_end + horizon + (test_end - validation_end) // 5]
    actual = (actual_windows(y, validation_end, horizon) - level) / scale
    case = f"{dataset}, look-back {context}, horizon {horizon}" + ", quick" * quick
    rows: list[dict[str, Any]] = []

    def score(provider: str, seed: int, forecasts: np.ndarray, cpu: float | None = None) -> None:
        error = (forecasts - level) / scale - actual
        measured = {
            "MSE": (np.square(error).mean(), "z-score^2"),
            "MAE": (np.abs(error).mean(), "z-score"),
            "windows": (len(error), "1"),
        }
        if cpu is not None:
            measured["fit"] = (cpu, "CPU s")
        for metric, (value, unit) in measured.items():
            rows.append(
                {"case": case, "provider": provider, "metric": metric, "value": f"{value:.5g}",
                 "unit": unit, "seed": seed}
            )  # fmt: skip
        print(f"{provider:24} seed {seed}  " + "  ".join(
            f"{metric} {value:.4g}" for metric, (value, _) in measured.items()
        ), flush=True)  # fmt: skip

    short = {"max_steps": 20, "validate_every": 10} if quick else {}
    print(case)
    score("naive", 0, naive_forecasts(y, validation_end, horizon))
    season = SEASONS[info.frequency]
    score("seasonal naive", 0, naive_forecasts(y, validation_end, horizon, season))
    for provider, options in memory_variants().items():
        for seed in range(seeds if provider != "ridge" else 1):
            begun = time.process_time()
            forecaster = TitansForecaster(
                horizon,
                context,
                validation_size=validation_end - train_end,
                refit=False,  # the protocol: validation rows choose, they do not train
                random_state=seed,
                training=replace(DEFAULT_TRAINING, accelerator="cpu", **short),
                **options,
            ).fit(y[:validation_end])  # fmt: skip
            cpu = time.process_time() - begun
            score(provider, seed, rolling_forecasts(forecaster, y, validation_end, learn=None), cpu)
    return rows


def draw(path: str) -> None:
    """Draw the mean squared errors of all recorded cases, one panel each."""
    table = [row for row in _record.read("long_horizon") if row["metric"] == "MSE"]
    cases = sorted({row["case"] for row in table if "quick" not in row["case"]})
    if not cases:
        return
    figure = Figure(figsize=(6.4, 2.1 * len(cases)), layout="constrained")
    for axes, case in zip(figure.subplots(len(cases), squeeze=False)[:, 0], cases, strict=True):
        errors: dict[str, list[float]] = {}
        for row in table:
            if row["case"] == case:
                errors.setdefault(row["provider"], []).append(float(row["value"]))
        shown = {k: v for k, v in errors.items() if k != "naive"}
        names = list(shown)[::-1]
        for i, name in enumerate(names):
            colour = {"titans": "#0072b2", "ridge": "#e69f00"}.get(name, "0.6")
            axes.plot(shown[name], [i] * len(shown[name]), "o", color=colour)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.set_title(case, loc="left", fontsize=10)
        axes.set_xlabel("test MSE (z-scores); one dot a seed")
        axes.grid(axis="x", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dataset", default="ETTh1")
    parser.add_argument("--context", type=int, default=96)
    parser.add_argument("--horizon", type=int, default=96)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a one-minute version")
    options = parser.parse_args()
    rows = run(options.dataset, options.context, options.horizon, options.seeds, options.quick)
    path = _record.record("long_horizon", rows)
    draw(str(path.with_suffix(".png")))
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
