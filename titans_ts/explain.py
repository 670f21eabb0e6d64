"""What each part of the model contributed to a point forecast, in original units.

The parts are those that the forecast is a sum of. (Of a series learned by its logarithms they are
factors: each is told as what it changes once those before it in this list are there.)

``level``
    The mean of the window, with future-known covariates at their means.
``linear``
    What the linear part adds to it, with the correction by the window's own summary that goes with
    past covariates.
``past covariates``, ``future NAME``
    What they add, the future-known ones one by one: ``F_k B_k``, zero at the covariate's mean.
``seasonal memory``
    What a stream remembers of the season draws the forecast to.
``network``, ``memory as trained``, ``memory in the window``, ``memory before it``
    The admitted correction, by ablation: of the network without its memory; what it changes that
    the memory is read as it was trained to begin, and not written; that the patches of the window
    are written into it; that it also holds what came before the window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from titans_core import BackboneState
from titans_ts.adaptation import Stream, static_of
from titans_ts.admission import Admission
from titans_ts.answers import write_parts
from titans_ts.linear import LinearPart
from titans_ts.model import Model
from titans_ts.question import Ahead
from titans_ts.series_kinds import Layout
from titans_ts.windows import Array, centre

_CORRECTION = ("network", "memory as trained", "memory in the window", "memory before it")


@dataclass(frozen=True)
class Explanation:
    """Contributions to point forecasts, in original units.

    Parameters
    ----------
    parts : tuple of str
    values : ndarray of shape (N, P, C, parts)
        Of each series, step, channel and part; the sum over parts is the forecast.
    """

    parts: tuple[str, ...]
    values: Array
    layout: Layout
    ends: Sequence[tuple[Any, Any]]

    @property
    def frame(self) -> Any:
        """A row per series, channel, part and step, in the library of the question.

        pandas for arrays. Columns: the ids and times that the question had, ``channel``, ``part``,
        ``step`` (from 1), ``contribution``.
        """
        return write_parts(self.layout, self.ends, self.values, self.parts)

    def share(self) -> dict[str, float]:
        """Mean absolute contribution of each part but the level, as a share of their sum."""
        size = np.abs(self.values[..., 1:]).mean(axis=(0, 1, 2))
        return dict(zip(self.parts[1:], (size / (size.sum() or 1.0)).tolist(), strict=True))

    def __repr__(self) -> str:
        shares = ", ".join(f"{part} {share:.0%}" for part, share in self.share().items())
        return f"<Explanation of {self.values.shape[1]} steps: {shares}>"


def explain_ahead(model: Model, linear: LinearPart, ahead: Ahead) -> Explanation:
    """Take apart the forecasts of one prediction length."""
    layout = ahead.layout
    names = [f"future {name}" for name in layout.future_names]
    past = ["past covariates"] if layout.past_names else []
    correction = _CORRECTION if model.residual.network is not None else ()
    season = ["seasonal memory"] if model.seasonal_memory is not None else []
    parts = ("level", "linear", *past, *names, *season, *correction)
    values = []
    for each, known in zip(ahead.asked, ahead.future, strict=True):
        stream = each.stream
        found = _linear_parts(model, linear, stream, bool(past))
        effects = model.covariates.future_effects(known, stream.channel, stream.column)
        if not model.covariates.future_gain:
            effects = np.zeros_like(effects)
        modelled = np.sum(np.broadcast_arrays(*found), axis=0) - model.to_mean(stream.channel)
        found += list(effects.transpose(2, 1, 0))
        if season:
            found.append(_season_part(model, stream, linear, modelled))
        if correction:
            found += _correction_parts(model, stream, linear)
        z = np.stack(np.broadcast_arrays(*found), axis=-1)  # (C', P, parts)
        # Each is what it changes once those before it are there: of values that is its own size.
        so_far = each.scaler.undo(np.moveaxis(np.cumsum(z, axis=-1), 0, -1), stream.last)
        units = np.diff(so_far, axis=1, prepend=0.0).transpose(0, 2, 1)
        values.append(units)
    return Explanation(parts, np.stack(values), layout, ahead.ends)


def _linear_parts(model: Model, linear: LinearPart, stream: Stream, past: bool) -> list[Array]:
    context = stream.window(linear)
    _, level = centre(context)
    own, covariates = model.past_parts(stream, linear)
    to_mean = model.to_mean(stream.channel)
    found = [level, linear.predict(context, stream.channel) - level + own + to_mean]
    return [*found, covariates] if past else found


def _season_part(model: Model, stream: Stream, linear: LinearPart, ahead: Array) -> Array:
    if not model.carries(stream, linear):
        return np.zeros_like(ahead)
    return model.recollect(ahead, stream.window(linear), [stream]) - ahead


def _correction_parts(model: Model, stream: Stream, linear: LinearPart) -> list[Array]:
    """The correction without the memory, and what each way of using it adds, one by one."""
    carried = model.carries(stream, linear)
    admission = model.residual.carried if carried else model.residual.fresh
    context = stream.window(linear)
    nothing = np.zeros((len(context), linear.prediction_length))
    static = static_of([stream])
    blind = replace(admission, asks_memory=False)
    ways: list[tuple[Admission, BackboneState | None, bool]] = [(blind, None, False)]
    if admission.asks_memory:
        ways += [(admission, None, True), (admission, None, False)]
        ways += [(admission, stream.memory if carried else None, False)]
    points = [
        model.forecast_block(
            nothing, context, stream.channel, memory, static, how, frozen=frozen
        ).point
        for how, memory, frozen in ways
    ]
    points += points[-1:] * (len(_CORRECTION) - len(points))
    return [points[0], *(after - before for before, after in pairwise(points))]
