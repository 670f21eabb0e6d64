"""What ``fit`` learns, and how a forecast is made of it: linear part, gated correction, levels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from titans_core import BackboneState
from titans_core.state import join_states, state_position
from titans_ts.adaptation import Stream, fits_on, static_of
from titans_ts.admission import Admission, Residual, median_index
from titans_ts.channels import fill_forward, last_known
from titans_ts.covariates import Covariates
from titans_ts.domain import Domain
from titans_ts.linear import LinearPart
from titans_ts.network import ForecastNetwork
from titans_ts.outlook import Block, Outlook
from titans_ts.panels import Series
from titans_ts.recollection import rows_before
from titans_ts.relative import Relative
from titans_ts.scaler import Scaler
from titans_ts.seasonal_memory import SeasonalMemory
from titans_ts.shortness import Shortness
from titans_ts.widths import COVERAGE
from titans_ts.windows import Array, PatchClock, normalise

_WINDOWS_AT_ONCE = 1024  # that the network forecasts


@dataclass(frozen=True)
class Model:
    """The parts of a fitted forecaster that do not move with its streams.

    Parameters
    ----------
    scalers : list of Scaler
        Of each series.
    covariates : Covariates
    residual : Residual
    clock : PatchClock
    levels : ndarray of shape (Q,)
        The quantile levels, ascending.
    domain : Domain
        Whether z-scores are of values or of their logarithms.
    shortness : Shortness
        What few rows do to errors.
    relative : Relative
        Covariates that are taken relative to their level in each series.
    """

    scalers: list[Scaler]
    covariates: Covariates
    residual: Residual
    clock: PatchClock
    levels: Array
    domain: Domain
    shortness: Shortness
    relative: Relative

    @property
    def memory_network(self) -> ForecastNetwork | None:
        """The network, if its carried memory is used: else there is no state of it to keep."""
        carried = self.residual.carried
        asked = self.residual.uses_memory and carried.asks_memory and carried.uses_network
        return self.residual.network if asked else None

    @property
    def seasonal_memory(self) -> SeasonalMemory | None:
        """The seasonal memory, if it is used."""
        recollection = self.residual.recollection
        used = recollection is not None and self.residual.uses_memory
        return recollection.memory if recollection is not None and used else None

    def rows_of(
        self, series: Series, scaler: Scaler, channel: np.ndarray, column: np.ndarray
    ) -> Array:
        """Z-scores ``(T, C')`` less the effects of future-known covariates: what is modelled."""
        ahead = scaler.relative_future(series.future)
        effect = self.covariates.future_effect(ahead, channel, column)
        return np.asarray(scaler.apply(series.values) - effect)

    def begin(
        self,
        series: Series,
        linear: LinearPart,
        scaler: Scaler,
        channel: np.ndarray,
        *,
        goes_on: bool = True,
    ) -> Stream:
        """A stream that has seen the rows of a series.

        One that does not go on keeps no seasonal memory of too few rows for it to be asked.
        """
        column = np.flatnonzero(scaler.learned)
        seasonal = self.seasonal_memory
        if seasonal is not None and not goes_on:
            enough = len(series.values) >= rows_before(seasonal, linear.context_length)
            seasonal = seasonal if enough else None
        return Stream.begin(
            self.rows_of(series, scaler, channel, column),
            last_known(series.values),
            channel,
            column,
            self.covariates.past_rows(scaler.relative_past(series.past)),
            self.covariates.kin(series.static),
            linear,
            self.memory_network,
            self.clock,
            seasonal,
        )

    def channels_of(self, series: int) -> np.ndarray:
        """The channels of the fit that belong to a series."""
        ends = np.cumsum([scaler.learned.sum() for scaler in self.scalers])
        return np.arange(ends[series] - self.scalers[series].learned.sum(), ends[series])

    def observe(
        self,
        stream: Stream,
        scaler: Scaler,
        series: Series,
        linear: LinearPart,
        *,
        learn: bool | Literal["memory"],
    ) -> None:
        """Move the stream over the rows of a series."""
        stream.observe(
            self.rows_of(series, scaler, stream.channel, stream.column),
            fill_forward(series.values, stream.last)[-1],
            self.covariates.past_rows(scaler.relative_past(series.past)),
            linear,
            self.memory_network,
            self.clock,
            self.seasonal_memory,
            learn=learn,
        )
        if fits_on(learn):
            self._weigh_memory(stream, linear)

    def _weigh_memory(self, stream: Stream, linear: LinearPart) -> None:
        """Hear what came of the last answer of the seasonal memory, and ask it the next."""
        asked, after = stream.asked, linear.prediction_length
        since = stream.position - asked.position
        if asked.position >= 0 and since < after:
            return
        if asked.position >= 0:  # later than due: rows were passed over that nothing learned from
            asked = (
                asked.told(stream.last_rows(after))
                if since == after
                else replace(asked, position=-1)
            )
        if self.seasonal_memory is not None and self.carries(stream, linear):
            context = stream.window(linear)
            ahead = linear.predict(context, stream.channel) + sum(self.past_parts(stream, linear))
            recollected = self.recollect(ahead, context, [stream], whole=True)
            asked = asked.ask(stream.position, ahead, recollected - ahead)
        stream.asked = asked

    def measure_widths(self, streams: Sequence[Stream], linear: LinearPart) -> None:
        """Hear what came of the last intervals that were noted, and note the next."""
        after, due = linear.prediction_length, []
        for stream in streams:
            noted = stream.widths.position
            if noted >= 0 and stream.position - noted < after:
                continue
            if noted >= 0 and stream.position - noted == after:  # else rows were passed over
                stream.widths = stream.widths.told(stream.last_rows(after))
            due.append(stream)
        for stream, outlook in zip(due, self.look_ahead(due, linear, after), strict=True):
            half = np.where(stream.gap[:, None], np.nan, outlook.half_width(COVERAGE)[0])
            stream.widths = stream.widths.note(stream.position, outlook.point, half)

    def look_ahead(self, streams: Sequence[Stream], linear: LinearPart, rows: int) -> list[Outlook]:
        """Forecast from where the streams stand: an outlook each, with the channels learned."""
        outlooks: list[Outlook | None] = [None] * len(streams)
        for members in self._alike(streams, linear):
            together = [streams[i] for i in members]
            whole, admission = self._look_ahead(together, linear, rows)
            ends = np.cumsum([len(stream.channel) for stream in together])
            for i, stream, end in zip(members, together, ends, strict=True):
                mine = slice(end - len(stream.channel), end)
                errors = admission.errors
                every = np.arange(errors.shape[1])
                if (stream.channel < 0).any():  # not fitted: as the channels that were, together
                    errors = errors.reshape(-1, 1, errors.shape[-1])
                elif len(every) > 1 and not np.array_equal(stream.channel, every):
                    errors = errors[:, stream.channel]  # else not a copy for every stream
                blocks = [block.of(mine) for block in whole]
                to_mean = self.to_mean(stream.channel)
                seen = normalise(stream.seen_window(self.clock.context_length))[1]
                scale = np.where(stream.gap[:, None] > 0, seen, blocks[0].scale)
                growth = self.shortness.of(stream.rows_since_begun(linear.context_length))
                width = stream.widths.factor[:, None]
                outlooks[i] = Outlook(
                    blocks, self.levels, errors, rows, to_mean, stream.gap, scale, growth, width
                )
        return [outlook for outlook in outlooks if outlook is not None]

    def _look_ahead(
        self, streams: Sequence[Stream], linear: LinearPart, rows: int
    ) -> tuple[list[Block], Admission]:
        """Block by block: what streams that stand alike forecast."""
        memory, carried = None, self.carries(streams[0], linear)
        if carried and streams[0].memory is not None:
            memory = join_states([s.memory for s in streams if s.memory is not None])
        admission = self.residual.carried if carried else self.residual.fresh
        channel = np.concatenate([stream.channel for stream in streams])
        length, static = linear.context_length, static_of(streams)
        context = np.concatenate([stream.window(linear) for stream in streams])
        # Of what lies ahead past covariates say something in the first block, nothing further on.
        added: Array | float = np.concatenate(
            [sum(self.past_parts(each, linear)) for each in streams]
        )
        blocks = []
        for first in range(0, rows, linear.prediction_length):
            ahead = linear.predict(context, channel) + added
            if carried:
                ahead = self.recollect(ahead, context, streams, first)
            blocks.append(self.forecast_block(ahead, context, channel, memory, static, admission))
            context = np.concatenate([context, blocks[-1].point], axis=1)[:, -length:]
            added = 0.0
        return blocks, admission

    def carries(self, stream: Stream, linear: LinearPart) -> bool:
        """Whether the memories of a stream hold what they are asked for; else it begins anew."""
        seasonal = self.seasonal_memory
        if seasonal is not None:
            seen = stream.position >= rows_before(seasonal, linear.context_length)
            return seen and (self.memory_network is None or stream.memory is not None)
        return stream.memory is not None

    def recollect(
        self,
        ahead: Array,
        context: Array,
        streams: Sequence[Stream],
        first: int = 0,
        *,
        whole: bool = False,
    ) -> Array:
        """Draw forecasts ``(K, P)`` toward what the streams' seasonal memories hold.

        They begin ``first`` rows after the last one seen. What is let in of each memory is what
        has held since the fit, or with ``whole`` all that validation backed.
        """
        recollection, seasonal = self.residual.recollection, self.seasonal_memory
        profiles = [each.profile for each in streams if each.profile is not None]
        if recollection is None or seasonal is None or not profiles:
            return ahead
        reads = np.concatenate([seasonal.read(each, first) for each in profiles])
        channel = np.concatenate([each.channel for each in streams])
        recollected = recollection.correct(ahead, context, reads, channel)
        share = np.concatenate([each.asked.share for each in streams])[:, None]
        if whole or (share == 1).all():
            return recollected
        return np.asarray(ahead + share * (recollected - ahead))

    def _alike(self, streams: Sequence[Stream], linear: LinearPart) -> Iterator[list[int]]:
        """Positions of streams whose memories are asked alike and have read equally much."""
        groups: dict[Any, list[int]] = {}
        for i, stream in enumerate(streams):
            read = stream.memory and state_position(stream.memory)
            groups.setdefault((self.carries(stream, linear), read), []).append(i)
        yield from groups.values()

    def to_mean(self, channel: np.ndarray) -> Array:
        """What takes point forecasts of these channels to means, ``(K, P)`` or ``(K, 1)``."""
        return _of_channels(self.domain.to_mean, channel)

    def past_parts(self, stream: Stream, linear: LinearPart) -> tuple[Array, Array]:
        """What the target's own window and past covariates add to the linear part: ``(C', P)``."""
        effect = self.covariates.past_effect
        if effect is None:
            none = np.zeros((len(stream.channel), 1))
            return none, none
        window = stream.past[-effect.length :].T
        windows = np.broadcast_to(window, (len(stream.channel), *window.shape))
        own = effect.of_target(stream.window(linear), stream.column)
        return own, effect.of_covariates(windows, stream.column)

    def forecast_block(
        self,
        ahead: Array,
        context: Array,
        channel: np.ndarray,
        memory: BackboneState | None,
        static: Tensor | None,
        admission: Admission,
        frozen: bool = False,
    ) -> Block:
        """One prediction length ahead of windows ``(K, L)``, around a linear forecast ``(K, P)``.

        With ``frozen`` the memory is read as it is, and the windows are not written into it.
        """
        residual = self.residual
        window, scale = normalise(context[:, -self.clock.context_length :])
        answer = np.zeros((1, len(self.levels), 1))
        if residual.network is not None and admission.uses_network:
            answer = self._ask(
                residual.network, window, channel, memory, static, admission.asks_memory, frozen
            )  # (K, Q, P)
        gate, shift = (_of_channels(x, channel) for x in (admission.gate, admission.shift))
        correction = gate[:, None, None] * answer[:, median_index(self.levels), None]
        levels = answer if admission.learned_levels else correction + residual.spread
        # Levels are calibrated one by one: they may come to cross, which `Block` repairs.
        return Block(ahead + scale * correction[:, 0], ahead, levels + shift[..., None], scale)

    @staticmethod
    def _ask(
        network: ForecastNetwork,
        window: Array,
        channel: np.ndarray,
        memory: BackboneState | None,
        static: Tensor | None,
        ask_memory: bool,
        frozen: bool,
    ) -> Array:
        # A joined memory is not cut up again; without one the windows may be as many as they like.
        pieces = 1 if memory is not None else -(-len(window) // _WINDOWS_AT_ONCE)
        answers = []
        for rows in np.array_split(np.arange(len(window)), pieces):
            x = torch.from_numpy(window[rows]).float()
            with torch.no_grad():
                known = None if static is None else static[rows]
                answer = network(
                    x,
                    torch.from_numpy(channel[rows]),
                    memory,
                    static=known,
                    ask_memory=ask_memory,
                    frozen=frozen,
                )
                answers.append(answer.double().numpy())
        return np.concatenate(answers)


def _of_channels(values: Array, channel: np.ndarray) -> Array:
    """Those of each channel, if each has its own; of one that was not fitted the mean."""
    if len(values) == 1:
        return np.broadcast_to(values, (len(channel), *values.shape[1:]))
    if (channel >= 0).all():
        return values[channel]
    unknown = (channel < 0).reshape(-1, *[1] * (values.ndim - 1))
    return np.where(unknown, values.mean(axis=0), values[channel])
