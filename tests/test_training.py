"""Training finds and keeps the best weights, repeats with its seed, and leaves no trace."""

from __future__ import annotations

import dataclasses
import logging
import os
import random
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from training_inputs import (
    CONFIG,
    assert_equal_weights,
    error_on_all,
    failing_at,
    fit,
    noting_weights,
    one_thread,  # noqa: F401  # pytest finds the fixture by its name here
    plain,
    scripted,
    with_noise_and_buffers,
)


def numpy_state() -> str:
    return str(np.random.get_state())  # noqa: NPY002  # the legacy global state is the point


def test_training_lowers_the_validation_loss_and_hands_back_a_network_ready_to_predict() -> None:
    network = plain()
    before = error_on_all(network)
    history = fit(network, dataclasses.replace(CONFIG, max_steps=100))
    assert history.steps == len(history.train_loss) == 100
    assert history.validation[0] == (0, before)
    assert [step for step, _ in history.validation] == [*range(0, 100, 3), 100]
    assert history.best_loss == min(loss for _, loss in history.validation) < before / 3
    assert history.best_loss == error_on_all(network)
    assert not network.training
    assert not history.stopped_early
    assert history.seconds > 0
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_weights_of_the_best_validation_are_kept() -> None:
    network, seen = plain(), []
    history = fit(network, validate=scripted([5.0, 4.0, 1.0, 3.0, 1.0], seen))
    assert (history.best_step, history.best_loss) == (6, 1.0)
    for name, tensor in network.state_dict().items():
        assert tensor.equal(seen[2][name])
        assert not tensor.equal(seen[4][name])


def test_a_network_that_training_only_makes_worse_returns_as_it_came() -> None:
    network = with_noise_and_buffers()
    history = fit(network, validate=scripted([1.0, 2.0, 1.0, 4.0, 5.0], []))
    assert history.best_step == 0
    assert_equal_weights(network, with_noise_and_buffers())


def test_with_nothing_held_out_the_last_averaged_weights_are_kept() -> None:
    unjudged, falling = plain(), plain()
    history = fit(unjudged, dataclasses.replace(CONFIG, patience=1), validate=None)
    fit(falling, validate=scripted([5.0, 4.0, 3.0, 2.0, 1.0], []))  # the last is the best
    assert_equal_weights(unjudged, falling)
    assert (history.best_step, history.best_loss) == (history.steps, float("inf"))
    assert not history.stopped_early


def test_patience_counts_validations_in_a_row_without_improvement() -> None:
    patient = dataclasses.replace(CONFIG, max_steps=100, patience=2)
    losses = [5.0, 6.0, 4.0, 4.0, 4.5, 0.0]
    history = fit(plain(), patient, validate=scripted(losses, []))
    assert history.stopped_early
    assert (history.steps, history.best_step) == (12, 6)
    assert [loss for _, loss in history.validation] == losses[:5]


def test_averaged_weights_equal_a_hand_computation() -> None:
    raw: list[Tensor] = []
    seen: list[dict[str, Tensor]] = []
    config = dataclasses.replace(CONFIG, max_steps=4, validate_every=1, ema_decay=0.28)
    losses = [5.0, 4.0, 3.0, 2.0, 1.0]
    fit(plain(), config, compute_loss=noting_weights(raw), validate=scripted(losses, seen))

    average = raw[0]
    for step, decay in ((1, 2 / 11), (2, 3 / 12), (3, 0.28)):  # 4 / 13 is above the limit
        average = decay * average + (1 - decay) * raw[step]
        torch.testing.assert_close(seen[step]["0.weight"], average)
        assert not seen[step]["0.weight"].equal(raw[step])


def test_without_averaging_the_raw_weights_are_validated() -> None:
    raw, seen = [], []
    config = dataclasses.replace(CONFIG, max_steps=3, validate_every=1, ema_decay=0)
    losses = [4.0, 3.0, 2.0, 1.0]
    fit(plain(), config, compute_loss=noting_weights(raw), validate=scripted(losses, seen))
    for step in range(3):
        assert seen[step]["0.weight"].equal(raw[step])


