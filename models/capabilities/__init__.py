"""What a trained model can be asked: one file a verb, and the same verb is a method of `Trained`.

A verb is a function whose first argument is the trained model, marked with `@verb`; nothing else lists it. Beside the verbs stand
`trained.py` (a trained model), `inputs.py` (files, items and seeds to arrays), `told.py` (what images show), `ask.py` (how a model is
asked), `masks.py` and `pictures.py` (grids, strips, animations, files).
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

_VERBS: dict[str, Callable[..., Any]] = {}


def verb(function: F) -> F:
    """Make a function of a trained model a method of `Trained`, of the same name, which must be free."""
    assert function.__name__ not in _VERBS, f"two verbs are called {function.__name__}"
    _VERBS[function.__name__] = function
    return function


def verbs() -> Mapping[str, Callable[..., Any]]:
    """Name -> function, of all the files here."""
    _import_all()
    return _VERBS


@cache
def _import_all() -> None:
    for file in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{file.name}")
