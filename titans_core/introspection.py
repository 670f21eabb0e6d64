"""Watch memories at work: surprise, gates and the norm of the memory, token by token."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from titans_core.neural_memory import NeuralMemory
from titans_core.state import MemoryRecord


@contextmanager
def record_memory(module: nn.Module) -> Iterator[dict[str, MemoryRecord]]:
    """Record every ``NeuralMemory`` inside a module, for as long as the block lasts.

    Calls that follow each other are taken as one stream and joined along time. Nothing is
    computed for it outside the block.

    Parameters
    ----------
    module : nn.Module
        A layer, block, backbone or anything that holds some.

    Yields
    ------
    dict of str to MemoryRecord
        By the layer's name within the module ("" for the module itself); filled when the block
        ends.

    Raises
    ------
    ValueError
        There is no ``NeuralMemory`` in the module.

    Examples
    --------
    >>> from titans_core import NeuralMemoryConfig
    >>> memory = NeuralMemory(NeuralMemoryConfig(dim=8))
    >>> with record_memory(memory) as records:
    ...     y, state = memory(torch.randn(2, 5, 8))
    >>> records[""].surprise.shape  # batch, time, heads
    torch.Size([2, 5, 1])
    """
    layers = {name: m for name, m in module.named_modules() if isinstance(m, NeuralMemory)}
    if not layers:
        raise ValueError(f"{type(module).__name__} holds no NeuralMemory to record.")
    before = {name: layer.records for name, layer in layers.items()}
    for layer in layers.values():
        layer.records = []
    joined: dict[str, MemoryRecord] = {}
    try:
        yield joined
    finally:
        pieces = {name: layer.records or [] for name, layer in layers.items()}
        for name, layer in layers.items():
            layer.records = before[name]
    for name, records in pieces.items():
        batches = sorted({len(record.surprise) for record in records})
        if len(batches) > 1:
            raise ValueError(
                f"calls of {name or type(module).__name__!r} had batches of {batches}: that is not "
                "one stream. Record each batch in a block of its own."
            )
        if records:
            joined[name] = MemoryRecord(
                *(torch.cat(parts, dim=1) for parts in zip(*records, strict=True))
            )
