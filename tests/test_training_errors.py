"""Training that cannot go on says where it went wrong and what to do about it."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training_inputs import assert_equal_weights, draw, fit, plain, scripted, squared_error

from titans_core.training import TrainingConfig, TrainingDivergedError


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
        weight = next(p for n, p in network.named_parameters() if n.endswith("2.weight"))
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
        fit(plain(), TrainingConfig(accelerator="cuda"))
