"""Covariates that each series has at a level of its own, as prices: what counts is the share.

An effect per unit cannot be the same for a price of 1 and one of 300, that of a tenth off can. Such
covariates are divided by their mean over the training rows of the series, less 1; of a series that
was not fitted, over the rows of its context.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from titans_ts.panels import Panel, Series
from titans_ts.scaler import Scaler
from titans_ts.windows import Array

_FEWEST_SERIES = 3  # of which it can be said that their levels differ
_LEVELS_APART = 10.0  # variance between series, in variances within, that effects cannot bear


@dataclass(frozen=True)
class Relative:
    """Which covariates are taken relative to their level in each series.

    Parameters
    ----------
    future, past : boolean ndarray of shape (Kf,) and (Kp,)
    """

    future: np.ndarray
    past: np.ndarray

    @classmethod
    def find(cls, panel: Panel, n_train: Sequence[int]) -> Relative:
        """Those that are positive, and much further apart between series than within them.

        If one is as far apart and not positive there is a warning.
        """
        told = [slice(rows or None) for rows in n_train]  # all, if there is nothing to train on
        parts = list(zip(panel.series, told, strict=True))
        return cls(
            _find([each.future[rows] for each, rows in parts], panel.layout.future_names),
            _find([each.past[rows] for each, rows in parts], panel.layout.past_names),
        )

    def of(self, scaler: Scaler, series: Series, n_train: int = 0) -> Scaler:
        """The scaler with the levels of a series, by its training rows, or by all."""
        rows = slice(n_train or None)
        return replace(
            scaler,
            future_level=_levels(series.future[rows], self.future),
            past_level=_levels(series.past[rows], self.past),
        )


def _find(rows: Sequence[Array], names: Sequence[str]) -> np.ndarray:
    found = np.zeros(len(names), bool)
    for k, name in enumerate(names):
        columns = [each[:, k][~np.isnan(each[:, k])] for each in rows]
        columns = [column for column in columns if len(column) > 1]
        if len(columns) < _FEWEST_SERIES:
            continue
        unit = max(np.abs(column).max() for column in columns) or 1.0
        within = float(np.mean([(column / unit).var() for column in columns]))
        between = float(np.var([(column / unit).mean() for column in columns]))
        if not 0 < _LEVELS_APART * within < between:
            continue
        found[k] = all((column > 0).all() for column in columns)
        if not found[k]:
            times = np.sqrt(between / within)
            warnings.warn(
                f"levels of the covariate {name!r} lie {times:.0f} times as far apart between "
                "series as it changes within one, and it is not positive: its effect per unit is "
                "taken to be the same for all. Give it relative to what is usual in each series.",
                UserWarning,
                stacklevel=6,  # the line that called fit
            )
    return found


def _levels(rows: Array, relative: np.ndarray) -> Array:
    """Means of the relative ones; 0 of the others, and where nothing is known."""
    count = (~np.isnan(rows)).sum(axis=0)
    mean = np.nansum(rows, axis=0) / count.clip(1)
    return np.asarray(np.where(relative & (mean > 0), mean, 0.0))
