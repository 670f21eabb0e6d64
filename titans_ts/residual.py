"""Fit the network on what the linear part leaves; forecast the validation part with it.

Origin t means: rows before t are known, rows t, t+1, ... are forecast. A window ends at its
origin; the memory holds the patches that end at or before the window's first row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from titans_core import BackboneConfig, BackboneState, map_state
from titans_core.training import TrainingCallback, TrainingConfig, TrainingHistory, fit_network
from titans_ts.admission import Admission, Forecasts, Residual, admit, better, median_index
from titans_ts.channels import LEAST_KNOWN, Channels
from titans_ts.linear import LinearPart
from titans_ts.network import ForecastNetwork
from titans_ts.recollection_fitting import Recollected
from titans_ts.windows import PATCHES_AT_ONCE, Array, PatchClock, normalise, patches_ending

# Patches before the window that training reads into the memory: as far as gradients reach back.
_HISTORY_PATCHES = 16
_BATCH_WINDOWS, _MEMORY_WINDOWS = 256, 64  # of a training step, without the memory and with it
_MEMORY_SHARE = 0.125  # of the training steps that are taken again with the memory
_ADMISSION_VALUES = 10_000_000  # numbers that validation may hold at a time
_SCORED_WINDOWS = 512  # validation windows that choose the training step
_MOST_GROUPS, _MOST_CHANNELS = 32, 256  # of a panel that validation forecasts


class Batch(NamedTuple):
    """Windows for the network: contexts ``(n, N)``, linear errors ``(n, P)``, scales ``(n, 1)``.

    And the patches before them ``(n, h, p)`` with which of them are known ``(n, h)``, and the
    channels ``(n,)``. Errors are NaN where the target is missing.
    """

    context: Tensor
    error: Tensor
    scale: Tensor
    past: Tensor
    past_known: Tensor
    channel: Tensor


class ResidualWindows:
    """Windows, patches and linear errors of channels, by origin, for the network."""

    def __init__(
        self,
        channels: Channels,
        linear: LinearPart,
        clock: PatchClock,
        added: Callable[[np.ndarray], Array] | None = None,
        recollected: Recollected | None = None,
    ) -> None:
        self.channels, self.linear, self.clock = channels, linear, clock
        self._added, self._recollected = added, recollected
        self.context_length, self.prediction_length = (
            linear.context_length,
            linear.prediction_length,
        )

    def rows_before(self, history: int) -> int:
        """Rows that a window with so many whole patches before it needs, all normalisable."""
        if history == 0:
            return self.context_length
        patches = 2 * self.clock.context_length + (history - 1) * self.clock.patch_length
        return max(self.context_length, patches)

    def training_origins(self, history: int) -> np.ndarray:
        """Origins that can teach with so many patches before the window."""
        before, after = self.context_length, self.prediction_length
        return self.channels.training_origins(before, after, self.rows_before(history))

    def sample(self, origins: np.ndarray, history: int, *, recollect: bool = False) -> Batch:
        """The windows that end at these origins, with what the seasonal memory adds or without."""
        channel = self.channels.of(origins)
        raw, target = self.channels.windows(origins, self.context_length, self.prediction_length)
        context, scale = normalise(raw[:, -self.clock.context_length :])
        ahead = self.linear.predict(raw, channel)
        if self._added is not None:
            ahead += self._added(origins)
        if recollect and self._recollected is not None:
            ahead = self._recollected.correct(ahead, raw, origins)
        error = target - ahead
        steps = np.arange(history - 1, -1, -1) * self.clock.patch_length
        ends = (origins - self.clock.context_length)[:, None] - steps
        past = patches_ending(self.channels.values, ends, self.clock)
        return Batch(
            context=torch.from_numpy(context).float(),
            error=torch.from_numpy(error).float(),
            scale=torch.from_numpy(scale).float(),
            past=torch.from_numpy(past).float(),
            past_known=torch.from_numpy(self.patch_known(ends)),
            channel=torch.from_numpy(channel),
        )

    def useful(self, origins: np.ndarray) -> np.ndarray:
        """Which windows are known enough to be scored."""
        before, after = self.context_length, self.prediction_length
        context = self.channels.known_between(origins - before, origins)
        target = self.channels.known_between(origins, origins + after)
        return np.asarray((context >= LEAST_KNOWN * before) & (target >= LEAST_KNOWN * after))

    def patch_known(self, ends: np.ndarray) -> np.ndarray:
        """Which patches are known enough to be written."""
        length = self.clock.patch_length
        known = self.channels.known_between(ends - length, ends)
        return np.asarray(known >= LEAST_KNOWN * length)


def fit_residual(
    channels: Channels,
    linear: LinearPart,
    levels: Array,
    *,
    clock: PatchClock,
    backbone: BackboneConfig | None,
    training: TrainingConfig,
    progress: bool,
    added: Callable[[np.ndarray], Array] | None = None,
    static: Array | None = None,
    recollected: Recollected | None = None,
    callbacks: Sequence[TrainingCallback] | None = None,
) -> tuple[Residual, TrainingHistory | None]:
    """Train on origins whose targets end in the training part; admit on the validation part.

    Parameters
    ----------
    channels : Channels
    linear : LinearPart
        As fitted on the training rows.
    levels : ndarray of shape (Q,)
        Ascending, with the median among them.
    clock : PatchClock
        Rows that the network looks at, at most those of the linear part, and its patches.
    backbone : BackboneConfig, optional
        None: no network, only the quantiles of the linear part's errors.
    added : callable, optional
        What is added to the linear forecast at origins ``(n,)``: ``(n, P)``.
    static : ndarray of shape (K, Ks), optional
        Static covariates of the channels.
    recollected : Recollected, optional
        What the seasonal memory adds in a stream. The network is trained without: what it learns
        serves both, and each has gates of its own.
    callbacks : sequence of callable, optional
        Told of both trainings, the network's and the memory's.

    Returns
    -------
    Residual, TrainingHistory or None
    """
    data = ResidualWindows(channels, linear, clock, added, recollected)
    spread = _error_spread(data, levels)
    groups = _validation_groups(data, spread.size)
    network = history = None
    if backbone is not None:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(training.seed)
            network = ForecastNetwork(
                backbone,
                channels=len(channels),
                context_length=clock.context_length,
                patch_length=clock.patch_length,
                median_index=median_index(levels),
                spread=torch.from_numpy(spread).float(),
                static=None if static is None else torch.from_numpy(static).float(),
            ).float()  # whatever the default dtype is
        origins = np.concatenate([group.reshape(-1) for group in groups])
        train = partial(_train, network, data, origins, levels, progress, callbacks)
        history = train(training, ask_memory=False)
        if backbone.num_blocks:
            steps = math.ceil(_MEMORY_SHARE * training.max_steps)
            briefly = replace(
                training,
                max_steps=steps,
                validate_every=math.ceil(_MEMORY_SHARE * training.validate_every),
            )
            train(briefly, ask_memory=True)
    has_memory = backbone is not None and backbone.num_blocks > 0

    def admitted(*, ask_memory: bool, carry: bool) -> Admission:
        forecasts = forecast_validation(network, data, groups, ask_memory=ask_memory, carry=carry)
        return admit(forecasts, spread, levels, len(channels), asks_memory=ask_memory)

    fresh = admitted(ask_memory=False, carry=False)
    carried = fresh if recollected is None else admitted(ask_memory=False, carry=True)
    if has_memory:
        fresh = better(admitted(ask_memory=True, carry=False), fresh)
        asking = admitted(ask_memory=True, carry=True)
        carried = asking if recollected is None else better(asking, carried)
    recollection = None if recollected is None else recollected.recollection
    return Residual(network, spread, fresh, carried, recollection), history


def _error_spread(data: ResidualWindows, levels: Array) -> Array:
    """Quantiles of the linear part's training errors, in window scales, less their median."""
    batch = data.sample(_thin(data.training_origins(0), 4096), 0)
    scaled = (batch.error / batch.scale).double().numpy()
    spread = np.nanquantile(scaled, levels, axis=0)
    return np.asarray(spread - spread[median_index(levels)])


