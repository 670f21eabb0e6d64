"""The one training loop: AdamW on Lightning Fabric, averaged weights, validation, exact resume.

The loop only says when: a step, a validation, a checkpoint. What each of them does is
`TrainingRun`'s affair.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from titans_core.fabric import open_fabric
from titans_core.training_config import (
    TrainingCallback,
    TrainingConfig,
    TrainingHistory,
    TrainingProgress,
    check_callbacks,
)
from titans_core.training_run import TrainingDivergedError, TrainingRun

__all__ = [
    "TrainingCallback",
    "TrainingConfig",
    "TrainingDivergedError",
    "TrainingHistory",
    "TrainingProgress",
    "fit_network",
]


def fit_network(
    network: nn.Module,
    sample_batch: Callable[[torch.Generator], Any],
    compute_loss: Callable[[nn.Module, Any], Tensor],
    validate: Callable[[nn.Module], float] | None,
    config: TrainingConfig,
    *,
    progress: bool = True,
    description: str = "training",
    checkpoint_path: str | os.PathLike[str] | None = None,
    callbacks: Sequence[TrainingCallback] | None = None,
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
    validate : callable, (network) -> float, or None
        Loss to select by. Called without gradients, in eval mode, with the averaged weights; it
        moves its own data to ``next(network.parameters()).device``. None, where nothing is held
        out, keeps the last averaged weights; losses are then ``inf``, as nobody knows them.
    config : TrainingConfig
        How to train.
    progress : bool
        Show a progress bar on standard error.
    description : str
        Label of the progress bar, and the phase that callbacks are told.
    checkpoint_path : str or path-like, optional
        After each validation the whole run is written here, atomically. If the file is there at
        the start, the run continues from it and ends bitwise where an uninterrupted run ends; the
        weights that `network` came with are then not used. The file stays when training is over,
        so that calling again returns the same result at once: delete it to train anew.
    callbacks : sequence of callable, (TrainingProgress) -> object, optional
        Called in turn after each validation, the one at step 0 too. One that returns True ends the
        training, when all have been called; what else they return is passed over. Their errors end
        it, too, and are the caller's. What they draw of torch's randomness changes nothing.

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
    TypeError
        If a callback cannot be called.
    ValueError
        If the network has nothing to train, the loss is no scalar that depends on its parameters,
        or CUDA was asked for and is not there.
    """
    check_callbacks(callbacks)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ValueError("network has no parameter with requires_grad=True, so nothing to train.")
    fabric = open_fabric(config.accelerator, config.precision)
    checkpoint = None if checkpoint_path is None else Path(checkpoint_path)
    cuda = [fabric.device] if fabric.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), torch.enable_grad():
        run = TrainingRun(network, fabric, config)
        bar = _progress_bar(config.max_steps, description) if progress else None
        try:
            if checkpoint is not None and checkpoint.exists():
                run.resume(checkpoint)
            while not run.finished:
                if run.validation:
                    run.take_step(sample_batch, compute_loss)
                if run.step % config.validate_every == 0 or run.step == config.max_steps:
                    run.check(validate)
                    run.tell(callbacks or (), description)
                    if checkpoint is not None:
                        run.save(checkpoint)
                if bar is not None:
                    _show(bar, run)
        finally:
            run.put_best_weights()
            if bar is not None:
                _show(bar, run)
                bar.close()
    return run.history()


def _progress_bar(total: int, description: str) -> Any:
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[misc]  # tqdm ships no types
        monitor_interval = 0  # no watching thread, which would outlive the bar

    return Bar(total=total, desc=description, file=sys.stderr, unit="step", miniters=1)


def _show(bar: Any, run: TrainingRun) -> None:
    train = f"{run.train_loss[-1]:.4g}" if run.train_loss else "-"
    best = f"{run.best_loss:.4g}" if run.validation else "-"
    bar.set_postfix_str(f"train {train}, best validation {best}", refresh=False)
    bar.update(run.step - bar.n)
