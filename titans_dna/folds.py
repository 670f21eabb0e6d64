"""Which rows learn and which are held out to choose by: folds that share no homologues."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from titans_dna.batches import Rows

_FOLDS = 5


def make_folds(
    y: NDArray[np.int64], groups: NDArray[np.int64] | None, n_folds: int, seed: int
) -> list[tuple[Rows, Rows]]:
    """Rows to learn from and rows held out, `n_folds` times; the parts held out are disjoint.

    Parameters
    ----------
    y : ndarray of int, shape (n,)
        Index of each row's class.
    groups : ndarray of int, shape (n,), optional
        Rows of a group stay on one side; None: every row is its own group.
    n_folds : int
        Folds wanted; each holds out a fifth, or less if there are more than five.
    seed : int

    Returns
    -------
    list of (ndarray, ndarray)
        Empty if the rows do not suffice: some class has fewer than two, or there are fewer than
        two groups.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    counts = np.bincount(y)
    # A class must stand on both sides of every fold for the choice to mean anything.
    parts = min(max(_FOLDS, n_folds), int(counts[counts > 0].min()))
    if groups is not None:
        parts = min(parts, len(np.unique(groups)))
    if parts < 2:
        return []
    rows = np.arange(len(y))
    if groups is None:
        splits = StratifiedKFold(parts, shuffle=True, random_state=seed).split(rows, y)
    else:
        splits = StratifiedGroupKFold(parts, shuffle=True, random_state=seed).split(rows, y, groups)
    folds = [(learn.astype(np.int64), held.astype(np.int64)) for learn, held in splits]
    usable = [(learn, held) for learn, held in folds if len(held) and _has_all(y, learn)]
    return usable[:n_folds]


def _has_all(y: NDArray[np.int64], rows: Rows) -> bool:
    return len(np.unique(y[rows])) == len(np.unique(y))
