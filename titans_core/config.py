"""Small frozen configurations, checked when they are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from titans_core.ops.memory_mlp import ACTIVATIONS


@dataclass(frozen=True, kw_only=True)
class NeuralMemoryConfig:
    """One layer of neural long-term memory.

    Parameters
    ----------
    dim : int
        Width of the tokens; heads share it equally.
    num_heads : int
        Independent memories, each on ``dim / num_heads`` channels.
    depth : int
        Layers of the memory MLP, 1 (a matrix) to 4.
    expansion : int
        Width of the memory's hidden layers, in multiples of its input.
    chunk_size : int
        Tokens that share one anchor. Part of the maths: it changes the result.
    conv_width : int
        Taps of the causal depthwise convolution on queries, keys and values; 1 leaves it out.
    activation : {"silu", "gelu"}
        Between the memory's layers.
    residual, norm : bool, optional
        Residual around the memory MLP and LayerNorm on its output. None: as the paper's MLP
        memory, on for depth >= 2, off for a matrix.
    max_memory_lr : float
        Upper end of the learned step, in units that are stable for every chunk size:
        ``theta_t = sigmoid(.) * max_memory_lr / chunk_size``, times ``1 - alpha_t / 2`` so that no
        step overshoots.
    normalize_momentum : bool
        Multiply the step by ``1 - eta_t``, so that what a surprise adds in the end does not
        depend on how long momentum carries it.
    momentum : bool
        Carry past surprise on (paper, eq. 10); False leaves momentum out, and its cost.
    forgetting : bool
        Forget (paper, eq. 13); False leaves the forget gate out.
    forget_toward : {"zero", "initial"}
        What the memory forgets to: nothing (paper, eq. 13), or its learned start M_0. The default
        is the latter: a deep memory whose weights fade is not stable, see ``ops/README.md``.
    huber_delta : float, optional
        Measure surprise by the Huber loss, linear beyond this error of a channel, so that
        outliers write less; None is the squared error (paper, eq. 12).
    read : {"inclusive", "chunk_start"}
        Read the memory right after each token was written, or as it was when the chunk began
        (cheaper).
    test_time_learning : bool
        False freezes the memory at M_0: the ablation that shows what learning at test time adds.
    """

    dim: int
    num_heads: int = 1
    depth: int = 2
    expansion: int = 2
    chunk_size: int = 16
    conv_width: int = 4
    activation: str = "silu"
    residual: bool | None = None
    norm: bool | None = None
    max_memory_lr: float = 1.0
    normalize_momentum: bool = True
    momentum: bool = True
    forgetting: bool = True
    forget_toward: str = "initial"
    huber_delta: float | None = None
    read: str = "inclusive"
    test_time_learning: bool = True

    def __post_init__(self) -> None:
        _check_integers(self, dim=1, num_heads=1, depth=1, expansion=1, chunk_size=1, conv_width=1)
        if self.depth > 4:
            raise ValueError(f"`depth` of NeuralMemoryConfig must be at most 4; got {self.depth}.")
        if self.dim % self.num_heads:
            raise ValueError(
                f"`dim` of NeuralMemoryConfig must be a multiple of num_heads={self.num_heads}; "
                f"got {self.dim}."
            )
        _check_heads(self)
        for name, allowed in (
            ("activation", sorted(ACTIVATIONS)),
            ("forget_toward", ["zero", "initial"]),
            ("read", ["inclusive", "chunk_start"]),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"`{name}` of NeuralMemoryConfig must be one of {allowed}; "
                    f"got {getattr(self, name)!r}."
                )
        for name in ("max_memory_lr", "huber_delta"):
            value = getattr(self, name)
            real = isinstance(value, int | float) and not isinstance(value, bool)
            if not (real and 0 < value < float("inf")) and not (
                value is None and name == "huber_delta"
            ):
                raise ValueError(
                    f"`{name}` of NeuralMemoryConfig must be a finite float > 0; got {value!r}."
                )
        for name in ("momentum", "forgetting", "normalize_momentum", "test_time_learning"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(
                    f"`{name}` of NeuralMemoryConfig must be a bool; got {getattr(self, name)!r}."
                )
        for name in ("residual", "norm"):
            if not isinstance(getattr(self, name), bool | None):
                raise ValueError(
                    f"`{name}` of NeuralMemoryConfig must be a bool or None; "
                    f"got {getattr(self, name)!r}."
                )

    @property
    def head_dim(self) -> int:
        """Channels of one head."""
        return self.dim // self.num_heads

    @property
    def has_residual(self) -> bool:
        """``residual`` with its default resolved."""
        return self.depth >= 2 if self.residual is None else self.residual

    @property
    def has_norm(self) -> bool:
        """``norm`` with its default resolved."""
        return self.depth >= 2 if self.norm is None else self.norm


@dataclass(frozen=True, kw_only=True)
class GatedDeltaConfig:
    """One layer of Gated DeltaNet, the matrix memory to compare a neural memory with.

    Parameters
    ----------
    dim : int
        Width of the tokens; heads share it equally.
    num_heads : int
        Independent memories, each on ``dim / num_heads`` channels.
    conv_width : int
        Taps of the causal depthwise convolution on queries, keys and values; 1 leaves it out.
    """

    dim: int
    num_heads: int = 1
    conv_width: int = 4

    def __post_init__(self) -> None:
        _check_integers(self, dim=1, num_heads=1, conv_width=1)
        if self.dim % self.num_heads:
            raise ValueError(
                f"`dim` of GatedDeltaConfig must be a multiple of num_heads={self.num_heads}; "
                f"got {self.dim}."
            )
        _check_heads(self)

    @property
    def head_dim(self) -> int:
        """Channels of one head."""
        return self.dim // self.num_heads


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """Attention inside a block, to learned persistent memory tokens and to a window.

    Parameters
    ----------
    num_heads : int
        Heads share the width of the tokens equally; each needs a multiple of 4 channels.
    window : int
        Tokens that a token sees, itself included. In memory as context (MAC) the length of a
        segment.
    num_persistent_tokens : int
        Learned, input-independent tokens that every token sees, wherever it stands.
    causal : bool
        Tokens see nothing after themselves. False: every call is one fully observed window, in
        which tokens see ``window - 1`` neighbours on both sides (MAC: their whole segment), and
        only the memory is carried on to the next call.
    """

    num_heads: int
    window: int
    num_persistent_tokens: int = 4
    causal: bool = True

    def __post_init__(self) -> None:
        _check_integers(self, num_heads=1, window=1, num_persistent_tokens=0)
        if not isinstance(self.causal, bool):
            raise ValueError(f"`causal` of AttentionConfig must be a bool; got {self.causal!r}.")

    def head_dim(self, dim: int) -> int:
        """Channels of one head, of tokens ``dim`` wide.

        Raises
        ------
        ValueError
            The heads cannot share them in multiples of 4.
        """
        if dim % (4 * self.num_heads):
            raise ValueError(
                f"`num_heads` of AttentionConfig must leave each head a multiple of 4 of the "
                f"{dim} channels, half of which carry positions in pairs; got {self.num_heads}."
            )
        return dim // self.num_heads


MemoryConfig = NeuralMemoryConfig | GatedDeltaConfig
"""The configuration of any memory layer."""

BLOCKS = ("lmm", "mac", "mag", "mal", "attention")
"""The kinds of block that a backbone can be made of."""


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """A stack of equal blocks.

    Parameters
    ----------
    memory : NeuralMemoryConfig or GatedDeltaConfig
        The memory of every block; its ``dim`` is the width of the stack.
    num_blocks : int
        Blocks; 0 leaves only the final normalisation (the ablation "no memory").
    num_persistent_tokens : int, optional
        Learned, input-independent tokens read before a stream of memory-only blocks begins; None
        is 4. The other blocks hold their own, see ``AttentionConfig``.
    mlp_expansion : int
        Hidden width of each block's SwiGLU, in multiples of ``dim``.
    block : {"lmm", "mac", "mag", "mal", "attention"}
        Memory only, memory as context, as gate or as layer (paper, section 4), or attention only
        (the ablation: of ``memory`` only the ``dim`` counts).
    attention : AttentionConfig, optional
        The attention of every block; needed by all but "lmm", which has none.
    """

    memory: MemoryConfig
    num_blocks: int = 2
    num_persistent_tokens: int | None = None
    mlp_expansion: int = 2
    block: str = "lmm"
    attention: AttentionConfig | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.memory, MemoryConfig):
            raise ValueError(
                "`memory` of BackboneConfig must be a NeuralMemoryConfig or a GatedDeltaConfig; "
                f"got {self.memory!r}."
            )
        _check_integers(self, num_blocks=0, mlp_expansion=1)
        if self.block not in BLOCKS:
            raise ValueError(
                f"`block` of BackboneConfig must be one of {list(BLOCKS)}; got {self.block!r}."
            )
        if self.block == "lmm":
            if self.num_persistent_tokens is not None:
                _check_integers(self, num_persistent_tokens=0)
            if self.attention is not None:
                raise ValueError(
                    "`attention` of BackboneConfig must be None for block='lmm', which has no "
                    f"attention; got {self.attention!r}."
                )
            return
        if not isinstance(self.attention, AttentionConfig):
            raise ValueError(
                f"`attention` of BackboneConfig must be an AttentionConfig for "
                f"block={self.block!r}; got {self.attention!r}."
            )
        self.attention.head_dim(self.memory.dim)
        if self.num_persistent_tokens is not None:
            raise ValueError(
                f"`num_persistent_tokens` of BackboneConfig must be None for "
                f"block={self.block!r}, whose blocks hold their own: set it in AttentionConfig; "
                f"got {self.num_persistent_tokens!r}."
            )

    @property
    def prefix_length(self) -> int:
        """Persistent tokens that the backbone itself puts before a stream."""
        if self.block != "lmm":
            return 0
        return 4 if self.num_persistent_tokens is None else self.num_persistent_tokens


def backbone_from_dict(stored: dict[str, Any]) -> BackboneConfig:
    """What ``dataclasses.asdict`` made of a configuration, as that configuration again.

    Examples
    --------
    >>> from dataclasses import asdict
    >>> config = BackboneConfig(memory=NeuralMemoryConfig(dim=8), num_blocks=2)
    >>> backbone_from_dict(asdict(config)) == config
    True
    """
    memory, attention = stored["memory"], stored.get("attention")
    kind: Any = NeuralMemoryConfig if "chunk_size" in memory else GatedDeltaConfig
    attention = None if attention is None else AttentionConfig(**attention)
    return BackboneConfig(**{**stored, "memory": kind(**memory), "attention": attention})


def check_config(config: object, kind: Any, owner: str) -> None:
    """Raise ValueError unless the owner was given a configuration of its kind."""
    if not isinstance(config, kind):
        kinds = " or ".join(k.__name__ for k in getattr(kind, "__args__", (kind,)))
        raise ValueError(f"{owner} takes {kinds}; got {config!r}.")


def _check_heads(config: NeuralMemoryConfig | GatedDeltaConfig) -> None:
    """Raise ValueError for heads of one channel: keys of length one are then but signs."""
    if config.head_dim < 2:
        raise ValueError(
            f"`num_heads` of {type(config).__name__} must leave each head at least 2 of the "
            f"{config.dim} channels, or it can learn nothing; got {config.num_heads}."
        )


def _check_integers(config: object, **least: int) -> None:
    for name, lowest in least.items():
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
            raise ValueError(
                f"`{name}` of {type(config).__name__} must be an int >= {lowest}; got {value!r}."
            )
