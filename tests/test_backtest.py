"""A backtest knows nothing of what comes after a cutoff, and counts as anyone would."""

from __future__ import annotations

import warnings
from functools import partial

import numpy as np
import pandas as pd
import polars as pl
import pytest
from backtest_inputs import Recorder, panel_of, panel_of_arrays, series_of
from sklearn.metrics import mean_absolute_error, mean_pinball_loss, mean_squared_error

from titans_ts import TitansForecaster, TrainingConfig
from titans_ts.backtest import backtest
from titans_ts.evaluation import naive_forecasts
from titans_ts.frames import Panel
from titans_ts.series_kinds import Layout

P, L, T = 6, 24, 240
MODELS = ["TitansForecaster", "Ridge", "Naive", "SeasonalNaive"]


@pytest.fixture(autouse=True)
def _no_calls_yet(monkeypatch):
    monkeypatch.setattr(Recorder, "calls", [])


def waves(rows=T, seed=0):
    """Two channels with a season of 12 rows."""
    generator = np.random.default_rng(seed)
    t = np.arange(rows)
    y = np.column_stack([np.sin(2 * np.pi * t / 12), 5 + 3 * np.cos(2 * np.pi * t / 12)])
    return y + 0.3 * generator.normal(size=y.shape)


def frame_of(kind):
    """The same rows as pandas, polars or an array."""
    y = waves()
    if kind == "numpy":
        return y
    index = pd.date_range("2024-01-01", periods=T, freq="h")
    if kind == "pandas":
        return pd.DataFrame(y, index, ["a", "b"])
    return pl.DataFrame({"time": index, "a": y[:, 0], "b": y[:, 1]})


def linear(**options):
    return TitansForecaster(P, L, use_memory=False, use_network=False, **options)


def run(y, forecaster=None, **options):
    forecaster = linear() if forecaster is None else forecaster
    return backtest(forecaster, panel_of(y), **{"progress": False, **options})


def models_of(frame):
    return [name for name in frame.columns if name.split("-")[0] in MODELS]


@pytest.mark.parametrize("refit", [False, True, 2, "update"])
def test_garbage_after_a_cutoff_changes_no_forecast_up_to_it(refit):
    y = waves()
    clean = run(y, refit=refit, n_windows=4, step=5).frame
    for cutoff in sorted(clean["cutoff"].unique()):
        dirty = y.copy()
        dirty[cutoff + 1 :] = 1e3 * np.random.default_rng(1).normal(size=dirty[cutoff + 1 :].shape)
        found = run(dirty, refit=refit, n_windows=4, step=5).frame
        columns = ["unique_id", "ds", "cutoff", *models_of(clean)]
        until = [frame[frame["cutoff"] <= cutoff][columns] for frame in (clean, found)]
        pd.testing.assert_frame_equal(*until, check_exact=True)


def test_garbage_after_a_cutoff_does_not_reach_the_network():
    training = TrainingConfig(max_steps=120, learning_rate=3e-3, validate_every=40)
    forecaster = TitansForecaster(P, L, training=training, progress=False)
    t = np.arange(600)
    # Logistic maps: a linear forecast sees little of how the next rows follow from the last.
    y = np.full((600, 2), 0.3)
    for i in t[1:]:
        y[i] = [3.7, 3.8] * y[i - 1] * (1 - y[i - 1])
    clean = run(y, forecaster, n_windows=2, refit="update").frame
    y[-P:] = 1e6
    found = run(y, forecaster, n_windows=2, refit="update").frame
    columns = models_of(clean)
    pd.testing.assert_frame_equal(clean[columns], found[columns], check_exact=True)
    assert not np.array_equal(clean["TitansForecaster"], clean["Ridge"])


