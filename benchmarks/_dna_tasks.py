"""Tasks of ``dna_accuracy.py``: what is learned from, what is tested on, and how often."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from titans_core.registry import RegisteredFile, locate
from titans_dna import homology_groups, iter_fasta, leak_report, load_dataset, read_sequences

Rows = NDArray[np.int64]
Split = tuple[Rows, Rows]


@dataclass(frozen=True)
class Task:
    """Sequences, labels, and rows to learn from and to test on, as often as the protocol says.

    ``clean`` marks test rows that share no 30-mer with a training row, where that is reported, too.
    """

    name: str
    sequences: list[str]
    labels: NDArray[Any]
    splits: Callable[[int], Iterator[Split]]
    clean: NDArray[np.bool_] | None = None


def registered(name: str) -> Task:
    """One of `TASKS`."""
    return TASKS[name](name)


def from_files(train: list[Path], test: list[Path]) -> Task:
    """Tables with columns sequence and label, or FASTA files, one per class in the same order.

    The class of a FASTA file is the stem of the training file in its place.
    """
    if len(train) != len(test):
        raise SystemExit("give as many files to --test as to --train, classes in the same order")
    names = [path.name.split(".")[0] for path in train]
    parts = [
        pd.concat([_read(path, name) for path, name in zip(paths, names, strict=True)])
        for paths in (train, test)
    ]
    frame = pd.concat(parts, ignore_index=True)
    rows = np.arange(len(frame))
    border = len(parts[0])
    return Task(
        f"{train[0].stem} against {test[0].stem}",
        frame["sequence"].tolist(),
        frame["label"].to_numpy(),
        lambda _: iter([(rows[:border], rows[border:])]),
    )


def _read(path: Path, name: str) -> pd.DataFrame:
    if path.suffix in (".csv", ".tsv"):
        return pd.read_csv(path, sep="," if path.suffix == ".csv" else "\t")[["sequence", "label"]]
    return pd.DataFrame(
        [(r.sequence, name) for r in iter_fasta(path)], columns=["sequence", "label"]
    )


def _official(name: str) -> Task:
    """Train and dev are learned from; test rows that are copies of them are left out."""
    frame = load_dataset(name)
    known = frame["split"] != "test"
    copied = frame["sequence"].isin(frame["sequence"][known])
    learn, test = np.flatnonzero(known), np.flatnonzero(~known & ~copied)
    return Task(
        name,
        frame["sequence"].tolist(),
        frame["label"].to_numpy(),
        lambda _: iter([(learn, test)]),
    )


def _official_with_copies(name: str) -> Task:
    """As published, copies and all; the rows without relatives in training are told apart."""
    frame = load_dataset(name)
    learn = np.flatnonzero(frame["split"] != "test")
    test = np.flatnonzero(frame["split"] == "test")
    sequences = frame["sequence"].tolist()
    report = leak_report([sequences[i] for i in learn], [sequences[i] for i in test])
    clean = np.zeros(len(frame), bool)
    clean[test[report.clean]] = True
    return Task(name, sequences, frame["label"].to_numpy(), lambda _: iter([(learn, test)]), clean)


def _cross_validated(data: str, folds: int, relatives: str) -> Callable[[str], Task]:
    """Folds that keep copies, or all that share a 30-mer, or nothing together."""

    def make(name: str) -> Task:
        from sklearn.model_selection import StratifiedGroupKFold

        frame = load_dataset(data)
        sequences, labels = frame["sequence"].tolist(), frame["label"].to_numpy()
        groups = {
            "none": lambda: np.arange(len(frame)),
            "copies": lambda: pd.factorize(frame["sequence"])[0],
            "30-mers": lambda: homology_groups(read_sequences(sequences)),
        }[relatives]()

        def splits(seed: int) -> Iterator[Split]:
            splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
            yield from splitter.split(sequences, labels, groups)

        return Task(name, sequences, labels, splits)

    return make


def _leave_one_out(name: str) -> Task:
    frame = load_dataset(name)
    rows = np.arange(len(frame))
    return Task(
        name,
        frame["sequence"].tolist(),
        frame["label"].to_numpy(),
        lambda _: ((np.delete(rows, i), rows[i : i + 1]) for i in rows),
    )


def _reads_of_viruses(name: str) -> Task:
    """Which of a hundred phages a read of 100 bases, one in a hundred wrong, comes from."""
    from Bio import SeqIO

    path = locate(MICROVIRUSES, dataset=name, source="github.com/gbouras13/pharokka")
    genomes = [str(record.seq).upper() for record in SeqIO.parse(path, "genbank")]
    return _drawn(name, genomes, length=100, learn=100, test=20, wrong=0.01)


def _lineages(name: str) -> Task:
    """Which of nine made-up lineages 1000 bases come from: one virus, 45 bases drawn anew."""
    path = locate(CORONAVIRUS, dataset=name, source="github.com/nextstrain/ncov")
    [record] = iter_fasta(path)
    rng, genomes = np.random.default_rng(0), []
    for _ in range(9):
        bases = np.array(list(record.sequence.upper()))
        bases[rng.choice(len(bases), 45, replace=False)] = rng.choice(list("ACGT"), 45)
        genomes.append("".join(bases))
    return _drawn(name, genomes, length=1000, learn=300, test=100, wrong=0.0004)


def _drawn(
    name: str, genomes: list[str], *, length: int, learn: int, test: int, wrong: float
) -> Task:
    """Reads from anywhere in each genome, to learn from and to test on."""
    rng = np.random.default_rng(1)
    sequences, of_genome = [], np.repeat(np.arange(len(genomes)), learn + test)
    for number in of_genome:
        first = rng.integers(0, len(genomes[number]) - length)
        read = np.array(list(genomes[number][first : first + length]))
        changed = rng.random(length) < wrong
        read[changed] = rng.choice(list("ACGT"), changed.sum())
        sequences.append("".join(read))
    tested = np.arange(len(of_genome)) % (learn + test) >= learn
    split = np.flatnonzero(~tested), np.flatnonzero(tested)
    return Task(name, sequences, of_genome, lambda _: iter([split]))


MICROVIRUSES = RegisteredFile(
    path="dna/genomes/hundred_microviruses.gbk",
    sha256="c0f7f046bd78dcfc9802b801ef75ad6c6bfafabdbf590919c3df79ff6edef8eb",
)
CORONAVIRUS = RegisteredFile(
    path="dna/genomes/SARS-CoV-2_MN908947_nextstrain.fasta",
    sha256="12da58d108af2594c79312fec7263750cfd868e357e845d8e3e0b93cee6d4e77",
)

TASKS: dict[str, Callable[[str], Task]] = {
    "gue-prom-core-tata": _official,
    "gue-tf-4": _official,
    "ienhancer-2l-layer1": _official_with_copies,
    "uci-splice": _cross_validated("uci-splice", 10, "copies"),
    "uci-promoters": _leave_one_out,
    "cnnprom-arabidopsis-tata": _cross_validated("cnnprom-arabidopsis-tata", 5, "copies"),
    "species-5": _official_with_copies,
    "nontata-promoters": _cross_validated("nontata-promoters", 5, "30-mers"),
    "nontata-promoters, leaky folds": _cross_validated("nontata-promoters", 5, "none"),
    "microvirus-reads": _reads_of_viruses,
    "made-up-lineages": _lineages,
}
