"""``TitansForecaster``: the facade. It checks, stores and translates; others do the work."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from titans_core import BackboneConfig, parameters
from titans_core.training_config import TrainingConfig
from titans_ts.frames import (
    Layout,
    advance_time,
    check_follows,
    check_same_columns,
    read_table,
    write_point,
    write_quantiles,
)
from titans_ts.linear import choose_linear, refit_linear
from titans_ts.model import Model, Scaler, Snapshot, at_levels
from titans_ts.model_file import load_forecaster, save_forecaster
from titans_ts.residual import fit_residual
from titans_ts.settings import (
    CONSTRAINTS,
    DEFAULT_BACKBONE,
    DEFAULT_TRAINING,
    QUANTILE_LEVELS,
    is_count,
)
from titans_ts.windows import Array, PatchClock


class TitansForecaster:
    """Forecast multivariate series, and go on learning from new rows without a refit.

    A closed-form ridge forecasts; a Titans network, whose memory learns at test time, corrects it
    as far as validation backs it. ``update`` takes in new rows at a bounded cost a row.

    Parameters
    ----------
    prediction_length : int
        Rows to forecast.
    context_length : int
        Rows of look-back.
    quantile_levels : sequence of float
        Levels to learn, ascending in (0, 1), 0.5 among them.
    validation_size : float or int
        Last part of y that choices are made on: a share in (0, 1) or a number of rows.
    refit : bool
        Learn the linear part again from all rows, validation included, after all choices.
    patch_length : int
        Rows of a token of the network (at most ``context_length`` are used).
    use_network : bool
        False: the linear part alone, with quantiles from its own errors: the floor.
    backbone : BackboneConfig, optional
        The network's backbone; None takes one block of width 32.
    training : TrainingConfig, optional
        How the network is trained; None takes at most 300 steps, with early stopping. Its ``seed``
        gives way to ``random_state``.
    time_column : str, optional
        Time column of a polars frame; None finds it.
    random_state : int
        Seed of weights and batches. The same seed gives the same model on the same machine.
    progress : bool
        Show a progress bar on standard error while the network trains.

    Attributes
    ----------
    model_ : Model
        What ``fit`` learned.
    training_history_ : TrainingHistory or None
        Losses of the network's training.
    n_features_in_ : int
        Number of channels.

    Examples
    --------
    >>> import numpy as np
    >>> rows = np.arange(400)
    >>> y = np.column_stack([np.sin(rows / 4), np.cos(rows / 7)])
    >>> forecaster = TitansForecaster(prediction_length=8, context_length=32, use_network=False)
    >>> forecaster.fit(y[:300]).predict().shape
    (8, 2)
    >>> forecaster.update(y[300:392]).predict()[:2].round(2)  # rows 392 and 393
    array([[ 0.62,  0.98],
           [ 0.4 ,  0.95]])
    """

    _parameter_constraints: ClassVar[parameters.Constraints] = CONSTRAINTS

    def __init__(
        self,
        prediction_length: int = 24,
        context_length: int = 96,
        *,
        quantile_levels: Sequence[float] = QUANTILE_LEVELS,
        validation_size: float = 0.2,
        refit: bool = True,
        patch_length: int = 16,
        use_network: bool = True,
        backbone: BackboneConfig | None = None,
        training: TrainingConfig | None = None,
        time_column: str | None = None,
        random_state: int = 0,
        progress: bool = True,
    ) -> None:
        self.prediction_length = prediction_length
        self.context_length = context_length
        self.quantile_levels = quantile_levels
        self.validation_size = validation_size
        self.refit = refit
        self.patch_length = patch_length
        self.use_network = use_network
        self.backbone = backbone
        self.training = training
        self.time_column = time_column
        self.random_state = random_state
        self.progress = progress

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: ARG002  # sklearn's signature
        """Return the constructor's parameters (none is an estimator, so ``deep`` is idle)."""
        return parameters.get_params(self)

    def set_params(self, **params: Any) -> TitansForecaster:
        """Change parameters; they take effect at the next ``fit``."""
        parameters.set_params(self, params)
        return self

    def __repr__(self) -> str:
        return parameters.describe(self)

    def __sklearn_tags__(self) -> Any:
        # scikit-learn asks, so it is imported already.
        from sklearn.utils import InputTags, Tags, TargetTags

        return Tags(
            estimator_type=None,
            target_tags=TargetTags(required=False),
            input_tags=InputTags(),
        )

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    def fit(self, y: Any, X: Any = None) -> TitansForecaster:
        """Learn from a series, and stand at its end.

        The last ``validation_size`` rows choose: penalties, shared or per-channel linear part,
        training step, how much of the network is let in, and the calibration of the quantiles.

        Parameters
        ----------
        y : array, Series or data frame
            Rows in time order: numpy ``(T,)`` or ``(T, C)``; pandas Series or wide DataFrame with
            a DatetimeIndex or RangeIndex; polars wide DataFrame with a time column. No missing
            values. A channel that is constant in the training rows is forecast to stay at its
            last value, and nothing is learned from it.
        X : ignored
            For scikit-learn's tools, which pass two arguments to every ``fit``. Anything but None
            is warned of.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            A parameter or y is not as described; y has too few rows.
        """
        parameters.check_params(self, self._parameter_constraints)
        if X is not None:
            warnings.warn(
                "fit(y, X) learns from y alone and ignores X; columns that are to be forecast "
                "together belong into y.",
                stacklevel=2,
            )
        table = read_table(y, time_column=self.time_column)
        n_train = self._training_rows(len(table.values))
        scaler = Scaler.fit(table.values[:n_train])
        scaler.check(table.values, "y")
        z = scaler.apply(table.values)
        lengths = (self.context_length, self.prediction_length)
        linear, choice = choose_linear(z, n_train, *lengths)
        clock = PatchClock(self.context_length, min(self.patch_length, self.context_length))
        levels = np.asarray(self.quantile_levels, dtype=float)
        training = DEFAULT_TRAINING if self.training is None else self.training
        residual, history = fit_residual(
            z,
            n_train,
            linear,
            levels,
            clock=clock,
            backbone=(self.backbone or DEFAULT_BACKBONE) if self.use_network else None,
            training=replace(training, seed=int(self.random_state)),
            progress=self.progress,
        )
        if self.refit:
            linear = refit_linear(z, choice, *lengths)
        model = Model(scaler, residual, clock, levels)
        stream = model.begin(table.values, linear)
        # Nothing is assigned before all is there: an interrupted fit leaves the last one whole.
        self.model_, self._stream = model, stream
        self.training_history_ = history
        self.n_features_in_ = table.values.shape[1]
        self._layout: Layout = table.layout
        self._last_time = table.last_time
        self._fitted_params = self.get_params()
        return self

    def predict(self, prediction_length: int | None = None, context: Any = None) -> Any:
        """Forecast the rows after the last one seen: the point forecast, made for squared error.

        Parameters
        ----------
        prediction_length : int, optional
            Rows to forecast, at most the fitted ``prediction_length``; None takes that.
        context : array, Series or data frame, optional
            Forecast what follows these rows instead (at least ``context_length``; what comes
            before the last ``context_length`` is read into a memory that begins with it). The
            stream is left alone.

        Returns
        -------
        array, Series or data frame
            Of the kind, names and time axis of the rows it follows.

        Raises
        ------
        NotFittedError, ValueError, TypeError
            Not fitted; a length that was not fitted; a context that is too short or does not fit.
        """
        layout, last_time, (point, _) = self._forecast(prediction_length, context)
        return write_point(layout, last_time, point)

    def predict_quantiles(
        self,
        levels: Sequence[float] | None = None,
        prediction_length: int | None = None,
        context: Any = None,
    ) -> Any:
        """Forecast quantiles, calibrated on validation; they never cross.

        The level 0.5 is the median, which for a skewed channel is not ``predict()``.

        Parameters
        ----------
        levels : sequence of float, optional
            Within the fitted ``quantile_levels``, between which they are interpolated; None takes
            those.
        prediction_length, context
            As in ``predict``.

        Returns
        -------
        array or data frame
            numpy ``(P, C, Q)``, or ``(P, Q)`` for a one-dimensional series; pandas with columns
            (channel, level), or the levels for a Series; polars with columns ``channel_qlevel``.
        """
        layout, last_time, (_, quantiles) = self._forecast(prediction_length, context)
        known = self.model_.levels
        wanted: Array = known if levels is None else np.asarray(levels, dtype=float).reshape(-1)
        rounding = 1e-6  # levels may have been given in float32
        outside = wanted[~((wanted >= known[0] - rounding) & (wanted <= known[-1] + rounding))]
        if len(outside) or not len(wanted):
            raise ValueError(
                f"levels must lie within the fitted quantile_levels [{known[0]:g}, {known[-1]:g}]; "
                f"got {outside.tolist()}. Fit with wider quantile_levels for more."
            )
        quantiles = at_levels(quantiles, known, wanted.clip(known[0], known[-1]))
        return write_quantiles(layout, last_time, quantiles, wanted.tolist())

    def update(self, y_new: Any, learn: bool = True) -> TitansForecaster:
        """Take in the rows that follow: move the forecast origin, and learn from them.

        The memory reads them, and the linear part learns by recursive least squares from every
        window whose last target row is now known, never from others. Row by row or all at once
        gives bitwise the same forecaster.

        Parameters
        ----------
        y_new : array, Series or data frame
            New rows, of the kind and columns that ``fit`` got.
        learn : bool
            False only moves the origin: what would be learned from these rows is passed over.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            The rows do not follow or do not fit; the stream has not moved then.
        """
        self._check_fitted("update")
        table = read_table(y_new, name="y_new", layout=self._layout)
        table = check_follows(self._layout, self._last_time, table, "y_new")
        self.model_.scaler.check(table.values, "y_new")
        last_time = advance_time(self._layout, self._last_time, len(table.values))
        stream = self._stream.copy()  # so that an interrupted update has not begun
        self.model_.observe(stream, table.values, learn=learn)
        self._stream, self._last_time = stream, last_time
        return self

    partial_fit = update

    def snapshot(self) -> Snapshot:
        """Keep where the stream stands: origin, memory, linear part."""
        self._check_fitted("snapshot")
        return Snapshot(self._stream.copy(), self._last_time, self.model_)

    def restore(self, snapshot: Snapshot) -> TitansForecaster:
        """Go back to where ``snapshot`` was taken, bit for bit; it can be used again.

        Raises
        ------
        ValueError
            The snapshot is of another fit.
        """
        self._check_fitted("restore")
        if getattr(snapshot, "model", None) is not self.model_:
            raise ValueError(
                "snapshot must come from snapshot() of this forecaster since its last fit; got one "
                "of another, or no snapshot at all. Use save() and load() across fits."
            )
        self._stream, self._last_time = snapshot.stream.copy(), snapshot.last_time
        return self

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write model and stream to one file (safetensors with a JSON header, no pickle)."""
        self._check_fitted("save")
        save_forecaster(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TitansForecaster:
        """Read what ``save`` wrote; the stream goes on bit for bit.

        Raises
        ------
        FileNotFoundError, ModelFileError
            There is no file, or it is not one that ``save`` wrote, whole and unchanged.
        """
        forecaster = cls()
        load_forecaster(forecaster, path)
        return forecaster

    def _forecast(
        self, prediction_length: int | None, context: Any
    ) -> tuple[Layout, Any, tuple[Array, Array]]:
        self._check_fitted("predict")
        longest = self._stream.linear.weights.shape[2]
        rows = longest if prediction_length is None else prediction_length
        if not is_count(rows) or rows > longest:
            raise ValueError(
                f"prediction_length must be an int in [1, {longest}], the length that this "
                f"forecaster was fitted for; got {rows!r}. Fit with a longer one for more."
            )
        layout, last_time, stream = self._layout, self._last_time, self._stream
        if context is not None:
            table = read_table(context, name="context", layout=layout)
            table = check_same_columns(layout, table, "context")
            self.model_.scaler.check(table.values, "context")
            needed = self.model_.clock.context_length
            if len(table.values) < needed:
                raise ValueError(
                    f"context has {len(table.values)} rows; needs at least context_length = "
                    f"{needed}. Give more rows, or fit with a shorter context_length."
                )
            layout, last_time = table.layout, table.last_time
            stream = self.model_.begin(table.values, stream.linear)
        point, quantiles = self.model_.forecast(stream)
        return layout, last_time, (point[:rows], quantiles[:rows])

    def _training_rows(self, rows: int) -> int:
        """Number of rows before the validation part."""
        share = self.validation_size
        validation = (
            int(share) if is_count(share) else max(round(share * rows), self.prediction_length)
        )
        train = rows - validation
        needed = self.context_length + self.prediction_length
        if validation < self.prediction_length or train < needed:
            raise ValueError(
                f"y has {rows} rows (n_samples={rows}), split into {max(train, 0)} for training "
                f"and {validation} for validation (validation_size={self.validation_size}); "
                f"training needs at least context_length + prediction_length = {needed} and "
                f"validation prediction_length = {self.prediction_length}. Give more rows, shorten "
                "context_length or prediction_length, or change validation_size."
            )
        return train

    def _check_fitted(self, method: str) -> None:
        if not hasattr(self, "model_"):
            # scikit-learn's own exception, imported only now: it takes as long as torch.
            from sklearn.exceptions import NotFittedError

            raise NotFittedError(
                f"This {type(self).__name__} is not fitted yet: call fit(y) before {method}()."
            )
