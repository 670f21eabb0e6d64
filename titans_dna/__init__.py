"""Classify DNA with a model whose memory learns as it reads: FASTA in, trustworthy classes out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from titans_core.lazy import lazy_names

if TYPE_CHECKING:
    from titans_core.config import BackboneConfig, NeuralMemoryConfig
    from titans_core.training_config import TrainingConfig
    from titans_dna.classifier import TitansDNAClassifier
    from titans_dna.datasets import dataset_info, list_datasets, load_dataset
    from titans_dna.fasta import FastaError, iter_fasta, iter_pieces, open_fasta
    from titans_dna.homology import homology_groups, homology_split
    from titans_dna.kmers import KmerBaseline
    from titans_dna.leaks import leak_report
    from titans_dna.regions import Region, iter_regions, iter_windows, read_bed
    from titans_dna.report import score_report
    from titans_dna.sequences import Sequences, iter_sequences, read_sequences

# Names are imported when they are first asked for (PEP 562): `titans-dna --help` needs no torch.
_HOMES = {
    "BackboneConfig": "titans_core.config",
    "FastaError": "titans_dna.fasta",
    "KmerBaseline": "titans_dna.kmers",
    "NeuralMemoryConfig": "titans_core.config",
    "Region": "titans_dna.regions",
    "Sequences": "titans_dna.sequences",
    "TitansDNAClassifier": "titans_dna.classifier",
    "TrainingConfig": "titans_core.training_config",
    "dataset_info": "titans_dna.datasets",
    "homology_groups": "titans_dna.homology",
    "homology_split": "titans_dna.homology",
    "iter_fasta": "titans_dna.fasta",
    "iter_pieces": "titans_dna.fasta",
    "iter_regions": "titans_dna.regions",
    "iter_sequences": "titans_dna.sequences",
    "iter_windows": "titans_dna.regions",
    "leak_report": "titans_dna.leaks",
    "list_datasets": "titans_dna.datasets",
    "load_dataset": "titans_dna.datasets",
    "open_fasta": "titans_dna.fasta",
    "read_bed": "titans_dna.regions",
    "read_sequences": "titans_dna.sequences",
    "score_report": "titans_dna.report",
}

__all__ = [
    "BackboneConfig",
    "FastaError",
    "KmerBaseline",
    "NeuralMemoryConfig",
    "Region",
    "Sequences",
    "TitansDNAClassifier",
    "TrainingConfig",
    "dataset_info",
    "homology_groups",
    "homology_split",
    "iter_fasta",
    "iter_pieces",
    "iter_regions",
    "iter_sequences",
    "iter_windows",
    "leak_report",
    "list_datasets",
    "load_dataset",
    "open_fasta",
    "read_bed",
    "read_sequences",
    "score_report",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
