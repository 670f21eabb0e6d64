"""What ``TitansDNAClassifier`` does where it is not told, and what it may be told."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np

from titans_core import BackboneConfig, NeuralMemoryConfig
from titans_core.parameters import Constraints
from titans_core.training_config import TrainingConfig

DEFAULT_BACKBONE = BackboneConfig(memory=NeuralMemoryConfig(dim=32, depth=1), num_blocks=1)

BATCH_SIZE = 64
LONGEST_ALIGNED = 600
"""Up to this length, sequences of one length are taken as aligned at a site: places get weights."""

_EPOCHS = 6
_FEWEST_STEPS, _MOST_STEPS = 200, 2500


def default_training(n_rows: int) -> TrainingConfig:
    """Steps that grow with the rows, within bounds; validated twelve times on the way."""
    steps = int(np.clip(_EPOCHS * n_rows // BATCH_SIZE, _FEWEST_STEPS, _MOST_STEPS))
    return TrainingConfig(
        max_steps=steps,
        learning_rate=2e-3,
        warmup_steps=min(50, steps // 10),
        validate_every=max(1, steps // 12),
        patience=6,
    )


def default_pool(longest: int) -> int:
    """Bases of a cell: single bases count in short sequences, and cost too much in long ones."""
    return 2 if longest < 90 else 4


def default_dilations(longest: int) -> tuple[int, ...]:
    """Convolutions over cells: a third where a cell would see less than half of a sequence."""
    return (1, 2) if longest < 150 else (1, 2, 4)


def _is_count(value: Any, least: int = 1) -> bool:
    return isinstance(value, int | np.integer) and type(value) is not bool and int(value) >= least


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool | np.bool_)


def _are_class_weights(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(w, Real) and 0 <= float(w) < np.inf for w in value.values())
    return value is None or (isinstance(value, str) and value == "balanced")


CONSTRAINTS: Constraints = {
    "head": (
        "'auto', 'positional' or 'pooled'",
        lambda v: v in ("auto", "positional", "pooled"),
    ),
    "reverse_complement": (
        "'auto', None, 'augment', 'average' or 'equivariant'",
        lambda v: v is None or v in ("auto", "augment", "average", "equivariant"),
    ),
    "n_networks": ("an int >= 1", _is_count),
    "linear": ("a bool", _is_bool),
    "backbone": ("a BackboneConfig or None", lambda v: isinstance(v, BackboneConfig | None)),
    "training": ("a TrainingConfig or None", lambda v: isinstance(v, TrainingConfig | None)),
    "crop": ("an int >= 64", lambda v: _is_count(v, 64)),
    "validation": ("'homology' or 'random'", lambda v: v in ("homology", "random")),
    "class_weight": (
        "None, 'balanced' or a dict of weights >= 0 by class",
        _are_class_weights,
    ),
    "soft_mask": ("'keep' or 'mask'", lambda v: v in ("keep", "mask")),
    "column": ("a str or None", lambda v: isinstance(v, str | None)),
    "random_state": (
        "an int in [0, 2**32)",
        lambda v: _is_count(v, 0) and int(v) < 2**32,
    ),
    "progress": ("a bool", _is_bool),
}
