"""The forecaster as its users meet it: streams, leaks, files, quantiles, ablations."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from titans_core import BackboneConfig, NeuralMemoryConfig
from titans_core.training import TrainingConfig
from titans_ts import TitansForecaster, load_dataset
from titans_ts.adaptation import Stream
from titans_ts.evaluation import actual_windows, rolling_forecasts
from titans_ts.frames import read_panel
from titans_ts.linear import LinearPart
from titans_ts.outlook import Block

FITTED_ROWS = 900
TINY: dict[str, Any] = {
    "prediction_length": 6,
    "context_length": 24,
    "patch_length": 5,
    "progress": False,
    "backbone": BackboneConfig(memory=NeuralMemoryConfig(dim=8, chunk_size=4), num_blocks=1),
    "training": TrainingConfig(max_steps=30, validate_every=10),
}


@pytest.fixture(scope="module")
def weather() -> pd.DataFrame:
    return load_dataset("seattle-weather")


@pytest.fixture(scope="module")
def fitted(weather: pd.DataFrame) -> TitansForecaster:
    """A forecaster whose network and carried memory are in use, whatever validation said."""
    y = weather.to_numpy()[:FITTED_ROWS]
    forecaster = TitansForecaster(**TINY).fit(y)
    residual = forecaster.model_.residual
    torch.manual_seed(0)
    torch.nn.init.normal_(residual.network.recall.weight)
    carried = dataclasses.replace(
        residual.carried, asks_memory=True, gate=np.ones(1), loss=-1.0, pinball=0.0
    )
    residual = dataclasses.replace(residual, carried=carried)
    forecaster.model_ = dataclasses.replace(forecaster.model_, residual=residual)
    (key,) = forecaster._standing.streams
    begun = forecaster.model_.begin(
        read_panel(y).series[0],
        forecaster._standing.linear,
        forecaster.model_.scalers[0],
        np.arange(y.shape[1]),
    )
    assert begun.memory is not None
    forecaster._standing.streams[key] = begun
    return forecaster


def stream_of(forecaster: TitansForecaster) -> Stream:
    """The only stream of a wide table."""
    (stream,) = forecaster._standing.streams.values()
    return stream


@pytest.fixture
def forecaster(fitted: TitansForecaster, tmp_path: Path) -> TitansForecaster:
    """A fitted forecaster of one's own."""
    fitted.save(tmp_path / "fitted")
    return TitansForecaster.load(tmp_path / "fitted")


@pytest.fixture
def rows(weather: pd.DataFrame) -> np.ndarray:
    return weather.to_numpy()[FITTED_ROWS:]


def same_forecasts(one: TitansForecaster, other: TitansForecaster) -> bool:
    return np.array_equal(one.predict_quantiles(), other.predict_quantiles())


