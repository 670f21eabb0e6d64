"""``TitansForecaster``: the facade. It checks, stores and translates; others do the work."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from titans_core import BackboneConfig, parameters
from titans_core.training_config import TrainingCallback, TrainingConfig, check_callbacks
from titans_ts.explain import Explanation, explain_ahead
from titans_ts.fitting import fit_panel
from titans_ts.frames import (
    Layout,
    Panel,
    Roles,
    check_follows,
    check_same_columns,
    read_panel,
    write_intervals,
    write_paths,
    write_point,
    write_quantiles,
)
from titans_ts.model_file import load_forecaster, save_forecaster
from titans_ts.question import (
    Ahead,
    Asked,
    ask_context,
    ask_streams,
    look_ahead,
    look_ahead_given,
)
from titans_ts.settings import CONSTRAINTS, QUANTILE_LEVELS, is_count
from titans_ts.standing import Snapshot, Standing, moving
from titans_ts.windows import Array

if TYPE_CHECKING:
    import pandas as pd
    from torch.export import ExportedProgram

    from titans_ts.backtest_result import BacktestResult


class TitansForecaster:
    """Forecast multivariate series, and go on learning from new rows without a refit.

    A closed-form ridge forecasts; a Titans network, whose memory learns at test time, corrects it
    as far as validation backs it. ``update`` takes in new rows at a bounded cost a row.

    Parameters
    ----------
    prediction_length : int
        Rows to forecast.
    context_length : int or "auto"
        Rows of look-back, the longest: validation mixes shorter ones in. "auto" chooses the
        longest, too, from a quarter of the training rows down.
    quantile_levels : sequence of float
        Levels to learn, ascending in (0, 1), 0.5 among them.
    validation_size : float or int
        Last part of y that choices are made on: a share in (0, 1) or a number of rows.
    refit : bool
        Learn the linear part again from all rows, validation included, after all choices.
    patch_length : int
        Rows of a token of the network (at most ``context_length`` are used).
    use_memory : bool
        Keep a memory of the season along each series, and ask it as far as validation backs it.
    target_transform : {"auto", "none", "log"}
        Learn the series as they are, or their logarithms, which suit what grows and varies by
        shares of its level. "auto": logarithms of channels whose training rows are positive, if
        validation backs them. What is 0 or less later counts as a tenth of the least of them.
    use_network : bool
        False: no network; quantiles come from the errors that are left. Without the memory either
        this is the linear part alone: the floor.
    backbone : BackboneConfig, optional
        The network's backbone; None takes one block of width 32.
    training : TrainingConfig, optional
        How the network is trained; None takes at most 800 steps, with early stopping. Its ``seed``
        gives way to ``random_state``.
    time_column : str, optional
        Time column of a table; None finds it. (Wide pandas tables have the times in the index.)
    id_column : str
        Column that tells the series of a long table apart; a table that has it is a long one.
    target_columns : sequence of str, optional
        Channels to forecast. None takes "y" of a long table that has it, else every numeric column
        without another role.
    past_covariates, future_covariates, static_covariates : sequence of str or int
        Columns (of arrays, by position) that are known up to now; ahead, too; constant within a
        series. Numbers or, in tables, text. Validation decides whether they are let in.
    random_state : int
        Seed of weights and batches. The same seed gives the same model on the same machine.
    progress : bool
        Show a progress bar on standard error while the network trains.
    callbacks : sequence of callable, optional
        Each is called with a `TrainingProgress` after every validation of the network's training,
        and then of its memory's. Returning True ends that training; the best step is kept. They
        are not saved.

    Attributes
    ----------
    model_ : Model
        What ``fit`` learned.
    context_length_ : int
        Rows of look-back in use: at most ``context_length``.
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
        context_length: int | Literal["auto"] = "auto",
        *,
        quantile_levels: Sequence[float] = QUANTILE_LEVELS,
        validation_size: float = 0.2,
        refit: bool = True,
        patch_length: int = 16,
        use_memory: bool = True,
        target_transform: Literal["auto", "none", "log"] = "auto",
        use_network: bool = True,
        backbone: BackboneConfig | None = None,
        training: TrainingConfig | None = None,
        time_column: str | None = None,
        id_column: str = "unique_id",
        target_columns: Sequence[str | int] | None = None,
        past_covariates: Sequence[str | int] = (),
        future_covariates: Sequence[str | int] = (),
        static_covariates: Sequence[str | int] = (),
        random_state: int = 0,
        progress: bool = True,
        callbacks: Sequence[TrainingCallback] | None = None,
    ) -> None:
        self.prediction_length = prediction_length
        self.context_length = context_length
        self.quantile_levels = quantile_levels
        self.validation_size = validation_size
        self.refit = refit
        self.patch_length = patch_length
        self.use_memory = use_memory
        self.target_transform = target_transform
        self.use_network = use_network
        self.backbone = backbone
        self.training = training
        self.time_column = time_column
        self.id_column = id_column
        self.target_columns = target_columns
        self.past_covariates = past_covariates
        self.future_covariates = future_covariates
        self.static_covariates = static_covariates
        self.random_state = random_state
        self.progress = progress
        self.callbacks = callbacks

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
            input_tags=InputTags(allow_nan=True),
        )

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    def fit(self, y: Any, X: Any = None) -> TitansForecaster:
        """Learn from a series or a panel of them, and stand at the end of each.

        The last ``validation_size`` rows of each series choose: penalties, look-backs, shared or
        per-channel linear parts, training step, how much of the network is let in, and the
        calibration of the quantiles.

        Parameters
        ----------
        y : array, list of arrays, Series or table
            Arrays ``(T,)``, ``(T, C)``, a panel ``(N, T, C)`` or a list of arrays of any lengths.
            Tables of pandas, polars (lazy ones, too) or pyarrow: wide, a row per time and a column
            per channel, or long, a row per series and time in any order. Values may be missing:
            such rows teach nothing. A channel that is constant in the training rows is forecast to
            stay at its last value, and nothing is learned from it. Covariates are columns beside
            the channels; where they are missing they count as their mean.
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
        self._check_params()
        if X is not None:
            warnings.warn(
                "fit(y, X) learns from y alone and ignores X; columns that are to be forecast "
                "together belong into y.",
                stacklevel=2,
            )
        return self._fit_panel(read_panel(y, self._roles()))

    def predict(
        self, prediction_length: int | None = None, context: Any = None, *, future: Any = None
    ) -> Any:
        """Forecast the rows after the last one seen: the point forecast, made for squared error.

        Parameters
        ----------
        prediction_length : int, optional
            Rows to forecast; None takes the fitted ``prediction_length``. Beyond that a forecast
            rolls on, its own rows as context, with a warning.
        context : array, list of arrays, Series or table, optional
            Forecast what follows these rows instead (at least ``context_length_`` of them, unless
            several series were fitted: then a short one has wider intervals; what comes before the
            last of these is read into a memory that begins with it). The streams are left alone.
            Arrays of a list are of the series fitted, in their order. A series that was not fitted,
            with its id in a long table or as an array by itself, is scaled by its context.
        future : table, array or list of arrays, optional
            The ``future_covariates`` of the steps to forecast, needed if there are any: a table
            with ids and times as in ``fit``, or (rows, K) of each series in their order.

        Returns
        -------
        array, list of arrays, Series or table
            Of the kind, names and time axis of the rows it follows.

        Raises
        ------
        NotFittedError, ValueError, TypeError
            Not fitted; a length that is none; a context that is too short or does not fit.
        """
        ahead = self._look_ahead(prediction_length, context, future)
        return write_point(ahead.layout, ahead.ends, ahead.in_units(lambda outlook: outlook.mean))

    def predict_quantiles(
        self,
        levels: Sequence[float] | None = None,
        prediction_length: int | None = None,
        context: Any = None,
        *,
        future: Any = None,
    ) -> Any:
        """Forecast quantiles, calibrated on validation; they never cross.

        The level 0.5 is the median, which for a skewed channel is not ``predict()``.

        Parameters
        ----------
        levels : sequence of float, optional
            Within the fitted ``quantile_levels``, between which they are interpolated; None takes
            those.
        prediction_length, context, future
            As in ``predict``.

        Returns
        -------
        array, list of arrays or table
            numpy ``(P, C, Q)``, or ``(P, Q)`` for a one-dimensional series; wide pandas with
            columns (channel, level), or the levels for a Series; other tables with columns
            ``channel_qlevel``.
        """
        ahead = self._look_ahead(prediction_length, context, future)
        values, wanted = ahead.quantiles(self.model_.levels, levels)
        return write_quantiles(ahead.layout, ahead.ends, values, wanted)

    def predict_interval(
        self,
        coverage: float | Sequence[float] = 0.9,
        prediction_length: int | None = None,
        context: Any = None,
        *,
        future: Any = None,
    ) -> Any:
        """Forecast intervals that hold each value with this probability, by split conformal.

        Around the point forecast, as wide as its errors on validation were, step by step, per scale
        of the window. That covers as promised while errors stay of their kind (exchangeable);
        validation has also chosen the model, and its windows overlap, so take it as an estimate.

        Parameters
        ----------
        coverage : float or sequence of float
            In (0, 1).
        prediction_length, context, future
            As in ``predict``.

        Returns
        -------
        array, list of arrays or table
            numpy ``(P, C, K, 2)``, lower before upper, without the axes that a one-dimensional
            series lacks; wide pandas with columns (channel, coverage, bound); long tables with
            ``y_lo90`` and ``y_hi90``, other wide ones with ``y_lower90`` and ``y_upper90``.

        Raises
        ------
        ValueError
            A coverage is not in (0, 1), or higher than the validation windows vouch for.
        """
        ahead = self._look_ahead(prediction_length, context, future)
        return write_intervals(ahead.layout, ahead.ends, *ahead.intervals(coverage))

    def sample_paths(
        self,
        n_paths: int = 100,
        prediction_length: int | None = None,
        context: Any = None,
        *,
        future: Any = None,
        random_state: int = 0,
    ) -> Any:
        """Draw ways in which the series may go on, each of them a whole path.

        Step by step they have the distribution of ``predict_quantiles``; across steps, and across
        the channels of a table, they go together as errors did at some validation origin.

        Parameters
        ----------
        n_paths : int
        prediction_length, context, future
            As in ``predict``.
        random_state : int
            The same seed draws the same paths.

        Returns
        -------
        array, list of arrays or table
            numpy ``(S, P, C)``, or ``(S, P)``; wide pandas with an index (path, time); other tables
            with a column ``path``.
        """
        if not is_count(n_paths):
            raise ValueError(f"n_paths must be an int >= 1; got {n_paths!r}.")
        try:
            np.random.default_rng(random_state)
        except (TypeError, ValueError) as error:
            raise ValueError(f"random_state must be an int >= 0; got {random_state!r}.") from error
        ahead = self._look_ahead(prediction_length, context, future)
        values = ahead.in_units(
            lambda o: o.paths(int(n_paths), np.random.default_rng(random_state))
        )
        return write_paths(ahead.layout, ahead.ends, values.transpose(0, 3, 1, 2))

    def explain(self, context: Any = None, *, future: Any = None) -> Explanation:
        """Take the point forecast apart: what each part of the model contributed to it.

        Parameters
        ----------
        context, future
            As in ``predict``.

        Returns
        -------
        Explanation
            ``frame`` is a tidy table, a row per series, channel, step and part; the parts sum to
            ``predict()``. docs/covariates.md says how each is told from the others.
        """
        ahead = self._look_ahead(None, context, future)
        return explain_ahead(self.model_, self._standing.linear, ahead)

    def update(self, y_new: Any, learn: bool | Literal["memory"] = True) -> TitansForecaster:
        """Take in the rows that follow: move the forecast origin, and learn from them.

        The memory reads them, and the linear part learns by recursive least squares from every
        window whose last target row is now known, never from others. Row by row or all at once
        gives bitwise the same forecaster. Rows of several series are taken in turn, from the first
        new one of each: other turns, that is, other numbers of rows a call, differ by rounding.
        Threads may call it; their rows are taken one call after the other.

        Parameters
        ----------
        y_new : array, list of arrays, Series or table
            New rows, of the kind and columns that ``fit`` got; of a long table, of any of its
            series. Values may be missing, as may rows.
        learn : bool or "memory"
            "memory": only the memories learn from these rows, as they do when ``context`` is read;
            the linear part stays as it is. False only moves the origin: what would be learned is
            passed over.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            The rows do not follow or do not fit; the streams have not moved then.
        """
        self._check_fitted("update")
        if not (isinstance(learn, bool | np.bool_) or learn == "memory"):
            raise ValueError(f"learn must be True, False or 'memory'; got {learn!r}.")
        panel = read_panel(y_new, name="y_new", layout=self._layout)
        with moving(self):
            panel = check_follows(self._layout, self._standing.ends, panel, "y_new")
            return self._update_panel(panel, learn=learn)

    partial_fit = update

    def snapshot(self) -> Snapshot:
        """Keep where the streams stand: origins, memories, linear part."""
        self._check_fitted("snapshot")
        return Snapshot(self._standing.copy(), self.model_)

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
        self._standing = snapshot.standing.copy()
        return self

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write model and streams to one file (safetensors with a JSON header, no pickle).

        All parameters are kept but ``callbacks``, which are code: a loaded forecaster has None.
        """
        self._check_fitted("save")
        save_forecaster(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TitansForecaster:
        """Read what ``save`` wrote; the streams go on bit for bit.

        Raises
        ------
        FileNotFoundError, ModelFileError
            There is no file, or it is not one that ``save`` wrote, whole and unchanged.
        """
        forecaster = cls()
        load_forecaster(forecaster, path)
        return forecaster

    def backtest(
        self,
        y: Any,
        n_windows: int = 5,
        step: int | None = None,
        refit: bool | int | Literal["update"] = False,
        *,
        season_length: int | None = None,
        levels: Sequence[int] | None = None,
        progress: bool = True,
    ) -> BacktestResult:
        """Forecast the last windows of y as it would have been done then; the floors beside.

        A forecaster with these parameters is fitted on the rows before the first cutoff, this one
        is left alone. At each cutoff nothing is known but the rows before it.

        Parameters
        ----------
        y : as in ``fit``
        n_windows, step : int
            Number of cutoffs, and rows between them; None takes ``prediction_length``.
        refit : bool, int or "update"
            False: later rows are read by the memories, nothing else learns from them. "update":
            they are learned by ``update``. k: all is fitted again at every k-th cutoff; True is 1.
        season_length : int, optional
            Of the seasonal naive floor; None finds it in the training rows.
        levels : sequence of int, optional
            Coverages of the intervals in per cent; None takes 80 and 90.
        progress : bool
            Show a progress bar on standard error.

        Returns
        -------
        BacktestResult
            ``frame`` is tidy, as ``utilsforecast.evaluation.evaluate`` takes it; ``summary()`` has
            errors, and the skill over each floor with a confidence interval; ``plot()`` draws.
        """
        from titans_ts.backtest import backtest

        self._check_params()
        return backtest(
            self,
            read_panel(y, self._roles()),
            n_windows=n_windows,
            step=step,
            refit=refit,
            season_length=season_length,
            levels=levels,
            progress=progress,
        )

    def memory_surprise(self, y: Any) -> pd.DataFrame:
        """How surprised the memory is by each patch of y, which it reads from the start.

        Surprise is the size of the gradient of the memory's error, its momentary learning signal:
        of the seasonal memory where validation took it up, else of the network's.
        It falls as the memory learns a series, and does not, or rises, where the series turns into
        another: compare channels. ``plots_surprise.plot_surprise`` draws it.

        Parameters
        ----------
        y : as ``context`` of ``predict``

        Returns
        -------
        pandas DataFrame
            Index: the time of the last row of each patch. Columns: the channels that were learned;
            of a panel (key, channel).

        Raises
        ------
        ValueError
            The forecaster has no memory, or y is too short or does not fit.
        """
        from titans_ts.surprise import surprise_table

        self._check_fitted("memory_surprise")
        panel = read_panel(y, name="y", layout=self._layout)
        panel = check_same_columns(self._layout, panel, "y")
        asked = ask_context(self._standing, self.model_, panel)
        return surprise_table(self.model_, panel, asked)

    def export(self, batch_size: int | None = None) -> ExportedProgram:
        """The frozen predictor as a ``torch.export`` program, for runtimes without this package.

        It takes windows ``(B, context_length_, C)`` in float64, original units and without missing
        values, and answers the point forecast ``(B, P, C)`` and quantiles ``(B, P, C, Q)``, as
        ``predict(context=window)`` would. A carried memory is not part of it: where validation took
        one up, ``predict`` also reads what lies before the last 512 rows of a longer window.

        Parameters
        ----------
        batch_size : int, optional
            Windows at a time; None takes any number, unless the memory takes part.

        Raises
        ------
        ValueError
            Fitted on a panel; past or future covariates have a part; or the memory takes part,
            and no batch_size is said.
        """
        from titans_ts.frozen import export_predictor

        self._check_fitted("export")
        return export_predictor(self.model_, self._standing.linear, batch_size)

    def _repr_html_(self) -> str:
        from titans_ts.describe import describe_html

        return describe_html(self)

    def _check_params(self) -> None:
        parameters.check_params(self, self._parameter_constraints)
        check_callbacks(self.callbacks)

    def _roles(self) -> Roles:
        return Roles(
            time_column=self.time_column,
            id_column=self.id_column,
            target_columns=None if self.target_columns is None else tuple(self.target_columns),
            past_covariates=tuple(self.past_covariates),
            future_covariates=tuple(self.future_covariates),
            static_covariates=tuple(self.static_covariates),
        )

    def _fit_panel(self, panel: Panel) -> TitansForecaster:
        fitted = fit_panel(panel, self)
        # Nothing is assigned before all is there: an interrupted fit leaves the last one whole.
        self.model_ = fitted.model
        self._standing = Standing(
            fitted.linear,
            {each.key: stream for each, stream in zip(panel.series, fitted.streams, strict=True)},
            dict(panel.ends),
        )
        self.training_history_ = fitted.history
        self.context_length_ = fitted.linear.context_length
        self.n_features_in_ = panel.series[0].values.shape[1]
        self._layout: Layout = panel.layout
        self._fitted_params = self.get_params()
        return self

    def _update_panel(self, panel: Panel, *, learn: bool | Literal["memory"]) -> TitansForecaster:
        self._standing = self._standing.moved(self.model_, panel, learn=learn)
        return self

    def _forecast_all(self, future: Sequence[Array] | None = None) -> tuple[Array, Array]:
        """Point (N, P, C) and quantiles (N, P, C, Q) of all series, in the order of the fit.

        ``future`` holds the future covariates of each, (P, Kf).
        """
        return self._answer(ask_streams(self._standing, self.model_), future)

    def _answer(self, asked: list[Asked], future: Sequence[Array] | None) -> tuple[Array, Array]:
        model, standing = self.model_, self._standing
        if future is None:
            future = [np.empty((standing.linear.prediction_length, 0))] * len(asked)
        ahead = look_ahead_given(model, standing, self._layout, asked, future)
        return ahead.in_units(lambda o: o.mean), ahead.in_units(lambda o: o.quantiles)

    def _look_ahead(self, prediction_length: int | None, context: Any, future: Any) -> Ahead:
        self._check_fitted("predict")
        longest = self._standing.linear.prediction_length
        rows = longest if prediction_length is None else prediction_length
        if not is_count(rows):
            raise ValueError(f"prediction_length must be an int >= 1; got {rows!r}.")
        if rows > longest:
            warnings.warn(
                f"prediction_length = {rows} is beyond the {longest} rows fitted for: the forecast "
                "rolls on from its own rows. Fit with a longer one for better.",
                UserWarning,
                stacklevel=3,
            )
        panel = self._read_context(context)
        return look_ahead(self.model_, self._standing, self._layout, int(rows), panel, future)

    def _read_context(self, context: Any) -> Panel | None:
        if context is None:
            return None
        panel = read_panel(context, name="context", layout=self._layout)
        return check_same_columns(self._layout, panel, "context")

    def _check_fitted(self, method: str) -> None:
        if not hasattr(self, "model_"):
            # scikit-learn's own exception, imported only now: it takes as long as torch.
            from sklearn.exceptions import NotFittedError

            raise NotFittedError(
                f"This {type(self).__name__} is not fitted yet: call fit(y) before {method}()."
            )
