"""The pictures of a backtest show its numbers, and touch nothing else."""

from __future__ import annotations

import builtins
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

matplotlib = pytest.importorskip("matplotlib")

from backtest_inputs import Recorder, panel_of, panel_of_arrays  # noqa: E402
from matplotlib.dates import ConciseDateFormatter, date2num  # noqa: E402

from titans_ts.backtest import backtest  # noqa: E402
from titans_ts.plots_backtest import plot_backtest, plot_channel_skill  # noqa: E402
from titans_ts.plots_surprise import plot_surprise  # noqa: E402

T, P = 40, 4


def result_of(width=2, zone=None, **options):
    y = np.random.default_rng(0).normal(size=(T, width)).cumsum(axis=0)
    index = pd.date_range("2024-03-20", periods=T, freq="D", tz=zone)
    frame = pd.DataFrame(y, index, [f"c{k}" for k in range(width)])
    options = {"n_windows": 5, "season_length": 7, "progress": False, **options}
    return backtest(Recorder(P, shift=0.1), panel_of(frame), **options), frame


def test_forecasts_open_from_the_last_row_known_at_each_cutoff():
    found, y = result_of()
    figure = found.plot()
    assert [ax.get_title("left") for ax in figure.axes] == ["c0", "c1"]
    days = date2num(y.index)
    for c, ax in enumerate(figure.axes):
        came, *forecasts = [drawn for drawn in ax.lines if len(drawn.get_xdata()) > 2]
        first = T - 5 * P - 8  # a few rows of history before
        np.testing.assert_allclose(came.get_xydata(), np.c_[days[first:], y.iloc[first:, c]])
        assert len(forecasts) == 5
        for k, drawn in enumerate(forecasts):
            last = T - (5 - k) * P - 1
            np.testing.assert_allclose(drawn.get_xdata(), days[last : last + 1 + P])
            expected = [y.iloc[last, c], *[y.iloc[last, c] + 0.1] * P]
            np.testing.assert_allclose(drawn.get_ydata(), expected)
        assert len(ax.collections) == 5  # a band each


def test_channels_model_and_history_can_be_chosen():
    found, y = result_of(width=8)
    first = found.plot()
    assert len(first.axes) == 6
    assert first.get_suptitle() == "6 of 8 series"
    chosen = found.plot(["c7"], model="Naive", rows_before=3)
    assert not chosen.get_suptitle()
    (ax,) = chosen.axes
    came, forecast, *_ = [drawn for drawn in ax.lines if len(drawn.get_xdata()) > 2]
    assert came.get_xdata()[0] == date2num(y.index[T - 5 * P - 3])
    assert set(forecast.get_ydata()) == {y["c7"].iloc[T - 5 * P - 1]}


def test_the_legend_comes_once_and_names_each_thing_once():
    figure = result_of()[0].plot()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["what came", "80%", "forecast"]


def test_dates_are_written_in_their_own_zone_and_numbers_as_numbers():
    found, y = result_of(zone="Europe/Berlin")
    ax = found.plot(["c0"]).axes[0]
    assert isinstance(ax.xaxis.get_major_formatter(), ConciseDateFormatter)
    assert ax.lines[0].get_xdata()[-1] == date2num(y.index[-1].tz_convert("UTC").tz_localize(None))
    numbers = backtest(
        Recorder(P), panel_of(y.to_numpy()), n_windows=2, season_length=1, progress=False
    )
    assert numbers.plot().axes[0].lines[0].get_xdata()[-1] == T - 1
    assert numbers.plot().axes[0].get_title("left") == "channel 0"


def test_a_forecast_after_a_missing_row_stands_alone():
    y = np.arange(float(T))[:, None]
    y[T - P - 1] = np.nan
    found = backtest(Recorder(P), panel_of_arrays(y), n_windows=1, season_length=1, progress=False)
    forecast = found.plot().axes[0].lines[1]
    assert forecast.get_xdata().tolist() == list(range(T - P, T))


def test_bars_are_the_skill_and_lines_its_interval():
    found, _ = result_of(n_windows=8)
    figure = found.plot_errors("mae")
    (ax,) = figure.axes
    summary = found.summary("mae", by_channel=True)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["c0", "c1"]
    assert ax.get_xlabel() == "MAE saved by TitansForecaster"
    for floor, bars, line in zip(
        ("Ridge", "Naive", "SeasonalNaive"), ax.containers, ax.collections, strict=True
    ):
        rows = summary[summary["model"] == floor]
        np.testing.assert_allclose([bar.get_width() for bar in bars], rows["skill"])
        ends = np.array([segment[:, 0] for segment in line.get_segments()])
        np.testing.assert_allclose(ends, rows[["skill_low", "skill_high"]])
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first channel on top
    left, right = ax.get_xlim()
    assert left >= -1
    assert right <= 1


