"""Write the tables of README.md from ``benchmarks/results/*.csv``; with --check only compare.

python benchmarks/_tables.py [--check]
"""

from __future__ import annotations

import re
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import _record

README = Path(__file__).parent.parent / "README.md"
PROVIDERS = (
    "titans",
    "titans, memory",
    "titans, memory frozen",
    "titans, attention only",
    "titans, no memory",
    "ridge",
    "seasonal naive",
    "naive",
)
PLACES = {96: 0, 192: 1, 336: 2, 720: 3, 24: 0, 36: 1, 48: 2, 60: 3}  # columns of a horizon
OURS, PEER = "titans_core", "titans-pytorch 0.5.5"


def long_horizon() -> str:
    """A line per set, look-back and provider: MSE by horizon, the means, and what a fit costs."""
    values: dict[tuple[str, str], dict[int, dict[str, list[float]]]] = {}
    for row in _record.read("long_horizon"):
        if "quick" not in row["case"]:
            where, horizon = row["case"].rsplit(", horizon ", 1)
            by_metric = values.setdefault((where, row["provider"]), {}).setdefault(int(horizon), {})
            by_metric.setdefault(row["metric"], []).append(float(row["value"]))

    def cell(seeds: list[float]) -> str:
        spread = f" ({max(seeds) - min(seeds):.4f})" if len(seeds) > 1 else ""
        return f"{statistics.mean(seeds):.4f}{spread}"

    horizons = "96 (ILI: 24) | 192 (36) | 336 (48) | 720 (60)"
    lines = [f"| test MSE, by horizon | | seeds | {horizons} | mean | MAE | fit, CPU s |"]
    lines += ["|---" * 10 + "|"]
    for where in dict.fromkeys(where for where, _ in values):
        for provider in PROVIDERS:
            found = values.get((where, provider))
            if found is None:
                continue
            cells = [""] * 4
            for horizon, by in found.items():
                cells[PLACES[horizon]] = cell(by["MSE"])
            seeds = str(min(len(by["MSE"]) for by in found.values()))
            over_horizons = [
                [statistics.mean(x) for x in zip(*(by[m] for by in found.values()), strict=False)]
                for m in ("MSE", "MAE")
            ]
            means = [cell(by_seed) for by_seed in over_horizons] if len(found) == 4 else ["", ""]
            costs = [statistics.mean(by["fit"]) for by in found.values() if "fit" in by]
            digits = 0 if costs and min(costs) >= 1 else 1
            cost = f"{min(costs):.{digits}f} - {max(costs):.{digits}f}" if costs else ""
            lines.append("| " + " | ".join([where, provider, seeds, *cells, *means, cost]) + " |")
    return "\n".join(lines)


def neural_peers() -> str:
    """A line per forecaster: errors, on whole batches in brackets, and what it all cost."""
    values: dict[tuple[str, str], dict[str, float]] = {}
    for row in _record.read("neural_peers"):
        if "quick" not in row["case"]:
            case, batches, _ = row["case"].partition(", whole batches of 16")
            case += row["case"].removeprefix(case + batches)
            measured = values.setdefault((case, row["provider"]), {})
            measured[row["metric"] + batches] = float(row["value"])

    def errors(by: dict[str, float], metric: str) -> str:
        batches = by.get(f"{metric}, whole batches of 16")
        return f"{by[metric]:.4f}" + (f" ({batches:.4f})" if batches else "")

    lines = ["| | | MSE | MAE | fit and forecasts, CPU s | peak memory, MiB |", "|---" * 6 + "|"]
    for (case, provider), by in values.items():
        seconds = by["fit and forecast"]
        cost = f"{seconds:,.{0 if seconds >= 1 else 1}f} | {by['peak']:,.0f}"
        lines.append(
            f"| {case} | {provider} | {errors(by, 'MSE')} | {errors(by, 'MAE')} | {cost} |"
        )
    return "\n".join(lines)


def one_model() -> str:
    """A line per set and way: MSE by horizon, and what the fits cost together."""
    values: dict[tuple[str, str], dict[int, float]] = {}
    costs: dict[tuple[str, str], dict[int, float]] = {}
    for row in _record.read("one_model"):
        if "quick" not in row["case"] and row["metric"] in ("MSE", "fit"):
            where, horizon = row["case"].rsplit(", horizon ", 1)
            table = values if row["metric"] == "MSE" else costs
            found = table.setdefault((where, row["provider"]), {})
            found[int(horizon)] = float(row["value"])
    lines = ["| test MSE, by horizon | | 96 | 192 | 336 | 720 | mean | fits, CPU s |"]
    lines += ["|---" * 8 + "|"]
    for (where, provider), by in values.items():
        cells = [f"{by[h]:.4f}" for h in sorted(by)] + [f"{statistics.mean(by.values()):.4f}"]
        seconds = list(costs.get((where, provider), {}).values())
        fits = f"{seconds[0] if provider == 'one for all' else sum(seconds):.0f}" if seconds else ""
        lines.append("| " + " | ".join([where, provider, *cells, fits]) + " |")
    return "\n".join(lines)


