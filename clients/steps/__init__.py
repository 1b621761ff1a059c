"""Local steps: what a client can be asked to do, one module each.

A step is a function named like its module, ``step(model, local, settings, generator) -> Outcome``.
It sees the data that the participant lets it see and nothing else, and it changes no file. A new
step is a new module here; its name is what an ``Instruction`` carries. A module that says
``NEEDS_MODEL = False`` is given None as its model and finds the global arrays in ``local.arrays``;
one that says ``DRAWS = False`` as well is given None as its generator, which takes longer to make
than some such steps take.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from functools import cache
from typing import Any

from clients.local import Local, Outcome, Shard
from unlearning.errors import FederationError, unknown
from unlearning.protocol import Settings

__all__ = ["Local", "Outcome", "Shard", "Step", "draws", "find", "names", "needs_model"]


# The first argument is the network, or None for a step that needs none.
# The last is None for a step that draws nothing.
Step = Callable[[Any, Local, Settings, Any], Outcome]


@cache
def names() -> tuple[str, ...]:
    """Return the names of all steps, found by walking this package."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


@cache
def find(name: str) -> Step:
    """Return the step called ``name``.

    Raises
    ------
    FederationError
        If there is none.
    """
    if name not in names():
        raise FederationError(unknown("step", name, names()))
    step: Step = getattr(importlib.import_module(f"{__name__}.{name}"), name)
    return step


@cache
def needs_model(name: str) -> bool:
    """Return whether the step called ``name`` works on a network.

    Raises
    ------
    FederationError
        If there is no such step.
    """
    return bool(getattr(importlib.import_module(find(name).__module__), "NEEDS_MODEL", True))


@cache
def draws(name: str) -> bool:
    """Return whether the step called ``name``, which needs no network, draws random numbers.

    Raises
    ------
    FederationError
        If there is no such step.
    """
    return bool(getattr(importlib.import_module(find(name).__module__), "DRAWS", True))
