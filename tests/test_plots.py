"""The picture shows the numbers it was given, and touches nothing else."""

from __future__ import annotations

import builtins
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

matplotlib = pytest.importorskip("matplotlib")

from matplotlib.colors import to_rgb  # noqa: E402 - after the skip
from matplotlib.dates import ConciseDateFormatter, date2num  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from titans_ts.plots import plot_forecast  # noqa: E402

LEVELS = [0.1, 0.25, 0.5, 0.75, 0.9]
T, P, CHANNELS = 30, 8, ["north", "south", "west"]


def series(kind="pandas", zone=None):
    """History, quantiles and what came, of three channels in the given kind."""
    generator = np.random.default_rng(0)
    y = generator.normal(size=(T + P, len(CHANNELS)))
    fan = np.sort(generator.normal(size=(P, len(CHANNELS), len(LEVELS))), axis=2)
    if kind == "numpy":
        return y[:T], fan, y[T:]
    index = pd.date_range("2024-03-20", periods=T + P, freq="D", tz=zone)
    frame = pd.DataFrame(y, index=index, columns=CHANNELS)
    columns = pd.MultiIndex.from_product([CHANNELS, LEVELS])
    return frame[:T], pd.DataFrame(fan.reshape(P, -1), index[T:], columns), frame[T:]


def line(ax, label):
    (found,) = [drawn for drawn in ax.lines if drawn.get_label() == label]
    return found.get_xydata().T


def edges(band):
    """x, lower and upper edge of a filled band."""
    corners = band.get_paths()[0].vertices
    x = np.unique(corners[:, 0])
    columns = [corners[corners[:, 0] == value, 1] for value in x]
    return x, np.array([c.min() for c in columns]), np.array([c.max() for c in columns])


@pytest.mark.parametrize("kind", ["pandas", "numpy"])
def test_every_number_is_drawn_where_it_belongs(kind):
    past, fan, came = series(kind)
    levels = LEVELS if kind == "numpy" else None
    figure = plot_forecast(past, fan, levels=levels, actual=came)
    values = np.asarray(fan).reshape(P, len(CHANNELS), len(LEVELS))
    days = np.arange(T + P) + (0 if kind == "numpy" else date2num(pd.Timestamp("2024-03-20")))
    assert len(figure.axes) == len(CHANNELS)
    for c, ax in enumerate(figure.axes):
        known = np.asarray(past)[-1, c]
        np.testing.assert_allclose(line(ax, "history"), [days[:T], np.asarray(past)[:, c]])
        np.testing.assert_allclose(line(ax, "median"), [days[T - 1 :], [known, *values[:, c, 2]]])
        np.testing.assert_allclose(
            line(ax, "actual"), [days[T - 1 :], [known, *np.asarray(came)[:, c]]]
        )
        outer, inner = ax.collections
        for band, low, high in [(outer, 0, 4), (inner, 1, 3)]:
            x, lower, upper = edges(band)
            np.testing.assert_allclose(x, days[T - 1 :])
            np.testing.assert_allclose(lower, [known, *values[:, c, low]])
            np.testing.assert_allclose(upper, [known, *values[:, c, high]])


def test_bands_are_opaque_and_darker_toward_the_median():
    past, fan, _ = series()
    colors = [band.get_facecolor()[0] for band in plot_forecast(past, fan).axes[0].collections]
    assert [color[3] for color in colors] == [1, 1]
    assert sum(colors[0][:3]) > sum(colors[1][:3]) > sum(to_rgb("#0072B2"))


def test_channels_are_named_and_the_legend_comes_once():
    past, fan, came = series()
    figure = plot_forecast(past, fan, actual=came, channels=["west", "north"])
    assert [ax.get_title("left") for ax in figure.axes] == ["west", "north"]
    assert [ax.get_legend() for ax in figure.axes] == [None, None]
    (legend,) = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert sorted(texts) == sorted(["history", "80%", "50%", "median", "actual"])
    np.testing.assert_allclose(line(figure.axes[0], "history")[1], past["west"])


def test_levels_without_a_median_draw_bands_only():
    past, fan, _ = series("numpy")
    ax = plot_forecast(past, fan[..., [0, 4]], levels=[0.1, 0.9]).axes[0]
    assert [drawn.get_label() for drawn in ax.lines] == ["history"]
    assert len(ax.collections) == 1


def test_levels_that_do_not_belong_together_make_no_band():
    fan = pd.DataFrame([[0.0, 1.0, 2.0, 3.0]] * 2, [3, 4], pd.Index([0.1, 0.5, 0.7, 0.9]))
    figure = plot_forecast(pd.Series([1.0, 2.0, 1.0], name="y"), fan)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["history", "80%", "median", "70% quantile"]
    assert len(figure.axes[0].collections) == 1


