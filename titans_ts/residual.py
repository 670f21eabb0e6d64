"""Fit the network on what the linear part leaves; admit what validation backs of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from titans_core import BackboneConfig
from titans_core.training import TrainingCallback, TrainingConfig, TrainingHistory, fit_network
from titans_ts.admission import Admission, Residual, admit, better, median_index
from titans_ts.channels import Channels
from titans_ts.linear import LinearPart
from titans_ts.network import ForecastNetwork
from titans_ts.recollection_fitting import Recollected
from titans_ts.residual_windows import Batch, ResidualWindows
from titans_ts.validation_gain import thin
from titans_ts.validation_walk import forecast_validation, validation_groups
from titans_ts.windows import Array, PatchClock

# Patches before the window that training reads into the memory: as far as gradients reach back.
_HISTORY_PATCHES = 16
_BATCH_WINDOWS, _MEMORY_WINDOWS = 256, 64  # of a training step, without the memory and with it
_MEMORY_SHARE = 0.125  # of the training steps that are taken again with the memory
_SCORED_WINDOWS = 512  # validation windows that choose the training step


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
    groups = validation_groups(data, spread.size)
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
    batch = data.sample(thin(data.training_origins(0), 4096), 0)
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
        data.sample(thin(held_out_origins[rows >= data.rows_before(past)], _SCORED_WINDOWS), past)
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
