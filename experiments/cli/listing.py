"""The command ``fedunlearn list``: what a config can name, as a table or as JSON."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

import typer

from experiments.cli.answers import print_json, print_table
from experiments.cli.options import Json
from unlearning.errors import ConfigError

__all__ = ["Kind", "entries", "list_"]

Entry = dict[str, object]


class Kind(StrEnum):
    """What can be listed."""

    STRATEGIES = "strategies"
    DATASETS = "datasets"
    MODELS = "models"
    PARTITIONERS = "partitioners"
    ATTACKS = "attacks"


def list_(
    kind: Annotated[Kind, typer.Argument(help="What to list.")],
    as_json: Json = False,
    bibtex: Annotated[
        bool, typer.Option("--bibtex", help="Strategies' papers as BibTeX entries.")
    ] = False,
) -> None:
    """List what a config can name."""
    if bibtex:
        if kind is not Kind.STRATEGIES or as_json:
            raise ConfigError("--bibtex goes with `list strategies` and without --json")
        from strategies.citation import bibtex as cited
        from strategies.registry import strategies

        typer.echo("\n\n".join(cited(cls, name) for name, cls in strategies().items()))
        return
    found = entries(kind.value)
    if as_json:
        print_json(found)
    else:
        print_table(found)


def entries(kind: str) -> list[Entry]:
    """Return one entry per name; all entries have the same keys.

    Parameters
    ----------
    kind : {"strategies", "datasets", "models", "partitioners", "attacks"}
        What to list.

    Raises
    ------
    KeyError
        If there is no such kind.
    """
    return {
        "strategies": _strategies,
        "datasets": _datasets,
        "models": _models,
        "partitioners": _partitioners,
        "attacks": _attacks,
    }[kind]()


def _strategies() -> list[Entry]:
    from experiments.config.registry import describe

    return [
        {
            "name": found.alias,
            "family": found.family,
            "models": list(found.models),
            "scopes": list(found.scopes),
            "guarantee": found.guarantee,
            "needs": list(found.needs),
            "asks_forgotten": found.asks_forgotten,
            "options": _plain(found.options),
            "summary": found.summary,
        }
        for found in describe()
    ]


def _datasets() -> list[Entry]:
    from experiments.data import datasets as data

    return _named(data.names())


def _models() -> list[Entry]:
    from experiments.config.registry import describe, strategies
    from experiments.models import networks as models
    from unlearning.request import Scope

    families = {found.alias: found.family for found in describe()}

    def entry(name: str) -> Entry:
        network = models.is_network(name)
        fitting = {
            alias: cls
            for alias, cls in strategies().items()
            if cls.works_on(None if network else name)
            and (not network or models.takes_tasks(name) or cls.scopes != {Scope.TASK})
        }
        return {
            "name": name,
            "kind": "network" if network else "no network",
            "families": sorted({families[alias] for alias in fitting}),
            "own_strategies": [
                alias for alias, cls in fitting.items() if name in (cls.models or ())
            ],
            "parameters": _plain(models.parameters(name)),
            "strategies": list(fitting),
        }

    return [entry(name) for name in models.names()]


def _partitioners() -> list[Entry]:
    from experiments.data import partition

    return _named(partition.names())


def _attacks() -> list[Entry]:
    from experiments import attacks

    return attacks.describe()


def _named(names: object) -> list[Entry]:
    """Return entries for names alone, or for names with their parameters and defaults."""
    if isinstance(names, Mapping):
        return [{"name": name, "parameters": _plain(found)} for name, found in names.items()]
    return [{"name": name} for name in names]  # type: ignore[attr-defined]


def _plain(parameters: object) -> object:
    """Return parameters with their defaults; one without a default is required."""
    if not isinstance(parameters, Mapping):
        return parameters
    return {
        name: "required" if default is inspect.Parameter.empty else default
        for name, default in parameters.items()
    }
