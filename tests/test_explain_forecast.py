"""Contributions: they sum to the forecast, and are those of the parts they are named after."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest
from covariate_inputs import sales, shops

from titans_ts import TitansForecaster, TrainingConfig

P = 7
SHOPS = {
    "future_covariates": ("temp", "kind"),
    "past_covariates": ("visits",),
    "static_covariates": ("town",),
}
FUTURE_PARTS = ["future temp", "future kind=holiday", "future kind=plain"]


@pytest.fixture(scope="module")
def table():
    return shops()


@pytest.fixture(scope="module")
def fitted(table):
    training = TrainingConfig(max_steps=50, validate_every=25)
    forecaster = TitansForecaster(P, 28, patch_length=7, training=training, progress=False, **SHOPS)
    return forecaster.fit(table[table.ds < "2019-08-20"])


def ahead_of(table):
    when = (table.ds >= "2019-08-20") & (table.ds < "2019-08-27")
    return table[when].drop(columns=["y", "visits"])


def test_contributions_sum_to_the_forecast(table, fitted):
    future = ahead_of(table)
    frame = fitted.explain(future=future).frame
    assert list(frame.columns) == ["unique_id", "ds", "channel", "part", "step", "contribution"]
    assert frame["part"].unique().tolist() == [
        "level",
        "linear",
        "past covariates",
        *FUTURE_PARTS,
        "network",
        "memory as trained",
        "memory in the window",
        "memory before it",
    ]
    total = frame.groupby(["unique_id", "ds"])["contribution"].sum().reset_index()
    both = total.merge(fitted.predict(future=future), on=["unique_id", "ds"])
    assert len(both) == 3 * P
    np.testing.assert_allclose(both["contribution"], both["y"], rtol=1e-12)
    assert "future temp" in repr(fitted.explain(future=future))


def test_a_future_covariate_contributes_its_effect(table, fitted):
    frame = fitted.explain(future=ahead_of(table)).frame
    found = frame[(frame["part"] == "future temp") & (frame["unique_id"] == "shop1")]
    covariates, scaler = fitted.model_.covariates, fitted.model_.scalers[1]
    temp = ahead_of(table).query("unique_id == 'shop1'")["temp"].to_numpy()
    scaled = (temp - covariates.future.level[0]) / covariates.future.scale[0]
    expected = scaled * covariates.weights[1, 0] * scaler.scale[0]
    np.testing.assert_allclose(found["contribution"], expected)


def test_the_memory_contributes_what_vanishes_without_it(table, fitted):
    # Ways of using the memory are told apart where it is asked; where it is not they are zero.
    explanation = fitted.explain(future=ahead_of(table))
    admission = fitted.model_.residual.streaming
    memory = explanation.values[..., -3:]
    assert np.any(memory) == (admission.asks_memory and bool(admission.gate.any()))
    if not fitted.model_.residual.uses_memory:
        assert not memory[..., -1].any()
    assert sum(explanation.share().values()) == pytest.approx(1)


@pytest.mark.parametrize("kind", ["numpy", "arrays", "series", "pandas", "polars", "pyarrow"])
def test_every_kind_of_series_is_explained(kind):
    frame = sales(200)[["y", "temp"]]
    y = {
        "numpy": frame.to_numpy(),
        "arrays": [frame.to_numpy(), frame.to_numpy()[20:]],
        "series": frame["y"],
        "pandas": frame,
        "polars": pl.from_pandas(frame.reset_index()),
        "pyarrow": pl.from_pandas(frame.reset_index()).to_arrow(),
    }[kind]
    forecaster = TitansForecaster(P, 28, use_network=False).fit(y)
    explanation = forecaster.explain()
    assert explanation.parts == ("level", "linear")
    np.testing.assert_allclose(explanation.values.sum(axis=-1), forecaster._forecast_all()[0])
    found = explanation.frame
    assert type(found).__module__.split(".")[0] == (
        kind if kind in ("polars", "pyarrow") else "pandas"
    )
    table = found if isinstance(found, pd.DataFrame) else found.to_pandas()
    assert table["contribution"].sum() == pytest.approx(explanation.values.sum())
    assert ("ds" in table) == (kind not in ("numpy", "arrays"))
    assert ("unique_id" in table) == (kind == "arrays")


def test_a_constant_channel_is_its_level():
    y = np.column_stack([sales(200)["y"], np.full(200, 3.0)])
    values = TitansForecaster(P, 28, use_network=False).fit(y).explain().values
    np.testing.assert_array_equal(values[0, :, 1], [[3.0, 0.0]] * P)


def test_a_context_is_explained_as_it_is_forecast(table, fitted):
    context = table[table.ds < "2019-08-20"].replace({"unique_id": {"shop2": "new"}})
    future = ahead_of(table).replace({"unique_id": {"shop2": "new"}})
    explanation = fitted.explain(context=context, future=future)
    forecast = fitted.predict(context=context, future=future)
    np.testing.assert_allclose(explanation.values.sum(axis=-1).ravel(), forecast["y"], rtol=1e-12)
