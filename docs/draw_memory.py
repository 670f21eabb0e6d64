"""Draw docs/memory.png: a memory writes a pair again and again, unlearns it, and meets others.

    python docs/draw_memory.py

Every number is what ``titans_core.ops.neural_memory`` computes; nothing is smoothed or sketched.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import torch
from torch import Tensor
from torch.nn.functional import normalize

from titans_core.ops import MemoryTrace, neural_memory

mpl.use("Agg")
import matplotlib.pyplot as plt

DIM, HIDDEN = 16, 32
FIRST, SECOND, OTHERS, AGAIN = 40, 40, 50, 20  # tokens of each act
STEP = 0.06
# Okabe and Ito's colours: told apart by everybody.
RULES = {
    "surprise alone": ({"momentum": 0.0, "forget": 0.0}, "#999999"),
    "with momentum": ({"momentum": 0.8, "forget": 0.0}, "#0072B2"),
    "with momentum and forgetting": ({"momentum": 0.8, "forget": 0.02}, "#D55E00"),
}


def stream() -> tuple[Tensor, Tensor]:
    """Keys and values ``(T, DIM)``: one key with two values in turn, other pairs, the key again."""
    generator = torch.Generator().manual_seed(0)
    key, first, second = normalize(torch.randn(3, DIM, generator=generator), dim=-1)
    other_keys, other_values = normalize(torch.randn(2, OTHERS, DIM, generator=generator), dim=-1)
    keys = [key.expand(FIRST + SECOND, DIM), other_keys, key.expand(AGAIN, DIM)]
    values = [first.expand(FIRST, DIM), second.expand(SECOND, DIM), other_values]
    return torch.cat(keys), torch.cat([*values, second.expand(AGAIN, DIM)])


def run(momentum: float, forget: float) -> tuple[Tensor, Tensor]:
    """Per token: its surprise, and how far the answer to the key is from the key's last value."""
    keys, values = stream()
    generator = torch.Generator().manual_seed(1)
    start = [
        torch.randn(1, d_in, d_out, generator=generator) * d_in**-0.5
        for d_in, d_out in ((DIM, HIDDEN), (HIDDEN, DIM))
    ]
    k, v = keys[None, :, None], values[None, :, None]
    gate = torch.ones(1, len(keys), 1)
    trace: list[MemoryTrace] = []
    answers, _ = neural_memory(
        k[:, :1].expand_as(k),  # whatever is written, the question is the first key
        k,
        v,
        STEP * (1 - momentum) * gate,
        momentum * gate,
        forget * gate,
        start,
        chunk_size=1,
        forget_toward="initial",
        trace=trace,
    )
    last = values.clone()
    last[FIRST:] = values[FIRST]
    return trace[0].surprise[0, :, 0], (answers[0, :, 0] - last).norm(dim=-1)


def draw(path: Path) -> None:
    """Two panels over one axis of tokens: surprise, and what is remembered of the key."""
    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(8, 5.6), sharex=True, layout="constrained")
    for name, (rule, colour) in RULES.items():
        surprise, distance = run(**rule)
        for axes, numbers in ((top, surprise), (bottom, distance)):
            axes.plot(range(1, len(numbers) + 1), numbers, color=colour, label=name, lw=1.8)
    top.set_ylabel("surprise of the token\n(norm of its gradient)")
    bottom.set_ylabel("error of the answer for key A\n(distance from its last value)")
    bottom.set_xlabel("token")
    border = 0
    for number, text in (
        (FIRST, "key A, value 1"),
        (SECOND, "key A, value 2"),
        (OTHERS, "other pairs, each once"),
        (AGAIN, "A, 2 again"),
    ):
        for axes in (top, bottom):
            axes.axvline(border + 0.5, color="#cccccc", lw=0.8, zorder=0)
        top.text(
            border + 0.5 + number / 2,
            1.02,
            text,
            transform=top.get_xaxis_transform(),
            ha="center",
            va="bottom",
        )
        border += number
    for axes in (top, bottom):
        axes.set_xlim(0.5, border + 0.5)
        axes.set_ylim(bottom=0)
    handles = top.get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    draw(Path(__file__).parent / "memory.png")
