"""Panels as shops have them: other weekdays, a few rows, no change at all, other price levels."""

from __future__ import annotations

from pathlib import Path
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


@pytest.mark.parametrize("count", [10, 40])
def test_a_series_without_a_promotion_so_far_expects_what_it_did_to_others(count: int) -> None:
    tables = [sales(f"s{i:02}", seed=i) for i in range(count)]
    never = tables[2]["promo"] > 0
    tables[2].loc[never, "y"] -= EFFECT
    tables[2]["promo"] = 0.0
    forecaster = TitansForecaster(7, 28, future_covariates=["promo"], **OPTIONS)
    forecaster.fit(pd.concat(tables))

    def asked(promo: float) -> np.ndarray:
        future = pd.concat(ahead_of(table, 7, "D", promo) for table in tables)
        return forecaster.predict(future=future)["y"].to_numpy().reshape(count, 7)

    gained = (asked(1.0) - asked(0.0)).mean(axis=1)
    assert gained[[2, 3]] == pytest.approx([EFFECT * 0.8, EFFECT], rel=0.25)  # its scale is smaller


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


def priced(key: str, level: float, rows: int = 300, seed: int = 0) -> pd.DataFrame:
    """Promotions are a fifth off a price of this level."""
    table = sales(key, rows, seed=seed)
    return table.assign(price=level * (1 - 0.2 * table["promo"])).drop(columns="promo")


@pytest.fixture(scope="module")
def shop() -> tuple[TitansForecaster, pd.DataFrame]:
    levels = 10 ** np.random.default_rng(0).uniform(0, 2.5, 12)
    table = pd.concat(priced(f"s{i:02}", level, seed=i) for i, level in enumerate(levels))
    forecaster = TitansForecaster(7, 28, future_covariates=["price"], **OPTIONS)
    return forecaster.fit(table[table.groupby("unique_id").cumcount() < 280]), table


def cut(table: pd.DataFrame, share: float, rows: int = 7) -> pd.DataFrame:
    """The price ahead of each series is this share of its highest."""
    highest = table.groupby("unique_id")["price"].max()
    ends = table.groupby("unique_id")["ds"].max()
    return pd.concat(
        pd.DataFrame(
            {
                "unique_id": key,
                "ds": pd.date_range(ends[key], periods=rows + 1, freq="D")[1:],
                "price": share * highest[key],
            }
        )
        for key in highest.index
    )


def test_prices_act_by_what_they_are_to_their_own_level(
    shop: tuple[TitansForecaster, pd.DataFrame], tmp_path: Path
) -> None:
    forecaster, table = shop
    known = table[table.groupby("unique_id").cumcount() < 280]

    def gained(model: TitansForecaster, rows: pd.DataFrame, **context: Any) -> np.ndarray:
        low, high = (
            model.predict(future=cut(rows, share), **context)["y"].to_numpy().reshape(-1, 7)
            for share in (0.8, 1.0)
        )
        return (low - high).mean(axis=1)

    by_series = gained(forecaster, known)
    assert by_series == pytest.approx(np.full(12, EFFECT), rel=0.3), "cheap and dear alike"
    for level in (0.5, 40.0, 9000.0):  # of a series that was not fitted
        new = priced("new", level, 100, seed=77)
        assert gained(forecaster, new, context=new) == pytest.approx([EFFECT], rel=0.3)
    explained = forecaster.explain(future=cut(known, 0.8)).frame
    total = explained.groupby(["unique_id", "step"])["contribution"].sum().to_numpy()
    answer = forecaster.predict(future=cut(known, 0.8))["y"].to_numpy()
    np.testing.assert_allclose(total, answer, rtol=1e-9)
    forecaster.save(tmp_path / "shop.titans")
    other = TitansForecaster.load(tmp_path / "shop.titans")
    np.testing.assert_array_equal(gained(other, known), by_series)
    new = priced("new", 3.0, 60, seed=5)
    np.testing.assert_array_equal(
        gained(other, new, context=new), gained(forecaster, new, context=new)
    )


def test_nothing_that_comes_later_tells_the_level_of_a_price(
    shop: tuple[TitansForecaster, pd.DataFrame],
) -> None:
    _, table = shop
    early = table[table.groupby("unique_id").cumcount() < 240]
    forecaster = TitansForecaster(7, 28, future_covariates=["price"], **OPTIONS)
    answers = []
    for garbage in (1.0, 50.0):
        forecaster.fit(early)
        later = table[table.groupby("unique_id").cumcount().between(240, 259)]
        future = cut(early, 0.8)
        answers.append(forecaster.predict(future=future)["y"].to_numpy())
        forecaster.update(later.assign(price=later["price"] * garbage))
    np.testing.assert_array_equal(*answers)


def test_prices_are_relative_before_a_forecast_too() -> None:
    """As past covariates: a price that was cut yesterday tells that sales are high today."""
    errors = []
    for relative in (False, True):
        tables = []
        for i, level in enumerate(10 ** np.random.default_rng(1).uniform(0, 2.5, 12)):
            table = priced(f"s{i:02}", 1.0 if relative else level, seed=i)
            table["price"] = table.groupby("unique_id")["price"].shift(-1).ffill()
            tables.append(table)
        y = pd.concat(tables)
        place = y.groupby("unique_id").cumcount()
        forecaster = TitansForecaster(1, 28, past_covariates=["price"], **OPTIONS)
        forecaster.fit(y[place < 260])
        off = []
        for row in range(260, 290):
            truth = y.loc[place == row, "y"].to_numpy()
            off.append(forecaster.predict()["y"].to_numpy() - truth)
            forecaster.update(y[place == row], learn=False)
        errors.append(np.sqrt(np.square(off).mean()))
    assert errors[0] == pytest.approx(errors[1], rel=0.1)
    assert errors[1] < 15, "22 without the price"


def test_levels_that_are_no_prices_are_warned_of() -> None:
    tables = [
        sales(f"s{i}", 200, seed=i).assign(
            depth=[-500.0, -30.0, 20.0, 400.0][i] + np.random.default_rng(i).random(200)
        )
        for i in range(4)
    ]
    forecaster = TitansForecaster(7, 28, future_covariates=["depth"], **OPTIONS)
    with pytest.warns(UserWarning, match="covariate 'depth' lie .* times as far apart between"):
        forecaster.fit(pd.concat(tables))


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
