"""One provider of ``core_speed.py`` in a process of its own: JSON lines in, JSON lines out.

Imports torch and the provider's library, nothing else of ours, so that it runs in any environment:

    python benchmarks/_core_worker.py PROVIDER

Requests are objects with an ``op``: "make" builds the layer and its input, "time" runs a thing,
"peak" tells how much memory a forward + backward adds. Between two requests it sleeps on stdin.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from _memory import resident_mib
from torch import Tensor, nn

STEPS = 40  # one-token steps timed by one request; the state is carried from one to the next


def build(
    provider: str, *, dim: int, heads: int, chunk: int, faithful: bool, expansion: int
) -> nn.Module:
    """A layer of memory of two layers, with ``forward(x, state=...) -> (y, state)``."""
    if provider.startswith("titans_core"):
        library = import_module("titans_core")
        config = library.NeuralMemoryConfig(
            dim=dim,
            num_heads=heads,
            depth=2,
            expansion=expansion,
            chunk_size=chunk,
            forget_toward="zero" if provider.endswith("zero") else "initial",
        )
        ours: nn.Module = library.NeuralMemory(config)
        return ours
    library = import_module("titans_pytorch")
    head_dim = dim // heads
    theirs: nn.Module = library.NeuralMemory(
        dim=dim,
        dim_head=head_dim,
        heads=heads,
        chunk_size=chunk,
        # Without a batch_size it takes the gradients of all chunks at the initial weights, which is
        # fast and another recurrence than the paper's; with one it moves them after every chunk.
        batch_size=chunk if faithful else None,
        model=library.MemoryMLP(head_dim, depth=2, expansion_factor=float(expansion)),
        # Its default of 1 is for each of the chunk's summed gradients: faithful and at chunk 64 it
        # ends in NaN on random tokens. This is our layer's bound, and costs what the default does.
        default_step_transform_max_lr=1 / chunk,
    )
    return theirs


class Bench:
    """A layer, its input, and what is done with them."""

    def __init__(self, provider: str, batch: int, tokens: int, **shape: Any) -> None:
        torch.manual_seed(0)
        self.layer = build(provider, **shape)
        self.x = torch.randn(batch, tokens, shape["dim"], requires_grad=True)
        self.chunk: int = shape["chunk"]
        self.state: Any = None
        self.factors = torch.randn(2, 2048, 2048)

    def forward(self) -> Tensor:
        with torch.no_grad():
            y: Tensor = self.layer(self.x)[0]
        return y

    def both(self, x: Tensor | None = None) -> Tensor:
        """Forward, and the gradients of x and of all parameters."""
        x = self.x if x is None else x
        y: Tensor = self.layer(x)[0]
        # titans-pytorch registers its memory's weights twice, the first of them unused.
        leaves = [x, *self.layer.parameters()]
        torch.autograd.grad(y.square().mean(), leaves, allow_unused=True)
        return y

    def matmul(self) -> Tensor:
        return torch.mm(self.factors[0], self.factors[1])

    def time(self, what: str) -> list[float]:
        """Seconds of one run, or of each of STEPS one-token steps."""
        if what == "step":
            return self._steps()
        run: Callable[[], Tensor] = {
            "forward": self.forward,
            "forward + backward": self.both,
            "matmul": self.matmul,
        }[what]
        begun = time.perf_counter()
        y = run()
        seconds = time.perf_counter() - begun
        _check(y)
        return [seconds]

    def _steps(self) -> list[float]:
        seconds = []
        for token in torch.randn(STEPS, 1, 1, self.x.shape[-1]):
            begun = time.perf_counter()
            with torch.no_grad():
                y, self.state = self.layer(token, state=self.state)
            seconds.append(time.perf_counter() - begun)
            _check(y)
        return seconds

    def peak(self) -> float:
        """MiB that one forward + backward adds at its highest (Linux)."""
        self.both(self.x[:1, : self.chunk].detach().requires_grad_())  # warm-up: one chunk
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
        before = resident_mib("VmRSS")
        _check(self.both())
        return resident_mib() - before


def _check(y: Tensor) -> None:
    if not y.isfinite().all():
        raise FloatingPointError("the output is not finite")


def main() -> None:
    torch.set_num_threads(2)
    provider = sys.argv[1]
    answers, sys.stdout = sys.stdout, sys.stderr  # a library that prints must not answer
    bench: Bench | None = None
    answer: Any
    for line in sys.stdin:
        request = json.loads(line)
        op = request.pop("op")
        if op == "make":
            bench = Bench(provider, **request)
            answer = torch.__version__
        else:
            assert bench is not None
            answer = bench.time(**request) if op == "time" else bench.peak()
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
