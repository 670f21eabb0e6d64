"""Times of a panel put on an evenly spaced grid: holes counted, small shifts taken back."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np

from titans_ts.parts import Parts
from titans_ts.series_kinds import Layout, cure
from titans_ts.time_axis import (
    Time,
    find_clock,
    fixed_width,
    follows_the_clock,
    index_of,
    scalar,
    show,
)
from titans_ts.time_hints import MONTHS_FIRST, PUT_BACK, months_first, put_back
from titans_ts.time_step import UNITS, calendar, infer_step

MAX_SPARSE = 2  # grid rows for each row given: more than half missing is no series with holes
MAX_TYPO = 10  # beyond that, a time is mistyped rather than rows missing
MAX_SNAPPED = 7 * 86400  # seconds: no stamp of a longer step is moved, as months are not alike
MAX_HOLE = 1000  # rows of new data that may be left out at once, however few are given


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Where the rows lie: `row` (R,) within the grid of their own series, of `rows` (N,) rows."""

    layout: Layout
    row: Any
    rows: Any
    first: Sequence[Time]
    last: Sequence[Time]


def lay_on_grid(parts: Parts, known: Layout | None, name: str) -> Grid:
    """Find the step and each row's place.

    The step is that of the `known` layout if there is one, whose holes are then bounded by
    `MAX_HOLE`. Stamps less than a quarter of a step off are moved, with a warning.

    Raises
    ------
    ValueError
        If times are unsorted, twice there, further off, or too many are missing.
    """
    counts = np.diff(parts.bounds)
    if parts.times is None:
        row = np.arange(len(parts.targets)) - np.repeat(parts.bounds[:-1], counts)
        none: list[Time] = [None] * len(counts)
        return Grid(layout=parts.layout, row=row, rows=counts, first=none, last=none)
    return _Laying(parts, known, name).grid()


