"""The figure of long_horizon.py: test errors relative to the ridge, by data set and horizon."""

from __future__ import annotations

import statistics

import _record
from matplotlib.figure import Figure

COLOURS = {
    "titans": "#0072b2",
    "titans, memory": "#d55e00",
    "titans, memory frozen": "#009e73",
    "titans, attention only": "#56b4e9",
    "titans, no memory": "#cc79a7",
}


def draw(path: str) -> None:
    """Draw a panel per data set and look-back; a dot is a seed, a line the mean."""
    found: dict[str, dict[str, dict[int, list[float]]]] = {}
    for row in _record.read("long_horizon"):
        if row["metric"] == "MSE" and "quick" not in row["case"]:
            where, horizon = row["case"].rsplit(", horizon ", 1)
            errors = found.setdefault(where, {}).setdefault(row["provider"], {})
            errors.setdefault(int(horizon), []).append(float(row["value"]))
    found = {where: by for where, by in found.items() if "ridge" in by and "titans" in by}
    if not found:
        return
    figure = Figure(figsize=(3.2 * min(len(found), 4), 2.6 * -(-len(found) // 4)),
                    layout="constrained")  # fmt: skip
    panels = figure.subplots(-(-len(found) // 4), min(len(found), 4), squeeze=False).ravel()
    for axes, (where, by) in zip(panels, found.items(), strict=False):
        horizons = sorted(by["ridge"])
        axes.axhline(0, color="#e69f00", linewidth=1.5, label="ridge")
        for provider, colour in COLOURS.items():
            points = [
                (i, 100 * (value / by["ridge"][horizon][0] - 1))
                for i, horizon in enumerate(horizons)
                for value in by.get(provider, {}).get(horizon, [])
            ]
            if not points:
                continue
            axes.plot(*zip(*points, strict=True), "o", color=colour, markersize=4, label=provider)
            means = {i: statistics.mean(v for j, v in points if j == i) for i, _ in points}
            axes.plot(means.keys(), means.values(), color=colour, linewidth=1)
        axes.set_xticks(range(len(horizons)), horizons)
        axes.set_title(where, loc="left", fontsize=9)
        axes.set_xlabel("horizon (rows)", fontsize=8)
        axes.set_ylabel("test MSE, % against ridge", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[len(found) :]:
        axes.set_axis_off()
    handles = {
        label: handle
        for axes in panels
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside upper center",
        ncols=len(handles),
        fontsize=8,
        frameon=False,
    )
    figure.savefig(path, dpi=120)
