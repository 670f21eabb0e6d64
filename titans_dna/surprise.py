"""What a classifier's memories went through as they read a sequence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from titans_core.introspection import record_memory
from titans_core.neural_memory import NeuralMemory
from titans_core.state import MemoryRecord
from titans_dna.alphabet import Tokens
from titans_dna.network import SequenceNetwork
from titans_dna.questions import check_length, read_one

if TYPE_CHECKING:
    import pandas as pd

    from titans_dna.classifier import TitansDNAClassifier

__all__ = ["memory_surprise"]

_LONGEST_RECORD = 2**18


def memory_surprise(classifier: TitansDNAClassifier, sequence: Any) -> pd.DataFrame:
    """Watch the networks' memories read a sequence: a row for each token, layer and direction.

    Parameters
    ----------
    classifier, sequence
        As in `in_silico_mutagenesis`.

    Returns
    -------
    DataFrame with columns
        network, layer
            Number of the network, and name of the memory within its backbone.
        direction
            "onward": the sequence is read from left to right; "back": from right to left.
        start, stop
            Bases of the token.
        surprise
            Norm of the memory's gradient at the token, before it was written; NaN where it was
            not written, as none of its bases is known.
        memory_lr, momentum_decay, forget_gate
            The gates: how much of the surprise is written, how much of past surprise is carried
            on, and how much of the memory is forgotten.
        memory_norm
            Norm of the memory's weights when the token was met.

        All are means over the memory's heads. Rows are sorted by start within a direction. It is
        the strand that was given; the opposite one can be asked about by itself.

    Raises
    ------
    ValueError
        As in `in_silico_mutagenesis`; or the networks have no neural memory, or the sequence is
        longer than 262,144 bases.
    """
    import pandas as pd

    _, tokens = read_one(classifier, sequence)
    check_length(tokens, _LONGEST_RECORD, "a memory is watched over")
    networks = classifier.model_.networks
    if not any(isinstance(m, NeuralMemory) for network in networks for m in network.modules()):
        raise ValueError(
            "this classifier's networks hold no neural memory to watch: fit one whose `backbone` "
            "has one, as the default does."
        )
    frames = []
    for number, network in enumerate(networks):
        for layer, record, writes in _records(network, tokens):
            for direction, name in enumerate(("onward", "back")):
                start = np.arange(len(writes)) * network.config.token_bases
                place: dict[str, Any] = {
                    "network": number,
                    "layer": layer,
                    "direction": name,
                    "start": start,
                    "stop": np.minimum(start + network.config.token_bases, len(tokens)),
                }
                frames.append(pd.DataFrame(place | _along(record, writes, direction)))
    return pd.concat(frames, ignore_index=True)


@torch.no_grad()
def _records(network: SequenceNetwork, tokens: Tokens) -> list[tuple[str, MemoryRecord, Tensor]]:
    """By layer: what it went through in both directions, and which tokens were written."""
    batch = torch.from_numpy(tokens.copy())[None].to(network.stem.weight.device)
    cells = network.cells(*network.embed(batch))
    writes = network.tokens(cells)[2][0]
    with record_memory(network.backbone) as records:
        network.remember(cells)
    return [(name, record, writes) for name, record in records.items()]


def _along(record: MemoryRecord, writes: Tensor, direction: int) -> dict[str, NDArray[np.float64]]:
    """One direction of a record, as columns in the order of the sequence."""
    columns = {}
    for field, values in record._asdict().items():
        # A stream begins with persistent tokens, which are no part of the sequence.
        found = values[direction, values.shape[1] - len(writes) :].mean(-1)
        found = found.flip(0) if direction else found
        if field == "surprise":
            found = found.masked_fill(~writes, torch.nan)
        columns[field] = found.double().cpu().numpy()
    return columns
