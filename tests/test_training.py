"""Training finds, keeps and explains; the same seed is the same run, interrupted or not."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import os
import random
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from titans_core.persistence import ModelFileError, load_tree, save_tree
from titans_core.training import (
    TrainingConfig,
    TrainingDivergedError,
    TrainingHistory,
    fit_network,
)

CONFIG = TrainingConfig(
    max_steps=12, learning_rate=0.02, warmup_steps=2, validate_every=3, accelerator="cpu"
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small only wait for a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def plain(seed: int = 1) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def with_noise_and_buffers() -> nn.Module:
    torch.manual_seed(1)
    layers = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.3), nn.Linear(4, 1)
    network = nn.Sequential(*layers)
    layers[0].bias.requires_grad_(False)
    return network


X = torch.linspace(-1, 1, 96).reshape(32, 3).sin()
Y = X @ torch.tensor([[1.0], [-2.0], [0.5]])


def draw(generator: torch.Generator) -> tuple[Tensor, tuple[Tensor]]:
    rows = torch.randint(len(X), (8,), generator=generator)
    return X[rows], (Y[rows],)


def squared_error(network: nn.Module, batch: Any) -> Tensor:
    x, (y,) = batch
    return (network(x) - y).square().mean()


def error_on_all(network: nn.Module) -> float:
    return squared_error(network, (X, (Y,))).item()


def fit(network: nn.Module, config: TrainingConfig = CONFIG, **changes: Any) -> TrainingHistory:
    arguments = {
        "sample_batch": draw,
        "compute_loss": squared_error,
        "validate": error_on_all,
        "progress": False,
    }
    return fit_network(network, config=config, **{**arguments, **changes})


def failing_at(step: int, error: BaseException) -> Callable[[torch.Generator], Any]:
    calls = itertools.count()

    def sample_batch(generator: torch.Generator) -> Any:
        if next(calls) == step:
            raise error
        return draw(generator)

    return sample_batch


def numpy_state() -> str:
    return str(np.random.get_state())  # noqa: NPY002  # the legacy global state is the point


def assert_equal_weights(left: nn.Module, right: nn.Module) -> None:
    ours, theirs = left.state_dict(), right.state_dict()
    assert list(ours) == list(theirs)
    for name, tensor in ours.items():
        assert tensor.equal(theirs[name]), name


def scripted(losses: list[float], seen: list[dict[str, Tensor]]) -> Callable[[nn.Module], float]:
    """Validate by reading from a list, and note the weights it was asked about."""
    remaining = iter(losses)

    def validate(network: nn.Module) -> float:
        assert not network.training
        assert not torch.is_grad_enabled()
        seen.append({name: p.clone() for name, p in network.state_dict().items()})
        return next(remaining)

    return validate


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


def test_patience_counts_validations_in_a_row_without_improvement() -> None:
    patient = dataclasses.replace(CONFIG, max_steps=100, patience=2)
    losses = [5.0, 6.0, 4.0, 4.0, 4.5, 0.0]
    history = fit(plain(), patient, validate=scripted(losses, []))
    assert history.stopped_early
    assert (history.steps, history.best_step) == (12, 6)
    assert [loss for _, loss in history.validation] == losses[:5]


def test_averaged_weights_equal_a_hand_computation() -> None:
    raw: list[Tensor] = []

    def noting_loss(network: nn.Module, batch: Any) -> Tensor:
        raw.append(network.state_dict()["0.weight"].clone())
        return squared_error(network, batch)

    seen: list[dict[str, Tensor]] = []
    config = dataclasses.replace(CONFIG, max_steps=4, validate_every=1, ema_decay=0.28)
    losses = [5.0, 4.0, 3.0, 2.0, 1.0]
    fit(plain(), config, compute_loss=noting_loss, validate=scripted(losses, seen))

    average = raw[0]
    for step, decay in ((1, 2 / 11), (2, 3 / 12), (3, 0.28)):  # 4 / 13 is above the limit
        average = decay * average + (1 - decay) * raw[step]
        torch.testing.assert_close(seen[step]["0.weight"], average)
        assert not seen[step]["0.weight"].equal(raw[step])


def test_without_averaging_the_raw_weights_are_validated() -> None:
    raw, seen = [], []

    def noting_loss(network: nn.Module, batch: Any) -> Tensor:
        raw.append(network.state_dict()["0.weight"].clone())
        return squared_error(network, batch)

    config = dataclasses.replace(CONFIG, max_steps=3, validate_every=1, ema_decay=0)
    fit(plain(), config, compute_loss=noting_loss, validate=scripted([4.0, 3.0, 2.0, 1.0], seen))
    for step in range(3):
        assert seen[step]["0.weight"].equal(raw[step])


def test_the_learning_rate_warms_up_linearly_and_falls_along_a_cosine() -> None:
    config = TrainingConfig(max_steps=8, learning_rate=1.0, warmup_steps=3)
    rates = [config.learning_rate_at(step) for step in range(9)]
    np.testing.assert_allclose(rates[:4], [0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(rates[3:], 0.5 + 0.5 * np.cos(np.pi * np.arange(6) / 5), atol=1e-15)
    short = TrainingConfig(max_steps=4, learning_rate=1.0, warmup_steps=20)
    assert short.learning_rate_at(2) == 1.0


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
from test_training import fit, plain
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


def test_a_loss_that_is_nan_is_explained_and_the_best_weights_are_kept() -> None:
    network, seen = plain(), []
    calls = itertools.count()

    def spoiled_draw(generator: torch.Generator) -> Any:
        x, y = draw(generator)
        return (x * float("nan") if next(calls) == 7 else x), y

    with pytest.raises(FloatingPointError) as caught:
        fit(network, sample_batch=spoiled_draw, validate=scripted([5.0, 2.0, 3.0], seen))
    assert isinstance(caught.value, TrainingDivergedError)
    for part in (
        "diverged at step 7: the training loss is nan",
        "first non-finite gradient: that of '0.weight'",
        "last finite training loss: 0.",
        "learning rate: 0.01",
        "The batch itself holds nan or inf. Lower learning_rate, check the input",
        "gradient_clip (now 1)",
        "best weights so far, those of step 3",
    ):
        assert part in str(caught.value)
    assert network.state_dict()["0.weight"].equal(seen[1]["0.weight"])


def test_a_gradient_that_is_not_finite_is_traced_to_its_parameter() -> None:
    def root_at_zero(network: nn.Module, batch: Any) -> Tensor:
        last = dict(network.named_parameters())
        weight = next(p for name, p in last.items() if name.endswith("2.weight"))
        return squared_error(network, batch) + (weight * 0).sqrt().sum()

    network = plain()
    with pytest.raises(
        TrainingDivergedError,
        match=r"step 0: the gradient norm is not finite; first .* of '2.weight'; last .*: none",
    ):
        fit(network, compute_loss=root_at_zero)
    assert_equal_weights(network, plain())


def test_a_validation_loss_that_is_not_finite_is_explained() -> None:
    with pytest.raises(TrainingDivergedError, match="step 3: the validation loss is inf"):
        fit(plain(), validate=scripted([1.0, float("inf")], []))


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


def test_a_loss_that_cannot_be_followed_is_refused() -> None:
    with pytest.raises(ValueError, match=r"one value .* got shape \(8, 1\), requires_grad=True"):
        fit(plain(), compute_loss=lambda network, batch: network(batch[0]))
    with pytest.raises(ValueError, match=r"got shape \(\), requires_grad=False"):
        fit(plain(), compute_loss=lambda _, batch: batch[0].sum())


def test_a_network_with_nothing_to_train_is_refused() -> None:
    with pytest.raises(ValueError, match="no parameter with requires_grad=True"):
        fit(nn.Tanh())


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_where_there_is_none_says_what_to_use() -> None:
    with pytest.raises(ValueError, match="torch sees no CUDA device; use 'auto'"):
        fit(plain(), dataclasses.replace(CONFIG, accelerator="cuda"))


def test_bfloat16_arithmetic_keeps_float32_weights() -> None:
    network = plain()
    history = fit(network, dataclasses.replace(CONFIG, precision="bf16-mixed"))
    assert history.best_loss < history.validation[0][1]
    assert {p.dtype for p in network.parameters()} == {torch.float32}


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
