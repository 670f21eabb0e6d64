"""An endless stream costs the same per token from first to last, in a fixed amount of memory.

    python benchmarks/core_stream.py

Every block reads streams of 512 to 2 million tokens in pieces of 512, with its state carried (no
gradients; Linux). Claims: tokens/s of all lengths lie within 20 % of each other; from token 10,000
to the end of the longest stream the process grows by less than 20 MiB; and a state saved in the
middle, inside a chunk, and loaded from its file goes on bit for bit like the stream itself. The
shorter streams are read in between pieces of the longest, and rates are medians of pieces, so that
a neighbour who is busy for a while slows all lengths or none.
"""

from __future__ import annotations

import argparse
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _record
import torch
from torch import Tensor, nn

from titans_core import (
    AttentionConfig,
    AttentionOnly,
    BackboneState,
    LongTermMemory,
    MemoryAsContext,
    MemoryAsGate,
    MemoryAsLayer,
    NeuralMemoryConfig,
    state_from_dict,
    state_to_dict,
)
from titans_core.persistence import load_tree, save_tree

MEMORY = NeuralMemoryConfig(dim=64, chunk_size=64)
ATTENTION = AttentionConfig(num_heads=2, window=64)
BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "LongTermMemory": lambda: LongTermMemory(MEMORY),
    "MemoryAsContext": lambda: MemoryAsContext(MEMORY, ATTENTION),
    "MemoryAsGate": lambda: MemoryAsGate(MEMORY, ATTENTION),
    "MemoryAsLayer": lambda: MemoryAsLayer(MEMORY, ATTENTION),
    "AttentionOnly": lambda: AttentionOnly(MEMORY, ATTENTION),
}
PIECE = 512
LENGTHS = (512, 8192, 131_072, 2_097_152)
REPEAT_UP_TO = 65_536  # tokens: shorter streams are repeated, and each but the longest twice
SETTLED = 10_000  # tokens after which memory should stand still


def piece(number: int, tokens: int = PIECE) -> Tensor:
    return torch.randn(1, tokens, MEMORY.dim, generator=torch.Generator().manual_seed(number))


def resident() -> float:
    """MiB that the process holds now."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def stream(
    block: nn.Module, tokens: int, after_piece: Callable[[int, Any], None] | None = None
) -> list[float]:
    """Seconds of each piece; making tokens and what is done after a piece are not counted."""
    state, seconds = None, []
    for number in range(tokens // PIECE):
        x = piece(number)
        begun = time.perf_counter()
        _, state = block(x, state)
        seconds.append(time.perf_counter() - begun)
        if after_piece is not None:
            after_piece((number + 1) * PIECE, state)
    return seconds


def survives_a_file(block: nn.Module, state: Any) -> bool:
    """Whether a state that was saved and loaded, inside a chunk, gives the very same outputs."""
    _, state = block(piece(0, MEMORY.chunk_size // 2 + 5), state)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        save_tree(path, state_to_dict(BackboneState((state,))), kind="state")
        (loaded,) = state_from_dict(load_tree(path, kind="state")).blocks
    for number in range(3):
        y, state = block(piece(number), state)
        y_loaded, loaded = block(piece(number), loaded)
        if not torch.equal(y, y_loaded):
            return False
    return True


def run(name: str, lengths: tuple[int, ...], quick: bool) -> list[dict[str, Any]]:
    """Rows of one block."""
    torch.manual_seed(0)
    block = BLOCKS[name]()
    rows: list[dict[str, Any]] = []
    shape = f"{name}, d {MEMORY.dim}, chunk {MEMORY.chunk_size}"

    def note(tokens: int, metric: str, value: float, unit: str) -> None:
        rows.append(
            {"case": f"{shape}, T {tokens}" + ", quick" * quick, "provider": "titans_core",
             "metric": metric, "value": f"{value:.4g}", "unit": unit, "seed": 0}
        )  # fmt: skip
        print(f"{rows[-1]['case']:45} {metric}: {value:.4g} {unit}", flush=True)

    *shorter, longest = lengths
    seconds: dict[int, list[float]] = {tokens: [] for tokens in lengths}
    held: list[float] = []
    same = False

    def watch(tokens: int, state: Any) -> None:
        nonlocal same
        if tokens == longest // 2:
            same = survives_a_file(block, state)
        if tokens - PIECE < SETTLED <= tokens or tokens == longest:
            held.append(resident())
        for length in shorter:
            if tokens % (longest // max(2, REPEAT_UP_TO // length)) == 0:
                seconds[length] += stream(block, length)

    with torch.no_grad():
        stream(block, 8 * PIECE)  # warm-up
        seconds[longest] = stream(block, longest, watch)
    rates = {tokens: PIECE / statistics.median(each) for tokens, each in seconds.items()}
    for tokens, rate in rates.items():
        note(tokens, "speed", rate, "tokens/s")
    settled, end = held
    spread = max(rates.values()) / min(rates.values()) - 1
    note(longest, f"RSS at {SETTLED} tokens", settled, "MiB")
    note(longest, "RSS at the end", end, "MiB")
    note(longest, "RSS growth", end - settled, "MiB")
    note(longest, "speed, fastest over slowest length, less 1", spread, "1")
    note(longest, "saved, loaded, continued bit for bit", same, "1 = yes")
    for claim, holds in {
        "tokens/s within 20 %": spread <= 0.2,
        "growth < 20 MiB": end - settled < 20,
        "a saved state continues bitwise": same,
    }.items():
        print(f"{name}: {claim}: {'holds' if holds else 'DOES NOT HOLD'}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="streams of up to 131,072 tokens")
    parser.add_argument("--block", choices=BLOCKS, action="append", help="only this one")
    options = parser.parse_args()
    lengths = LENGTHS[:-1] if options.quick else LENGTHS
    rows = []
    for name in options.block or BLOCKS:
        rows += run(name, lengths, options.quick)
    print(f"wrote {_record.record('core_stream', rows)}")


if __name__ == "__main__":
    main()