@pytest.mark.parametrize("refit", [False, True, "update"])
def test_forecasts_are_those_made_by_hand(refit):
    y = waves()
    frame = run(y, refit=refit, n_windows=3).frame
    first = T - 3 * P
    by_hand = linear(progress=False).fit(y[:first])
    for k in range(3):
        cutoff = first + k * P
        if k and refit is True:
            by_hand = linear().fit(y[:cutoff])
        elif k:
            by_hand.update(y[cutoff - P : cutoff], learn=refit == "update")
        rows = frame[frame["cutoff"] == cutoff - 1]
        for c in range(2):
            mine = rows[rows["unique_id"] == c]
            assert mine["ds"].tolist() == list(range(cutoff, cutoff + P))
            np.testing.assert_array_equal(mine["y"], y[cutoff : cutoff + P, c])
            for model in ("TitansForecaster", "Ridge"):
                np.testing.assert_array_equal(mine[model], by_hand.predict()[:, c])
                fan = by_hand.predict_quantiles([0.05, 0.1, 0.9, 0.95])[:, c]
                names = [f"{model}-{side}" for side in ("lo-90", "lo-80", "hi-80", "hi-90")]
                np.testing.assert_allclose(mine[names], fan, rtol=1e-12)


def test_naive_floors_repeat_the_last_row_and_the_last_season():
    y = waves()
    found = run(y, n_windows=3, step=4)
    assert found.season_length == 12
    first = T - P - 2 * 4
    for model, season in {"Naive": 1, "SeasonalNaive": 12}.items():
        expected = naive_forecasts(y, first, P, season)[::4].transpose(2, 0, 1)
        np.testing.assert_array_equal(found.frame[model], expected.ravel())


def test_the_intervals_of_the_naive_floors_are_quantiles_of_their_errors():
    y = waves()
    frame = run(y, n_windows=1, season_length=12).frame
    seen = y[:-P]
    mine = frame[frame["unique_id"] == 1].iloc[2]  # three rows ahead
    for model, lag in {"Naive": 3, "SeasonalNaive": 12}.items():
        low, high = np.quantile(seen[lag:, 1] - seen[:-lag, 1], [0.05, 0.95])
        assert mine[f"{model}-lo-90"] == pytest.approx(mine[model] + low)
        assert mine[f"{model}-hi-90"] == pytest.approx(mine[model] + high)


@pytest.mark.parametrize(
    ("refit", "fits", "learn"),
    [(False, 1, "memory"), ("update", 1, True), (True, 5, None), (1, 5, None), (2, 3, "memory")],
)
def test_it_is_fitted_as_often_as_asked_and_sees_every_row_once(refit, fits, learn):
    y = np.arange(40.0)[:, None]
    found = run(y, Recorder(), refit=refit, n_windows=5, season_length=1)
    calls = [call for call in Recorder.calls if call[0] != "forecast"]
    assert found.n_fits == fits == sum(call[0] == "fit" for call in calls)
    assert {call[2] for call in calls if call[0] == "update"} == ({learn} - {None})
    seen = []
    for call, rows, *_ in calls:
        seen = rows[None] if call == "fit" else seen + rows[None]
        assert seen == list(range(len(seen)))  # all of them, in order, none twice
    assert len(seen) == 36


def test_the_forecaster_that_it_is_called_on_stays_as_it_was():
    y = waves()
    forecaster = linear().fit(y[:100])
    before, model, params = forecaster.predict(), forecaster.model_, forecaster.get_params()
    run(y, forecaster, refit="update")
    assert forecaster.model_ is model
    assert forecaster.get_params() == params
    np.testing.assert_array_equal(forecaster.predict(), before)


@pytest.mark.parametrize("kind", ["numpy", "pandas", "polars"])
def test_the_frame_is_of_the_kind_of_the_series(kind):
    found = run(frame_of(kind), n_windows=2)
    assert isinstance(found.frame, pl.DataFrame if kind == "polars" else pd.DataFrame)
    assert isinstance(found.summary(), type(found.frame))
    assert list(found.frame.columns[:4]) == ["unique_id", "ds", "cutoff", "y"]
    assert list(dict.fromkeys(found.frame["unique_id"])) == (
        [0, 1] if kind == "numpy" else ["a", "b"]
    )
    stamps = found.frame["cutoff"].to_list()
    first = pd.Timestamp("2024-01-01") + pd.Timedelta(hours=T - 2 * P - 1)
    assert stamps[0] == (T - 2 * P - 1 if kind == "numpy" else first)
    numbers = run(waves(), n_windows=2).frame
    for name in models_of(numbers):
        np.testing.assert_array_equal(found.frame[name].to_numpy(), numbers[name].to_numpy())


