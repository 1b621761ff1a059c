"""Strategies by name: found by walking the package, or given as ``"module:Class"``."""

from __future__ import annotations

import importlib
import inspect
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from strategies import discovery, fitness
from strategies.base import EVERY_MODEL, UnlearningStrategy
from strategies.discovery import alias
from unlearning.errors import ConfigError, unknown
from unlearning.request import Scope

__all__ = [
    "Description",
    "alias",
    "describe",
    "full_name",
    "make",
    "options",
    "resolve",
    "strategies",
    "who_serves",
]

StrategyClass = type[UnlearningStrategy]
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text, in quotes"}


def strategies() -> dict[str, StrategyClass]:
    """Return every concrete strategy of the package by its alias, in alphabetic order."""
    return discovery.concrete(UnlearningStrategy)


def who_serves(scope: Scope, model: str | None = None) -> list[str]:
    """Return the aliases of the strategies that serve requests of a scope.

    Parameters
    ----------
    scope : Scope
        Of the request.
    model : str or None
        The array model that is learned, by its name; None: a network.
    """
    return fitness.who_serves(UnlearningStrategy, scope, model)


def full_name(name: str) -> str:
    """Return a name with the family folder filled in where it was left out.

    ``strategies.fed_eraser:FedEraser`` is ``strategies.local_model.fed_eraser:FedEraser``; any
    other name is returned as it is.
    """
    module_name, colon, class_name = name.partition(":")
    package_name, _, short = module_name.rpartition(".")
    found = strategies().get(short.replace("_", "-"))
    if not colon or package_name != "strategies" or found is None:
        return name
    return f"{found.__module__}:{class_name}"


def resolve(name: str) -> StrategyClass:
    """Return the strategy class that an alias or ``"module:Class"`` names.

    Raises
    ------
    ConfigError
        If there is none, or it is not a concrete strategy.
    """
    if ":" not in name:
        known = strategies()
        if name not in known:
            raise ConfigError(f"{unknown('strategy', name, known)}; your own is 'module:Class'")
        return known[name]
    module_name, _, class_name = full_name(name).partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"strategy {name!r}: module {module_name!r} cannot be imported ({error}); "
            "it must lie in the current directory or be installed"
        ) from error
    found = getattr(module, class_name, None)
    if not (inspect.isclass(found) and issubclass(found, UnlearningStrategy)):
        known_names = [cls.__name__ for cls in discovery.defined(module, UnlearningStrategy)]
        raise ConfigError(
            f"strategy {name!r}: {unknown('strategy class', class_name, known_names)}"
        )
    if not discovery.is_complete(found, UnlearningStrategy):
        raise ConfigError(
            f"strategy {name!r} does not say how it unlearns: it defines no 'prepare'"
        )
    return found


def make(name: str, settings: Mapping[str, object]) -> UnlearningStrategy:
    """Return a strategy with the given options.

    Parameters
    ----------
    name : str
        Alias or ``"module:Class"``.
    settings : mapping
        Options by name, as under ``[options]`` in the config.

    Raises
    ------
    ConfigError
        If the strategy or an option is unknown, or a value is of another kind than the option
        says, or the strategy refuses it.
    """
    cls = resolve(name)
    known, kinds = options(cls), discovery.kinds(cls, UnlearningStrategy)
    for key, value in settings.items():
        if key not in known:
            raise ConfigError(unknown(f"option of strategy {name!r}", key, known))
        if key in kinds and not _is_of(kinds[key], value):
            raise ConfigError(
                f"option {key!r} of strategy {name!r} is {value!r}; it must be {_WORDS[kinds[key]]}"
            )
    try:
        return cls(**dict(settings))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"options of strategy {name!r}: {error}") from error


def _is_of(kind: type, value: object) -> bool:
    """Return whether a value is of a kind: a whole number is a number, and no truth is one."""
    if kind is bool or isinstance(value, bool):
        return isinstance(value, bool) and kind is bool
    wanted = {int: numbers.Integral, float: numbers.Real}
    return isinstance(value, wanted.get(kind, kind))


def options(cls: StrategyClass) -> dict[str, Any]:
    """Return the keyword arguments of a strategy with their defaults.

    A constructor that passes ``**rest`` on takes its base's arguments as well.
    """
    return discovery.options(cls, UnlearningStrategy)


@dataclass(frozen=True)
class Description:
    """What a strategy declares, for tables and programs."""

    alias: str
    summary: str
    family: str
    models: tuple[str, ...]
    scopes: tuple[str, ...]
    guarantee: str
    needs: tuple[str, ...]
    asks_forgotten: bool
    options: dict[str, Any]


def describe() -> list[Description]:
    """Return what each strategy of the package declares."""
    return [
        Description(
            alias=name,
            summary=(inspect.getdoc(cls) or "").partition("\n")[0],
            family=cls.__module__.split(".")[-2].replace("_", " "),
            models=_models(cls),
            scopes=tuple(sorted(scope.value for scope in cls.scopes)),
            guarantee=cls.guarantee.value,
            needs=tuple(sorted(cls.needs)),
            asks_forgotten=cls.asks_forgotten,
            options=options(cls),
        )
        for name, cls in strategies().items()
    ]


def _models(cls: StrategyClass) -> tuple[str, ...]:
    """Return what a strategy works on, in words or by the names of models."""
    if cls.models == EVERY_MODEL:
        return ("every model",)
    if cls.models is not None:
        return tuple(sorted(cls.models))
    return ("networks of several tasks",) if cls.scopes == {Scope.TASK} else ("any network",)
