"""Callbacks of the forecaster see both trainings, end them, and are no part of the model."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from sklearn.base import clone

from titans_ts import TitansForecaster, TrainingConfig, TrainingProgress

T = np.arange(260)
Y = np.column_stack([np.sin(T / 3), np.cos(T / 5)]) + np.random.default_rng(0).normal(
    0, 0.1, (260, 2)
)
BRIEF = TrainingConfig(max_steps=24, validate_every=8)


def forecaster(**options):
    options = {"training": BRIEF, "progress": False, **options}
    return TitansForecaster(4, 24, **options)


class Log:
    """A callback with a memory, as those of trackers are."""

    def __init__(self):
        self.told = []

    def __call__(self, progress):
        self.told.append(progress)


@pytest.fixture(scope="module")
def plain():
    return forecaster().fit(Y)


def test_both_trainings_are_told_and_no_number_changes(plain):
    log = Log()
    watched = forecaster(callbacks=[log]).fit(Y)
    assert isinstance(log.told[0], TrainingProgress)
    network = [p for p in log.told if p.phase == "training the network"]
    memory = [p for p in log.told if p.phase == "training the memory"]
    assert log.told == network + memory
    assert [(p.step, p.validation_loss) for p in network] == list(
        plain.training_history_.validation
    )
    assert [p.step for p in memory] == [0, 1, 2, 3]
    assert watched.training_history_ == plain.training_history_
    np.testing.assert_array_equal(watched.predict(), plain.predict())
    np.testing.assert_array_equal(watched.predict_quantiles(), plain.predict_quantiles())


def test_true_ends_a_training_early():
    stopped = forecaster(callbacks=(lambda p: p.step >= 8,)).fit(Y)
    history = stopped.training_history_
    assert (history.steps, history.stopped_early) == (8, True)
    assert history.best_loss == min(loss for _, loss in history.validation)


def test_the_error_of_a_callback_leaves_the_forecaster_as_it_was():
    def failing(progress):
        if progress.phase == "training the memory":
            raise ConnectionError("tracker lost")

    ours = forecaster().fit(Y)
    before, model = ours.predict(), ours.model_
    ours.set_params(callbacks=[failing])
    with pytest.raises(ConnectionError, match="tracker lost"):
        ours.fit(Y[:200])
    assert ours.model_ is model
    np.testing.assert_array_equal(ours.predict(), before)
    np.testing.assert_array_equal(
        ours.update(Y[:4]).predict(), forecaster().fit(Y).update(Y[:4]).predict()
    )


def test_they_are_a_parameter_like_others_but_not_saved(tmp_path):
    log = Log()
    given = [log, print]
    ours = forecaster(callbacks=given, use_network=False)
    assert ours.get_params()["callbacks"] is given
    cloned, copied = clone(ours), copy.deepcopy(ours)
    for other in (cloned, copied):
        assert isinstance(other.callbacks[0], Log)
        assert other.callbacks[0] is not log  # an object is copied
        assert other.callbacks[1] is print  # a function is shared
    ours.fit(Y).save(tmp_path / "model")
    loaded = TitansForecaster.load(tmp_path / "model")
    assert loaded.callbacks is None
    assert ours.callbacks is given
    np.testing.assert_array_equal(loaded.predict(), ours.predict())
    assert log.told == []  # no network, no training


def test_a_backtest_calls_them_too():
    log = Log()
    forecaster(callbacks=[log]).backtest(Y, n_windows=1, progress=False)
    assert [p.step for p in log.told if p.phase == "training the network"] == [0, 8, 16, 24]


def test_what_cannot_be_called_is_named_before_the_work():
    for method in ("fit", "backtest"):
        with pytest.raises(TypeError, match=r"`callbacks\[1\]` must be callable.* got 3"):
            getattr(forecaster(callbacks=[print, 3]), method)(Y)
    with pytest.raises(TypeError, match="Put it into a list"):
        forecaster(callbacks=print).fit(Y)
