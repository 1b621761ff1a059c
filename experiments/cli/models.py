"""The commands ``fedunlearn convert | import-history``: what others have trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unlearning.errors import ConfigError

__all__ = ["convert", "import_history"]


def convert(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="A safetensors file or a Hugging Face folder.")
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The safetensors file to write.")],
) -> None:
    """Write a model from elsewhere as one safetensors file, for the key start.model.

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


def import_history(
    source: Annotated[
        Path, typer.Argument(metavar="FROM", help="A folder with round-1.npz and so on.")
    ],
    target: Annotated[Path, typer.Argument(metavar="TO", help="The folder to make.")],
) -> None:
    """Take over the rounds of a federation that another system trained, for start.history.

    A file per round: the model at its start as global/NAME, and per client update/CLIENT/NAME and
    examples/CLIENT. final.npz may hold the model after the last round, as global/NAME.
    """
    from unlearning.packing import pack
    from unlearning.records.files import write_atomically
    from unlearning.records.importing import import_rounds

    arrays = import_rounds(source, target / "history")
    write_atomically(target / "model.safetensors", pack(arrays))
    typer.echo("[start]")
    typer.echo(f'model = "{target / "model.safetensors"}"')
    typer.echo(f'history = "{target / "history"}"')