def _train(
    network: ForecastNetwork,
    data: ResidualWindows,
    held_out_origins: np.ndarray,
    levels: Array,
    progress: bool,
    callbacks: Sequence[TrainingCallback] | None,
    training: TrainingConfig,
    *,
    ask_memory: bool,
) -> TrainingHistory:
    level, middle = torch.from_numpy(levels).float()[:, None], median_index(levels)
    # Where the training rows are few, history must leave half of the origins to choose from.
    fresh = data.training_origins(0)
    size = _MEMORY_WINDOWS if ask_memory else _BATCH_WINDOWS
    history = _HISTORY_PATCHES if ask_memory else 0
    while history and len(data.training_origins(history)) < len(fresh) / 2:
        history -= 1
    origins = {0: fresh, history: data.training_origins(history) if history else fresh}

    def sample_batch(generator: torch.Generator) -> Batch:
        # Half of the batches begin with the window, the others carry a memory into it.
        past = history * int(torch.randint(2, (), generator=generator))
        chosen = torch.randint(len(origins[past]), (size,), generator=generator)
        return data.sample(origins[past][chosen.numpy()], past)

    def pinball(network: Any, batch: Batch) -> Tensor:
        answer = network(
            batch.context,
            batch.channel,
            past=batch.past,
            known=batch.past_known,
            ask_memory=ask_memory,
        )
        excess = batch.error[:, None] - answer * batch.scale[:, None]
        q = level.to(excess.device)
        loss = torch.maximum(q * excess, (q - 1) * excess)
        # The median once more: it is what corrects the point forecast.
        return _known_mean(loss) + _known_mean(loss[:, middle])

    rows = held_out_origins - data.channels.starts[data.channels.of(held_out_origins)]
    held_out = [
        data.sample(_thin(held_out_origins[rows >= data.rows_before(past)], _SCORED_WINDOWS), past)
        for past in sorted({0, history})
    ]

    def validate(network: nn.Module) -> float:
        device = next(network.parameters()).device
        losses = [
            pinball(network, Batch(*(x.to(device) for x in batch))).item() for batch in held_out
        ]
        return float(np.mean(losses))

    return fit_network(
        network,
        sample_batch,
        pinball,
        validate,
        training,
        progress=progress,
        description="training the memory" if ask_memory else "training the network",
        callbacks=callbacks,
    )


def _known_mean(loss: Tensor) -> Tensor:
    return loss.nansum() / (~loss.isnan()).sum()


def _thin(origins: np.ndarray, most: int) -> np.ndarray:
    """At most so many of them, evenly spread."""
    chosen = np.linspace(0, len(origins) - 1, min(len(origins), most)).astype(int)
    return origins[chosen]


def _validation_groups(data: ResidualWindows, answers: int) -> list[np.ndarray]:
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
        members = _thin(np.flatnonzero(kind_of.reshape(-1) == kind), _MOST_CHANNELS)
        mine = np.isin(useful_of, members)
        local = np.unique(useful[mine] - channels.starts[useful_of[mine]])
        affordable = max(16, _ADMISSION_VALUES // (answers * len(members)))
        if len(local):
            groups.append(_thin(local, affordable)[:, None] + channels.starts[members])
    return [groups[i] for i in _thin(np.arange(len(groups)), _MOST_GROUPS)]


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
        for rows in np.array_split(block, -(-len(block) * len(channel) // _BATCH_WINDOWS)):
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
