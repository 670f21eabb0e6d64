"""Predictions as data frames."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from titans_dna.batches import Inputs


def answer_frame(
    inputs: Inputs, logs: NDArray[np.float64], classes: NDArray[Any], *, like: Any, first: int = 0
) -> Any:
    """Put ids, labels and probabilities side by side.

    Parameters
    ----------
    inputs : Sequences or ndarray of shape (n, p)
    logs : ndarray of shape (n, K)
        Log probabilities.
    classes : ndarray of shape (K,)
    like : object
        What the user asked about: for polars the answer is polars, else pandas.
    first : int
        Number of the first row, for rows without names.

    Returns
    -------
    data frame with columns id, prediction, and ``p_<class>`` for each class
    """
    names = None if isinstance(inputs, np.ndarray) else inputs.names
    ids = list(names) if names is not None else list(range(first, first + len(logs)))
    columns: dict[str, Any] = {"id": ids, "prediction": classes[logs.argmax(1)]}
    columns |= {f"p_{label}": np.exp(logs[:, k]) for k, label in enumerate(classes)}
    if type(like).__module__.partition(".")[0] == "polars":
        import polars as pl

        return pl.DataFrame(columns)
    import pandas as pd

    return pd.DataFrame(columns)
