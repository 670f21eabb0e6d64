"""A forecast as a picture: what was, what is expected, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_forecast"]

MAX_CHANNELS = 12
# Okabe and Ito's blue and vermilion, which the colour-blind tell apart, on dark grey.
_HISTORY, _FORECAST, _ACTUAL = "#404040", "#0072B2", "#D55E00"


def plot_forecast(
    history: Any,
    quantiles: Any,
    *,
    levels: Sequence[float] | None = None,
    actual: Any = None,
    channels: Sequence[Any] | None = None,
    axes: Axes | Sequence[Axes] | None = None,
) -> Figure:
    """Draw a panel per channel: history, a fan of quantiles, its median, and what came.

    Parameters
    ----------
    history : DataFrame, Series or ndarray of shape (T, C) or (T,)
        The rows before the forecast that are worth seeing, e.g. ``y[-96:]``.
    quantiles : DataFrame or ndarray of shape (P, C, Q) or (P, Q)
        As ``predict_quantiles`` returns them, of the same kind as ``history`` (numpy or pandas).
    levels : sequence of float, optional
        Levels of a numpy ``quantiles``, ascending; data frames know theirs.
    actual : DataFrame, Series or ndarray, optional
        Values that came, from the first forecast row on.
    channels : sequence, optional
        Which channels, in which order (numpy: their positions); None takes all, at most 12.
    axes : Axes or sequence of Axes, optional
        Where to draw, one for each channel; None makes a figure.

    Returns
    -------
    Figure
        Made without pyplot: no window opens and no setting changes. Save it with ``savefig``.

    Raises
    ------
    ImportError
        matplotlib is not installed.
    ValueError, TypeError
        The arguments are not as described, or do not fit each other.

    Examples
    --------
    >>> rows = np.arange(48.0)[:, None]
    >>> fan = 48 + np.arange(12)[:, None, None] + np.array([-2.0, 0.0, 2.0])
    >>> len(plot_forecast(rows, fan, levels=[0.1, 0.5, 0.9]).axes)
    1
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            'plots need matplotlib: pip install "titans-stream[plot]"'
        ) from error

