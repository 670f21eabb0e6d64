"""Pictures of a classifier: which bases count, where it was surprised, how far to believe it.

Every function draws into the axes it is given, or makes a figure that pyplot knows nothing of: no
window opens, no setting changes. All return the figure; look at it with ``savefig``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "plot_confusion",
    "plot_motif_logo",
    "plot_mutagenesis",
    "plot_reliability",
    "plot_surprise",
]

Array = NDArray[np.float64]

_BASES = list("ACGT")
# Okabe and Ito's colours, which the colour-blind tell apart, near those that logos always had.
_BASE_COLOURS = {"A": "#009E73", "C": "#0072B2", "G": "#E69F00", "T": "#D55E00"}
_LINES = {"onward": "#0072B2", "back": "#D55E00"}
_GREY = "#404040"
_MOST_STEPS = 400


def plot_motif_logo(scores: Any, *, start: int = 0, ax: Axes | None = None) -> Figure:
    """Draw scores as letters: as tall as they are, below the line where they are negative.

    Parameters
    ----------
    scores : ndarray of shape (L, 4)
        A column for A, C, G and T: what `integrated_gradients` and `gradient_times_input` return,
        or a stretch of it.
    start : int
        Position of the first row in the sequence.
    ax : Axes, optional

    Returns
    -------
    Figure

    Raises
    ------
    ImportError, ValueError
        matplotlib or logomaker is missing; the scores are not as described.

    Examples
    --------
    >>> figure = plot_motif_logo(np.eye(4)[[3, 0, 3, 0]], start=12)
    """
    scores = _matrix(scores, "scores")
    ax = _axes(ax, "plot_motif_logo", (_width(len(scores)), 1.8))
    try:
        from logomaker import Logo
    except ImportError as error:
        raise _missing("plot_motif_logo", "logomaker") from error
    import pandas as pd

    index = pd.RangeIndex(start, start + len(scores))
    Logo(pd.DataFrame(scores, index, _BASES), ax=ax, color_scheme=_BASE_COLOURS)
    ax.set_ylabel("score")
    _along_bases(ax, start, len(scores))
    return _figure(ax)


def plot_mutagenesis(changes: Any, *, start: int = 0, ax: Axes | None = None) -> Figure:
    """Draw what each change of a base does: blue speaks against the class, red for it.

    Parameters
    ----------
    changes : ndarray of shape (L, 4)
        What `in_silico_mutagenesis` returns. Dots mark the bases that stand in the sequence, whose
        change is exactly 0.
    start : int
        Position of the first row in the sequence.
    ax : Axes, optional

    Returns
    -------
    Figure

    Raises
    ------
    ImportError, ValueError
        matplotlib is missing; the changes are not as described.

    Examples
    --------
    >>> figure = plot_mutagenesis([[0, -2, -1, -2], [-1, -3, -2, 0]], start=12)
    """
    changes = _matrix(changes, "changes")
    ax = _axes(ax, "plot_mutagenesis", (_width(len(changes)), 1.9))
    most = np.abs(changes).max() or 1.0
    places = np.arange(start, start + len(changes) + 1) - 0.5
    cells = ax.pcolormesh(
        places, np.arange(5) - 0.5, changes.T, cmap="RdBu_r", vmin=-most, vmax=most, rasterized=True
    )
    stands = (changes == 0) & (changes != 0).any(axis=1, keepdims=True)
    place, base = np.nonzero(stands)
    ax.scatter(start + place, base, s=6, color=_GREY, linewidths=0)
    ax.set_yticks(range(4), _BASES)
    ax.set_ylim(3.5, -0.5)
    bar = _figure(ax).colorbar(cells, ax=ax, pad=0.01, aspect=12)
    bar.set_label("change of\nthe log-odds", fontsize=9)
    bar.outline.set_visible(False)
    _along_bases(ax, start, len(changes))
    return _figure(ax)


def plot_surprise(
    record: pd.DataFrame, *, column: str = "surprise", ax: Axes | None = None
) -> Figure:
    """Draw what memories went through along a sequence: a line for each direction of reading.

    Parameters
    ----------
    record : DataFrame
        What `memory_surprise` returns. Lines are means over its networks and layers, and over
        stretches of a long sequence, so that there are no more steps than can be seen.
    column : {"surprise", "memory_lr", "momentum_decay", "forget_gate", "memory_norm"}
        What to draw.
    ax : Axes, optional

    Returns
    -------
    Figure

    Raises
    ------
    ImportError, ValueError
        matplotlib is missing; the record has no such column.
    """
    needed = {"direction", "start", "stop", column}
    if not needed <= set(getattr(record, "columns", ())):
        raise ValueError(
            f"record must be a data frame from memory_surprise, with columns {sorted(needed)}."
        )
    ax = _axes(ax, "plot_surprise", (8, 2.2))
    for direction, colour in _LINES.items():
        one = record[record["direction"] == direction]
        mean = one.groupby("start")[column].mean()
        together = -(-len(mean) // _MOST_STEPS)
        edges = [*mean.index[::together], one["stop"].max()]
        mean = mean.groupby(np.arange(len(mean)) // together).mean()
        label = {"onward": "read onward", "back": "read back"}[direction]
        ax.stairs(mean, edges, baseline=None, color=colour, linewidth=1.4, label=label)
    ax.set_ylabel(column.replace("_", " "))
    ax.legend(frameon=False, fontsize=9, ncols=2, handlelength=1.4)
    ax.set_xlim(int(record["start"].min()), int(record["stop"].max()))
    _tidy(ax)
    ax.set_xlabel("position in the sequence", fontsize=9)
    return _figure(ax)


def plot_reliability(
    y_true: Any, proba: Any, classes: Any, *, n_bins: int | None = None, ax: Axes | None = None
) -> Figure:
    """Draw how often the likeliest class is right, by how likely it was said to be.

    Parameters
    ----------
    y_true, proba, classes
        As `score_report` takes them.
    n_bins : int, optional
        Bins of equal width from 0 to 1; None takes the 15 that the calibration error of
        `score_report` is made of.
    ax : Axes, optional

    Returns
    -------
    Figure
        A point a bin, with the 95 % interval of a share (Wilson's); its area grows with the rows.

    Raises
    ------
    ImportError, ValueError
        matplotlib is missing; labels or probabilities do not fit.

    Examples
    --------
    >>> figure = plot_reliability(["a", "b"], [[0.9, 0.1], [0.4, 0.6]], ["a", "b"])
    """
    from titans_dna.kmer_counting import is_int
    from titans_dna.scores import N_BINS, wilson

    label, proba = _answers(y_true, proba, classes)
    bins = N_BINS if n_bins is None else n_bins
    if not (is_int(bins) and bins >= 1):
        raise ValueError(f"`n_bins` must be an int >= 1; got {n_bins!r}.")
    ax = _axes(ax, "plot_reliability", (4, 4))
    sure, right = proba.max(axis=1), proba.argmax(axis=1) == label
    number = np.clip(np.ceil(sure * bins).astype(np.int64) - 1, 0, bins - 1)
    rows = np.bincount(number, minlength=bins)
    said, came = (
        np.bincount(number, values, minlength=bins)[rows > 0] / rows[rows > 0]
        for values in (sure, right)
    )
    rows = rows[rows > 0]
    error = float(rows @ np.abs(came - said) / rows.sum())
    ax.plot([0, 1], [0, 1], color="0.75", linewidth=1, zorder=0)
    ax.vlines(said, *wilson(came, rows), color=_LINES["onward"], linewidth=1)
    ax.scatter(said, came, s=12 + 90 * rows / rows.max(), color=_LINES["onward"], linewidths=0)
    least = 1 / proba.shape[1]
    ax.set(xlim=(least - 0.02, 1.02), ylim=(-0.02, 1.02))
    ax.set_xlabel("probability of the likeliest class", fontsize=9)
    ax.set_ylabel("share of rows where it is right", fontsize=9)
    ax.set_title(f"{rows.sum()} rows, calibration error {error:.3f}", loc="left", fontsize=10)
    _tidy(ax)
    return _figure(ax)


def plot_confusion(
    y_true: Any,
    y_pred: Any,
    *,
    classes: Sequence[Any] | None = None,
    normalize: bool = False,
    ax: Axes | None = None,
) -> Figure:
    """Draw how often each class was taken for each: rows are true, columns predicted.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n,)
        Labels.
    classes : sequence, optional
        Order of the classes; None sorts them.
    normalize : bool
        Shares of each true class in place of counts.
    ax : Axes, optional

    Returns
    -------
    Figure
        By scikit-learn's ``ConfusionMatrixDisplay``.

    Raises
    ------
    ImportError, ValueError
        matplotlib is missing; the labels do not fit each other or the classes.

    Examples
    --------
    >>> figure = plot_confusion(["exon", "intron"], ["exon", "exon"])
    """
    y_true, y_pred = _plain(y_true), _plain(y_pred)
    if y_true.ndim != 1 or y_true.shape != y_pred.shape or not len(y_true):
        raise ValueError(
            f"y_true and y_pred must be labels of one shape (n,), n >= 1; got {y_true.shape} and "
            f"{y_pred.shape}."
        )
    if (y_true.dtype.kind in "US") != (y_pred.dtype.kind in "US"):
        raise ValueError(
            f"y_true holds {y_true.tolist()[0]!r} and y_pred {y_pred.tolist()[0]!r}: make them "
            "labels of one type."
        )
    found = set(y_true.tolist()) | set(y_pred.tolist())
    names = sorted(found) if classes is None else np.asarray(classes).tolist()
    if unknown := found - set(names):
        raise ValueError(f"the label {min(unknown)!r} is none of the classes {names}.")
    side = min(10.0, 2.4 + 0.6 * len(names))
    ax = _axes(ax, "plot_confusion", (side + 0.6, side))
    from sklearn.metrics import ConfusionMatrixDisplay

    display = ConfusionMatrixDisplay.from_predictions(
        y_true,
        y_pred,
        labels=names,
        normalize="true" if normalize else None,
        values_format=".2f" if normalize else "d",
        cmap="Blues",
        colorbar=False,
        xticks_rotation=90 if max(len(str(name)) for name in names) > 8 else 0,
        ax=ax,
    )
    if normalize:
        display.im_.set_clim(0, 1)
    ax.set_xlabel("predicted", fontsize=9)
    ax.set_ylabel("true", fontsize=9)
    ax.tick_params(labelsize=9, length=0)
    ax.spines[:].set_visible(False)
    return _figure(ax)


def _answers(y_true: Any, proba: Any, classes: Any) -> tuple[NDArray[np.int64], Array]:
    from titans_dna.report import _labels, _proba

    names = tuple(np.asarray(classes).tolist())
    label = _labels(y_true, names)
    return label, _proba(proba, len(label), len(names), "proba")


def _plain(y: Any) -> NDArray[Any]:
    """Labels as an array; text as such, also where pandas keeps it as objects."""
    labels = np.asarray(y)
    if labels.dtype.kind in "OT" and all(isinstance(label, str) for label in labels.flat):
        return labels.astype(str)
    return labels


def _matrix(scores: Any, name: str) -> Array:
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 2 or scores.shape[1] != 4 or not len(scores):
        raise ValueError(
            f"{name} must have shape (L, 4), a row for each base and columns for A, C, G and T; "
            f"got {scores.shape}."
        )
    if not np.isfinite(scores).all():
        row = int(np.flatnonzero(~np.isfinite(scores).all(axis=1))[0])
        raise ValueError(f"{name} must be finite; row {row} is {scores[row].tolist()}.")
    return scores


def _missing(function: str, package: str) -> ImportError:
    return ImportError(f'{function} needs {package}: pip install "titans-stream[plot]"')


def _axes(ax: Axes | None, function: str, size: tuple[float, float]) -> Axes:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise _missing(function, "matplotlib") from error
    return Figure(size, layout="constrained").subplots() if ax is None else ax


def _figure(ax: Axes) -> Figure:
    figure: Any = ax.get_figure(root=True)
    return figure


def _width(bases: int) -> float:
    return float(np.clip(1.2 + 0.14 * bases, 3, 14))


def _along_bases(ax: Axes, start: int, length: int) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.set_xlim(start - 0.5, start + length - 0.5)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    _tidy(ax)
    ax.set_xlabel("position in the sequence", fontsize=9)


def _tidy(ax: Axes) -> None:
    ax.tick_params(labelsize=9, color="0.6")
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("0.6")
