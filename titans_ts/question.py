"""A question put to a fitted forecaster: which series, from where on, and the answer in units."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from titans_ts.adaptation import Stream
from titans_ts.frames import Layout, Panel, Series, read_future
from titans_ts.model import Model
from titans_ts.outlook import Outlook, at_levels
from titans_ts.scaler import Scaler, borrow_scale
from titans_ts.standing import Standing
from titans_ts.windows import Array


@dataclass(frozen=True)
class Asked:
    """A series to forecast: its key and last time, where its stream stands, and its units."""

    key: Any
    end: Any
    stream: Stream
    scaler: Scaler


def look_ahead(
    model: Model,
    standing: Standing,
    layout: Layout,
    rows: int,
    context: Panel | None = None,
    future: Any = None,
) -> Ahead:
    """Forecast so many rows after those seen, or after a context, given what is known ahead.

    Raises
    ------
    ValueError
        The context is too short, or of the future covariates something is missing.
    """
    if context is None:
        asked = ask_streams(standing, model)
    else:
        layout, asked = context.layout, ask_context(standing, model, context)
    known = read_future(future, layout, {each.key: each.end for each in asked}, rows)
    return look_ahead_given(model, standing, layout, asked, [known[a.key] for a in asked])


def look_ahead_given(
    model: Model,
    standing: Standing,
    layout: Layout,
    asked: Sequence[Asked],
    future: Sequence[Array],
) -> Ahead:
    """The same with future covariates ``(rows, Kf)`` of each series asked about."""
    streams = [each.stream for each in asked]
    future = [each.scaler.relative_future(rows) for each, rows in zip(asked, future, strict=True)]
    outlooks = model.look_ahead(streams, standing.linear, len(future[0]))
    effects = [
        model.covariates.future_effect(each, stream.channel, stream.column)
        for each, stream in zip(future, streams, strict=True)
    ]
    return Ahead(layout, asked, outlooks, future, effects)


def ask_streams(standing: Standing, model: Model) -> list[Asked]:
    """What follows the rows seen."""
    return [
        Asked(key, standing.ends[key], stream, scaler)
        for (key, stream), scaler in zip(standing.streams.items(), model.scalers, strict=True)
    ]


def ask_windows(standing: Standing, model: Model, windows: Sequence[Array]) -> list[Asked]:
    """What follows windows ``(L, C)`` of the one series that was fitted, without covariates."""
    (scaler,), channel = model.scalers, model.channels_of(0)
    asked = []
    for y in windows:
        none = np.empty((len(y), 0))
        series = Series(key=None, values=y, past=none, future=none, static=none[0])
        stream = model.begin(series, standing.linear, scaler, channel, goes_on=False)
        asked.append(Asked(None, None, stream, scaler))
    return asked


def ask_context(standing: Standing, model: Model, panel: Panel) -> list[Asked]:
    """What follows other rows; a series that was not fitted is scaled by them.

    One that is shorter than a window is padded in front, as short ones of a fitted panel are.

    Raises
    ------
    ValueError
        It is shorter, and the forecaster was fitted to a single series.
    """
    asked = []
    keys = list(standing.streams)
    needed = standing.linear.context_length
    for each in panel.series:
        if len(each.values) < needed and len(keys) == 1:
            which = "context" if each.key is None else f"series {each.key!r} of context"
            raise ValueError(
                f"{which} has {len(each.values)} rows; needs at least context_length = {needed}. "
                "Give more rows, or fit with a shorter context_length."
            )
        if each.key in standing.streams:
            position = keys.index(each.key)
            scaler, channel = model.scalers[position], model.channels_of(position)
        else:
            scaler = borrow_scale(model.domain.scaler(each.values), each.values, model.scalers)
            scaler = model.relative.of(scaler, each)
            channel = np.full(scaler.learned.sum(), -1)
        scaler.check(each.values, "context")
        stream = model.begin(each, standing.linear, scaler, channel, goes_on=False)
        asked.append(Asked(each.key, each.last_time, stream, scaler))
    return asked


@dataclass(frozen=True)
class Ahead:
    """Outlooks of the series asked about, and what it takes to write them as the user's own."""

    layout: Layout
    asked: Sequence[Asked]
    outlooks: Sequence[Outlook]
    future: Sequence[Array]  # covariates of each series, (H, Kf)
    effects: Sequence[Array]  # what they do, (H, C')

    @property
    def ends(self) -> list[tuple[Any, Any]]:
        """Key and last time of each series."""
        return [(each.key, each.end) for each in self.asked]

    def in_units(self, what: Callable[[Outlook], Array]) -> Array:
        """Some property ``(C', H)`` or ``(C', D, H)`` of outlooks, as ``(N, H, C)``, D last."""
        answers = []
        for each, outlook, effect in zip(self.asked, self.outlooks, self.effects, strict=True):
            z = np.moveaxis(what(outlook), 0, -1) + effect  # (..., H, C')
            y = each.scaler.undo(z, each.stream.last)
            answers.append(y if y.ndim == 2 else np.moveaxis(y, 0, -1))
        return np.stack(answers)

    def quantiles(self, known: Array, levels: Sequence[float] | None) -> tuple[Array, list[float]]:
        """Quantiles ``(N, H, C, Q)`` at levels within the known ones, or at these; and the levels.

        Raises
        ------
        ValueError
            A level lies outside, or there is none.
        """
        wanted: Array = known if levels is None else np.asarray(levels, dtype=float).reshape(-1)
        rounding = 1e-6  # levels may have been given in float32
        outside = wanted[~((wanted >= known[0] - rounding) & (wanted <= known[-1] + rounding))]
        if len(outside) or not len(wanted):
            raise ValueError(
                f"levels must lie within the fitted quantile_levels [{known[0]:g}, {known[-1]:g}]; "
                f"got {outside.tolist()}. Fit with wider quantile_levels for more."
            )
        inside = wanted.clip(known[0], known[-1])
        return at_levels(self.in_units(lambda o: o.quantiles), known, inside), wanted.tolist()

    def intervals(self, coverage: float | Sequence[float]) -> tuple[Array, Array, list[float]]:
        """Lower and upper ends ``(N, H, C, K)``, and the coverages.

        Raises
        ------
        ValueError
            A coverage is not in (0, 1), or higher than the validation windows vouch for.
        """
        wanted = np.asarray(coverage, dtype=float).reshape(-1)
        if not len(wanted) or not ((wanted > 0) & (wanted < 1)).all():
            raise ValueError(f"coverage must be in (0, 1); got {coverage!r}.")

        def bounds(outlook: Outlook) -> Array:
            lower, upper = zip(*(outlook.interval(c) for c in wanted), strict=True)
            return np.stack([*lower, *upper], axis=1)

        lower, upper = np.split(self.in_units(bounds), 2, axis=-1)
        return lower, upper, wanted.tolist()
