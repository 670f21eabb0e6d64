"""What the forecaster promises whatever the data come as: panels, tables, missing values."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from long_tables import KINDS as LONG_KINDS
from long_tables import as_kind

from titans_core import BackboneConfig, NeuralMemoryConfig
from titans_core.training import TrainingConfig
from titans_ts import TitansForecaster
from titans_ts.frames import read_panel
from titans_ts.linear import LinearPart

P, L, PATCH = 3, 12, 4
ROWS, MORE = 130, 24
LENGTHS = (ROWS, ROWS, ROWS - 50)  # the last series of a panel is short
OPTIONS: dict[str, Any] = {
    "prediction_length": P,
    "context_length": L,
    "patch_length": PATCH,
    "progress": False,
    "backbone": BackboneConfig(memory=NeuralMemoryConfig(dim=8, chunk_size=4), num_blocks=1),
    "training": TrainingConfig(max_steps=12, validate_every=6),
}
DAYS = pd.date_range("2024-01-01", periods=ROWS + MORE)
KINDS = ("numpy", "univariate", "list", "cube", "wide pandas", "wide polars", "wide pyarrow")
ALL_KINDS = (*KINDS, *(f"long {kind}" for kind in LONG_KINDS))


def values(*, missing: bool = False, seed: int = 0) -> np.ndarray:
    """Three series that end together, ``(3, ROWS + MORE)``."""
    rng = np.random.default_rng(seed)
    t = np.arange(ROWS + MORE)
    y = np.sin(t / 3 + np.arange(3)[:, None]) * [[1], [5], [0.2]] + [[0], [100], [-3]]
    y = y + 0.1 * np.abs(y).mean(axis=1, keepdims=True) * rng.normal(size=y.shape)
    if missing:
        gone = rng.random(y.shape) < 0.1
        gone[1, 60:70] = True
        gone[:, [0, L, ROWS]] = False
        y[gone] = np.nan
    return y


def data(kind: str, y: np.ndarray, first: int, last: int) -> Any:
    """Rows ``first <= row < last`` of the series as a kind; of panels the last one begins later."""
    frame = pd.DataFrame(y.T[first:last], DAYS[first:last], ["a", "b", "c"])
    begin = [max(first, ROWS - length) for length in LENGTHS]
    if kind == "numpy":
        return y.T[first:last].copy()
    if kind == "univariate":
        return y[0, first:last].copy()
    if kind == "cube":
        return y[:, first:last, None].copy()
    if kind == "list":
        return [y[i, b:last].copy() for i, b in enumerate(begin)]
    if kind == "wide pandas":
        return frame
    if kind.startswith("wide"):
        columns = {"day": DAYS[first:last].to_pydatetime(), **frame}
        return as_kind(columns, kind.split()[1])
    parts = [
        pd.DataFrame({"unique_id": name, "ds": DAYS[b:last], "y": y[i, b:last]})
        for i, (name, b) in enumerate(zip("bac", begin, strict=True))
    ]
    table = pd.concat(parts, ignore_index=True)
    columns = {name: table[name] for name in table}
    columns["ds"] = table["ds"].dt.to_pydatetime() if kind != "long pandas" else table["ds"]
    return as_kind(columns, kind.split()[1])


def numbers(answer: Any) -> np.ndarray:
    """All numbers of an answer of any kind, in order."""
    if isinstance(answer, list):
        return np.concatenate([np.ravel(part) for part in answer])
    if isinstance(answer, np.ndarray):
        return answer.ravel()
    if isinstance(answer, pl.LazyFrame):
        answer = answer.collect()
    if isinstance(answer, pd.Series):
        return answer.to_numpy()
    if isinstance(answer, pl.DataFrame):
        answer = answer.to_arrow()
    frame = answer if isinstance(answer, pd.DataFrame) else pd.DataFrame(answer.to_pydict())
    own = [c for c in frame.columns if c in ("unique_id", "ds", "day", "path")]
    return frame.drop(columns=own).to_numpy(dtype=float).ravel()


def everything(forecaster: TitansForecaster, **options: Any) -> list[np.ndarray]:
    """All that a forecaster says of what comes."""
    return [
        numbers(forecaster.predict(**options)),
        numbers(forecaster.predict_quantiles(**options)),
        numbers(forecaster.predict_interval([0.5, 0.7], **options)),
        numbers(forecaster.sample_paths(7, **options)),
    ]


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def with_memory(forecaster: TitansForecaster, y: Any) -> TitansForecaster:
    """The forecaster with its network and carried memory in use, whatever validation said."""
    residual = forecaster.model_.residual
    torch.manual_seed(0)
    torch.nn.init.normal_(residual.network.recall.weight)
    gate = np.ones_like(residual.carried.gate)
    carried = dataclasses.replace(
        residual.carried, asks_memory=True, gate=gate, loss=0.0, pinball=0.0
    )
    residual = dataclasses.replace(residual, carried=carried)
    forecaster.model_ = dataclasses.replace(forecaster.model_, residual=residual)
    for i, each in enumerate(read_panel(y, layout=forecaster._layout).series):
        stream = forecaster.model_.begin(
            each,
            forecaster._standing.linear,
            forecaster.model_.scalers[i],
            forecaster.model_.channels_of(i),
        )
        assert stream.memory is not None
        forecaster._standing.streams[each.key] = stream
    return forecaster


def fitted(kind: str, y: np.ndarray, **options: Any) -> TitansForecaster:
    return TitansForecaster(**{**OPTIONS, **options}).fit(data(kind, y, 0, ROWS))


def linear(kind: str, y: np.ndarray) -> TitansForecaster:
    return fitted(kind, y, use_network=False)


@pytest.fixture(scope="module")
def network() -> dict[str, tuple[TitansForecaster, Any]]:
    """Panels and tables whose memory is in use, with missing values."""
    y = values(missing=True)
    found = {}
    for kind in ("numpy", "list", "long pandas"):
        forecaster = with_memory(fitted(kind, y), data(kind, y, 0, ROWS))
        found[kind] = (forecaster, forecaster.snapshot())
    return found


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_garbage_after_a_time_changes_no_forecast_made_at_it(kind: str, missing: bool) -> None:
    y = values(missing=missing)
    garbage = y.copy()
    known = ROWS + 5
    garbage[:, known:] = 1e6 * np.random.default_rng(9).normal(size=garbage[:, known:].shape)
    answers = []
    for rows in (y, garbage):
        forecaster = linear(kind, rows)
        answers.append(everything(forecaster))
        for begin, end in ((ROWS, ROWS + 1), (ROWS + 1, known)):
            forecaster.update(data(kind, rows, begin, end))
            answers[-1] += everything(forecaster)
        answers[-1] += everything(forecaster, context=data(kind, rows, known - 30, known))
        forecaster.update(data(kind, rows, known, known + 1))
        answers[-1].append(numbers(forecaster.predict()))
    clean, spoiled = answers
    assert same(clean[:-1], spoiled[:-1])
    assert not np.array_equal(clean[-1], spoiled[-1])
    assert np.isfinite(np.concatenate(clean)).all()


@pytest.mark.parametrize("kind", ["numpy", "list", "long pandas"])
def test_garbage_after_a_time_does_not_reach_the_memory(
    kind: str, network: dict[str, tuple[TitansForecaster, Any]]
) -> None:
    forecaster, start = network[kind]
    y = values(missing=True)
    garbage = y.copy()
    known = ROWS + 13
    garbage[:, known:] = 1e3
    answers = []
    for rows in (y, garbage):
        forecaster.restore(start).update(data(kind, rows, ROWS, known))
        answers.append(everything(forecaster))
        forecaster.update(data(kind, rows, known, known + PATCH))
        answers.append([numbers(forecaster.predict())])
    assert same(answers[0], answers[2])
    assert not same(answers[1], answers[3])


@pytest.mark.parametrize(
    "kinds",
    [("numpy", *(k for k in KINDS if "wide" in k)), tuple(f"long {kind}" for kind in LONG_KINDS)],
)
def test_the_same_rows_give_the_same_numbers_in_every_kind(kinds: tuple[str, ...]) -> None:
    y = values(missing=True)
    answers = []
    for kind in kinds:
        forecaster = linear(kind, y)
        found = everything(forecaster)
        found += everything(forecaster.update(data(kind, y, ROWS, ROWS + MORE)))
        answers.append(found)
    for other in answers[1:]:
        assert same(answers[0], other)


def test_a_long_panel_of_any_kind_trains_the_same_network() -> None:
    y = values(missing=True)
    expected = everything(fitted("long pandas", y))
    assert same(expected, everything(fitted("long lazy", y)))


def test_a_list_a_cube_and_a_long_table_of_the_same_series_agree() -> None:
    y = values()
    cube = TitansForecaster(**OPTIONS).fit(y[:, :ROWS, None])
    listed = TitansForecaster(**OPTIONS).fit(list(y[:, :ROWS]))
    assert same(everything(cube), everything(listed))
    assert cube.predict().shape == (3, P, 1)
    assert [part.shape for part in listed.predict()] == [(P,)] * 3
    assert cube.predict_interval([0.5, 0.7]).shape == (3, P, 1, 2, 2)
    assert cube.sample_paths(5).shape == (3, 5, P, 1)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_the_answer_has_the_kind_order_names_and_times_of_the_question(kind: str) -> None:
    y = values()
    forecaster = linear(kind, y)
    question, answer = data(kind, y, 0, ROWS), forecaster.predict()
    assert type(answer) is type(question)
    days = DAYS[ROWS : ROWS + P]
    if kind == "wide pandas":
        assert answer.index.equals(days)
        assert list(answer.columns) == ["a", "b", "c"]
        paths = forecaster.sample_paths(2)
        assert paths.index.get_level_values(1)[:P].equals(days)
        return
    if isinstance(answer, (list, np.ndarray)):
        assert (
            np.shape(answer)
            == {"numpy": (P, 3), "univariate": (P,), "list": (3, P), "cube": (3, P, 1)}[kind]
        )
        return
    answer = answer.collect() if isinstance(answer, pl.LazyFrame) else answer
    names = list(answer.columns if not hasattr(answer, "column_names") else answer.column_names)
    if kind.startswith("wide"):
        assert names == ["day", "a", "b", "c"]
        assert list(pd.DatetimeIndex(np.asarray(answer["day"]))) == list(days)
        return
    assert names == ["unique_id", "ds", "y"]
    assert list(np.asarray(answer["unique_id"])) == list(np.repeat(["b", "a", "c"], P))
    assert list(pd.DatetimeIndex(np.asarray(answer["ds"]))) == list(days) * 3


@pytest.mark.parametrize("kind", ["numpy", "wide pandas", "long polars"])
def test_rows_left_out_are_rows_of_missing_values(kind: str) -> None:
    y = values()
    y[:, 40:43] = np.nan
    answers = [everything(linear(kind, y).update(data(kind, y, ROWS, ROWS + 5)))]
    if kind != "numpy":
        kept = np.setdiff1d(np.arange(ROWS), [40, 41, 42])
        rows = data(kind, y, 0, ROWS)
        rows = rows.iloc[kept] if kind == "wide pandas" else rows.filter(pl.col("y").is_not_nan())
        forecaster = TitansForecaster(**{**OPTIONS, "use_network": False}).fit(rows)
        answers.append(everything(forecaster.update(data(kind, y, ROWS, ROWS + 5))))
        assert same(*answers)
    y[:, ROWS + 2] = np.nan
    gap = linear(kind, y)
    if kind == "numpy":
        gap.update(data(kind, y, ROWS, ROWS + 5))
    else:
        gap.update(data(kind, y, ROWS, ROWS + 2)).update(data(kind, y, ROWS + 3, ROWS + 5))
    filled = linear(kind, y).update(data(kind, y, ROWS, ROWS + 5))
    assert same(everything(gap), everything(filled))


def test_a_window_of_missing_values_teaches_nothing_whatever_is_under_the_mask() -> None:
    y = values(missing=True)
    frame = pd.DataFrame(y.T[:ROWS]).astype("Float64")  # pandas keeps a value under each mask
    assert frame.isna().to_numpy().any()
    answers = []
    for hidden in (0.0, 1e9):
        masked = frame.copy()
        for name in masked:
            array = pd.arrays.FloatingArray(
                np.where(np.isnan(y.T[:ROWS, name]), hidden, y.T[:ROWS, name]),
                np.isnan(y.T[:ROWS, name]),
            )
            masked[name] = array
        answers.append(everything(TitansForecaster(**OPTIONS).fit(masked)))
    assert same(*answers)
    assert same(answers[0], everything(TitansForecaster(**OPTIONS).fit(y.T[:ROWS])))


@pytest.mark.parametrize("kind", ["numpy", "list", "long pandas"])
def test_row_by_row_is_all_at_once_with_missing_values(
    kind: str, network: dict[str, tuple[TitansForecaster, Any]], tmp_path: Any
) -> None:
    forecaster, start = network[kind]
    y = values(missing=True)
    at_once = everything(forecaster.restore(start).update(data(kind, y, ROWS, ROWS + MORE)))
    weights = [matrix.copy() for matrix in forecaster._standing.linear.weights]
    forecaster.restore(start)
    for row in range(ROWS, ROWS + 10):
        forecaster.update(data(kind, y, row, row + 1))
    forecaster.save(tmp_path / "mid")
    loaded = TitansForecaster.load(tmp_path / "mid")
    for mine in (forecaster, loaded):
        for row in range(ROWS + 10, ROWS + MORE):
            mine.update(data(kind, y, row, row + 1))
        assert same(everything(mine), at_once)
        for one, other in zip(mine._standing.linear.weights, weights, strict=True):
            np.testing.assert_array_equal(one, other)
    moved = sum(stream.patches for stream in loaded._standing.streams.values())
    assert moved > sum(stream.patches for stream in start.standing.streams.values())


def test_the_order_of_the_rows_of_a_long_update_does_not_matter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("titans_ts.linear_choice.MOST_OWN_MATRICES", 1)  # all learn in one matrix
    y = values(missing=True)
    forecaster = linear("long pandas", y)
    assert not forecaster._standing.linear.per_channel
    start = forecaster.snapshot()
    rows = data("long pandas", y, ROWS, ROWS + MORE)
    expected = everything(forecaster.update(rows))
    for seed in range(3):
        shuffled = rows.sample(frac=1, random_state=seed)
        assert same(everything(forecaster.restore(start).update(shuffled)), expected)


@pytest.mark.parametrize("kind", ["list", "long pandas"])
def test_a_series_is_forecast_alike_alone_and_among_others(
    kind: str, network: dict[str, tuple[TitansForecaster, Any]]
) -> None:
    forecaster, start = network[kind]
    forecaster.restore(start)
    y = values(missing=True)
    whole = data(kind, y, ROWS - 70, ROWS)
    together = forecaster.predict(context=whole)
    if kind == "long pandas":
        for order in (["b"], ["c", "a"], ["c", "b", "a"]):
            rows = pd.concat([whole[whole["unique_id"] == name] for name in order])
            answer = forecaster.predict(context=rows)
            assert answer["unique_id"].tolist() == list(np.repeat(order, P))
            for name in order:
                mine = answer.loc[answer["unique_id"] == name, "y"].to_numpy()
                known = together.loc[together["unique_id"] == name, "y"].to_numpy()
                np.testing.assert_allclose(mine, known, rtol=1e-5, atol=1e-6)
    else:
        others = forecaster.predict(context=[whole[0], *(7 - each for each in whole[1:])])
        np.testing.assert_allclose(others[0], together[0], rtol=1e-5, atol=1e-6)


def test_a_series_that_was_not_fitted_is_forecast_by_its_own_rows(
    network: dict[str, tuple[TitansForecaster, Any]],
) -> None:
    forecaster, start = network["long pandas"]
    forecaster.restore(start)
    known = data("long pandas", values(), 0, ROWS)
    known = known[known["unique_id"] == "a"]
    new = known.assign(unique_id="new")
    louder = known.assign(unique_id="louder", y=7 + 1000 * known["y"])
    answer = forecaster.predict(context=pd.concat([new, louder]))
    assert answer["unique_id"].tolist() == ["new"] * P + ["louder"] * P
    quiet, loud = answer["y"].to_numpy().reshape(2, P)
    np.testing.assert_allclose(loud, 7 + 1000 * quiet, rtol=1e-4)
    assert np.abs(quiet - known["y"].iloc[-1]).max() < 4 * known["y"].std()
    assert list(forecaster._standing.streams) == ["b", "a", "c"]
    few = forecaster.predict(context=new[-11:])["y"].to_numpy()  # of a look-back of 12
    assert np.abs(few - quiet).max() < known["y"].std()
    with pytest.raises(ValueError, match="series that the forecaster was not fitted on: 'new'"):
        forecaster.update(new)


def test_an_update_of_some_series_leaves_the_others_where_they_are(
    network: dict[str, tuple[TitansForecaster, Any]],
) -> None:
    forecaster, start = network["long pandas"]
    rows = data("long pandas", values(missing=True), ROWS, ROWS + MORE)
    forecaster.restore(start).update(rows[rows["unique_id"] == "a"])
    streams, before = forecaster._standing.streams, start.standing.streams
    assert streams["a"].rows == before["a"].rows + MORE
    for name in "bc":
        assert streams[name].rows == before[name].rows
        assert streams[name].memory is before[name].memory
    answer = forecaster.predict()
    times = answer.groupby("unique_id", sort=False)["ds"].min()
    assert times["a"] == DAYS[ROWS + MORE - 1] + pd.Timedelta(days=1)
    assert times["b"] == times["c"] == DAYS[ROWS]
    forecaster.update(rows[rows["unique_id"] != "a"])  # the others catch up
    assert forecaster.predict()["ds"].nunique() == P


def test_series_that_learned_apart_are_still_forecast_together(
    network: dict[str, tuple[TitansForecaster, Any]],
) -> None:
    forecaster, start = network["long pandas"]
    rows = data("long pandas", values(missing=True), ROWS, ROWS + MORE)
    first = rows["unique_id"] == "b"
    forecaster.restore(start).update(rows[first], learn=False).update(rows[~first])
    assert np.isfinite(np.concatenate(everything(forecaster))).all()


@pytest.mark.parametrize("kind", ["list", "long pandas"])
def test_an_interrupted_update_of_a_panel_has_not_begun(
    kind: str,
    network: dict[str, tuple[TitansForecaster, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forecaster, start = network[kind]
    before, calls = everything(forecaster.restore(start)), []
    rows = data(kind, values(missing=True), ROWS, ROWS + MORE)
    learn = LinearPart.learn

    def interrupted(part: LinearPart, *window: np.ndarray) -> None:
        calls.append(window)
        if len(calls) == 20:
            raise KeyboardInterrupt
        learn(part, *window)

    with monkeypatch.context() as patch:
        patch.setattr(LinearPart, "learn", interrupted)
        with pytest.raises(KeyboardInterrupt):
            forecaster.update(rows)
    assert same(everything(forecaster), before)
    assert forecaster._standing.ends == start.standing.ends
    at_once = everything(forecaster.update(rows))
    assert same(everything(forecaster.restore(start).update(rows)), at_once)


@pytest.mark.parametrize("kind", ["numpy", "long polars"])
def test_a_longer_forecast_begins_as_the_fitted_one_and_widens(kind: str) -> None:
    forecaster = linear(kind, values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        longer = forecaster.predict(2 * P + 1)
        wide = numbers(forecaster.predict_interval(0.8, 4 * P)).reshape(3, -1, 2)
    assert np.isfinite(numbers(longer)).all()
    if kind == "numpy":
        np.testing.assert_array_equal(longer[:P], forecaster.predict())
        # The forecast itself is the context of what lies beyond.
        y = np.concatenate([values().T[:ROWS], longer[:P]])
        np.testing.assert_allclose(longer[P : 2 * P], forecaster.predict(context=y), atol=1e-9)
        wide = numbers(forecaster.predict_interval(0.8, context=y[:ROWS])).reshape(P, 3, 2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            wide = forecaster.predict_interval(0.8, 4 * P)[:, :, 0].transpose(1, 0, 2)
    width = wide[..., 1] - wide[..., 0]
    assert (width[:, P:] >= width[:, [P - 1]] * (1 - 1e-9)).all()
    assert (np.diff(width[:, P - 1 :: P], axis=1) > 0).all()


def test_a_series_too_short_to_learn_from_is_forecast_in_its_own_units() -> None:
    y = values()
    panel = [*y[:, :ROWS], 1e4 + y[0, :5]]
    forecaster = TitansForecaster(**OPTIONS).fit(panel)
    assert np.abs(forecaster.predict()[3] - 1e4).max() < 10 * np.abs(y[0]).max()
    moved = forecaster.update([y[0, ROWS:], y[1, ROWS:], y[2, ROWS:], 1e4 + y[0, 5 : 5 + MORE]])
    assert np.abs(moved.predict()[3] - 1e4).max() < 10 * np.abs(y[0]).max()
