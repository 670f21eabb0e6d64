"""Errors that scikit-learn lacks. Windows are ``(n, P, C)``: origins, rows ahead, channels."""

from __future__ import annotations

import numpy as np

from titans_ts.windows import Array


def mean_absolute_scaled_error(
    actual: Array, forecast: Array, training: Array, season_length: int
) -> Array:
    """Mean absolute error over that of the seasonal naive forecast within the training rows.

    Parameters
    ----------
    actual, forecast : ndarray of shape (n, P, C)
    training : ndarray of shape (T, C)
    season_length : int
        Rows of a season; 1 compares with the naive forecast.

    Returns
    -------
    ndarray of shape (C,)
        inf for a channel that repeats its season exactly.

    Raises
    ------
    ValueError
        The training rows are no longer than a season.

    Notes
    -----
    Hyndman and Koehler (2006), Another look at measures of forecast accuracy.
    """
    if len(training) <= season_length:
        raise ValueError(
            f"training has {len(training)} rows; needs more than season_length = {season_length}."
        )
    naive = np.abs(training[season_length:] - training[:-season_length]).mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.abs(actual - forecast).mean(axis=(0, 1)) / naive
