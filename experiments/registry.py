"""Strategies by name, those of the working directory included."""

from __future__ import annotations

from collections.abc import Mapping

from experiments.config import import_object
from strategies import registry
from strategies.base import UnlearningStrategy
from strategies.registry import Description, describe, options, strategies

__all__ = ["Description", "describe", "make", "options", "resolve", "strategies"]


def resolve(name: str) -> type[UnlearningStrategy]:
    """Return the strategy class that an alias or ``"module:Class"`` names.

    Raises
    ------
    ConfigError
        If there is none, or it is not a complete strategy.
    """
    if ":" in name:
        import_object(
            registry.full_name(name), "strategy"
        )  # finds the working directory, and says what is missing
    return registry.resolve(name)


def make(name: str, settings: Mapping[str, object]) -> UnlearningStrategy:
    """Return a strategy with the given options, as they stand under ``[options]``.

    Raises
    ------
    ConfigError
        If the strategy or an option is unknown, or the strategy refuses a value.
    """
    resolve(name)
    return registry.make(name, settings)
