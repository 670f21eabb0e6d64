"""Products of decays over stretches of tokens, as exponentials of sums of logarithms."""

from __future__ import annotations

import torch
from torch import Tensor

# Added to a decay before its logarithm: invisible beside 1 in that dtype, and it keeps value and
# gradient right where a gate is exactly 0 or 1.
_TINY = {torch.float32: 1e-12, torch.float64: 1e-60}
# Decays below exp(floor) become exact zeros: subnormal numbers would make a CPU several times
# slower, and what they would add is far below rounding. The product of two decays stays normal.
_LOG_FLOOR = {torch.float32: -43.0, torch.float64: -330.0}


def log_decay(decay: Tensor) -> Tensor:
    """Logarithm of decays in [0, 1], finite at 0."""
    return torch.log(decay + _TINY[decay.dtype])


def decay_matrix(log_decays: Tensor) -> Tensor:
    """``(..., b)`` -> ``(..., b, b)``: entry (t, k) is the decay over tokens k+1..t, 0 above.

    Each column sums its own segment, so that no difference of long sums loses digits.
    """
    b = log_decays.shape[-1]
    below = torch.ones(b, b, dtype=torch.bool, device=log_decays.device).tril(-1)
    segments = log_decays[..., None].expand(*log_decays.shape, b).masked_fill(~below, 0).cumsum(-2)
    return exp_decay(segments).tril()


def exp_decay(log_decays: Tensor) -> Tensor:
    """Exponential with an exact zero in place of anything that might be subnormal."""
    floor = _LOG_FLOOR[log_decays.dtype]
    return torch.exp(log_decays.masked_fill(log_decays < floor, -torch.inf))