def core_speed() -> str:
    """One line per case: speed and memory of both, and how many times ours is better."""
    values: dict[str, dict[str, dict[str, float]]] = {}
    for row in _record.read("core_speed"):
        if "quick" not in row["case"]:
            case = values.setdefault(row["case"], {})
            case.setdefault(row["metric"], {})[row["provider"]] = float(row["value"])

    def cell(metrics: dict[str, dict[str, float]], metric: str, less: bool = False) -> str:
        measured = metrics.get(metric, {})
        if len(measured) < 2 or PEER not in measured:
            return ""
        ours, peer = measured[OURS], measured[PEER]
        ratio = peer / ours if less else ours / peer
        digits = 0 if ours >= 10 else 2
        return f"{ours:,.{digits}f} / {peer:,.{digits}f} ({ratio:.1f} x)"

    lines = [
        "| ours / titans-pytorch (times) | tokens/s, forward + backward | peak memory, MiB |",
        "|---|---|---|",
    ]
    steps = []
    for case, metrics in values.items():
        if "forward + backward" in metrics:
            speed = cell(metrics, "forward + backward")
            lines.append(f"| {case} | {speed} | {cell(metrics, 'peak memory', True)} |")
        elif "step, median" in metrics:
            steps.append(f"| {case}: ms a step | {cell(metrics, 'step, median', True)} | |")
    return "\n".join(lines + steps)