class _Laying:
    def __init__(self, parts: Parts, known: Layout | None, name: str) -> None:
        self.parts, self.name, self.new = parts, name, known is not None
        self.times, self.bounds, self.layout = parts.times, parts.bounds, parts.layout
        self.ticks = np.asarray(self.times.astype("int64"))
        self._check_order()
        same = known if known is not None and known.axis == self.layout.axis else None
        step = same.step if same else infer_step(self.times, self.bounds, self.layout)
        if step is None:
            only = (
                "has a single row, which does"
                if len(self.ticks) == 1
                else ("has series of a single row only, which do")
            )
            self._fail("single", f"{name} {only} not tell the time step")
        self.layout = replace(self.layout, step=step)
        self._longest = MAX_SNAPPED * 10**9 // UNITS.get(self.layout.unit, 1)
        if follows_the_clock(self.layout):
            clock = find_clock(self.times, same.clock if same else None)
            self.layout = replace(self.layout, clock=clock)

    def grid(self) -> Grid:
        width = fixed_width(self.layout)
        row = self._on_calendar() if width is None else self._on_ticks(width)
        begins, ends = self.bounds[:-1], self.bounds[1:] - 1
        rows = row[ends] + 1
        self._check_steps(row)
        self._check_holes(row, rows)
        first, last = ([scalar(t) for t in self.times[at]] for at in (begins, ends))
        return Grid(layout=self.layout, row=row, rows=rows, first=first, last=last)

    def _check_order(self) -> None:
        gaps = np.diff(self.ticks)
        within = np.ones(len(gaps), dtype=bool)
        within[self.bounds[1:-1] - 1] = False
        for problem, bad in {"unsorted": gaps < 0, "duplicated": gaps == 0}.items():
            if (bad & within).any():
                row = int(np.argmax(bad & within))
                text = f"the times of {self.name} are {problem}: {self._at(row, key=False)}, then "
                text += self._at(row + 1)
                if self._put_back():
                    raise ValueError(f"{text}; {PUT_BACK}.")
                self._fail(problem, text)

    def _put_back(self) -> bool:
        """Whether all times that come twice may be those of an hour that does."""
        if self.layout.time != "datetime" or self.layout.timezone is not None:
            return False
        import pandas as pd

        owner = np.repeat(np.arange(len(self.bounds) - 1), np.diff(self.bounds))
        twice = pd.DataFrame({"owner": owner, "time": self.times}).duplicated().to_numpy()
        return bool(twice.any()) and put_back(self.times[twice])

    def _on_calendar(self) -> Any:
        """Rows on grids that pandas counts off; all series share one if they can."""
        row = np.empty(len(self.ticks), dtype=np.int64)
        latest = int(np.argmax(self.ticks))
        shared: Any = None
        for begin, end in zip(self.bounds[:-1], self.bounds[1:], strict=True):
            due, ticks = shared, self.ticks[begin:end]
            if due is None or due[np.searchsorted(due, ticks[0]) % len(due)] != ticks[0]:
                span = self.times[[begin, latest]]
                due = np.asarray(calendar(span, self.layout).astype("int64"))
                shared = due if shared is None or due[0] < shared[0] else shared
            found = np.searchsorted(due, ticks)
            off = due[np.minimum(found, len(due) - 1)] != ticks
            if off.any():
                at = int(np.argmax(off))
                self._off_grid(begin + at, due[min(int(found[at]), len(due) - 1)])
            found -= found[0]
            row[begin:end] = found
        return row

    def _on_ticks(self, width: int) -> Any:
        """Rows on grids of a fixed step, each with a phase of its own."""
        counts = np.diff(self.bounds)
        begins = self.bounds[:-1]
        rest = self.ticks % width
        uneven = rest != np.repeat(rest[begins], counts)
        if uneven.any():
            owner = np.repeat(np.arange(len(counts)), counts)
            usual = _usual(rest)
            shift = np.zeros(len(rest), dtype=np.int64)
            for series in np.unique(owner[uneven]):
                part = slice(self.bounds[series], self.bounds[series + 1])
                shift[part] = self._shift(rest[part], usual, width, int(part.start))
            self.ticks = self.ticks - shift
            self.times = index_of(self.ticks, self.times)
            self._warn(shift, owner)
        return (self.ticks - np.repeat(self.ticks[begins], counts)) // width

    def _shift(self, rest: Any, usual: list[int], width: int, begin: int) -> Any:
        """How far each row of a series lies off the likeliest grid of this step."""
        snap = self.layout.time in ("datetime", "date") and width <= self._longest
        candidates = [*_usual(rest), *usual, 0, int(rest[0])]  # 0: at the full hour, at midnight
        for phase in candidates if snap else []:
            shift = (rest - phase + width // 2) % width - width // 2
            if (4 * np.abs(shift) < width).all():
                return shift
        phase = candidates[0] if snap else int(rest[0])
        shift = (rest - phase + width // 2) % width - width // 2
        row = begin + int(np.argmax(4 * np.abs(shift) >= width if snap else shift != 0))
        return self._off_grid(row, int(self.ticks[row] - shift[row - begin]))

    def _warn(self, shift: Any, owner: Any) -> None:
        import pandas as pd

        moved = np.flatnonzero(shift)
        largest = pd.Timedelta(int(np.abs(shift).max()), self.layout.unit)
        twice = np.flatnonzero((np.diff(self.ticks) == 0) & (np.diff(owner) == 0))
        if len(twice):
            row = int(twice[0])
            texts = [show(scalar(t)) for t in self.parts.times[[row, row + 1]]]
            where = self.parts.place(row + 1)
            self._fail(
                "uneven",
                f"two rows of {self.name} fall on one time of the grid with a step of "
                f"{self.layout.step!r}, {show(scalar(self.times[row]))}: {texts[0]} and "
                f"{texts[1]} at {where}",
            )
        one = len(moved) == 1
        warnings.warn(
            f"{len(moved)} time{'' if one else 's'} of {self.name} {'lies' if one else 'lie'} off "
            f"the grid with a step of {self.layout.step!r} by up to {largest} and "
            f"{'was' if one else 'were'} moved to it.",
            UserWarning,
            stacklevel=7,  # the line that called fit or update
        )

    def _check_steps(self, row: Any) -> None:
        """A series whose rows are all two steps apart or more has another step."""
        for series in np.flatnonzero(np.diff(self.bounds) >= 4) if len(self.bounds) > 2 else ():
            gaps = np.diff(row[self.bounds[series] : self.bounds[series + 1]])
            if gaps.min() > 1:
                self._fail(
                    "uneven",
                    f"series {self.parts.keys[series]!r} of {self.name} has another step than the "
                    f"others: its rows are {gaps.min()} or more steps of {self.layout.step!r} "
                    "apart. Fit it on its own, or bring all to one step",
                )

    def _check_holes(self, row: Any, rows: Any) -> None:
        counts = np.diff(self.bounds)
        allowed = np.maximum(MAX_TYPO * counts, MAX_HOLE) if self.new else MAX_SPARSE * counts
        for series in np.flatnonzero(rows > allowed)[:1]:
            begin = int(self.bounds[series])
            gaps = np.diff(row[begin : self.bounds[series + 1]])
            at = begin + int(np.argmax(gaps))
            whose = (
                f"series {self.parts.keys[series]!r} of {self.name}"
                if (self.parts.owner is not None)
                else self.name
            )
            text = (
                f"{whose} has {counts[series]} rows, but spans {rows[series]} steps of "
                f"{self.layout.step!r}; the largest gap is from {show(scalar(self.times[at]))} to "
                f"{show(scalar(self.times[at + 1]))}"
            )
            if rows[series] > MAX_TYPO * counts[series]:
                meant = "Is a time mistyped? Correct it, or drop that part"
                raise ValueError(f"{text}. {MONTHS_FIRST if self._months_first() else meant}.")
            self._fail("uneven", f"{text}: more than half is missing")

    def _off_grid(self, row: int, due: Any) -> NoReturn:
        times = index_of(np.array([int(due)]), self.times)
        self._fail(
            "uneven",
            f"the times of {self.name} are not evenly spaced: with a step of "
            f"{self.layout.step!r} {show(scalar(times[0]))} is due, got {self._at(row)}",
        )

    def _months_first(self) -> bool:
        stamps = self.layout.time in ("date", "datetime")
        return stamps and months_first(self.parts.times, self.bounds)

    def _at(self, row: int, *, key: bool = True) -> str:
        return f"{show(scalar(self.parts.times[row]))} at {self.parts.place(row, key=key)}"

    def _fail(self, problem: str, text: str) -> NoReturn:
        layout = self.layout
        if problem == "uneven" and self._months_first():
            raise ValueError(f"{text}. {MONTHS_FIRST}.")
        raise ValueError(f"{text}. {cure(problem, layout, self.name, layout.time_name)}")


def _usual(rests: Any) -> list[int]:
    """What is left of times after whole steps, if it is the same for half of them."""
    found, counts = np.unique(rests, return_counts=True)
    best = int(np.argmax(counts))
    return [int(found[best])] if 2 * counts[best] >= len(rests) else []