@pytest.mark.parametrize("time", ["zone", "period", "month ends", "numbers"])
def test_times_are_those_of_the_rows(time):
    index = {
        "zone": pd.date_range("2024-03-25", periods=T, freq="h", tz="Europe/Berlin"),
        "period": pd.period_range("2020-01", periods=T, freq="M"),
        "month ends": pd.date_range("2000-01-31", periods=T, freq="ME"),
        "numbers": pd.RangeIndex(100, 100 + 5 * T, 5),
    }[time]
    y = pd.Series(waves()[:, 0], index, name="a")
    found = run(y, n_windows=2).frame
    stamps = index.to_timestamp() if time == "period" else index
    assert found["ds"].tolist() == stamps[-2 * P :].tolist()
    assert found["cutoff"].tolist() == [stamps[-2 * P - 1]] * P + [stamps[-P - 1]] * P


def test_dates_of_polars_stay_dates():
    days = pd.date_range("2024-01-01", periods=T)
    y = pl.DataFrame({"day": days, "a": waves()[:, 0]}).with_columns(pl.col("day").dt.date())
    assert run(y, n_windows=1).frame.schema["cutoff"] == pl.Date


def test_missing_targets_are_left_out_and_seasons_look_further_back():
    y = np.tile(np.arange(1.0, 5.0), 15)[:, None]
    y[[50, 57]] = np.nan  # of the last season that is known, and of the targets
    found = run(y, Recorder(), n_windows=1, season_length=4)
    assert found.frame["ds"].tolist() == [56, 58, 59]
    np.testing.assert_array_equal(found.frame["SeasonalNaive"], found.frame["y"])
    y[54] = np.nan
    found = run(y, Recorder(), n_windows=1, season_length=4)
    np.testing.assert_array_equal(found.frame["SeasonalNaive"], found.frame["y"])


def test_series_are_cut_at_the_same_moment():
    layout = panel_of(pd.Series(np.zeros(9), pd.date_range("2024-01-31", periods=9, freq="ME")))
    layout = layout.layout
    ends = {"early": "2024-07-31", "all": "2025-08-31", "late": "2025-08-31", "new": "2025-08-31"}
    starts = {"early": "2024-01-31", "all": "2024-01-31", "late": "2024-12-31", "new": "2025-06-30"}
    series = []
    for k, (key, start) in enumerate(starts.items()):
        times = pd.date_range(start, ends[key], freq="ME")
        series.append(
            series_of(
                100.0 * k + np.arange(len(times))[:, None],
                key,
                times[0].isoformat(),
                times[-1].isoformat(),
            )
        )
    panel = Panel(series=tuple(series), layout=layout)
    text = r"says nothing about 'early', 'late', 'new': 3 of \d have no row to learn"
    with pytest.warns(UserWarning, match=text):
        found = backtest(Recorder(3), panel, n_windows=3, season_length=1, progress=False)
    cutoffs = pd.to_datetime(["2024-11-30", "2025-02-28", "2025-05-31"])
    for key, expected in {"all": cutoffs, "late": []}.items():
        rows = found.frame[found.frame["unique_id"] == key]
        assert rows["cutoff"].unique().tolist() == list(expected)
    assert found.left_out == ("early", "late", "new")  # late begins behind the first cutoff
    Recorder.calls.clear()
    with pytest.warns(UserWarning, match="'early', 'new'"):
        found = backtest(
            Recorder(3), panel, n_windows=3, refit=True, season_length=1, progress=False
        )
    rows = found.frame[found.frame["unique_id"] == "late"]
    assert rows["cutoff"].unique().tolist() == list(cutoffs[1:])
    assert rows["y"].tolist() == [203, 204, 205, 206, 207, 208]
    fits = [call[1] for call in Recorder.calls if call[0] == "fit"]
    assert [list(seen) for seen in fits] == [["early", "all"], *[["early", "all", "late"]] * 2]


def test_arrays_without_times_end_together():
    arrays = [np.arange(30.0)[:, None], 100 + np.arange(12.0)[:, None]]
    found = backtest(
        Recorder(), panel_of_arrays(*arrays), n_windows=2, season_length=1, progress=False
    )
    short = found.frame[found.frame["unique_id"] == 1]
    assert short["y"].tolist() == list(range(104, 112))
    assert short["cutoff"].unique().tolist() == [3, 7]


