"""What a forecast must beat: repeat the last row, repeat the last season; and how long that is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from titans_ts.windows import Array

__all__ = ["detect_season", "repeat_season", "season_errors"]

# Of the autocorrelation: how far a peak must stand out to be a season, and the share of the highest
# that a shorter one may lack to be taken instead.
_LEAST_PROMINENCE, _NEARLY = 0.05, 0.05
_SHARPENED_ROWS = 50_000  # last ones of a series that say what its season is exactly
_MANY_SEASONS = 10  # over which rows add up
# Rows that the quantiles of a floor's errors are taken from, at most: the last ones.
_ERROR_ROWS = 2000


def detect_season(values: Sequence[Array]) -> int:
    """Find the rows of a season by the autocorrelation; 1 if there is none.

    The autocorrelation (biased, of what a straight line leaves, mean over channels and series) has
    a peak at each season and its multiples. Of the peaks that stand out by 0.05, and by four times
    the standard error of noise, the shortest is taken that comes within 5 %, or two standard
    errors, of the highest; there, lags that fit in thrice are compared by what pairs of rows tell,
    which are the fewer the longer the lag.

    Parameters
    ----------
    values : sequence of ndarray of shape (T, C)
        Training rows of each series; NaN where missing. Lags up to half the longest are looked at.

    Returns
    -------
    int

    Examples
    --------
    >>> rows = np.arange(240)
    >>> detect_season([np.sin(2 * np.pi * rows / 24)[:, None]])
    24
    """
    from scipy.signal import find_peaks

    longest = max(len(y) for y in values)
    total, weight = np.zeros(longest // 2 + 1), 0.0
    for y in values:
        for channel in y.T:
            known = np.isfinite(channel)
            if known.sum() < 3 or np.ptp(channel[known]) == 0:
                continue
            # Where a value is missing the line is: it speaks neither for nor against any lag.
            rows = np.arange(len(y))
            line = np.polynomial.Polynomial.fit(rows[known], channel[known], 1)
            rest = np.where(known, channel - line(rows), 0.0)
            spectrum = np.fft.rfft(rest, 2 * len(rest))
            found = np.fft.irfft(np.abs(spectrum) ** 2)[: len(y) // 2 + 1]
            if found[0] > 0:
                share = known.sum()
                total[: len(found)] += share * found / found[0]
                weight += share
    if not weight:
        return 1
    correlation = total / weight
    stands_out = max(_LEAST_PROMINENCE, 4 / np.sqrt(weight))
    peaks, _ = find_peaks(correlation, height=stands_out, prominence=stands_out)
    if not len(peaks):
        return 1
    height = correlation[peaks] / np.where(3 * peaks <= longest, 1 - peaks / longest, 1.0)
    near = peaks[height >= height.max() - max(_NEARLY * height.max(), 2 / np.sqrt(longest))]
    # A broad peak has ripples: of those around the shortest, the highest.
    around = near[near < 1.5 * near[0]]
    return _sharpen(values, int(around[np.argmax(correlation[around])]))


def _sharpen(values: Sequence[Array], season: int) -> int:
    """The length within 5 % of this one whose seasons, laid over one another, agree best.

    What moves slowly draws a broad peak of the autocorrelation aside, by rows that add up.
    """
    tried = range(season - season // 20, season + season // 20 + 1)
    agreement = np.zeros(len(tried))
    for y in values:
        for channel in y[-_SHARPENED_ROWS:].T:
            if len(tried) == 1 or len(channel) < _MANY_SEASONS * season:
                continue
            known = np.isfinite(channel)
            # Less the mean of a season around it, and of each season the same number of rows.
            kernel = np.ones(season)
            around = np.convolve(np.where(known, channel, 0.0), kernel, "same")
            rest = np.where(known, channel - around / np.convolve(known, kernel, "same").clip(1), 0)
            power = np.square(rest).sum()
            for i, length in enumerate(tried):
                phase = np.arange(len(rest)) % length
                count = np.bincount(phase, known, length).clip(1)
                explained = np.sum(np.bincount(phase, rest, length) ** 2 / count)
                agreement[i] += explained / power if power > 0 else 0.0
    middle = season // 20
    better = agreement.argmax() if agreement.max() > agreement[middle] else middle
    return tried[int(better)]


def repeat_season(values: Array, season_length: int, prediction_length: int) -> Array:
    """Repeat the last season; with ``season_length=1`` the last row.

    Parameters
    ----------
    values : ndarray of shape (T, C)
        Where a value is missing, the one a season before stands in, else the channel's last.

    Returns
    -------
    ndarray of shape (prediction_length, C)
        NaN for a channel of which nothing is known.
    """
    recent = values[-2 * season_length :]
    if len(recent) < len(values) and np.isfinite(recent[-season_length:]).all():
        values = recent  # nothing is missing, so that nothing before it counts
    last = _carry_forward(values)[-1]
    missing_rows = -len(values) % season_length
    padded = np.concatenate([np.full((missing_rows, values.shape[1]), np.nan), values])
    seasons = padded.reshape(-1, season_length * values.shape[1])
    season = _carry_forward(seasons)[-1].reshape(season_length, -1)
    season = np.where(np.isfinite(season), season, last)
    return season[np.arange(prediction_length) % season_length]


def season_errors(
    values: Array, season_length: int, prediction_length: int, levels: Array
) -> Array:
    """Quantiles of the errors that repeating the season made within the training rows.

    Returns
    -------
    ndarray of shape (prediction_length, C, Q)
        By row ahead; the same for rows of one season. 0 where no error is known.
    """
    ahead = np.arange(prediction_length) // season_length + 1  # seasons back
    answer = np.zeros((prediction_length, values.shape[1], len(levels)))
    for seasons in np.unique(ahead):
        lag = int(seasons) * season_length
        # Too few rows for that many seasons: what as many as there are rows for would do.
        lag = min(lag, (len(values) - 1) // season_length * season_length)
        if lag:
            recent = values[-_ERROR_ROWS - lag :]
            answer[ahead == seasons] = _quantiles(recent[lag:] - recent[:-lag], levels)
    return answer


def _quantiles(errors: Array, levels: Array) -> Array:
    """``(T, C) -> (C, Q)``, over what is known of each channel."""
    found = np.zeros((errors.shape[1], len(levels)))
    for c, channel in enumerate(errors.T):
        known = channel[np.isfinite(channel)]
        if len(known):
            found[c] = np.quantile(known, levels)
    return found


def _carry_forward(values: Array) -> Array:
    """Fill in what is missing with what stood above it: ``(T, K) -> (T, K)``."""
    rows = np.arange(len(values))[:, None]
    source = np.maximum.accumulate(np.where(np.isfinite(values), rows, 0), axis=0)
    return np.take_along_axis(values, source, axis=0)
