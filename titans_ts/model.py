"""What ``fit`` learns, and how a forecast is made of it: linear part, gated correction, levels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from titans_core import BackboneState
from titans_core.state import join_states, state_position
from titans_ts.adaptation import Stream
from titans_ts.admission import Admission, Residual, median_index
from titans_ts.channels import fill_forward
from titans_ts.linear import LinearPart
from titans_ts.network import ForecastNetwork
from titans_ts.outlook import Block, Outlook
from titans_ts.scaler import Scaler
from titans_ts.windows import Array, PatchClock, normalise

_WINDOWS_AT_ONCE = 1024  # that the network forecasts


@dataclass(frozen=True)
class Model:
    """The parts of a fitted forecaster that do not move with its streams.

    Parameters
    ----------
    scalers : list of Scaler
        Of each series.
    residual : Residual
    clock : PatchClock
    levels : ndarray of shape (Q,)
        The quantile levels, ascending.
    """

    scalers: list[Scaler]
    residual: Residual
    clock: PatchClock
    levels: Array

    @property
    def memory_network(self) -> ForecastNetwork | None:
        """The network, if its carried memory is used: else there is no memory to keep."""
        return self.residual.network if self.residual.uses_memory else None

    def begin(self, y: Array, linear: LinearPart, scaler: Scaler, channel: np.ndarray) -> Stream:
        """A stream that has seen the rows of y ``(T, C)``."""
        last = fill_forward(y)[-1]
        network = self.memory_network
        return Stream.begin(scaler.apply(y), last, channel, linear, network, self.clock)

    def channels_of(self, series: int) -> np.ndarray:
        """The channels of the fit that belong to a series."""
        ends = np.cumsum([scaler.learned.sum() for scaler in self.scalers])
        return np.arange(ends[series] - self.scalers[series].learned.sum(), ends[series])

    def observe(
        self, stream: Stream, scaler: Scaler, y: Array, linear: LinearPart, *, learn: bool
    ) -> None:
        """Move the stream over the rows of y ``(n, C)``."""
        last = fill_forward(y, stream.last)[-1]
        stream.observe(scaler.apply(y), last, linear, self.memory_network, self.clock, learn=learn)

    def look_ahead(self, streams: Sequence[Stream], linear: LinearPart, rows: int) -> list[Outlook]:
        """Forecast from where the streams stand: an outlook each, with the channels learned."""
        outlooks: list[Outlook | None] = [None] * len(streams)
        for members in _alike(streams):
            together = [streams[i] for i in members]
            whole, admission = self._look_ahead(together, linear, rows)
            ends = np.cumsum([len(stream.channel) for stream in together])
            for i, stream, end in zip(members, together, ends, strict=True):
                mine = slice(end - len(stream.channel), end)
                errors = admission.errors
                if errors.shape[1] > 1:
                    errors = errors[:, stream.channel]
                blocks = [Block(b.point[mine], b.quantiles[mine], b.scale[mine]) for b in whole]
                outlooks[i] = Outlook(blocks, self.levels, errors, rows)
        return [outlook for outlook in outlooks if outlook is not None]

    def _look_ahead(
        self, streams: Sequence[Stream], linear: LinearPart, rows: int
    ) -> tuple[list[Block], Admission]:
        """Block by block: what streams that stand alike forecast."""
        memory = None
        if streams[0].memory is not None:
            memory = join_states([s.memory for s in streams if s.memory is not None])
        admission = self.residual.fresh if memory is None else self.residual.carried
        channel = np.concatenate([stream.channel for stream in streams])
        length = linear.context_length
        context = np.concatenate([stream.context[:, -length:] for stream in streams])
        blocks = []
        for _ in range(-(-rows // linear.prediction_length)):
            blocks.append(self._forecast(context, channel, memory, linear, admission))
            context = np.concatenate([context, blocks[-1].point], axis=1)[:, -length:]
        return blocks, admission

    def _forecast(
        self,
        context: Array,
        channel: np.ndarray,
        memory: BackboneState | None,
        linear: LinearPart,
        admission: Admission,
    ) -> Block:
        """One prediction length ahead of windows ``(K, L)``."""
        residual = self.residual
        ahead = linear.predict(context, channel)[:, None]  # (K, 1, P)
        window, scale = normalise(context[:, -self.clock.context_length :])
        answer = np.zeros((1, len(self.levels), 1))
        if residual.network is not None and admission.uses_network:
            answer = self._ask(
                residual.network, window, channel, memory, admission.asks_memory
            )  # (K, Q, P)
        gate, shift = (_of_channels(x, channel) for x in (admission.gate, admission.shift))
        correction = gate[:, None, None] * answer[:, median_index(self.levels), None]
        levels = answer if admission.learned_levels else correction + residual.spread
        levels = levels + shift[..., None]
        point = ahead + scale[..., None] * correction
        # Levels are calibrated one by one; sorting repairs those that came to cross.
        quantiles = np.sort(ahead + scale[..., None] * levels, axis=1)
        return Block(point[:, 0], quantiles, scale)

    @staticmethod
    def _ask(
        network: ForecastNetwork,
        window: Array,
        channel: np.ndarray,
        memory: BackboneState | None,
        ask_memory: bool,
    ) -> Array:
        # A joined memory is not cut up again; without one the windows may be as many as they like.
        pieces = 1 if memory is not None else -(-len(window) // _WINDOWS_AT_ONCE)
        answers = []
        for rows in np.array_split(np.arange(len(window)), pieces):
            x = torch.from_numpy(window[rows]).float()
            with torch.no_grad():
                k = torch.from_numpy(channel[rows])
                answers.append(network(x, k, memory, ask_memory=ask_memory).double().numpy())
        return np.concatenate(answers)


def _of_channels(values: Array, channel: np.ndarray) -> Array:
    """Those of each channel, if each has its own; of one that was not fitted the mean."""
    if len(values) == 1:
        return np.broadcast_to(values, (len(channel), *values.shape[1:]))
    unknown = (channel < 0).reshape(-1, *[1] * (values.ndim - 1))
    return np.where(unknown, values.mean(axis=0), values[channel])


def _alike(streams: Sequence[Stream]) -> Iterator[list[int]]:
    """Positions of streams whose memories have read equally many patches: forecast together."""
    groups: dict[Any, list[int]] = {}
    for i, stream in enumerate(streams):
        groups.setdefault(stream.memory and state_position(stream.memory), []).append(i)
    yield from groups.values()


@dataclass
class Standing:
    """Where the streams stand: everything of a fitted forecaster that moves as rows arrive.

    ``streams`` and ``ends``, the last time seen of each, are by the key of the series.
    """

    linear: LinearPart
    streams: dict[Any, Stream]
    ends: dict[Any, Any]

    def copy(self) -> Standing:
        """An independent copy."""
        streams = {key: stream.copy() for key, stream in self.streams.items()}
        return Standing(self.linear.copy(), streams, dict(self.ends))


@dataclass(frozen=True)
class Snapshot:
    """Where the streams stood: made by ``snapshot()``, taken back by ``restore()``."""

    standing: Standing
    model: Model
