"""Recall on synthetic tokens for ``recall.py``: the tasks, the models, one training run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from titans_core import (
    AttentionConfig,
    Backbone,
    BackboneConfig,
    GatedDeltaConfig,
    GatedDeltaNet,
    NeuralMemory,
    NeuralMemoryConfig,
)

# Alphabets: keys, values, noise, and the two markers of the needle.
KEYS, VALUES, NOISE = 32, 16, 16
PAIRS = 8  # of one sample of associative recall
FIRST_VALUE, FIRST_NOISE = KEYS, KEYS + VALUES
NEEDLE, QUESTION = KEYS + VALUES + NOISE, KEYS + VALUES + NOISE + 1
CHANCE = 1 / VALUES

TRAIN_LENGTH = 64
TEST_LENGTHS = tuple(TRAIN_LENGTH * factor for factor in (1, 4, 16))
WINDOW = 16  # of attention, a segment of MAC: one block reaches 15 tokens back, two 30
GAP = 32  # least noise between the needle and its question: out of reach of attention


class Sample(NamedTuple):
    """Tokens ``(B, T)``, the last Q of which are to be answered by ``answers`` ``(B, Q)``."""

    tokens: Tensor
    answers: Tensor


def associative_recall(batch: int, length: int, random: torch.Generator) -> Sample:
    """Multi-query: key-value pairs, noise, then every key in another order."""
    keys = torch.rand(batch, KEYS, generator=random).argsort(dim=1)[:, :PAIRS]
    values = torch.randint(VALUES, (batch, PAIRS), generator=random)
    order = torch.rand(batch, PAIRS, generator=random).argsort(dim=1)
    pairs = torch.stack([keys, FIRST_VALUE + values], dim=-1).flatten(1)
    noise = _noise(batch, length - 3 * PAIRS, random)
    tokens = torch.cat([pairs, noise, keys.gather(1, order)], dim=1)
    return Sample(tokens, values.gather(1, order))


def needle(batch: int, length: int, random: torch.Generator) -> Sample:
    """One marked key and value anywhere in noise; a marked key at the end asks for the value."""
    tokens = _noise(batch, length, random)
    gap = min(GAP, length // 2)  # of the short ones in training less
    at = torch.randint(length - gap - 4, (batch, 1), generator=random)
    key = torch.randint(KEYS, (batch, 1), generator=random)
    value = torch.randint(VALUES, (batch, 1), generator=random)
    marked = torch.cat([torch.full_like(key, NEEDLE), key, FIRST_VALUE + value], dim=1)
    tokens.scatter_(1, at + torch.arange(3), marked)
    tokens[:, -2:] = torch.cat([torch.full_like(key, QUESTION), key], dim=1)
    return Sample(tokens, value)


def _noise(batch: int, length: int, random: torch.Generator) -> Tensor:
    return FIRST_NOISE + torch.randint(NOISE, (batch, length), generator=random)


@dataclass(frozen=True)
class Setting:
    """The same for every variant of a task."""

    dim: int = 64
    batch: int = 32
    steps: int = 600
    lr: float = 3e-3  # at 6e-3 memory as context stopped half way
    warmup: int = 50
    test_samples: int = 128


SETTING = Setting()
QUICK = replace(SETTING, dim=32, batch=8, steps=10, test_samples=32)
# With its first gates a matrix memory goes MAX_MEMORY_LR / chunk_size of the way to a value that
# it sees once: a quarter; the layer's default, a sixteenth, learned slowly here.
MAX_MEMORY_LR = 4.0
# The layers start at forgetting 1 % a token, after which nothing is left of what was written 1000
# tokens ago: the training length would decide.
INITIAL_FORGET = 1e-4

Variant = Callable[[int], BackboneConfig]
"""From the width of the tokens to the model."""


def _lmm(persistent: int = 4, **switches: Any) -> Variant:
    # Two blocks: with one, two of three seeds ended where one of the eight pairs is never found.
    return lambda dim: BackboneConfig(
        memory=NeuralMemoryConfig(dim=dim, max_memory_lr=MAX_MEMORY_LR, **switches),
        num_blocks=2,
        num_persistent_tokens=persistent,
    )


def _block(block: str, num_blocks: int = 1) -> Variant:
    return lambda dim: BackboneConfig(
        memory=NeuralMemoryConfig(dim=dim, max_memory_lr=MAX_MEMORY_LR),
        num_blocks=num_blocks,
        block=block,
        attention=AttentionConfig(num_heads=2, window=WINDOW),
    )


def _gated_delta(dim: int) -> BackboneConfig:
    return BackboneConfig(memory=GatedDeltaConfig(dim=dim), num_blocks=2)


MODELS: dict[str, Variant] = {
    "LMM": _lmm(),
    "MAC": _block("mac"),
    "attention": _block("attention", num_blocks=2),  # two, so that keys and values can meet
    "Gated DeltaNet": _gated_delta,
}
ABLATIONS: dict[str, Variant] = {
    "LMM, frozen": _lmm(test_time_learning=False),
    "LMM, linear memory": _lmm(depth=1),
    "LMM, no forgetting": _lmm(forgetting=False),
    "LMM, no momentum": _lmm(momentum=False),
    "LMM, no convolution": _lmm(conv_width=1),
    "LMM, no persistent": _lmm(persistent=0),
}
VARIANTS = MODELS | ABLATIONS


class Task(NamedTuple):
    """How samples are made, the length of the shortest, and who is asked."""

    sample: Callable[[int, int, torch.Generator], Sample]
    shortest: int
    variants: tuple[str, ...]


TASKS = {
    "mqar": Task(associative_recall, 4 * PAIRS, tuple(VARIANTS)),
    "needle": Task(needle, 16, ("LMM", "MAC", "attention")),
}


class Model(nn.Module):
    """Tokens in, logits of the values at the last tokens out."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        dim = config.memory.dim
        self.embedding = nn.Embedding(QUESTION + 1, dim)
        self.backbone = Backbone(config)
        self.head = nn.Linear(dim, VALUES)
        for module in self.modules():
            _start_forgetting_at(module, INITIAL_FORGET)

    def forward(self, tokens: Tensor, questions: int) -> Tensor:
        """``(B, T) -> (B, questions, VALUES)``."""
        y, _ = self.backbone(self.embedding(tokens))
        logits: Tensor = self.head(y[:, -questions:])
        return logits


def _start_forgetting_at(module: nn.Module, rate: float) -> None:
    if isinstance(module, NeuralMemory) and module.config.forgetting:
        with torch.no_grad():
            module.gates.bias[-module.config.num_heads :] = math.log(rate / (1 - rate))
    elif isinstance(module, GatedDeltaNet):
        with torch.no_grad():
            module.log_rate.zero_()
            module.step_bias.fill_(math.log(math.expm1(rate)))  # softplus, inverted


class Result(NamedTuple):
    accuracy: dict[int, float]  # by length
    loss: float  # the mean of the last 50 steps
    seconds: float  # of training, on one core
    parameters: int


def run(task: str, variant: str, seed: int, setting: Setting, lengths: tuple[int, ...]) -> Result:
    """Train one model at ``TRAIN_LENGTH`` and below, test it at every length."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    config = VARIANTS[variant](setting.dim)
    model = Model(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=setting.lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, setting))
    random = torch.Generator().manual_seed(1000 + seed)  # the same data for every variant
    losses = []
    start = time.process_time()
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
    seconds = time.process_time() - start
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
