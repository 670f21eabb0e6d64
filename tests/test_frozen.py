"""The exported predictor says what the forecaster says, for any number of windows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from titans_core import BackboneConfig, NeuralMemoryConfig
from titans_core.training import TrainingConfig
from titans_ts import TitansForecaster

LEARNING = TrainingConfig(max_steps=8, validate_every=4)
BACKBONE = BackboneConfig(memory=NeuralMemoryConfig(dim=8, chunk_size=4), num_blocks=1)


def series(channels: int = 3) -> np.ndarray:
    y = np.random.default_rng(0).normal(size=(200, channels)).cumsum(axis=0)
    y[:, 1] = 4.0  # constant: forecast to stay, learned by nobody
    return y


def fitted(**options) -> TitansForecaster:
    common = {"prediction_length": 3, "context_length": 20, "patch_length": 5, "progress": False}
    training = {"training": LEARNING, "backbone": BACKBONE}
    return TitansForecaster(**common, **training, **options).fit(series())


def admit(forecaster: TitansForecaster, *, asks_memory: bool) -> None:
    """Let the network in, whatever validation said of so little training."""
    model = forecaster.model_
    torch.manual_seed(0)
    torch.nn.init.normal_(model.residual.network.project.weight)
    torch.nn.init.normal_(model.residual.network.recall.weight)
    let_in = {"gate": np.array([0.5, 0.4]), "learned_levels": True, "asks_memory": asks_memory}
    residual = replace(model.residual, fresh=replace(model.residual.fresh, **let_in))
    forecaster.model_ = replace(model, residual=residual)


def check(forecaster: TitansForecaster, program, starts: range, tolerance: float) -> None:
    y = series()
    windows = np.stack([y[i : i + forecaster.context_length_] for i in starts])
    point, quantiles = (x.detach().numpy() for x in program.module()(torch.from_numpy(windows)))
    for i, window in enumerate(windows):
        np.testing.assert_allclose(point[i], forecaster.predict(context=window), atol=tolerance)
        expected = forecaster.predict_quantiles(context=window)
        np.testing.assert_allclose(quantiles[i], expected, atol=tolerance)


def test_the_linear_part_is_exported_for_any_number_of_windows() -> None:
    forecaster = fitted(use_network=False)
    program = forecaster.export()
    for windows in (1, 7):
        check(forecaster, program, range(windows), 1e-9)


@pytest.mark.parametrize("asks_memory", [False, True])
def test_the_network_is_exported_with_its_memory_and_without(asks_memory: bool) -> None:
    forecaster = fitted()
    admit(forecaster, asks_memory=asks_memory)
    assert not np.allclose(forecaster.predict(), fitted(use_network=False).predict())
    program = forecaster.export(batch_size=2 if asks_memory else None)
    check(forecaster, program, range(2), 1e-4)  # the network is in float32


def test_where_the_memory_takes_part_a_batch_size_must_be_said() -> None:
    forecaster = fitted()
    admit(forecaster, asks_memory=True)
    with pytest.raises(ValueError, match=r"Try export\(batch_size=1\)"):
        forecaster.export()
    with pytest.raises(ValueError, match="None or an int >= 1; got 0"):
        forecaster.export(batch_size=0)


def test_a_panel_is_not_exported() -> None:
    y = series()
    panel = TitansForecaster(3, 20, use_network=False).fit([y, y[:150]])
    with pytest.raises(ValueError, match="fitted on 2"):
        panel.export()
