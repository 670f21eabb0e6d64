"""Where the streams of a fitted forecaster stand, and how they move over new rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from threading import Lock, RLock
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np

from titans_ts.adaptation import Stream, fits_on
from titans_ts.linear import LinearPart
from titans_ts.model import Model
from titans_ts.panels import Panel, Series

_guard = Lock()
_locks: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


def moving(forecaster: Any) -> Any:
    """The lock under which a forecaster's streams move: rows of two threads come one by one.

    Not an attribute of the forecaster, which can be pickled.
    """
    with _guard:
        return _locks.setdefault(forecaster, RLock())


@dataclass
class Standing:
    """Everything of a fitted forecaster that moves as rows arrive.

    ``streams`` and ``ends``, the last time seen of each, are by the key of the series.
    """

    linear: LinearPart
    streams: dict[Any, Stream]
    ends: dict[Any, Any]

    def copy(self, *, linear: bool = True) -> Standing:
        """An independent copy; with ``linear=False`` both share a linear part that stays."""
        streams = {key: stream.copy() for key, stream in self.streams.items()}
        return Standing(self.linear.copy() if linear else self.linear, streams, dict(self.ends))

    def moved(self, model: Model, panel: Panel, *, learn: bool | Literal["memory"]) -> Standing:
        """Where they stand after new rows, those of several series taken in turn.

        Raises
        ------
        ValueError
            A value is so far out that nothing could be computed from it, or a static covariate is
            another.
        """
        standing = self.copy(linear=fits_on(learn))  # so that an interrupted update has not begun
        scalers = dict(zip(standing.streams, model.scalers, strict=True))
        for each in panel.series:
            scalers[each.key].check(each.values, "y_new")
            _check_static(model, standing.streams[each.key], each)
        # In the order of the fit, whatever the order of the rows.
        given = {each.key: each for each in panel.series}
        in_turn = [given[key] for key in standing.streams if key in given]
        for t in range(max(len(each.values) for each in in_turn)):
            moved = [each for each in in_turn if t < len(each.values)]
            for each in moved:
                row = replace(
                    each,
                    values=each.values[t : t + 1],
                    past=each.past[t : t + 1],
                    future=each.future[t : t + 1],
                )
                stream, scaler = standing.streams[each.key], scalers[each.key]
                model.observe(stream, scaler, row, standing.linear, learn=learn)
            if fits_on(learn):
                streams = [standing.streams[each.key] for each in moved]
                model.measure_widths(streams, standing.linear)
        standing.ends |= {each.key: each.last_time for each in panel.series if len(each.values)}
        return standing


def _check_static(model: Model, stream: Stream, series: Series) -> None:
    given = model.covariates.kin(series.static)
    known = ~np.isnan(series.static[model.covariates.static.scale > 0])
    if not np.allclose(given[known], stream.static[known]):
        raise ValueError(
            f"y_new has other static covariates of series {series.key!r} than it was fitted with. "
            "They are constant: give what was given then, or fit again."
        )


@dataclass(frozen=True)
class Snapshot:
    """Where the streams stood: made by ``snapshot()``, taken back by ``restore()``."""

    standing: Standing
    model: Model
