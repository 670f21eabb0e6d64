"""Small frozen configurations, checked when they are made."""

from __future__ import annotations

from dataclasses import dataclass

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
        ``theta_t = sigmoid(.) * max_memory_lr / chunk_size``.
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
class BackboneConfig:
    """A stack of memory-only blocks behind persistent memory tokens.

    Parameters
    ----------
    memory : NeuralMemoryConfig
        The memory of every block; its ``dim`` is the width of the stack.
    num_blocks : int
        Blocks; 0 leaves only the final normalisation (the ablation "no memory").
    num_persistent_tokens : int
        Learned, input-independent tokens read before a stream begins.
    mlp_expansion : int
        Hidden width of each block's SwiGLU, in multiples of ``dim``.
    """

    memory: NeuralMemoryConfig
    num_blocks: int = 2
    num_persistent_tokens: int = 4
    mlp_expansion: int = 2

    def __post_init__(self) -> None:
        if not isinstance(self.memory, NeuralMemoryConfig):
            raise ValueError(
                f"`memory` of BackboneConfig must be a NeuralMemoryConfig; got {self.memory!r}."
            )
        _check_integers(self, num_blocks=0, num_persistent_tokens=0, mlp_expansion=1)


def _check_integers(config: object, **least: int) -> None:
    for name, lowest in least.items():
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
            raise ValueError(
                f"`{name}` of {type(config).__name__} must be an int >= {lowest}; got {value!r}."
            )
