"""The command ``fedunlearn tune``: options that work, found on other seeds than are reported."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.options import ConfigFile, Overrides, words
from unlearning.errors import ConfigError

__all__ = ["tune"]


def tune(
    config: ConfigFile,
    strategies: Annotated[
        str, typer.Option(metavar="A,B", help="Strategies whose options are searched.")
    ],
    trials: Annotated[int, typer.Option(help="Settings to try of each, defaults included.")] = 40,
    seeds: Annotated[int, typer.Option(help="Federations per trial, on seeds of their own.")] = 2,
    storage: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Keep the study, e.g. sqlite:///study.db, and go on."),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", metavar="FOLDER", help="Where to write what was found.")
    ] = Path("tuning"),
    overrides: Overrides = None,
) -> None:
    """Search a strategy's options: near to retraining, and cheap. Needs Optuna.

    Trials run in this process on other seeds and another forget set than the config's; what they
    find is then held against defaults, plain training and a random reset on the config's own.
    """
    from experiments.config.loading import load
    from experiments.runs.command import command_line

    names = words(strategies, "--strategies")
    for name, value in (("--trials", trials), ("--seeds", seeds)):
        if value < 1:
            raise ConfigError(f"{name} is {value}; it must be 1 or more")
    settings = load(config, overrides or ())
    if not settings.requests:
        raise ConfigError(f"{config} asks for nothing to be forgotten; add a [[requests]] table")
    from experiments.tuning.study import search
    from experiments.tuning.writing import markdown, write

    found = [
        search(
            settings,
            name,
            trials=trials,
            seeds=seeds,
            storage=storage,
            tell=lambda line: typer.echo(line, err=True),
        )
        for name in names
    ]
    typer.echo(markdown(found, command_line()))
    for path in write(found, out, command_line()):
        typer.echo(f"wrote {path}")
