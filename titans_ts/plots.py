"""A forecast as a picture: what was, what is expected, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_forecast"]

# Dark grey, then blue and vermilion of Okabe and Ito, which the colour-blind tell apart.
HISTORY, FORECAST, ACTUAL = "#404040", "#0072B2", "#D55E00"


def plot_forecast(
    history: Any,
    quantiles: Any,
    *,
    levels: Sequence[float] | None = None,
    actual: Any = None,
    channels: Sequence[Any] | None = None,
    axes: Axes | Sequence[Axes] | None = None,
) -> Figure:
    """Draw a panel per channel: history, and a fan of quantiles that opens from its last value.

    Levels as far from one half on either side, such as 0.1 and 0.9, make a band; one without such a
    partner is a thin line.

    Parameters
    ----------
    history : pandas DataFrame or Series, or ndarray of shape (T, C) or (T,)
        The rows before the forecast that are worth seeing, e.g. ``y[-96:]``.
    quantiles : pandas DataFrame, or ndarray of shape (P, C, Q) or (P, Q)
        As ``predict_quantiles`` returns them for such a series.
    levels : sequence of float, optional
        Levels of an array of quantiles, ascending; a frame names its own.
    actual : pandas DataFrame or Series, or ndarray, optional
        What came, from the first forecast row on.
    channels : sequence, optional
        Which to draw, in this order (of an array: positions); None takes all.
    axes : Axes or sequence of Axes, optional
        Where to draw, one per channel; None makes a figure.

    Returns
    -------
    Figure
        Made without pyplot: no window opens, no setting changes. Look at it with ``savefig``.

    Raises
    ------
    ImportError, TypeError, ValueError
        matplotlib is missing; an argument is not as described, or does not fit the others.

    Examples
    --------
    >>> y = np.sin(np.arange(60) / 4)
    >>> fan = y[48:, None] + [-0.2, 0.0, 0.2]
    >>> len(plot_forecast(y[:48], fan, levels=[0.1, 0.5, 0.9], actual=y[48:]).axes)
    1
    """
    make = figure_class("plot_forecast")
    _check_quantiles(quantiles)
    past = _frame(history, "history")
    fan = _frame(quantiles, "quantiles", past, () if levels is None else levels)
    came = None if actual is None else _frame(actual, "actual", past)
    names = list(past.columns if channels is None else channels)
    if not names or not set(names) <= set(past.columns):
        raise ValueError(f"channels must be among {past.columns.tolist()}; got {names}.")
    figure = make((8, 0.8 + 1.3 * len(names)), layout="constrained") if axes is None else None
    panels: Any = axes if figure is None else figure.subplots(len(names), sharex=True)
    panels = np.ravel(panels)
    if len(panels) != len(names):
        raise ValueError(f"axes has {len(panels)} Axes for {len(names)} channels; give one each.")
    for ax, name in zip(panels, names, strict=True):
        _draw(ax, past[name], fan[name], None if came is None else came[name])
    handles, labels = panels[0].get_legend_handles_labels()
    place: Any = "upper left" if figure is None else "outside upper right"
    (figure or panels[0]).legend(
        handles, labels, loc=place, ncols=len(labels), fontsize=9, handlelength=1.4, frameon=False
    )
    return figure or panels[0].figure


def _draw(ax: Axes, past: Any, fan: Any, came: Any) -> None:
    from matplotlib.dates import date2num

    dated = hasattr(past.index, "tz")

    def lay(rows: Any) -> tuple[Any, Any]:
        """Numbers to draw, joined to the last value known."""
        index, values = rows.index, rows.to_numpy(dtype=float)
        if rows is not past:
            index = past.index[-1:].append(index)
            values = np.concatenate([np.full_like(values[:1], past.iloc[-1]), values])
        return date2num(index) if dated else index.to_numpy(), values

    ax.plot(*lay(past), color=HISTORY, linewidth=1.2, label="history")
    x, spread = lay(fan)
    levels = [float(level) for level in fan.columns]
    bands = _bands(levels)
    for i, (low, high) in enumerate(bands):
        # Opaque tints, so that the colour of a band does not depend on how many lie beneath.
        share = 0.18 + 0.37 * i / max(len(bands) - 1, 1)
        color, label = tint(FORECAST, share), f"{levels[high] - levels[low]:.0%}"
        ax.fill_between(x, spread[:, low], spread[:, high], color=color, linewidth=0, label=label)
    for i in set(range(len(levels))) - {i for band in bands for i in band}:
        median = levels[i] == 0.5
        width, label = (1.6, "median") if median else (0.8, f"{levels[i]:.0%} quantile")
        ax.plot(x, spread[:, i], color=FORECAST, linewidth=width, label=label)
    if came is not None:
        ax.plot(*lay(came), color=ACTUAL, linewidth=1.2, label="actual", zorder=1.9)
    write_dates(ax, past.index)
    tidy(ax, past.name)


def _bands(levels: list[float]) -> list[tuple[int, int]]:
    """Positions of levels that are as far from one half on either side, the widest first."""
    pairs = []
    for low, level in enumerate(levels):
        partner = [high for high, other in enumerate(levels) if abs(level + other - 1) < 1e-9]
        if level < 0.5 and partner:
            pairs.append((low, partner[0]))
    return pairs


def tint(color: str, share: float) -> list[float]:
    """A colour mixed with white, opaque: `share` of it."""
    from matplotlib.colors import to_rgb

    return [1 - share * (1 - part) for part in to_rgb(color)]


def write_dates(ax: Axes, times: Any) -> None:
    """Write dates below, short and in the zone of the times; leave numbers be."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    times = _index(times)
    if hasattr(times, "tz"):
        dates = AutoDateLocator(minticks=3, maxticks=8, tz=times.tz)
        ax.xaxis.set_major_locator(dates)
        ax.xaxis.set_major_formatter(ConciseDateFormatter(dates, tz=times.tz))


