"""Attacks on unlearning itself, each a scenario to run with the defence on and off.

One file per attack, found by walking the package: a function ``attack(seed, defences)`` that yields
:class:`~experiments.attacks.trial.Trial`, and the paper on top.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType

from experiments.attacks.trial import OFF, ON, Trial
from unlearning.errors import ConfigError, unknown

__all__ = ["DEFENCES", "attacks", "describe", "run"]

DEFENCES = {"off": (OFF,), "on": (ON,), "both": (OFF, ON)}


def attacks() -> dict[str, ModuleType]:
    """Return every attack by its name, that of its file with hyphens."""
    found = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        if callable(getattr(module, "attack", None)):
            found[info.name.replace("_", "-")] = module
    return found


def describe() -> list[dict[str, object]]:
    """Return name, defence and first sentence of every attack."""
    return [
        {
            "name": name,
            "defence": module.DEFENCE,
            "attack": (inspect.getdoc(module) or "").partition("\n")[0],
        }
        for name, module in attacks().items()
    ]


def run(
    name: str,
    seeds: Sequence[int] = (0,),
    defence: str = "both",
    tell: Callable[[Trial], None] = lambda trial: None,
) -> list[Trial]:
    """Return the trials of one attack.

    Parameters
    ----------
    name : str
        As :func:`attacks` has it.
    seeds : sequence of int
        One federation each.
    defence : {"off", "on", "both"}
        Which arms are run.
    tell : callable
        Told of every trial as it is done.

    Raises
    ------
    ConfigError
        If there is no such attack or arm.
    """
    known = attacks()
    if name not in known:
        raise ConfigError(unknown("attack", name, known))
    if defence not in DEFENCES:
        raise ConfigError(unknown("defence", defence, DEFENCES))
    found: list[Trial] = []
    for seed in seeds:
        trials: Iterator[Trial] = known[name].attack(seed, DEFENCES[defence])
        for trial in trials:
            found.append(trial)
            tell(trial)
    return found
