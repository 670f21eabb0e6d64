"""What users of other forecasters complain about, tried on this one: the table of docs/peers.md."""

from __future__ import annotations

import pickle
import subprocess
import sys
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import torch

from titans_ts import TitansForecaster, TrainingConfig

P, L = 4, 24
LINEAR = {"prediction_length": P, "context_length": L, "use_network": False}
BRIEF = {
    "prediction_length": P,
    "context_length": L,
    "training": TrainingConfig(max_steps=6, validate_every=3),
    "progress": False,
}


def changing(rows=1200, change=600):
    """A series that swings slowly, and from the change on fast."""
    rng = np.random.default_rng(0)
    phase = np.cumsum(np.where(np.arange(rows) < change, 0.25, 0.9))
    return (np.sin(phase) + 0.1 * rng.normal(size=rows))[:, None]


def forbid_fits(monkeypatch):
    for name in ("titans_ts.forecaster.fit_panel", "titans_ts.residual.fit_network"):
        monkeypatch.setattr(name, lambda *_, **__: pytest.fail("fitted again"))


# neuralforecast 1440, 535; darts 1100, 2378; sktime 843, 9481, 9773
def test_new_rows_are_learned_by_update_without_a_fit(monkeypatch):
    y = changing()
    learning, moving = (TitansForecaster(**LINEAR).fit(y[:600]) for _ in range(2))
    forbid_fits(monkeypatch)
    errors = np.zeros(2)
    for t in range(600, 1196):
        if t >= 900:  # after 300 rows of the new kind
            forecasts = [forecaster.predict() for forecaster in (learning, moving)]
            errors += [np.square(forecast - y[t : t + P]).mean() for forecast in forecasts]
        learning.update(y[t : t + 1])
        moving.update(y[t : t + 1], learn=False)
    assert errors[0] < 0.5 * errors[1]


# neuralforecast 1440: there, a second fit goes on in some versions and starts anew in others
def test_a_second_fit_always_starts_anew():
    y = changing()
    twice = TitansForecaster(**BRIEF).fit(y[:600]).fit(y[600:])
    np.testing.assert_array_equal(twice.predict(), TitansForecaster(**BRIEF).fit(y[600:]).predict())


# neuralforecast 1414
def test_a_loaded_model_learns_on_without_a_fit(tmp_path, monkeypatch):
    y = changing()
    forecaster = TitansForecaster(**BRIEF).fit(y[:600])
    forecaster.save(tmp_path / "model")
    loaded = TitansForecaster.load(tmp_path / "model")
    forbid_fits(monkeypatch)
    np.testing.assert_array_equal(
        loaded.update(y[600:700]).predict(), forecaster.update(y[600:700]).predict()
    )


# sktime 10451, 9481: a forecaster that keeps all rows grows, in memory and in its files
@pytest.mark.parametrize("options", [LINEAR, BRIEF], ids=["linear", "network"])
def test_a_forecaster_holds_no_more_after_many_rows_than_after_few(options, tmp_path):
    y = changing()
    forecaster = TitansForecaster(**options).fit(y[:300]).update(y[300:400])

    def sizes():
        forecaster.save(tmp_path / "model")
        return np.array([len(pickle.dumps(forecaster)), (tmp_path / "model").stat().st_size])

    before = sizes()
    assert (np.abs(sizes() - before) <= 64).all()
    forecaster.update(y[400:])
    assert (np.abs(sizes() - before) <= 64).all()  # counters may have one more digit


# darts 1739 (and neuralforecast 186)
@pytest.mark.parametrize("options", [LINEAR, BRIEF], ids=["linear", "network"])
def test_missing_values_in_channels_and_covariates_reach_no_number(options):
    rng = np.random.default_rng(1)
    y = np.column_stack([changing(500), rng.normal(size=(500, 3))])
    y[rng.random(y.shape) < 0.2] = np.nan
    y[250:310] = np.nan  # longer than the look-back
    y[396:400, :2] = np.nan  # at the origin
    forecaster = TitansForecaster(
        **options, target_columns=(0, 1), past_covariates=(2,), future_covariates=(3,)
    ).fit(y[:400])
    if forecaster.training_history_ is not None:
        assert np.isfinite(forecaster.training_history_.train_loss).all()
    for _ in range(2):
        ahead = y[400 : 400 + P, 3:]
        for answer in (
            forecaster.predict(future=ahead),
            forecaster.predict_quantiles(future=ahead),
            forecaster.predict_interval(0.8, future=ahead),
            forecaster.sample_paths(9, future=ahead),
        ):
            assert np.isfinite(answer).all()
        forecaster.update(y[400:460])


