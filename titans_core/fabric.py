"""Lightning Fabric on one device, and the process left as it was found.

Fabric takes care of the device and the precision. Importing it is not free of consequences, so
it is imported here and nowhere else, when training begins, and its side effects are undone.
"""

from __future__ import annotations

import logging
import os
import warnings
from types import ModuleType
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["check_accelerator", "open_fabric"]


def check_accelerator(accelerator: str) -> None:
    """ValueError if CUDA is asked for and is not there."""
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise ValueError("accelerator is 'cuda', but torch sees no CUDA device; use 'auto'.")


def open_fabric(accelerator: str, precision: str) -> Fabric:
    """Open Fabric on the CPU or on CUDA's current device.

    Parameters
    ----------
    accelerator : {"auto", "cpu", "cuda"}
        "auto" takes CUDA's current device where there is one.
    precision : str
        Arithmetic of the forward pass, in Fabric's words: "32-true", "bf16-mixed".

    Raises
    ------
    ValueError
        If CUDA is asked for and is not there.
    """
    check_accelerator(accelerator)
    lightning = _import_lightning()
    use_cuda = accelerator != "cpu" and torch.cuda.is_available()
    fabric: Fabric = lightning.Fabric(
        accelerator="cuda" if use_cuda else "cpu",
        devices=[torch.cuda.current_device()] if use_cuda else 1,
        precision=precision,
        # Named, or Fabric goes looking for a cluster, which initialises MPI where it is installed.
        plugins=[lightning.plugins.environments.LightningEnvironment()],
    )
    return fabric


def _import_lightning() -> ModuleType:
    """Import Lightning Fabric and undo what its import does to the process.

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