def test_skill_without_intervals_is_drawn_too(tmp_path):
    found, _ = result_of(n_windows=1)
    found.plot_errors().savefig(tmp_path / "errors.png")
    figure = plot_channel_skill(found.summary(by_channel=True), floors=["Naive"])
    assert len(figure.axes[0].containers) == 1


def test_surprise_is_drawn_as_it_is_and_its_peaks_survive_thinning():
    surprise = np.random.default_rng(0).random((20, 2))
    figure = plot_surprise(surprise, channels=["a", "b"])
    assert [ax.get_title("left") for ax in figure.axes] == ["a", "b"]
    np.testing.assert_array_equal(figure.axes[1].lines[0].get_ydata(), surprise[:, 1])
    times = pd.date_range("2024-01-01", periods=20, freq="D")
    figure = plot_surprise(pd.DataFrame(surprise, times, ["load", "price"]))
    assert [ax.get_title("left") for ax in figure.axes] == ["load", "price"]
    drawn = figure.axes[1].lines[0].get_xdata()
    np.testing.assert_array_equal(
        drawn, plot_surprise(surprise, times).axes[1].lines[0].get_xdata()
    )
    many = np.zeros(5000)
    many[3210] = 9
    drawn = plot_surprise(many).axes[0].lines[0].get_ydata()
    assert len(drawn) <= 800
    assert drawn.max() == 9


def test_surprise_has_its_times_and_the_rows_behind():
    y = pd.DataFrame({"a": np.arange(48.0)}, pd.date_range("2024", periods=48, freq="h"))
    figure = plot_surprise(np.ones(3), y.index[15::16], channels=["a"], history=y)
    ax, behind = figure.axes
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), date2num(y.index[15::16]))
    np.testing.assert_array_equal(behind.lines[0].get_ydata(), y["a"])
    assert len(figure.legends[0].get_texts()) == 2
    assert len(plot_surprise(np.ones(3), history=y["a"].reset_index(drop=True)).axes) == 2


def test_global_settings_and_pyplot_are_left_alone():
    code = """
import sys
import matplotlib, numpy as np, pandas as pd
from titans_ts.plots_backtest import plot_channel_skill
from titans_ts.plots_surprise import plot_surprise
assert "matplotlib.figure" not in sys.modules, "imported before it was needed"
def settings():  # to look at the backend is to choose one, which imports pyplot
    return {key: matplotlib.rcParams[key] for key in matplotlib.rcParams if key != "backend"}
before = settings()
plot_surprise(np.ones(9))
assert settings() == before
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    original = builtins.__import__

    def without(name, *arguments, **keywords):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return original(name, *arguments, **keywords)

    found, _ = result_of()
    monkeypatch.setattr(builtins, "__import__", without)
    for draw in (found.plot, found.plot_errors, lambda: plot_surprise(np.ones(3))):
        with pytest.raises(ImportError, match=r'plot_\w+ needs .*"titans-stream\[plot\]"'):
            draw()


@pytest.mark.parametrize(
    ("draw", "text"),
    [
        (lambda r: r.plot(["c9"]), r"channels must be among \['c0', 'c1'\]; got \['c9'\]"),
        (lambda r: r.plot([]), "channels must be among"),
        (
            lambda r: plot_backtest(r.frame, r.history, model="Ridge-lo-80"),
            "model must be one of .*'SeasonalNaive'.; got 'Ridge-lo-80'",
        ),
        (
            lambda r: plot_channel_skill(r.summary(by_channel=True), floors=["Best"]),
            "floors must be among .*; got .'Best'",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(draw, text):
    with pytest.raises(ValueError, match=text):
        draw(result_of()[0])


@pytest.mark.parametrize(
    ("surprise", "options", "text"),
    [
        (np.ones((2, 2, 2)), {}, r"shape \(n,\) or \(n, C\); got \(2, 2, 2\)"),
        ([], {}, "surprise must have shape"),
        (np.ones(3), {"times": np.arange(2)}, "times has 2 entries for 3 patches"),
        (np.ones(3), {"channels": ["a", "b"]}, "channels names 2 of 1 columns"),
    ],
)
def test_surprise_that_does_not_fit_is_refused(surprise, options, text):
    with pytest.raises(ValueError, match=text):
        plot_surprise(surprise, **options)


def test_surprise_may_have_periods_for_times():
    periods = pd.period_range("2024-01", periods=3, freq="M")
    drawn = plot_surprise(np.ones(3), periods).axes[0].lines[0]
    np.testing.assert_array_equal(drawn.get_xdata(), date2num(periods.to_timestamp()))
