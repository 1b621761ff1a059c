"""Finding the strategies of this package by walking it; nothing is registered by hand.

It is given the class that all of them derive from, so that this class can ask it in turn which
strategies would have served a request.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from functools import cache, lru_cache
from types import MappingProxyType, ModuleType
from typing import Any, TypeVar

import strategies as package

__all__ = ["alias", "concrete", "defined", "is_complete", "kinds", "options"]

_PLAIN: Mapping[str, type] = {kind.__name__: kind for kind in (bool, int, float, str)}
Kind = TypeVar("Kind")


def concrete(base: type[Kind]) -> dict[str, type[Kind]]:
    """Return every concrete strategy of the package by its alias; see :func:`_concrete`."""
    return dict(_concrete(base, tuple(package.__path__)))  # type: ignore[arg-type]


@lru_cache(maxsize=16)
def _concrete(base: type[Kind], places: tuple[str, ...]) -> dict[str, type[Kind]]:
    """Return every concrete strategy of the package by its alias, in alphabetic order.

    The alias is the module's name with hyphens: ``fed_eraser.py`` holds ``"fed-eraser"``. A
    module with several strategies gives each the kebab-case of its class name.

    Parameters
    ----------
    base : type
        What all strategies derive from.
    places : tuple of str
        Where the package lies; it is walked once.
    """
    found: dict[str, type[Kind]] = {}
    for name in _modules(places):
        module = importlib.import_module(name)
        classes = _defined(module, base)  # type: ignore[arg-type]
        for cls in classes:
            short = _kebab(cls.__name__) if len(classes) > 1 else alias(cls)
            if short in found:
                raise RuntimeError(f"alias {short!r} stands for {found[short]} and {cls}")
            found[short] = cls
    return dict(sorted(found.items()))


@cache
def _modules(places: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the package's modules; its files are looked for once."""
    found = pkgutil.walk_packages(list(places), f"{package.__name__}.")
    return tuple(info.name for info in found)


@lru_cache(maxsize=1024)
def _defined(module: ModuleType, base: type[Kind]) -> list[type[Kind]]:
    return defined(module, base)


def defined(module: ModuleType, base: type[Kind]) -> list[type[Kind]]:
    """Return the concrete public strategies that a module itself defines."""
    return [
        found
        for name, found in vars(module).items()
        if inspect.isclass(found)
        and issubclass(found, base)
        and found.__module__ == module.__name__
        and not name.startswith("_")
        and is_complete(found, base)
    ]


def is_complete(cls: type[Kind], base: type[Kind]) -> bool:
    """Return whether a class says how it unlearns, as no base does."""
    return getattr(cls, "prepare", None) is not getattr(base, "prepare", None)


def alias(cls: type) -> str:
    """Return the short name of a strategy class: its module's, with hyphens."""
    return cls.__module__.rpartition(".")[2].replace("_", "-")


def options(cls: type, base: type) -> dict[str, Any]:
    """Return the keyword arguments of a strategy with their defaults.

    A constructor that passes ``**rest`` on takes its base's arguments as well, as far as ``base``.
    """
    return {name: parameter.default for name, parameter in _parameters(cls, base).items()}


def kinds(cls: type, base: type) -> dict[str, type]:
    """Return of the keyword arguments those annotated as plain values: bool, int, float or str."""
    found = {name: parameter.annotation for name, parameter in _parameters(cls, base).items()}
    return {
        name: _PLAIN[word]
        for name, given in found.items()
        if (word := given if isinstance(given, str) else getattr(given, "__name__", "")) in _PLAIN
    }


@lru_cache(maxsize=256)
def _parameters(cls: type, base: type) -> Mapping[str, inspect.Parameter]:
    """Return the keyword arguments of a strategy; a class is looked at once."""
    found: dict[str, inspect.Parameter] = {}
    for parent in cls.__mro__:
        if "__init__" not in vars(parent):
            continue
        parameters = list(inspect.signature(vars(parent)["__init__"]).parameters.values())[1:]
        for parameter in parameters:
            if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                found.setdefault(parameter.name, parameter)
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
            break
        if parent is base:
            break
    return MappingProxyType(found)


def _kebab(name: str) -> str:
    """Return ``"FedEraser"`` as ``"fed-eraser"``."""
    return "".join(f"-{c.lower()}" if c.isupper() else c for c in name).lstrip("-")
