"""``TitansSktimeForecaster``: the forecaster in sktime's interface; only here is it imported."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np

from titans_core import BackboneConfig
from titans_core.training_config import TrainingConfig
from titans_ts.forecaster import TitansForecaster
from titans_ts.settings import QUANTILE_LEVELS, is_count
from titans_ts.time_axis import scalar, show

try:
    from sktime.forecasting.base import BaseForecaster
except ModuleNotFoundError as error:
    if str(error.name).partition(".")[0] != "sktime":
        raise
    raise ImportError(
        "titans_ts.sktime needs sktime, which is not installed: "
        "pip install 'titans-stream[sktime]'. TitansForecaster works without it."
    ) from error

# Where not told: what the facade takes where the series is long enough.
_LONGEST_CONTEXT = 96
_USUAL_PREDICTION = 24


class TitansSktimeForecaster(BaseForecaster):
    """Forecast multivariate series in sktime's interface, and learn from new rows without a refit.

    An adapter of `TitansForecaster`, whose numbers it gives. ``update`` is its real one: new rows
    cost as much as they are many, however long the series has become. ``update_params=False`` moves
    the forecast origin and learns nothing. Rows seen before may come again, as sktime's splitters
    send them: they are passed over.

    In-sample forecasts are made one step ahead, from the rows of look-back before them, with what
    was learned from the whole series. Where there is less than that before a row, they are NaN.

    Parameters
    ----------
    prediction_length : int, optional
        Longest horizon, in rows. None takes the longest of the ``fh`` that ``fit`` gets; without
        one, 24, or less where the series is too short for that.
    context_length : int, optional
        Rows of look-back. None takes 96, or half of what there is for training where that is less.
    quantile_levels : sequence of float
        Levels to learn, ascending in (0, 1), 0.5 among them. Quantiles and intervals must lie
        within them.
    validation_size : float or int
        Last part of y that choices are made on: a share in (0, 1) or a number of rows.
    refit : bool
        Learn the linear part again from all rows, validation included, after all choices.
    patch_length : int
        Rows of a token of the network (at most ``context_length`` are used).
    use_network : bool
        False: the linear part alone, with quantiles from its own errors.
    backbone : BackboneConfig, optional
        The network's backbone; None takes one block of width 32.
    training : TrainingConfig, optional
        How the network is trained; None takes at most 300 steps, with early stopping.
    random_state : int
        Seed of weights and batches. The same seed gives the same model on the same machine.
    progress : bool
        Show a progress bar on standard error while the network trains.

    Attributes
    ----------
    forecaster_ : TitansForecaster
        What does the work, standing at the end of the rows seen.
    context_length_ : int
        Rows of look-back.

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
        "capability:exogenous": False,
        "capability:missing_values": False,  # True as soon as TitansForecaster takes NaN
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
        context_length: int | None = None,
        *,
        quantile_levels: Sequence[float] = QUANTILE_LEVELS,
        validation_size: float = 0.2,
        refit: bool = True,
        patch_length: int = 16,
        use_network: bool = True,
        backbone: BackboneConfig | None = None,
        training: TrainingConfig | None = None,
        random_state: int = 0,
        progress: bool = False,
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
        self.random_state = random_state
        self.progress = progress
        super().__init__()

    def _fit(self, y: Any, X: Any, fh: Any) -> TitansSktimeForecaster:  # noqa: ARG002  # see _tags
        params = self.get_params(deep=False)
        if self.prediction_length is None:
            rows = min(_USUAL_PREDICTION, max(1, (len(y) - 2) // 3))
            if fh is not None:
                rows = max(1, int(_steps(fh, self._cutoff).max()))
            params["prediction_length"] = rows
        if self.context_length is None:
            params["context_length"] = self._affordable_context(len(y), params["prediction_length"])
        self.forecaster_ = TitansForecaster(**params).fit(y)
        self.context_length_: int = params["context_length"]
        # In pieces: joining them at each update would cost as much as there are rows.
        self._pieces = [y]
        self._seen = self._cutoff  # sktime takes the cutoff back where rows come again
        return self

    def _update(self, y: Any, X: Any = None, update_params: bool = True) -> TitansSktimeForecaster:  # noqa: ARG002  # see _tags
        came_again = y.index <= self._seen[0]
        if came_again.any():
            before = self._rows().reindex(y.index[came_again])
            if not np.array_equal(before.to_numpy(), y[came_again].to_numpy()):
                warnings.warn(
                    f"y holds other values than before at rows up to {show(scalar(self._seen[0]))}"
                    "; they are passed over, since what was learned cannot be unlearned. Fit "
                    "again to take them in.",
                    stacklevel=3,
                )
        if came_again.all():
            return self
        fresh = y[~came_again]
        try:
            self.forecaster_.update(fresh, learn=update_params)
        except BaseException:
            # sktime has moved its cutoff and its data already: all of it, or nothing.
            self._set_cutoff(self._seen)
            self._y = self._rows() if self.get_config()["remember_data"] else None
            raise
        self._pieces.append(fresh)
        self._seen = self._cutoff
        return self

    def predict_residuals(self, y: Any = None, X: Any = None) -> Any:
        """Return y less its forecasts; without y, those of all rows seen.

        As in sktime, but for the last: it need not be told to remember the rows.
        """
        if y is None and hasattr(self, "_pieces"):
            y = self._rows()
        return super().predict_residuals(y, X)

    def _predict(self, fh: Any, X: Any) -> Any:  # noqa: ARG002  # see _tags
        return self._answer(fh, self.forecaster_.predict, self._get_columns())

    def _predict_quantiles(self, fh: Any, X: Any, alpha: list[float]) -> Any:  # noqa: ARG002  # see _tags
        levels = sorted(set(alpha))
        answer = self._answer(
            fh,
            partial(self.forecaster_.predict_quantiles, levels),
            self._get_columns("predict_quantiles", alpha=levels),
        )
        return answer[self._get_columns("predict_quantiles", alpha=alpha)]

    def _predict_interval(self, fh: Any, X: Any, coverage: list[float]) -> Any:
        # To be asked of TitansForecaster.predict_interval, which is calibrated, once it is there.
        alpha = [0.5 + side * share / 2 for share in coverage for side in (-1, 1)]
        answer = self._predict_quantiles(fh, X, alpha)
        answer.columns = self._get_columns("predict_interval", coverage=coverage)
        return answer

    def _answer(self, fh: Any, ask: Callable[..., Any], columns: Any) -> Any:
        """Ask ``ask(rows, context=...)`` for the rows of fh, each from its own origin."""
        import pandas as pd

        steps = _steps(fh, self._cutoff)
        origin = self._origin()
        values = np.full((len(steps), len(columns)), np.nan)
        ahead = steps > 0
        if ahead.any():
            context = None if origin is None else self._look_back(origin)
            if origin is None or context is not None:
                answer = ask(int(steps.max()), context=context).to_numpy()
                values[ahead] = answer[steps[ahead] - 1]
        if not ahead.all():
            end = len(self._rows()) if origin is None else origin
            for i in np.flatnonzero(~ahead):
                context = self._look_back(end + steps[i] - 1)
                if context is not None:
                    values[i] = ask(1, context=context).to_numpy()
        return pd.DataFrame(values, index=fh.to_absolute_index(self._cutoff), columns=columns)

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
        return self._rows().iloc[first:origin] if first >= 0 else None

    def _affordable_context(self, rows: int, prediction_length: int) -> int:
        """As many windows to learn from as rows to look back on, at least."""
        share = self.validation_size
        validation = share if is_count(share) else max(round(share * rows), prediction_length)
        return int(np.clip((rows - validation - prediction_length) // 2, 2, _LONGEST_CONTEXT))

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
