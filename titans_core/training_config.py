"""What goes into training and what comes out of it, as values.

A `TrainingConfig` is checked when it is made; equal configurations, networks and data give equal
`TrainingHistory`s.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "TrainingCallback",
    "TrainingConfig",
    "TrainingHistory",
    "TrainingProgress",
    "check_callbacks",
]


def _is_int(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_real(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


_CONSTRAINTS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "max_steps": ("an int >= 1", lambda v: _is_int(v) and v >= 1),
    "learning_rate": ("a finite float > 0", lambda v: _is_real(v) and 0 < v < math.inf),
    "weight_decay": ("a finite float >= 0", lambda v: _is_real(v) and 0 <= v < math.inf),
    "warmup_steps": ("an int >= 0", lambda v: _is_int(v) and v >= 0),
    "gradient_clip": ("a float > 0 (inf clips nothing)", lambda v: _is_real(v) and v > 0),
    "ema_decay": ("a float in [0, 1)", lambda v: _is_real(v) and 0 <= v < 1),
    "validate_every": ("an int >= 1", lambda v: _is_int(v) and v >= 1),
    "patience": ("None or an int >= 1", lambda v: v is None or (_is_int(v) and v >= 1)),
    "seed": ("an int in [0, 2**63)", lambda v: _is_int(v) and 0 <= v < 2**63),
    # "16-mixed" is left out: its loss scaling skips steps, and needs non-finite gradients to do so.
    "accelerator": ("'auto', 'cpu' or 'cuda'", lambda v: v in ("auto", "cpu", "cuda")),
    "precision": ("'32-true' or 'bf16-mixed'", lambda v: v in ("32-true", "bf16-mixed")),
}


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How `fit_network` trains.

    Parameters
    ----------
    max_steps : int
        Number of optimizer steps, >= 1.
    learning_rate : float
        Peak step size of AdamW: reached after the warm-up, then falling to 0 along a cosine.
    weight_decay : float
        Decoupled weight decay of parameters with two or more dimensions, among them what has a
        row for each head: a memory's gain and bias, and its learned start. Those of one dimension
        or none (other norms, biases and gates) are not decayed.
    warmup_steps : int
        Steps of linear warm-up; at most half of `max_steps` is used for it.
    gradient_clip : float
        Largest norm of the whole gradient; ``inf`` clips nothing.
    ema_decay : float
        Decay d of the moving average of the weights, in [0, 1). Step t uses
        ``min(d, (1 + t) / (10 + t))``, so that the first steps do not cling to the initial weights.
        0 switches averaging off.
    validate_every : int
        Steps between validations. The initial and the final weights are always validated.
    patience : int or None
        Stop after this many validations in a row without improvement; None never stops early.
    seed : int
        Seed of the batches and of the network's own randomness (dropout).
    accelerator : {"auto", "cpu", "cuda"}
        "auto" takes CUDA's current device where there is one.
    precision : {"32-true", "bf16-mixed"}
        Arithmetic of the forward pass; the weights keep their dtype.

    Raises
    ------
    ValueError
        If a value breaks its constraint.
    """

    max_steps: int = 500
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup_steps: int = 20
    gradient_clip: float = 1.0
    ema_decay: float = 0.99
    validate_every: int = 50
    patience: int | None = None
    seed: int = 0
    accelerator: str = "auto"
    precision: str = "32-true"

    def __post_init__(self) -> None:
        for name, (constraint, holds) in _CONSTRAINTS.items():
            value = getattr(self, name)
            if not holds(value):
                raise ValueError(f"`{name}` of TrainingConfig must be {constraint}; got {value!r}.")

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of the step after `step` steps: linear warm-up, then cosine to 0."""
        warmup = min(self.warmup_steps, self.max_steps // 2)
        if step < warmup:
            return self.learning_rate * (step + 1) / (warmup + 1)
        progress = (step - warmup) / (self.max_steps - warmup)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class TrainingHistory:
    """What happened during `fit_network`; equal runs compare equal, however long they took.

    Parameters
    ----------
    steps : int
        Optimizer steps taken, over all resumed parts.
    train_loss : tuple of float
        Loss of each step's batch.
    validation : tuple of (int, float)
        Step and validation loss of each validation; the first is at step 0.
    best_step : int
        The step whose (averaged) weights the network now holds.
    best_loss : float
        Validation loss at `best_step`.
    stopped_early : bool
        Whether `patience` or a callback ended the run.
    seconds : float
        Wall-clock time, over all resumed parts, validation included.
    """

    steps: int
    train_loss: tuple[float, ...]
    validation: tuple[tuple[int, float], ...]
    best_step: int
    best_loss: float
    stopped_early: bool
    seconds: float = field(compare=False)


@dataclass(frozen=True)
class TrainingProgress:
    """Where a training stands after a validation: what callbacks are told.

    Parameters
    ----------
    phase : str
        Which training this is, as its progress bar says.
    step : int
        Optimizer steps taken.
    max_steps : int
        Most steps that will be taken.
    train_loss : float
        Loss of the last step's batch; nan before the first step.
    validation_loss : float
        Loss of the averaged weights on what is held out; inf where nothing is.
    best_step : int
        The step whose weights would be kept if training ended now.
    best_loss : float
        Validation loss at `best_step`.
    seconds : float
        Wall-clock time since the training began, over all resumed parts.
    """

    phase: str
    step: int
    max_steps: int
    train_loss: float
    validation_loss: float
    best_step: int
    best_loss: float
    seconds: float


TrainingCallback = Callable[[TrainingProgress], object]
"""Called after every validation; returning True, and only that, ends the training."""


def check_callbacks(callbacks: Sequence[TrainingCallback] | None) -> None:
    """Refuse what is not None or a sequence of callables.

    Raises
    ------
    TypeError
        Naming the entry that cannot be called.
    """
    if callbacks is None:
        return
    if not isinstance(callbacks, list | tuple):
        cure = "Put it into a list, [callback]." if callable(callbacks) else "Pass a list of them."
        raise TypeError(
            f"`callbacks` must be None or a list or tuple of callables; got {callbacks!r}. {cure}"
        )
    for i, callback in enumerate(callbacks):
        if not callable(callback):
            raise TypeError(
                f"`callbacks[{i}]` must be callable, with a TrainingProgress; got {callback!r}. "
                "Pass a function, or an object with __call__."
            )
