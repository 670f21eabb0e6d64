"""Series that know fewer rows than the look-back: forecast, and with intervals that hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from titans_ts import TitansForecaster
from titans_ts.channels import Channels
from titans_ts.linear import LinearPart
from titans_ts.shortness import Shortness
from titans_ts.windows import PatchClock, normalise

L, P, SEASON = 96, 12, 24


def season(rows: int, level: float, rng: np.random.Generator) -> np.ndarray:
    """A season of random phase, with noise of a tenth of the level."""
    t = np.arange(rows) + rng.integers(SEASON)
    return level * (1 + 0.5 * np.sin(2 * np.pi * t / SEASON) + 0.1 * rng.normal(size=rows))


@pytest.fixture(scope="module")
def panel() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [season(600, 10 ** rng.uniform(0, 2), rng) for _ in range(8)]


@pytest.fixture(scope="module")
def forecaster(panel: list[np.ndarray]) -> TitansForecaster:
    return TitansForecaster(P, L, use_network=False, progress=False).fit(panel)


@pytest.mark.parametrize("rows", [1, 3, 10, 24, 48, L - 1, L])
def test_intervals_of_new_short_series_hold_the_truth(
    forecaster: TitansForecaster, rows: int
) -> None:
    rng = np.random.default_rng(rows)
    whole = [season(rows + P, 50.0, rng) for _ in range(60)]
    inside = []
    for y in whole:
        lower, upper = forecaster.predict_interval(0.8, context=y[:rows]).squeeze().T
        inside.append((lower <= y[rows:]) & (y[rows:] <= upper))
    # Errors of a series go together: the share is of about as many as there are series.
    assert 0.68 < np.mean(inside) <= (0.9 if rows > 48 else 1.0)


def test_a_day_and_a_half_is_enough_to_beat_the_last_value(forecaster: TitansForecaster) -> None:
    rng = np.random.default_rng(1)
    whole = [season(36 + P, 50.0, rng) for _ in range(40)]
    found = [forecaster.predict(context=y[:36]) for y in whole]
    truth = np.stack([y[36:] for y in whole])
    naive = np.stack([np.full(P, y[35]) for y in whole])
    assert np.abs(found - truth).mean() < 0.7 * np.abs(naive - truth).mean()


def test_the_fewer_the_rows_the_wider(
    forecaster: TitansForecaster, panel: list[np.ndarray]
) -> None:
    def width(rows: int) -> float:
        low, high = forecaster.predict_quantiles([0.1, 0.9], context=panel[0][-rows:]).T
        scale = panel[0][-rows:].std()
        return float((high - low).mean() / scale)

    assert width(3) > width(12) > width(48) > width(L)


def test_growth_is_that_of_errors_of_cut_windows_and_one_for_whole_ones() -> None:
    rng = np.random.default_rng(2)
    z = season(900, 1.0, rng)[:, None]
    z = (z - z.mean()) / z.std()
    channels = Channels.join([z], [700])
    linear = TitansForecaster(P, L, use_network=False, progress=False).fit(z[:700])
    part: LinearPart = linear._standing.linear
    found = Shortness.fit(channels, part, PatchClock(L, 16))
    origins = np.arange(700, 900 - P + 1)
    rows = 32
    errors = []
    for whole in (False, True):
        scaled = []
        for origin in origins:
            window, target = z[origin - L : origin, 0], z[origin : origin + P, 0]
            if not whole:
                kept = window[-rows:]
                target = (target - kept.mean()) / kept.std()
                kept = (kept - kept.mean()) / kept.std()
                window = np.concatenate([np.full(L - rows, kept[0]), kept])
            channel = np.array([0 if whole else -1])
            error = np.abs(target - part.predict(window[None], channel)[0])
            scaled.append(error / normalise(window[None])[1][0])
        errors.append(np.quantile(scaled, 0.9, axis=0))
    own = errors[0] / errors[1]
    np.testing.assert_allclose(
        found.growth[found.rows == rows][0],
        np.maximum(own, np.maximum(found.growth[found.rows == 64][0], 1)),
    )
    assert (found.of(np.array([L])) == 1).all()
    assert (found.growth >= 1).all()
    assert (np.diff(found.growth[1:], axis=0) <= 0).all()


def test_nothing_is_said_where_no_window_was_validated() -> None:
    z = np.random.default_rng(3).normal(size=(60, 1))
    linear = TitansForecaster(4, 8, use_network=False, progress=False).fit(z)._standing.linear
    nothing = Channels.join([z[:50]], [50])
    assert (Shortness.fit(nothing, linear, PatchClock(8, 4)).growth == 1).all()


def test_single_rows_of_a_fitted_panel_borrow_the_scale_of_those_that_have_one(
    panel: list[np.ndarray],
) -> None:
    rng = np.random.default_rng(5)
    whole = [season(1 + P, 10 ** rng.uniform(0, 4), rng) for _ in range(40)]  # most of the panel
    forecaster = TitansForecaster(P, L, use_network=False, progress=False)
    forecaster.fit([*panel, *(y[:1] for y in whole)])
    found = np.stack(forecaster.predict_interval(0.8)[len(panel) :])
    lower, upper = found.reshape(len(whole), P, 2).transpose(2, 0, 1)
    truth = np.stack([y[1:] for y in whole])
    assert 0.6 < ((lower <= truth) & (truth <= upper)).mean() < 0.95


def test_a_new_id_of_a_long_table_may_have_few_rows(panel: list[np.ndarray]) -> None:
    times = pd.date_range("2024-01-01", periods=600, freq="h")
    table = pd.concat(
        pd.DataFrame({"unique_id": f"s{i}", "ds": times, "y": y}) for i, y in enumerate(panel)
    )
    forecaster = TitansForecaster(P, L, use_network=False, progress=False).fit(table)
    new = pd.DataFrame({"unique_id": "new", "ds": times[:30], "y": panel[0][:30] * 7})
    found = forecaster.predict(context=pd.concat([new, table[table["unique_id"] == "s1"]]))
    assert found["unique_id"].tolist() == ["new"] * P + ["s1"] * P
    assert found["ds"].iloc[0] == times[30]
    level = new["y"].mean()
    assert (np.abs(found["y"][:P] / level - 1) < 0.8).all()


def test_a_channel_that_has_just_begun_is_less_sure_until_it_fills_a_window() -> None:
    rng = np.random.default_rng(4)
    y = np.stack([season(700, 10.0, rng) for _ in range(2)], axis=1)
    y[:560, 1] = np.nan
    options = {"validation_size": 24, "use_network": False, "progress": False}
    forecaster = TitansForecaster(P, L, **options).fit(y[:600])

    def growth() -> np.ndarray:
        (stream,) = forecaster._standing.streams.values()
        return forecaster.model_.shortness.of(stream.rows_since_begun(L)).max(axis=1)

    before = growth()
    assert before[0] == 1 < before[1]
    forecaster.update(y[600:615])
    assert 1 < growth()[1] < before[1]
    forecaster.update(y[615:])
    assert (growth() == 1).all()


def test_a_saved_forecaster_knows_how_sure_it_is(
    forecaster: TitansForecaster, panel: list[np.ndarray], tmp_path: Path
) -> None:
    forecaster.save(tmp_path / "model.titans")
    other = TitansForecaster.load(tmp_path / "model.titans")
    context = panel[3][:20]
    np.testing.assert_array_equal(
        other.predict_interval(0.8, context=context),
        forecaster.predict_interval(0.8, context=context),
    )


def test_arrays_of_a_list_are_not_taken_for_new_series(
    forecaster: TitansForecaster, panel: list[np.ndarray]
) -> None:
    with pytest.raises(ValueError, match=r"context holds 1 arrays; .* fitted on 8, .* by itself"):
        forecaster.predict(context=[panel[3]])
    by_place = forecaster.predict(context=panel)[3]
    np.testing.assert_allclose(forecaster.predict(context=panel[3]), by_place, rtol=0.05)
