"""Recall far beyond the training length: what the memory adds, and what each part of it adds.

    python benchmarks/recall.py [--task NAME] [--variant NAME] [--seeds 3] [--jobs 2]

Small models learn, on at most 64 synthetic tokens, to answer questions about what stood earlier in
the stream, and are then asked after up to 1024 tokens. Chance is 1/16. Tasks: associations of 8
keys and values, then noise, and one marked needle in noise. Attention sees a window of 16 tokens;
two blocks of it reach 30 tokens back. Runs that the results hold already are not made again.
"""

from __future__ import annotations

import argparse
import statistics
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import _record
import torch
from _recall_tasks import (
    ABLATIONS,
    CHANCE,
    MODELS,
    QUICK,
    SETTING,
    TASKS,
    TEST_LENGTHS,
    TRAIN_LENGTH,
    VARIANTS,
    Result,
    run,
)
from matplotlib.figure import Figure

FIGURE = Path(__file__).parent / "results" / "recall.png"


class Job(NamedTuple):
    task: str
    variant: str
    seed: int
    quick: bool

    def lengths(self) -> tuple[int, ...]:
        return TEST_LENGTHS[:2] if self.quick else TEST_LENGTHS

    def case(self, length: int | None = None) -> str:
        tested = "" if length is None else f", tested at {length}"
        return f"{self.task}, trained at {TRAIN_LENGTH}{tested}" + ", quick" * self.quick


def perform(job: Job) -> Result:
    return run(*job[:3], QUICK if job.quick else SETTING, job.lengths())


def rows(job: Job, result: Result) -> list[dict[str, Any]]:
    def row(case: str, metric: str, value: str, unit: str) -> dict[str, Any]:
        return {
            "case": case,
            "provider": job.variant,
            "metric": metric,
            "value": value,
            "unit": unit,
            "seed": job.seed,
        }

    return [
        *(
            row(job.case(length), "accuracy", f"{accuracy:.4f}", "1")
            for length, accuracy in result.accuracy.items()
        ),
        row(job.case(), "training", f"{result.seconds:.1f}", "CPU s"),
        row(job.case(), "final loss", f"{result.loss:.4f}", "nat"),
        row(job.case(), "parameters", str(result.parameters), "1"),  # last: the run is whole
    ]


def measured() -> set[tuple[str, str, str]]:
    """Case, provider and seed of the runs that have been made."""
    return {
        (row["case"], row["provider"], row["seed"])
        for row in _record.read("recall")
        if row["metric"] == "parameters"
    }


def accuracies(task: str, variant: str, length: int, quick: bool) -> list[float]:
    """One number per seed in the record."""
    case = Job(task, variant, 0, quick).case(length)
    return [
        float(row["value"])
        for row in _record.read("recall")
        if (row["case"], row["provider"], row["metric"]) == (case, variant, "accuracy")
    ]


def table(quick: bool) -> None:
    """Mean and range over seeds."""
    for task in TASKS:
        lengths = Job(task, "", 0, quick).lengths()
        print(f"\n{task}: accuracy after training at {TRAIN_LENGTH}; chance {CHANCE:.3f}")
        print(f"{'tested at':24}" + "".join(f"{length:>20}" for length in lengths))
        for variant in VARIANTS:
            cells = [accuracies(task, variant, length, quick) for length in lengths]
            if any(cells):
                print(f"{variant:24}" + "".join(f"{_spread(cell):>20}" for cell in cells))


def _spread(values: list[float]) -> str:
    if not values:
        return ""
    return f"{statistics.mean(values):.3f} ({min(values):.2f}-{max(values):.2f})"


def draw(quick: bool) -> None:
    """One panel per task, and one for the parts of the memory."""
    panels = [(task, task, [*MODELS]) for task in TASKS]
    panels.insert(1, ("mqar, LMM without one part", "mqar", ["LMM", *ABLATIONS]))
    figure = Figure(figsize=(4.6 * len(panels), 4.2), layout="constrained")
    every = figure.subplots(1, len(panels), sharey=True)
    for (title, task, variants), axes in zip(panels, every, strict=True):
        for i, variant in enumerate(variants):
            points = {
                length: values
                for length in Job(task, variant, 0, quick).lengths()
                if (values := accuracies(task, variant, length, quick))
            }
            if not points:
                continue
            means = [statistics.mean(values) for values in points.values()]
            low, high = ([f(values) for values in points.values()] for f in (min, max))
            axes.plot([*points], means, color=f"C{i}", marker=".", label=variant)
            axes.fill_between([*points], low, high, color=f"C{i}", alpha=0.12, linewidth=0)
        axes.axhline(CHANCE, color="black", linestyle="--", linewidth=0.8)
        axes.set_xscale("log", base=2)
        lengths = Job(task, "", 0, quick).lengths()
        axes.set_xticks(lengths, [str(length) for length in lengths])
        axes.set(title=title, xlabel="tokens", ylim=(0, 1.03))
        if axes.lines[1:]:  # more than chance
            axes.legend(fontsize="x-small")
    every[0].set_ylabel(f"accuracy (dashed: chance; trained at {TRAIN_LENGTH})")
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, dpi=120)
    print(f"wrote {FIGURE}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--task", choices=TASKS, nargs="+", default=[*TASKS])
    parser.add_argument("--variant", choices=VARIANTS, nargs="+", default=[*VARIANTS])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=10, help="those below were tuned on")
    parser.add_argument("--jobs", type=int, default=1, help="processes, of one thread each")
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that it runs")
    options = parser.parse_args()
    torch.set_num_threads(1)  # as the runs; see the column "device"

    done = measured()
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    seeds = seeds[:1] if options.quick else seeds
    jobs = [
        job
        for task in options.task
        for seed in seeds  # all variants of a seed first
        for variant in TASKS[task].variants
        if variant in options.variant
        if ((job := Job(task, variant, seed, options.quick)).case(), variant, str(seed)) not in done
    ]
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(perform, job): job for job in jobs}
        for number, future in enumerate(as_completed(futures), start=1):
            job, result = futures[future], future.result()
            path = _record.record("recall", rows(job, result))
            shown = ", ".join(f"{length}: {a:.3f}" for length, a in result.accuracy.items())
            print(
                f"{number}/{len(jobs)} {job.task}, {job.variant}, seed {job.seed}: {shown} "
                f"({result.seconds:.0f} s, loss {result.loss:.3f})",
                flush=True,
            )
            print(f"wrote {path}", flush=True)
    table(options.quick)
    draw(options.quick)


if __name__ == "__main__":
    main()
