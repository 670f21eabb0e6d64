"""A small network on k-mer shares: what logistic regression cannot combine."""

from __future__ import annotations

from collections.abc import Sequence as Series
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from titans_core.training import TrainingConfig, fit_network
from titans_dna.batches import Rows
from titans_dna.kmers import kmer_counts, root_shares

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Array = NDArray[np.float64]
Fold = tuple[Rows, Rows]

_K_MAX = 5
_HIDDEN = 192
_BATCH_ROWS = 128
_READ_ROWS = 1024
_LABEL_SMOOTHING = 0.05
_EPOCHS = 15
_FEWEST_STEPS, _MOST_STEPS = 100, 1500


class KmerNetwork:
    """One small network for each fold, averaged.

    Parameters
    ----------
    both_strands : bool
        Count the k-mers of both strands.
    seed : int
    """

    def __init__(self, both_strands: bool, seed: int) -> None:
        self.both_strands, self.seed = both_strands, seed
        self.networks: list[nn.Sequential] = []

    @property
    def name(self) -> str:
        """What reports call it."""
        return "k-mers, combined"

    def cross_fit(
        self, inputs: Any, y: NDArray[np.int64], class_weights: Array, folds: Series[Fold]
    ) -> list[Array]:
        """Learn from all rows but each fold's; say what it says of that fold."""
        shares = self._shares(inputs)
        rows = np.arange(len(y))
        self.networks, said = [], []
        for number, (learn, held) in enumerate(folds or [(rows, None)]):
            network = self._train(shares, y, class_weights, learn, held, self.seed + number)
            self.networks.append(network)
            if held is not None:
                said.append(_read(network, shares, held))
        return said

    def probabilities(self, inputs: Any) -> Array:
        """Class probabilities ``(n, K)``."""
        shares = self._shares(inputs)
        rows = np.arange(len(inputs))
        mean: Array = np.mean([_read(network, shares, rows) for network in self.networks], axis=0)
        return mean

    def _shares(self, inputs: Any) -> csr_matrix:
        return root_shares(kmer_counts(inputs, _K_MAX), _K_MAX, self.both_strands)

    @staticmethod
    def _train(
        shares: csr_matrix,
        y: NDArray[np.int64],
        class_weights: Array,
        learn: Rows,
        held: Rows | None,
        seed: int,
    ) -> nn.Sequential:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            network = _build(shares.shape[1], len(class_weights))
        weights = torch.tensor(class_weights, dtype=torch.float32)
        steps = int(np.clip(_EPOCHS * len(learn) // _BATCH_ROWS, _FEWEST_STEPS, _MOST_STEPS))

        def sample_batch(generator: torch.Generator) -> tuple[Tensor, Tensor]:
            rows = learn[torch.randint(len(learn), (_BATCH_ROWS,), generator=generator).numpy()]
            return _dense(shares, rows), torch.tensor(y[rows])

        def compute_loss(network: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
            x, classes = batch
            return functional.cross_entropy(
                network(x), classes, weights.to(x.device), label_smoothing=_LABEL_SMOOTHING
            )

        def validate(network: nn.Module) -> float:
            assert held is not None
            p = _read(network, shares, held)[np.arange(len(held)), y[held]]
            row_weights = class_weights[y[held]]
            return float(-(row_weights @ np.log(p.clip(1e-7))) / row_weights.sum())

        training = TrainingConfig(
            max_steps=steps, weight_decay=0.05, validate_every=max(1, steps // 8), seed=seed
        )
        check = None if held is None else validate
        fit_network(network, sample_batch, compute_loss, check, training, progress=False)
        return network

    def to_dict(self) -> dict[str, Any]:
        """All that it has learned, as `save_tree` takes it."""
        return {
            "kind": "k-mer network",
            "both_strands": self.both_strands,
            "seed": self.seed,
            "networks": [dict(network.state_dict()) for network in self.networks],
        }

    @classmethod
    def from_dict(cls, tree: dict[str, Any]) -> KmerNetwork:
        """What `to_dict` gave."""
        part = cls(tree["both_strands"], tree["seed"])
        for weights in tree["networks"]:
            with torch.random.fork_rng(devices=[]):  # its first weights are drawn, then replaced
                network = _build(len(weights["0.running_mean"]), len(weights["8.bias"]))
            network.load_state_dict(weights)
            part.networks.append(network.eval())
        return part


def _build(inputs: int, n_classes: int) -> nn.Sequential:
    return nn.Sequential(
        nn.BatchNorm1d(inputs, affine=False),
        nn.Dropout(0.2),
        nn.Linear(inputs, _HIDDEN),
        nn.BatchNorm1d(_HIDDEN),
        nn.GELU(),
        nn.Dropout(0.5),
        nn.Linear(_HIDDEN, _HIDDEN // 2),
        nn.GELU(),
        nn.Linear(_HIDDEN // 2, n_classes),
    ).float()  # whatever the default dtype is


def _dense(shares: csr_matrix, rows: Rows) -> Tensor:
    return torch.from_numpy(shares[rows].toarray().astype(np.float32))


@torch.no_grad()
def _read(network: nn.Module, shares: csr_matrix, rows: Rows) -> Array:
    device = next(network.parameters()).device
    parts = [
        network(_dense(shares, rows[first : first + _READ_ROWS]).to(device)).softmax(-1)
        for first in range(0, len(rows), _READ_ROWS)
    ]
    p: Array = torch.cat(parts).double().cpu().numpy()
    return p
