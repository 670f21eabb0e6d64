"""scikit-learn's own suite on matrices of numbers, and its tools on lists of DNA."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import FunctionTransformer, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

from titans_core import BackboneConfig, NeuralMemoryConfig
from titans_core.training import TrainingConfig
from titans_dna import TitansDNAClassifier

FAST: dict[str, Any] = {
    "n_networks": 1,
    "backbone": BackboneConfig(memory=NeuralMemoryConfig(dim=8), num_blocks=1),
    "training": TrainingConfig(max_steps=6, validate_every=6),
    "progress": False,
}
QUICKEST = {**FAST, "linear": False, "reverse_complement": None}
# Skipped by scikit-learn itself unless SCIPY_ARRAY_API was set before anything was imported.
_NEEDS_ENVIRONMENT = {"check_array_api_input"}
SUITE = [
    check
    for _, check in estimator_checks_generator(TitansDNAClassifier(**FAST))
    if check.func.__name__ not in _NEEDS_ENVIRONMENT
]


def _title(check: Any) -> str:
    options = [f"{name}={value}" for name, value in check.keywords.items()]
    return "-".join([check.func.__name__, *options])


@pytest.mark.parametrize("check", SUITE, ids=_title)
def test_the_whole_suite_of_scikit_learn(check: Callable[[Any], None]) -> None:
    check(TitansDNAClassifier(**FAST))


def test_the_suite_is_a_whole_one() -> None:
    names = {check.func.__name__ for check in SUITE}
    wanted = {
        "check_classifiers_train",
        "check_methods_subset_invariance",
        "check_transformer_general",
    }
    assert names >= wanted
    assert len(SUITE) > 50


@pytest.fixture(scope="module")
def reads() -> tuple[list[str], list[str]]:
    rng = np.random.default_rng(0)
    X, y = [], []
    for row in range(36):
        share = (0.15, 0.35)[row % 2]
        p = [0.5 - share, share, share, 0.5 - share]
        X.append("".join(rng.choice(list("ACGT"), rng.integers(20, 50), p=p)))
        y.append(("poor", "rich")[row % 2])
    return X, y


@pytest.fixture(scope="module")
def numbers() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = np.arange(36) % 2
    return rng.normal(size=(36, 6)) + 2 * y[:, None], y


@pytest.fixture(params=["reads", "numbers"])
def data(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def test_cross_validation(data: Any) -> None:
    classifier = TitansDNAClassifier(**QUICKEST)
    assert cross_val_score(classifier, *data, cv=2).mean() > 0.8
    p = cross_val_predict(clone(classifier), *data, cv=2, method="predict_proba")
    np.testing.assert_allclose(p.sum(1), 1)


def test_a_grid_search_finds_what_is_best_and_refits_it(data: Any) -> None:
    grid = {"class_weight": [None, "balanced"], "n_networks": [1]}
    search = GridSearchCV(TitansDNAClassifier(**QUICKEST), grid, cv=2).fit(*data)
    assert search.best_params_.keys() == grid.keys()
    assert search.best_estimator_.class_weight == search.best_params_["class_weight"]
    assert search.predict(data[0][:3]).shape == (3,)
    assert list(search.classes_) == sorted(set(data[1]))


def test_a_grid_may_be_of_numpy_values(numbers: Any) -> None:
    grid = {
        "linear": np.array([True, False]),
        "crop": np.array([64, 128]),
        "random_state": np.arange(1),
    }
    search = GridSearchCV(TitansDNAClassifier(**QUICKEST), grid, cv=2, error_score="raise")
    assert search.fit(*numbers).best_score_ > 0.5


def test_calibration_from_outside(data: Any) -> None:
    calibrated = CalibratedClassifierCV(TitansDNAClassifier(**QUICKEST), cv=2).fit(*data)
    p = calibrated.predict_proba(data[0])
    assert p.shape == (36, 2)
    assert calibrated.score(*data) > 0.8


def test_at_the_end_of_a_pipeline(reads: Any, numbers: Any) -> None:
    upper = FunctionTransformer(lambda X: [x.upper() for x in X])
    pipeline = make_pipeline(upper, TitansDNAClassifier(**QUICKEST))
    assert clone(pipeline).fit(*reads).score(*reads) > 0.8
    pipeline = make_pipeline(StandardScaler(), TitansDNAClassifier(**FAST))
    assert pipeline.fit(*numbers).score(*numbers) > 0.8
    assert pipeline.set_params(titansdnaclassifier__crop=99)[-1].crop == 99


def test_in_front_of_another_classifier(data: Any) -> None:
    X, y = data
    pipeline = make_pipeline(TitansDNAClassifier(**QUICKEST), LogisticRegression())
    assert pipeline.fit(X, y).score(X, y) > 0.8
    embedded = TitansDNAClassifier(**QUICKEST).fit_transform(X, y)
    assert embedded.shape == (36, pipeline[-1].n_features_in_)
    assert np.isfinite(embedded).all()


def test_columns_of_numbers_have_names(numbers: Any, tmp_path: Any) -> None:
    import pandas as pd

    X, y = numbers
    frame = pd.DataFrame(X, columns=list("abcdef"))
    classifier = TitansDNAClassifier(**QUICKEST).fit(frame, y)
    assert list(classifier.feature_names_in_) == list("abcdef")
    classifier.save(tmp_path / "model")
    loaded = TitansDNAClassifier.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_proba(frame), classifier.predict_proba(frame))
    with pytest.raises(ValueError, match="feature names should match"):
        loaded.predict(frame.rename(columns={"a": "z"}))


def test_embeddings_have_names_and_come_as_frames_where_that_is_asked_for(
    reads: tuple[list[str], list[str]],
) -> None:
    classifier = TitansDNAClassifier(**QUICKEST).fit(*reads)
    plain = classifier.transform(reads[0][:3])
    frame = classifier.set_output(transform="pandas").transform(reads[0][:3])
    names = [f"titansdnaclassifier{i}" for i in range(plain.shape[1])]
    assert frame.columns.tolist() == classifier.get_feature_names_out().tolist() == names
    np.testing.assert_array_equal(frame.to_numpy(), plain)
