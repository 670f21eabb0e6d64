"""What a reader hands on: the columns of a panel as numbers, one row below the other."""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import numpy as np

from titans_ts.series_kinds import Key, Label, Layout
from titans_ts.windows import Array


@dataclass
class Parts:
    """A panel taken apart: R rows of all series; `arrange` puts those of a series together.

    `columns` holds the covariates as they are: numbers, or positions in `words`, NaN where missing.
    """

    layout: Layout  # of which the step is yet to find
    targets: Array  # (R, C), a copy
    columns: dict[Label, Array] = field(default_factory=dict)  # (R,) each
    words: dict[Label, list[str]] = field(default_factory=dict)
    times: Any = None  # a pandas index of R times, or None
    owner: Any = None  # (R,) which series a row is of; None if there is but one
    keys: list[Key] = field(default_factory=lambda: [None])
    rows: Any = None  # (R,) which row of the table it was; None if unchanged
    bounds: Any = None  # (N + 1,) where each series begins and ends, once they are together

    def arrange(self) -> None:
        """Sort the rows by series and, in a long table, by time; find the bounds."""
        count = len(self.targets)
        if self.owner is None:
            self.bounds = np.array([0, count])
            return
        owner = self.owner
        steps = np.diff(owner)
        if self.times is not None:
            ticks = np.asarray(self.times.astype("int64"))
            sound = (steps > 0) | ((steps == 0) & (np.diff(ticks) >= 0))
            order = None if sound.all() else np.lexsort((ticks, owner))
        else:
            order = None
        if order is not None:
            self.rows, self.owner = order, owner[order]
            self.targets = self.targets[order]
            self.columns = {name: values[order] for name, values in self.columns.items()}
            self.times = self.times[order]
        self.bounds = np.searchsorted(self.owner, np.arange(len(self.keys) + 1))

    def place(self, row: int, *, key: bool = True) -> str:
        """Where a row is, in words: "row 3 of series 'a'"."""
        found = row if self.rows is None else int(self.rows[row])
        if self.owner is None:
            return f"row {found}"
        owner = int(self.owner[row])
        if self.layout.long:
            return f"row {found}" + (f" of series {self.keys[owner]!r}" if key else "")
        found -= int(self.bounds[owner])
        return f"row {found}" + (f" of series {self.keys[owner]}" if key else "")


def real_numbers(values: Any, *, booleans: bool = False) -> Array | None:
    """Return objects as floats, NaN for None and NA; None if one is not a real number.

    True and False are none, unless ``booleans`` are wanted as 1 and 0.
    """
    flat = np.asarray(values, dtype=object).ravel()
    floats = np.empty(len(flat))
    for i, value in enumerate(flat):
        if isinstance(value, bool | np.bool_):
            if not booleans:
                return None
            floats[i] = value
        elif isinstance(value, Real):
            floats[i] = value
        elif value is None or type(value).__name__ in ("NAType", "NaTType"):
            floats[i] = np.nan
        else:
            return None
    return floats.reshape(np.shape(values))
