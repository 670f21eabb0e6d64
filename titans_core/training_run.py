"""A training run as one value: its steps, its validations, and its checkpoint.

Everything that changes during training lives in `TrainingRun`, and `TrainingRun._tree` is the
checkpoint: what is not in it does not survive an interruption.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from titans_core.persistence import ModelFileError, load_tree, save_tree
from titans_core.training_config import (
    TrainingCallback,
    TrainingConfig,
    TrainingHistory,
    TrainingProgress,
)

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["TrainingDivergedError", "TrainingRun"]

_CHECKPOINT_KIND = "training checkpoint"


class TrainingDivergedError(FloatingPointError):
    """A loss or gradient that is not finite; the network holds its best weights so far."""


class TrainingRun:
    """A training run between two steps; `fit_network` says when to do what."""

    def __init__(self, network: nn.Module, fabric: Fabric, config: TrainingConfig) -> None:
        self.network, self.fabric, self.config = network, fabric, config
        self.on_cuda = fabric.device.type == "cuda"
        # Fabric's wrapper shares the network's parameters and casts in forward.
        self.module: nn.Module = fabric.setup_module(network)
        self.trained = {n: p for n, p in network.named_parameters() if p.requires_grad}
        matrices = [name for name, p in self.trained.items() if p.ndim >= 2]
        vectors = [name for name, p in self.trained.items() if p.ndim < 2]
        self.optimized = matrices + vectors  # the optimizer numbers its state in this order
        self.adamw = torch.optim.AdamW(
            {"params": [self.trained[name] for name in names], "weight_decay": decay}
            for names, decay in ((matrices, config.weight_decay), (vectors, 0.0))
        )
        self.optimizer: Any = fabric.setup_optimizers(self.adamw)

        # The batches and the layers get streams of their own: with one seed for both, dropout
        # masks would be made of the very numbers that chose the batch. The generators are seeded
        # one by one because torch.manual_seed would also reach devices that are not ours.
        self.sampler = torch.Generator().manual_seed(int(config.seed))
        layer_seed = int(torch.randint(2**62, (), generator=self.sampler))
        torch.default_generator.manual_seed(layer_seed)
        if self.on_cuda:
            torch.cuda.manual_seed(layer_seed)  # the current device, which is the one we use

        self.average = _copy(self.trained)
        self.best = _copy(_tensors_of(network))
        self.step, self.best_step, self.best_loss = 0, 0, math.inf
        self.told_to_stop = False
        self.train_loss: list[float] = []
        self.validation: list[tuple[int, float]] = []
        self.earlier_seconds, self.started = 0.0, time.perf_counter()

    @property
    def stopped_early(self) -> bool:
        """Whether patience has run out, or a callback said so."""
        in_vain = sum(step > self.best_step for step, _ in self.validation)
        impatient = self.config.patience is not None and in_vain >= self.config.patience
        return self.told_to_stop or impatient

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return self.step >= self.config.max_steps or self.stopped_early

    @property
    def seconds(self) -> float:
        """Wall-clock time so far, over all resumed parts."""
        return self.earlier_seconds + time.perf_counter() - self.started

    def take_step(
        self,
        sample_batch: Callable[[torch.Generator], Any],
        compute_loss: Callable[[nn.Module, Any], Tensor],
    ) -> None:
        """Draw one batch; update the weights and their average with it."""
        self.module.train()
        batch = self.fabric.to_device(sample_batch(self.sampler))
        self.adamw.zero_grad()
        loss = compute_loss(self.module, batch)
        if loss.numel() != 1 or not loss.requires_grad:
            raise ValueError(
                "compute_loss must return a tensor with one value that depends on the network's "
                f"parameters; got shape {tuple(loss.shape)}, requires_grad={loss.requires_grad}."
            )
        value = loss.item()
        self.fabric.backward(loss)
        if not math.isfinite(value):
            raise self._diverged(f"the training loss is {value}", batch)
        try:
            # Asked to raise, it leaves the gradients as they are; else all of them turn to nan.
            self.fabric.clip_gradients(
                self.module,
                self.optimizer,
                max_norm=self.config.gradient_clip,
                error_if_nonfinite=True,
            )
        except RuntimeError as error:
            if "non-finite" not in str(error):
                raise
            raise self._diverged("the gradient norm is not finite", batch) from error
        for group in self.adamw.param_groups:
            group["lr"] = self.config.learning_rate_at(self.step)
        self.optimizer.step()
        self.step += 1
        self.train_loss.append(value)
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, parameter in self.trained.items():
                self.average[name].lerp_(parameter, 1 - decay)

    def check(self, validate: Callable[[nn.Module], float] | None) -> None:
        """Validate the averaged weights, and keep them if none were better."""
        raw = _copy(self.trained)
        _write(self.average, self.trained)
        loss = math.inf
        if validate is not None:
            self.module.eval()
            with torch.no_grad():
                loss = float(validate(self.module))
            if not math.isfinite(loss):
                raise self._diverged(f"the validation loss is {loss}", None)
        self.validation.append((self.step, loss))
        if validate is None or loss < self.best_loss:
            self.best = _copy(_tensors_of(self.network))
            self.best_step, self.best_loss = self.step, loss
        _write(raw, self.trained)

    def tell(self, callbacks: Sequence[TrainingCallback], phase: str) -> None:
        """Tell callbacks how the last validation went; one that returns True ends the run."""
        if not callbacks:
            return
        progress = TrainingProgress(
            phase=phase,
            step=self.step,
            max_steps=self.config.max_steps,
            train_loss=self.train_loss[-1] if self.train_loss else math.nan,
            validation_loss=self.validation[-1][1],
            best_step=self.best_step,
            best_loss=self.best_loss,
            seconds=self.seconds,
        )
        # Whatever numbers a callback draws, the layers' own stream goes on as if it had not.
        with torch.random.fork_rng(devices=[self.fabric.device] if self.on_cuda else []):
            answers = [callback(progress) for callback in callbacks]
        # A tracker may return anything: only True, numpy's too, is meant as an answer.
        if any(isinstance(answer, bool | np.bool_) and answer for answer in answers):
            self.told_to_stop = True

    def put_best_weights(self) -> None:
        """Leave the network with its best weights, in eval mode, on the CPU."""
        _write(self.best, _tensors_of(self.network))
        self.network.zero_grad(set_to_none=True)
        self.network.eval().cpu()

    def history(self) -> TrainingHistory:
        """Tell what has happened so far."""
        return TrainingHistory(
            steps=self.step,
            train_loss=tuple(self.train_loss),
            validation=tuple(self.validation),
            best_step=self.best_step,
            best_loss=self.best_loss,
            stopped_early=self.stopped_early,
            seconds=self.seconds,
        )

    def save(self, path: Path) -> None:
        """Write a checkpoint that `resume` continues from."""
        save_tree(path, self._tree(), kind=_CHECKPOINT_KIND)

    def resume(self, path: Path) -> None:
        """Become the run that the checkpoint holds."""
        tree = load_tree(path, kind=_CHECKPOINT_KIND)
        here, there = _identity(self._tree()), _identity(tree)
        for name in here | there:
            mine, stored = here.get(name, "absent"), there.get(name, "absent")
            if mine != stored:
                raise ModelFileError(
                    f"checkpoint '{path}' belongs to another run: {name} is {stored} there and "
                    f"{mine} here; call with what it was written with, or delete it to train anew"
                )
        _write(tree["network"], _tensors_of(self.network))
        self.average = self.fabric.to_device(tree["average"])
        self.best = self.fabric.to_device(tree["best"])
        number = {name: i for i, name in enumerate(self.optimized)}
        state = {number[name]: moment for name, moment in tree["optimizer"].items()}
        self.adamw.load_state_dict({**self.adamw.state_dict(), "state": state})
        self.sampler.set_state(tree["random"]["sampler"])
        torch.set_rng_state(tree["random"]["layers"])
        if tree["random"]["cuda"] is not None:
            torch.cuda.set_rng_state(tree["random"]["cuda"])
        self.step, self.best_step = tree["step"], tree["best_step"]
        self.best_loss, self.validation = tree["best_loss"], tree["validation"]
        self.train_loss = tree["train_loss"].tolist()
        self.told_to_stop = tree["told_to_stop"]
        self.earlier_seconds = tree["seconds"]

    def _tree(self) -> dict[str, Any]:
        """Return the whole run as `save_tree` takes it, AdamW's state by parameter name."""
        moments = self.adamw.state_dict()["state"]
        return {
            "config": dataclasses.asdict(self.config),
            "device": self.fabric.device.type,
            "network": _tensors_of(self.network),
            "average": self.average,
            "best": self.best,
            "optimizer": {self.optimized[i]: moment for i, moment in moments.items()},
            "random": {
                "sampler": self.sampler.get_state(),
                "layers": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state() if self.on_cuda else None,
            },
            "step": self.step,
            "best_step": self.best_step,
            "best_loss": self.best_loss,
            "train_loss": torch.tensor(self.train_loss, dtype=torch.float64),
            "validation": self.validation,
            "told_to_stop": self.told_to_stop,
            "seconds": self.seconds,
        }

    def _diverged(self, what: str, batch: Any) -> TrainingDivergedError:
        spoiled = [n for n, p in self.trained.items() if p.grad is not None and _not_finite(p.grad)]
        first = f"that of '{spoiled[0]}'" if spoiled else "none"
        last = f"{self.train_loss[-1]:.6g}" if self.train_loss else "none"
        return TrainingDivergedError(
            f"training diverged at step {self.step}: {what}; first non-finite gradient: {first}; "
            f"last finite training loss: {last}; "
            f"learning rate: {self.config.learning_rate_at(self.step):.3g}."
            f"{' The batch itself holds nan or inf.' if _not_finite(batch) else ''} "
            "Lower learning_rate, check the input for nan, inf and huge values, or lower "
            f"gradient_clip (now {self.config.gradient_clip:g}). The network holds its best "
            f"weights so far, those of step {self.best_step}."
        )


def _identity(tree: dict[str, Any]) -> dict[str, Any]:
    """Pick what two parts of one run must have in common."""
    tensors = {
        f"the network's '{name}'": f"{tensor.dtype} of shape {tuple(tensor.shape)}"
        for name, tensor in tree["network"].items()
    }
    return {**tree["config"], "device": tree["device"], **tensors}


def _tensors_of(network: nn.Module) -> dict[str, Tensor]:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def _copy(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def _write(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in target.items():
            tensor.copy_(source[name])


def _not_finite(value: Any) -> bool:
    if isinstance(value, Tensor):
        return not bool(torch.isfinite(value).all())
    return isinstance(value, (tuple, list)) and any(map(_not_finite, value))
