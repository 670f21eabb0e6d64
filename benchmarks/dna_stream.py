"""Predict a million short reads from FASTA, and one long record, in bounded memory.

    python benchmarks/dna_stream.py [--reads 1000000] [--bases 20000000] [--quick]

The classifier, and the k-mer floor beside it, are fitted with their defaults on 2,000 reads of 100
bases of two compositions. A fresh process of one thread loads a model and reads the file; its peak
resident memory counts Python, torch and scikit-learn, too, and `RSS before` is what these take.
Claim: a million reads stay below 500 MiB.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import _record
import numpy as np
import torch
from _memory import resident_mib

READ_LENGTH = 100
Reader = Callable[[str], Iterable[Any]]
"""From a FASTA file to answers, some records at a time."""


def write_fasta(path: Path, records: int, length: int, seed: int) -> list[str]:
    """Random records of two compositions, in turn; returns their labels."""
    rng = np.random.default_rng(seed)
    shares = np.array([[0.3, 0.2, 0.2, 0.3], [0.2, 0.3, 0.3, 0.2]])
    labels = []
    with path.open("w") as file:
        for number in range(records):
            kind = number % 2
            file.write(f">read{number}\n")
            for first in range(0, length, 10**6):
                size = min(10**6, length - first)
                letters = rng.choice(np.frombuffer(b"ACGT", np.uint8), size, p=shares[kind])
                file.write(letters.tobytes().decode() + "\n")
            labels.append("AT-rich" if kind == 0 else "GC-rich")
    return labels


def measure(provider: str, model: str, fasta: str) -> None:
    """In a process of its own: load a model, predict a file, print records, seconds, MiB."""
    torch.set_num_threads(1)
    answer = READERS[provider](model)
    before, begun = resident_mib(), time.perf_counter()
    records = sum(map(len, answer(fasta)))
    print(records, time.perf_counter() - begun, before, resident_mib())


def read_titans(model: str) -> Reader:
    from titans_dna import TitansDNAClassifier

    return TitansDNAClassifier.load(model).iter_predict


def read_floor(model: str) -> Reader:
    from titans_core.persistence import load_tree
    from titans_dna import KmerBaseline, iter_sequences

    floor = KmerBaseline.from_dict(load_tree(model, kind="floor"))
    return lambda fasta: map(floor.predict_proba, iter_sequences(fasta, batch_bases=2**18))


READERS: dict[str, Callable[[str], Reader]] = {"titans": read_titans, "k-mer LR": read_floor}


def fit(folder: Path, train: Path, labels: list[str], head: str) -> dict[str, Path]:
    """One file a provider, fitted with its defaults."""
    from titans_core.persistence import save_tree
    from titans_dna import KmerBaseline, TitansDNAClassifier

    models = {provider: folder / f"{provider}.titans" for provider in READERS}
    TitansDNAClassifier(head=head, progress=False).fit(train, labels).save(models["titans"])
    save_tree(models["k-mer LR"], KmerBaseline().fit(train, labels).to_dict(), kind="floor")
    return models


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--reads", type=int, default=1_000_000, help="0: leave them out")
    parser.add_argument(
        "--bases", type=int, default=20_000_000, help="of the one long record; or 0"
    )
    parser.add_argument("--quick", action="store_true", help="20,000 reads, 1,000,000 bases")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(*options.measure)
        return
    torch.set_num_threads(1)  # as in `measure`; see the column "device"
    reads, bases = (20_000, 10**6) if options.quick else (options.reads, options.bases)
    cases = {
        f"{reads} reads of {READ_LENGTH} bases": (reads, READ_LENGTH),
        f"one record of {bases} bases": (1, bases),
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train, fasta = folder / "train.fa", folder / "test.fa"
        labels = write_fasta(train, 2000, READ_LENGTH, seed=0)
        for case, (records, length) in cases.items():
            if not records * length:
                continue
            # Reads of one length get weights for places; a long record needs pooling.
            models = fit(folder, train, labels, "auto" if records > 1 else "pooled")
            write_fasta(fasta, records, length, seed=1)
            rows: list[dict[str, Any]] = []
            for provider, model in models.items():
                asked = [provider, str(model), str(fasta)]
                command = [sys.executable, __file__, "--measure", *asked]
                answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                found, seconds, before, peak = map(float, answer.stdout.split())
                assert found == records
                for metric, value, unit in (
                    ("peak RSS", peak, "MiB"),
                    ("RSS before", before, "MiB"),
                    ("speed", records * length / seconds, "bases/s"),
                ):
                    rows.append(
                        {"case": case + ", quick" * options.quick, "provider": provider,
                         "metric": metric, "value": f"{value:.5g}", "unit": unit, "seed": 0}
                    )  # fmt: skip
                    print(f"{case:35} {provider:10} {metric}: {value:.5g} {unit}", flush=True)
            print(f"wrote {_record.record('dna_stream', rows)}")


if __name__ == "__main__":
    main()
