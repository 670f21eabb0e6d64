"""Forecast the validation part in time order, with memories carried along or without."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from titans_core import BackboneState, map_state
from titans_ts.admission import Forecasts
from titans_ts.network import ForecastNetwork
from titans_ts.residual_windows import ResidualWindows
from titans_ts.validation_gain import thin
from titans_ts.windows import PATCHES_AT_ONCE, Array, patches_ending

_ADMISSION_VALUES = 10_000_000  # numbers that validation may hold at a time
_WINDOWS_AT_ONCE = 256
_MOST_GROUPS, _MOST_CHANNELS = 32, 256  # of a panel that validation forecasts


def validation_groups(data: ResidualWindows, answers: int) -> list[np.ndarray]:
    """Validation origins ``(n, c)`` by groups of channels that begin and end together.

    A wide table is one group, and a row of the array one time of it. Of a panel some groups, and
    some channels of each, stand for all; where memory would not do, origins are thinned.
    """
    channels, before, after = data.channels, data.context_length, data.prediction_length
    spans = np.stack([np.diff(channels.starts), channels.trained - channels.starts[:-1]])
    _, kind_of = np.unique(spans, axis=1, return_inverse=True)
    useful = channels.validation_origins(before, after)
    useful_of = channels.of(useful)
    groups = []
    for kind in np.unique(kind_of.reshape(-1)[useful_of]):
        members = thin(np.flatnonzero(kind_of.reshape(-1) == kind), _MOST_CHANNELS)
        mine = np.isin(useful_of, members)
        local = np.unique(useful[mine] - channels.starts[useful_of[mine]])
        affordable = max(16, _ADMISSION_VALUES // (answers * len(members)))
        if len(local):
            groups.append(thin(local, affordable)[:, None] + channels.starts[members])
    return [groups[i] for i in thin(np.arange(len(groups)), _MOST_GROUPS)]


def forecast_validation(
    network: ForecastNetwork | None,
    data: ResidualWindows,
    groups: list[np.ndarray],
    *,
    ask_memory: bool,
    carry: bool,
) -> Forecasts:
    """Forecast at the origins of all groups, with memories carried from their start or without.

    Nothing at an origin depends on rows after it. Errors of windows not known enough are NaN.
    """
    joined = [
        np.concatenate(parts)
        for group in groups
        for parts in zip(*_walk(network, data, group, ask_memory, carry), strict=True)
    ]
    fields = 4 if network is not None else 3
    error, scale, channel, *answer = (np.concatenate(joined[i::fields]) for i in range(fields))
    late = [np.repeat(np.arange(len(g)) >= len(g) / 2, g.shape[1]) for g in groups]
    windows = max(g[-1, 0] - g[0, 0] + 1 for g in groups) / data.prediction_length
    return Forecasts(
        error, scale, channel, np.concatenate(late), windows, answer[0] if answer else None
    )


def _walk(
    network: ForecastNetwork | None,
    data: ResidualWindows,
    group: np.ndarray,
    ask_memory: bool,
    carry: bool,
) -> Iterator[tuple[Array, ...]]:
    """Go through the origins of a group in time order, with a memory or without."""
    memory = network if carry and ask_memory else None
    clock, starts = data.clock, data.channels.starts[data.channels.of(group[0])]
    local = group[:, 0] - starts[0]
    due = clock.due(local) if memory is not None else np.zeros(len(local), dtype=int)
    channel = data.channels.of(group[0])
    state, written = None, clock.first
    for block in np.split(np.arange(len(local)), np.flatnonzero(np.diff(due)) + 1):
        if memory is not None and due[block[0]] > written:
            for first in range(written, due[block[0]], PATCHES_AT_ONCE):
                last = min(first + PATCHES_AT_ONCE, due[block[0]])
                ends = starts[:, None] + clock.end(np.arange(first, last))
                patches = [patches_ending(data.channels.values, each, clock) for each in ends]
                known = data.patch_known(ends)
                state = remember(memory, np.stack(patches), known, channel, state)
            written = due[block[0]]
        for rows in np.array_split(block, -(-len(block) * len(channel) // _WINDOWS_AT_ONCE)):
            batch = data.sample(group[rows].reshape(-1), 0, recollect=carry)
            error = np.where(data.useful(group[rows].reshape(-1))[:, None], batch.error, np.nan)
            answer = [error, batch.scale.numpy(), batch.channel.numpy()]
            if network is not None:
                with torch.no_grad():
                    tiled = None if state is None else tile_state(state, len(rows))
                    said = network(batch.context, batch.channel, tiled, ask_memory=ask_memory)
                    answer.append(said.numpy())
            yield tuple(answer)


def remember(
    network: ForecastNetwork,
    patches: Array,
    known: np.ndarray,
    channel: np.ndarray,
    state: BackboneState | None,
    static: Tensor | None = None,
) -> BackboneState:
    """Write patches ``(C, n, p)``, one stream per channel, where they are known; no gradients."""
    with torch.no_grad():
        return network.remember(
            torch.from_numpy(patches).float(),
            torch.from_numpy(channel),
            state,
            torch.from_numpy(known),
            static,
        )


def tile_state(state: BackboneState, n: int) -> BackboneState:
    """The state of C streams for n windows of each: ``C -> n C``, channels fastest."""
    return map_state(lambda x: x.repeat(n, *[1] * (x.ndim - 1)), state)
