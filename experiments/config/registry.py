"""Strategies by name, those of the working directory included."""

from __future__ import annotations

from collections.abc import Mapping

from experiments.config.loading import Config, import_object
from strategies import registry
from strategies.base import UnlearningStrategy
from strategies.registry import Description, describe, options, strategies

__all__ = ["Description", "describe", "make", "make_from_text", "options", "resolve", "strategies"]


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


def make_from_text(text: str, config: Config) -> UnlearningStrategy:
    """Return the strategy that ``alias`` or ``alias:option=number,...`` names.

    Options that the text leaves out are those of the config.

    Raises
    ------
    ConfigError
        As :func:`make`.
    """
    alias, _, given = text.partition(":")
    pairs = (part.split("=") for part in given.split(",") if part)
    numbers = {key: float(value) if "." in value else int(value) for key, value in pairs}
    return make(alias, {**config.options_for(alias), **numbers})