def test_ids_of_several_targets_are_told_apart():
    layout = Layout(kind="pandas", columns=("up", "down"))
    panel = Panel(
        series=tuple(series_of(np.zeros((20, 2)), key) for key in ("A", "B")), layout=layout
    )
    found = backtest(Recorder(), panel, n_windows=1, season_length=1, progress=False)
    assert found.channels == ("A/up", "A/down", "B/up", "B/down")


def test_what_is_known_ahead_is_given_and_nothing_more():
    future = np.arange(20.0)[:, None]
    series = series_of(np.zeros((20, 1)), None, future=future)
    panel = Panel(series=(series,), layout=Layout(kind="numpy", columns=(0,)))
    backtest(Recorder(), panel, n_windows=2, season_length=1, progress=False)
    given = [call[1][0][:, 0].tolist() for call in Recorder.calls if call[0] == "forecast"]
    assert given == [[12, 13, 14, 15], [16, 17, 18, 19]]


@pytest.mark.parametrize("kind", ["numpy", "pandas", "polars"])
def test_utilsforecast_takes_the_frame_as_it_is(kind):
    evaluation = pytest.importorskip("utilsforecast.evaluation")
    losses = pytest.importorskip("utilsforecast.losses")
    found = run(frame_of(kind), n_windows=4)
    level = [int(coverage) for coverage in found.levels]
    season = found.season_length
    metrics = [losses.mse, losses.mae, losses.mqloss, losses.coverage]
    scores = evaluation.evaluate(
        found.frame,
        [*metrics, partial(losses.mase, seasonality=season)],
        level=level,
        train_df=found.history,
    )
    scores = scores if isinstance(scores, pd.DataFrame) else pd.DataFrame(scores.to_dict())
    summary = found.summary(by_channel=True)
    summary = summary if isinstance(summary, pd.DataFrame) else pd.DataFrame(summary.to_dict())
    names = {"mqloss": "pinball"} | {f"coverage_level{c}": f"coverage-{c}" for c in level}
    for (channel, metric), part in scores.groupby(["unique_id", "metric"]):
        for model in MODELS:
            row = (summary["unique_id"] == channel) & (summary["model"] == model)
            ours = summary.loc[row, names.get(metric, metric)].item()
            assert part[model].mean() == pytest.approx(ours), (metric, model)


def test_errors_are_those_of_scikit_learn():
    found = run(waves(), n_windows=4)
    frame, summary = found.frame, found.summary().set_index("model")
    for model in MODELS:
        y, forecast = frame["y"], frame[model]
        row = summary.loc[model]
        assert row["mse"] == pytest.approx(mean_squared_error(y, forecast))
        assert row["mae"] == pytest.approx(mean_absolute_error(y, forecast))
        ends = {"lo-90": 0.05, "lo-80": 0.1, "hi-80": 0.9, "hi-90": 0.95}
        pinball = [mean_pinball_loss(y, frame[f"{model}-{e}"], alpha=a) for e, a in ends.items()]
        assert row["pinball"] == pytest.approx(np.mean(pinball))


def test_the_skill_counts_every_channel_in_its_own_units():
    y = waves()
    found = run(y, n_windows=4)
    scaled = run(y * [1.0, 1e4], n_windows=4)
    columns = ["skill", "skill_low", "skill_high"]
    np.testing.assert_allclose(found.summary()[columns], scaled.summary()[columns], rtol=1e-6)
    frame = found.frame
    spread = y[: T - 4 * P].std(axis=0)[frame["unique_id"]]
    ours, naive = (((frame["y"] - frame[m]) / spread) ** 2 for m in ("TitansForecaster", "Naive"))
    row = found.summary().set_index("model").loc["Naive"]
    assert row["skill"] == pytest.approx(1 - ours.mean() / naive.mean())
    assert row["skill_low"] < row["skill"] < row["skill_high"]


def test_the_same_backtest_says_the_same():
    pd.testing.assert_frame_equal(
        run(waves()).summary("pinball", by_channel=True),
        run(waves()).summary("pinball", by_channel=True),
        check_exact=True,
    )


def test_few_windows_have_no_interval():
    row = run(waves(), n_windows=3).summary().iloc[2]
    assert np.isfinite(row["skill"])
    assert np.isnan(row["skill_low"])


