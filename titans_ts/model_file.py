"""A fitted forecaster as a tree of numbers and tensors, and back: what ``save`` writes."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING

import torch

from titans_core import state_from_dict, state_to_dict
from titans_core.config import backbone_from_dict
from titans_core.persistence import check_layout, load_tree, save_tree
from titans_core.training_config import TrainingConfig, TrainingHistory
from titans_ts.adaptation import Stream
from titans_ts.admission import Admission, Residual, median_index
from titans_ts.covariates import covariates_from_dict, covariates_to_dict
from titans_ts.domain import Domain
from titans_ts.frames import Layout
from titans_ts.linear import LinearPart
from titans_ts.model import Model
from titans_ts.network import ForecastNetwork
from titans_ts.recollection import Recollection
from titans_ts.relative import Relative
from titans_ts.scaler import Scaler
from titans_ts.seasonal_memory import Profile, SeasonalMemory
from titans_ts.shares import Asked
from titans_ts.shortness import Shortness
from titans_ts.standing import Standing
from titans_ts.widths import Widths
from titans_ts.windows import PatchClock

if TYPE_CHECKING:
    from titans_ts.forecaster import TitansForecaster

KIND = "TitansForecaster"
LAYOUT_VERSION = 8  # of the tree below; one more whenever a field changes its name or meaning


def save_forecaster(forecaster: TitansForecaster, path: str | os.PathLike[str]) -> None:
    """Write a fitted forecaster to one file."""
    model, standing = forecaster.model_, forecaster._standing
    history = forecaster.training_history_
    network, linear = model.residual.network, standing.linear
    remembered = model.residual.recollection
    season = None if remembered is None else remembered.memory.season
    params = dict(forecaster._fitted_params)
    params["callbacks"] = None  # code, which no file brings back
    params["quantile_levels"] = tuple(float(level) for level in params["quantile_levels"])
    for name in ("backbone", "training"):
        params[name] = None if params[name] is None else asdict(params[name])
    tree = {
        "layout_version": LAYOUT_VERSION,
        "params": params,
        "layout": forecaster._layout.to_dict(),
        "history": None if history is None else asdict(history),
        "levels": model.levels,
        "scalers": [vars(scaler) for scaler in model.scalers],
        "covariates": covariates_to_dict(model.covariates),
        "domain": vars(model.domain),
        "clock": asdict(model.clock),
        "shortness": vars(model.shortness),
        "relative": vars(model.relative),
        "residual": {
            "spread": model.residual.spread,
            "fresh": vars(model.residual.fresh),
            "carried": vars(model.residual.carried),
            "backbone": None if network is None else asdict(network.backbone.config),
            "network": None if network is None else dict(network.state_dict()),
            "recollection": None if remembered is None else vars(remembered) | {"memory": season},
        },
        "linear": vars(linear),
        "keys": list(standing.streams),
        "ends": list(standing.ends.values()),
        "streams": [
            vars(stream)
            | {"memory": None if stream.memory is None else state_to_dict(stream.memory)}
            | {"profile": None if stream.profile is None else vars(stream.profile)}
            | {"asked": vars(stream.asked), "widths": vars(stream.widths)}
            for stream in standing.streams.values()
        ],
    }
    save_tree(path, tree, kind=KIND)


def load_forecaster(forecaster: TitansForecaster, path: str | os.PathLike[str]) -> None:
    """Fill a new forecaster with what ``save_forecaster`` wrote."""
    tree = load_tree(path, kind=KIND)
    check_layout(tree, LAYOUT_VERSION, path)
    params = tree["params"]
    if params["backbone"] is not None:
        params["backbone"] = backbone_from_dict(params["backbone"])
    if params["training"] is not None:
        params["training"] = TrainingConfig(**params["training"])
    forecaster.set_params(**params)
    forecaster._fitted_params = forecaster.get_params()
    forecaster._layout = Layout.from_dict(tree["layout"])
    history = tree["history"]
    forecaster.training_history_ = None if history is None else TrainingHistory(**history)

    matrices = {name: list(value) for name, value in tree["linear"].items()}
    linear = LinearPart(**matrices | {"evidence": tree["linear"]["evidence"]})
    streams = [
        Stream(
            **stored
            | {"memory": None if stored["memory"] is None else state_from_dict(stored["memory"])}
            | {"profile": None if stored["profile"] is None else Profile(**stored["profile"])}
            | {"asked": Asked(**stored["asked"]), "widths": Widths(**stored["widths"])}
        )
        for stored in tree["streams"]
    ]
    forecaster._standing = Standing(
        linear,
        dict(zip(tree["keys"], streams, strict=True)),
        dict(zip(tree["keys"], tree["ends"], strict=True)),
    )
    scalers = [Scaler(**stored) for stored in tree["scalers"]]
    clock = PatchClock(**tree["clock"])
    stored = tree["residual"]
    network = None
    if stored["network"] is not None:
        with torch.random.fork_rng(devices=[]):  # its first weights are drawn, then replaced
            network = ForecastNetwork(
                backbone_from_dict(stored["backbone"]),
                channels=sum(len(scaler.level) for scaler in scalers),
                context_length=clock.context_length,
                patch_length=clock.patch_length,
                median_index=median_index(tree["levels"]),
                spread=torch.from_numpy(stored["spread"]).float(),
                static=stored["network"].get("kin.static"),
            ).float()
        network.load_state_dict(stored["network"])
        network.eval()
    recollection = None
    if (remembered := stored["recollection"]) is not None:
        memory = SeasonalMemory(remembered["memory"])
        recollection = Recollection(**remembered | {"memory": memory})
    fresh, carried = Admission(**stored["fresh"]), Admission(**stored["carried"])
    residual = Residual(network, stored["spread"], fresh, carried, recollection)
    forecaster.model_ = Model(
        scalers,
        covariates_from_dict(tree["covariates"]),
        residual,
        clock,
        tree["levels"],
        Domain(**tree["domain"]),
        Shortness(**tree["shortness"]),
        Relative(**tree["relative"]),
    )
    forecaster.context_length_ = linear.context_length
    forecaster.n_features_in_ = len(scalers[0].learned)
