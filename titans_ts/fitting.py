"""Learn from a panel: split it in time, scale it, fit the linear part, then the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from titans_core.fabric import check_accelerator
from titans_core.training_config import TrainingHistory
from titans_ts.adaptation import Stream
from titans_ts.covariate_fitting import fit_covariates
from titans_ts.domain import choose_domain
from titans_ts.floors import detect_season
from titans_ts.linear import LinearPart
from titans_ts.linear_choice import LOOK_BACKS, look_backs_within, refit_linear
from titans_ts.model import Model
from titans_ts.recollection_fitting import fit_recollection, refit_recollection
from titans_ts.relative import Relative
from titans_ts.residual import fit_residual
from titans_ts.scaler import borrow_scale
from titans_ts.settings import DEFAULT_BACKBONE, DEFAULT_TRAINING, is_count
from titans_ts.shortness import Shortness
from titans_ts.windows import PatchClock

if TYPE_CHECKING:
    from titans_ts.forecaster import TitansForecaster
    from titans_ts.panels import Panel

NETWORK_ROWS = 512  # of the look-back that the network sees, at most
_LEAST_WINDOWS = 4  # look-backs that fit into the training rows, for one that is chosen


@dataclass(frozen=True)
class Fitted:
    """What was learned, and where its streams stand: at the end of each series."""

    model: Model
    linear: LinearPart
    streams: list[Stream]
    history: TrainingHistory | None


def fit_panel(panel: Panel, params: TitansForecaster) -> Fitted:
    """Learn from all series together; the parameters are those of the forecaster.

    Raises
    ------
    ValueError
        The series have too few rows, or values that cannot be computed with; or the training asks
        for a device that is not there.
    """
    training = DEFAULT_TRAINING if params.training is None else params.training
    if params.use_network:
        check_accelerator(training.accelerator)  # now, not after the linear part
    series = [each.values for each in panel.series]
    n_train = [_training_rows(len(values), params) for values in series]
    ahead = params.prediction_length
    look_backs = _look_backs(params, max(n_train))
    _check_rows(
        panel, n_train, look_backs[0] if params.context_length == "auto" else look_backs[-1], params
    )
    domain, in_domain = choose_domain(series, n_train, look_backs, ahead, params.target_transform)
    # Of a single row the z-score is 0 whatever its scale.
    told = zip(in_domain.scalers, series, strict=True)
    scalers = [borrow_scale(scaler, y, in_domain.scalers) for scaler, y in told]
    relative = Relative.find(panel, n_train)
    scalers = [relative.of(*each) for each in zip(scalers, panel.series, n_train, strict=True)]
    in_domain = in_domain._replace(scalers=scalers)
    season = 1
    if params.use_memory:
        parts = zip(in_domain.z, in_domain.trained, strict=True)
        season = detect_season([z[:rows] for z, rows in parts])
    found = fit_covariates(panel, in_domain, look_backs)
    del in_domain  # nor is what was scaled for it held while the network trains
    if found.covariates.used:  # they tell part of what the mean was to make up for
        domain = replace(domain, to_mean=np.zeros((1, 1)))
    channels, linear, covariates = found.channels, found.linear, found.covariates
    rows = min(linear.context_length, NETWORK_ROWS)
    clock = PatchClock(rows, min(params.patch_length, rows))
    levels = np.asarray(params.quantile_levels, dtype=float)
    shortness = Shortness.fit(channels, linear, clock)
    recollected = fit_recollection(channels, linear, season, found.added)
    residual, history = fit_residual(
        channels,
        linear,
        levels,
        clock=clock,
        backbone=(params.backbone or DEFAULT_BACKBONE) if params.use_network else None,
        training=replace(training, seed=int(params.random_state)),
        progress=params.progress,
        callbacks=params.callbacks,
        added=found.added,
        static=found.static,
        recollected=recollected,
    )
    if params.refit:
        linear = refit_linear(channels, found.choice, ahead)
        if recollected is not None and residual.uses_memory:
            residual = replace(residual, recollection=refit_recollection(recollected, linear))
    del channels, found, recollected  # nor while the streams begin
    model = Model(scalers, covariates, residual, clock, levels, domain, shortness, relative)
    streams = [
        model.begin(each, linear, scaler, model.channels_of(i))
        for i, (each, scaler) in enumerate(zip(panel.series, scalers, strict=True))
    ]
    return Fitted(model, linear, streams, history)


def _training_rows(rows: int, params: TitansForecaster) -> int:
    """Number of rows before the validation part."""
    share = params.validation_size
    if is_count(share):
        return max(rows - int(share), 0)
    return max(rows - max(round(share * rows), params.prediction_length), 0)


def _look_backs(params: TitansForecaster, n_train: int) -> tuple[int, ...]:
    if params.context_length != "auto":
        return look_backs_within(int(params.context_length))
    longest = max((n for n in LOOK_BACKS if n <= n_train / _LEAST_WINDOWS), default=0)
    # Of a series too short for the shortest of them: half of what the targets leave.
    return look_backs_within(longest or max((n_train - params.prediction_length) // 2, 2))


def _check_rows(
    panel: Panel, n_train: Sequence[int], context_length: int, params: TitansForecaster
) -> None:
    """Refuse a panel of which no series can be learned from."""
    ahead = params.prediction_length
    rows = [len(each.values) for each in panel.series]
    longest = int(np.argmax(rows))
    train, validation = n_train[longest], rows[longest] - n_train[longest]
    needed = context_length + ahead
    if validation < ahead or train < needed:
        which = (
            "y has" if len(rows) == 1 else f"the longest series, {panel.series[longest].key!r}, has"
        )
        raise ValueError(
            f"{which} {rows[longest]} rows (n_samples={rows[longest]}), split into {train} for "
            f"training and {validation} for validation (validation_size={params.validation_size}); "
            f"training needs at least context_length + prediction_length = {needed} and validation "
            f"prediction_length = {ahead}. Give more rows, shorten context_length or "
            "prediction_length, or change validation_size."
        )