def recall() -> str:
    """One line per task and model: accuracy by length, mean and range over seeds."""
    values: dict[tuple[str, str], dict[str, list[float]]] = {}
    for row in _record.read("recall"):
        if row["metric"] == "accuracy" and "quick" not in row["case"]:
            task, _, tested = row["case"].partition(", trained at 64, tested at ")
            runs = values.setdefault((task, row["provider"]), {})
            runs.setdefault(tested, []).append(float(row["value"]))
    lengths = sorted({length for runs in values.values() for length in runs}, key=int)

    def cell(seeds: list[float]) -> str:
        spread = f" ({min(seeds):.2f}-{max(seeds):.2f})" if len(seeds) > 1 else ""
        return f"{statistics.mean(seeds):.2f}{spread}"

    lines = ["| task | model | seeds | " + " | ".join(f"{n} tokens" for n in lengths) + " |"]
    lines += ["|---|---|---|" + "---|" * len(lengths)]
    for (task, model), runs in sorted(values.items()):
        cells = [cell(runs[length]) for length in lengths]
        lines.append(f"| {task} | {model} | {len(runs[lengths[0]])} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


DNA_PROVIDERS = ("titans", "its networks alone", "its linear parts alone", "k-mer LR")
DNA_RELATIVES = ("titans", "titans, no long words", "8-mer naive Bayes", "k-mer LR")
OF_RELATIVES = ("microvirus-reads", "made-up-lineages")
DNA_ABLATION = (
    "network",
    "network, memory frozen",
    "network, attention only",
    "network, CNN only",
)


def _dna_cells(
    providers: tuple[str, ...], tasks: tuple[str, ...] = ()
) -> Iterator[tuple[str, int, str, float]]:
    """Task, seeds, accuracy and MCC of each provider, and median CPU seconds of the first's fit."""
    values: dict[str, dict[tuple[str, str], list[float]]] = {}
    for row in _record.read("dna_accuracy"):
        asked = row["case"] in tasks if tasks else "quick" not in row["case"]
        if asked and row["provider"] in providers:
            scores = values.setdefault(row["case"], {})
            scores.setdefault((row["provider"], row["metric"]), []).append(float(row["value"]))

    def cell(scores: dict[tuple[str, str], list[float]], provider: str, rows: str) -> str:
        shown = []
        for metric in ("accuracy", "MCC"):
            seeds = scores[provider, metric + rows]
            spread = f" ({min(seeds):.3f}-{max(seeds):.3f})" if len(seeds) > 1 else ""
            shown.append(f"{statistics.mean(seeds):.3f}{spread}")
        return ", ".join(shown)

    for task, scores in sorted(values.items()):
        seeds = len(scores[providers[0], "accuracy"])
        fit = statistics.median(scores[providers[0], "fit, all folds"])
        for rows in ("", ", clean rows"):
            if (providers[0], "accuracy" + rows) in scores:
                cells = " | ".join(cell(scores, provider, rows) for provider in providers)
                yield task + rows, seeds, cells, fit


def dna_accuracy() -> str:
    """One line per task: accuracy and MCC of the classifier, its parts and the floor."""
    lines = ["| accuracy, MCC | seeds | " + " | ".join(DNA_PROVIDERS) + " | fit, CPU s |"]
    lines += ["|---|---|" + "---|" * len(DNA_PROVIDERS) + "---|"]
    for task, seeds, cells, fit in _dna_cells(DNA_PROVIDERS):
        if task not in OF_RELATIVES:
            lines.append(f"| {task} | {seeds} | {cells} | {fit:,.0f} |")
    return "\n".join(lines)


def dna_relatives() -> str:
    """The same of tasks whose test rows are relatives of training rows, without long words, too."""
    lines = ["| accuracy, MCC | seeds | " + " | ".join(DNA_RELATIVES) + " | fit, CPU s |"]
    lines += ["|---|---|" + "---|" * len(DNA_RELATIVES) + "---|"]
    for task, seeds, cells, fit in _dna_cells(DNA_RELATIVES, OF_RELATIVES):
        lines.append(f"| {task} | {seeds} | {cells} | {fit:,.0f} |")
    return "\n".join(lines)


def dna_ablation() -> str:
    """One line per task: single networks with the memory learning, frozen, replaced, absent."""
    lines = ["| accuracy, MCC | seeds | memory learning | frozen | attention only | CNN only |"]
    lines += ["|---|---|---|---|---|---|"]
    for task, seeds, cells, _ in _dna_cells(DNA_ABLATION):
        lines.append(f"| {task} | {seeds} | {cells} |")
    return "\n".join(lines)


def drift_stream() -> str:
    """One line per case: errors of each provider later and at first, and what intervals hold."""
    scores: dict[str, dict[tuple[str, str], list[float]]] = {}
    for row in _record.read("drift_stream"):
        each = scores.setdefault(row["case"], {})
        each.setdefault((row["provider"], row["metric"]), []).append(float(row["value"]))
    providers = list(dict.fromkeys(provider for each in scores.values() for provider, _ in each))
    lines = ["| MSE, last third (first 20 windows), 80 % intervals hold | "]
    lines[0] += " | ".join(providers) + " |"
    lines += ["|---|" + "---|" * len(providers)]
    for case, each in scores.items():
        cells = []
        for provider in providers:
            late = statistics.mean(each[provider, "MSE, last third"])
            first = each.get((provider, "MSE, first 20 windows"))
            cell = f"{late:.3g}" + ("" if first is None else f" ({statistics.mean(first):.3g})")
            held = each.get((provider, "80 % intervals hold, last third"))
            cells.append(cell + ("" if held is None else f", {100 * statistics.mean(held):.0f} %"))
        lines.append(f"| {case} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def dna_reading() -> str:
    """One line per file and provider: reading with encoding, and building an index."""
    values: dict[tuple[str, str], dict[str, float]] = {}
    units: dict[tuple[str, str], str] = {}
    for row in _record.read("dna_reading"):
        key, metric = (row["case"], row["provider"]), row["metric"].removesuffix(", seconds")
        values.setdefault(key, {})[metric] = float(row["value"])
        if metric == "read and encode":
            units[key] = row["unit"]
    lines = ["| file | provider | read and encode | peak RSS, MiB | index, s | 1-kb fetches/s |"]
    lines += ["|---|---|---|---|---|---|"]
    for (case, provider), metrics in values.items():
        unit = units.get((case, provider))
        read = "" if unit is None else f"{metrics['read and encode']:.3g} {unit}"
        memory = metrics.get("peak RSS of reading and encoding")
        index, fetches = metrics.get("index"), metrics.get("random fetches of 1 kb")
        cells = [read, "" if memory is None else f"{memory:.0f}"]
        cells += ["" if index is None else f"{index:.2f}"]
        cells += ["" if fetches is None else f"{fetches:,.0f}"]
        lines.append(f"| {case} | {provider} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def dna_stream() -> str:
    """One line per case and provider: memory and speed of a stream."""
    values: dict[tuple[str, str], dict[str, float]] = {}
    for row in _record.read("dna_stream"):
        if "quick" not in row["case"]:
            metrics = values.setdefault((row["case"], row["provider"]), {})
            metrics[row["metric"]] = float(row["value"])
    lines = ["| file | provider | peak RSS, MiB | of which imports and model | kbases/s |"]
    lines += ["|---|---|---|---|---|"]
    for (case, provider), metrics in values.items():
        memory = f"{metrics['peak RSS']:.0f} | {metrics['RSS before']:.0f}"
        lines.append(f"| {case} | {provider} | {memory} | {metrics['speed'] / 1000:,.0f} |")
    return "\n".join(lines)


TABLES = {
    "long_horizon": long_horizon,
    "neural_peers": neural_peers,
    "one_model": one_model,
    "drift_stream": drift_stream,
    "core_speed": core_speed,
    "dna_accuracy": dna_accuracy,
    "dna_relatives": dna_relatives,
    "dna_ablation": dna_ablation,
    "dna_reading": dna_reading,
    "dna_stream": dna_stream,
    "recall": recall,
}


def main() -> None:
    before = after = README.read_text("utf-8")
    for name, make in TABLES.items():
        begin, end = f"<!-- {name}: generated -->", f"<!-- {name}: end -->"
        pattern = re.compile(f"{begin}.*?{end}", re.DOTALL)
        after = pattern.sub(f"{begin}\n{make()}\n{end}", after)
    if "--check" in sys.argv:
        if after != before:
            sys.exit(
                "README.md is not what benchmarks/results/*.csv say: run benchmarks/_tables.py"
            )
    else:
        README.write_text(after, "utf-8")


if __name__ == "__main__":
    main()
