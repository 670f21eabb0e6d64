"""Read one file in one way, in a process of its own: prints letters, seconds and peak MiB as JSON.

python benchmarks/_reading_worker.py encode titans_dna FILE
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from _memory import resident_mib

from titans_dna.alphabet import encode

WINDOW = 1000
FETCHES = 20_000


def letters(provider: str, path: str) -> Iterator[str | bytes]:
    """Sequences of all records."""
    if provider == "titans_dna":
        from titans_dna.fasta import iter_fasta

        return (record.sequence for record in iter_fasta(path))
    if provider == "titans_dna, pieces":
        from titans_dna.fasta import iter_pieces

        return (piece.sequence for piece in iter_pieces(path))
    if provider == "pyfaidx":
        import pyfaidx

        fasta = pyfaidx.Fasta(path, as_raw=True)
        return (record[:] for record in fasta)
    from Bio import SeqIO

    return (bytes(record.seq) for record in SeqIO.parse(path, "fasta"))


def fetch(provider: str, path: str) -> int:
    """Number of letters in random windows of the first record; opening is not counted."""
    generator = random.Random(0)
    if provider == "titans_dna":
        from titans_dna.fasta import open_fasta

        genome = open_fasta(path, index_folder=Path(path).parent / "index")
        name, size = next(iter(genome.lengths.items()))
        starts = [generator.randrange(size - WINDOW) for _ in range(FETCHES)]
        genome.fetch(name, 0, 1)
        begin()
        return sum(len(genome.fetch(name, start, start + WINDOW)) for start in starts)
    import pyfaidx

    fasta = pyfaidx.Fasta(path, as_raw=True)
    name = next(iter(fasta.keys()))
    starts = [generator.randrange(len(fasta[name]) - WINDOW) for _ in range(FETCHES)]
    begin()
    return sum(len(fasta[name][start : start + WINDOW]) for start in starts)


def index(provider: str, path: str) -> int:
    """Number of letters of an opened file."""
    if provider == "titans_dna":
        from titans_dna.fasta import open_fasta

        return sum(open_fasta(path, index_folder=Path(path).parent / "index").lengths.values())
    import pyfaidx

    return len(pyfaidx.Fasta(path, as_raw=True))


def begin() -> None:
    """Start the clock."""
    global begun
    begun = time.perf_counter()


begun = 0.0
if __name__ == "__main__":
    task, provider, path = sys.argv[1:]
    begin()
    if task == "encode":
        sequences = letters(provider, path)
        begin()
        count = sum(len(encode(sequence)) for sequence in sequences)
    else:
        count = {"fetch": fetch, "index": index}[task](provider, path)
    seconds = time.perf_counter() - begun
    print(json.dumps({"letters": count, "seconds": seconds, "peak": resident_mib()}))
