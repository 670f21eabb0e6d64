"""Fit covariates with the linear part: future-known ones on the rows, past ones on what is left."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from titans_ts.channels import Channels
from titans_ts.covariates import Covariates, CovariateScaler, scale_covariates
from titans_ts.domain_scores import InDomain
from titans_ts.future_effect import estimate_future, less_effects
from titans_ts.linear import LinearPart
from titans_ts.linear_choice import LinearChoice, choose_linear
from titans_ts.panels import Panel
from titans_ts.past_effect import PastEffect, PastWindows, fit_past
from titans_ts.validation_gain import thin, validation_gain, window_losses
from titans_ts.windows import Array

# Share of the squared error that some of the covariates must save: the rows that tell were asked
# which ones to take.
_LEAST_GAIN_OF_SOME = 0.02
_SCORED_NUMBERS = 20_000_000  # of validation windows that say whether future covariates help


@dataclass(frozen=True)
class LinearFit:
    """The linear part with the covariates around it, and the channels that it is of.

    ``added`` says what past covariates add at origins ``(n,)``: ``(n, P)``; ``static`` is (K, Ks').
    """

    channels: Channels
    linear: LinearPart
    choice: LinearChoice
    covariates: Covariates
    added: Callable[[np.ndarray], Array] | None
    static: Array


def fit_covariates(panel: Panel, in_domain: InDomain, look_backs: Sequence[int]) -> LinearFit:
    """Fit on the training rows; choose on validation.

    Parameters
    ----------
    panel : Panel
    in_domain : InDomain
        Z-scores of each series, and the linear part without covariates.
    look_backs
        As in ``choose_linear``.
    """
    scalers, z, padding, trained, channels, linear, choice = in_domain
    prediction_length = linear.prediction_length
    n_train = [rows - more for rows, more in zip(trained, padding, strict=True)]
    column = np.concatenate([np.flatnonzero(scaler.learned) for scaler in scalers])
    series = np.repeat(np.arange(len(z)), [each.shape[1] for each in z])

    own = list(zip(scalers, panel.series, strict=True))
    rows_ahead = [scaler.relative_future(s.future) for scaler, s in own]
    future, known_ahead = scale_covariates(rows_ahead, n_train, padding)
    width = len(future.level)
    weights, shared = np.zeros((len(column), width)), np.zeros((int(column.max()) + 1, width))
    gain = 0.0
    for few in (False, True)[: min(width, 2)]:  # all together or, if they do not help, some
        found = estimate_future(
            z, known_ahead, trained, column, look_backs[-1], prediction_length, few
        )
        if not found[0].any():
            continue
        less = Channels.join(less_effects(z, known_ahead, found[0]), trained)
        alternative = choose_linear(less, look_backs, prediction_length, choice.drifts)
        before = max(linear.context_length, alternative[0].context_length)
        origins = thin(
            channels.validation_origins(before, prediction_length),
            _SCORED_NUMBERS // (before + prediction_length),
        )
        gain = validation_gain(
            channels,
            origins,
            window_losses(channels, linear, origins),
            window_losses(less, alternative[0], origins),
            rare=True,
        )
        if gain < few * _LEAST_GAIN_OF_SOME:
            gain = 0.0
        if gain:
            channels, (linear, choice), (weights, shared) = less, alternative, found
            break
    if width and not gain:
        _warn_of_unjudged(panel, rows_ahead, n_train)

    rows_seen = [scaler.relative_past(s.past) for scaler, s in own]
    past, seen = scale_covariates(rows_seen, n_train, padding)
    effect, past_gain, added = None, 0.0, None
    if len(past.level):
        effect, past_gain = fit_past(channels, linear, seen, column, series)
        if effect is not None:
            windows = PastWindows(channels, seen, series, effect.length)
            added = _adder(effect, windows, linear.context_length, column)
    rows = np.stack([s.static for s in panel.series])
    static = CovariateScaler.fit(rows)
    covariates = Covariates(future, past, static, weights, shared, effect, gain, past_gain)
    # What is the same for all series tells none apart.
    kin = static.apply(rows)[series][:, static.scale > 0]
    return LinearFit(channels, linear, choice, covariates, added, kin)


def _warn_of_unjudged(panel: Panel, rows: Sequence[Array], n_train: Sequence[int]) -> None:
    """Name future-known covariates that moved in training and stand still where they are judged."""

    def moves(parts: list[Array]) -> np.ndarray:
        together = np.concatenate(parts)
        known = ~np.isnan(together).all(axis=0)
        moved = np.zeros(together.shape[1], dtype=bool)
        moved[known] = np.nanmax(together[:, known], axis=0) > np.nanmin(together[:, known], axis=0)
        return moved

    both = list(zip(rows, n_train, strict=True))
    unjudged = moves([each[:n] for each, n in both]) & ~moves([each[n:] for each, n in both])
    names = panel.layout.future_names
    still = [repr(name) for name, each in zip(names, unjudged, strict=False) if each]
    if still:
        warnings.warn(
            f"whether the future covariates {', '.join(still)} help cannot be told, as they stand "
            "still in the validation part, and they are left out. Choose a validation_size that "
            "takes in rows where they move.",
            UserWarning,
            stacklevel=6,  # the line that called fit
        )


def _adder(
    effect: PastEffect, windows: PastWindows, before: int, column: np.ndarray
) -> Callable[[np.ndarray], Array]:
    def added(origins: np.ndarray) -> Array:
        channel = windows.channels.of(origins)
        context, _ = windows.channels.windows(origins, before, 1)
        own = effect.of_target(context, column[channel])
        return own + effect.of_covariates(windows.at(origins), column[channel])

    return added
