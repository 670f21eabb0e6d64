"""The time axis of a series, continued beyond its end; `time_grid` finds its step.

Every axis, that of polars too, is a pandas index here: pandas knows month ends, business days and
daylight saving. Row numbers are an axis like any other; an array has none.

In a time zone, steps of days and longer follow the clock on the wall. Where it is put forward over
a stamp, the stamp moves to just after the gap, and the next one is back at its time of day; where
an hour comes twice, its first pass counts. Hours and shorter steps are absolute.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from titans_ts.series_kinds import Layout

Time = str | int | None  # ISO 8601 (of a period: its start), a row number, or no time at all


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
    """Return a pandas index of `n` times, the first of them `start`.

    Weeks are counted from its own day: series of a panel may have others.
    """
    import pandas as pd
    from pandas.tseries.frequencies import to_offset

    if isinstance(start, int):
        step = int(layout.step or 1)
        return pd.RangeIndex(start, start + n * step, step)
    step_name = str(layout.step)
    if layout.time == "period":
        return pd.period_range(pd.Period(start, freq=step_name), periods=n, freq=step_name)
    stamp = pd.Timestamp(start)
    stamp = stamp if layout.timezone is None else stamp.tz_convert(layout.timezone)
    offset = to_offset(step_name)
    if isinstance(offset, pd.offsets.Week):
        step_name = pd.offsets.Week(offset.n, weekday=stamp.weekday()).freqstr
    if not follows_the_clock(layout):
        return pd.date_range(stamp, periods=n, freq=step_name).as_unit(layout.unit)
    wall = on_the_wall(stamp, layout.clock)
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


def follows_the_clock(layout: Layout) -> bool:
    """Whether the times are stamps in a zone, days or more apart."""
    if layout.time != "datetime" or layout.timezone is None:
        return False
    import pandas as pd
    from pandas.tseries.frequencies import to_offset

    step = to_offset(str(layout.step))
    return isinstance(step, pd.offsets.Day) or not isinstance(step, pd.offsets.Tick)


def find_clock(times: Any, known: str | None) -> str:
    """Return the time of day of stamps that a change of clocks may have moved."""
    import pandas as pd

    # One row may be the moved one: it is `known` that tells.
    if known is not None and _time_of_day(on_the_wall(times[0], known)) == pd.Timedelta(known):
        return known
    usual = pd.Series(_time_of_day(times.tz_localize(None))).mode()[0]
    return str(usual).split()[-1]


def on_the_wall(stamp: Any, clock: str | None) -> Any:
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


def fixed_width(layout: Layout) -> int | None:
    """The step in ticks of the axis, None if it is none: a calendar's, or on the clock of a zone.

    Ticks are what `astype("int64")` makes of the index.
    """
    if isinstance(layout.step, int):
        return layout.step
    import pandas as pd
    from pandas.tseries.frequencies import to_offset

    if layout.time == "period":
        return int(pd.Period("2000-01-01", freq=str(layout.step)).freq.n)
    offset: Any = to_offset(str(layout.step))
    days = {pd.offsets.Day: 1, pd.offsets.Week: 7}.get(type(offset))
    if follows_the_clock(layout) or not (days or isinstance(offset, pd.offsets.Tick)):
        return None
    duration = pd.Timedelta(days=days * offset.n) if days else pd.Timedelta(offset)
    width = duration / pd.Timedelta(1, layout.unit)
    return int(width) if width == int(width) else None


def index_of(ticks: Any, like: Any) -> Any:
    """Time stamps, periods or counts of these ticks, as a pandas index of the kind of another."""
    import pandas as pd

    if isinstance(like, pd.DatetimeIndex):
        index = pd.DatetimeIndex(ticks.astype(f"M8[{like.unit}]"))
        return index if like.tz is None else index.tz_localize("UTC").tz_convert(like.tz)
    if isinstance(like, pd.PeriodIndex):
        return pd.PeriodIndex([pd.Period(ordinal=tick, freq=like.freqstr) for tick in ticks])
    return pd.Index(ticks)


def index_at(layout: Layout, times: Sequence[Any]) -> Any:
    """These JSON scalars as a pandas index of the layout's kind."""
    import pandas as pd

    if layout.axis == "counts":
        return pd.Index(times, dtype="int64")
    if layout.time == "period":
        return pd.PeriodIndex([pd.Period(time, freq=str(layout.step)) for time in times])
    if layout.timezone is None:
        return pd.DatetimeIndex(list(times)).as_unit(layout.unit)
    index = pd.DatetimeIndex([pd.Timestamp(time).tz_convert("UTC") for time in times])
    return index.tz_convert(layout.timezone).as_unit(layout.unit)


def scalar(time: Any) -> str | int:
    """One entry of an index as a JSON scalar; a period as its start."""
    time = getattr(time, "start_time", time)
    return time.isoformat() if hasattr(time, "isoformat") else int(time)


def show(time: Time) -> str:
    """A time as it reads best in a message: a blank for the T, no midnight."""
    return str(time).removesuffix("T00:00:00").replace("T", " ")
