"""Callbacks of the training loop are told what happened, may end it, and change nothing else."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from training_inputs import (
    CONFIG,
    assert_equal_weights,
    fit,
    one_thread,  # noqa: F401  # pytest finds the fixture by its name here
    plain,
    scripted,
    with_noise_and_buffers,
)

from titans_core.training import TrainingProgress


def test_a_callback_is_told_of_every_validation_what_the_history_then_holds() -> None:
    told: list[TrainingProgress] = []
    history = fit(plain(), description="fitting A", callbacks=[told.append])
    assert [(p.step, p.validation_loss) for p in told] == list(history.validation)
    assert math.isnan(told[0].train_loss)
    assert [p.train_loss for p in told[1:]] == [history.train_loss[p.step - 1] for p in told[1:]]
    assert {(p.phase, p.max_steps) for p in told} == {("fitting A", CONFIG.max_steps)}
    assert (told[-1].best_step, told[-1].best_loss) == (history.best_step, history.best_loss)
    seconds = [p.seconds for p in told]
    assert 0 < seconds[0] <= seconds[-1] <= history.seconds
    with pytest.raises(dataclasses.FrozenInstanceError):
        told[0].step = 1  # type: ignore[misc]  # the mistake is the test


def test_where_nothing_is_held_out_the_validation_loss_is_inf() -> None:
    told: list[TrainingProgress] = []
    fit(plain(), validate=None, callbacks=[told.append])
    assert {p.validation_loss for p in told} == {math.inf}


@pytest.mark.parametrize("yes", [True, np.True_])
def test_true_ends_the_training_and_the_best_step_is_kept(yes: object) -> None:
    network, seen, told = plain(), [], []
    history = fit(
        network,
        validate=scripted([5.0, 1.0, 3.0], seen),
        callbacks=[lambda p: yes if p.step == 6 else None, told.append],
    )
    assert (history.steps, history.best_step, history.stopped_early) == (6, 3, True)
    assert [p.step for p in told] == [0, 3, 6]  # of the last validation, too
    for name, tensor in network.state_dict().items():
        assert tensor.equal(seen[1][name])


def test_a_callback_that_does_not_say_true_changes_no_bit_whatever_it_draws_and_returns() -> None:
    def busy(progress: TrainingProgress) -> object:
        torch.manual_seed(progress.step)
        torch.rand(7)
        return ["logged", 1, torch.ones(3)][progress.step % 3]

    alone, watched = with_noise_and_buffers(), with_noise_and_buffers()
    assert fit(alone) == fit(watched, callbacks=[busy, lambda p: False])  # noqa: ARG005
    assert_equal_weights(alone, watched)


def test_the_error_of_a_callback_is_the_callers_and_the_best_weights_are_there() -> None:
    def failing(progress: TrainingProgress) -> None:
        if progress.step == 6:
            raise ConnectionError("tracker lost")

    network, seen = plain(), []
    with pytest.raises(ConnectionError, match="tracker lost"):
        fit(network, validate=scripted([5.0, 1.0, 3.0], seen), callbacks=[failing])
    assert network.state_dict()["0.weight"].equal(seen[1]["0.weight"])
    assert not network.training


def test_a_run_that_a_callback_ended_is_over_when_it_is_resumed(tmp_path: Path) -> None:
    first, again = plain(1), plain(2)
    ended = fit(first, checkpoint_path=tmp_path / "run", callbacks=[lambda p: p.step == 6])
    assert ended.stopped_early
    assert fit(again, checkpoint_path=tmp_path / "run") == ended
    assert_equal_weights(first, again)


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        (print, r"`callbacks` must be None or a list .*print.* Put it into a list, \[callback\]"),
        (
            "log",
            r"`callbacks` must be None or a list or tuple of callables; got 'log'. Pass a list",
        ),
        (
            [print, "log"],
            r"`callbacks\[1\]` must be callable, .* got 'log'. Pass a function, or an",
        ),
    ],
)
def test_what_cannot_be_called_is_named_before_the_first_step(
    callbacks: object, message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        fit(plain(), callbacks=callbacks)
