"""The Titans network: a convolutional stem, a memory that reads both ways, one head or two.

Bases become *cells* (`pool` bases each, seen by the stem), cells become *tokens* (`cells_per_token`
cells each), which the backbone's memory reads from left to right and from right to left. What it
read is added to the cells; each head turns cells into class logits.

Padding reaches nothing: a row gives the same answer in whatever batch it stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from titans_core import Backbone, BackboneConfig
from titans_dna.alphabet import COMPLEMENT, MIXTURES, PAD, UNKNOWN

HEADS = ("positional", "pooled")


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Sizes of a `SequenceNetwork`.

    Parameters
    ----------
    n_classes : int
    length : int, optional
        Bases of every sequence, for the positional head; None for the pooled one.
    heads : tuple of {"positional", "pooled"}
        Every place has its own weights, or cells are pooled over; both answer on their own.
    equivariant : bool
        Read both strands with the same weights and add what was found.
    signal : bool
        The input is one number a position, not a base.
    channels, width, residual_width : int
        Filters of the stem, bases that one of them sees, and cells that a residual one sees (odd).
    pool : int
        Bases of a cell.
    dilations : tuple of int
        One residual convolution over cells each.
    cells_per_token : int
        Cells that the memory reads as one token.
    backbone : BackboneConfig, optional
        None: no memory (the ablation).
    dropout : float
        Share of units dropped in the heads; of channels, a quarter of it, between convolutions.
    """

    n_classes: int
    length: int | None
    heads: tuple[str, ...]
    equivariant: bool = False
    signal: bool = False
    channels: int = 64
    width: int = 13
    residual_width: int = 5
    pool: int = 4
    dilations: tuple[int, ...] = (1, 2)
    cells_per_token: int = 4
    backbone: BackboneConfig | None = None
    dropout: float = 0.35

    @property
    def token_bases(self) -> int:
        """Bases of a token."""
        return self.pool * self.cells_per_token

    @property
    def reach(self) -> int:
        """Bases on either side that a cell depends on, before the memory."""
        return self.width // 2 + self.pool * (1 + self.residual_width // 2 * sum(self.dilations))


Features = tuple[Tensor, ...]
"""What each head sees: one tensor ``(B, F)`` a head."""


class Cells(NamedTuple):
    """What the stem found: cells ``(B, C, T)``, which of them exist, and which may be written."""

    values: Tensor
    present: Tensor
    writes: Tensor


