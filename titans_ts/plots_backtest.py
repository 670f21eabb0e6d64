"""Pictures of a backtest: what was forecast when, and by how much the floors are beaten.

As in `plots`: no pyplot, no window, no setting changes; look at a figure with ``savefig``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from titans_ts.plots import FORECAST, HISTORY, figure_class, numbers_of, tidy, tint, write_dates

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_backtest", "plot_channel_skill"]

_MOST_CHANNELS = 6
# Okabe and Ito's, beside blue for what is ours.
_FLOORS = {"Ridge": "#0072B2", "Naive": "#D55E00", "SeasonalNaive": "#E69F00"}


def plot_backtest(
    frame: Any,
    history: Any,
    *,
    model: str = "TitansForecaster",
    channels: Sequence[Any] | None = None,
    rows_before: int | None = None,
) -> Figure:
    """Draw a panel per channel: what came, and the forecasts made at each cutoff.

    Parameters
    ----------
    frame, history : pandas DataFrame
        ``frame`` and ``history`` of a `BacktestResult`.
    model : str
        A column of `frame`; its intervals are drawn as bands.
    channels : sequence, optional
        By ``unique_id``; None takes the first six.
    rows_before : int, optional
        Rows of history to draw before the first cutoff; None takes as many as a third of what
        follows.

    Returns
    -------
    Figure

    Raises
    ------
    ImportError, ValueError
        matplotlib is missing; there is no such model or channel.
    """
    make = figure_class("plot_backtest")
    known = frame["unique_id"].unique().tolist()
    names = known[:_MOST_CHANNELS] if channels is None else list(channels)
    if not names or not set(names) <= set(known):
        raise ValueError(f"channels must be among {known}; got {names}.")
    models = [c for c in frame.columns[4:] if "-lo-" not in c and "-hi-" not in c]
    if model not in models:
        raise ValueError(f"model must be one of {models}; got {model!r}.")
    levels = [c.rsplit("-", 1)[1] for c in frame.columns if c.startswith(f"{model}-lo-")]
    figure = make((9, 0.8 + 1.5 * len(names)), layout="constrained")
    panels = np.ravel(figure.subplots(len(names), sharex=True))
    for ax, name in zip(panels, names, strict=True):
        past = history[history["unique_id"] == name].set_index("ds")["y"]
        mine = frame[frame["unique_id"] == name]
        first = int(past.index.searchsorted(mine["cutoff"].min())) + 1
        before = max((len(past) - first) // 3, 8) if rows_before is None else rows_before
        _draw_channel(ax, past.iloc[max(first - before, 0) :], mine, model, levels)
        tidy(ax, name)
    if channels is None and len(known) > len(names):
        figure.suptitle(f"{len(names)} of {len(known)} series", x=0.01, ha="left", fontsize=10)
    write_dates(panels[-1], history["ds"])
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside upper right",
        ncols=len(labels),
        fontsize=9,
        handlelength=1.4,
        frameon=False,
    )
    return figure


def _draw_channel(ax: Axes, past: Any, mine: Any, model: str, levels: list[str]) -> None:
    ax.plot(numbers_of(past.index), past, color=HISTORY, linewidth=1, label="what came")
    for k, (cutoff, window) in enumerate(mine.groupby("cutoff")):
        x = numbers_of(window["ds"])
        if cutoff in past.index and np.isfinite(past[cutoff]):
            # Joined to the last value known, as a fan that opens from it.
            x = np.concatenate([numbers_of(past.index[past.index == cutoff]), x])
            joined = [past[cutoff]]
        else:
            joined = []
        for i, level in enumerate(levels):
            low, high = (
                np.concatenate([joined, window[f"{model}-{side}-{level}"]]) for side in ("lo", "hi")
            )
            color = tint(FORECAST, 0.15 + 0.2 * i / max(len(levels) - 1, 1))
            label = None if k else f"{level}%"
            # Where windows overlap, a wide band must not cover the narrow ones of others.
            ax.fill_between(x, low, high, color=color, linewidth=0, label=label, zorder=1 + 0.1 * i)
        point = np.concatenate([joined, window[model]])
        label = None if k else "forecast"
        ax.plot(x, point, color=FORECAST, linewidth=1.6, label=label)
        ax.axvline(x[0], color="0.75", linewidth=0.8, linestyle=(0, (2, 2)), zorder=0.5)


def plot_channel_skill(
    summary: Any, *, metric: str = "mse", floors: Sequence[str] = tuple(_FLOORS)
) -> Figure:
    """Draw how much smaller the errors are than each floor's, channel by channel.

    Parameters
    ----------
    summary : pandas DataFrame
        ``summary(by_channel=True)`` of a `BacktestResult`.
    metric : str
        What its skill is of, for the label.
    floors : sequence of str
        Which to compare with.

    Returns
    -------
    Figure
        A bar to the right: better than the floor; its line is the confidence interval. What lies
        beyond an error twice as large as the floor's is cut off.

    Raises
    ------
    ImportError, ValueError
        matplotlib is missing; there is no such floor.
    """
    make = figure_class("plot_channel_skill")
    known = [m for m in summary["model"].unique() if m != "TitansForecaster"]
    if not floors or not set(floors) <= set(known):
        raise ValueError(f"floors must be among {known}; got {list(floors)}.")
    names = summary["unique_id"].unique().tolist()
    figure = make((8, 1.1 + (0.14 + 0.18 * len(floors)) * len(names)), layout="constrained")
    ax = figure.subplots()
    place, thick = np.arange(len(names), dtype=float), 0.8 / len(floors)
    for k, floor in enumerate(floors):
        rows = summary[summary["model"] == floor].set_index("unique_id").loc[names]
        skill, low, high = (
            rows[c].to_numpy(dtype=float) for c in ("skill", "skill_low", "skill_high")
        )
        y = place + (k - (len(floors) - 1) / 2) * thick
        color = _FLOORS.get(floor, HISTORY)
        ax.barh(y, skill, 0.82 * thick, color=tint(color, 0.65), label=f"against {floor}")
        ax.hlines(y, low, high, color=HISTORY, linewidth=1.1)
    ax.axvline(0, color=HISTORY, linewidth=0.8)
    left, right = ax.get_xlim()
    ax.set_xlim(max(left, -1), min(right, 1))
    ax.xaxis.set_major_formatter(lambda share, _: f"{share:+.0%}" if share else "0")
    ax.set_yticks(place, [str(name) for name in names])
    ax.set_ylim(len(names) - 0.45, -0.55)
    tidy(ax, None)
    ax.set_xlabel(f"{metric.upper()} saved by TitansForecaster", fontsize=9)
    figure.legend(
        loc="outside upper right", ncols=len(floors), fontsize=9, handlelength=1.2, frameon=False
    )
    return figure
