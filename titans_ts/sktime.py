"""``TitansSktimeForecaster``: the forecaster in sktime's interface; only here is it imported."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np

from titans_core import BackboneConfig
from titans_core.training_config import TrainingCallback, TrainingConfig
from titans_ts.forecaster import TitansForecaster
from titans_ts.frames import Panel, check_follows, read_panel
from titans_ts.settings import QUANTILE_LEVELS
from titans_ts.time_axis import scalar, show, times_from

try:
    from sktime.forecasting.base import BaseForecaster
except ModuleNotFoundError as error:
    if str(error.name).partition(".")[0] != "sktime":
        raise
    raise ImportError(
        "titans_ts.sktime needs sktime, which is not installed: "
        "pip install 'titans-stream[sktime]'. TitansForecaster works without it."
    ) from error

_USUAL_PREDICTION = 24  # rows, where not told and the series is long enough


class TitansSktimeForecaster(BaseForecaster):
    """Forecast multivariate series in sktime's interface, and learn from new rows without a refit.

    An adapter of `TitansForecaster`, whose numbers it gives. ``update`` is its real one: new rows
    cost as much as they are many, however long the series has become. With
    ``update_params=False`` only the memories read them. Rows seen before may come again, as
    sktime's splitters send them: they are passed over.

    In-sample forecasts are made one step ahead, from the rows of look-back before them, with what
    was learned from the whole series. Where there is less than that before a row, they are NaN.
    Values may be missing, as may whole rows. Panels are fitted series by series.

    X are the `future_covariates` of `TitansForecaster`: numbers, booleans or categories that
    ``update`` needs for the new rows and ``predict`` for the times of ``fh``. Validation decides
    whether they are let in. What is missing of X counts as its mean over the training rows.

    Parameters
    ----------
    prediction_length : int, optional
        Longest horizon, in rows. None takes the longest of the ``fh`` that ``fit`` gets; without
        one, 24, or less where the series is too short for that.
    context_length : int, "auto" or None
        Rows of look-back, the longest: validation mixes shorter ones in. "auto" and None choose the
        longest, too, from a quarter of the training rows down.
    quantile_levels : sequence of float
        Levels to learn, ascending in (0, 1), 0.5 among them. Quantiles must lie within them.
    validation_size : float or int
        Last part of y that choices are made on: a share in (0, 1) or a number of rows.
    refit : bool
        Learn the linear part again from all rows, validation included, after all choices.
    patch_length : int
        Rows of a token of the network (at most ``context_length`` are used).
    use_memory : bool
        Keep a memory of the season along each series, and ask it as far as validation backs it.
    target_transform : {"auto", "none", "log"}
        Learn the series as they are, or their logarithms; "auto" lets validation decide.
    use_network : bool
        False: no network; quantiles come from the errors that are left.
    backbone : BackboneConfig, optional
        The network's backbone; None takes one block of width 32.
    training : TrainingConfig, optional
        How the network is trained; None takes at most 800 steps, with early stopping.
    random_state : int
        Seed of weights and batches. The same seed gives the same model on the same machine.
    progress : bool
        Show a progress bar on standard error while the network trains.
    callbacks : sequence of callable, optional
        Called after every validation of the training, as those of `TitansForecaster`.

    Attributes
    ----------
    forecaster_ : TitansForecaster
        What does the work, standing at the end of the rows seen.
    context_length_ : int
        Rows of look-back in use.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from titans_ts.sktime import TitansSktimeForecaster
    >>> months = pd.period_range("2010-01", periods=132, freq="M")
    >>> y = pd.Series(np.sin(np.arange(132) * np.pi / 6), index=months)
    >>> forecaster = TitansSktimeForecaster(use_network=False)
    >>> y_pred = forecaster.fit(y[:120], fh=[1, 2, 3]).predict()
    >>> bool(abs(y_pred - y[120:123]).max() < 0.1)
    True
    >>> forecaster.update(y[120:]).predict().index[0]
    Period('2021-01', 'M')
    """

    _tags: ClassVar[dict[str, Any]] = {
        "authors": "titans-stream contributors",
        "maintainers": "titans-stream contributors",
        "object_type": "forecaster",
        "y_inner_mtype": "pd.DataFrame",
        "X_inner_mtype": "pd.DataFrame",
        "capability:multivariate": True,
        "capability:exogenous": True,
        "capability:categorical_in_X": True,
        "capability:non_contiguous_X": True,
        "capability:missing_values": True,
        "capability:insample": True,
        "capability:pred_int": True,
        "capability:pred_int:insample": True,
        "capability:update": True,
        "capability:random_state": True,
        "property:randomness": "derandomized",
        "requires-fh-in-fit": False,
    }
    # What sktime makes the default in 1.3: no second copy of the rows. (With True, 1.2 warns.)
    _config: ClassVar[dict[str, Any]] = {"remember_data": False}
    _X: Any = None
    _y: Any = None

    def __init__(
        self,
        prediction_length: int | None = None,
        context_length: int | Literal["auto"] | None = "auto",
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
        random_state: int = 0,
        progress: bool = False,
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
        self.random_state = random_state
        self.progress = progress
        self.callbacks = callbacks
        super().__init__()

    def _fit(self, y: Any, X: Any, fh: Any) -> TitansSktimeForecaster:
        params = self.get_params(deep=False)
        if self.prediction_length is None:
            rows = min(_USUAL_PREDICTION, max(1, (len(y) - 2) // 3))
            if fh is not None:
                rows = max(1, int(_steps(fh, self._cutoff).max()))
            params["prediction_length"] = rows
        if self.context_length is None:
            params["context_length"] = "auto"
        self._names = _names_beside(y, X)
        table = self._beside(y, X)
        covariates = tuple(self._names.values())
        self.forecaster_ = TitansForecaster(**params, future_covariates=covariates).fit(table)
        self.context_length_: int = self.forecaster_.context_length_
        step = self.forecaster_._layout.step
        if isinstance(step, int) and step != 1:
            raise ValueError(
                f"y is numbered in steps of {step}; the horizons of sktime count in ones. Number "
                "the rows again: y.reset_index(drop=True)."
            )
        # In pieces: joining them at each update would cost as much as there are rows.
        self._pieces = [self._on_grid(read_panel(table, layout=self.forecaster_._layout), table)]
        self._stand_at_cutoff()
        return self

    def _update(self, y: Any, X: Any = None, update_params: bool = True) -> TitansSktimeForecaster:
        came_again = y.index <= self._seen[0]
        if came_again.any():
            before = self._rows()[y.columns].reindex(y.index[came_again])
            if not np.array_equal(before.to_numpy(), y[came_again].to_numpy(), equal_nan=True):
                warnings.warn(
                    f"y holds other values than before at rows up to {show(scalar(self._seen[0]))}"
                    "; they are passed over, since what was learned cannot be unlearned. Fit "
                    "again to take them in.",
                    stacklevel=3,
                )
        if came_again.all():
            return self
        forecaster = self.forecaster_
        try:
            fresh = self._beside(y[~came_again], X)
            panel = read_panel(fresh, layout=forecaster._layout)
            panel = check_follows(forecaster._layout, forecaster._standing.ends, panel, "y")
            forecaster._update_panel(panel, learn=update_params or "memory")
        except BaseException:
            # sktime has moved its cutoff and its data already: all of it, or nothing.
            self._set_cutoff(self._seen)
            self._y = self._rows()[y.columns] if self.get_config()["remember_data"] else None
            raise
        self._pieces.append(self._on_grid(panel, fresh))
        self._stand_at_cutoff()
        return self

    def predict_residuals(self, y: Any = None, X: Any = None) -> Any:
        """Return y less its forecasts; without y, those of all rows seen.

        As in sktime, but for the last: it need not be told to remember the rows.
        """
        if y is None and hasattr(self, "_pieces"):
            y = self._rows().drop(columns=list(self._names.values()))
        return super().predict_residuals(y, X)

    def _predict(self, fh: Any, X: Any) -> Any:
        return self._answer(fh, X, self.forecaster_.predict, self._get_columns())

    def _predict_quantiles(self, fh: Any, X: Any, alpha: list[float]) -> Any:
        levels = sorted(set(alpha))
        answer = self._answer(
            fh,
            X,
            partial(self.forecaster_.predict_quantiles, levels),
            self._get_columns("predict_quantiles", alpha=levels),
        )
        return answer[self._get_columns("predict_quantiles", alpha=alpha)]

    def _predict_interval(self, fh: Any, X: Any, coverage: list[float]) -> Any:
        columns = self._get_columns("predict_interval", coverage=coverage)
        alpha = [0.5 + side * share / 2 for share in coverage for side in (-1, 1)]
        levels = self.forecaster_.model_.levels
        outside = min(alpha) < levels[0] - 1e-6 or max(alpha) > levels[-1] + 1e-6
        vouched = self._vouched()
        if max(coverage) <= vouched or outside:
            ask = partial(self.forecaster_.predict_interval, coverage)
            return self._answer(fh, X, ask, columns)
        warnings.warn(
            f"coverage {max(coverage):g} needs more validation windows than there are, which vouch "
            f"for at most {vouched:.3g}: the bounds are the quantiles learned, instead of split "
            "conformal. A larger validation_size gives more windows.",
            stacklevel=3,
        )
        answer = self._predict_quantiles(fh, X, alpha)
        answer.columns = columns
        return answer

    def _vouched(self) -> float:
        """Return the highest coverage for which there are validation errors enough."""
        residual = self.forecaster_.model_.residual
        counts = [
            (~np.isnan(admission.errors)).sum(axis=0).min(initial=len(admission.errors))
            for admission in (residual.fresh, residual.carried)
        ]
        return float(min(counts) / (min(counts) + 1)) + 1e-9

    def _answer(self, fh: Any, X: Any, ask: Callable[..., Any], columns: Any) -> Any:
        """Ask ``ask(rows, context=..., future=...)`` for the rows of fh, each from its origin."""
        import pandas as pd

        steps = _steps(fh, self._cutoff)
        times = fh.to_absolute_index(self._cutoff)
        known = self._known(X, times)
        origin = self._origin()
        values = np.full((len(steps), len(columns)), np.nan)
        ahead = steps > 0
        if ahead.any():
            context = None if origin is None else self._look_back(origin)
            if origin is None or context is not None:
                rows = int(steps.max())
                future = self._future(known, ahead, steps[ahead], origin)
                answer = ask(rows, context=context, future=future)
                values[ahead] = np.asarray(answer).reshape(rows, -1)[steps[ahead] - 1]
        if not ahead.all():
            end = len(self._rows()) if origin is None else origin
            for i in np.flatnonzero(~ahead):
                before = end + steps[i] - 1
                context = self._look_back(before)
                if context is not None:
                    future = self._future(known, [i], np.ones(1, dtype=int), before)
                    values[i] = np.asarray(ask(1, context=context, future=future)).ravel()
        return pd.DataFrame(values, index=times, columns=columns)

    def _beside(self, y: Any, X: Any) -> Any:
        """Return y with the columns of X beside it."""
        covariates = self._named(X)
        if covariates is None:
            return y
        # sktime has seen to it that X has a row for each of y.
        return y.assign(**dict(covariates.reindex(y.index).items()))

    def _known(self, X: Any, times: Any) -> Any:
        """Return the covariates at these times: of X, else, up to the end of y, as seen."""
        import pandas as pd

        if not self._names and X is None:
            return None
        after = times > self._seen[0]
        if X is None and not after.any():
            given = None
        elif (given := self._named(X)) is None:
            return None
        seen = [] if after.all() else [self._rows()[list(self._names.values())]]
        table = pd.concat(([] if given is None else [given]) + seen)
        absent = after & ~times.isin(table.index)
        if absent.any():
            raise ValueError(
                f"X has no row at {show(scalar(times[absent][0]))}; needs one for each time of fh, "
                f"with the columns {list(self._names)}."
                + (" An array counts from row 0." if times.dtype.kind == "i" else "")
            )
        return table[~table.index.duplicated()].reindex(times)

    def _named(self, X: Any) -> Any:
        """Return X as the forecaster has it beside y; None if ``fit`` got none."""
        import pandas as pd

        if not self._names:
            if X is not None and X.shape[1]:
                raise ValueError(
                    "X was given, but the forecaster was fitted without it. Give X to fit, too, or "
                    "leave it out."
                )
            return None
        if X is None:
            raise ValueError(
                f"X is needed: the forecaster was fitted with X, of the columns "
                f"{list(self._names)}. update takes its rows at the times of y, predict those at "
                "the times of fh."
            )
        if missing := [label for label in self._names if label not in X.columns]:
            raise ValueError(
                f"X has no column {missing[0]!r}, which it had in fit; it has {list(X.columns)}."
            )
        columns = {name: _plain(X[label]) for label, name in self._names.items()}
        return pd.DataFrame(columns, index=X.index)

    def _future(self, known: Any, rows: Any, steps: Any, origin: int | None) -> Any:
        """Return these rows of the covariates as a table of all steps after row ``origin - 1``.

        An effect is that of its own step alone: what is missing in between changes no answer.
        """
        if known is None:
            return None
        layout, end = self.forecaster_._layout, self.forecaster_._standing.ends[None]
        if origin is not None:
            end = scalar(self._rows().index[origin - 1])
        times = times_from(layout, end, int(steps.max()) + 1)[1:]
        return known.iloc[rows].set_axis(times[steps - 1]).reindex(times)

    def _origin(self) -> int | None:
        """Rows before the cutoff; None where that is the end of what was seen, as it mostly is."""
        if self._cutoff[0] == self._seen[0]:
            return None
        return int(self._rows().index.searchsorted(self._cutoff[0], side="right"))

    def _rows(self) -> Any:
        """All rows that were taken in."""
        import pandas as pd

        if len(self._pieces) > 1:
            self._pieces = [pd.concat(self._pieces)]
        return self._pieces[0]

    def _look_back(self, origin: int) -> Any:
        """Return the rows that a forecast from after row ``origin - 1`` looks back on, or None."""
        first = origin - self.context_length_
        if first < 0:
            return None
        rows = self._rows().iloc[first:origin]
        y = rows.drop(columns=list(self._names.values())) if self._names else rows
        # An array, which takes a tenth of the time of a table, and is asked for row by row.
        context = y.to_numpy(dtype=float, na_value=np.nan)
        if np.isnan(context).all():
            return None
        return rows if self._names else context

    def _on_grid(self, panel: Panel, table: Any) -> Any:
        """Return the table with a row for each time, as the panel has it that was read from it."""
        import pandas as pd

        (series,) = panel.series
        if len(series.values) == len(table):
            return table
        times = times_from(panel.layout, series.first_time or 0, len(series.values))
        y = pd.DataFrame(series.values, index=times, columns=list(panel.layout.columns))
        if not self._names:
            return y
        place = times.get_indexer(table.index, method="nearest")
        covariates = table[list(self._names.values())].set_axis(times[place]).reindex(times)
        return y.assign(**dict(covariates.items()))

    def _stand_at_cutoff(self) -> None:
        """Note the cutoff, with its step, which sktime does not see where rows were left out."""
        layout = self.forecaster_._layout
        if layout.time in ("date", "datetime") and self._cutoff.freq is None:
            with suppress(ValueError):  # a calendar that the cutoff is not on
                self._cutoff.freq = layout.step
        self._seen = self._cutoff  # sktime takes its own back where rows come again

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:  # noqa: ARG003  # sktime's signature
        """Return quick parameters for sktime's suite; our tests run it with a network, too."""
        return [
            {"use_network": False},
            {"use_network": False, "context_length": 4, "refit": False},
        ]


def _steps(fh: Any, cutoff: Any) -> Any:
    """Steps from the cutoff, 1 for the row after it, 0 for its own."""
    return np.asarray(fh.to_relative(cutoff).to_pandas(), dtype=int)


def _names_beside(y: Any, X: Any) -> dict[Any, str]:
    """Return a name for each column of X that neither y nor the forecaster has taken."""
    names: dict[Any, str] = {}
    taken = {*y.columns, "unique_id"}
    for label in [] if X is None else X.columns:
        name = label
        while not isinstance(name, str) or name in taken:
            name = f"X {name}"
        names[label] = name
        taken.add(name)
    return names


def _plain(column: Any) -> Any:
    """Return booleans as numbers and categories as text, which stay so where rows are missing."""
    import pandas as pd

    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.astype(object).map(str, na_action="ignore")
    if pd.api.types.is_bool_dtype(column):
        return column.astype("Float64").astype(float)
    return column
