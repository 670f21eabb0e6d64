"""The DNA classifier beside the k-mer floor on public tasks, and what its memory adds.

    python benchmarks/dna_accuracy.py [--task NAME ...] [--seeds 3] [--jobs 2] [--quick]
    python benchmarks/dna_accuracy.py --train train.csv --test test.csv
    python benchmarks/dna_accuracy.py --train pos.fa neg.fa --test pos_test.fa neg_test.fa
    python benchmarks/dna_accuracy.py --ablation

Everything is chosen on training rows; the classifier has its defaults everywhere. The ablation
takes single networks, without the linear parts and the blend, which would hide what the memory
does. Runs that the results hold already are not made again.
"""

from __future__ import annotations

import argparse
import statistics
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import _record
import numpy as np
import torch
from _dna_tasks import TASKS, from_files, registered

from titans_core import AttentionConfig, BackboneConfig
from titans_core.training_config import TrainingConfig
from titans_dna import TitansDNAClassifier, read_sequences
from titans_dna.blend import Blend
from titans_dna.kmer_counting import first_columns, kmer_counts
from titans_dna.settings import DEFAULT_BACKBONE

FULL, FLOOR = "titans", "k-mer LR"
NETWORKS, LINEAR = "its networks alone", "its linear parts alone"
WORDLESS, BAYES = "titans, no long words", "8-mer naive Bayes"
ABLATED = ("gue-prom-core-tata", "ienhancer-2l-layer1", "species-5")
BACKBONES: dict[str, BackboneConfig] = {
    "network": DEFAULT_BACKBONE,
    "network, memory frozen": replace(
        DEFAULT_BACKBONE, memory=replace(DEFAULT_BACKBONE.memory, test_time_learning=False)
    ),
    "network, attention only": replace(
        DEFAULT_BACKBONE, block="attention", attention=AttentionConfig(num_heads=2, window=64)
    ),
    "network, CNN only": replace(DEFAULT_BACKBONE, num_blocks=0),
}


class Job(NamedTuple):
    task: str
    provider: str
    seed: int
    quick: bool
    train: tuple[Path, ...] = ()
    test: tuple[Path, ...] = ()

    @property
    def case(self) -> str:
        return self.task + ", quick" * self.quick


def make_classifier(job: Job) -> TitansDNAClassifier:
    quick = TrainingConfig(max_steps=20, validate_every=10) if job.quick else None
    common: dict[str, Any] = {"random_state": job.seed, "progress": False, "training": quick}
    if job.provider == FULL:
        return TitansDNAClassifier(**common)
    return TitansDNAClassifier(
        **common,
        backbone=BACKBONES[job.provider],
        linear=False,
        n_networks=1,
        reverse_complement=None,
    )


def perform(job: Job) -> list[dict[str, Any]]:
    """Rows of one task and seed: all its folds, learned and tested."""
    torch.set_num_threads(1)
    task = from_files(list(job.train), list(job.test)) if job.train else registered(job.task)
    classes, y = np.unique(task.labels, return_inverse=True)
    sequences = read_sequences(task.sequences)
    answers: dict[str, list[np.ndarray]] = {}
    tested, seconds, reading = [], 0.0, 0.0
    for number, (learn, test) in enumerate(task.splits(job.seed)):
        if job.quick and number == 2:
            break
        begun = time.process_time()
        classifier = make_classifier(job).fit(sequences.take(learn), task.labels[learn])
        between = time.process_time()
        answer = classifier.predict_proba(sequences.take(test))
        seconds, reading = seconds + between - begun, reading + time.process_time() - between
        known = np.searchsorted(classes, classifier.classes_)
        by_part = parts(job, classifier, sequences.take(test), np.searchsorted(known, y[learn]))
        if job.provider == FULL and classifier.model_.kinship is not None:
            model = replace(classifier.model_, kinship=None)
            by_part[WORDLESS] = np.exp(model.log_probabilities(sequences.take(test)))
            by_part[BAYES] = naive_bayes(sequences.take(learn), y[learn], sequences.take(test))
        for provider, p in {job.provider: answer, **by_part}.items():
            wide = np.zeros((len(test), len(classes)))
            wide[:, known] = p
            answers.setdefault(provider, []).append(wide)
        tested.append(test)
    rows = np.concatenate(tested)
    found = []
    for provider, said in answers.items():
        p = np.concatenate(said)
        scores = score(y[rows], p)
        if task.clean is not None:
            kept = task.clean[rows]
            clean = score(y[rows][kept], p[kept])
            scores |= {f"{metric}, clean rows": value for metric, value in clean.items()}
        found += [row(job, provider, metric, value) for metric, value in scores.items()]
    found.append(row(job, job.provider, "predict, a sequence", 1e3 * reading / len(rows), "CPU ms"))
    found.append(
        row(job, job.provider, "fit, all folds", seconds, "CPU s")
    )  # last: the run is whole
    return found


