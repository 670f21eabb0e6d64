"""An interrupted run ends where an uninterrupted one ends, or is refused with the reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from training_inputs import (
    CONFIG,
    X,
    Y,
    assert_equal_weights,
    failing_at,
    fit,
    one_thread,  # noqa: F401  # pytest finds the fixture by its name here
    plain,
    scripted,
    squared_error,
    with_noise_and_buffers,
)

from titans_core.persistence import ModelFileError, load_tree, save_tree


@pytest.mark.parametrize("build", [plain, with_noise_and_buffers])
@pytest.mark.parametrize("stop", [0, 1, 3, 5, 11])
def test_a_resumed_run_ends_bitwise_where_an_uninterrupted_one_ends(
    build: Callable[[], nn.Module], stop: int, tmp_path: Path
) -> None:
    whole = build()
    expected = fit(whole)

    interrupted = build()
    with pytest.raises(OSError, match="node lost"):
        fit(
            interrupted,
            sample_batch=failing_at(stop, OSError("node lost")),
            checkpoint_path=tmp_path / "run",
        )
    resumed = build()
    history = fit(resumed, checkpoint_path=tmp_path / "run")
    assert history == expected
    assert_equal_weights(resumed, whole)


def test_a_finished_run_returns_at_once_with_the_same_result(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, patience=1, max_steps=100)
    first, again = plain(1), plain(2)
    validate = scripted([5.0, 4.0, 4.0], [])
    expected = fit(first, config, validate=validate, checkpoint_path=tmp_path / "run")

    def never(*_: Any) -> Any:
        raise AssertionError("called again")

    history = fit(
        again,
        config,
        sample_batch=never,
        compute_loss=never,
        validate=never,
        checkpoint_path=tmp_path / "run",
    )
    assert history == expected
    assert history.stopped_early
    assert_equal_weights(again, first)


def test_a_checkpoint_of_another_run_is_refused_and_the_network_stays(tmp_path: Path) -> None:
    path = tmp_path / "run"
    fit(plain(), checkpoint_path=path)
    other = dataclasses.replace(CONFIG, learning_rate=0.5)
    network = plain()
    with pytest.raises(ModelFileError, match=r"run' .* learning_rate is 0.02 there and 0.5 here; "):
        fit(network, other, checkpoint_path=path)
    assert_equal_weights(network, plain())
    wider = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))
    with pytest.raises(ModelFileError, match=r"'0.weight' is .*\(4, 3\) there and .*\(5, 3\) here"):
        fit(wider, checkpoint_path=path)
    deeper = nn.Sequential(*plain(), nn.Linear(1, 1))
    with pytest.raises(ModelFileError, match=r"'3.weight' is absent there .* delete it to train"):
        fit(deeper, checkpoint_path=path)


def test_a_damaged_or_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run"
    fit(plain(), checkpoint_path=path)
    assert load_tree(path, kind="training checkpoint")["step"] == 12
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ModelFileError, match="truncated"):
        fit(plain(), checkpoint_path=path)
    save_tree(path, {}, kind="TitansForecaster")
    with pytest.raises(ModelFileError, match="holds a TitansForecaster"):
        fit(plain(), checkpoint_path=path)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_a_resumed_run_ends_where_an_uninterrupted_one_ends(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, accelerator="cuda")

    def validate(network: nn.Module) -> float:
        device = next(network.parameters()).device
        assert device.type == "cuda"
        return squared_error(network, (X.to(device), (Y.to(device),))).item()

    networks = [with_noise_and_buffers() for _ in range(3)]
    before = torch.cuda.get_rng_state()
    expected = fit(networks[0], config, validate=validate)
    with pytest.raises(KeyboardInterrupt):
        fit(
            networks[1],
            config,
            sample_batch=failing_at(7, KeyboardInterrupt()),
            validate=validate,
            checkpoint_path=tmp_path / "run",
        )
    assert fit(networks[2], config, validate=validate, checkpoint_path=tmp_path / "run") == expected
    assert_equal_weights(networks[2], networks[0])
    assert {p.device.type for p in networks[2].parameters()} == {"cpu"}
    assert torch.cuda.get_rng_state().equal(before)
