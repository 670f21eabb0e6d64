"""What may be behind times that no grid fits: clocks put back, months taken for days."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

__all__ = ["MONTHS_FIRST", "PUT_BACK", "months_first", "put_back"]

PUT_BACK = (
    "they may be local times, of which an hour comes twice where clocks are put back: write them "
    "in UTC, or with their offsets, as 2024-10-27 02:00:00+02:00"
)
MONTHS_FIRST = (
    "With days and months exchanged, they are months in a row: if they were written 02/01/2015 for "
    "the 1st of February, they were read day first; write 2015-02-01"
)


def put_back(repeated: Any) -> bool:
    """Whether stamps that come twice are of one early hour of a Sunday of spring or autumn a year.

    Parameters
    ----------
    repeated : DatetimeIndex
        Without a zone; at least one.
    """
    hours = repeated.floor("h").unique()
    known = (hours.day_of_week == 6) & hours.month.isin([3, 4, 9, 10, 11])
    return bool((known & hours.hour.isin([1, 2, 3])).all() and hours.year.is_unique)


def months_first(times: Any, bounds: Any) -> bool:
    """Whether days exchanged with months give months in a row, of which some may be missing.

    Parameters
    ----------
    times : DatetimeIndex
        Sorted by series and time.
    bounds : ndarray of shape (N + 1,)
        Where each series begins and ends.
    """
    if len(times) < 3 or times.day.max() > 12 or times.month.nunique() > 1:
        return False
    meant = np.asarray(times.year) * 12 + np.asarray(times.day)
    for begin, end in itertools.pairwise(bounds):
        gaps = np.diff(meant[begin:end])
        if len(gaps) and (gaps.min() < 1 or gaps.sum() > 2 * len(gaps) * np.median(gaps)):
            return False
    return bool((times == times.normalize()).all())