def test_the_point_forecast_makes_no_quantiles(
    fitted: TitansForecaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = fitted.predict()

    def fail(_: Block) -> None:
        raise AssertionError("quantiles were made")

    monkeypatch.setattr(Block, "quantiles", property(fail))
    np.testing.assert_array_equal(fitted.predict(), expected)
    with pytest.raises(AssertionError, match="quantiles were made"):
        fitted.predict_quantiles()


def test_row_by_row_equals_all_rows_at_once_bit_for_bit(
    forecaster: TitansForecaster, rows: np.ndarray, tmp_path: Path
) -> None:
    forecaster.save(tmp_path / "start")
    at_once = TitansForecaster.load(tmp_path / "start").update(rows[:200])
    for row in rows[:200]:
        forecaster.update(row[None])
    assert same_forecasts(forecaster, at_once)
    for one, other in zip(
        forecaster._standing.linear.weights, at_once._standing.linear.weights, strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert stream_of(forecaster).memory is not None
    assert stream_of(forecaster).patches == stream_of(at_once).patches


@pytest.mark.parametrize("learn", [True, False, None])
def test_the_future_does_not_reach_a_forecast(
    forecaster: TitansForecaster, weather: pd.DataFrame, learn: bool | None
) -> None:
    y = weather.to_numpy()[: FITTED_ROWS + 80]
    garbage = y.copy()
    known = FITTED_ROWS + 40
    garbage[known:] = np.random.default_rng(0).normal(size=garbage[known:].shape) * 1e6
    start = forecaster.snapshot()
    clean, spoiled = (
        rolling_forecasts(
            forecaster.restore(start), rows, FITTED_ROWS, learn=learn, levels=[0.1, 0.5]
        )
        for rows in (y, garbage)
    )
    assert np.array_equal(clean[:41], spoiled[:41])  # origins up to the first spoiled row
    assert not np.array_equal(clean[41], spoiled[41])


def test_a_forecast_is_not_moved_by_updates_that_come_after_it(
    forecaster: TitansForecaster, rows: np.ndarray
) -> None:
    forecast = forecaster.predict()
    kept = forecast.copy()
    forecaster.update(rows[:30])
    np.testing.assert_array_equal(forecast, kept)


def test_save_and_load_in_mid_stream_go_on_bit_for_bit(
    forecaster: TitansForecaster, rows: np.ndarray, tmp_path: Path
) -> None:
    forecaster.update(rows[:57])
    forecaster.save(tmp_path / "mid")
    loaded = TitansForecaster.load(tmp_path / "mid")
    assert loaded.get_params() == forecaster.get_params()
    for chunk in np.array_split(rows[57:150], 7):
        assert same_forecasts(loaded, forecaster)
        loaded.update(chunk)
        forecaster.update(chunk)
    assert same_forecasts(loaded, forecaster)


def test_a_snapshot_can_be_restored_again_and_again(
    forecaster: TitansForecaster, rows: np.ndarray
) -> None:
    forecaster.update(rows[:40])
    before = forecaster.predict_quantiles()
    snapshot = forecaster.snapshot()
    for _ in range(2):
        forecaster.update(rows[40:90])
        assert not np.array_equal(forecaster.predict_quantiles(), before)
        forecaster.restore(snapshot)
        np.testing.assert_array_equal(forecaster.predict_quantiles(), before)


def test_without_learning_update_only_moves_the_origin(
    forecaster: TitansForecaster, rows: np.ndarray
) -> None:
    weights = [matrix.copy() for matrix in forecaster._standing.linear.weights]
    memory = stream_of(forecaster).memory
    frozen = forecaster.update(rows[:80], learn=False)
    np.testing.assert_array_equal(frozen._standing.linear.weights, weights)
    assert stream_of(frozen).memory is memory
    context = stream_of(frozen).recent[-24:]
    assert np.array_equal(context, frozen.model_.scalers[0].apply(rows[56:80]))


def test_the_memory_holds_what_no_window_sees_any_more(
    forecaster: TitansForecaster, rows: np.ndarray
) -> None:
    start = forecaster.snapshot()
    another_past = rows[:80].copy()
    another_past[:20] = another_past[19::-1]  # long out of sight when row 80 is forecast
    forecasts = []
    for past in (rows[:80], another_past):
        forecaster.restore(start)
        # Only the memory learns here, so that only it can tell the two pasts apart.
        forecaster._standing.linear.learn = lambda *_: None  # type: ignore[method-assign]
        forecasts.append(forecaster.update(past).predict())
    assert not np.array_equal(*forecasts)


def test_the_stream_is_of_bounded_size(forecaster: TitansForecaster, rows: np.ndarray) -> None:
    forecaster.update(rows[:100])

    def size() -> int:
        stream = stream_of(forecaster)
        memory = stream.memory
        assert memory is not None
        weights = memory.blocks[0].memory.weights
        linear = forecaster._standing.linear
        arrays = [stream.recent, stream.known, *linear.weights, *linear.covariance]
        return sum(a.size for a in arrays) + sum(w.numel() for w in weights)

    before = size()
    forecaster.update(rows[100:400])
    assert size() == before


def test_quantiles_never_cross(forecaster: TitansForecaster, rows: np.ndarray) -> None:
    for row in rows[:30]:
        forecaster.update(row[None])
        assert (np.diff(forecaster.predict_quantiles(), axis=-1) >= 0).all()


def test_the_median_of_a_skewed_channel_is_not_its_mean() -> None:
    y = np.random.default_rng(0).exponential(size=(3200, 1))  # mean 1, median log 2
    forecaster = TitansForecaster(**{**TINY, "use_network": False}).fit(y[:3000])
    apart = []
    for row in y[3000:]:
        forecaster.update(row[None])
        apart.append(forecaster.predict() - forecaster.predict_quantiles([0.5])[..., 0])
    assert np.mean(apart) == pytest.approx(1 - np.log(2), abs=0.05)


def test_levels_between_the_fitted_ones_are_interpolated(forecaster: TitansForecaster) -> None:
    fitted = forecaster.predict_quantiles([0.2, 0.3])
    between = forecaster.predict_quantiles([0.25])
    np.testing.assert_allclose(between[..., 0], fitted.mean(axis=-1))
    assert forecaster.predict_quantiles().shape == (6, 4, 11)


def test_the_eighty_percent_interval_holds_about_that_much(
    forecaster: TitansForecaster, rows: np.ndarray
) -> None:
    inside = []
    for origin in range(300):
        low, high = np.moveaxis(forecaster.predict_quantiles([0.1, 0.9]), -1, 0)
        actual = rows[origin : origin + 6]
        inside.append((actual >= low) & (actual <= high))
        forecaster.update(rows[origin : origin + 1])
    assert 0.7 < np.mean(inside) < 0.9


def test_a_shorter_forecast_is_the_start_of_the_longer(forecaster: TitansForecaster) -> None:
    np.testing.assert_array_equal(forecaster.predict(2), forecaster.predict()[:2])


def test_a_context_is_forecast_as_a_stream_that_begins_with_it(
    forecaster: TitansForecaster, weather: pd.DataFrame
) -> None:
    y = weather.to_numpy()[:FITTED_ROWS]
    stream = forecaster.predict()
    np.testing.assert_allclose(forecaster.predict(context=y), stream, atol=1e-4)
    np.testing.assert_array_equal(forecaster.predict(), stream)  # and the stream has not moved


def test_the_same_seed_gives_the_same_model_and_leaves_the_global_one_alone(
    weather: pd.DataFrame,
) -> None:
    y = weather.to_numpy()[:400]
    before = np.random.get_state()[1].copy()  # noqa: NPY002  # the global state is the subject
    one, again = (TitansForecaster(**TINY, random_state=3).fit(y) for _ in range(2))
    assert same_forecasts(one, again)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_the_three_kinds_of_input_agree(weather: pd.DataFrame) -> None:
    options = {**TINY, "use_network": False}
    frame = weather.iloc[:400]
    from_numpy = TitansForecaster(**options).fit(frame.to_numpy())
    from_pandas = TitansForecaster(**options).fit(frame)
    polars_frame = load_dataset("seattle-weather", engine="polars")
    from_polars = TitansForecaster(**options).fit(polars_frame[:400])

    expected = from_numpy.update(weather.to_numpy()[400:420]).predict()
    answer = from_pandas.update(weather.iloc[400:420]).predict()
    assert isinstance(answer, pd.DataFrame)
    assert answer.index.equals(weather.index[420:426])
    assert answer.index.name == "date"
    assert list(answer.columns) == list(weather.columns)
    np.testing.assert_array_equal(answer.to_numpy(), expected)
    polars_answer = from_polars.update(polars_frame[400:420]).predict()
    assert isinstance(polars_answer, pl.DataFrame)
    assert polars_answer.columns == polars_frame.columns
    assert polars_answer["date"].equals(polars_frame["date"][420:426])
    np.testing.assert_array_equal(polars_answer.drop("date").to_numpy(), expected)


def test_a_univariate_array_is_answered_by_one(weather: pd.DataFrame) -> None:
    y = weather["temp_max"].to_numpy()
    forecaster = TitansForecaster(**{**TINY, "use_network": False}).fit(y[:300])
    assert forecaster.update(y[300:310]).predict().shape == (6,)
    assert forecaster.predict_quantiles([0.1, 0.5]).shape == (6, 2)


def test_a_constant_channel_stays_where_it_is_and_teaches_the_others_nothing(
    weather: pd.DataFrame,
) -> None:
    y = weather.to_numpy()[:420].copy()
    y[:, 1] = 0.1 + 0.2  # a number whose mean is not exactly itself
    forecaster = TitansForecaster(**TINY).fit(y[:400])
    others = TitansForecaster(**TINY).fit(np.delete(y[:400], 1, axis=1))
    assert (forecaster.predict_quantiles()[:, 1] == 0.1 + 0.2).all()
    # It wakes up after the fit: it is forecast to stay at its last value, wherever that is.
    awake = y[400:].copy()
    awake[:, 1] = np.arange(20) * 1e6
    for _ in range(2):
        quantiles = np.delete(forecaster.predict_quantiles(), 1, axis=1)
        np.testing.assert_array_equal(quantiles, others.predict_quantiles())
        forecaster.update(awake)
        others.update(np.delete(awake, 1, axis=1))
    assert (forecaster.predict()[:, 1] == 19e6).all()


def test_an_entirely_constant_series_stays_where_it_is() -> None:
    forecaster = TitansForecaster(**TINY).fit(np.full((100, 2), 7.0))
    np.testing.assert_array_equal(forecaster.predict_quantiles(), np.full((6, 2, 11), 7.0))


def test_intervals_of_the_linear_part_alone_cover_at_every_step() -> None:
    for seed in range(4):
        y = np.random.default_rng(seed).normal(size=(2400, 1)).cumsum(axis=0)
        forecaster = TitansForecaster(**{**TINY, "use_network": False}).fit(y[:1800])
        interval = rolling_forecasts(forecaster, y, 1800, learn=True, levels=[0.1, 0.9])
        actual = actual_windows(y, 1800, 6)
        inside = (actual >= interval[..., 0]) & (actual <= interval[..., 1])
        covered = inside.mean(axis=(0, 2))
        assert ((covered > 0.65) & (covered < 0.95)).all(), covered


def test_a_file_holds_the_network_that_was_fitted_whatever_the_parameters_are_now(
    forecaster: TitansForecaster, tmp_path: Path
) -> None:
    forecaster.set_params(backbone=None, context_length=99)
    forecaster.save(tmp_path / "model")
    assert same_forecasts(TitansForecaster.load(tmp_path / "model"), forecaster)


def test_without_the_network_it_is_the_ridge(weather: pd.DataFrame) -> None:
    y = weather.to_numpy()[:400]
    ridge = TitansForecaster(**{**TINY, "use_network": False}).fit(y)
    linear = ridge._standing.linear
    expected = linear.predict(stream_of(ridge).window(linear))
    in_units = ridge.model_.scalers[0].undo(expected.T, y[-1])
    np.testing.assert_array_equal(ridge.predict(), in_units)
    assert ridge.model_.residual.network is None
    assert ridge.training_history_ is None


def test_parameters_follow_scikit_learn(fitted: TitansForecaster) -> None:
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    assert not hasattr(copy, "model_")
    assert copy.set_params(context_length=48) is copy
    assert copy.context_length == 48
    assert repr(TitansForecaster(context_length=48)) == "TitansForecaster(context_length=48)"
    assert "0.5" in repr(TitansForecaster(quantile_levels=np.array([0.5])))
    assert TitansForecaster.partial_fit is TitansForecaster.update


def test_an_interrupted_update_has_not_begun(
    forecaster: TitansForecaster, rows: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, calls = forecaster.predict_quantiles(), []
    learn = LinearPart.learn

    def interrupted(part: LinearPart, *window: np.ndarray) -> None:
        calls.append(window)
        if len(calls) == 20:
            raise KeyboardInterrupt
        learn(part, *window)

    monkeypatch.setattr(LinearPart, "learn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        forecaster.update(rows[:50])
    np.testing.assert_array_equal(forecaster.predict_quantiles(), before)


def test_an_interrupted_fit_leaves_the_last_one_whole(
    forecaster: TitansForecaster, rows: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    before = forecaster.predict_quantiles()
    monkeypatch.setattr(Stream, "begin", interrupted)
    with pytest.raises(KeyboardInterrupt):
        forecaster.set_params(use_network=False).fit(rows[:, :3])
    np.testing.assert_array_equal(forecaster.predict_quantiles(), before)


def test_one_bad_channel_does_not_spoil_the_others(rows: np.ndarray) -> None:
    options = {**TINY, "use_network": False}
    alone = TitansForecaster(**options).fit(rows[:400, 1:]).predict()
    for bad in (1e4, 1e9):
        y = rows[:400].copy()
        y[380, 0] = bad  # among the validation rows
        beside = TitansForecaster(**options).fit(y).predict()[:, 1:]
        assert np.abs(beside - alone).max() < 0.5 * rows[:400, 1:].std()


def test_an_outlier_does_not_poison_the_stream(
    forecaster: TitansForecaster, rows: np.ndarray
) -> None:
    start = forecaster.snapshot()
    expected = forecaster.update(rows[:200]).predict()
    for size in (1e8, 1e20, 1e40):
        forecaster.restore(start)
        spoiled = rows[:200].copy()
        spoiled[50, 0] = size
        answer = forecaster.update(spoiled).predict()
        assert np.abs(answer - expected).max() < rows[:200].std()


def test_files_and_fits_do_not_depend_on_torch_defaults(
    forecaster: TitansForecaster, weather: pd.DataFrame, tmp_path: Path
) -> None:
    forecaster.save(tmp_path / "model")
    before = torch.get_rng_state()
    torch.set_default_dtype(torch.float64)
    try:
        loaded = TitansForecaster.load(tmp_path / "model")
        fitted = TitansForecaster(**TINY).fit(weather.to_numpy()[:300])
        assert same_forecasts(loaded, forecaster)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.isfinite(fitted.predict()).all()


def test_scikit_learn_knows_whether_it_is_fitted(fitted: TitansForecaster) -> None:
    check_is_fitted(fitted)
    with pytest.raises(NotFittedError):
        check_is_fitted(TitansForecaster())


def test_levels_may_come_in_float32(weather: pd.DataFrame) -> None:
    levels = np.array([0.1, 0.5, 0.9], dtype=np.float32)
    options = {**TINY, "use_network": False, "quantile_levels": levels}
    forecaster = TitansForecaster(**options).fit(weather.to_numpy()[:300])
    assert forecaster.predict_quantiles([0.1, 0.5, 0.9]).shape == (6, 4, 3)


def test_importing_the_head_stays_light() -> None:
    code = (
        "import torch, sys; before = set(sys.modules); from titans_ts import TitansForecaster;"
        "heavy = {'sklearn', 'scipy', 'pandas', 'polars', 'pyarrow', 'narwhals', 'matplotlib',"
        " 'lightning_fabric', 'pooch', 'typer', 'rich'};"
        "print(sorted(heavy & (set(sys.modules) - before)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"


def test_rows_of_several_threads_are_all_taken(weather: pd.DataFrame) -> None:
    y = weather.to_numpy()
    forecaster = TitansForecaster(6, 24, use_network=False, progress=False).fit(y[:300])
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda t: forecaster.update(y[t : t + 1]), range(300, 400)))
    assert stream_of(forecaster).rows == 400
    assert stream_of(clone(forecaster).fit(y[:300])).rows == 300
