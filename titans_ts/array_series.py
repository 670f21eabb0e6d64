"""Arrays as panels: one series (T,) or (T, C), a cube (N, T, C), or a list of arrays."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from titans_ts.parts import Parts, real_numbers
from titans_ts.series_kinds import KINDS, Label, Layout, Roles
from titans_ts.windows import Array


def read_arrays(y: Any, kind: Any, roles: Roles, name: str) -> Parts:
    """Take apart an array, lists that make one, or a list of arrays; columns are positions."""
    ndim: Literal[1, 2, 3]
    if kind == "arrays":
        blocks = [_numbers(entry, f"{name}[{i}]") for i, entry in enumerate(y)]
        widths = {block.shape[1:] for block in blocks}
        if len(widths) > 1 or blocks[0].ndim > 2:
            shapes = [block.shape for block in blocks]
            raise ValueError(
                f"the arrays of {name} must all have shape (T,), or all (T, C) with one C; got "
                f"{shapes[:5]}."
            )
        ndim = 1 if blocks[0].ndim == 1 else 2
        lengths = [len(block) for block in blocks]
        rows = np.concatenate([block[:, None] if block.ndim == 1 else block for block in blocks])
    else:
        array = _numbers(y, name)
        if array.ndim not in (1, 2, 3):
            raise ValueError(
                f"{name} must have shape (T,), (T, C) or (N, T, C); got {array.shape}. Series of "
                "unequal length go into a list of arrays."
            )
        ndim = 1 if array.ndim == 1 else 2 if array.ndim == 2 else 3
        lengths = [array.shape[1]] * len(array) if ndim == 3 else [len(array)]
        rows = array.reshape(sum(lengths), array.shape[-1] if ndim > 1 else 1)

    columns = tuple(range(rows.shape[1]))
    named = (*(roles.target_columns or ()), *roles.covariates)
    if bad := [column for column in named if column not in columns]:
        raise ValueError(
            f"{name} has no column {bad[0]!r}: the columns of {KINDS[kind]} are known by their "
            f"positions, here 0 to {len(columns) - 1}. Name positions, or pass a data frame."
        )
    targets: tuple[Any, ...] = roles.target_columns or tuple(c for c in columns if c not in named)
    panel = kind == "arrays" or ndim == 3
    count = len(lengths) if panel else None
    layout = Layout(kind=kind, columns=targets, ndim=ndim, count=count, roles=roles)
    taken = rows if targets == columns else rows[:, list(targets)]
    return Parts(
        layout=layout,
        targets=np.array(taken, dtype=np.float64, order="C"),
        columns={column: rows[:, int(column)].astype(np.float64) for column in roles.covariates},
        owner=np.repeat(np.arange(len(lengths)), lengths) if panel else None,
        keys=list(range(len(lengths))) if panel else [None],
    )


def _numbers(y: Any, name: str) -> Array:
    if isinstance(y, np.ma.MaskedArray) and y.dtype.kind in "iuf":
        # What is masked must not count as data.
        y = y.astype(float).filled(np.nan)  # type: ignore[attr-defined]  # numpy 2.4 has it untyped
    try:
        array = np.asarray(y)
    except ValueError as error:
        raise ValueError(
            f"the rows of {name} must be equally long: {error} Series of unequal length go into a "
            "list of numpy arrays."
        ) from error
    if array.dtype.kind == "c":  # in scikit-learn's words
        raise ValueError(
            f"Complex data not supported; {name} has dtype {array.dtype}. Make channels of its "
            f"parts: numpy.column_stack([{name}.real, {name}.imag])."
        )
    floats = real_numbers(array) if array.dtype == object else None
    if floats is None and array.dtype.kind not in "iuf":
        raise TypeError(
            f"{name} must hold real numbers; got dtype {array.dtype}. Convert it, e.g. "
            f"numpy.asarray({name}, dtype=float)."
        )
    return array if floats is None else floats


def future_arrays(future: Any, columns: tuple[Label, ...], name: str) -> list[Array]:
    """Return (rows, K) of each series, from (rows, K), (N, rows, K), or a list of arrays."""
    if isinstance(future, (list, tuple)) and all(isinstance(f, np.ndarray) for f in future):
        blocks = [_numbers(entry, f"{name}[{i}]") for i, entry in enumerate(future)]
    else:
        array = _numbers(future, name)
        blocks = list(array) if array.ndim == 3 else [array]
    blocks = [b[:, None] if b.ndim == 1 and len(columns) == 1 else b for b in blocks]
    for block in blocks:
        if block.ndim != 2 or block.shape[1] != len(columns):
            raise ValueError(
                f"{name} must have a column for each of the future covariates {list(columns)}, in "
                f"this order: (rows, {len(columns)}) of each series; got {block.shape}."
            )
    return [np.array(block, dtype=np.float64, order="C") for block in blocks]
