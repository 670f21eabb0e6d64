"""A forecaster in HTML: its facts, nothing of the user's unescaped."""

from __future__ import annotations

import numpy as np
import pandas as pd

from titans_ts import TitansForecaster, TrainingConfig
from titans_ts.describe import describe_html, fitted_facts


def waves(columns):
    rows = np.arange(120)
    y = np.column_stack([np.sin(rows / (k + 2)) for k in range(len(columns))])
    return pd.DataFrame(y, pd.date_range("2024-01-01", periods=120), columns)


def test_before_fit_it_shows_what_differs_from_the_defaults():
    html = describe_html(TitansForecaster(6, time_column="<day>"))
    assert "not fitted" in html
    assert "<tr><th>prediction_length</th><td>6</td></tr>" in html
    assert "&lt;day&gt;" in html
    assert "context_length" not in html
    assert "all as by default" in describe_html(TitansForecaster())


def test_after_fit_it_shows_where_the_model_stands():
    y = waves(["<script>alert(1)</script>", "b"])
    html = describe_html(TitansForecaster(4, 12, use_network=False).fit(y))
    assert "<script" not in html
    assert "2: &lt;script&gt;alert(1)&lt;/script&gt;, b" in html
    for name, value in {
        "rows seen": "120",
        "last time": "2024-04-29",
        "network": "none",
        "use_network": "False",
    }.items():
        assert f"<tr><th>{name}</th><td>{value}</td></tr>" in html


def test_a_network_tells_its_steps_and_gates():
    training = TrainingConfig(max_steps=2, validate_every=2)
    forecaster = TitansForecaster(4, 12, training=training, progress=False)
    forecaster.fit(waves(["a"]).to_numpy())
    network = fitted_facts(forecaster)["network"]
    html = describe_html(forecaster)
    assert f"{network['weights']:,} weights, 2 training steps" in html
    assert f"{network['gate_fresh']:.0%} from the look-back alone" in html
    assert "<th>last time</th><td>none</td>" in html


def test_many_channels_are_cut_short():
    y = waves([f"c{k}" for k in range(15)])
    html = describe_html(TitansForecaster(4, 12, use_network=False).fit(y))
    assert "15: c0, c1" in html
    assert "c11, ..." in html
    assert "c12" not in html
