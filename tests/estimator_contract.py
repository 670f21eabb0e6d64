"""What every estimator of this project promises, as checks that take a `Subject`.

scikit-learn's own suite passes numeric matrices only, and says next to nothing about an estimator
that reads time series or DNA. Each check below is one promise; `CHECKS` lists them all.
"""

from __future__ import annotations

import copy
import os
import pickle
import random
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

Answer = Callable[[Any], Any]


@dataclass(kw_only=True)
class Subject:
    """An estimator, and what the checks must know of it.

    Parameters
    ----------
    name : str
    estimator : class
    params : dict
        Parameters that make it small; some of them must differ from their defaults.
    data, other : tuple
        What ``fit`` takes, and the like of another shape or with other classes.
    bad : list of tuple
        What ``fit`` refuses, early and late.
    answer : callable, estimator -> array
        All that a fitted estimator says about something it has not seen.
    methods : dict of str to callable
        By name, what needs a fitted estimator.
    wrong : tuple of (name, value, text)
        A parameter value that it must refuse, and what it must be in words.
    """

    name: str
    estimator: type
    params: dict[str, Any]
    data: tuple[Any, ...]
    other: tuple[Any, ...]
    bad: list[tuple[Any, ...]]
    answer: Answer
    methods: dict[str, Answer]
    wrong: tuple[str, Any, str]

    def make(self, **changes: Any) -> Any:
        """Make a new estimator that is not fitted."""
        return self.estimator(**{**self.params, **changes})

    @cached_property
    def pickled(self) -> bytes:
        """One that is fitted, as bytes: fitting costs more than all the rest."""
        return pickle.dumps(self.make().fit(*self.data))

    def fitted(self) -> Any:
        """Make a fitted one of one's own."""
        return pickle.loads(self.pickled)

    @cached_property
    def expected(self) -> Any:
        """What the fitted one answers."""
        return self.answer(self.fitted())


