"""Effects of covariates that are known ahead, by generalised least squares.

The linear part is a filter: what it leaves, ``r(y) = target - linear(window)``, is linear in the
series and nearly white. Where ``z = u + F B`` with u as the linear part knows it, ``r(z)`` is
``r(u) + r(F) B``: a regression with errors that least squares is made for, on differences from what
was to be expected instead of levels. The filter is fitted on ``z - F B`` in turn.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from titans_ts.channels import Channels
from titans_ts.linear import LinearPart
from titans_ts.linear_choice import choose_linear
from titans_ts.moments import FARTHEST
from titans_ts.validation_gain import LEAST_GAIN, thin
from titans_ts.windows import Array, sliding_windows

_FILTER_ROWS = 192  # of look-back: more would not make the errors whiter
_ROUNDS = 2
_LEAST_ERROR = 1e-4  # mean square, in variances of the series
_WORK = 1e10  # multiplications, about, that one round may take
_BLOCK = 2_000_000  # numbers at a time
_MOST_CHANNELS = 256  # of a panel that effects are estimated from
_MOST_OWN_EFFECTS = 64  # channels; more share the effects on their target column
_PENALTIES = (1e-3, 1e-2, 0.1, 1.0, 10.0)  # shares of each covariate's own variance
_OWN_PENALTIES = (0.1, 1.0, 10.0)  # the same, on what a channel differs from its column


@dataclass(frozen=True)
class _Moments:
    """Products of filtered covariates and, last, the filtered target: ``(Kf + 1, Kf + 1)`` each.

    ``next`` of the first step ahead, ``all`` of all steps, each by its precision; ``halves`` of the
    validation part, plain means.
    """

    next: Array
    all: Array
    halves: tuple[Array, Array]


def estimate_future(
    z: Sequence[Array],
    covariates: Sequence[Array],
    n_train: Sequence[int],
    column: np.ndarray,
    longest: int,
    prediction_length: int,
    few: bool = False,
) -> tuple[Array, Array]:
    """Estimate B on training rows; choose penalties on validation.

    Parameters
    ----------
    z : sequence of ndarray of shape (T_n, C_n)
        Z-scores, NaN where missing.
    covariates : sequence of ndarray of shape (T_n, Kf)
        Scaled, without gaps.
    n_train : sequence of int
        Training rows of each series.
    column : int ndarray of shape (K,)
        Target column of each channel.
    longest, prediction_length : int
        Rows of the longest look-back, and ahead.
    few : bool
        Leave out covariates that validation does not miss.

    Returns
    -------
    ndarray of shape (K, Kf), ndarray of shape (C, Kf)
        Of each channel, and of each target column; 0 for a column that validation does not back.
    """
    raw = Channels.join(z, n_train)
    n_columns, width = int(column.max()) + 1, covariates[0].shape[1]
    weights, shared = np.zeros((len(raw), width)), np.zeros((n_columns, width))
    series = np.repeat(np.arange(len(z)), [each.shape[1] for each in z])
    # Of a large panel some series stand for all, with all their channels.
    chosen = np.isin(series, thin(np.arange(len(z)), max(1, _MOST_CHANNELS * len(z) // len(raw))))
    # What never moves is not moved by covariates, and says nothing of what they do to others.
    varies = np.maximum.reduceat(raw.values, raw.starts[:-1]) > np.minimum.reduceat(
        raw.values, raw.starts[:-1]
    )
    chosen &= varies
    for _ in range(_ROUNDS):
        channels = Channels.join(less_effects(z, covariates, weights), n_train)
        rows = (min(longest, _FILTER_ROWS),)
        linear, _ = choose_linear(channels, rows, prediction_length)
        work = (
            _WORK / max(1, chosen.sum()) / (linear.context_length * prediction_length * (width + 1))
        )
        moments = {
            k: _channel_moments(raw, k, covariates[series[k]], linear, max(64, int(work)))
            for k in np.flatnonzero(chosen).tolist()
        }
        for c in range(n_columns):
            members = [k for k in moments if column[k] == c]
            if members:
                chosen_ones = [moments[k] for k in members]
                shared[c], own = _search(_some(chosen_ones) if few else chosen_ones)
                weights[(column == c) & varies] = shared[c]
                if len(raw) <= _MOST_OWN_EFFECTS:  # of what it has seen; else that on all
                    seen = [
                        np.ptp(covariates[i][: n_train[i]], axis=0) > 0 for i in series[members]
                    ]
                    weights[members] = np.where(seen, own, shared[c])
    return weights, shared


def less_effects(z: Sequence[Array], covariates: Sequence[Array], weights: Array) -> list[Array]:
    """``z - F B`` of each series, with the rows of B in the order of the channels."""
    ends = np.cumsum([each.shape[1] for each in z])
    return [
        each - rows @ weights[end - each.shape[1] : end].T
        for each, rows, end in zip(z, covariates, ends, strict=True)
    ]


def _channel_moments(
    raw: Channels, k: int, covariates: Array, linear: LinearPart, most: int
) -> _Moments:
    """Of one channel, from at most so many windows of each part."""
    part = slice(raw.starts[k], raw.starts[k + 1])
    values, known = raw.values[part], raw.known[part]
    # Where the target is missing its window holds the last value known, and so its covariates.
    last = np.maximum.accumulate(np.where(known, np.arange(len(known)), 0))
    held = covariates[last]
    columns = [*held.T, values]
    before, after = linear.context_length, linear.prediction_length
    trained = int(raw.trained[k] - raw.starts[k])
    train = thin(np.arange(before, trained - after + 1), most)
    later = thin(np.arange(max(before, trained), len(values) - after + 1), most)
    blocks = max(1, -(-len(train) * max(before, after * len(columns)) // _BLOCK))
    following, every = (np.zeros((len(columns),) * 2) for _ in range(2))
    precision = None
    for i in range(blocks):
        errors = _filter(columns, known, linear, k, train[i::blocks])  # (n, P, Kf + 1)
        if precision is None:
            # One that is nearly exact must not decide alone.
            power = np.square(errors[..., -1]).mean(axis=0) if len(errors) else np.zeros(after)
            precision = 1 / np.maximum(power, _LEAST_ERROR)
        following += errors[:, 0].T @ errors[:, 0]
        flat = (errors * np.sqrt(precision)[:, None]).reshape(-1, len(columns))
        every += flat.T @ flat
    middle = (trained + len(values)) / 2
    halves = [np.zeros_like(every), np.zeros_like(every)]
    for half, origins in enumerate((later[later < middle], later[later >= middle])):
        for i in range(blocks):
            flat = _filter(columns, known, linear, k, origins[i::blocks]).reshape(-1, len(columns))
            halves[half] += flat.T @ flat / max(1, len(origins) * after)
    return _Moments(following, every, (halves[0], halves[1]))


def _filter(
    columns: Sequence[Array], known: np.ndarray, linear: LinearPart, k: int, origins: np.ndarray
) -> Array:
    """What the linear part leaves of each column: ``(n, P, columns)``, 0 where it is unknown."""
    before, after = linear.context_length, linear.prediction_length
    if not len(origins):  # of a short series, perhaps shorter than a window
        return np.zeros((0, after, len(columns)))
    channel = np.full(len(origins), k)
    left = []
    for values in columns:
        windows = sliding_windows(values[:, None], before + after)[origins - before, 0]
        left.append(windows[:, before:] - linear.predict(windows[:, :before], channel))
    # The target came last: neither its gaps nor values beyond all measure may teach.
    useful = sliding_windows(known[:, None], after)[origins, 0]
    near = np.abs(windows).max(axis=1, initial=0.0) < FARTHEST
    return np.where((useful & near[:, None])[..., None], np.stack(left, axis=-1), 0.0)


def _search(moments: Sequence[_Moments]) -> tuple[Array, list[Array]]:
    """Effects on a target column and on each of its channels, of least validation error.

    The former are for series that were not fitted, and of those that have none of their own.
    """
    none = np.zeros(len(moments[0].all) - 1)
    counts = _counts(moments)

    def errors(effects: Sequence[Array]) -> Array:
        found = np.zeros(2)
        for m, effect, count in zip(moments, effects, counts, strict=True):
            v = np.append(-effect, 1.0)
            found += [count * (v @ half @ v) for half in m.halves]
        return found

    without = errors([none] * len(moments))
    best = {"all": without.sum(), "each": without.sum()}
    common, found = none, [none] * len(moments)
    for kind in ("next", "all"):
        products = [getattr(m, kind) for m in moments]
        total = np.sum(products, axis=0)
        for penalty in _PENALTIES:
            shared = _ridge(total, penalty)
            candidates = [[shared] * len(moments)]
            if 1 < len(moments) <= _MOST_OWN_EFFECTS:
                candidates += [
                    [_ridge(each, own, shared) for each in products] for own in _OWN_PENALTIES
                ]
            for i, effects in enumerate(candidates):
                loss = errors(effects)
                if (loss < without).all():
                    if i == 0 and loss.sum() < best["all"]:
                        best["all"], common = loss.sum(), shared
                    if loss.sum() < best["each"]:
                        best["each"], found = loss.sum(), effects
    if best["each"] < (1 - LEAST_GAIN) * without.sum():
        return common, found
    return none, [none] * len(moments)


def _counts(moments: Sequence[_Moments]) -> list[float]:
    """What each channel counts: one that is forecast badly must not decide for all."""
    return [1 / max((m.halves[0] + m.halves[1])[-1, -1] / 2, 1.0) for m in moments]


def _some(moments: Sequence[_Moments]) -> list[_Moments]:
    """Moments of which covariates that do not help count as zeros: backward elimination.

    Of all channels together. The one that is missed least is left out next, as long as the error of
    validation does not grow for it: sine and cosine help together, and would not be found one by
    one.
    """
    counts = _counts(moments)
    halves = [np.sum([n * m.halves[i] for n, m in zip(counts, moments, strict=True)], axis=0)
              for i in (0, 1)]  # fmt: skip
    totals = [np.sum([getattr(m, kind) for m in moments], axis=0) for kind in ("next", "all")]

    def error(taken: np.ndarray) -> float:
        """Of validation, as a share of that without covariates; the worse half counts twice."""
        losses = []
        for total, penalty in itertools.product(totals, _PENALTIES):
            v = np.append(-_ridge(_only(total, taken), penalty), 1.0)
            shares = [v @ half @ v / max(half[-1, -1], 1e-12) for half in halves]
            losses.append(sum(shares) + max(shares))
        return float(min(losses))

    taken = np.ones(len(totals[0]), dtype=bool)
    best = error(taken)
    while taken.sum() > 2:  # the target is the last
        without = {}
        for j in np.flatnonzero(taken[:-1]).tolist():
            fewer = taken.copy()
            fewer[j] = False
            without[j] = error(fewer)
        j = min(without, key=lambda j: without[j])
        if without[j] > best + LEAST_GAIN:
            break
        taken[j], best = False, min(best, without[j])
    return [
        _Moments(
            _only(m.next, taken),
            _only(m.all, taken),
            (_only(m.halves[0], taken), _only(m.halves[1], taken)),
        )
        for m in moments
    ]


def _only(products: Array, taken: np.ndarray) -> Array:
    """Products of some; zero those of all others."""
    return np.where(taken[:, None] & taken, products, 0.0)


def _ridge(products: Array, penalty: float, toward: Array | float = 0.0) -> Array:
    """``argmin |r(z) - r(F) B|^2 + penalty |B - toward|^2``, in units of each covariate's own."""
    gram = products[:-1, :-1]
    start = np.broadcast_to(np.asarray(toward, dtype=float), len(gram))
    size = np.diagonal(gram)
    if not size.max(initial=0.0) > 0:
        return start.copy()
    penalised = gram + np.diag(penalty * size + 1e-9 * size.max())
    return np.asarray(start + np.linalg.solve(penalised, products[:-1, -1] - gram @ start))
