"""What a test set has in common with the training set, and what that alone would score."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from titans_dna.homology import (
    Indices,
    check_k,
    digests,
    homology_groups,
    homology_split,
    kmer_passes,
    rows_of,
)
from titans_dna.sequences import Sequences, read_sequences

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LeakReport", "homology_groups", "homology_split", "leak_report"]

KINDS = ("none", "near duplicate", "reverse complement", "exact duplicate")


@dataclass(frozen=True, repr=False)
class LeakReport:
    """Overlap of test rows with training rows; made by `leak_report`.

    Attributes
    ----------
    k : int
        Rows that share a stretch of k bases, on either strand, are near duplicates.
    n_train : int
    kind : ndarray of int8, shape (n_test,)
        What each test row is to the training set, an index into `KINDS`: the closest of them.
    match : ndarray of int64, shape (n_test,)
        A training row that each test row overlaps, the one with most shared k-mers first; -1 where
        there is none.
    covered : ndarray of float, shape (n_test,)
        Share of the bases of each test row that lie in shared stretches.
    compared : ndarray of bool, shape (n_test,)
        Whether the row has k-mers; one that has none (shorter than k, or too many N) can be found
        only as a duplicate.
    skip_repeats : bool
        Whether tandem repeats were left out.
    labels, copied : ndarray of shape (n_test,) or None
        The label of each test row, and (where it overlaps) what the training rows would make of
        it: the commonest label over its shared k-mers. None without labels.
    """

    k: int
    n_train: int
    kind: NDArray[np.int8]
    match: Indices
    covered: NDArray[np.float64]
    compared: NDArray[np.bool_]
    skip_repeats: bool = False
    labels: NDArray[Any] | None = None
    copied: NDArray[Any] | None = None
    names: tuple[tuple[str, ...] | None, tuple[str, ...] | None] = field(default=(None, None))

    @property
    def exact(self) -> Indices:
        """Test rows that are a training row."""
        return np.flatnonzero(self.kind == 3)

    @property
    def reverse_complement(self) -> Indices:
        """Test rows that are a training row's reverse complement, and none themselves."""
        return np.flatnonzero(self.kind == 2)

    @property
    def near(self) -> Indices:
        """Test rows that share k bases or more with a training row, and are no duplicates."""
        return np.flatnonzero(self.kind == 1)

    @property
    def overlapping(self) -> Indices:
        """Test rows of any of these kinds."""
        return np.flatnonzero(self.kind > 0)

    @property
    def clean(self) -> Indices:
        """Test rows that share no k bases with training: score on these."""
        return np.flatnonzero(self.kind == 0)

    def to_dict(self) -> dict[str, Any]:
        """Counts and shares as plain numbers, for JSON.

        ``copying_accuracy`` is the accuracy, on the overlapping rows, of copying the labels of the
        training rows they overlap; ``overlap_accuracy`` the accuracy, on all test rows, of knowing
        of each nothing but whether it overlaps; ``majority_accuracy`` that of always naming the
        commonest class.
        """
        n = len(self.kind)
        result: dict[str, Any] = {
            "k": self.k,
            "skip_repeats": self.skip_repeats,
            "n_train": self.n_train,
            "n_test": n,
            "n_exact": len(self.exact),
            "n_reverse_complement": len(self.reverse_complement),
            "n_near": len(self.near),
            "n_overlapping": len(self.overlapping),
            "n_clean": len(self.clean),
            "share_overlapping": len(self.overlapping) / n if n else 0.0,
            "mean_covered": float(self.covered.mean()) if n else 0.0,
            "n_without_kmers": int((~self.compared).sum()),
        }
        if self.labels is not None and self.copied is not None and n:
            over = self.kind > 0
            right = over & (self.copied == self.labels)
            classes, label = np.unique(self.labels, return_inverse=True)
            counts = [np.bincount(label[rows], minlength=len(classes)) for rows in (over, ~over)]
            result["copying_accuracy"] = float(right.sum() / over.sum()) if over.any() else None
            result["overlap_accuracy"] = float(sum(each.max() for each in counts) / n)
            result["majority_accuracy"] = float(np.bincount(label).max() / n)
            result["classes"] = [
                {
                    "class": name.item() if isinstance(name, np.generic) else name,
                    "n_test": int((label == c).sum()),
                    "n_overlapping": int(counts[0][c]),
                    "n_copied_right": int(right[label == c].sum()),
                }
                for c, name in enumerate(classes)
            ]
        return result

    def to_frame(self) -> pd.DataFrame:
        """One row per overlapping test row: which training row it overlaps, and how much."""
        import pandas as pd

        rows = self.overlapping
        columns: dict[str, Any] = {
            "test_row": rows,
            "train_row": self.match[rows],
            "kind": [KINDS[kind] for kind in self.kind[rows]],
            "covered": self.covered[rows],
        }
        test_names, train_names = self.names
        if test_names is not None:
            columns["test_name"] = [test_names[row] for row in rows]
        if train_names is not None:
            columns["train_name"] = [train_names[row] for row in self.match[rows]]
        if self.labels is not None and self.copied is not None:
            columns["label"] = self.labels[rows]
            columns["copied_label"] = self.copied[rows]
        return pd.DataFrame(columns)

    def _lines(self) -> list[tuple[str, str]]:
        found = self.to_dict()
        n = found["n_test"]

        def share(count: int) -> str:
            return f"{count} ({count / n:.1%})" if n else "0"

        repeats = ", tandem repeats left out" if self.skip_repeats else ""
        lines = [
            ("training rows", str(found["n_train"])),
            ("test rows", str(n)),
            ("exact duplicates of a training row", share(found["n_exact"])),
            ("exact reverse complements of one", share(found["n_reverse_complement"])),
            (f"share {self.k} bases or more with one{repeats}", share(found["n_near"])),
            (f"share no {self.k} bases", share(found["n_clean"])),
            ("bases in shared stretches, mean per row", f"{found['mean_covered']:.1%}"),
        ]
        if found["n_without_kmers"]:
            text = f"without {self.k} plain bases in a row: compared as a whole only"
            lines.append((text, share(found["n_without_kmers"])))
        for one in found.get("classes", ()):
            text = f"{one['n_overlapping']} of {one['n_test']} overlap"
            if one["n_overlapping"]:
                text += f"; copying the overlapped rows' label is right for {one['n_copied_right']}"
            lines.append((f"class {one['class']!r}", text))
        if found.get("copying_accuracy") is not None:
            text = f"{found['copying_accuracy']:.1%}"
            lines.append(("accuracy of that copying, on overlapping rows", text))
            text = f"{found['overlap_accuracy']:.1%} (majority: {found['majority_accuracy']:.1%})"
            lines.append(("accuracy of knowing only which rows overlap", text))
        return lines

    def __str__(self) -> str:
        lines = self._lines()
        width = max(len(text) for text, _ in lines)
        return "\n".join(f"{text:<{width}}  {value}" for text, value in lines)

    def __repr__(self) -> str:
        return (
            f"<LeakReport: {len(self.overlapping)} of {len(self.kind)} test rows overlap training>"
        )

    def _repr_html_(self) -> str:
        cells = (
            f"<tr><td>{escape(text)}</td><td>{escape(value)}</td></tr>"
            for text, value in self._lines()
        )
        return f"<table>{''.join(cells)}</table>"


