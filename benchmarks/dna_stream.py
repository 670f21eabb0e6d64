"""Predict a million short reads from FASTA, and one long record, in bounded memory.

    python benchmarks/dna_stream.py [--reads 1000000] [--bases 20000000] [--quick]

The classifier is fitted with its defaults on 2,000 reads of 100 bases of two compositions. A fresh
process loads it and reads the file; its peak resident memory counts Python and torch, too, and
`RSS before` is what these take.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import _record
import numpy as np
import torch

READ_LENGTH = 100


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


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(model: str, fasta: str) -> None:
    """In a process of its own: load a model, predict a file, print records, seconds, MiB."""
    from titans_dna import TitansDNAClassifier

    torch.set_num_threads(2)
    classifier = TitansDNAClassifier.load(model)
    before, begun, records = peak_mib(), time.perf_counter(), 0
    for answers in classifier.iter_predict(fasta):
        records += len(answers)
    print(records, time.perf_counter() - begun, before, peak_mib())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--reads", type=int, default=1_000_000)
    parser.add_argument("--bases", type=int, default=20_000_000, help="of the one long record")
    parser.add_argument("--quick", action="store_true", help="20,000 reads, 1,000,000 bases")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(*options.measure)
        return
    reads, bases = (20_000, 10**6) if options.quick else (options.reads, options.bases)

    from titans_dna import TitansDNAClassifier

    with tempfile.TemporaryDirectory() as folder:
        train = Path(folder) / "train.fa"
        labels = write_fasta(train, 2000, READ_LENGTH, seed=0)
        cases = {
            f"{reads} reads of {READ_LENGTH} bases": (reads, READ_LENGTH),
            f"one record of {bases} bases": (1, bases),
        }
        for case, (records, length) in cases.items():
            # Reads of one length get weights for places; a long record needs pooling.
            head = "auto" if records > 1 else "pooled"
            model, fasta = Path(folder) / "model.titans", Path(folder) / "test.fa"
            TitansDNAClassifier(head=head, progress=False).fit(train, labels).save(model)
            write_fasta(fasta, records, length, seed=1)
            command = [sys.executable, __file__, "--measure", str(model), str(fasta)]
            answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            found, seconds, before, peak = map(float, answer.split())
            assert found == records
            measured = [
                ("peak RSS", peak, "MiB"),
                ("RSS before", before, "MiB"),
                ("speed", records * length / seconds, "bases/s"),
            ]
            rows: list[dict[str, Any]] = [
                {
                    "case": case + ", quick" * options.quick,
                    "provider": "titans_dna",
                    "metric": metric,
                    "value": f"{value:.5g}",
                    "unit": unit,
                    "seed": 0,
                }
                for metric, value, unit in measured
            ]
            print(case, {metric: f"{value:.4g} {unit}" for metric, value, unit in measured})
            print(f"wrote {_record.record('dna_stream', rows)}")


if __name__ == "__main__":
    main()
