"""Panels as shops have them: other weekdays, a few rows, no change at all, other price levels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from titans_ts import TitansForecaster

OPTIONS: dict[str, Any] = {"use_network": False, "progress": False, "target_columns": ["y"]}
EFFECT = 50.0


def sales(
    key: str, rows: int = 300, *, freq: str = "D", seed: int = 0, tz: str | None = None
) -> pd.DataFrame:
    """A weekly season of level 100 and noise of 10, and 50 more wherever there is a promotion."""
    rng, t = np.random.default_rng(seed), np.arange(rows)
    promo = (rng.random(rows) < 0.15).astype(float)
    y = 100 * (1 + 0.3 * np.sin(2 * np.pi * t / 7) + 0.1 * rng.normal(size=rows)) + EFFECT * promo
    times = pd.date_range("2020-01-01", periods=rows, freq=freq, tz=tz)
    return pd.DataFrame({"unique_id": key, "ds": times, "y": y, "promo": promo})


def ahead_of(table: pd.DataFrame, rows: int, freq: str, promo: Any) -> pd.DataFrame:
    times = pd.date_range(table["ds"].max(), periods=rows + 1, freq=freq)[1:]
    key = table["unique_id"].iloc[0]
    return pd.DataFrame({"unique_id": key, "ds": times, "promo": promo})


@pytest.mark.parametrize("tz", [None, "Europe/Berlin"])
def test_weeks_of_every_series_begin_on_its_own_day(tz: str | None) -> None:
    days = {"a": "W-SUN", "b": "W-MON", "c": "W-WED"}
    tables = {k: sales(k, 150, freq=f, seed=i, tz=tz) for i, (k, f) in enumerate(days.items())}
    forecaster = TitansForecaster(4, 24, future_covariates=["promo"], **OPTIONS)
    forecaster.fit(pd.concat(tables.values()))
    promo = [0.0, 1.0, 0.0, 0.0]
    future = pd.concat(ahead_of(table, 4, days[k], promo) for k, table in tables.items())
    answer = forecaster.predict(future=future)
    pd.testing.assert_frame_equal(
        answer[["unique_id", "ds"]], future[["unique_id", "ds"]].reset_index(drop=True)
    )
    by_series = answer["y"].to_numpy().reshape(3, 4)
    assert (by_series[:, 1] - by_series[:, [0, 2, 3]].mean(axis=1) > EFFECT / 2).all()
    new = sales("new", 150, freq="W-THU", seed=9, tz=tz)
    found = forecaster.predict(context=new, future=ahead_of(new, 4, "W-THU", 0.0))
    assert (found["ds"].dt.day_name() == "Thursday").all()
    forecaster.update(
        ahead_of(tables["b"], 1, "W-MON", 0.0).assign(y=100.0)  # the Monday that is due
    )
    backtest = forecaster.backtest(pd.concat(tables.values()), 2, progress=False).frame
    named = backtest.groupby("unique_id")["ds"].agg(lambda ds: set(ds.dt.day_name()))
    assert named.to_dict() == {"a": {"Sunday"}, "b": {"Monday"}, "c": {"Wednesday"}}


@pytest.mark.parametrize("rows", [1, 8, 60])
def test_covariates_of_series_shorter_than_the_look_back_go_with_the_others(rows: int) -> None:
    long, short = sales("long", 500), sales("short", rows, seed=1)
    forecaster = TitansForecaster(14, 56, future_covariates=["promo"], **OPTIONS)
    forecaster.fit(pd.concat([long, short]))

    def asked(promo: float) -> np.ndarray:
        tables = [ahead_of(table, 14, "D", promo) for table in (long, short)]
        return forecaster.predict(future=pd.concat(tables))["y"].to_numpy().reshape(2, 14)

    gained = (asked(1.0) - asked(0.0)).mean(axis=1)
    assert gained[0] == pytest.approx(EFFECT, rel=0.2)
    if rows == 60:  # of fewer, the scale is not known well
        assert gained[1] == pytest.approx(EFFECT, rel=0.5)


@pytest.mark.parametrize("still", [0, 1, 3])
def test_series_that_never_move_say_nothing_of_effects_on_others(still: int) -> None:
    tables = [sales(f"s{i}", seed=i) for i in range(10)]
    tables += [sales(f"still{i}").assign(y=7.0) for i in range(still)]
    forecaster = TitansForecaster(7, 28, future_covariates=["promo"], **OPTIONS)
    forecaster.fit(pd.concat(tables))
    new = sales("new", 100, seed=99)

    def asked(promo: float) -> Any:
        return forecaster.predict(context=new, future=ahead_of(new, 7, "D", promo))["y"].mean()

    assert asked(1.0) - asked(0.0) == pytest.approx(EFFECT, rel=0.2)
    future = pd.concat(ahead_of(table, 7, "D", 1.0) for table in tables)
    answer = forecaster.predict(future=future)
    assert (answer.loc[answer["unique_id"].str.startswith("still"), "y"] == 7).all()


def test_one_series_that_begins_to_move_does_not_decide_a_backtest() -> None:
    tables = [sales(f"s{i}", 200, seed=i) for i in range(6)]
    launched = sales("launched", 200, seed=50)
    launched.loc[:169, "y"] = 0.0
    forecaster = TitansForecaster(6, 24, **OPTIONS)

    def skill(*more: pd.DataFrame) -> tuple[Any, Any]:
        result = forecaster.backtest(pd.concat([*tables, *more]), 5, progress=False)
        summary = result.summary().set_index("model")
        return summary, str(result)

    alone, _ = skill()
    among, said = skill(launched)
    assert among.loc["Naive", "skill"] == pytest.approx(alone.loc["Naive", "skill"], abs=0.05)
    assert "7 channels" in said
    assert "Skill is without 1 that did not vary before the first cutoff." in said
    same, _ = skill(launched.assign(y=7.0))
    assert np.isfinite(same["mase"]).all(), "one that never moves has no MASE: the others have"
    np.testing.assert_allclose(same["mase"], alone["mase"], rtol=0.02)


def test_prices_of_levels_of_their_own_are_warned_of() -> None:
    rng = np.random.default_rng(0)
    tables = []
    for i, level in enumerate([1.0, 10.0, 100.0, 1000.0]):
        table = sales(f"s{i}", 200, seed=i)
        relative = 1 - 0.2 * table["promo"] + 0.01 * rng.random(200)
        tables.append(table.assign(price=level * relative, relative=relative))
    y = pd.concat(tables)
    with pytest.warns(UserWarning, match="covariate 'price' lie .* times as far apart between"):
        TitansForecaster(7, 28, future_covariates=["price"], **OPTIONS).fit(y)
    for roles in ({"future_covariates": ["relative"]}, {"past_covariates": ["promo"]}):
        TitansForecaster(7, 28, **roles, **OPTIONS).fit(y)  # warnings are errors here


def test_another_static_covariate_in_update_is_refused_and_nothing_has_moved() -> None:
    tables = [sales(f"s{i}", 120, seed=i).assign(region="nsw"[i]) for i in range(3)]
    y = pd.concat(tables).drop(columns="promo")
    forecaster = TitansForecaster(7, 28, static_covariates=["region"], **OPTIONS)
    forecaster.fit(y[y["ds"] < "2020-04-20"])
    before = forecaster.predict()
    rows = y[y["ds"] >= "2020-04-20"]
    with pytest.raises(ValueError, match="other static covariates of series 's1' than"):
        forecaster.update(rows.assign(region="n"))
    pd.testing.assert_frame_equal(forecaster.predict(), before)
    forecaster.update(rows)
