"""The one training loop: AdamW on Lightning Fabric, averaged weights, validation, exact resume.

Everything that changes during training lives in `_Run`, and `_Run.tree` is the checkpoint: what
is not in it does not survive an interruption.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import numbers
import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from titans_core.persistence import ModelFileError, load_tree, save_tree

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["TrainingConfig", "TrainingDivergedError", "TrainingHistory", "fit_network"]

_CHECKPOINT_KIND = "training checkpoint"


class TrainingDivergedError(FloatingPointError):
    """A loss or gradient that is not finite; the network holds its best weights so far."""


def _is_int(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_real(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


_CONSTRAINTS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "max_steps": ("an int >= 1", lambda v: _is_int(v) and v >= 1),
    "learning_rate": ("a finite float > 0", lambda v: _is_real(v) and 0 < v < math.inf),
    "weight_decay": ("a finite float >= 0", lambda v: _is_real(v) and 0 <= v < math.inf),
    "warmup_steps": ("an int >= 0", lambda v: _is_int(v) and v >= 0),
    "gradient_clip": ("a float > 0 (inf clips nothing)", lambda v: _is_real(v) and v > 0),
    "ema_decay": ("a float in [0, 1)", lambda v: _is_real(v) and 0 <= v < 1),
    "validate_every": ("an int >= 1", lambda v: _is_int(v) and v >= 1),
    "patience": ("None or an int >= 1", lambda v: v is None or (_is_int(v) and v >= 1)),
    "seed": ("an int in [0, 2**63)", lambda v: _is_int(v) and 0 <= v < 2**63),
    # "16-mixed" is left out: its loss scaling skips steps, and needs non-finite gradients to do so.
    "accelerator": ("'auto', 'cpu' or 'cuda'", lambda v: v in ("auto", "cpu", "cuda")),
    "precision": ("'32-true' or 'bf16-mixed'", lambda v: v in ("32-true", "bf16-mixed")),
}


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How `fit_network` trains.

    Parameters
    ----------
    max_steps : int
        Number of optimizer steps, >= 1.
    learning_rate : float
        Peak step size of AdamW: reached after the warm-up, then falling to 0 along a cosine.
    weight_decay : float
        Decoupled weight decay of parameters with two or more dimensions. Norms, biases and gates
        (one dimension or none) are not decayed.
    warmup_steps : int
        Steps of linear warm-up; at most half of `max_steps` is used for it.
    gradient_clip : float
        Largest norm of the whole gradient; ``inf`` clips nothing.
    ema_decay : float
        Decay d of the moving average of the weights, in [0, 1). Step t uses
        ``min(d, (1 + t) / (10 + t))``, so that the first steps do not cling to the initial weights.
        0 switches averaging off.
    validate_every : int
        Steps between validations. The initial and the final weights are always validated.
    patience : int or None
        Stop after this many validations in a row without improvement; None never stops early.
    seed : int
        Seed of the batches and of the network's own randomness (dropout).
    accelerator : {"auto", "cpu", "cuda"}
        "auto" takes CUDA's current device where there is one.
    precision : {"32-true", "bf16-mixed"}
        Arithmetic of the forward pass; the weights keep their dtype.

    Raises
    ------
    ValueError
        If a value breaks its constraint.
    """

    max_steps: int = 500
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup_steps: int = 20
    gradient_clip: float = 1.0
    ema_decay: float = 0.99
    validate_every: int = 50
    patience: int | None = None
    seed: int = 0
    accelerator: str = "auto"
    precision: str = "32-true"

    def __post_init__(self) -> None:
        for name, (constraint, holds) in _CONSTRAINTS.items():
            value = getattr(self, name)
            if not holds(value):
                raise ValueError(f"`{name}` of TrainingConfig must be {constraint}; got {value!r}.")

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of the step after `step` steps: linear warm-up, then cosine to 0."""
        warmup = min(self.warmup_steps, self.max_steps // 2)
        if step < warmup:
            return self.learning_rate * (step + 1) / (warmup + 1)
        progress = (step - warmup) / (self.max_steps - warmup)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class TrainingHistory:
    """What happened during `fit_network`; equal runs compare equal, however long they took.

    Parameters
    ----------
    steps : int
        Optimizer steps taken, over all resumed parts.
    train_loss : tuple of float
        Loss of each step's batch.
    validation : tuple of (int, float)
        Step and validation loss of each validation; the first is at step 0.
    best_step : int
        The step whose (averaged) weights the network now holds.
    best_loss : float
        Validation loss at `best_step`.
    stopped_early : bool
        Whether `patience` ended the run.
    seconds : float
        Wall-clock time, over all resumed parts, validation included.
    """

    steps: int
    train_loss: tuple[float, ...]
    validation: tuple[tuple[int, float], ...]
    best_step: int
    best_loss: float
    stopped_early: bool
    seconds: float = field(compare=False)


def fit_network(
    network: nn.Module,
    sample_batch: Callable[[torch.Generator], Any],
    compute_loss: Callable[[nn.Module, Any], Tensor],
    validate: Callable[[nn.Module], float],
    config: TrainingConfig,
    *,
    progress: bool = True,
    description: str = "training",
    checkpoint_path: str | os.PathLike[str] | None = None,
) -> TrainingHistory:
    """Train a network in place and leave it with its best validated weights, in eval mode, on CPU.

    The same seed gives bitwise the same weights on the same machine (on CUDA as far as the
    network's kernels are deterministic). The caller's random state is neither read nor changed.
    Whatever ends the training, an error or Ctrl-C too, the network holds its best weights so far.

    Parameters
    ----------
    network : nn.Module
        Any network; call it as ``network(...)`` for `precision` to apply.
    sample_batch : callable, (torch.Generator) -> batch
        Draws a nested tuple of CPU tensors, with this generator and no other randomness.
    compute_loss : callable, (network, batch) -> scalar tensor
        Training loss of a batch that lies on the network's device.
    validate : callable, (network) -> float
        Loss to select by. Called without gradients, in eval mode, with the averaged weights; it
        moves its own data to ``next(network.parameters()).device``.
    config : TrainingConfig
        How to train.
    progress : bool
        Show a progress bar on standard error.
    description : str
        Label of the progress bar.
    checkpoint_path : str or path-like, optional
        After each validation the whole run is written here, atomically. If the file is there at
        the start, the run continues from it and ends bitwise where an uninterrupted run ends; the
        weights that `network` came with are then not used. The file stays when training is over,
        so that calling again returns the same result at once: delete it to train anew.

    Returns
    -------
    TrainingHistory
        Losses, the step whose weights were kept, and why training ended.

    Raises
    ------
    TrainingDivergedError
        If a loss or the gradient is not finite.
    ModelFileError
        If the checkpoint is damaged or belongs to another configuration, network or device.
    ValueError
        If the network has nothing to train, the loss is no scalar that depends on its parameters,
        or CUDA was asked for and is not there.
    """
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ValueError("network has no parameter with requires_grad=True, so nothing to train.")
    fabric = _open_fabric(config)
    cuda = [fabric.device] if fabric.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), torch.enable_grad():
        run = _Run(network, fabric, config)
        bar = _progress_bar(config.max_steps, description) if progress else None
        try:
            if checkpoint_path is not None and Path(checkpoint_path).exists():
                run.resume(Path(checkpoint_path))
            while not run.finished:
                if run.validation:
                    run.take_step(sample_batch, compute_loss)
                if run.step % config.validate_every == 0 or run.step == config.max_steps:
                    run.check(validate)
                    if checkpoint_path is not None:
                        save_tree(checkpoint_path, run.tree(), kind=_CHECKPOINT_KIND)
                if bar is not None:
                    _show(bar, run)
        finally:
            run.put_best_weights()
            if bar is not None:
                _show(bar, run)
                bar.close()
    return run.history()


class _Run:
    """A training run between two steps: all that a checkpoint has to hold."""

    def __init__(self, network: nn.Module, fabric: Fabric, config: TrainingConfig) -> None:
        self.network, self.fabric, self.config = network, fabric, config
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
        if fabric.device.type == "cuda":
            torch.cuda.manual_seed(layer_seed)  # the current device, which is the one we use

        self.average = _copy(self.trained)
        self.best = _copy(_tensors_of(network))
        self.step, self.best_step, self.best_loss = 0, 0, math.inf
        self.train_loss: list[float] = []
        self.validation: list[tuple[int, float]] = []
        self.earlier_seconds, self.started = 0.0, time.perf_counter()

    @property
    def stopped_early(self) -> bool:
        in_vain = sum(step > self.best_step for step, _ in self.validation)
        return self.config.patience is not None and in_vain >= self.config.patience

    @property
    def finished(self) -> bool:
        done = self.step >= self.config.max_steps or self.stopped_early
        return done and bool(self.validation)

    @property
    def seconds(self) -> float:
        return self.earlier_seconds + time.perf_counter() - self.started

    def take_step(
        self,
        sample_batch: Callable[[torch.Generator], Any],
        compute_loss: Callable[[nn.Module, Any], Tensor],
    ) -> None:
        """One batch, one update of the weights and of their average."""
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

    def check(self, validate: Callable[[nn.Module], float]) -> None:
        """Validate the averaged weights, and keep them if none were better."""
        raw = _copy(self.trained)
        _write(self.average, self.trained)
        self.module.eval()
        with torch.no_grad():
            loss = float(validate(self.module))
        if not math.isfinite(loss):
            raise self._diverged(f"the validation loss is {loss}", None)
        self.validation.append((self.step, loss))
        if loss < self.best_loss:
            self.best = _copy(_tensors_of(self.network))
            self.best_step, self.best_loss = self.step, loss
        _write(raw, self.trained)

    def put_best_weights(self) -> None:
        _write(self.best, _tensors_of(self.network))
        self.network.zero_grad(set_to_none=True)
        self.network.eval().cpu()

    def history(self) -> TrainingHistory:
        return TrainingHistory(
            steps=self.step,
            train_loss=tuple(self.train_loss),
            validation=tuple(self.validation),
            best_step=self.best_step,
            best_loss=self.best_loss,
            stopped_early=self.stopped_early,
            seconds=self.seconds,
        )

    def tree(self) -> dict[str, Any]:
        """Return the whole run as `save_tree` takes it, AdamW's state by parameter name."""
        on_cuda = self.fabric.device.type == "cuda"
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
                "cuda": torch.cuda.get_rng_state() if on_cuda else None,
            },
            "step": self.step,
            "best_step": self.best_step,
            "best_loss": self.best_loss,
            "train_loss": torch.tensor(self.train_loss, dtype=torch.float64),
            "validation": self.validation,
            "seconds": self.seconds,
        }

    def resume(self, path: Path) -> None:
        """Become the run that the checkpoint holds."""
        tree = load_tree(path, kind=_CHECKPOINT_KIND)
        here, there = _identity(self.tree()), _identity(tree)
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
        self.earlier_seconds = tree["seconds"]

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


