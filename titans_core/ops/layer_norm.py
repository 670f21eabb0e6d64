"""The LayerNorm on the memory's output, and its derivative as an explicit linear map."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from titans_core.ops.memory_mlp import NORM_EPS


class Normalised(NamedTuple):
    """LayerNorm of ``source`` over its channels, without gain and bias."""

    unit: Tensor
    source: Tensor
    mean: Tensor
    inverse_std: Tensor

    def pull(self, g: Tensor) -> Tensor:
        """Propagate a gradient from ``unit`` to ``source``: ``J g``, with a symmetric J."""
        shape, wanted = [g.shape[-1]], [True, False, False]
        pulled: Tensor = torch.ops.aten.native_layer_norm_backward(
            g, self.source, shape, self.mean, self.inverse_std, None, None, wanted
        )[0]
        return pulled


def normalise(z: Tensor) -> Normalised:
    """LayerNorm over the last axis."""
    unit, mean, inverse_std = torch.ops.aten.native_layer_norm(
        z, [z.shape[-1]], None, None, NORM_EPS
    )
    return Normalised(unit, z, mean, inverse_std)
