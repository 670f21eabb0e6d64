"""The domain in which series are learned: as they are, or by their logarithms.

Where a series moves by shares of its level, its logarithm moves by amounts, and one linear map does
for low levels and high ones. Channels come into question whose changes over the training rows are
likelier as shares than as amounts (`scaler.may_gain_by_log`). Their logarithms are taken if, on
validation, the linear forecasts have the smaller squared error in original units, and are likelier,
too: few rows of validation are one season's luck, and the two seldom err alike.

Notes
-----
Box and Cox (1964), An analysis of transformations. Duan (1983), Smearing estimate: a nonparametric
retransformation method.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from titans_ts.channels import Channels
from titans_ts.domain_scores import (
    InDomain,
    judge,
    log_likelihood_gain,
    origins_of,
    smearing,
    squared_error,
)
from titans_ts.linear_choice import choose_linear
from titans_ts.scaler import Scaler, may_gain_by_log, suits_log
from titans_ts.validation_gain import LEAST_GAIN
from titans_ts.windows import Array

# Of the logarithm of the errors' size, by which the likelihood must favour logarithms.
_LEAST_LIKELIHOOD = 0.01
# Share of the squared error that they must save: more than other additions, since all of them
# stand on the domain.
_LEAST_GAIN = 0.01
_TRIED_ROWS = 192  # the longest look-back that the domain is chosen with


@dataclass(frozen=True)
class Domain:
    """What is learned of the series.

    Parameters
    ----------
    columns : boolean ndarray of shape (C,)
        Of which target columns the logarithms are learned, at least in some series.
    gain : float
        Share of the squared validation error that this saves; 0 without logarithms, or where
        they were asked for.
    to_mean : ndarray of shape (K, P), or (1, 1)
        From a forecast of a logarithm, whose exponential is a median, to that of the mean, in
        z-scores: by training errors, if validation backs it, else 0.
    """

    columns: np.ndarray
    gain: float
    to_mean: Array

    @classmethod
    def plain(cls, columns: int) -> Domain:
        """Values as they are."""
        return cls(np.zeros(columns, dtype=bool), 0.0, np.zeros((1, 1)))

    @property
    def logarithms(self) -> bool:
        """Whether any are learned."""
        return bool(self.columns.any())

    def scaler(self, context: Array) -> Scaler:
        """For a series that was not fitted, by its rows ``(T, C)``."""
        with np.errstate(invalid="ignore"):
            return Scaler.fit(context, self.columns & (context > 0).any(axis=0))


def choose_domain(
    series: Sequence[Array],
    n_train: Sequence[int],
    look_backs: Sequence[int],
    prediction_length: int,
    target_transform: str,
) -> tuple[Domain, InDomain]:
    """Fit the linear part in each domain that comes into question; choose on validation.

    Raises
    ------
    ValueError
        Logarithms are asked for, and a series has training values that have none.
    """
    # Of a series too short to train on, all rows tell the scale.
    told = [
        values[:rows] if rows >= prediction_length else values
        for values, rows in zip(series, n_train, strict=True)
    ]

    def fit(logs: Sequence[np.ndarray], look_backs: Sequence[int] = look_backs) -> InDomain:
        return _fit(series, told, n_train, logs, look_backs, prediction_length)

    nothing = [np.zeros(rows.shape[1], dtype=bool) for rows in told]
    if target_transform == "none":
        return Domain.plain(len(nothing[0])), fit(nothing)
    if target_transform == "log":
        _check_positive(told)
        logs = [suits_log(rows) for rows in told]
        return _with_mean(fit(logs), None, told, logs)[1:]
    logs = [may_gain_by_log(rows, prediction_length) for rows in told]
    if not np.any(logs):
        return Domain.plain(len(nothing[0])), fit(nothing)
    tried = [rows for rows in look_backs if rows <= _TRIED_ROWS] or look_backs[:1]
    plain = fit(nothing, tried)
    gain, domain, found = _with_mean(fit(logs, tried), plain, told, logs)
    unchanged = Domain.plain(len(nothing[0]))
    if len(tried) == len(look_backs):
        return (replace(domain, gain=gain), found) if gain else (unchanged, plain)
    del plain, found  # each holds the rows once or twice more
    if not gain:
        return unchanged, fit(nothing)
    _, domain, found = _with_mean(fit(logs), None, told, logs)
    return replace(domain, gain=gain), found


def _with_mean(
    found: InDomain, plain: InDomain | None, told: Sequence[Array], logs: Sequence[np.ndarray]
) -> tuple[float, Domain, InDomain]:
    """The gain over plain values, 0.0 where they are to stay; and the domain of logarithms."""
    fits = [found] if plain is None else [found, plain]
    validation = origins_of(*fits, training=False)
    judged = [judge(each, validation) for each in fits]
    truth = judged[-1].values(judged[-1].truth)
    variance = np.concatenate(
        [
            np.nanvar(rows[:, scaler.learned], axis=0)
            for rows, scaler in zip(told, found.scalers, strict=True)
        ]
    )
    variance = np.where(variance > 0, variance, 1.0)
    learned = judge(found, origins_of(found, training=True))
    shift = smearing(learned, len(found.channels))
    if not found.linear.per_channel:  # one for all channels, as their matrix
        shift = np.broadcast_to(shift.mean(axis=0), shift.shape)
    medians, means = (squared_error(judged[0], truth, variance, by) for by in (0.0, shift))
    scale = np.concatenate([scaler.scale for scaler in found.scalers])
    helps = means < (1 - LEAST_GAIN) * medians
    to_mean = shift / scale[:, None] if helps else np.zeros((1, 1))
    gain = 0.0
    if plain is not None:
        before = squared_error(judged[1], truth, variance)
        gain = 1 - min(medians, means) / before if before > 0 else 0.0
        likelier = log_likelihood_gain(judged[1], judged[0]) > _LEAST_LIKELIHOOD
        gain = gain if gain > _LEAST_GAIN and likelier else 0.0
    return gain, Domain(np.any(logs, axis=0), gain, to_mean), found


def _fit(
    series: Sequence[Array],
    told: Sequence[Array],
    n_train: Sequence[int],
    logs: Sequence[np.ndarray],
    look_backs: Sequence[int],
    prediction_length: int,
) -> InDomain:
    """Scale, pad and join the series; fit the linear part."""
    scalers, z = [], []
    for values, rows, log in zip(series, told, logs, strict=True):
        scalers.append(Scaler.fit(rows, log))
        scalers[-1].check(values, "y")
        z.append(_pad(scalers[-1].apply(values), look_backs[-1]))
    padding = [len(padded) - len(values) for padded, values in zip(z, series, strict=True)]
    trained = [rows + more for rows, more in zip(n_train, padding, strict=True)]
    channels = Channels.join(z, trained)
    drifts = any(scaler.floor.any() for scaler in scalers)
    linear, choice = choose_linear(channels, look_backs, prediction_length, drifts)
    return InDomain(scalers, z, padding, trained, channels, linear, choice)


def _pad(z: Array, length: int) -> Array:
    """A short series with missing rows in front, so that a window ends at each of its rows."""
    if len(z) >= length:
        return z
    return np.concatenate([np.full((length - len(z), z.shape[1]), np.nan), z])


def _check_positive(told: Sequence[Array]) -> None:
    for rows in told:
        for channel, column in enumerate(rows.T):
            known = column[~np.isnan(column)]
            if len(known) and known.min() <= 0 and known.min() < known.max():
                raise ValueError(
                    "target_transform='log' needs positive training rows; channel "
                    f"{channel} of y holds {known.min():g}. Take target_transform='auto' or "
                    "'none', or add a constant to it."
                )
