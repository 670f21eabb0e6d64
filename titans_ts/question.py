"""A question put to a fitted forecaster: which series, from where on, and the answer in units."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from titans_ts.adaptation import Stream
from titans_ts.frames import Layout, Panel
from titans_ts.model import Model, Standing
from titans_ts.outlook import Outlook
from titans_ts.scaler import Scaler
from titans_ts.windows import Array


@dataclass(frozen=True)
class Asked:
    """A series to forecast: its key and last time, where its stream stands, and its units."""

    key: Any
    end: Any
    stream: Stream
    scaler: Scaler


def ask_streams(standing: Standing, model: Model) -> list[Asked]:
    """What follows the rows seen."""
    return [
        Asked(key, standing.ends[key], stream, scaler)
        for (key, stream), scaler in zip(standing.streams.items(), model.scalers, strict=True)
    ]


def ask_context(standing: Standing, model: Model, panel: Panel) -> list[Asked]:
    """What follows other rows; a series that was not fitted is scaled by them.

    Raises
    ------
    ValueError
        A series is shorter than a window.
    """
    asked = []
    keys = list(standing.streams)
    needed = standing.linear.context_length
    for each in panel.series:
        if len(each.values) < needed:
            which = "context" if each.key is None else f"series {each.key!r} of context"
            raise ValueError(
                f"{which} has {len(each.values)} rows; needs at least context_length = {needed}. "
                "Give more rows, or fit with a shorter context_length."
            )
        if each.key in standing.streams:
            position = keys.index(each.key)
            scaler, channel = model.scalers[position], model.channels_of(position)
        else:
            scaler = Scaler.fit(each.values)
            channel = np.full(scaler.learned.sum(), -1)
        scaler.check(each.values, "context")
        stream = model.begin(each.values, standing.linear, scaler, channel)
        asked.append(Asked(each.key, each.last_time, stream, scaler))
    return asked


@dataclass(frozen=True)
class Ahead:
    """Outlooks of the series asked about, and what it takes to write them as the user's own."""

    layout: Layout
    asked: Sequence[Asked]
    outlooks: Sequence[Outlook]

    @property
    def ends(self) -> list[tuple[Any, Any]]:
        """Key and last time of each series."""
        return [(each.key, each.end) for each in self.asked]

    def in_units(self, what: Callable[[Outlook], Array]) -> Array:
        """Some property ``(C', H)`` or ``(C', D, H)`` of outlooks, as ``(N, H, C)``, D last."""
        answers = []
        for each, outlook in zip(self.asked, self.outlooks, strict=True):
            z = what(outlook)
            y = each.scaler.undo(np.moveaxis(z, 0, -1), each.stream.last)  # (..., H, C)
            answers.append(y if y.ndim == 2 else np.moveaxis(y, 0, -1))
        return np.stack(answers)