def _open_fabric(config: TrainingConfig) -> Fabric:
    cuda = torch.cuda.is_available()
    if config.accelerator == "cuda" and not cuda:
        raise ValueError("accelerator is 'cuda', but torch sees no CUDA device; use 'auto'.")
    lightning = _import_lightning()
    use_cuda = cuda and config.accelerator != "cpu"
    fabric: Fabric = lightning.Fabric(
        accelerator="cuda" if use_cuda else "cpu",
        devices=[torch.cuda.current_device()] if use_cuda else 1,
        precision=config.precision,
        # Named, or Fabric goes looking for a cluster, which initialises MPI where it is installed.
        plugins=[lightning.plugins.environments.LightningEnvironment()],
    )
    return fabric


def _import_lightning() -> ModuleType:
    """Import Lightning Fabric here, late, and undo what its import does to the process.

    It takes seconds, adds warning filters, sets an environment variable (as does a part of torch
    that it loads) and, where no logging is set up, puts a handler on standard error.
    """
    logger = logging.getLogger("lightning_fabric")
    level, propagate, handlers = logger.level, logger.propagate, list(logger.handlers)
    variables = set(os.environ)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import lightning_fabric
        import lightning_fabric.plugins.environments
    logger.setLevel(level)
    logger.propagate, logger.handlers[:] = propagate, handlers
    for name in set(os.environ) - variables:
        del os.environ[name]
    return lightning_fabric


def _progress_bar(total: int, description: str) -> Any:
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[misc]  # tqdm ships no types
        monitor_interval = 0  # no watching thread, which would outlive the bar

    return Bar(total=total, desc=description, file=sys.stderr, unit="step", miniters=1)


def _show(bar: Any, run: _Run) -> None:
    train = f"{run.train_loss[-1]:.4g}" if run.train_loss else "-"
    best = f"{run.best_loss:.4g}" if run.validation else "-"
    bar.set_postfix_str(f"train {train}, best validation {best}", refresh=False)
    bar.update(run.step - bar.n)
