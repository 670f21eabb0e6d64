"""One table of a backtest: errors of each model, and the skill of ours over each floor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from titans_ts.backtest_scores import Forecasts, bootstrap_skill, losses_of
from titans_ts.windows import Array

__all__ = ["METRICS", "OURS", "Metric", "summarize"]

Metric = Literal["mse", "mae", "mase", "pinball"]
METRICS: tuple[Metric, ...] = ("mse", "mae", "mase", "pinball")
OURS = "TitansForecaster"

# By which power of a channel's standard deviation an error is made free of its unit.
_UNIT = {"mse": 2, "mae": 1, "mase": 0, "pinball": 1}


def summarize(
    forecasts: Forecasts,
    channels: Sequence[str | int] | None,
    levels: Sequence[float],
    n_windows: int,
    block_length: int,
    metric: Metric,
    *,
    confidence: float = 0.95,
    n_resamples: int = 2000,
    random_state: int = 0,
) -> Any:
    """Return the table that `BacktestResult.summary` describes, a pandas frame.

    Parameters
    ----------
    forecasts : Forecasts
    channels : sequence or None
        Names, for a row per channel and model; None sums up over all.
    levels : sequence of float
        Coverages in percent, ascending.
    n_windows, block_length : int
        How many cutoffs, and how many of them the bootstrap redraws together.
    metric, confidence, n_resamples, random_state
        As there.
    """
    import pandas as pd

    f = forecasts
    tails = (100 - np.array(levels)) / 200
    quantiles = np.concatenate([tails[::-1], 1 - tails])
    losses = {model: losses_of(f, model, quantiles) for model in f.point}
    units = np.zeros_like(f.unit) if channels is None else f.unit
    present, unit = np.unique(units, return_inverse=True)
    weight = f.spread[f.unit] ** -_UNIT[metric] if channels is None else np.ones(len(unit))
    cell, shape = unit * n_windows + f.window, (len(present), n_windows)
    sums: dict[str, Array] = {}
    for model, loss in losses.items():
        total = np.bincount(cell, np.nan_to_num(loss[metric]) * weight, shape[0] * shape[1])
        sums[model] = total.astype(float).reshape(shape)
    parts = []
    for model, loss in losses.items():
        found: dict[str, Array] = {name: _means(loss[name], unit) for name in METRICS}
        for level, inside in zip(levels, loss["inside"].T[::-1], strict=True):
            found[f"coverage-{level:g}"] = _means(inside, unit)
        skill = np.full((3, len(present)), np.nan)
        if model != OURS:
            with np.errstate(divide="ignore", invalid="ignore"):
                skill[0] = 1 - sums[OURS].sum(axis=1) / sums[model].sum(axis=1)
            skill[1:] = bootstrap_skill(
                sums[OURS],
                sums[model],
                block_length,
                confidence=confidence,
                n_resamples=n_resamples,
                random_state=random_state,
            )
        found |= dict(zip(("skill", "skill_low", "skill_high"), skill, strict=True))
        part = pd.DataFrame(found)
        part.insert(0, "model", model)
        if channels is not None:
            part.insert(0, "unique_id", [channels[i] for i in present])
        parts.append(part)
    return pd.concat(parts).sort_index(kind="stable").reset_index(drop=True)


def _means(losses: Array, unit: np.ndarray) -> Array:
    """Mean of the known losses of each unit, NaN where there are none."""
    known = ~np.isnan(losses)
    total = np.bincount(unit, np.nan_to_num(losses))
    with np.errstate(invalid="ignore"):
        return np.asarray(total / np.bincount(unit, known))
