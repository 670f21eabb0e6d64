"""A regression that trains in moments, for the tests of training."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from titans_core.training import TrainingConfig, TrainingHistory, fit_network

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


def noting_weights(raw: list[Tensor]) -> Callable[[nn.Module, Any], Tensor]:
    """Compute the usual loss, and note the weights that it was asked about."""

    def compute_loss(network: nn.Module, batch: Any) -> Tensor:
        raw.append(network.state_dict()["0.weight"].clone())
        return squared_error(network, batch)

    return compute_loss
