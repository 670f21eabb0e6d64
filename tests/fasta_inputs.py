"""Odd FASTA files, and what fetches from them in other processes (which must find it by import)."""

from __future__ import annotations

import random
from pathlib import Path

ODD = {
    "one record": b">a\nACGT\n",
    "two records": b">a\nACGT\n>b\nGGTT\n",
    "no final newline": b">a\nACGT\n>b\nGGTT",
    "wrapped": b">a\nACGT\nACGT\nAC\n>b\nGGTT\nGG\n",
    "wrapped, last line full": b">a\nACGT\nACGT\n>b\nGG\n",
    "wrapped, no final newline": b">a\nACGT\nACGT\nAC",
    "one letter a line": b">a\nA\nC\nG\nT\n",
    "one letter": b">a\nA",
    "crlf": b">a x\r\nACGT\r\nAC\r\n>b\r\nGG\r\n",
    "crlf, no final newline": b">a\r\nACGT\r\nAC\r\n>b\r\nGG",
    "cr only": b">a\rACGT\rAC\r>b\rGG\r",
    "cr only, no final line end": b">a\rACGT\r>b\rGG",
    "mixed line ends": b">a\nACGT\r\nACGT\rAC\n>b\r\nGG\n",
    "crlf headers, lf lines": b">a\r\nACGT\nACGT\n>b\r\nGG\n",
    "doubled cr": b">a\r\r\nACGT\r\r\nAC\r\r\n",
    "blank line inside": b">a\nACGT\n\nACGT\n>b\nGG\n",
    "blank line after header": b">a\n\nACGT\n>b\nGG\n",
    "blank line between records": b">a\nACGT\n\n>b\nGG\n\n",
    "blank lines at the end": b">a\nACGT\nAC\n\n\n\n",
    "blank lines, crlf": b">a\r\n\r\nACGT\r\n\r\n>b\r\nGG\r\n\r\n",
    "blank line on the grid": b">a\nACGT\nACGT\n\n>b\nGG\n",
    "lines of blanks": b">a\nACGT\n   \n\t\nAC\n",
    "last line longer": b">a\nACGT\nACGT\nACGTA\n>b\nGG\n",
    "last line much longer": b">a\nACGT\nACGTACGTACGT\n>b\nGG\n",
    "last line as long as a line and its end": b">a\nACGT\nACGTA\n>b\nGG\n",
    "first line shorter": b">a\nAC\nACGT\nACGT\n",
    "middle line shorter": b">a\nACGT\nAC\nACGT\n>b\nGG\n",
    "uneven": b">a\nACG\nACGTA\nA\nACGTACGT\n>b\nG\nGG\n",
    "widths differ between records": b">a\nACGT\nACG\n>b\nGG\nGG\nG\n>c\nACGTACGT\nT\n",
    "lower case": b">a\nacgt\nACgt\nn\n",
    "all codes": b">a\nACGTRYSWKMBDHVN\nacgtryswkmbdhvn\nUu\n",
    "long runs of n": b">a\n" + b"N" * 200 + b"\n" + b"N" * 200 + b"\nACGT\n",
    "blanks in lines": b">a\nAC GT\nA C\n>b\n GG\n",
    "blanks after lines": b">a\nACGT  \nACGT  \nAC\n",
    "blanks after some lines": b">a\nACGT\nACGT \nAC\n",
    "tabs in lines": b">a\nAC\tGT\n\tAC\n",
    "numbered by blanks": b">a\n          ACGT ACGT\n          AC\n",
    "header with blanks": b">a some  words here \nACGT\n",
    "header with tabs": b">a\tsome\twords\nACGT\n",
    "header begins with blanks": b">  a b\nACGT\n",
    "header with more >": b">a >b > c\nACGT\n>>d\nGG\n",
    "header of a database": b">gi|129628|sp|P07175.1|PARA_AGRTU RecName: X\nACGT\n",
    "header with utf-8": ">a Größe µm é\nACGT\n".encode(),
    "header ends in odd blanks": ">a x\x0b\x0c\x1c\x85\xa0\nACGT\n".encode(),
    "header split at odd blanks": ">a\x1cb\xa0c\nACGT\n".encode(),
    "long header": b">a " + b"x" * 5000 + b"\nACGT\n",
    "no letters": b">a\n>b\nGG\n",
    "no letters, blank line": b">a\n\n>b\nGG\n",
    "no letters at the end": b">a\nACGT\n>b\n",
    "no letters, no final newline": b">a\nACGT\n>b",
    "no letters anywhere": b">a\n>b\n>c\n",
    "one header": b">a",
    "duplicate names": b">a first\nACGT\n>b\nGG\n>a second\nTTTT\n",
    "duplicate names thrice": b">a\nA\n>a\nC\n>a_2\nG\n>a\nT\n",
    "many short": b"".join(b">r%d\nACGTN\n" % number for number in range(300)),
    "long line": b">a\n" + b"ACGTTGCAAC" * 500 + b"\n>b\nGG",
    "many lines": b">a\n" + b"ACGTTGCAAC\n" * 500 + b"AC\n>b\nGG",
}
"""What Biopython reads, by what is odd about it."""

FOREIGN = {
    "blank line first": b"\n\n>a\nACGT\n",
    "byte order mark": b"\xef\xbb\xbf>a\nACGT\n",
    "latin-1 header": b">a \xe9\nACGT\n",
}
"""What Biopython refuses or may refuse, but is one record `a` of ACGT."""


def make_genome(path: Path) -> dict[str, str]:
    """Write records of several widths, the last lines short; return their letters."""
    generator = random.Random(0)
    truth, text = {}, []
    for number, (length, width) in enumerate([(70_001, 60), (50_000, 50), (999, 2000), (7, 1)]):
        name = f"chr{number + 1}"
        truth[name] = "".join(generator.choices("ACGTacgtNRYK", k=length))
        lines = [truth[name][at : at + width] for at in range(0, length, width)]
        text.append(f">{name} of {length}\n" + "\n".join(lines) + "\n")
    path.write_text("".join(text))
    return truth


class Fetches:
    """A map-style dataset: item i is 1 if the i-th of some random fetches is wrong, else 0."""

    def __init__(self, genome, truth, count, seed=0):
        self.genome, self.truth = genome, truth
        generator = random.Random(seed)
        self.places = []
        for _ in range(count):
            name = generator.choice(list(truth))
            start, end = sorted(generator.choices(range(len(truth[name]) + 1), k=2))
            self.places.append((name, start, min(end, start + 1500)))

    def __len__(self):
        return len(self.places)

    def __getitem__(self, index):
        name, start, end = self.places[index]
        return int(self.genome.fetch(name, start, end) != self.truth[name][start:end])


def count_wrong(fetches: Fetches) -> int:
    return sum(fetches[index] for index in range(len(fetches)))
