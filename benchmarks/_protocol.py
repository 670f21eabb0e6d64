"""Fit the forecaster by the published protocol, as several benchmarks do."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np

from titans_ts import TitansForecaster
from titans_ts.settings import DEFAULT_TRAINING

BATCHES = {"ILI": 16}
"""Windows of a batch of PatchTST, whose published figures leave out what is no whole batch."""


def whole_batches(dataset: str, windows: int) -> tuple[str, int]:
    """What rows call these windows, and how many they are: the first of all."""
    kept = windows // BATCHES[dataset] * BATCHES[dataset]
    return f", whole batches of {BATCHES[dataset]}", kept


def fit(
    y: np.ndarray,
    train_end: int,
    validation_end: int,
    horizon: int,
    context: int | str,
    *,
    seed: int = 0,
    quick: bool = False,
    **options: Any,
) -> tuple[TitansForecaster, float]:
    """The forecaster fitted on the rows up to ``validation_end``, and the CPU seconds it took.

    Rows from ``train_end`` on choose, they do not train. ``quick`` is a short training.
    """
    short = {"max_steps": 20, "validate_every": 10} if quick else {}
    begun = time.process_time()
    forecaster = TitansForecaster(
        horizon,
        context,
        validation_size=validation_end - train_end,
        refit=False,
        random_state=seed,
        training=replace(DEFAULT_TRAINING, accelerator="cpu", **short),
        progress=False,
        **options,
    ).fit(y[:validation_end])
    return forecaster, time.process_time() - begun
