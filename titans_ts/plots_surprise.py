"""A picture of the memory: when it was surprised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from titans_ts.plots import ACTUAL, figure_class, numbers_of, tidy, tint, write_dates

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_surprise"]

_MOST_STEPS = 800  # more could not be told apart


def plot_surprise(
    surprise: Any,
    times: Any = None,
    *,
    channels: Sequence[Any] | None = None,
    history: Any = None,
) -> Figure:
    """Draw how surprised the memory was, patch by patch: a peak is what it had not expected.

    Parameters
    ----------
    surprise : pandas DataFrame, or ndarray of shape (n,) or (n, C)
        Surprise at each patch, not negative; a channel a column. More than 800 patches are drawn
        as the largest of neighbours.
    times : pandas Index or ndarray of shape (n,), optional
        When each patch ended, ascending; None takes the index of a frame, or numbers them.
    channels : sequence, optional
        Names of the columns, for the titles; None takes those of a frame.
    history : pandas DataFrame or Series, optional
        Rows to draw above, in grey: those of the column of this name, or the only one.

    Returns
    -------
    Figure

    Raises
    ------
    ImportError, ValueError
        matplotlib is missing; the arguments do not fit each other.
    """
    make = figure_class("plot_surprise")
    if hasattr(surprise, "columns"):
        times = surprise.index if times is None else times
        channels = list(surprise.columns) if channels is None else channels
    values = np.asarray(surprise, dtype=float)
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or not values.size:
        raise ValueError(f"surprise must have shape (n,) or (n, C); got {np.shape(surprise)}.")
    n, width = values.shape
    times = np.arange(n) if times is None else times
    if len(times) != n:
        raise ValueError(f"times has {len(times)} entries for {n} patches; give one each.")
    names = list(range(width)) if channels is None else list(channels)
    if len(names) != width:
        raise ValueError(f"channels names {len(names)} of {width} columns of surprise.")
    figure = make((9, 0.6 + 1.4 * width), layout="constrained")
    panels = np.ravel(figure.subplots(width, sharex=True))
    together = -(-n // _MOST_STEPS)
    groups = np.arange(0, n, together)
    x = numbers_of(times)
    for c, (ax, name) in enumerate(zip(panels, names, strict=True)):
        # fmax: what is not known of some channel hides nothing of its neighbours.
        highest = np.fmax.reduceat(values[:, c], groups)
        ax.fill_between(x[groups], highest, step="post", color=tint(ACTUAL, 0.35), linewidth=0)
        ax.step(x[groups], highest, where="post", color=ACTUAL, linewidth=1.1)
        ax.set_ylim(bottom=0)
        tidy(ax, name)
        if history is not None:
            rows = history if getattr(history, "ndim", 2) == 1 else history[name]
            behind = ax.twinx()
            (line,) = behind.plot(numbers_of(rows.index), rows, color="0.55", linewidth=0.8)
            behind.set_zorder(ax.get_zorder() - 1)
            ax.patch.set_visible(False)
            tidy(behind, None)
            behind.set_yticks([])
    drawn = [panels[0].lines[0]] if history is None else [panels[0].lines[0], line]
    figure.legend(
        drawn,
        ["surprise of the memory", "history, not to scale"][: len(drawn)],
        loc="outside upper right",
        ncols=2,
        fontsize=9,
        handlelength=1.4,
        frameon=False,
    )
    write_dates(panels[-1], times)
    return figure
