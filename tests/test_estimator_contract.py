"""Both heads keep the promises of `estimator_contract`, and the DNA head also on numbers."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from estimator_contract import CHECKS, Subject

from titans_core import BackboneConfig, NeuralMemoryConfig
from titans_core.training import TrainingConfig
from titans_dna import TitansDNAClassifier
from titans_ts import TitansForecaster

TRAINING = TrainingConfig(max_steps=12, validate_every=6)
BACKBONE = BackboneConfig(memory=NeuralMemoryConfig(dim=8, chunk_size=4), num_blocks=1)


def series(rows: int, channels: int) -> np.ndarray:
    steps = np.random.default_rng(channels).normal(size=(rows, channels))
    return steps.cumsum(axis=0)


def reads(classes: dict[str, float], n: int = 15, length: int | None = None) -> tuple[Any, Any]:
    """Sequences of each class, which has its own share of G and C."""
    rng = np.random.default_rng(0)
    X, y = [], []
    for label, share in classes.items():
        for _ in range(n):
            bases = rng.integers(20, 40) if length is None else length
            p = [(1 - share) / 2, share / 2, share / 2, (1 - share) / 2]
            X.append("".join(rng.choice(list("ACGT"), bases, p=p)))
            y.append(label)
    return X, y


def points(columns: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(columns)
    y = np.arange(36) % classes
    return rng.normal(size=(36, columns)) + y[:, None], y


def forecaster() -> Subject:
    y = series(140, 2)
    spoiled = y.copy()
    spoiled[77, 0] = np.inf
    context = series(40, 2)
    return Subject(
        name="forecaster",
        estimator=TitansForecaster,
        params={
            "prediction_length": 3,
            "context_length": 10,
            "patch_length": 5,
            "backbone": BACKBONE,
            "training": TRAINING,
            "progress": False,
        },
        data=(y,),
        other=(series(120, 3),),
        bad=[(spoiled,), (y[:12],), ("history.csv",), (np.zeros((3, 4, 5)),)],
        answer=lambda f: [
            f.predict(),
            f.predict_quantiles(),
            f.predict_interval(),
            f.sample_paths(5),
            f.n_features_in_,
        ],
        methods={
            "predict": lambda f: f.predict(),
            "predict_quantiles": lambda f: f.predict_quantiles(),
            "predict_interval": lambda f: f.predict_interval(),
            "sample_paths": lambda f: f.sample_paths(5),
            "update": lambda f: f.update(context),
            "save": lambda f: f.save("nowhere"),
            "snapshot": lambda f: f.snapshot(),
        },
        wrong=("prediction_length", 0, "an int >= 1"),
    )


DNA_PARAMS: dict[str, Any] = {
    "n_networks": 1,
    "backbone": BACKBONE,
    "training": TRAINING,
    "progress": False,
}


def classifier(name: str, data: Any, other: Any, bad: Any, unseen: Any) -> Subject:
    """The classifier on some kind of input."""

    def answer(fitted: TitansDNAClassifier) -> list[Any]:
        asked = unseen(fitted)
        return [
            fitted.predict(asked),
            fitted.predict_proba(asked),
            fitted.decision_function(asked),
            fitted.transform(asked),
            fitted.predict_frame(asked),
            fitted.classes_,
            fitted.held_out_,
            fitted.held_out_probabilities_,
        ]

    X = data[0]
    return Subject(
        name=name,
        estimator=TitansDNAClassifier,
        params=DNA_PARAMS,
        data=data,
        other=other,
        bad=bad,
        answer=answer,
        methods={
            "predict": lambda c: c.predict(X),
            "predict_proba": lambda c: c.predict_proba(X),
            "predict_log_proba": lambda c: c.predict_log_proba(X),
            "decision_function": lambda c: c.decision_function(X),
            "predict_frame": lambda c: c.predict_frame(X),
            "iter_predict": lambda c: list(c.iter_predict(X)),
            "transform": lambda c: c.transform(X),
            "score": lambda c: c.score(*data),
            "score_report": lambda c: c.score_report(*data),
            "save": lambda c: c.save("nowhere"),
        },
        wrong=("n_networks", 0, "an int >= 1"),
    )


def on_ragged_sequences() -> Subject:
    X, y = reads({"poor": 0.2, "rich": 0.8})
    numbers, digits = points(4, 2)
    return classifier(
        "classifier of ragged sequences",
        data=(X, y),
        other=reads({"a": 0.1, "b": 0.5, "c": 0.9}, n=10),
        bad=[
            (X, ["one"] * len(X)),
            (X, y[:-1]),
            ([*X[:-1], "ACE"], y),
            (X, None),
            (numbers, np.zeros(36, int)),
            (numbers, digits + 0.5),
            ([], []),
        ],
        unseen=lambda _: ["ACGTN" * 5, "AATTA" * 9, "GCRYS" * 7, "A"],
    )


def on_aligned_sequences() -> Subject:
    X, y = reads({"poor": 0.3, "rich": 0.7}, length=24)
    return classifier(
        "classifier of aligned sequences",
        data=(np.array(X), np.array(y)),
        other=reads({"a": 0.3, "b": 0.7}, length=31),
        bad=[(X, ["one"] * len(X)), (X, y[:-1])],
        unseen=lambda c: [s * (c.length_ // len(s)) + s[: c.length_ % len(s)] for s in "ACN"],
    )


def on_numbers() -> Subject:
    X, y = points(5, 2)
    spoiled = X.copy()
    spoiled[3, 1] = np.inf
    sequences, labels = reads({"a": 0.1, "b": 0.9}, n=5)
    return classifier(
        "classifier of numbers",
        data=(X, y),
        other=points(7, 3),
        bad=[
            (X, np.zeros(36, int)),
            (X[:, :3], np.zeros(36, int)),
            (spoiled, y),
            (X, y[:-1]),
            (sequences, labels[:-1]),
        ],
        unseen=lambda c: np.linspace(-2, 3, 4 * c.n_features_in_).reshape(4, -1),
    )


SUBJECTS = [forecaster(), on_ragged_sequences(), on_numbers()]
# What is learned of places is another thing to store; all else is the same as for other sequences.
ALIGNED = on_aligned_sequences()
STORING = [check for check in CHECKS if "bit_for_bit" in check.__name__]
PAIRS = [
    *itertools.product(SUBJECTS, CHECKS),
    *itertools.product([ALIGNED], STORING),
]


@pytest.mark.parametrize(
    ("subject", "check"), PAIRS, ids=[f"{s.name}-{check.__name__}" for s, check in PAIRS]
)
def test_estimators_keep_their_promises(
    subject: Subject,
    check: Callable[..., None],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    given = {"subject": subject, "tmp_path": tmp_path, "capfd": capfd}
    check(**{name: given[name] for name in inspect.signature(check).parameters})