def test_weight_decay_shrinks_matrices_along_the_schedule_and_leaves_vectors_alone() -> None:
    def nothing_to_learn(network: nn.Module, batch: Any) -> Tensor:
        return 0 * network(batch[0]).sum()

    config = dataclasses.replace(CONFIG, weight_decay=0.5, ema_decay=0)
    network, start = plain(), plain().state_dict()
    losses = [5.0, 4.0, 3.0, 2.0, 1.0]
    fit(network, config, compute_loss=nothing_to_learn, validate=scripted(losses, []))
    factor = np.prod([1 - 0.5 * config.learning_rate_at(step) for step in range(12)])
    for name, tensor in network.state_dict().items():
        kept = 1.0 if name.endswith("bias") else factor
        torch.testing.assert_close(tensor, kept * start[name])


def test_gradients_are_clipped_to_the_given_norm() -> None:
    norms = []

    def noting_validate(network: nn.Module) -> float:
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        norms.extend([torch.cat([g.flatten() for g in gradients]).norm()] if gradients else [])
        return error_on_all(network)

    fit(plain(), dataclasses.replace(CONFIG, gradient_clip=0.01), validate=noting_validate)
    torch.testing.assert_close(torch.stack(norms), torch.full((4,), 0.01), atol=1e-6, rtol=1e-3)


def test_the_same_seed_gives_bitwise_the_same_network_whatever_the_global_state() -> None:
    networks = [with_noise_and_buffers() for _ in range(3)]
    histories = []
    for network, seed in zip(networks, (7, 7, 8), strict=True):
        torch.rand(len(histories) + 1)  # another global state each time
        histories.append(fit(network, dataclasses.replace(CONFIG, seed=seed)))
    assert_equal_weights(networks[0], networks[1])
    assert histories[0] == histories[1]
    assert histories[0].train_loss != histories[2].train_loss


@pytest.mark.parametrize("error", [None, KeyboardInterrupt()])
def test_the_random_state_of_the_caller_is_untouched(error: BaseException | None) -> None:
    before = torch.get_rng_state(), random.getstate(), numpy_state()
    network = with_noise_and_buffers()
    torch.set_rng_state(before[0])
    if error is None:
        fit(network)
    else:
        with pytest.raises(KeyboardInterrupt):
            fit(network, sample_batch=failing_at(4, error))
    assert torch.get_rng_state().equal(before[0])
    assert random.getstate() == before[1]
    assert numpy_state() == before[2]


def test_training_works_under_no_grad() -> None:
    with torch.no_grad():
        history = fit(plain())
        assert not torch.is_grad_enabled()
    assert history.best_step > 0


PROCESS = """
import logging, os, sys, threading, warnings
import torch
from training_inputs import fit, plain
assert "lightning_fabric" not in sys.modules, "imported too early"

def process():
    root, lightning = logging.getLogger(), logging.getLogger("lightning_fabric")
    return (list(warnings.filters), dict(os.environ), list(root.handlers), lightning.level,
            list(lightning.handlers), lightning.propagate, torch.get_num_threads(),
            torch.get_default_dtype(), threading.active_count(), sys.excepthook)

before = process()
network = plain()
attributes = set(vars(network))
fit(network, progress=True)
for left, right in zip(before, process()):
    assert left == right, (left, right)
assert set(vars(network)) == attributes
"""


def test_the_process_is_left_as_it_was_found_even_by_the_first_call() -> None:
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    result = subprocess.run(
        [sys.executable, "-c", PROCESS],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    assert all("training" in line for line in result.stderr.split("\r") if line)


def test_progress_goes_to_standard_error_only(capsys: pytest.CaptureFixture[str]) -> None:
    fit(plain(), progress=True, description="fitting series A")
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "fitting series A" in shown.err
    assert "12/12" in shown.err
    assert "best validation" in shown.err


def test_without_progress_nothing_is_shown(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        fit(plain())
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_ctrl_c_keeps_the_best_weights_so_far() -> None:
    network, seen = plain(), []
    network.train()
    with pytest.raises(KeyboardInterrupt):
        fit(
            network,
            sample_batch=failing_at(8, KeyboardInterrupt()),
            validate=scripted([5.0, 2.0, 3.0], seen),
        )
    assert network.state_dict()["0.weight"].equal(seen[1]["0.weight"])
    assert not network.training


def test_bfloat16_arithmetic_keeps_float32_weights() -> None:
    network = plain()
    history = fit(network, dataclasses.replace(CONFIG, precision="bf16-mixed"))
    assert history.best_loss < history.validation[0][1]
    assert {p.dtype for p in network.parameters()} == {torch.float32}