def same(one: Any, other: Any) -> bool:
    """Tell whether two values are equal, bit for bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if hasattr(one, "equals"):  # frames
        return bool(one.equals(other))
    return bool(np.array_equal(one, other))


def process_state() -> dict[str, Any]:
    """All that a library might change behind the back of its user."""
    return {
        "python": random.getstate()[1],
        "numpy": np.random.get_state()[1].copy(),  # noqa: NPY002  # the global state is the subject
        "torch": torch.get_rng_state().numpy(),
        "dtype": str(torch.get_default_dtype()),
        "threads": torch.get_num_threads(),
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "filters": list(map(str, warnings.filters)),
        "errors": np.geterr(),
        "folder": os.getcwd(),  # noqa: PTH109
        "environment": dict(os.environ),
    }


def check_construction_only_stores(subject: Subject, tmp_path: Path) -> None:
    nonsense = {name: object() for name in subject.make().get_params()}
    made = subject.estimator(**nonsense)  # checked in fit, so that clone and searches can set them
    assert vars(made) == nonsense
    assert all(vars(made)[name] is value for name, value in nonsense.items())


def check_parameters_go_round(subject: Subject, tmp_path: Path) -> None:
    made = subject.make()
    params = made.get_params()
    assert params.items() >= subject.params.items()
    assert made.get_params(deep=False) == params
    other = subject.estimator()
    assert other.set_params(**params) is other
    assert all(other.get_params()[name] is value for name, value in params.items())
    assert made.set_params() is made


def check_unknown_parameters_are_named_with_those_that_exist(
    subject: Subject, tmp_path: Path
) -> None:
    made = subject.make()
    name = type(made).__name__
    message = rf"(?s)Invalid parameter 'no_such' for estimator {name}.*Valid parameters are: \["
    with pytest.raises(ValueError, match=message):
        made.set_params(no_such=1)
    with pytest.raises(TypeError, match="no_such"):
        subject.estimator(no_such=1)
    assert made.get_params() == subject.make().get_params()


def check_clones_know_the_parameters_and_nothing_else(subject: Subject, tmp_path: Path) -> None:
    fitted = subject.fitted()
    copied = clone(fitted)
    assert copied.get_params() == fitted.get_params()
    assert vars(copied).keys() == subject.make().get_params().keys()


def check_wrong_parameters_are_refused_by_fit(subject: Subject, tmp_path: Path) -> None:
    parameter, value, wanted = subject.wrong
    made = subject.make().set_params(**{parameter: value})
    message = f"`{parameter}` of {subject.estimator.__name__} must be {wanted}; got {value!r}"
    with pytest.raises(ValueError, match=re.escape(message)):
        made.fit(*subject.data)
    assert vars(made) == made.get_params()


def check_what_needs_a_fit_says_so(subject: Subject, tmp_path: Path) -> None:
    for name, call in subject.methods.items():
        with pytest.raises(NotFittedError, match="is not fitted yet"):
            call(subject.make())
        with pytest.raises(NotFittedError):
            check_is_fitted(subject.make())
        assert hasattr(subject.estimator, name)
    check_is_fitted(subject.fitted())


def check_fit_returns_itself_and_leaves_its_parameters(subject: Subject, tmp_path: Path) -> None:
    subject.expected  # noqa: B018  # from another global random state
    torch.manual_seed(12345)
    np.random.seed(12345)  # noqa: NPY002  # the global state is the subject
    random.seed(12345)
    made = subject.make()
    before = made.get_params()
    assert made.fit(*subject.data) is made
    assert all(made.get_params()[name] is value for name, value in before.items())
    learned = vars(made).keys() - before.keys()
    assert all(name.startswith("_") or name.endswith("_") for name in learned)
    # The same seed gives the same bits, here and in the one that was fitted before.
    assert same(subject.answer(made), subject.expected)


def check_fitting_again_forgets_the_last_fit(subject: Subject, tmp_path: Path) -> None:
    again, fresh = subject.fitted().fit(*subject.other), subject.make().fit(*subject.other)
    assert vars(again).keys() == vars(fresh).keys()
    assert same(subject.answer(again), subject.answer(fresh))
    assert not same(subject.answer(fresh), subject.expected)


def check_a_fit_that_fails_leaves_the_last_one_whole(subject: Subject, tmp_path: Path) -> None:
    fitted = subject.fitted()
    before = dict(vars(fitted))
    for bad in subject.bad:
        with pytest.raises((ValueError, TypeError)):
            fitted.fit(*bad)
        assert vars(fitted).keys() == before.keys()
        assert all(vars(fitted)[name] is value for name, value in before.items())
    assert same(subject.answer(fitted), subject.expected)


def check_the_process_and_what_is_given_are_left_as_they_were(
    subject: Subject, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    subject.expected  # noqa: B018  # what is computed once is not what is looked at
    capfd.readouterr()
    before, given = process_state(), copy.deepcopy(subject.data)
    fitted = subject.make().fit(*subject.data)
    subject.answer(fitted)
    fitted.save(tmp_path / "model")
    subject.estimator.load(tmp_path / "model")
    after = process_state()
    assert same(list(subject.data), list(given))
    assert [name for name in before if not same(before[name], after[name])] == []
    assert capfd.readouterr() == ("", "")


def check_answers_change_nothing(subject: Subject, tmp_path: Path) -> None:
    fitted = subject.fitted()
    names = set(vars(fitted))
    assert same(subject.answer(fitted), subject.expected)
    assert same(subject.answer(fitted), subject.expected)
    assert set(vars(fitted)) == names


def check_pickles_and_copies_answer_bit_for_bit(subject: Subject, tmp_path: Path) -> None:
    fitted = subject.fitted()
    subject.answer(fitted)  # also after it was used
    for other in (pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted)):
        assert other.get_params() == fitted.get_params()
        assert same(subject.answer(other), subject.expected)


def check_files_answer_bit_for_bit(subject: Subject, tmp_path: Path) -> None:
    fitted = subject.fitted()
    fitted.save(tmp_path / "one")
    loaded = subject.estimator.load(tmp_path / "one")
    assert type(loaded) is subject.estimator
    assert loaded.get_params() == fitted.get_params()
    assert vars(loaded).keys() == vars(fitted).keys()
    assert same(subject.answer(loaded), subject.expected)
    loaded.save(tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def check_the_default_dtype_does_not_matter(subject: Subject, tmp_path: Path) -> None:
    fitted = subject.fitted()
    fitted.save(tmp_path / "model")
    torch.set_default_dtype(torch.float64)
    try:
        for other in (fitted, subject.estimator.load(tmp_path / "model")):
            assert same(subject.answer(other), subject.expected)
    finally:
        torch.set_default_dtype(torch.float32)


def check_its_representation_names_what_was_changed(subject: Subject, tmp_path: Path) -> None:
    name = subject.estimator.__name__
    assert repr(subject.estimator()) == f"{name}()"
    shown = repr(subject.make())
    assert shown.startswith(f"{name}(")
    assert all(f"{parameter}=" in shown for parameter in subject.params)
    assert "random_state=" not in shown
    assert repr(subject.fitted()) == shown


CHECKS = [check for name, check in list(globals().items()) if name.startswith("check_")]
CHECKS.remove(check_is_fitted)
