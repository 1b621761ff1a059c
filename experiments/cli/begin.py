"""The commands ``fedunlearn demo | new``: a first look, and a first strategy of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.options import Json, Out, Overrides
from experiments.cli.runs import compare

__all__ = ["demo", "new"]

_DEMO = Path("experiments/configs/digits_client.toml")  # found beside the packages


def demo(out: Out = None, overrides: Overrides = None, as_json: Json = False) -> None:
    """Let a client be forgotten on embedded data: the main experiment, from any folder."""
    compare(_DEMO, out=out, overrides=overrides, as_json=as_json)


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="For example my_strategy.")],
    folder: Annotated[
        Path, typer.Option("--in", metavar="FOLDER", help="Where; default: here.")
    ] = Path(),
) -> None:
    """Write a strategy of your own to begin with, a config, and a test that passes."""
    from experiments.starter import begin

    paths = begin(name, folder)
    for path in paths:
        typer.echo(f"wrote {path}")
    typer.echo(f"try it: pytest {paths[2]}; fedunlearn compare {paths[1]}")
