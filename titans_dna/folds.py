"""Which rows learn and which are held out to choose by: folds that share no homologues."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from titans_dna.batches import Rows

_FOLDS = 5


def make_folds(
    y: NDArray[np.int64], groups: NDArray[np.int64] | None, n_folds: int, seed: int
) -> list[tuple[Rows, Rows]]:
    """Rows to learn from and rows held out, `n_folds` times; the parts held out are disjoint.

    A class too rare to stand on both sides of every fold is learned from in all of them, and held
    out in none, where two others are left to choose by. Where one group has most of the rows, the
    fold that would learn from the others alone is left out.

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
        Empty if the rows do not suffice: there are not two classes, or not two groups, to divide.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    parts, rows = max(_FOLDS, n_folds), np.arange(len(y))
    always = _never_held_out(y, groups, parts)
    if len(np.unique(y[~always])) < 2:
        always[:] = False
        parts = min(parts, int(np.bincount(y)[np.unique(y)].min()))
    divided = rows[~always]
    if groups is not None:
        parts = min(parts, len(np.unique(groups[divided])))
    if parts < 2:
        return []
    if groups is None:
        splits = StratifiedKFold(parts, shuffle=True, random_state=seed).split(divided, y[divided])
    else:
        splits = StratifiedGroupKFold(parts, shuffle=True, random_state=seed).split(
            divided, y[divided], groups[divided]
        )
    held_out = [divided[held] for _, held in splits]
    folds = [(np.setdiff1d(rows, held), held) for held in held_out]
    usable = [(learn, held) for learn, held in folds if len(held) and _has_all(y, learn)]
    whole = [(learn, held) for learn, held in usable if len(learn) >= len(held)]
    return (whole or usable)[:n_folds]


def _never_held_out(
    y: NDArray[np.int64], groups: NDArray[np.int64] | None, parts: int
) -> NDArray[np.bool_]:
    """Rows of classes with fewer rows than parts, or with one group, and their relatives."""
    rare = np.bincount(y) < parts
    if groups is None:
        return np.asarray(rare[y])
    pairs = np.unique(np.stack([y, groups]), axis=1)[0]
    rare |= np.bincount(pairs, minlength=len(rare)) < 2
    return np.isin(groups, groups[rare[y]])


def _has_all(y: NDArray[np.int64], rows: Rows) -> bool:
    return len(np.unique(y[rows])) == len(np.unique(y))


def warn_of_no_folds(y: NDArray[np.int64], groups: NDArray[np.int64] | None) -> None:
    """Say that nothing is held out, and what that costs."""
    rows = np.bincount(y)[np.unique(y)].min()
    why, cure = f"a class has {rows} row{'s' if rows > 1 else ''}", "give it more"
    if rows > 1 and groups is not None:
        why = (
            f"copies, relatives or what `groups` puts together are kept together, and the {len(y)} "
            f"sequences are of {len(np.unique(groups))} group(s)"
        )
        cure = (
            "give unrelated ones or more `groups`; or say validation='random', without them, if "
            "relatives are no leak to you"
        )
    warnings.warn(
        f"nothing can be held out, as {why}: one network alone learns from all sequences, is not "
        f"stopped early, and probabilities are not calibrated. To have that, {cure}.",
        UserWarning,
        stacklevel=4,  # the line that called fit
    )


def warn_of_few_held_out(
    held_out: list[int], wanted: int, y: NDArray[np.int64], groups: NDArray[np.int64] | None
) -> None:
    """Say so where fewer networks than wanted are trained, or few rows chosen by."""
    if len(held_out) == wanted and sum(held_out) >= len(y) / 10:
        return
    why, cure = f"the rarest class has {np.bincount(y)[np.unique(y)].min()} rows", "give it more"
    if groups is not None:
        largest = int(np.unique(groups, return_counts=True)[1].max())
        why = (
            "copies, relatives or what `groups` puts together are kept together, and the largest "
            f"group is {largest} sequences"
        )
        cure = "give more of the others, or smaller `groups`"
    warnings.warn(
        f"{len(held_out)} of {wanted} networks can be trained, with {sum(held_out)} of {len(y)} "
        f"sequences held out to choose by, as {why}: {cure}.",
        UserWarning,
        stacklevel=4,  # the line that called fit
    )
