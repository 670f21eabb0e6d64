"""Fit the forecaster by the published protocol, as several benchmarks do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from titans_ts import TitansForecaster
from titans_ts.settings import DEFAULT_TRAINING

BATCHES = {"ILI": 16}
"""Windows of a batch of PatchTST, whose published figures leave out what is no whole batch."""


def whole_batches(dataset: str, windows: int) -> tuple[str, int]:
    """What rows call these windows, and how many they are: the first of all."""
    kept = windows // BATCHES[dataset] * BATCHES[dataset]
    return f", whole batches of {BATCHES[dataset]}", kept


class Errors(NamedTuple):
    """Sums over the steps and channels of each window, and the CPU seconds of forecasting."""

    squares: np.ndarray
    absolutes: np.ndarray
    known: np.ndarray
    seconds: float


def errors_of(blocks: Iterator[np.ndarray], actual: np.ndarray, scale: np.ndarray) -> Errors:
    """Errors, in units of ``scale``, of forecasts that come some windows at a time.

    Those of a thousand channels would fill the memory as a whole.
    """
    squares, absolutes, known = np.zeros((3, len(actual)))
    done, seconds, begun = 0, 0.0, time.process_time()
    for forecasts in blocks:
        seconds += time.process_time() - begun
        some = slice(done, done + len(forecasts))
        error = (forecasts - actual[some]) / scale
        squares[some] = np.nansum(np.square(error), axis=(1, 2))
        absolutes[some] = np.nansum(np.abs(error), axis=(1, 2))
        known[some] = np.isfinite(error).sum(axis=(1, 2))
        done, begun = some.stop, time.process_time()
    return Errors(squares, absolutes, known, seconds)


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