def tidy(ax: Axes, name: Any) -> None:
    """Give axes the look of the house, and a channel's name (None: no title) as the title."""
    if name is not None:
        ax.set_title(name if isinstance(name, str) else f"channel {name}", loc="left", fontsize=10)
    ax.tick_params(labelsize=9, color="0.6")
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("0.6")
    ax.margins(x=0.01)


def figure_class(function: str) -> Any:
    """Matplotlib's Figure for a function of ours, which the error names if there is none."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        cure = 'pip install "titans-stream[plot]"'
        raise ImportError(f"{function} needs matplotlib: {cure}") from error
    return Figure


def numbers_of(times: Any) -> Any:
    """Where to draw times: a time stamp as matplotlib's number, a period at its start."""
    from matplotlib.dates import date2num

    index = _index(times)
    if not hasattr(index, "tz"):
        return index.to_numpy()
    return date2num((index if index.tz is None else index.tz_convert(None)).to_numpy())


def _index(times: Any) -> Any:
    import pandas as pd

    index: Any = pd.Index(times)
    return index.to_timestamp() if isinstance(index, pd.PeriodIndex) else index


def _check_quantiles(fan: Any) -> None:
    """Say what to pass instead of a forecast that is no table of quantiles."""
    columns: Any = getattr(fan, "columns", None)
    if not hasattr(columns, "nlevels"):
        return
    last = columns.get_level_values(-1).tolist()
    kind = None
    if set(last) <= {"lower", "upper"}:
        kind = "intervals"
    elif not all(isinstance(level, int | float) and 0 < level < 1 for level in last):
        kind = "a long table" if columns.nlevels == 1 and "_q" in str(last[-1]) else "points"
    if kind is not None:
        cure = "pass what predict_quantiles([0.1, 0.5, 0.9]) returns"
        if kind == "a long table":
            cure = "of one series, with its times as the index, pass an array and its `levels`"
        raise ValueError(f"plot_forecast draws quantiles, and these are {kind}: {cure}.")


def _frame(y: Any, name: str, past: Any = None, levels: Any = None) -> Any:
    """Any rows as a data frame that goes on from `past`; quantiles by channel and level."""
    import pandas as pd

    if isinstance(y, np.ndarray):
        width = y.shape[1] if y.ndim > (1 if levels is None else 2) else 1
        columns: Any = pd.RangeIndex(width)
        if levels is not None:
            columns = pd.MultiIndex.from_product([columns, levels])
        if not y.size or y.ndim > 3 or y[0].size != len(columns):
            wanted = "(T, C)" if levels is None else f"(P, C, {len(levels)}) by its `levels`"
            raise ValueError(f"{name} must have shape {wanted}; got {y.shape}.")
        first = 0 if past is None else len(past)
        index = pd.RangeIndex(first, first + len(y))
        frame = pd.DataFrame(y.reshape(len(y), -1), index, columns)
    elif isinstance(y, pd.Series | pd.DataFrame):
        frame = y.to_frame() if isinstance(y, pd.Series) else y
        if levels is not None and frame.columns.nlevels == 1:  # the channel is a Series
            frame = pd.concat({past.columns[0]: frame}, axis=1)
        frame = frame.to_timestamp() if isinstance(y.index, pd.PeriodIndex) else frame
    else:
        raise TypeError(
            f"{name} must be a pandas DataFrame or Series or a numpy array; got "
            f"{type(y).__name__}. Convert it, e.g. {name}.to_numpy()."
        )
    if frame.empty:
        raise ValueError(f"{name} is empty; there is nothing to draw.")
    if past is not None:
        if (found := frame.columns.unique(0).tolist()) != past.columns.tolist():
            raise ValueError(f"{name} has channels {found}; history has {past.columns.tolist()}.")
        same_axis = hasattr(frame.index, "tz") == hasattr(past.index, "tz")
        if not same_axis or frame.index[0] <= past.index[-1]:
            raise ValueError(
                f"{name} must go on where history ends, {past.index[-1]}; got {frame.index[0]}."
            )
    if levels is not None and not frame[past.columns[0]].columns.is_monotonic_increasing:
        raise ValueError(f"the levels of {name} must ascend.")
    return frame
