"""scikit-learn's estimator parameters, for estimators that must import in no time.

``sklearn.base.BaseEstimator`` costs about as long to import as torch; ``sklearn.clone`` and
``GridSearchCV`` need only what is here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

Constraints = Mapping[str, tuple[str, Callable[[Any], bool]]]
"""Parameter name -> (what it must be, in words; whether a value is)."""


def get_params(estimator: object) -> dict[str, Any]:
    """Constructor parameters of an estimator, by name, as they were stored."""
    return {name: getattr(estimator, name) for name in _names(type(estimator))}


def set_params(estimator: object, params: Mapping[str, Any]) -> None:
    """Change constructor parameters.

    Raises
    ------
    ValueError
        A name is not a parameter; nothing is changed then.
    """
    allowed = _names(type(estimator))
    unknown = sorted(set(params) - set(allowed))
    if unknown:
        raise ValueError(
            f"Invalid parameter {unknown[0]!r} for estimator {type(estimator).__name__}. "
            f"Valid parameters are: {allowed}."
        )
    for name, value in params.items():
        setattr(estimator, name, value)


def check_params(estimator: object, constraints: Constraints) -> None:
    """Check every parameter.

    Raises
    ------
    ValueError
        Naming the first parameter that is not what it must be, and the value it has.
    """
    for name, (wanted, holds) in constraints.items():
        value = getattr(estimator, name)
        if not holds(value):
            raise ValueError(
                f"`{name}` of {type(estimator).__name__} must be {wanted}; got {value!r}."
            )


def describe(estimator: object) -> str:
    """``Name(parameter=value, ...)`` with the parameters that differ from their defaults."""
    defaults = inspect.signature(type(estimator)).parameters
    changed = [
        f"{name}={value!r}"
        for name, value in get_params(estimator).items()
        if repr(value) != repr(defaults[name].default)
    ]
    return f"{type(estimator).__name__}({', '.join(changed)})"


def _names(estimator_class: type) -> list[str]:
    return list(inspect.signature(estimator_class).parameters)