def leak_report(
    train: Any,
    test: Any,
    k: int = 30,
    *,
    y_train: Any = None,
    y_test: Any = None,
    skip_repeats: bool = False,
    column: str | None = None,
) -> LeakReport:
    """Find the test rows that overlap training rows, and say what that alone would score.

    Parameters
    ----------
    train, test : sequences
        What `titans_dna.sequences.read_sequences` takes.
    k : int
        Rows that share k bases in a row, on either strand, overlap; up to 31. Letters other than
        A, C, G, T are never shared.
    y_train, y_test : array-like, optional
        Labels: with both, the report also says how far copying labels along overlaps would get.
    skip_repeats : bool
        Do not count stretches that are a unit of up to 6 bases over and over, which unrelated
        parts of a genome share.
    column : str, optional
        Column of a frame that holds the sequences.

    Returns
    -------
    LeakReport

    Notes
    -----
    Exact for inputs of any size: k-mers are compared in as many passes as bound the memory. Rows
    shorter than k are compared as a whole: a read of 20 bases inside a training row is not found
    with k = 30.

    Examples
    --------
    >>> report = leak_report(["ACGTTGCATT", "GGGGACCCTA"], ["TTTGCAACGA", "CATCATCATC"], k=6)
    >>> report.overlapping, report.match, report.covered
    (array([0]), array([ 0, -1]), array([0.7, 0. ]))
    """
    check_k(k)
    if (y_train is None) != (y_test is None):
        raise ValueError("give the labels of both parts, y_train and y_test, or of none.")
    train = read_sequences(train, column=column, name="train")
    test = read_sequences(test, column=column, name="test")
    classes: NDArray[Any] = np.zeros(1)
    train_label = np.zeros(len(train), dtype=np.int64)
    if y_train is not None:
        y_train, y_test = _labels(y_train, train, "train"), _labels(y_test, test, "test")
        classes, train_label = np.unique(y_train, return_inverse=True)
    near = _near(train, test, k, skip_repeats, train_label, len(classes))

    kind, match, covered = (near.votes.sum(axis=1) > 0).astype(np.int8), near.match, near.covered
    copied_label = near.votes.argmax(axis=1)
    rows = {digest: i for i, digest in reversed(list(enumerate(digests(train))))}
    for level, reverse in ((2, True), (3, False)):
        for i, digest in enumerate(digests(test, reverse=reverse)):
            if digest in rows:
                kind[i], match[i], covered[i] = level, rows[digest], 1.0
                copied_label[i] = train_label[rows[digest]]
    return LeakReport(
        k,
        len(train),
        kind,
        match,
        covered,
        near.compared,
        skip_repeats,
        y_test,
        None if y_train is None else classes[copied_label],
        (test.names, train.names),
    )


