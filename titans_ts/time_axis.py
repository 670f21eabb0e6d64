"""The time axis of a series: checked to be evenly spaced, its step found, continued beyond the end.

Every axis, that of polars too, is a pandas index here: pandas knows month ends, business days and
daylight saving. Row numbers are an axis like any other; an array has none.

In a time zone, steps of days and longer follow the clock on the wall. Where it is put forward over
a stamp, the stamp moves to just after the gap, and the next one is back at its time of day; where
an hour comes twice, its first pass counts. Hours and shorter steps are absolute.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np

from titans_ts.series_kinds import Layout, cure

Time = str | int | None  # ISO 8601 (of a period: its start), a row number, or no time at all


def check_times(times: Any, layout: Layout, known: Layout | None, name: str) -> Layout:
    """Return the layout with its step, if the times, a pandas index, advance by it row by row.

    The step is that of the `known` layout, else inferred. ValueError with the first row that is
    amiss, and the cure.
    """

    def fail(problem: str, text: str) -> NoReturn:
        raise ValueError(f"{text}. {cure(problem, layout, name, layout.time_name)}")

    def at(row: int) -> str:
        return f"{show(scalar(times[row]))} at row {row}"

    if times.hasnans:
        fail("untimed", f"{name} has no time at row {np.argmax(times.isna())}")
    ticks = np.asarray(times.astype("int64"))
    gaps = np.diff(ticks)
    for problem, bad in {"unsorted": gaps < 0, "duplicated": gaps == 0}.items():
        if bad.any():
            row = int(np.argmax(bad))
            fail(problem, f"the times of {name} are {problem}: {at(row)}, then {at(row + 1)}")
    step = known.step if known is not None else _infer_step(times, layout, gaps)
    if step is None:
        fail("single", f"{name} has a single row, which does not tell the time step")
    layout = replace(layout, step=step)
    if _follows_the_clock(layout):
        layout = replace(layout, clock=_find_clock(times, None if known is None else known.clock))
    expected = times_from(layout, scalar(times[0]), len(times))
    off = np.asarray(expected.astype("int64")) != ticks
    if off.any():
        row = int(np.argmax(off))
        fail(
            "uneven",
            f"the times of {name} are not evenly spaced: with a step of {step!r} "
            f"{show(scalar(expected[row]))} is due, got {at(row)}",
        )
    return layout


def _infer_step(times: Any, layout: Layout, gaps: Any) -> str | int | None:
    """Return the step, the likeliest one if the times are uneven, None if they tell none."""
    if layout.time == "period":
        return layout.step
    if layout.axis == "counts":
        return int(np.median(gaps)) if len(gaps) else 1

    import pandas as pd
    from pandas.tseries.frequencies import to_offset

    # An alias says all of a step, unless it is a calendar with holidays of its own.
    if times.freq is not None and times.freqstr[0] not in "<C":
        return str(times.freqstr)
    if len(times) < 2:
        return None
    # If there is one gap, one half tells the step, and the gap is what does not fit it.
    middle = len(times) // 2
    for part in (times, times[:middle], times[middle:]):
        # Not `pandas.infer_freq`, whose answer pandas 3.1 begins to warn about.
        freq = pd.DatetimeIndex(part, freq="infer").freq if len(part) > 2 else None
        if freq is not None:
            return str(freq.freqstr)
    wall, true = ((t[1:] - t[:-1]).median() for t in (times.tz_localize(None), times))
    if wall.days and wall % pd.Timedelta(days=1) == pd.Timedelta(0):
        return f"{wall.days}D"  # on the clock, which 24 hours are not where clocks change
    return str(to_offset(true).freqstr)


def advance_time(layout: Layout, last_time: Time, n: int) -> Time:
    """Return the time `n` steps after `last_time`; None if there is no time axis.

    Examples
    --------
    >>> layout = Layout(kind="pandas", columns=("a",), time="datetime", step="ME", unit="us")
    >>> advance_time(layout, "2024-01-31T00:00:00", 1)
    '2024-02-29T00:00:00'
    """
    return None if last_time is None else scalar(times_from(layout, last_time, n + 1)[-1])


def times_from(layout: Layout, start: str | int, n: int) -> Any:
    """Return a pandas index of `n` times, the first of them `start`."""
    import pandas as pd

    if isinstance(start, int):
        step = int(layout.step or 1)
        return pd.RangeIndex(start, start + n * step, step)
    step_name = str(layout.step)
    if layout.time == "period":
        return pd.period_range(pd.Period(start, freq=step_name), periods=n, freq=step_name)
    stamp = pd.Timestamp(start)
    stamp = stamp if layout.timezone is None else stamp.tz_convert(layout.timezone)
    if not _follows_the_clock(layout):
        return pd.date_range(stamp, periods=n, freq=step_name).as_unit(layout.unit)
    wall = _on_the_wall(stamp, layout.clock)
    walls = pd.date_range(wall, periods=n, freq=step_name).as_unit(layout.unit)
    first_pass = np.ones(n, dtype=bool)
    first_pass[0] = _in_zone(wall, stamp.tz) == stamp
    times = walls.tz_localize(stamp.tz, ambiguous=first_pass, nonexistent="shift_forward")
    if not (times.is_monotonic_increasing and times.is_unique):
        raise ValueError(
            f"steps of {step_name!r} from {show(scalar(stamp))} meet a day that {layout.timezone} "
            "left out. Convert the times to another zone, such as UTC, or number the rows instead."
        )
    with suppress(Exception):  # uneven to pandas where one was moved; pytz has errors of its own
        return pd.DatetimeIndex(times, freq=step_name)
    return times


def _follows_the_clock(layout: Layout) -> bool:
    """Whether the times are stamps in a zone, days or more apart."""
    if layout.time != "datetime" or layout.timezone is None:
        return False
    import pandas as pd
    from pandas.tseries.frequencies import to_offset

    step = to_offset(str(layout.step))
    return isinstance(step, pd.offsets.Day) or not isinstance(step, pd.offsets.Tick)


def _find_clock(times: Any, known: str | None) -> str:
    """Return the time of day of stamps that a change of clocks may have moved."""
    import pandas as pd

    # One row may be the moved one: it is `known` that tells.
    if known is not None and _time_of_day(_on_the_wall(times[0], known)) == pd.Timedelta(known):
        return known
    usual = pd.Series(_time_of_day(times.tz_localize(None))).mode()[0]
    return str(usual).split()[-1]


def _on_the_wall(stamp: Any, clock: str | None) -> Any:
    """Return the stamp without its zone, moved back to the clock if its zone had moved it on."""
    import pandas as pd

    wall = stamp.tz_localize(None)
    if clock is not None:
        for days in (0, 1):  # which day it was, if clocks were put forward over midnight
            meant = wall.normalize() - pd.Timedelta(days=days) + pd.Timedelta(clock)
            if _in_zone(meant, stamp.tz) == stamp:
                return meant
    return wall


def _in_zone(wall: Any, zone: Any) -> Any:
    return wall.tz_localize(zone, ambiguous=True, nonexistent="shift_forward")


def _time_of_day(wall: Any) -> Any:
    return wall - wall.normalize()


def scalar(time: Any) -> str | int:
    """One entry of an index as a JSON scalar; a period as its start."""
    time = getattr(time, "start_time", time)
    return time.isoformat() if hasattr(time, "isoformat") else int(time)


def show(time: Time) -> str:
    """A time as it reads best in a message: a blank for the T, no midnight."""
    return str(time).removesuffix("T00:00:00").replace("T", " ")
