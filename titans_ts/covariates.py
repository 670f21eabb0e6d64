"""What ``fit`` learned of covariates, and how they enter a forecast.

Future-known ones act on the rows themselves: everything else models ``u = z - F B`` (z-scores less
their effects), and what they will do is added to the forecast of u. Past ones correct the linear
forecast by what their last rows say. Static ones tell the network which series are alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from titans_ts.past_effect import PastEffect
from titans_ts.windows import Array


@dataclass(frozen=True)
class CovariateScaler:
    """Covariates in standard deviations from their mean over the training rows.

    What is missing is taken for the mean. What was constant is 0 for good. What lies outside the
    range of the training rows counts up to one such range further out, no more.

    Parameters
    ----------
    level, scale, lowest, highest : ndarray of shape (K,)
        Over the training rows of all series.
    """

    level: Array
    scale: Array
    lowest: Array
    highest: Array

    @classmethod
    def fit(cls, rows: Array) -> CovariateScaler:
        """Learn from training rows ``(R, K)``, NaN where a value is missing."""
        known = ~np.isnan(rows)
        some, count = known.any(axis=0), known.sum(axis=0).clip(1)
        values = np.where(known, rows, 0.0)
        # Squares of large numbers overflow, those of shares of the largest do not.
        unit = np.abs(values).max(axis=0, initial=0.0)
        unit = np.where(unit > 0, unit, 1.0)
        level = (values / unit).sum(axis=0) / count
        deviation = np.where(known, values / unit - level, 0.0)
        scale = np.sqrt(np.square(deviation).sum(axis=0) / count)
        lowest = np.where(known, values, np.inf).min(axis=0, initial=np.inf)
        highest = np.where(known, values, -np.inf).max(axis=0, initial=-np.inf)
        lowest, highest = np.where(some, lowest, 0.0), np.where(some, highest, 0.0)
        varies = highest / unit - lowest / unit > 1e-12
        return cls(unit * level, np.where(varies, unit * scale, 0.0), lowest, highest)

    def apply(self, rows: Array) -> Array:
        """Original units ``(..., K)`` to standard deviations from the mean."""
        varies = self.scale > 0
        with np.errstate(over="ignore"):
            width = self.highest - self.lowest
            near = np.clip(rows, self.lowest - width, self.highest + width)
            scaled = (near - self.level) / np.where(varies, self.scale, 1.0)
        return np.where(varies & ~np.isnan(rows), scaled, 0.0)


@dataclass(frozen=True)
class Covariates:
    """The effects of covariates, all in z-scores of the targets.

    Parameters
    ----------
    future, past, static : CovariateScaler
        Of each role; of no columns where there are no such covariates.
    weights : ndarray of shape (K, Kf)
        B: effect of each future-known covariate on each channel, per standard deviation of it.
    shared : ndarray of shape (C, Kf)
        The same on each target column, for series that were not fitted.
    past_effect : PastEffect or None
        None without past covariates, or where validation did not back it.
    future_gain, past_gain : float
        Share of the squared validation error that they save; 0 where they are not let in.
    """

    future: CovariateScaler
    past: CovariateScaler
    static: CovariateScaler
    weights: Array
    shared: Array
    past_effect: PastEffect | None
    future_gain: float = 0.0
    past_gain: float = 0.0

    @property
    def used(self) -> bool:
        """Whether future or past ones have a part in the linear forecast."""
        return bool(self.future_gain) or self.past_effect is not None

    def future_effects(self, rows: Array, channel: np.ndarray, column: np.ndarray) -> Array:
        """What each future-known covariate adds: rows ``(T, Kf)`` -> ``(T, C', Kf)``.

        A channel of -1 was not fitted; its ``column`` tells which target it is.
        """
        weights = np.where((channel < 0)[:, None], self.shared[column], self.weights[channel])
        return self.future.apply(rows)[:, None] * weights

    def future_effect(self, rows: Array, channel: np.ndarray, column: np.ndarray) -> Array:
        """All of them together, ``(T, C')``."""
        if not self.future_gain:
            return np.zeros((len(rows), len(channel)))
        return self.future_effects(rows, channel, column).sum(axis=-1)

    def kin(self, static: Array) -> Array:
        """Static covariates ``(Ks,)`` as the network takes them: those that differ, scaled."""
        return self.static.apply(static)[self.static.scale > 0]

    def past_rows(self, rows: Array) -> Array:
        """Past covariates ``(T, Kp)`` as a stream keeps them; no columns if they are not used."""
        return self.past.apply(rows) if self.past_effect is not None else rows[:, :0]


def scale_covariates(
    rows: Sequence[Array], n_train: Sequence[int], padding: Sequence[int]
) -> tuple[CovariateScaler, list[Array]]:
    """Learn the scale from the training rows of all series; scale them, padded in front."""
    scaler = CovariateScaler.fit(
        np.concatenate([each[:n] for each, n in zip(rows, n_train, strict=True)])
    )
    scaled = [
        np.concatenate([np.zeros((more, each.shape[1])), scaler.apply(each)])
        for each, more in zip(rows, padding, strict=True)
    ]
    return scaler, scaled


def covariates_to_dict(covariates: Covariates) -> dict[str, Any]:
    """Arrays and scalars by field."""
    return vars(covariates) | {
        name: None if (part := getattr(covariates, name)) is None else vars(part)
        for name in ("future", "past", "static", "past_effect")
    }


def covariates_from_dict(stored: dict[str, Any]) -> Covariates:
    """Rebuild what `covariates_to_dict` returned."""
    scalers = {role: CovariateScaler(**stored[role]) for role in ("future", "past", "static")}
    effect = stored["past_effect"]
    return Covariates(
        **stored | scalers | {"past_effect": None if effect is None else PastEffect(**effect)}
    )
