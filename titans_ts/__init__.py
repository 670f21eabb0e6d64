"""Forecast multivariate time series with a model that goes on learning from new rows."""

from __future__ import annotations

from titans_core.config import BackboneConfig, NeuralMemoryConfig
from titans_core.training_config import TrainingConfig
from titans_ts.datasets import dataset_info, list_datasets, load_dataset
from titans_ts.forecaster import TitansForecaster

__all__ = [
    "BackboneConfig",
    "NeuralMemoryConfig",
    "TitansForecaster",
    "TrainingConfig",
    "dataset_info",
    "list_datasets",
    "load_dataset",
]