# neuralforecast 783, 1357: windows of a long series, and of many covariates
@pytest.mark.parametrize(
    ("rows", "roles"),
    [
        (150_000, {"target_columns": (0, 1)}),
        (100_000, {"target_columns": (0,), "past_covariates": tuple(range(1, 21))}),
    ],
    ids=["long", "many covariates"],
)
def test_more_rows_take_a_few_copies_of_them_and_not_all_their_windows(rows, roles):
    options = {"prediction_length": 24, "context_length": 96, "use_network": False}
    columns = sum(map(len, roles.values()))
    y = np.random.default_rng(0).normal(size=(3 * rows, columns)).cumsum(axis=0)
    peaks = []
    for part in (y[:rows], y):  # what validation may hold has a bound, and is full by the first
        tracemalloc.start()
        try:
            TitansForecaster(**options, **roles).fit(part)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    copies = (peaks[1] - peaks[0]) / y[rows:].nbytes
    assert copies < 10  # all windows would be 120


def mistakes():
    """Mistakes that need the data, and those that need none: what is wrong, and what is said."""
    days = pd.date_range("2024-01-01", periods=200)
    table = pd.DataFrame({"y": np.sin(np.arange(200.0)), "x": 0.0}, days)
    cuda = TrainingConfig(accelerator="cuda")
    return {
        "no device": (table, {"training": cuda}, "torch sees no CUDA device; use 'auto'"),
        "callback": (table, {"callbacks": [1]}, "must be callable.* Pass a function"),
        "parameter": (table, {"context_length": 1.5}, "must be an int >= 2 or 'auto'; got 1.5"),
        "column": (table, {"past_covariates": ["z"]}, "no past covariate.* 'z'.*'y', 'x'"),
        "role": (table, {"target_columns": ["y"], "past_covariates": ["y"]}, "Name it once"),
        "static": (table, {"static_covariates": ["y"]}, "changes within y.* Name it in past_cov"),
        "text": (table.assign(x="a"), {}, "'x' of y must hold real numbers.* Convert it"),
        "order": (table[::-1], {}, "Sort the rows"),
        "twice": (pd.concat([table, table[-1:]]), {}, "Keep one row of each"),
        "uneven": (table.set_index(days + pd.to_timedelta(np.arange(200) ** 2, "h")), {}, "Resamp"),
        "infinite": (table.replace(0.0, np.inf), {}, "infinite value;.* Replace them"),
        "short": (table[:20], {}, "training needs at least .* Give more rows, shorten"),
        "empty": (table.assign(x=np.nan), {}, "column 'x' of y has only missing values; drop it"),
    }


# pytorch-forecasting 2407
@pytest.mark.parametrize("mistake", sorted(mistakes()))
def test_a_mistake_is_named_with_its_cure_before_anything_is_learned(mistake, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("titans_ts.fitting.fit_covariates", lambda *_: pytest.fail("too late"))
    y, options, message = mistakes()[mistake]
    with pytest.raises((TypeError, ValueError), match=message):
        TitansForecaster(**{"prediction_length": P, "context_length": L, **options}).fit(y)


# Autoformer 104, PatchTST 7, Time-Series-Library 26: drop_last
def test_every_step_of_every_window_of_a_backtest_is_there_and_counts_once():
    y = changing(300)[:, 0]
    result = TitansForecaster(**LINEAR).backtest(y, n_windows=7, step=3, progress=False)
    rows = sorted(zip(result.frame["cutoff"], result.frame["ds"], strict=True))
    last = [299 - P - 3 * i for i in range(7)]
    assert rows == sorted((cut, cut + 1 + k) for cut in last for k in range(P))
    np.testing.assert_array_equal(result.frame["y"], y[np.asarray(result.frame["ds"])])
    error = result.frame["TitansForecaster"] - result.frame["y"]
    assert result.summary()["mse"][0] == pytest.approx(np.square(error).mean())


# pytorch-forecasting 401, gluonts 2280
def test_another_process_with_the_same_seed_gives_the_same_bits():
    code = (
        "import numpy as np, torch; torch.manual_seed({seed}); np.random.seed({seed});"
        "torch.set_num_threads(1);"
        "from titans_ts import TitansForecaster, TrainingConfig;"
        "y = np.sin(np.arange(200)[:, None] / [3, 5]);"
        "training = TrainingConfig(max_steps=6, validate_every=3);"
        "f = TitansForecaster(4, 24, training=training, progress=False, random_state=5).fit(y);"
        "print(f.predict_quantiles().tobytes().hex(), f.training_history_.train_loss)"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", code.format(seed=seed)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in (1, 2)  # whatever the state of the process
    }
    assert len(answers) == 1
