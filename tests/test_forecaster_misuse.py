"""Bad input meets an error that names the offender and the cure, and nothing is lost by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.exceptions import NotFittedError

from titans_core.persistence import ModelFileError, save_tree
from titans_ts import TitansForecaster

OPTIONS: dict[str, Any] = {"prediction_length": 4, "context_length": 12, "use_network": False}
RNG = np.random.default_rng(0)
Y = RNG.normal(size=(120, 2)).cumsum(axis=0)
FRAME = pd.DataFrame(
    Y, index=pd.date_range("2024-01-01", periods=120, freq="D"), columns=["a", "b"]
)


@pytest.fixture
def on_numpy() -> TitansForecaster:
    return TitansForecaster(**OPTIONS).fit(Y)


@pytest.fixture
def on_pandas() -> TitansForecaster:
    return TitansForecaster(**OPTIONS).fit(FRAME)


def spoiled(value: float) -> np.ndarray:
    y = Y.copy()
    y[17, 1] = value
    return y


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (np.zeros((2, 3, 4, 5)), ValueError, r"y.*\(2, 3, 4, 5\)"),
        (np.zeros((3, 4, 5)), ValueError, "the longest series, 0, has 4 rows"),
        (np.empty((0, 2)), ValueError, "y has no rows"),
        (np.full((120, 2), np.nan), ValueError, "y has only missing values"),
        (Y * [1, np.nan], ValueError, "column 1 of y has only missing values; drop it"),
        (spoiled(np.inf), ValueError, "infinite.*row 17"),
        ("history.csv", TypeError, "str"),
        (None, TypeError, "NoneType"),
        (FRAME[::-1], ValueError, "sort_index"),
        (pd.concat([FRAME, FRAME[-1:]]), ValueError, r"2024-04-29.*duplicated"),
        (FRAME.assign(c="x"), TypeError, "'c'"),
        (pl.DataFrame({"a": [None]}, {"a": pl.Float64}), ValueError, "only missing values"),
        ([Y, Y[:, :1]], ValueError, r"one C; got \[\(120, 2\), \(120, 1\)\]"),
    ],
)
def test_fit_refuses_what_is_no_clean_series(y: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        TitansForecaster(**OPTIONS).fit(y)


def test_too_few_rows_say_how_many_are_needed_and_why() -> None:
    message = (
        r"y has 18 rows \(n_samples=18\), split into 14 for training and 4 for validation "
        r".*training needs at least "
        r"context_length \+ prediction_length = 16 .*Give more rows, shorten context_length"
    )
    with pytest.raises(ValueError, match=message):
        TitansForecaster(**OPTIONS).fit(Y[:18])
    TitansForecaster(**OPTIONS).fit(Y[:20])


def test_a_validation_part_shorter_than_a_forecast_is_refused() -> None:
    with pytest.raises(ValueError, match=r"3 for validation .*validation prediction_length = 4"):
        TitansForecaster(**OPTIONS, validation_size=3).fit(Y)


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("prediction_length", 0, "an int >= 1; got 0"),
        ("prediction_length", 4.0, "an int >= 1; got 4.0"),
        ("context_length", 1, "an int >= 2 or 'auto'; got 1"),
        ("context_length", True, "an int >= 2 or 'auto'; got True"),
        ("context_length", "long", "an int >= 2 or 'auto'; got 'long'"),
        ("refit", 1, "a bool; got 1"),
        ("id_column", None, "a str; got None"),
        ("target_columns", "y", "a sequence of column names"),
        ("quantile_levels", (0.1, 0.9), "with 0.5 among them"),
        ("quantile_levels", (0.5, 0.1), "ascending"),
        ("quantile_levels", (0.5, 1.0), r"in \(0, 1\)"),
        ("quantile_levels", 0.5, "ascending"),
        ("quantile_levels", [[0.1], [0.5, 0.9]], "ascending"),
        ("random_state", 2**63, r"an int in \[0, 2\*\*63\)"),
        ("validation_size", 1.5, r"a float in \(0, 1\) or an int >= 1; got 1.5"),
        ("patch_length", 0, "an int >= 1; got 0"),
        ("target_transform", "sqrt", "'auto', 'none' or 'log'; got 'sqrt'"),
        ("use_network", 1, "a bool; got 1"),
        ("backbone", {"dim": 8}, "a BackboneConfig or None"),
        ("training", 100, "a TrainingConfig or None; got 100"),
        ("random_state", -1, r"an int in \[0, 2\*\*63\); got -1"),
        ("random_state", 0.0, "got 0.0"),
    ],
)
def test_a_bad_parameter_is_named_at_fit(name: str, value: Any, wanted: str) -> None:
    forecaster = TitansForecaster().set_params(**{name: value})
    with pytest.raises(ValueError, match=f"`{name}` of TitansForecaster must be .*{wanted}"):
        forecaster.fit(Y)


def test_unknown_parameters_are_refused() -> None:
    with pytest.raises(TypeError, match="horizon"):
        TitansForecaster(horizon=3)  # type: ignore[call-arg]
    forecaster = TitansForecaster()
    with pytest.raises(ValueError, match=r"Invalid parameter 'horizon' .*Valid parameters are: "):
        forecaster.set_params(horizon=3, context_length=7)
    assert forecaster.context_length == "auto"


@pytest.mark.parametrize(
    "method", ["predict", "predict_quantiles", "predict_interval", "sample_paths", "snapshot"]
)
def test_an_unfitted_forecaster_says_so(method: str) -> None:
    with pytest.raises(NotFittedError, match=r"not fitted yet: call fit\(y\) before"):
        getattr(TitansForecaster(), method)()


def test_an_unfitted_forecaster_neither_updates_nor_saves(tmp_path: Path) -> None:
    with pytest.raises(NotFittedError, match=r"before update\(\)"):
        TitansForecaster().update(Y)
    with pytest.raises(NotFittedError, match=r"before save\(\)"):
        TitansForecaster().save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        (Y[:5, :1], ValueError, "y_new has 1 column"),
        (Y[0], ValueError, r"pass y_new\[None, :\]"),
        (np.full((3, 2), np.inf), ValueError, "y_new has 3 infinite values; first in column 0"),
        (np.full((1, 2), 1e200), ValueError, r"y_new holds 1e\+200 at row 0 of channel 0"),
        (FRAME[:5], ValueError, "y_new is a pandas DataFrame; .* fitted on a numpy array"),
    ],
)
def test_a_refused_update_leaves_the_stream_where_it_was(
    on_numpy: TitansForecaster, rows: Any, error: type, message: str
) -> None:
    before = on_numpy.predict_quantiles()
    with pytest.raises(error, match=message):
        on_numpy.update(rows)
    np.testing.assert_array_equal(on_numpy.predict_quantiles(), before)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (FRAME[-3:], "y_new must start at 2024-04-30.* got 2024-04-27"),
        (FRAME.rename(columns={"b": "c"}), r"missing \['b'\], unexpected \['c'\]"),
        (
            FRAME.set_index(FRAME.index + pd.Timedelta(days=120 + 1201)),
            "y_new starts at 2027-08-14, 1201 steps later than due; at most 1200 may be left out",
        ),
    ],
)
def test_rows_that_do_not_follow_are_refused(
    on_pandas: TitansForecaster, rows: pd.DataFrame, message: str
) -> None:
    before = on_pandas.predict()
    with pytest.raises(ValueError, match=message):
        on_pandas.update(rows)
    pd.testing.assert_frame_equal(on_pandas.predict(), before)


def test_a_row_without_its_table_is_refused(on_pandas: TitansForecaster) -> None:
    row = FRAME.set_index(FRAME.index + pd.Timedelta(days=120)).iloc[0]
    with pytest.raises(ValueError, match=r"y_new is a single row, .* df.iloc\[\[i\]\]"):
        on_pandas.update(row)


@pytest.mark.parametrize("seed", [-1, "first"])
def test_a_seed_that_is_none_is_refused(on_numpy: TitansForecaster, seed: Any) -> None:
    with pytest.raises(ValueError, match=f"random_state must be an int >= 0; got {seed!r}"):
        on_numpy.sample_paths(5, random_state=seed)


def test_other_columns_at_predict_than_at_fit_are_refused(on_pandas: TitansForecaster) -> None:
    with pytest.raises(ValueError, match=r"context has other columns .*missing \['b'\]"):
        on_pandas.predict(context=FRAME.drop(columns="b"))


def test_a_context_that_is_too_short_says_how_long_it_must_be(on_numpy: TitansForecaster) -> None:
    with pytest.raises(ValueError, match="context has 11 rows; needs at least context_length = 12"):
        on_numpy.predict(context=Y[:11])


@pytest.mark.parametrize("length", [0, -1, True, 2.0])
def test_a_length_that_is_none_is_refused(on_numpy: TitansForecaster, length: Any) -> None:
    with pytest.raises(ValueError, match=rf"prediction_length must be an int >= 1; got {length}\."):
        on_numpy.predict(length)


def test_a_length_beyond_the_fitted_one_is_warned_of(on_numpy: TitansForecaster) -> None:
    message = "prediction_length = 5 is beyond the 4 rows fitted for: the forecast rolls on"
    for method in ("predict", "predict_quantiles", "predict_interval", "sample_paths"):
        with pytest.warns(UserWarning, match=message) as caught:
            getattr(on_numpy, method)(prediction_length=5)
        assert caught[0].filename == __file__  # the line that asked


@pytest.mark.parametrize("levels", [[0.01], [0.5, 0.99], [], [float("nan")]])
def test_levels_outside_the_fitted_ones_are_refused(
    on_numpy: TitansForecaster, levels: list[float]
) -> None:
    with pytest.raises(ValueError, match=r"levels must lie within .*\[0.05, 0.95\].* got "):
        on_numpy.predict_quantiles(levels)


def test_a_snapshot_of_another_fit_is_refused(on_numpy: TitansForecaster) -> None:
    other = TitansForecaster(**OPTIONS).fit(Y).snapshot()
    for wrong in (other, None):
        with pytest.raises(ValueError, match=r"snapshot must come from snapshot\(\) of this"):
            on_numpy.restore(wrong)  # type: ignore[arg-type]


def test_files_that_are_no_model_are_refused(on_numpy: TitansForecaster, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        TitansForecaster.load(tmp_path / "absent")
    (tmp_path / "picture").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    save_tree(tmp_path / "other", {"a": 1}, kind="something else")
    on_numpy.save(tmp_path / "model")
    whole = (tmp_path / "model").read_bytes()
    (tmp_path / "cut").write_bytes(whole[:-100])
    flipped = bytearray(whole)
    flipped[-50] ^= 1
    (tmp_path / "flipped").write_bytes(flipped)
    save_tree(tmp_path / "newer", {"layout_version": 99}, kind="TitansForecaster")
    for name in ("picture", "other", "cut", "flipped", "newer"):
        with pytest.raises(ModelFileError, match=name):
            TitansForecaster.load(tmp_path / name)


def test_values_too_small_to_be_scaled_count_as_constant() -> None:
    forecaster = TitansForecaster(**OPTIONS).fit(Y * [1, 1e-200])
    np.testing.assert_array_equal(forecaster.predict()[:, 1], np.full(4, Y[-1, 1] * 1e-200))


def test_values_too_large_to_be_scaled_are_refused() -> None:
    with pytest.raises(ValueError, match=r"channel 1 .*too large"):
        TitansForecaster(**OPTIONS).fit(spoiled(1e300))
