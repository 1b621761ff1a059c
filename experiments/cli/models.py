"""The command ``fedunlearn convert``: a model from elsewhere as a file that a config can name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unlearning.errors import ConfigError

__all__ = ["convert"]


def convert(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="A safetensors file or a Hugging Face folder.")
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The safetensors file to write.")],
) -> None:
    """Write a model from elsewhere as one safetensors file, for `[start] model`.

    A pickled file is never opened; the lines with which its owner converts it are printed.
    """
    from experiments.models import foreign

    if source.suffix.lower() in foreign.PICKLED:
        if not source.is_file():
            raise ConfigError(f"{source} does not exist; check the path")
        typer.echo(foreign.lines_for(source, target))
        return
    arrays = foreign.convert(source, target)
    typer.echo(f"wrote {len(arrays)} arrays to {target}")
