"""The command ``fedunlearn audit``; heavy imports are inside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.answers import watched
from experiments.cli.options import ConfigFile, Json, Out, Overrides, words

__all__ = ["audit", "show_audit"]


def audit(
    config: ConfigFile,
    strategies: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Strategies to audit; default: those of the config."),
    ] = None,
    models: Annotated[int, typer.Option(help="Models per side.")] = 16,
    workers: Annotated[int, typer.Option(help="Worker processes; no result depends on it.")] = 2,
    out: Out = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Train many small federations, and judge forgetting by every metric with its controls.

    What was trained is kept in the cache folder, by the hash of all it was made from: the same
    command again goes on where it was interrupted.
    """
    from experiments.api import calls
    from experiments.config.loading import load
    from experiments.runs.folder import default_out

    settings = load(config, overrides or ())
    names = None if strategies is None else words(strategies, "--strategies")
    with watched() as observer:
        made = calls.audit(
            settings,
            strategies=names,
            models=models,
            workers=workers,
            out=out or default_out(config),
            progress=observer,
        )
    show_audit(made.path, as_json=as_json)


def show_audit(run: Path, *, as_json: bool) -> None:
    """Show the cards and rows of an audit, or its findings as JSON."""
    from rich.console import Console

    from experiments.audit.results import AUDIT, read_audit
    from experiments.cli.audit_table import cards_table, closing, rows_table
    from experiments.runs.folder import RunFolder

    if as_json:
        typer.echo((run / AUDIT).read_text(encoding="utf-8"))
        return
    found, console = read_audit(run), Console()
    if not console.is_terminal:
        console = Console(width=160)  # a pipe has no width to keep to
    console.print(cards_table(found))
    console.print(rows_table(found))
    console.print(closing(found), markup=False, highlight=False)
    typer.echo(f"findings: {run / AUDIT}\nreport: {RunFolder.open(run).report}")
