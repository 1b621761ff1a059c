"""The command ``fedunlearn scan``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.answers import print_json
from experiments.cli.options import Json, Run

__all__ = ["scan"]


def scan(
    run: Run,
    needle: Annotated[
        Path, typer.Option(metavar="FILE", help="The arrays to look for: .npz, .npy, .safetensors.")
    ],
    also: Annotated[
        list[Path] | None,
        typer.Option(metavar="PATH", help="A further place; may be repeated."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Look for the bytes of given arrays in a run folder, caches, temporary and spill folders.

    Exit code 0: not found, 1: found. Copies that are compressed, encrypted or in another number
    format are not found. Example: fedunlearn scan RUN --needle leaver.npz
    """
    from experiments.data.places import cache_folder
    from experiments.runs.folder import RunFolder
    from experiments.runs.scan import places, read_needles
    from experiments.runs.scan import scan as look

    needles = read_needles(needle)
    where = places(RunFolder.open(run).path, cache_folder(), also or ())
    found, files, size = look(where, needles)
    if as_json:
        hits = [{"path": str(f.path), "offset": f.offset, "count": f.count} for f in found]
        print_json(
            {"windows": len(needles), "places": list(map(str, where)), "files": files,
             "bytes": size, "found": hits}
        )  # fmt: skip
    else:
        for one in found:
            typer.echo(f"{one.path}: {one.count} window(s), the first at byte {one.offset}")
        typer.echo(
            f"{len(found)} of {files} file(s) ({size} bytes) hold one of {len(needles)} windows; "
            f"looked in {', '.join(map(str, where))}"
        )
    if found:
        raise typer.Exit(1)
