"""Names of a package that are imported when they are first asked for (PEP 562).

``import titans_dna`` and ``titans-ts --help`` then need neither torch nor scikit-learn.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make a package's ``__getattr__`` and ``__dir__``.

    Parameters
    ----------
    package : str
        Its ``__name__``.
    homes : dict of str
        Public name -> module that defines it.

    Examples
    --------
    >>> __getattr__, __dir__ = lazy_names(__name__, {"sqrt": "math"})
    >>> __getattr__("sqrt")(4.0)
    2.0
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(homes[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return get, names