def test_what_is_no_table_of_quantiles_is_named():
    history = pd.DataFrame({"y": [1.0, 2.0, 1.0]})
    bounds = pd.MultiIndex.from_product([["y"], [0.8], ["lower", "upper"]])
    intervals = pd.DataFrame([[0.0, 1.0]], [3], bounds)
    with pytest.raises(ValueError, match=r"these are intervals: pass what predict_quantiles"):
        plot_forecast(history, intervals)
    with pytest.raises(ValueError, match=r"these are points: pass what predict_quantiles"):
        plot_forecast(history, pd.DataFrame({"y": [1.0]}, [3]))
    table = pd.DataFrame({"unique_id": ["a"], "ds": [3], "y_q0.1": [0.0], "y_q0.9": [1.0]})
    with pytest.raises(ValueError, match=r"these are a long table: of one series"):
        plot_forecast(history, table)


def test_one_series_makes_one_panel():
    past, fan, came = series()
    fan = fan["north"]
    (ax,) = plot_forecast(past["north"], fan, actual=came["north"]).axes
    np.testing.assert_allclose(line(ax, "median")[1][1:], fan[0.5])
    (ax,) = plot_forecast(past["north"].to_numpy(), fan.to_numpy(), levels=LEVELS).axes
    np.testing.assert_allclose(line(ax, "median")[1][1:], fan[0.5])
    assert ax.get_title("left") == "channel 0"


def test_dates_are_written_concisely_in_their_own_zone():
    for zone in (None, "Europe/Berlin"):  # the clocks change in the history
        past, fan, _ = series(zone=zone)
        ax = plot_forecast(past, fan).axes[-1]
        formatter = ax.xaxis.get_major_formatter()
        assert isinstance(formatter, ConciseDateFormatter)
        midnight = past.index[-1]
        assert formatter.format_data_short(
            date2num(midnight.tz_convert(None) if zone else midnight)
        ).endswith("00:00:00")


def test_periods_are_drawn_at_their_start():
    past, fan, _ = series()
    by_day = plot_forecast(past, fan)
    by_period = plot_forecast(past.to_period("D"), fan.to_period("D"))
    np.testing.assert_array_equal(
        line(by_period.axes[0], "history"), line(by_day.axes[0], "history")
    )


def test_it_draws_into_given_axes():
    past, fan, _ = series()
    figure = Figure()
    axes = figure.subplots(1, 3)
    assert plot_forecast(past, fan, axes=axes) is figure
    assert [ax.get_title("left") for ax in axes] == CHANNELS
    assert axes[0].get_legend() is not None
    alone = Figure().subplots()
    assert plot_forecast(past, fan, channels=["west"], axes=alone) is alone.figure


def test_it_can_be_saved(tmp_path):
    past, fan, came = series()
    plot_forecast(past, fan, actual=came).savefig(tmp_path / "forecast.png")
    assert (tmp_path / "forecast.png").read_bytes().startswith(b"\x89PNG")


def test_global_settings_and_pyplot_are_left_alone():
    code = """
import sys
import matplotlib, numpy as np
from titans_ts.plots import plot_forecast
assert "matplotlib.figure" not in sys.modules, "imported before it was needed"
def settings():  # to look at the backend is to choose one, which imports pyplot
    return {key: matplotlib.rcParams[key] for key in matplotlib.rcParams if key != "backend"}
before = settings()
y = np.zeros((9, 2))
plot_forecast(y, np.zeros((3, 2, 3)), levels=[0.1, 0.5, 0.9])
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

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r'pip install "titans-stream\[plot\]"'):
        plot_forecast(*series("numpy")[:2], levels=LEVELS)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"history": [1.0, 2.0]}, TypeError, "history must be a pandas.*got list"),
        (
            {"history": np.zeros((0, 3))},
            ValueError,
            r"history must have shape \(T, C\); got \(0, 3\)",
        ),
        (
            {"history": np.zeros((9, 2))},
            ValueError,
            r"quantiles has channels \[0, 1, 2\]; history has \[0, 1\]",
        ),
        ({"levels": None}, ValueError, r"quantiles must have shape .*by its `levels`"),
        ({"levels": [0.1, 0.9]}, ValueError, r"\(P, C, 2\) by its `levels`; got \(8, 3, 5\)"),
        ({"levels": LEVELS[::-1]}, ValueError, "the levels of quantiles must ascend"),
        ({"actual": np.zeros((8, 2))}, ValueError, "actual has channels"),
        ({"channels": [0, 7]}, ValueError, r"channels must be among \[0, 1, 2\]; got \[0, 7\]"),
        ({"channels": []}, ValueError, "channels must be among"),
        ({"axes": Figure().subplots(1, 2)}, ValueError, "axes has 2 Axes for 3 channels"),
        ({"history": series()[0]}, ValueError, "quantiles has channels"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(change, error, text):
    past, fan, _ = series("numpy")
    with pytest.raises(error, match=text):
        plot_forecast(**{"history": past, "quantiles": fan, "levels": LEVELS, **change})


def test_a_forecast_that_does_not_follow_is_refused():
    past, fan, _ = series()
    with pytest.raises(ValueError, match="quantiles must go on where history ends, 2024-04-18"):
        plot_forecast(past, fan.shift(-1, freq="D"))
    with pytest.raises(ValueError, match="history is empty"):
        plot_forecast(past[:0], fan)
    numbered = past.reset_index(drop=True)
    with pytest.raises(ValueError, match="must go on where history ends, 29"):
        plot_forecast(numbered, fan)
