"""Forecast multivariate time series with a model that goes on learning from new rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from titans_core.lazy import lazy_names

if TYPE_CHECKING:
    from titans_core.config import BackboneConfig, NeuralMemoryConfig
    from titans_core.training_config import TrainingConfig, TrainingProgress
    from titans_ts.datasets import dataset_info, list_datasets, load_dataset
    from titans_ts.forecaster import TitansForecaster

__all__ = [
    "BackboneConfig",
    "NeuralMemoryConfig",
    "TitansForecaster",
    "TrainingConfig",
    "TrainingProgress",
    "dataset_info",
    "list_datasets",
    "load_dataset",
]

# Names are imported when they are first asked for (PEP 562): `titans-ts --help` needs no torch.
_HOMES = {
    "BackboneConfig": "titans_core.config",
    "NeuralMemoryConfig": "titans_core.config",
    "TitansForecaster": "titans_ts.forecaster",
    "TrainingConfig": "titans_core.training_config",
    "TrainingProgress": "titans_core.training_config",
    "dataset_info": "titans_ts.datasets",
    "list_datasets": "titans_ts.datasets",
    "load_dataset": "titans_ts.datasets",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
