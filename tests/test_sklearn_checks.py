"""scikit-learn's own suite on the forecaster, and its tools where they fit a series.

    python -m pytest tests/test_sklearn_checks.py

The suite is written for estimators whose `predict(X)` answers each row of X. A forecaster answers
what comes after them, and is asked how far: `predict(prediction_length, context)`. The checks that
fail for nothing but this signature are run again with X as the context.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import SkipTestWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from titans_core import BackboneConfig, NeuralMemoryConfig
from titans_core.training import TrainingConfig
from titans_ts import TitansForecaster

LINEAR: dict[str, Any] = {
    "prediction_length": 1,
    "context_length": 2,
    "use_network": False,
    "progress": False,
}
NETWORK: dict[str, Any] = {
    **LINEAR,
    "use_network": True,
    "patch_length": 2,
    "backbone": BackboneConfig(memory=NeuralMemoryConfig(dim=4), num_blocks=1),
    "training": TrainingConfig(max_steps=1, validate_every=1),
}

SIGNATURE = "predict(X) is predict(prediction_length): X goes in as context (run so below)"
ROWS = "a forecast follows all rows of X: it is not one answer a row, and their order matters"
EXPECTED = {
    "check_fit_score_takes_y": "the first argument is called y: the series is what is forecast",
    "check_fit1d": "a series of one channel may be one-dimensional",
    "check_dtype_object": f"{SIGNATURE}; what is no number is refused in words of our own",
    "check_estimators_dtypes": SIGNATURE,
    "check_estimators_pickle": SIGNATURE,
    "check_f_contiguous_array_estimator": SIGNATURE,
    "check_dict_unchanged": SIGNATURE,
    "check_fit_idempotent": SIGNATURE,
    "check_n_features_in_after_fitting": f"{SIGNATURE}; other columns are refused by their names",
    "check_fit2d_predict1d": f"{SIGNATURE}; too few columns are refused in words of our own",
    "check_methods_sample_order_invariance": ROWS,
    "check_methods_subset_invariance": ROWS,
}
AGAIN = {name for name, reason in EXPECTED.items() if reason == SIGNATURE}


class WithContext(TitansForecaster):
    """Forecasts what follows X, as scikit-learn would ask for it."""

    def predict(self, X: Any) -> Any:
        return super().predict(context=X)


def run_suite(forecaster: TitansForecaster) -> dict[str, set[str]]:
    """Names of the checks by what became of them."""
    with warnings.catch_warnings():
        # It passes a y that means nothing to a forecaster, of which we warn.
        warnings.filterwarnings("ignore", r"fit\(y, X\) learns from y alone", UserWarning)
        # Importing BaseEstimator takes as long as torch; what it would give, we have ourselves.
        warnings.filterwarnings("ignore", r".* does not inherit from `sklearn.base", UserWarning)
        # It skips its check of array API inputs unless an environment variable was set before all.
        warnings.filterwarnings("ignore", category=SkipTestWarning)
        results = check_estimator(forecaster, expected_failed_checks=EXPECTED)
    by_status: dict[str, set[str]] = {}
    for result in results:
        by_status.setdefault(result["status"], set()).add(result["check_name"])
    return by_status


@pytest.mark.parametrize("params", [LINEAR, NETWORK], ids=["linear", "network"])
def test_the_suite_runs_to_its_end_and_fails_where_it_is_said_to(params: dict[str, Any]) -> None:
    result = run_suite(TitansForecaster(**params))
    assert result.keys() <= {"passed", "xfail", "skipped"}
    assert result["xfail"] == EXPECTED.keys()
    assert result["skipped"] <= {"check_array_api_input"}
    assert len(result["passed"]) >= 25


@pytest.mark.parametrize("params", [LINEAR, NETWORK], ids=["linear", "network"])
def test_what_fails_for_the_signature_alone_holds_for_the_context(params: dict[str, Any]) -> None:
    result = run_suite(WithContext(**params))
    assert "failed" not in result
    assert result["passed"] >= AGAIN


def test_a_second_argument_of_fit_is_none_or_warned_of() -> None:
    y = np.random.default_rng(0).normal(size=(60, 2)).cumsum(axis=0)
    with pytest.warns(UserWarning, match=r"learns from y alone and ignores X; columns .* into y"):
        warned = TitansForecaster(**LINEAR).fit(y, y[:, 0])
    np.testing.assert_array_equal(
        warned.predict(), TitansForecaster(**LINEAR).fit(y, None).predict()
    )


def test_at_the_end_of_a_pipeline() -> None:
    y = np.random.default_rng(0).normal(size=(60, 2)).cumsum(axis=0)
    pipeline = clone(make_pipeline(StandardScaler(), TitansForecaster(**LINEAR))).fit(y)
    scaled = StandardScaler().fit_transform(y)
    expected = TitansForecaster(**LINEAR).fit(scaled).predict()
    np.testing.assert_array_equal(pipeline[-1].predict(), expected)


def test_sparse_and_complex_series_are_refused_with_the_cure() -> None:
    from scipy.sparse import csr_array

    with pytest.raises(TypeError, match=r"got a sparse csr_array\. Pass y\.toarray\(\)\."):
        TitansForecaster(**LINEAR).fit(csr_array(np.eye(30)))
    with pytest.raises(ValueError, match=r"Complex data not supported; y has dtype complex128"):
        TitansForecaster(**LINEAR).fit(np.ones((30, 2), dtype=complex))
