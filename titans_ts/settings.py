"""What ``TitansForecaster`` does where it is not told, and what it may be told."""

from __future__ import annotations

import numbers
from itertools import pairwise
from typing import Any

import numpy as np

from titans_core import BackboneConfig, NeuralMemoryConfig
from titans_core.parameters import Constraints
from titans_core.training_config import TrainingConfig

DEFAULT_BACKBONE = BackboneConfig(memory=NeuralMemoryConfig(dim=32), num_blocks=1)
DEFAULT_TRAINING = TrainingConfig(max_steps=800, learning_rate=2e-3, validate_every=100, patience=4)
QUANTILE_LEVELS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


def is_count(value: Any) -> bool:
    """Whether a value is an int >= 1 (numpy's too, but no bool)."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and int(value) >= 1


def _levels(value: Any) -> bool:
    levels = list(value) if isinstance(value, list | tuple | np.ndarray) else []
    return (
        all(isinstance(x, numbers.Real) and 0 < float(x) < 1 for x in levels)
        and 0.5 in levels
        and all(a < b for a, b in pairwise(levels))
    )


CONSTRAINTS: Constraints = {
    "prediction_length": ("an int >= 1", is_count),
    "context_length": (
        "an int >= 2 or 'auto'",
        lambda v: (isinstance(v, str) and v == "auto") or (is_count(v) and v >= 2),
    ),
    "quantile_levels": ("ascending numbers in (0, 1) with 0.5 among them", _levels),
    "validation_size": (
        "a float in (0, 1) or an int >= 1",
        lambda v: is_count(v) or (isinstance(v, float | np.floating) and 0 < float(v) < 1),
    ),
    "refit": ("a bool", lambda v: isinstance(v, bool)),
    "patch_length": ("an int >= 1", is_count),
    "use_memory": ("a bool", lambda v: isinstance(v, bool)),
    "target_transform": (
        "'auto', 'none' or 'log'",
        lambda v: isinstance(v, str) and v in {"auto", "none", "log"},
    ),
    "use_network": ("a bool", lambda v: isinstance(v, bool)),
    "backbone": ("a BackboneConfig or None", lambda v: isinstance(v, BackboneConfig | None)),
    "training": ("a TrainingConfig or None", lambda v: isinstance(v, TrainingConfig | None)),
    "time_column": ("a str or None", lambda v: isinstance(v, str | None)),
    "id_column": ("a str", lambda v: isinstance(v, str)),
    "target_columns": (
        "a sequence of column names or positions, or None",
        lambda v: (
            v is None or (isinstance(v, list | tuple) and all(isinstance(x, str | int) for x in v))
        ),
    ),
    **{
        f"{role}_covariates": (
            "a sequence of column names or positions",
            lambda v: isinstance(v, list | tuple) and all(isinstance(x, str | int) for x in v),
        )
        for role in ("past", "future", "static")
    },
    "random_state": (
        "an int in [0, 2**63)",
        lambda v: (is_count(v) and v < 2**63) or (type(v) is int and v == 0),
    ),
    "progress": ("a bool", lambda v: isinstance(v, bool)),
}
