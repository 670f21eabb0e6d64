"""Why a layer's memory forgets toward M_0, and why its step carries (1 - eta).

    python benchmarks/memory_stability.py

One: the first of 8192 random tokens is moved by 1e-12 (float64, default gates); how far apart are
the outputs at the end? Two: 8192 strongly correlated tokens (float32); how large do the weights
get, relative to M_0? Eq. 13 of the paper (toward zero) is the peer in both.
"""

from __future__ import annotations

import argparse
from typing import Any

import _record
import torch

from titans_core import NeuralMemory, NeuralMemoryConfig


def separation(tokens: int, **options: Any) -> float:
    """Largest difference of the last hundred outputs."""
    torch.manual_seed(0)
    memory = NeuralMemory(NeuralMemoryConfig(dim=64, **options)).double()
    x = torch.randn(1, tokens, 64, dtype=torch.float64)
    moved = x.clone()
    moved[:, 0] *= 1 + 1e-12
    with torch.no_grad():
        y, y_moved = memory(torch.cat([x, moved]))[0]
    return (y - y_moved)[-100:].abs().max().item()


def growth(tokens: int, **options: Any) -> float:
    """Largest norm of a layer's weights after correlated tokens, over that of M_0."""
    torch.manual_seed(0)
    memory = NeuralMemory(NeuralMemoryConfig(dim=32, **options))
    x = torch.randn(1, 1, 32) + 0.05 * torch.randn(1, tokens, 32)
    with torch.no_grad():
        _, state = memory(x)
        pairs = zip(state.memory.weights, memory.initial_weights, strict=True)
        ratios = torch.stack([now.norm() / start.norm() for now, start in pairs])
    return ratios.amax().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a quarter of the tokens")
    share = 4 if parser.parse_args().quick else 1
    rows = []

    def note(case: str, provider: str, metric: str, value: float) -> None:
        print(f"{case:45} {provider:38} {metric}: {value:.2g}")
        rows.append(
            {
                "case": case + ", quick" * (share > 1),
                "provider": provider,
                "metric": metric,
                "value": f"{value:.3g}",
                "unit": "1",
                "seed": 0,
            }
        )

    for chunk_size in (16, 64):
        for depth in (1, 2):
            for toward in ("zero", "initial"):
                apart = separation(
                    8192 // share, depth=depth, chunk_size=chunk_size, forget_toward=toward
                )
                case = f"perturbed by 1e-12, depth {depth}, chunk {chunk_size}"
                note(case, f"forget toward {toward}", "difference at the end", apart)
    for normalised in (False, True):
        for chunk_size in (4, 64):
            for toward in ("zero", "initial"):
                ratio = growth(
                    8192 // share,
                    depth=1,
                    chunk_size=chunk_size,
                    normalize_momentum=normalised,
                    forget_toward=toward,
                )
                step = "with" if normalised else "without"
                provider = f"{step} (1 - eta), forget toward {toward}"
                case = f"correlated tokens, depth 1, chunk {chunk_size}"
                note(case, provider, "weight norm over M_0", ratio)
    print(f"wrote {_record.record('memory_stability', rows)}")


if __name__ == "__main__":
    main()
