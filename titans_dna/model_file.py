"""What the file of a `TitansDNAClassifier` holds, and how it is put together again."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from titans_core.config import backbone_from_dict
from titans_core.persistence import check_layout, load_tree, save_tree
from titans_core.training_config import TrainingConfig, TrainingHistory
from titans_dna.blend import Blend
from titans_dna.inputs import Scale
from titans_dna.kinship import Kinship
from titans_dna.linear import part_from_dict
from titans_dna.model import Model
from titans_dna.network import NetworkConfig, SequenceNetwork

if TYPE_CHECKING:
    from titans_dna.classifier import TitansDNAClassifier

KIND = "TitansDNAClassifier"
LAYOUT_VERSION = 3


def save_classifier(classifier: TitansDNAClassifier, path: str | os.PathLike[str]) -> None:
    """Write a fitted classifier to one file."""
    model = classifier.model_
    params = dict(classifier.get_params())
    for name in ("backbone", "training"):
        params[name] = None if params[name] is None else asdict(params[name])
    if not isinstance(params["class_weight"], str | None):
        pairs = params["class_weight"].items()
        params["class_weight"] = [[_plain(label), float(weight)] for label, weight in pairs]
    scale = classifier.scale_
    tree = {
        "layout_version": LAYOUT_VERSION,
        "params": params,
        "classes": [_plain(label) for label in classifier.classes_],
        "classes_dtype": classifier.classes_.dtype.str,
        "strands": classifier.strands_,
        "length": classifier.length_,
        "signal": classifier.signal_,
        "scale": None if scale is None else vars(scale),
        "n_features_in": getattr(classifier, "n_features_in_", None),
        "feature_names_in": list(getattr(classifier, "feature_names_in_", [])),
        "histories": [asdict(history) for history in classifier.training_histories_],
        "held_out": classifier.held_out_,
        "held_out_by_expert": classifier.held_out_by_expert_,
        "network": asdict(model.networks[0].config),
        "networks": [dict(network.state_dict()) for network in model.networks],
        "linear": [part.to_dict() for part in model.linear],
        "floor": None if model.floor in model.linear else model.floor.to_dict(),
        "weights": model.blend.weights,
        "precision": model.blend.precision,
        "known": model.known,
        "both_strands": model.both_strands,
        "kinship": None if model.kinship is None else model.kinship.to_dict(),
    }
    save_tree(path, tree, kind=KIND)


def load_classifier(classifier: TitansDNAClassifier, path: str | os.PathLike[str]) -> None:
    """Fill a new classifier with what `save_classifier` wrote."""
    tree = load_tree(path, kind=KIND)
    check_layout(tree, LAYOUT_VERSION, path)
    params = tree["params"]
    if params["backbone"] is not None:
        params["backbone"] = backbone_from_dict(params["backbone"])
    if params["training"] is not None:
        params["training"] = TrainingConfig(**params["training"])
    if isinstance(params["class_weight"], list):
        params["class_weight"] = dict(params["class_weight"])
    classifier.set_params(**params)
    classifier.classes_ = np.array(tree["classes"], dtype=np.dtype(tree["classes_dtype"]))
    classifier.strands_, classifier.length_ = tree["strands"], tree["length"]
    classifier.signal_ = tree["signal"]
    classifier.scale_ = None if tree["scale"] is None else Scale(**tree["scale"])
    if tree["n_features_in"] is not None:
        classifier.n_features_in_ = tree["n_features_in"]
    if tree["feature_names_in"]:
        classifier.feature_names_in_ = np.array(tree["feature_names_in"], dtype=object)
    classifier.training_histories_ = tuple(TrainingHistory(**h) for h in tree["histories"])
    classifier.held_out_ = tree["held_out"]
    classifier.held_out_by_expert_ = tree["held_out_by_expert"]

    stored = dict(tree["network"])
    if stored["backbone"] is not None:
        stored["backbone"] = backbone_from_dict(stored["backbone"])
    config = NetworkConfig(**stored)
    networks = []
    for weights in tree["networks"]:
        with torch.random.fork_rng(devices=[]):  # its first weights are drawn, then replaced
            network = SequenceNetwork(config).float()
        network.load_state_dict(weights)
        networks.append(network.eval())
    linear = tuple(part_from_dict(part) for part in tree["linear"])
    floor = linear[0] if tree["floor"] is None else part_from_dict(tree["floor"])
    blend, both = Blend(tree["weights"], tree["precision"]), tree["both_strands"]
    kinship = None if tree["kinship"] is None else Kinship.from_dict(tree["kinship"])
    classifier.model_ = Model(tuple(networks), linear, blend, both, floor, tree["known"], kinship)


def _plain(label: Any) -> Any:
    return label.item() if isinstance(label, np.generic) else label
