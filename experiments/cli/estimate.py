"""The command ``fedunlearn estimate``; heavy imports are inside."""

from __future__ import annotations

from typing import Annotated

import typer

from experiments.cli.answers import print_json
from experiments.cli.options import ConfigFile, Json, Overrides, words

__all__ = ["estimate"]


def estimate(
    config: ConfigFile,
    strategies: Annotated[
        str | None,
        typer.Option(
            metavar="A,B", help="Strategies; default: the config's strategy, or its strategies."
        ),
    ] = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Say before the start what a run will take: history, messages, memory, and about how long.

    Sizes follow from the config; the time from three rounds of learning in this process, and from
    the first request as each strategy answers it after three and after six of them. Not in it:
    judging and the report, requests that come in by themselves, waiting for slow clients.
    Example: fedunlearn estimate experiments/configs/digits_client.toml
    """
    from experiments.config.loading import load
    from experiments.federation.estimate import estimated

    names = None if strategies is None else words(strategies, "--strategies")
    found = estimated(load(config, overrides or ()), names)
    if as_json:
        print_json(found)
        return
    width = max(map(len, found))
    for name, value in found.items():
        told = value if isinstance(value, str) else f"{value:,}"
        typer.echo(f"{name.replace('_', ' '):<{width}}  {told}")