def test_levels_are_as_asked_or_as_the_quantile_levels_reach():
    narrow = TitansForecaster(P, L, use_network=False, quantile_levels=(0.2, 0.5, 0.8))
    assert run(waves(), narrow, n_windows=1).levels == (60,)
    only = TitansForecaster(P, L, use_network=False, quantile_levels=(0.5,))
    found = run(waves(), only, n_windows=1)
    assert found.levels == ()
    assert models_of(found.frame) == MODELS
    assert "coverage" not in " ".join(found.summary().columns)
    assert "Ridge-lo-82.5" in run(waves(), n_windows=1, levels=[82.5]).frame.columns


def test_it_reads_well():
    found = run(frame_of("pandas").rename(columns={"a": "<b>"}), n_windows=4)
    text, html = str(found), found._repr_html_()
    assert text.splitlines()[0].split()[:5] == ["model", "mse", "mae", "mase", "pinball"]
    assert "4 cutoffs, 6 rows apart, 6 rows ahead; 2 channels; fitted 1 time; season of 12" in text
    assert text.endswith(
        "TitansForecaster is Ridge here: no network, or none that validation let in."
    )
    own = backtest(Recorder(P, shift=1.0), panel_of(waves()), n_windows=1, progress=False)
    own.forecasts.point["Ridge"][:] += 1
    assert "is Ridge here" not in str(own)
    assert "learning as rows came" in str(run(waves(), n_windows=1, refit="update"))
    assert "fitted 2 times" in str(run(waves(), n_windows=3, refit=2))
    assert html.count("<tr>") == 1 + len(MODELS)
    assert repr(found) == (
        "<BacktestResult: 4 cutoffs, 2 channels, 48 forecasts; print it, or see .frame and "
        ".summary()>"
    )


def test_the_bar_counts_cutoffs_and_can_be_silenced(capsys):
    run(waves(), n_windows=3, progress=True)
    assert "3/3" in capsys.readouterr().err
    run(waves(), n_windows=3)
    assert capsys.readouterr().err == ""


def test_no_warning_comes_of_what_is_undefined():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = run(np.ones((40, 1)), Recorder(), n_windows=3)
        summary = found.summary("mase")
    assert summary["mse"].tolist() == [0, 0, 0, 0]
    assert summary["skill"].isna().all()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"n_windows": 0}, "`n_windows` must be an int >= 1; got 0"),
        ({"step": 1.5}, "`step` must be an int >= 1; got 1.5"),
        ({"refit": "never"}, "`refit` must be False, True, an int >= 1 or 'update'; got 'never'"),
        ({"refit": 0.5}, "`refit` must be False, True"),
        ({"season_length": 0}, "`season_length` must be an int >= 1 or None; got 0"),
        ({"levels": [0.9, 99]}, r"coverages in percent, .* in \[1, 90\] .* from 0.05 to 0.95; got"),
        ({"levels": [0.8]}, r"list of coverages in percent, such as \[80\], in \[1, 90\]"),
        ({"levels": 90}, r"`levels` must be a list of coverages in percent, such as \[80\]"),
        ({"levels": ["90"]}, "`levels` must be a list of coverages in percent"),
        (
            {"season_length": 500},
            "`season_length` is 500 rows, but only .* before the first cutoff",
        ),
        (
            {"n_windows": 40},
            "y has 240 rows; 40 windows of 6 rows, 6 apart, take 240 and leave none .* fewer",
        ),
        (
            {"n_windows": 38},
            r"y has 12 rows .n_samples=12., split .*.Here y is what comes before a cutoff, 12 rows",
        ),
    ],
)
def test_misuse_is_refused_with_the_cure(options, text):
    with pytest.raises(ValueError, match=text):
        run(waves(), **options)


def test_a_wrong_parameter_of_the_forecaster_is_named_first():
    with pytest.raises(ValueError, match="`prediction_length` of TitansForecaster must be"):
        run(waves(), TitansForecaster(0))


def test_targets_that_are_all_missing_are_refused():
    y = np.ones((40, 1))
    y[20:] = np.nan
    with pytest.raises(ValueError, match="all targets are missing"):
        run(y, Recorder(), n_windows=5, season_length=1)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"metric": "rmse"}, "`metric` must be one of mse, mae, mase, pinball; got 'rmse'"),
        ({"confidence": 95}, r"`confidence` must be in \(0, 1\); got 95"),
    ],
)
def test_a_summary_of_something_else_is_refused(options, text):
    with pytest.raises(ValueError, match=text):
        run(waves(), n_windows=1).summary(**options)
