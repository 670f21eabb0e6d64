"""FASTA is read and encoded faster than any network takes it, in bounded memory.

    python benchmarks/dna_reading.py

Every figure is the median of fresh processes, alternating between providers, on files generated
anew (Linux). Claims: whole records are read and encoded at 150 Mbp/s or more; a record of 1 Gbp
streams by pieces below 200 MiB, a million records of 100 bp below 500 MiB. What pyfaidx needs to
build and read its index is not counted as reading.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import _record

WORKER = Path(__file__).with_name("_reading_worker.py")
WIDTH = 60
RANDOM = 2**22  # letters that are drawn; longer records repeat them


def draw(count: int) -> bytes:
    return bytes(random.Random(0).choices(b"ACGT", k=count))


def write_genome(path: Path, records: int, length: int) -> None:
    """Records of one length in lines of 60 letters."""
    drawn = draw(RANDOM)
    lines = b"".join(drawn[at : at + WIDTH] + b"\n" for at in range(0, len(drawn) - WIDTH, WIDTH))
    with path.open("wb") as file:
        for number in range(records):
            file.write(b">chr%d\n" % (number + 1))
            rest = length // WIDTH * (WIDTH + 1)
            while rest:
                rest -= file.write(lines[:rest])


def write_reads(path: Path, records: int) -> None:
    """Records of 100 letters, one line each."""
    drawn = draw(RANDOM)
    with path.open("wb") as file:
        for number in range(records):
            start = number * 101 % (len(drawn) - 100)
            file.write(b">read%d length=100\n%s\n" % (number, drawn[start : start + 100]))


def measure(
    task: str, providers: tuple[str, ...], path: Path, repeats: int
) -> dict[str, tuple[float, float, int]]:
    """Median seconds, median peak in MiB and letters, by provider."""
    found: dict[str, list[dict[str, Any]]] = {provider: [] for provider in providers}
    for _ in range(repeats):
        for provider in providers:
            if task == "index":
                forget(path)
            command = [sys.executable, str(WORKER), task, provider, str(path)]
            answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found[provider].append(json.loads(answer.stdout))
    assert len({run["letters"] for runs in found.values() for run in runs}) == 1
    return {
        provider: (
            statistics.median(run["seconds"] for run in runs),
            statistics.median(run["peak"] for run in runs),
            runs[0]["letters"],
        )
        for provider, runs in found.items()
    }


def forget(path: Path) -> None:
    """Remove the indexes of a file."""
    Path(f"{path}.fai").unlink(missing_ok=True)
    for kept in (path.parent / "index").glob("*"):
        kept.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of everything, once")
    options = parser.parse_args()
    part, repeats = (10, 1) if options.quick else (1, 5)
    rows: list[dict[str, Any]] = []

    def note(case: str, provider: str, metric: str, value: float, unit: str) -> None:
        case += ", quick" * options.quick
        rows.append(
            {"case": case, "provider": provider, "metric": metric, "value": f"{value:.4g}",
             "unit": unit, "seed": 0}
        )  # fmt: skip
        print(f"{case:45} {provider:20} {metric}: {value:.4g} {unit}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "genome.fa"
        write_genome(path, 4, 50_000_040 // part)
        case = f"{200 // part} Mbp in 4 records"
        providers = ("titans_dna", "titans_dna, pieces", "pyfaidx", "Biopython")
        measure("index", ("pyfaidx",), path, 1)
        for provider, run in measure("encode", providers, path, repeats).items():
            note(case, provider, "read and encode", run[2] / run[0] / 1e6, "Mbp/s")
            note(case, provider, "peak RSS of reading and encoding", run[1], "MiB")
        pair = ("titans_dna", "pyfaidx")
        for provider, run in measure("fetch", pair, path, repeats).items():
            note(case, provider, "random fetches of 1 kb", run[2] / 1000 / run[0], "1/s")
        for provider, run in measure("index", pair, path, min(repeats, 3)).items():
            note(case, provider, "index", run[0], "s")
        path.unlink()
        forget(path)

        write_genome(path, 1, 1_000_000_020 // part)
        case = f"{1000 // part} Mbp in 1 record"
        ((_, run),) = measure("encode", ("titans_dna, pieces",), path, 1).items()
        note(case, "titans_dna, pieces", "read and encode", run[2] / run[0] / 1e6, "Mbp/s")
        note(case, "titans_dna, pieces", "peak RSS of reading and encoding", run[1], "MiB")
        path.unlink()

        path = Path(folder) / "reads.fa"
        write_reads(path, 1_000_000 // part)
        case = f"{1_000_000 // part} records of 100 bp"
        providers = ("titans_dna", "titans_dna, pieces", "Biopython")
        for provider, run in measure("encode", providers, path, min(repeats, 3)).items():
            note(case, provider, "read and encode, seconds", run[0], "s")
            note(case, provider, "peak RSS of reading and encoding", run[1], "MiB")
        for provider, run in measure("index", pair, path, 1).items():
            note(case, provider, "index", run[0], "s")
            note(case, provider, "peak RSS of indexing", run[1], "MiB")
    print(f"wrote {_record.record('dna_reading', rows)}")


if __name__ == "__main__":
    main()
