"""Covariates as numbers: text becomes a column of zeros and ones for each category."""

from __future__ import annotations

from typing import Any

import numpy as np

from titans_ts.parts import Parts
from titans_ts.windows import Array

Categories = tuple[tuple[Any, tuple[str, ...]], ...]


def learn_categories(parts: Parts) -> Categories:
    """The categories of each covariate of text, sorted."""
    return tuple((label, tuple(sorted(words))) for label, words in parts.words.items())


def encode(parts: Parts, columns: tuple[Any, ...], learned: Categories) -> Array:
    """Return covariates as (R, K): a category that was not learned is zero in all its columns.

    ValueError if a column was numbers when it was learned and is text now, or the reverse.
    """
    known, blocks = dict(learned), []
    for column in columns:
        values = parts.columns[column]
        if (column in known) != (column in parts.words) and not np.isnan(values).all():
            was, now = ("text", "numbers") if column in known else ("numbers", "text")
            raise ValueError(
                f"covariate {column!r} holds {now}; the forecaster was fitted on {was}. Convert it."
            )
        if column not in known:
            blocks.append(values[:, None])
            continue
        place = {category: i for i, category in enumerate(known[column])}
        # One more row for what is missing, which numpy finds at position -1.
        table = np.zeros((len(parts.words.get(column, [])) + 1, len(place)))
        table[-1] = np.nan
        for code, word in enumerate(parts.words.get(column, [])):
            if word in place:
                table[code, place[word]] = 1
        blocks.append(table[np.where(np.isnan(values), -1, values).astype(np.int64)])
    return np.hstack(blocks) if blocks else np.empty((len(parts.targets), 0))
