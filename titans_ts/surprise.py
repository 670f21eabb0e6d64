"""How surprised the memory was by each patch of a series: where it met what it had not expected.

The memory that streams forecast with: the seasonal one where it is used, else the network's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from titans_core import record_memory
from titans_ts.adaptation import Stream, static_of
from titans_ts.backtest_plan import times_of
from titans_ts.channels import fill_forward
from titans_ts.question import Asked
from titans_ts.seasonal_memory import SeasonalMemory
from titans_ts.windows import Array, normalise, sliding_windows

if TYPE_CHECKING:
    import pandas as pd

    from titans_ts.frames import Panel
    from titans_ts.model import Model


def surprise_table(model: Model, panel: Panel, asked: list[Asked]) -> pd.DataFrame:
    """Surprise by patch and channel, mean over heads and layers, of a memory that begins anew.

    In z-scores of the channel for the seasonal memory, whose patches fill whole seasons.

    Parameters
    ----------
    model : Model
    panel : Panel
        The series to read.
    asked : list of Asked
        Their channels and units.

    Returns
    -------
    pandas DataFrame
        Index: the time of each patch's last row. Columns: the channels; of a panel (key, channel).

    Raises
    ------
    ValueError
        There is no memory.
    """
    import pandas as pd

    network = model.residual.network
    if model.seasonal_memory is None and (network is None or not len(network.backbone.blocks)):
        raise ValueError(
            "this forecaster has no memory to be surprised: a seasonal one was not wanted "
            "(use_memory=False) or not taken up by validation, and there is no network with one "
            "(use_network=True, a backbone of at least one block)."
        )
    columns = {}
    for each, series, times in zip(asked, panel.series, times_of(panel), strict=True):
        stream = each.stream
        z = model.rows_of(series, each.scaler, stream.channel, stream.column)
        if model.seasonal_memory is not None:
            ends, values = _of_season(model.seasonal_memory, z)
        else:
            ends, values = _of_network(model, stream, fill_forward(z))
        labels = np.flatnonzero(each.scaler.learned)
        for k, position in enumerate(labels):
            label = panel.layout.columns[position]
            name = label if len(panel.series) == 1 else (series.key, label)
            columns[name] = pd.Series(values[k], index=times[ends - 1])
    return pd.DataFrame(columns)


def _of_season(memory: SeasonalMemory, z: Array) -> tuple[np.ndarray, Array]:
    """Where patches of ``(T, C)`` end ``(n,)``, and the surprise at each ``(C, n)``."""
    known = ~np.isnan(z)
    values = [memory.surprises(z[:, k], known[:, k]) for k in range(z.shape[1])]
    return memory.patch * np.arange(1, len(z) // memory.patch + 1), np.stack(values)


def _of_network(model: Model, stream: Stream, z: Array) -> tuple[np.ndarray, Array]:
    """The same of the network's memory, whose first patch ends with the first window."""
    network, clock = model.residual.network, model.clock
    assert network is not None
    ends = np.arange(clock.context_length, len(z) + 1, clock.patch_length)
    windows = sliding_windows(z, clock.context_length)[ends - clock.context_length]
    patches = normalise(windows)[0][..., -clock.patch_length :].transpose(1, 0, 2)
    with torch.no_grad(), record_memory(network.backbone) as records:
        network.remember(
            torch.from_numpy(patches).float(),
            torch.from_numpy(stream.channel),
            static=static_of([stream]),
        )
    surprise = torch.stack([record.surprise.mean(dim=-1) for record in records.values()])
    # What is left after the persistent tokens.
    return ends, surprise.mean(dim=0)[:, -len(ends) :].double().numpy()