def parts(job: Job, classifier: Any, sequences: Any, y: np.ndarray) -> dict[str, np.ndarray]:
    """What the floor and the parts of the full classifier say by themselves."""
    if job.provider != FULL:
        return {}
    model = classifier.model_
    said, heads = model.by_expert(sequences), len(model.networks[0].config.heads)
    found = {FLOOR: model.floor.probabilities(sequences)}
    for provider, experts in ((NETWORKS, slice(heads)), (LINEAR, slice(heads, None))):
        held = classifier.held_out_by_expert_[experts]
        blend = Blend.fit(held, y[classifier.held_out_], np.ones(held.shape[1]))
        found[provider] = np.exp(blend(said[experts]))
    return found


def naive_bayes(learn: Any, y: np.ndarray, test: Any) -> np.ndarray:
    """How reads are told since the RDP classifier (Wang et al., 2007): by words of eight bases."""
    from sklearn.naive_bayes import BernoulliNB

    first = first_columns(8)[7]
    model = BernoulliNB(alpha=0.5).fit(kmer_counts(learn, 8)[:, first:], y)
    return model.predict_proba(kmer_counts(test, 8)[:, first:])


def score(y: np.ndarray, p: np.ndarray) -> dict[str, float]:
    from sklearn.metrics import balanced_accuracy_score, matthews_corrcoef, roc_auc_score

    predicted = p.argmax(1)
    binary = p.shape[1] == 2
    return {
        "accuracy": float((predicted == y).mean()),
        "balanced accuracy": float(balanced_accuracy_score(y, predicted)),
        "MCC": float(matthews_corrcoef(y, predicted)),
        "AUROC": float(roc_auc_score(y, p[:, 1] if binary else p, multi_class="ovr")),
        "errors": float((predicted != y).sum()),
        "test rows": float(len(y)),
    }


def row(job: Job, provider: str, metric: str, value: float, unit: str = "1") -> dict[str, Any]:
    return {
        "case": job.case,
        "provider": provider,
        "metric": metric,
        "value": f"{value:.5g}",
        "unit": unit,
        "seed": job.seed,
    }


def measured() -> set[tuple[str, str, str]]:
    """Case, provider and seed of the runs that have been made."""
    return {
        (row["case"], row["provider"], row["seed"])
        for row in _record.read("dna_accuracy")
        if row["metric"] == "fit, all folds"
    }


def table(quick: bool) -> None:
    """Mean and range over seeds."""
    values: dict[tuple[str, str], dict[str, list[float]]] = {}
    for found in _record.read("dna_accuracy"):
        if found["case"].endswith(", quick") == quick:
            metrics = values.setdefault((found["case"], found["provider"]), {})
            metrics.setdefault(found["metric"], []).append(float(found["value"]))
    print(f"{'task':34}{'provider':28}{'seeds':>6}{'accuracy':>22}{'MCC':>22}{'fit, CPU s':>12}")
    for (case, provider), metrics in values.items():
        spread = [
            f"{statistics.mean(v):.4f} ({min(v):.3f}-{max(v):.3f})"
            for v in (metrics["accuracy"], metrics["MCC"])
        ]
        fit = metrics.get("fit, all folds")
        cost = "" if fit is None else f"{statistics.median(fit):.0f}"
        seeds = len(metrics["accuracy"])
        print(f"{case:34}{provider:28}{seeds:6}{spread[0]:>22}{spread[1]:>22}{cost:>12}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--task", choices=TASKS, nargs="+", default=[*TASKS])
    parser.add_argument("--train", type=Path, nargs="+", help="a table, or a FASTA for each class")
    parser.add_argument("--test", type=Path, nargs="+", help="as --train")
    parser.add_argument("--ablation", action="store_true", help="single networks on three tasks")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="processes, of one thread each")
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that it runs")
    options = parser.parse_args()
    if (options.train is None) != (options.test is None):
        parser.error("--train and --test go together")
    torch.set_num_threads(1)  # as the runs; see the column "device"

    seeds = range(1 if options.quick else options.seeds)
    if options.train:
        name = f"{options.train[0].name} against {options.test[0].name}"
        files = tuple(options.train), tuple(options.test)
        jobs = [Job(name, FULL, seed, options.quick, *files) for seed in seeds]
    elif options.ablation:
        tasks = ABLATED[:1] if options.quick else ABLATED
        jobs = [Job(t, p, s, options.quick) for s in seeds for t in tasks for p in BACKBONES]
    else:
        tasks = ["uci-splice"] if options.quick else options.task
        jobs = [Job(task, FULL, seed, options.quick) for seed in seeds for task in tasks]
    done = measured()
    jobs = [job for job in jobs if (job.case, job.provider, str(job.seed)) not in done]
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(perform, job): job for job in jobs}
        for number, future in enumerate(as_completed(futures), start=1):
            job, found = futures[future], future.result()
            path = _record.record("dna_accuracy", found)
            of_job = {r["metric"]: r["value"] for r in found if r["provider"] == job.provider}
            print(
                f"{number}/{len(jobs)} {job.case}, {job.provider}, seed {job.seed}: accuracy "
                f"{of_job['accuracy']}, MCC {of_job['MCC']}, {of_job['fit, all folds']} CPU s",
                flush=True,
            )
            print(f"wrote {path}", flush=True)
    table(options.quick)


if __name__ == "__main__":
    main()
