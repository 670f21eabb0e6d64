"""Recall on synthetic tokens for ``recall.py``: the tasks, the models, one training run.

``digest`` is taken over this file and the library, so that a finished run is known by its code.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

import titans_core
from titans_core import Backbone, NeuralMemoryConfig
from titans_core.config import AttentionConfig, BackboneConfig, GatedDeltaConfig

# Alphabets: keys, values, noise, and the two markers of the needle.
KEYS, VALUES, NOISE = 32, 16, 16
FIRST_VALUE, FIRST_NOISE = KEYS, KEYS + VALUES
NEEDLE, QUESTION = KEYS + VALUES + NOISE, KEYS + VALUES + NOISE + 1
CHANCE = 1 / VALUES

TRAIN_LENGTH = 64
TEST_LENGTHS = tuple(TRAIN_LENGTH * factor for factor in (1, 4, 16, 32))
WINDOW = 16  # of attention, a segment of MAC: one block reaches 15 tokens back, two 30
GAP = 32  # least noise between needle or bindings and questions: out of reach of attention


class Sample(NamedTuple):
    """Tokens ``(B, T)``, the last Q of which are to be answered by ``answers`` ``(B, Q)``."""

    tokens: Tensor
    answers: Tensor


def associative_recall(pairs: int) -> Callable[[int, int, torch.Generator], Sample]:
    """Multi-query: key-value pairs, noise, then every key in another order."""

    def sample(batch: int, length: int, random: torch.Generator) -> Sample:
        keys = _distinct_keys(batch, pairs, random)
        values = torch.randint(VALUES, (batch, pairs), generator=random)
        order = torch.rand(batch, pairs, generator=random).argsort(dim=1)
        noise = _noise(batch, length - 3 * pairs, random)
        tokens = torch.cat([_pairs(keys, values), noise, keys.gather(1, order)], dim=1)
        return Sample(tokens, values.gather(1, order))

    return sample


def rebinding(keys: int) -> Callable[[int, int, torch.Generator], Sample]:
    """The same few keys get new values all the time, and the last one counts."""

    def sample(batch: int, length: int, random: torch.Generator) -> Sample:
        number = (length - GAP - keys) // 2
        alphabet = _distinct_keys(batch, keys, random)
        which = torch.randint(keys, (batch, number), generator=random)
        which[:, :keys] = torch.rand(batch, keys, generator=random).argsort(dim=1)
        values = torch.randint(VALUES, (batch, number), generator=random)
        order = torch.rand(batch, keys, generator=random).argsort(dim=1)
        # Where each key was bound last: the largest place, as places only grow.
        bound = which[:, None] == order[:, :, None]
        last = (bound * torch.arange(1, number + 1)).argmax(dim=2)
        noise = _noise(batch, length - keys - 2 * number, random)
        stream = _pairs(alphabet.gather(1, which), values)
        tokens = torch.cat([stream, noise, alphabet.gather(1, order)], dim=1)
        return Sample(tokens, values.gather(1, last))

    return sample


def needle(batch: int, length: int, random: torch.Generator) -> Sample:
    """One marked key and value anywhere in noise; a marked key at the end asks for the value."""
    tokens = _noise(batch, length, random)
    at = torch.randint(length - GAP - 4, (batch, 1), generator=random)
    key = torch.randint(KEYS, (batch, 1), generator=random)
    value = torch.randint(VALUES, (batch, 1), generator=random)
    tokens.scatter_(1, at + torch.arange(3), torch.cat([key * 0 + NEEDLE, key, _value(value)], 1))
    tokens[:, -2:] = torch.cat([key * 0 + QUESTION, key], dim=1)
    return Sample(tokens, value)


def _pairs(keys: Tensor, values: Tensor) -> Tensor:
    return torch.stack([keys, _value(values)], dim=-1).flatten(1)


def _value(values: Tensor) -> Tensor:
    return FIRST_VALUE + values


def _distinct_keys(batch: int, number: int, random: torch.Generator) -> Tensor:
    return torch.rand(batch, KEYS, generator=random).argsort(dim=1)[:, :number]


def _noise(batch: int, length: int, random: torch.Generator) -> Tensor:
    return FIRST_NOISE + torch.randint(NOISE, (batch, length), generator=random)


@dataclass(frozen=True)
class Task:
    """How samples are made, and the length of the shortest."""

    sample: Callable[[int, int, torch.Generator], Sample]
    shortest: int


TASKS = {
    "mqar": Task(associative_recall(8), 24 + 8),
    "mqar, 16 pairs": Task(associative_recall(16), 48 + 8),
    "needle": Task(needle, GAP + 8),
    "rebinding": Task(rebinding(4), GAP + 4 + 8),
}


@dataclass(frozen=True)
class Setting:
    """The same for every variant of a task."""

    dim: int = 64
    num_blocks: int = 1
    chunk_size: int = 16
    # With its first gates a matrix memory goes max_memory_lr / chunk_size of the way to a value
    # that it sees once: a quarter; the layer's default, a sixteenth, learned slowly here.
    max_memory_lr: float = 4.0
    initial_forget: float = 1e-4
    batch: int = 32
    steps: int = 1200
    lr: float = 6e-3
    warmup: int = 50
    test_samples: int = 256


SETTING = Setting()
QUICK = replace(SETTING, dim=32, batch=8, steps=10, test_samples=32)


def _memory(setting: Setting, **switches: Any) -> NeuralMemoryConfig:
    kept = {"chunk_size": setting.chunk_size, "max_memory_lr": setting.max_memory_lr}
    return NeuralMemoryConfig(dim=setting.dim, **{**kept, **switches})


def _lmm(persistent: int = 4, **switches: Any) -> Callable[[Setting], BackboneConfig]:
    return lambda setting: BackboneConfig(
        memory=_memory(setting, **switches),
        num_blocks=setting.num_blocks,
        num_persistent_tokens=persistent,
    )


def _block(
    block: str, persistent: int = 4, blocks: int = 1, **switches: Any
) -> Callable[[Setting], BackboneConfig]:
    return lambda setting: BackboneConfig(
        memory=_memory(setting, **switches),
        num_blocks=blocks * setting.num_blocks,
        block=block,
        attention=AttentionConfig(num_heads=2, window=WINDOW, num_persistent_tokens=persistent),
    )


def _gated_delta(setting: Setting) -> BackboneConfig:
    return BackboneConfig(memory=GatedDeltaConfig(dim=setting.dim), num_blocks=setting.num_blocks)


VARIANTS: dict[str, Callable[[Setting], BackboneConfig]] = {
    "LMM": _lmm(),
    "MAC": _block("mac"),
    "MAG": _block("mag"),
    "MAL": _block("mal"),
    "attention": _block("attention", blocks=2),  # two, so that keys and values can meet
    "LMM, frozen": _lmm(test_time_learning=False),
    "LMM, linear memory": _lmm(depth=1),
    "LMM, no momentum": _lmm(momentum=False),
    "LMM, no forgetting": _lmm(forgetting=False),
    "LMM, no convolution": _lmm(conv_width=1),
    "LMM, no persistent": _lmm(persistent=0),
    "MAC, frozen": _block("mac", test_time_learning=False),
    "MAC, linear memory": _block("mac", depth=1),
    "MAC, no momentum": _block("mac", momentum=False),
    "MAC, no forgetting": _block("mac", forgetting=False),
    "MAC, no convolution": _block("mac", conv_width=1),
    "MAC, no persistent": _block("mac", persistent=0),
    "Gated DeltaNet": _gated_delta,
}


class Model(nn.Module):
    """Tokens in, logits of the values at the last tokens out."""

    def __init__(self, config: BackboneConfig, initial_forget: float) -> None:
        super().__init__()
        dim = config.memory.dim
        self.embedding = nn.Embedding(QUESTION + 1, dim)
        self.backbone = Backbone(config)
        self.head = nn.Linear(dim, VALUES)
        # The layers start at forgetting 1 % a token, after which nothing is left of what was
        # written 1000 tokens ago: the training length would decide.
        for module in self.modules():
            _start_forgetting_at(module, initial_forget)

    def forward(self, tokens: Tensor, questions: int) -> Tensor:
        """``(B, T) -> (B, questions, VALUES)``."""
        y, _ = self.backbone(self.embedding(tokens))
        logits: Tensor = self.head(y[:, -questions:])
        return logits


def _start_forgetting_at(module: nn.Module, rate: float) -> None:
    if isinstance(module, titans_core.NeuralMemory) and module.config.forgetting:
        with torch.no_grad():
            module.gates.bias[-module.config.num_heads :] = math.log(rate / (1 - rate))
    elif isinstance(module, titans_core.GatedDeltaNet):
        with torch.no_grad():
            module.log_rate.zero_()
            module.step_bias.fill_(math.log(math.expm1(rate)))  # softplus, inverted


class Result(NamedTuple):
    accuracy: dict[int, float]  # by length
    loss: float  # the mean of the last 50 steps
    seconds: float  # of training
    parameters: int


def run(task: str, variant: str, seed: int, setting: Setting, lengths: tuple[int, ...]) -> Result:
    """Train one model at ``TRAIN_LENGTH`` and below, test it at every length."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    model = Model(VARIANTS[variant](setting), setting.initial_forget)
    optimizer = torch.optim.AdamW(model.parameters(), lr=setting.lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, setting))
    random = torch.Generator().manual_seed(1000 + seed)  # the same data for every variant
    losses = []
    start = time.perf_counter()
    for _ in range(setting.steps):
        shortest = TASKS[task].shortest
        length = int(torch.randint(shortest, TRAIN_LENGTH + 1, (1,), generator=random))
        tokens, answers = TASKS[task].sample(setting.batch, length, random)
        logits = model(tokens, answers.shape[1])
        loss = functional.cross_entropy(logits.flatten(0, 1), answers.flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    seconds = time.perf_counter() - start
    return Result(
        {length: accuracy(model, task, length, seed, setting.test_samples) for length in lengths},
        sum(losses[-50:]) / len(losses[-50:]),
        seconds,
        sum(parameter.numel() for parameter in model.parameters()),
    )


def _rate(step: int, setting: Setting) -> float:
    """Share of the learning rate: a short warm-up, then a cosine to a twentieth."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / setting.steps))
    return min((step + 1) / setting.warmup, 1.0) * (0.05 + 0.95 * cosine)


@torch.no_grad()
def accuracy(model: Model, task: str, length: int, seed: int, samples: int) -> float:
    """Share of right answers to samples that are the same for every variant."""
    random = torch.Generator().manual_seed(1_000_000 + seed)
    right, total = 0, 0
    for _ in range(samples // 32):
        tokens, answers = TASKS[task].sample(32, length, random)
        right += int((model(tokens, answers.shape[1]).argmax(dim=-1) == answers).sum())
        total += answers.numel()
    return right / total


def digest() -> str:
    """A name for this code: of this file and of the library, without the rest of the checkout."""
    content = hashlib.sha256(Path(__file__).read_bytes())
    folder = Path(titans_core.__file__).parent
    for path in sorted(folder.rglob("*.py")):
        content.update(str(path.relative_to(folder)).encode())
        content.update(path.read_bytes())
    return content.hexdigest()[:12]