@final
class SequenceNetwork(nn.Module):
    """Class logits of DNA sequences.

    Parameters
    ----------
    config : NetworkConfig
    """

    mixtures: Tensor
    complement: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.channels
        self.register_buffer("mixtures", torch.from_numpy(MIXTURES), persistent=False)
        self.register_buffer("complement", torch.from_numpy(COMPLEMENT).long(), persistent=False)
        self.stem = nn.Conv1d(
            1 if config.signal else 4, channels, config.width, padding=config.width // 2, bias=False
        )
        self.stem_norm = nn.BatchNorm1d(channels)
        width = config.residual_width
        self.convolutions = nn.ModuleList(
            nn.Conv1d(channels, channels, width, padding=width // 2 * d, dilation=d, bias=False)
            for d in config.dilations
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(channels) for _ in config.dilations)
        if config.backbone is not None:
            dim = config.backbone.memory.dim
            self.to_tokens = nn.Linear(channels, dim)
            self.backbone = Backbone(config.backbone)
            self.from_tokens = nn.Linear(dim, channels, bias=False)
        kinds: dict[str, Any] = {"positional": PositionalHead, "pooled": PooledHead}
        self.heads: Any = nn.ModuleList(kinds[head](config) for head in config.heads)

    def forward(self, sequences: Tensor) -> Tensor:
        """Read sequences.

        Parameters
        ----------
        sequences : Tensor of shape (B, L)
            Tokens of ``titans_dna.alphabet`` (uint8), short rows padded on the right; or numbers
            (float), for a network of signals.

        Returns
        -------
        Tensor of shape (B, H, n_classes)
            Logits of each head.
        """
        return self.read(*self.embed(sequences))

    def embed(self, sequences: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mixtures of bases ``(B, L, 4)``; which positions exist; which may write to a memory."""
        if self.config.signal:
            everywhere = torch.ones_like(sequences, dtype=torch.bool)
            return sequences[..., None], everywhere, everywhere
        codes = sequences.long() & 15
        present = codes != PAD
        return self.mixtures[codes], present, present & (codes != UNKNOWN)

    def read(self, x: Tensor, present: Tensor, writes: Tensor) -> Tensor:
        """Logits of mixtures ``(B, L, 4)`` that `embed` gave; differentiable in x."""
        return self.logits(self.features(x, present, writes))

    def features(self, x: Tensor, present: Tensor, writes: Tensor) -> Features:
        """What each head sees, ``(B, F)``: of both strands, if the network is equivariant."""
        found = self.collect(self.remember(self.cells(x, present, writes)))
        if not self.config.equivariant:
            return found
        strand = (flip(v, present) for v in (x.flip(-1), present, writes))
        opposite = self.collect(self.remember(self.cells(*strand)))
        return tuple(a + b for a, b in zip(found, opposite, strict=True))

    def collect(self, cells: Cells) -> Features:
        """What each head sees of one strand."""
        return tuple(head.collect(cells) for head in self.heads)

    def logits(self, features: Features) -> Tensor:
        """``(B, H, n_classes)`` of what `features` gave."""
        pairs = zip(self.heads, features, strict=True)
        return torch.stack([head.classify(found) for head, found in pairs], dim=1)

    def hidden(self, features: Features) -> Tensor:
        """What the last layers of all heads see, side by side: ``(B, sum of their widths)``."""
        pairs = zip(self.heads, features, strict=True)
        return torch.cat([head.classify[:-1](found) for head, found in pairs], dim=1)

    @property
    def hidden_width(self) -> int:
        """Width of `hidden`."""
        return sum(head.classify[-1].in_features for head in self.heads)

    def cells(self, x: Tensor, present: Tensor, writes: Tensor) -> Cells:
        """Run the stem, ``(B, L, 4) -> (B, C, ceil(L / pool))``; a cell sees `reach` bases."""
        config = self.config
        y = self.stem((x * present[..., None]).transpose(1, 2))
        y = _pool_max(y, present, config.pool)
        present, writes = _pool_any(present, config.pool), _pool_any(writes, config.pool)
        y = functional.gelu(_normalise(self.stem_norm, y, present)) * present[:, None]
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            update = functional.gelu(_normalise(norm, convolution(y), present))
            update = functional.dropout1d(update, config.dropout / 4, self.training)
            y = (y + update) * present[:, None]
        return Cells(y, present, writes)

    def remember(self, cells: Cells) -> Cells:
        """Add what the memory reads at each token, in both directions, to its cells."""
        if self.config.backbone is None:
            return cells
        tokens, present, writes = self.tokens(cells)
        both = torch.cat([tokens, flip(tokens, present)])
        read, _ = self.backbone(both, mask=torch.cat([writes, flip(writes, present)]))
        onward, back = self.from_tokens(read).chunk(2)
        return self.add_tokens(cells, onward + flip(back, present))

    def tokens(self, cells: Cells) -> tuple[Tensor, Tensor, Tensor]:
        """Average cells to tokens ``(B, T', dim)``; which exist, and which may be written."""
        size = self.config.cells_per_token
        count = functional.avg_pool1d(_fill(cells.present[:, None].to(cells.values), size), size)
        mean = functional.avg_pool1d(_fill(cells.values, size), size)
        mean = mean / count.clamp(min=1 / size)
        present, writes = _pool_any(cells.present, size), _pool_any(cells.writes, size)
        return self.to_tokens(mean.transpose(1, 2)), present, writes

    def add_tokens(self, cells: Cells, read: Tensor) -> Cells:
        """Spread what was read at tokens ``(B, T', C)`` over their cells."""
        size, length = self.config.cells_per_token, cells.values.shape[-1]
        spread = read.transpose(1, 2).repeat_interleave(size, dim=-1)[..., :length]
        return cells._replace(values=(cells.values + spread) * cells.present[:, None])


@final
class PositionalHead(nn.Module):
    """Every cell has weights of its own: for sequences of one length, aligned at a site."""

    _CHANNELS = 24
    _HIDDEN = 64

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        if config.length is None:
            raise ValueError("a positional head needs the `length` of all sequences; got None.")
        cells = -(-config.length // config.pool)
        self.reduce = nn.Conv1d(config.channels, self._CHANNELS, 1)
        self.place = nn.Parameter(torch.zeros(self._CHANNELS, cells))
        self.classify = nn.Sequential(
            nn.Dropout(config.dropout),
            nn.Linear(self._CHANNELS * cells, self._HIDDEN),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(self._HIDDEN, config.n_classes),
        )

    def collect(self, cells: Cells) -> Tensor:
        """``(B, 24 T)``."""
        return functional.gelu(self.reduce(cells.values) + self.place).flatten(1)


@final
class PooledHead(nn.Module):
    """Mean, maximum and an attention-weighted mean over all cells: for any length."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        channels = config.channels
        self.score = nn.Linear(channels, 1)
        self.classify = nn.Sequential(
            nn.LayerNorm(3 * channels),
            nn.Dropout(config.dropout),
            nn.Linear(3 * channels, channels),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(channels, config.n_classes),
        )

    def collect(self, cells: Cells) -> Tensor:
        """``(B, 3 C)``."""
        return Pool.of(cells, self.score).features()


class Pool(NamedTuple):
    """Cells pooled so far: what two stretches found can be joined."""

    cells: Tensor
    total: Tensor
    largest: Tensor
    attention: Tensor
    attended: Tensor

    @classmethod
    def of(cls, cells: Cells, score: nn.Module) -> Pool:
        """Pool over ``(B, C, T)``."""
        present = cells.present[:, None]
        scores = (
            score(cells.values.transpose(1, 2)).transpose(1, 2).masked_fill(~present, -torch.inf)
        )
        attention = scores.logsumexp(-1)
        return cls(
            present.sum(-1),
            cells.values.sum(-1, dtype=torch.float64),  # of millions of cells, in the end
            cells.values.masked_fill(~present, -torch.inf).amax(-1),
            attention,
            (cells.values * (scores - attention[..., None]).exp()).sum(-1),
        )

    def join(self, other: Pool) -> Pool:
        """Pool over both stretches."""
        attention = torch.logaddexp(self.attention, other.attention)
        mine, others = (self.attention - attention).exp(), (other.attention - attention).exp()
        return Pool(
            self.cells + other.cells,
            self.total + other.total,
            torch.maximum(self.largest, other.largest),
            attention,
            self.attended * mine + other.attended * others,
        )

    def features(self) -> Tensor:
        """``(B, 3 C)``."""
        mean = (self.total / self.cells).to(self.largest.dtype)
        return torch.cat([mean, self.largest, self.attended], dim=-1)


def flip(x: Tensor, present: Tensor) -> Tensor:
    """Reverse each row ``(B, T, ...)`` within its own length; the padding stays on the right."""
    if bool(present.all()):
        return x.flip(1)
    lengths = present.sum(1, keepdim=True)
    index = (lengths - 1 - torch.arange(x.shape[1], device=x.device)).remainder(x.shape[1])
    return torch.gather(x, 1, index.reshape(*index.shape, *[1] * (x.ndim - 2)).expand_as(x))


def _normalise(norm: nn.Module, x: Tensor, present: Tensor) -> Tensor:
    """Batch normalisation of ``(B, C, T)``, with statistics of what exists only."""
    if not norm.training or bool(present.all()):
        y: Tensor = norm(x)
        return y
    rows = x.transpose(1, 2)
    normalised = torch.zeros_like(rows)
    normalised[present] = norm(rows[present])
    return normalised.transpose(1, 2)


def _pool_max(x: Tensor, present: Tensor, size: int) -> Tensor:
    x = x.masked_fill(~present[:, None], -torch.inf)
    pooled = functional.max_pool1d(_fill(x, size, -torch.inf), size)
    return pooled.masked_fill(pooled == -torch.inf, 0.0)


def _pool_any(mask: Tensor, size: int) -> Tensor:
    """``(B, T) -> (B, ceil(T / size))``: whether any of a cell holds."""
    return functional.pad(mask, (0, -mask.shape[1] % size)).unflatten(1, (-1, size)).any(-1)


def _fill(x: Tensor, size: int, value: float = 0.0) -> Tensor:
    """Lengthen the last axis to a multiple of `size`."""
    return functional.pad(x, (0, -x.shape[-1] % size), value=value)


def opposite_strand(sequences: Tensor) -> Tensor:
    """Reverse complement of a batch of tokens ``(B, L)``; the padding stays on the right."""
    complement = torch.from_numpy(COMPLEMENT).to(sequences.device)
    return flip(complement[sequences.long()], (sequences & 15) != PAD)
