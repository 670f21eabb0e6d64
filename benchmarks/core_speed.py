"""Our NeuralMemory against that of titans-pytorch 0.5.5, on a CPU with two threads (Linux).

    python benchmarks/core_speed.py

Claims, forward + backward in float32, memory of two layers with expansion 4, our default against
the peer. The peer follows the paper only in its faithful mode (``batch_size=chunk_size``): there
ours is at least 10 times as fast at d 64, chunk 16, and 5 times at chunk 64 and at d 128. Its
fast default takes all gradients at the initial weights: ours is at least 6 times as fast at chunk
16, 2.5 times at 64, as fast at 256. One token of a stream: 8 times. Memory: at most a quarter.

The peer lives in an environment of its own, ``.venv-peers/``, made by the first run. Each provider
of a case is a fresh process (``_core_worker.py``); they take turns, one run each, and while one
runs the others sleep. Medians of 5 runs after a warm-up.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _record
import torch
from matplotlib.figure import Figure

ROOT = Path(__file__).parent.parent
WORKER = Path(__file__).parent / "_core_worker.py"
OURS, ZERO, PEER = "titans_core", "titans_core, forget toward zero", "titans-pytorch 0.5.5"
EXPANSION = 4
BOTH = "forward + backward"


@dataclass(frozen=True)
class Case:
    batch: int
    dim: int
    heads: int
    chunk: int
    faithful: bool  # the peer's mode; ours is always the paper's rule
    claim: float | None = None  # times as fast, forward + backward
    tokens: int = 2048

    def __str__(self) -> str:
        shape = f"batch {self.batch}, d {self.dim}, heads {self.heads}, chunk {self.chunk}"
        return f"{shape}, T {self.tokens}, peer {'faithful' if self.faithful else 'fast default'}"


CASES = [
    Case(1, 64, 1, 16, faithful=True, claim=10),
    Case(1, 64, 1, 64, faithful=True, claim=5),
    Case(1, 128, 1, 64, faithful=True, claim=5),
    Case(1, 128, 4, 64, faithful=True),
    Case(4, 128, 1, 16, faithful=False, claim=6),
    Case(4, 128, 1, 64, faithful=False, claim=2.5),
    Case(4, 128, 1, 256, faithful=False, claim=1),
    Case(4, 128, 4, 64, faithful=False),
]
STREAM = Case(1, 64, 1, 64, faithful=True, tokens=1)
LONG = Case(4, 128, 1, 64, faithful=False, tokens=8192)  # ours alone, for its memory


class Worker:
    """A process that has built one provider's layer for one case."""

    def __init__(self, provider: str, case: Case) -> None:
        python = peer_python() if provider == PEER else sys.executable
        self.provider = provider
        self.process = subprocess.Popen(
            [str(python), str(WORKER), provider], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        shape = {key: getattr(case, key) for key in ("batch", "tokens", "dim", "heads", "chunk")}
        version = self.ask(op="make", **shape, faithful=case.faithful, expansion=EXPANSION)
        if version != torch.__version__:
            sys.exit(f"{provider} runs on torch {version}, this on {torch.__version__}")

    def ask(self, **request: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(request), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.provider} gave up: exit code {self.process.wait()}")
        return json.loads(answer)

    def close(self) -> None:
        self.process.communicate()  # closes its stdin, at the end of which it leaves


def peer_python() -> Path:
    """The interpreter that has titans-pytorch, after installing it where it is missing."""
    folder = ROOT / ".venv-peers" / "titans-pytorch"
    python, stamp = folder / "bin" / "python", folder / ".installed"
    requirement = PEER.replace(" ", "==")
    if not stamp.exists() or stamp.read_text() != requirement:
        print(f"installing {requirement} into {folder}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        (folder.parent / ".gitignore").write_text("*\n")
        pins = ["--constraint", str(ROOT / "constraints.txt")]  # no other torch than ours
        pip = [str(python), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, *pins, requirement, "torch"], check=True)
        stamp.write_text(requirement)
    return python


class Report:
    """Rows for the record, and the table on the terminal."""

    def __init__(self, quick: bool) -> None:
        self.quick = quick
        self.rows: list[dict[str, Any]] = []

    def note(self, case: Case, provider: str, metric: str, value: float, unit: str) -> None:
        self.rows.append(
            {"case": f"{case}" + ", quick" * self.quick, "provider": provider, "metric": metric,
             "value": f"{value:.4g}", "unit": unit, "seed": 0}
        )  # fmt: skip

    def compare(
        self, case: Case, metric: str, unit: str, values: dict[str, float], claim: float | None
    ) -> None:
        """Ours beside the peer's; tokens/s should be high, everything else low."""
        for provider, value in values.items():
            self.note(case, provider, metric, value, unit)
        shown = [f"{values[p]:.4g}" if p in values else "" for p in (OURS, ZERO, PEER)]
        ratio = values[OURS] / values.get(PEER, math.nan)
        better = ratio if unit == "tokens/s" else 1 / ratio
        verdict = [] if claim is None else [f">= {claim:g}", "yes" if better >= claim else "NO"]
        self.say(case, f"{metric}, {unit}", *shown, f"{better:.2f}", *verdict)

    def say(self, *cells: object) -> None:
        print(" | ".join(map(str, cells)), flush=True)


def take_turns(case: Case, things: list[str], repeats: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of every run, by thing and provider."""
    seconds: dict[str, dict[str, list[float]]] = {}
    with ExitStack() as stack:
        workers = {p: stack.enter_context(closing(Worker(p, case))) for p in (OURS, ZERO, PEER)}
        for thing in things:
            takes_part = {OURS: workers[OURS]} if thing == "matmul" else workers
            for worker in takes_part.values():
                worker.ask(op="time", what=thing)  # warm-up
            seconds[thing] = {provider: [] for provider in takes_part}
            for _ in range(repeats):
                for provider, worker in takes_part.items():
                    seconds[thing][provider] += worker.ask(op="time", what=thing)
    return seconds


def throughput(report: Report, case: Case, repeats: int) -> None:
    """Tokens/s, and at d 128 the share of this machine's rate of matrix products that ours gets."""
    seconds = take_turns(case, ["forward", BOTH] + ["matmul"] * (case.dim == 128), repeats)
    tokens = case.batch * case.tokens
    medians = {
        thing: {provider: statistics.median(runs) for provider, runs in table.items()}
        for thing, table in seconds.items()
    }
    for thing in ("forward", BOTH):
        rates = {provider: tokens / median for provider, median in medians[thing].items()}
        report.compare(case, thing, "tokens/s", rates, case.claim if thing == BOTH else None)
    if "matmul" in medians:
        rate = 2 * 2048**3 / medians["matmul"][OURS]
        # Products of the memory with its weights, 11 d h multiply-adds a token forward and twice
        # that backward; neither recomputation, the attention inside chunks nor the projections
        # of the layer (5 d^2 forward) are counted.
        width = case.dim // case.heads
        operations = 2 * 33 * case.heads * width * EXPANSION * width
        share = operations * tokens / medians[BOTH][OURS] / rate
        report.note(case, OURS, "matmul 2048 x 2048", rate / 1e9, "GFLOP/s")
        report.note(case, OURS, "fraction of matmul rate", share, "1")
        report.say(case, f"fraction of matmul rate ({rate / 1e9:.0f} GFLOP/s)", f"{share:.3f}")


def streaming(report: Report, repeats: int) -> None:
    """Milliseconds of a one-token step; the mean holds the peer's dearer steps at chunk ends."""
    seconds = take_turns(STREAM, ["step"], repeats)["step"]
    for name, average in (("median", statistics.median), ("mean", statistics.mean)):
        values = {provider: 1e3 * average(runs) for provider, runs in seconds.items()}
        report.compare(STREAM, f"step, {name}", "ms", values, 8 if name == "median" else None)


def memory(report: Report, case: Case, *providers: str) -> None:
    """MiB that forward + backward adds at its highest, each in a process that did nothing else."""
    values = {}
    for provider in providers:
        with closing(Worker(provider, case)) as worker:
            values[provider] = worker.ask(op="peak")
    report.compare(case, "peak memory", "MiB", values, 4 if PEER in providers else None)


def draw(path: Path) -> None:
    """Bars of the recorded tokens/s, forward + backward."""
    rates = {
        (row["case"], row["provider"]): float(row["value"])
        for row in _record.read("core_speed")
        if row["metric"] == BOTH and "quick" not in row["case"]
    }
    cases = [str(case) for case in CASES if (str(case), PEER) in rates][::-1]
    if not cases:
        return
    figure = Figure(figsize=(8, 0.8 + 0.6 * len(cases)), layout="constrained")
    axes = figure.subplots()
    for shift, provider, colour in ((0.2, OURS, "#0072b2"), (-0.2, PEER, "0.6")):
        places = [i + shift for i in range(len(cases))]
        axes.barh(places, [rates[c, provider] for c in cases], 0.38, label=provider, color=colour)
    axes.set_xscale("log")
    axes.set_xlim(left=min(rates.values()) / 4)
    axes.set_yticks(range(len(cases)), cases, fontsize=8)
    axes.set_xlabel("tokens/s, forward + backward, two CPU threads")
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two cases, 2 runs each: a minute")
    parser.add_argument("--only", default="", help="cases with this in their name")
    options = parser.parse_args()
    torch.set_num_threads(2)  # as the workers; `_record` writes it down
    repeats, cases = (2, [CASES[1], CASES[5]]) if options.quick else (5, CASES)
    if options.only:
        cases = [case for case in CASES if options.only in str(case)]
    report = Report(options.quick)
    report.say("case", "metric", *(OURS, ZERO, PEER), "times better", "claim", "holds?")
    for case in cases:
        throughput(report, case, repeats)
        memory(report, case, OURS, PEER)
    if options.only in str(STREAM):
        streaming(report, repeats)
    if options.only in str(LONG):
        memory(report, LONG, OURS)
    path = _record.record("core_speed", report.rows)
    draw(path.with_suffix(".png"))
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
