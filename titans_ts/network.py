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
_HIDDEN_CHANNELS = 0.5  # in training, where static covariates can stand for them


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
    static : Tensor of shape (channels, Ks), optional
        What is known of each channel as a whole: two channels are alike as far as these are, beside
        what is learned of each.
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
        static: Tensor | None = None,
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
        self.kin: StaticEmbedding | None = None
        if static is not None and static.shape[1]:
            self.kin = StaticEmbedding(static, dim, _CHANNEL_DIM)

    def remember(
        self,
        patches: Tensor,
        channel: Tensor,
        state: BackboneState | None = None,
        known: Tensor | None = None,
        static: Tensor | None = None,
    ) -> BackboneState:
        """Read patches ``(N, n, patch_length)`` of channels ``(N,)`` into the memory.

        Those that are not ``known`` (N, n) leave it alone. ``static`` is as in ``forward``.
        """
        return self.backbone(self._tokens(patches, channel, static), state, known)[1]

    def forward(
        self,
        context: Tensor,
        channel: Tensor,
        state: BackboneState | None = None,
        *,
        past: Tensor | None = None,
        known: Tensor | None = None,
        static: Tensor | None = None,
        ask_memory: bool = True,
        frozen: bool = False,
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
        static : Tensor of shape (N, Ks), optional
            None takes those of the channels trained on.
        ask_memory : bool
            False leaves the backbone out, and what it would cost.
        frozen : bool
            The window is read from the memory, but not written into it.

        Returns
        -------
        Tensor of shape (N, Q, P)
            Not decreasing along Q.
        """
        if self.kin is not None:
            channel, static = self.kin.hide(channel, static)
        context = functional.dropout(context, _INPUT_DROPOUT, self.training)
        head = _look_up(self.channel_head, channel)
        if self.kin is not None:
            head = head + self.kin(channel, static)[1]
        expanded = self.expand(torch.cat([context, head], dim=-1))
        if ask_memory:
            if past is not None and past.shape[1]:
                state = self.remember(past, channel, state, known, static)
            patches = context[:, context.shape[1] % self.patch_length :]
            patches = patches.unflatten(1, (-1, self.patch_length))
            tokens = self._tokens(patches, channel, static)
            written = torch.zeros(tokens.shape[:2], dtype=torch.bool) if frozen else None
            expanded = expanded + self.recall(self.backbone(tokens, state, written)[0][:, -1])
        hidden = functional.dropout(functional.gelu(expanded), _HEAD_DROPOUT, self.training)
        hidden = hidden + self.mix(hidden)
        answer = self.project(hidden).unflatten(-1, self.spread.shape)
        median, widening = answer[:, :1], answer[:, 1:].tanh().exp()
        # Levels lie apart by positive steps, so that they cannot cross.
        steps = torch.cat([torch.zeros_like(median), self.spread.diff(dim=0) * widening], dim=1)
        ladder = steps.cumsum(dim=1)
        return median + ladder - ladder[:, self.median_index, None]

    def _tokens(self, patches: Tensor, channel: Tensor, static: Tensor | None) -> Tensor:
        """Patches ``(N, n, patch_length)`` as tokens that tell of which channel they are."""
        token = _look_up(self.channel, channel)
        if self.kin is not None:
            token = token + self.kin(channel, static)[0]
        return self.embed(patches) + token[:, None]


class StaticEmbedding(nn.Module):
    """Static covariates as additions to the embedding of a channel.

    Parameters
    ----------
    static : Tensor of shape (channels, Ks)
    dim, head_dim : int
    """

    static: Tensor

    def __init__(self, static: Tensor, dim: int, head_dim: int) -> None:
        super().__init__()
        self.register_buffer("static", static)
        # As large as the channels' own embeddings; zeros would hardly grow in so few steps.
        self.token = nn.Parameter(torch.randn(static.shape[1], dim) / static.shape[1] ** 0.5)
        self.head = nn.Parameter(torch.randn(static.shape[1], head_dim) / static.shape[1] ** 0.5)

    def hide(self, channel: Tensor, static: Tensor | None) -> tuple[Tensor, Tensor]:
        """Channels with their covariates; in training half of them by these alone.

        What a channel's own embedding tells, its covariates would not learn.
        """
        static = self._of(channel, static)
        if self.training:
            hidden = torch.rand(channel.shape, device=channel.device) < _HIDDEN_CHANNELS
            channel = channel.masked_fill(hidden, -1)
        return channel, static

    def forward(self, channel: Tensor, static: Tensor | None) -> tuple[Tensor, Tensor]:
        """``(N, dim)`` and ``(N, head_dim)``."""
        static = self._of(channel, static)
        return static @ self.token, static @ self.head

    def _of(self, channel: Tensor, static: Tensor | None) -> Tensor:
        if static is not None:
            return static
        return self.static[channel.clamp(min=0)] * (channel >= 0)[:, None]


def _look_up(table: nn.Embedding, channel: Tensor) -> Tensor:
    """Rows of the table; the mean row for a channel of -1, which training did not know."""
    rows: Tensor = table(channel.clamp(min=0))
    return torch.where((channel < 0)[:, None], table.weight.mean(dim=0), rows)
