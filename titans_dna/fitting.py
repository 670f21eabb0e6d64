"""Learn a `Model`: networks on folds, linear parts beside, and a blend chosen on what was held out.

Nothing is chosen by rows that the chosen thing has learned from: each network is stopped by its own
fold, strands are compared and the blend is fitted by what was said of rows that were held out.
"""

from __future__ import annotations

from collections.abc import Sequence as Series
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from titans_core import BackboneConfig
from titans_core.training import TrainingConfig, TrainingHistory
from titans_dna.batches import Inputs, Rows, take_rows
from titans_dna.blend import Blend
from titans_dna.inference import probabilities
from titans_dna.kinship import fit_kinship
from titans_dna.linear import LinearPart, alike_part, linear_parts
from titans_dna.members import build_network, train_member
from titans_dna.model import Model
from titans_dna.network import NetworkConfig, SequenceNetwork
from titans_dna.sequences import Sequences

Array = NDArray[np.float64]

TOKEN_BASES = 16
"""Bases that the memory reads as one token."""

_COMPARED_ROWS = 3000  # at most, when strands are compared

Fold = tuple[Rows, Rows]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to learn.

    Parameters
    ----------
    heads : tuple of str
    length : int, optional
        Bases of every sequence, if there is a positional head.
    strands : {None, "auto", "augment", "average", "equivariant"}
    signal : bool
    backbone : BackboneConfig, optional
    training : TrainingConfig
    batch_size, crop : int
    pool : int
    dilations : tuple of int
    linear : bool
    progress : bool
    """

    heads: tuple[str, ...]
    length: int | None
    strands: str | None
    signal: bool
    backbone: BackboneConfig | None
    training: TrainingConfig
    batch_size: int
    crop: int
    pool: int
    dilations: tuple[int, ...]
    linear: bool
    progress: bool


@dataclass(frozen=True)
class Fitted:
    """A model, and what was found on the way.

    Parameters
    ----------
    model : Model
    strands : {None, "augment", "average", "equivariant"}
        As given or chosen.
    histories : tuple of TrainingHistory
        One a network.
    held_out : ndarray of int
        Rows that were held out from some network, in order.
    held_out_by_expert : ndarray of shape (E, len(held_out), K)
        What each expert, without having learned from them, said of these rows.
    """

    model: Model
    strands: str | None
    histories: tuple[TrainingHistory, ...]
    held_out: Rows
    held_out_by_expert: Array


def fit_model(
    inputs: Inputs,
    y: NDArray[np.int64],
    class_weights: Array,
    folds: Series[Fold],
    recipe: Recipe,
    related: NDArray[np.bool_] | None = None,
) -> Fitted:
    """Learn networks, linear parts and their blend.

    Parameters
    ----------
    inputs : Sequences or ndarray of shape (n, p)
    y : ndarray of int, shape (n,)
        Index of each row's class.
    class_weights : ndarray of shape (K,)
    folds : list of (rows to learn from, rows held out)
        One network each. None: a single network learns from all rows, nothing is chosen, and
        every expert gets the same weight.
    recipe : Recipe
    related : ndarray of bool, shape (n,), optional
        Rows that have relatives among the others.
    """
    rows = np.arange(len(y))
    strands = recipe.strands
    if strands == "auto":
        strands = _choose_strands(inputs, y, class_weights, folds, recipe) if folds else None
    trained: list[tuple[SequenceNetwork, TrainingHistory]] = []
    for fold, (learn, held) in enumerate(folds or [(rows, rows)]):
        trained.append(_train(inputs, y, class_weights, learn, held, recipe, strands, fold))
    networks = tuple(network for network, _ in trained)
    both = strands == "average"

    said_by_networks = [
        probabilities(network, inputs, held, both_strands=both)
        for network, (_, held) in zip(networks, folds, strict=False)
    ]
    experts = [[said[:, head] for said in said_by_networks] for head in range(len(recipe.heads))]
    parts: list[LinearPart] = linear_parts(
        inputs,
        length=recipe.length,
        both_strands=strands in ("average", "equivariant"),
        random_state=recipe.training.seed,
    )
    floor = parts[0]
    if recipe.linear:
        experts += [part.cross_fit(inputs, y, class_weights, folds) for part in parts]
    else:
        floor.cross_fit(inputs, y, class_weights, [])
        parts = []
    known = np.bincount(y, minlength=len(class_weights)) > 0
    model = Model(networks, tuple(parts), Blend.equal(len(experts)), both, floor, known)
    histories = tuple(history for _, history in trained)
    if not folds:
        nothing = np.empty((len(experts), 0, len(class_weights)))
        return Fitted(model, strands, histories, rows[:0], nothing)
    held_out = np.concatenate([held for _, held in folds])
    said = np.stack([np.concatenate(expert) for expert in experts])
    blend = Blend.fit(said, y[held_out], class_weights[y[held_out]])
    model = replace(model, blend=blend)
    if related is not None and recipe.linear and isinstance(inputs, Sequences):
        blended = np.exp(blend(said))
        kinship = fit_kinship(inputs, y, class_weights, related, held_out, blended)
        model = replace(model, kinship=kinship)
    return Fitted(model, strands, histories, held_out, said)


def _choose_strands(
    inputs: Any, y: NDArray[np.int64], class_weights: Array, folds: Series[Fold], recipe: Recipe
) -> str | None:
    """Read both strands, unless one alone tells held-out rows better by a standard error.

    The closed-form comparison of words decides; networks would take minutes to say the same.
    """
    rows = np.linspace(0, len(y) - 1, min(len(y), _COMPARED_ROWS)).astype(np.int64)
    sample, classes = inputs.take(rows), y[rows]
    # Of all folds: the tens of rows that one of them holds out of a small set would say little.
    several = [tuple(np.flatnonzero(np.isin(rows, part)) for part in fold) for fold in folds]
    parts = [(learn, held) for learn, held in several if len(learn) and len(held)]
    held_out = np.concatenate([held for _, held in parts])
    weights, told = class_weights[classes[held_out]], (np.arange(len(held_out)), classes[held_out])
    losses = []
    for both_strands in (False, True):
        part = alike_part(recipe.length, both_strands)
        said = np.concatenate(part.cross_fit(sample, classes, class_weights, parts))
        losses.append(-weights * np.log(said[told].clip(1e-7)))
    worse = losses[1] - losses[0]
    return None if worse.mean() > worse.std() / np.sqrt(len(held_out)) else "average"


def _train(
    inputs: Inputs,
    y: NDArray[np.int64],
    class_weights: Array,
    learn: Rows,
    held: Rows,
    recipe: Recipe,
    strands: str | None,
    fold: int,
) -> tuple[SequenceNetwork, TrainingHistory]:
    config = NetworkConfig(
        n_classes=len(class_weights),
        length=recipe.length,
        heads=recipe.heads,
        equivariant=strands == "equivariant",
        signal=recipe.signal,
        pool=recipe.pool,
        dilations=recipe.dilations,
        cells_per_token=max(1, TOKEN_BASES // recipe.pool),
        backbone=recipe.backbone,
    )
    training = replace(recipe.training, seed=recipe.training.seed + fold)
    return train_member(
        inputs,
        y,
        class_weights,
        learn,
        held,
        network=build_network(config, training.seed),
        training=training,
        batch_size=recipe.batch_size,
        crop=recipe.crop,
        strands=strands,
        progress=recipe.progress,
        description=f"network {fold + 1}" + (", both strands" if strands == "average" else ""),
    )


def continue_training(
    model: Model, inputs: Inputs, y: NDArray[np.int64], class_weights: Array, recipe: Recipe
) -> Model:
    """Learn on from new rows: first the blend, from what the experts say of them; then networks.

    Rows of a class that only the networks learn say nothing about who is to be trusted. A batch of
    few rows, shown again and again to fill a step, is learned from in a step as much smaller.

    Parameters
    ----------
    model : Model
        Left as it is.
    inputs, y, class_weights, recipe
        As in `fit_model`, the strands as they were chosen; of the recipe's training steps one pass
        over the rows is taken.
    """
    rows, blend = np.arange(len(y)), model.blend
    told = np.flatnonzero(model.known[y] & (class_weights[y] > 0))
    if len(told):
        said = model.by_expert(take_rows(inputs, told))
        blend = Blend.fit(said, y[told], class_weights[y[told]], prior=blend)
    steps = max(1, -(-len(y) // recipe.batch_size))
    training = replace(
        recipe.training,
        max_steps=steps,
        learning_rate=recipe.training.learning_rate / 4 * min(1, len(y) / recipe.batch_size),
        warmup_steps=0,
        validate_every=steps,
        patience=None,
    )
    networks = []
    for network in model.networks:
        going_on, _ = train_member(
            inputs,
            y,
            class_weights,
            rows,
            None,
            network=deepcopy(network),
            training=training,
            batch_size=recipe.batch_size,
            crop=recipe.crop,
            strands=recipe.strands,
            progress=False,
        )
        networks.append(going_on)
    return replace(model, networks=tuple(networks), blend=blend)