def _labels(y: Any, sequences: Sequences, name: str) -> NDArray[Any]:
    y = np.asarray(y)
    if y.shape != (len(sequences),):
        raise ValueError(
            f"y_{name} must hold one label for each of the {len(sequences)} sequences of {name}; "
            f"got shape {y.shape}."
        )
    return y


@dataclass
class _Near:
    """What shared k-mers say about each test row."""

    votes: NDArray[np.float64]  # (n_test, classes); each shared k-mer has one vote
    match: Indices
    covered: NDArray[np.float64]
    compared: NDArray[np.bool_]


def _near(
    train: Sequences,
    test: Sequences,
    k: int,
    skip_repeats: bool,
    train_label: Indices,
    n_classes: int,
) -> _Near:
    n = len(test)
    votes = np.zeros((n, n_classes))
    compared = np.zeros(n, dtype=bool)
    starts = np.zeros(len(test.tokens), dtype=bool)
    pairs, pair_counts = [], []
    for (train_codes, train_at), (codes, at) in kmer_passes([train, test], k, skip_repeats):
        test_rows = rows_of(test, at)
        compared[test_rows] = True
        if not len(train_codes):
            continue
        order = np.argsort(train_codes, kind="stable")
        train_codes, train_rows = train_codes[order], rows_of(train, train_at[order])
        new = np.r_[True, train_codes[1:] != train_codes[:-1]]
        number = np.cumsum(new) - 1
        known, first_row = train_codes[new], train_rows[new]
        order = np.argsort(codes)  # in order, they are looked up several times faster
        codes, at, test_rows = codes[order], at[order], test_rows[order]
        where = np.minimum(np.searchsorted(known, codes), len(known) - 1)
        hit = known[where] == codes
        where, test_rows = where[hit], test_rows[hit]
        starts[at[hit]] = True
        places = np.bincount(number)
        label = train_label[train_rows]
        for c in range(n_classes):
            of_class = np.bincount(number[label == c], minlength=len(known))
            share = of_class[where] / places[where]
            votes[:, c] += np.bincount(test_rows, share, minlength=n)
        pair, count = np.unique(test_rows * len(train) + first_row[where], return_counts=True)
        pairs.append(pair)
        pair_counts.append(count)
    match = np.full(n, -1)
    if pairs:
        pair, inverse = np.unique(np.concatenate(pairs), return_inverse=True)
        count = np.bincount(inverse, np.concatenate(pair_counts), minlength=len(pair))
        order = np.lexsort((-pair, count))  # the last written stays: most k-mers, then lowest row
        match[pair[order] // len(train)] = pair[order] % len(train)
    return _Near(votes, match, _covered(starts, test, k), compared)


def _covered(starts: NDArray[np.bool_], sequences: Sequences, k: int) -> NDArray[np.float64]:
    """Share of each sequence's bases that lie in a k-mer starting at one of the places."""
    begun = np.zeros(len(starts) + 1, dtype=np.int64)
    np.cumsum(starts, out=begun[1:])
    at = np.arange(len(starts))
    inside = begun[1:] > begun[np.maximum(at - k + 1, 0)]
    np.cumsum(inside, out=begun[1:])
    totals = np.diff(begun[sequences.offsets])
    return np.asarray(totals / np.maximum(sequences.lengths, 1))
