"""The pictures show the numbers they were given, and touch nothing else."""

from __future__ import annotations

import builtins
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

matplotlib = pytest.importorskip("matplotlib")
pytest.importorskip("logomaker")

from matplotlib.figure import Figure  # noqa: E402 - after the skip

from titans_dna.plots import (  # noqa: E402
    plot_confusion,
    plot_motif_logo,
    plot_mutagenesis,
    plot_reliability,
    plot_surprise,
)
from titans_dna.report import score_report  # noqa: E402

CHANGES = np.array([[0, -2, 1, -1], [0.5, 0, -0.25, 0.1], [-1, -1, 0, -3], [0, 0, 0, 0]])


def record(tokens=5, networks=2):
    """What `memory_surprise` returns: each number says where it stands."""
    rows = [
        {
            "network": network,
            "layer": "blocks.0.memory",
            "direction": direction,
            "start": 16 * t,
            "stop": 16 * t + 16 if t < tokens - 1 else 16 * t + 7,
            "surprise": t + 10 * (direction == "back") + network,
            "forget_gate": 0.1 * t,
        }
        for network in range(networks)
        for direction in ("onward", "back")
        for t in range(tokens)
    ]
    return pd.DataFrame(rows)


def answers(n=500, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    proba = rng.dirichlet(np.full(classes, 0.4), n)
    y = np.array([rng.choice(classes, p=p) for p in proba])
    names = np.array(["exon", "intron", "neither"][:classes])
    return names[y], proba, names


DRAWINGS = {
    "logo": lambda **given: plot_motif_logo(CHANGES, **given),
    "mutagenesis": lambda **given: plot_mutagenesis(CHANGES, **given),
    "surprise": lambda **given: plot_surprise(record(), **given),
    "reliability": lambda **given: plot_reliability(*answers(), **given),
    "confusion": lambda **given: plot_confusion(["a", "b"], ["a", "a"], **given),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_it_makes_a_figure_or_draws_into_axes_and_can_be_saved(name, tmp_path):
    figure = DRAWINGS[name]()
    assert isinstance(figure, Figure)
    figure.savefig(tmp_path / "drawn.png")
    assert (tmp_path / "drawn.png").read_bytes().startswith(b"\x89PNG")
    above, below = Figure().subplots(2)
    assert DRAWINGS[name](ax=below) is below.figure
    assert below.has_data()
    assert not above.has_data()


def test_letters_are_as_tall_as_their_scores():
    (ax,) = plot_motif_logo(CHANGES, start=10).axes
    boxes = [patch.get_path().get_extents(patch.get_transform()) for patch in ax.patches]
    found = sorted(
        (round(float(box.x0 + box.x1)), round(float(box.height), 6))
        for box in (box.transformed(ax.transData.inverted()) for box in boxes)
        if box.height > 1e-9
    )
    wanted = sorted((2 * (10 + i), abs(CHANGES[i, b])) for i, b in np.argwhere(CHANGES))
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert ax.get_ylim()[0] <= -5
    assert ax.get_xlim() == (9.5, 13.5)


def test_changes_stand_in_cells_around_a_white_zero():
    figure = plot_mutagenesis(CHANGES, start=10)
    ax = figure.axes[0]
    cells, dots = ax.collections
    np.testing.assert_array_equal(cells.get_array(), CHANGES.T)
    assert cells.get_clim() == (-3, 3)
    np.testing.assert_allclose(cells.to_rgba(0.0)[:3], 0.97, atol=0.01)
    # The last row has no change at all: nothing tells which base stands there.
    assert dots.get_offsets().tolist() == [[10, 0], [11, 1], [12, 2]]
    assert [text.get_text() for text in ax.get_yticklabels()] == list("ACGT")
    assert ax.get_ylim() == (3.5, -0.5)


def test_no_change_at_all_is_drawn_white():
    figure = plot_mutagenesis(np.zeros((3, 4)))
    assert figure.axes[0].collections[0].get_clim() == (-1, 1)


def test_surprise_is_a_step_for_each_token_and_a_line_for_each_direction():
    (ax,) = plot_surprise(record()).axes
    onward, back = ax.patches
    assert onward.get_data().edges.tolist() == [0, 16, 32, 48, 64, 71]
    np.testing.assert_allclose(onward.get_data().values, np.arange(5) + 0.5)  # of two networks
    np.testing.assert_allclose(back.get_data().values, np.arange(5) + 10.5)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["read onward", "read back"]
    (ax,) = plot_surprise(record(), column="forget_gate").axes
    np.testing.assert_allclose(ax.patches[0].get_data().values, 0.1 * np.arange(5))
    assert ax.get_ylabel() == "forget gate"


def test_of_a_long_sequence_no_more_is_drawn_than_can_be_seen():
    (ax,) = plot_surprise(record(tokens=1001, networks=1)).axes
    steps = ax.patches[0].get_data()
    assert len(steps.values) == 334
    np.testing.assert_allclose(steps.values[:2], [1, 4])
    assert steps.edges[[0, 1, -1]].tolist() == [0, 48, 16007]


def test_what_was_not_written_leaves_a_gap():
    gap = record(networks=1)
    gap.loc[gap["start"] == 32, "surprise"] = np.nan
    (ax,) = plot_surprise(gap).axes
    np.testing.assert_array_equal(ax.patches[0].get_data().values, [0, 1, np.nan, 3, 4])


@pytest.mark.parametrize("classes", [2, 3])
def test_reliability_shows_the_bins_that_the_report_scores(classes):
    y, proba, names = answers(classes=classes)
    (ax,) = plot_reliability(y, proba, names).axes
    bars, points = ax.collections
    said, came = points.get_offsets().T
    top, right = proba.max(1), names[proba.argmax(1)] == y
    number = np.ceil(top * 15).astype(int)
    present = np.unique(number)
    np.testing.assert_allclose(said, [top[number == b].mean() for b in present])
    np.testing.assert_allclose(came, [right[number == b].mean() for b in present])
    error = score_report(y, proba, names, n_bootstrap=0).scores["ece"].value
    assert f"500 rows, calibration error {error:.3f}" == ax.get_title("left")
    for share, bar in zip(came, bars.get_segments(), strict=True):
        assert -1e-9 <= bar[0, 1] <= share <= bar[1, 1] + 1e-9 <= 1 + 1e-8
    assert len(plot_reliability(y, proba, names, n_bins=4).axes[0].collections[1].get_offsets()) < 5


def test_intervals_of_shares_are_those_of_wilson():
    # A bin of 10 rows, all of them right: [0.722, 1] (Brown, Cai, DasGupta, 2001).
    (ax,) = plot_reliability(["a"] * 10, [[0.95, 0.05]] * 10, ["a", "b"]).axes
    ((low, high),) = ax.collections[0].get_segments()
    assert low[1] == pytest.approx(0.7225, abs=1e-3)
    assert high[1] == pytest.approx(1)


def test_confusion_counts_or_shares_are_written_in_their_cells():
    y_true, y_pred = ["b", "b", "b", "a", "c", "c"], ["b", "b", "c", "a", "c", "a"]
    (ax,) = plot_confusion(y_true, y_pred, classes=["c", "b", "a"]).axes
    texts = [text.get_text() for text in ax.texts]
    assert texts == ["1", "0", "1", "1", "2", "0", "0", "0", "1"]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["c", "b", "a"]
    (ax,) = plot_confusion(y_true, y_pred, normalize=True).axes
    assert [text.get_text() for text in ax.texts][3:6] == ["0.00", "0.67", "0.33"]


def test_global_settings_and_pyplot_are_left_alone():
    code = """
import sys
import matplotlib, numpy as np, pandas as pd
from titans_dna.plots import *
assert "matplotlib.figure" not in sys.modules, "imported before it was needed"
def settings():  # to look at the backend is to choose one
    return {key: matplotlib.rcParams[key] for key in matplotlib.rcParams if key != "backend"}
before = settings()
plot_mutagenesis(np.eye(4))
plot_reliability([0, 1], [0.2, 0.7], [0, 1])
assert "matplotlib.pyplot" not in sys.modules
plot_motif_logo(np.eye(4))
plot_confusion([0, 1], [0, 0])
assert settings() == before
assert not matplotlib.pyplot.get_fignums()
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


@pytest.mark.parametrize(
    ("package", "name"), [("logomaker", "logo"), *(("matplotlib", name) for name in DRAWINGS)]
)
def test_without_the_packages_the_extra_is_named(name, package, monkeypatch):
    original = builtins.__import__

    def without(module, *arguments, **keywords):
        if module.partition(".")[0] == package:
            raise ImportError(module)
        return original(module, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    wanted = rf'needs {package}: pip install "titans-stream\[plot\]"'
    with pytest.raises(ImportError, match=wanted):
        DRAWINGS[name]()


@pytest.mark.parametrize("draw", [plot_motif_logo, plot_mutagenesis])
def test_what_is_no_matrix_of_scores_is_refused(draw):
    for odd in (np.zeros((4, 3)), np.zeros(4), np.zeros((0, 4))):
        with pytest.raises(ValueError, match=r"must have shape \(L, 4\)"):
            draw(odd)
    with pytest.raises(ValueError, match="must be finite; row 1 is"):
        draw([[0, 1, 2, 3], [0, np.nan, 0, 0]])


@pytest.mark.parametrize(
    ("draw", "text"),
    [
        (lambda: plot_surprise(record(), column="norm"), r"columns \['direction', 'norm'"),
        (lambda: plot_surprise([1.0]), "must be a data frame from memory_surprise"),
        (lambda: plot_reliability(["a"], [[0.4, 0.6]], ["b", "c"]), "y_true holds 'a' at row 0"),
        (lambda: plot_reliability(["b"], [[4, 0.6]], ["b", "c"]), "must hold probabilities"),
        (lambda: plot_reliability(["b"], [0.6], ["b", "c"], n_bins=0), "`n_bins` must be an int"),
        (lambda: plot_confusion([0, 1], [0]), "y_true and y_pred must be labels of one shape"),
        (lambda: plot_confusion([], []), "must be labels of one shape"),
        (lambda: plot_confusion([0, 1], ["0", "1"]), "make them labels of one type"),
        (lambda: plot_confusion([0, 1], [0, 2], classes=[0, 1]), "the label 2 is none of"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(draw, text):
    with pytest.raises(ValueError, match=text):
        draw()


def test_the_confusion_plot_takes_text_as_frames_keep_it():
    figure = plot_confusion(pd.Series(["exon", "intron"]), np.array(["exon", "exon"]))
    assert sorted(t.get_text() for t in figure.axes[0].texts) == ["0", "0", "1", "1"]
