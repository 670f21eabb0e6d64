"""The Titans network: patches of a window through the backbone, then a quantile head.

It learns what the linear part leaves. All values are in units of the window's own scale.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from titans_core import Backbone, BackboneConfig, BackboneState

_CHANNEL_DIM = 16
_HEAD_DIM = 256
_INPUT_DROPOUT = 0.2
_HEAD_DROPOUT = 0.2


class ForecastNetwork(nn.Module):
    """Correct a linear forecast, and say how far the truth may lie from it.

    The window enters whole into the head; and, where the memory is asked, patch by patch through
    the backbone, whose memory may hold what came before the window.

    Parameters
    ----------
    backbone : BackboneConfig
    channels, context_length, patch_length : int
    median_index : int
        Position of the median among the quantile levels.
    spread : Tensor of shape (Q, P)
        Distances from the median to each level that the untrained network answers, so that
        training starts from the distribution of the linear part's own errors.
    """

    spread: Tensor

    def __init__(
        self,
        backbone: BackboneConfig,
        *,
        channels: int,
        context_length: int,
        patch_length: int,
        median_index: int,
        spread: Tensor,
    ) -> None:
        super().__init__()
        dim = backbone.memory.dim
        self.patch_length, self.median_index = patch_length, median_index
        self.embed = nn.Linear(patch_length, dim)
        self.channel = nn.Embedding(channels, dim)
        self.backbone = Backbone(backbone)
        self.channel_head = nn.Embedding(channels, _CHANNEL_DIM)
        self.expand = nn.Linear(context_length + _CHANNEL_DIM, _HEAD_DIM)
        self.recall = nn.Linear(dim, _HEAD_DIM, bias=False)
        nn.init.zeros_(self.recall.weight)
        self.mix = nn.Sequential(
            nn.LayerNorm(_HEAD_DIM),
            nn.Linear(_HEAD_DIM, _HEAD_DIM),
            nn.GELU(),
            nn.Dropout(_HEAD_DROPOUT),
            nn.Linear(_HEAD_DIM, _HEAD_DIM),
        )
        self.project = nn.Linear(_HEAD_DIM, spread.numel())
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)
        self.register_buffer("spread", spread)

    def remember(
        self,
        patches: Tensor,
        channel: Tensor,
        state: BackboneState | None = None,
        known: Tensor | None = None,
    ) -> BackboneState:
        """Read patches ``(N, n, patch_length)`` of channels ``(N,)`` into the memory.

        Those that are not ``known`` (N, n) leave it alone.
        """
        return self.backbone(self._tokens(patches, channel), state, known)[1]

    def forward(
        self,
        context: Tensor,
        channel: Tensor,
        state: BackboneState | None = None,
        *,
        past: Tensor | None = None,
        known: Tensor | None = None,
        ask_memory: bool = True,
    ) -> Tensor:
        """Quantiles of what the linear part leaves.

        Parameters
        ----------
        context : Tensor of shape (N, L)
            Normalised windows.
        channel : Tensor of shape (N,)
            Their channels; -1 for one that was not trained on.
        state : BackboneState, optional
            What the memory holds from before each window.
        past : Tensor of shape (N, n, patch_length), optional
            Patches to read into the memory before the window; n may be 0.
        known : Tensor of shape (N, n), optional
            Which of these are to be written.
        ask_memory : bool
            False leaves the backbone out, and what it would cost.

        Returns
        -------
        Tensor of shape (N, Q, P)
            Not decreasing along Q.
        """
        context = functional.dropout(context, _INPUT_DROPOUT, self.training)
        features = torch.cat([context, _look_up(self.channel_head, channel)], dim=-1)
        expanded = self.expand(features)
        if ask_memory:
            if past is not None and past.shape[1]:
                state = self.remember(past, channel, state, known)
            patches = context[:, context.shape[1] % self.patch_length :]
            tokens = self._tokens(patches.unflatten(1, (-1, self.patch_length)), channel)
            expanded = expanded + self.recall(self.backbone(tokens, state)[0][:, -1])
        hidden = functional.dropout(functional.gelu(expanded), _HEAD_DROPOUT, self.training)
        hidden = hidden + self.mix(hidden)
        answer = self.project(hidden).unflatten(-1, self.spread.shape)
        median, widening = answer[:, :1], answer[:, 1:].tanh().exp()
        # Levels lie apart by positive steps, so that they cannot cross.
        steps = torch.cat([torch.zeros_like(median), self.spread.diff(dim=0) * widening], dim=1)
        ladder = steps.cumsum(dim=1)
        return median + ladder - ladder[:, self.median_index, None]

    def _tokens(self, patches: Tensor, channel: Tensor) -> Tensor:
        return self.embed(patches) + _look_up(self.channel, channel)[:, None]


def _look_up(table: nn.Embedding, channel: Tensor) -> Tensor:
    """Rows of the table; the mean row for a channel of -1, which training did not know."""
    rows: Tensor = table(channel.clamp(min=0))
    return torch.where((channel < 0)[:, None], table.weight.mean(dim=0), rows)
