"""Series whose covariates have known effects."""

from __future__ import annotations

import numpy as np
import pandas as pd

EFFECTS = {"temp": 2.0, "holiday": -5.0}  # in units of y per unit


def autoregression(rng, rows, decay=0.8):
    noise, y = rng.normal(size=rows), np.zeros(rows)
    for t in range(1, rows):
        y[t] = decay * y[t - 1] + noise[t]
    return y


def sales(rows=1500, seed=0):
    """A weekly season, autoregressive noise, and the effects of temperature and holidays."""
    rng = np.random.default_rng(seed)
    days = pd.date_range("2019-01-01", periods=rows, name="ds")
    temp = np.convolve(rng.normal(size=rows + 4), np.ones(5) / 2, "valid")
    holiday = (rng.random(rows) < 0.05).astype(float)
    y = 10 + 3 * np.sin(np.arange(rows) * 2 * np.pi / 7) + autoregression(rng, rows)
    y += EFFECTS["temp"] * temp + EFFECTS["holiday"] * holiday
    return pd.DataFrame({"y": y, "temp": temp, "holiday": holiday}, days)


def shops(rows=260, count=3, seed=0):
    """A long table of shops: a past, a future (text) and a static (text) covariate."""
    frames = []
    for i in range(count):
        frame = sales(rows, seed + i).reset_index()
        frame["kind"] = np.where(frame.pop("holiday") > 0, "holiday", "plain")
        lead = np.random.default_rng(50 + i).normal(size=rows)
        frame["visits"], frame["town"] = lead, "AB"[i % 2]
        frame.loc[3:, "y"] += 2 * lead[:-3]
        frame.insert(0, "unique_id", f"shop{i}")
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)
