"""A training configuration is checked when it is made, and holds the learning rate schedule."""

from __future__ import annotations

import numpy as np
import pytest

from titans_core.training import TrainingConfig


def test_the_learning_rate_warms_up_linearly_and_falls_along_a_cosine() -> None:
    config = TrainingConfig(max_steps=8, learning_rate=1.0, warmup_steps=3)
    rates = [config.learning_rate_at(step) for step in range(9)]
    np.testing.assert_allclose(rates[:4], [0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(rates[3:], 0.5 + 0.5 * np.cos(np.pi * np.arange(6) / 5), atol=1e-15)
    short = TrainingConfig(max_steps=4, learning_rate=1.0, warmup_steps=20)
    assert short.learning_rate_at(2) == 1.0


@pytest.mark.parametrize(
    ("field", "value", "constraint"),
    [
        ("max_steps", 0, "an int >= 1; got 0"),
        ("max_steps", 1.5, "an int >= 1; got 1.5"),
        ("max_steps", True, "an int >= 1; got True"),
        ("learning_rate", 0.0, "a finite float > 0; got 0.0"),
        ("learning_rate", float("nan"), "a finite float > 0; got nan"),
        ("learning_rate", "fast", "a finite float > 0; got 'fast'"),
        ("weight_decay", -1, "a finite float >= 0; got -1"),
        ("warmup_steps", -1, "an int >= 0; got -1"),
        ("gradient_clip", 0, r"a float > 0 \(inf clips nothing\); got 0"),
        ("ema_decay", 1.0, r"a float in \[0, 1\); got 1.0"),
        ("validate_every", 0, "an int >= 1; got 0"),
        ("patience", 0, "None or an int >= 1; got 0"),
        ("seed", -1, r"an int in \[0, 2\*\*63\); got -1"),
        ("accelerator", "gpu", "'auto', 'cpu' or 'cuda'; got 'gpu'"),
        ("precision", "16-mixed", "'32-true' or 'bf16-mixed'; got '16-mixed'"),
    ],
)
def test_a_bad_setting_is_named_with_its_constraint(
    field: str, value: object, constraint: str
) -> None:
    with pytest.raises(ValueError, match=f"^`{field}` of TrainingConfig must be {constraint}"):
        TrainingConfig(**{field: value})
