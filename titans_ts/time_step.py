"""The step of a panel's times, found in spite of holes and of stamps that are a little off."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np

from titans_ts.series_kinds import Layout
from titans_ts.time_axis import find_clock, fixed_width, follows_the_clock, times_from

UNITS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}  # in nanoseconds
DAY = 86_400_000_000_000  # nanoseconds
MINUTE = DAY // 1440
# Durations that a step with jitter is likely to mean a multiple of, coarsest first.
ROUND = [DAY, *(MINUTE * m for m in (60, 30, 15, 10, 5, 1)), *(MINUTE // s for s in (2, 6, 60))]


def infer_step(times: Any, bounds: Any, layout: Layout) -> str | int | None:
    """Return the likeliest step of a panel, sorted by series and time; None if it tells none."""
    if layout.time == "period":
        return layout.step
    ticks = np.asarray(times.astype("int64"))
    gaps = within(np.diff(ticks), bounds)
    if layout.axis == "counts":
        return _usual(gaps) if len(gaps) else 1

    import pandas as pd
    from pandas.tseries.frequencies import to_offset

    # An alias says all of a step, unless it is a calendar with holidays of its own.
    if times.freq is not None and len(bounds) == 2 and times.freqstr[0] not in "<C":
        return str(times.freqstr)
    if not len(gaps):
        return None
    longest = int(np.argmax(np.diff(bounds)))
    stamps = times[bounds[longest] : bounds[longest + 1]]
    walls = np.asarray(times.tz_localize(None).astype("int64"))
    unit = UNITS[layout.unit]
    wall, true = (_usual(g, unit) for g in (within(np.diff(walls), bounds), gaps))
    # If there is one gap, one half tells the step, and the gap is what does not fit it.
    middle = len(stamps) // 2
    for part in (stamps, stamps[:middle], stamps[middle:]):
        # Not `pandas.infer_freq`, whose answer pandas 3.1 begins to warn about.
        freq = pd.DatetimeIndex(part, freq="infer").freq if len(part) > 2 else None
        if freq is None:
            continue
        found = replace(layout, step=str(freq.freqstr))
        width = None if follows_the_clock(found) else fixed_width(found)
        if len(part) == len(stamps) or (
            fits(times, bounds, found) if width is None else width * unit == true
        ):
            return found.step
    return (
        _months(times, bounds, layout, wall)
        or _business_days(times, bounds, layout, wall)
        # Days are on the clock, which 24 hours are not where clocks change.
        or (f"{wall // DAY}D" if wall % DAY == 0 else None)
        or str(to_offset(pd.Timedelta(true)).freqstr)
    )


def within(between: Any, bounds: Any) -> Any:
    """Of values between neighbouring rows, those between rows of one series."""
    inside = np.ones(len(between), dtype=bool)
    inside[np.asarray(bounds[1:-1]) - 1] = False
    return between[inside] if len(bounds) > 2 else between


def fits(times: Any, bounds: Any, layout: Layout) -> bool:
    """Whether all times of the panel lie on calendar grids of this step."""
    for begin, end in itertools.pairwise(bounds):
        part = times[begin:end]
        if len(part) and not part.isin(calendar(part, layout)).all():
            return False
    return True


def calendar(times: Any, layout: Layout) -> Any:
    """The grid of a step that is none of fixed length, over the span of sorted times."""
    import pandas as pd

    if follows_the_clock(layout) and layout.clock is None:
        layout = replace(layout, clock=find_clock(times, None))
    first, last = (times[row].tz_localize(None).normalize() for row in (0, -1))
    # A day more, as a change of clocks may have moved the last one.
    days = pd.date_range(first, last + pd.Timedelta(days=1), freq=str(layout.step))
    return times_from(layout, times[0].isoformat(), len(days) + 1)


def _usual(gaps: Any, unit: int | None = None) -> int:
    """The commonest gap; in nanoseconds, if the unit is given, and round if it is rare."""
    values, counts = np.unique(gaps, return_counts=True)
    best = int(values[np.argmax(counts)]) * (unit or 1)
    if 2 * counts.max() >= len(gaps) or unit is None:
        return best
    median = float(np.median(gaps)) * unit
    for duration in ROUND:
        meant = round(median / duration) * duration
        if meant and abs(meant - median) <= median / 100:
            return meant
    return best


def _months(times: Any, bounds: Any, layout: Layout, wall: int) -> str | None:
    """Months, quarters or years, by their first or last days, of which some are missing or off."""
    if wall < 28 * DAY:
        return None
    walls = times.tz_localize(None)
    month = np.asarray(walls.year) * 12 + np.asarray(walls.month)
    gaps = within(np.diff(month), bounds)
    values, counts = np.unique(gaps, return_counts=True)
    n = max(int(values[np.argmax(counts)]), 1)

    from pandas.tseries.frequencies import to_offset

    sound = {}
    for alias in ("MS", "ME", "BMS", "BME"):
        step = f"{n}{alias}" if n > 1 else alias
        if fits(times, bounds, replace(layout, step=step)):
            return step
        sound[step] = np.mean([to_offset(alias).is_on_offset(time) for time in walls])
    best = max(sound, key=lambda step: sound[step])  # what is off is for the grid to tell
    return best if sound[best] > 0.5 else None


def _business_days(times: Any, bounds: Any, layout: Layout, wall: int) -> str | None:
    """Days of which all weekends, there being some, are missing."""
    weekdays = np.asarray(times.day_of_week)
    if wall != DAY or (weekdays > 4).any():
        return None
    passed = within(np.diff(weekdays), bounds) < 0
    return "B" if passed.any() and fits(times, bounds, replace(layout, step="B")) else None
