"""How commands answer: JSON or a table on standard output, progress and mistakes beside it."""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from experiments.federation.quiet import quiet

if TYPE_CHECKING:
    from experiments.runs.progress import Observer

__all__ = [
    "FAILED",
    "INTERRUPTED",
    "OVERDUE",
    "USER_ERROR",
    "complain",
    "print_json",
    "print_table",
    "show_page",
    "watched",
]

FAILED = 1  # exit code of what was carried out, and came to a bad end
OVERDUE = 3  # exit code of `status` while a request is open after its due date
USER_ERROR = 2  # exit code of everything the user can put right
INTERRUPTED = 130  # as shells report SIGINT


def complain(error: BaseException, *, debug: bool = False) -> None:
    """Say on standard error, in one line, what went wrong."""
    if debug:
        traceback.print_exception(error)
    label = typer.style("error:", fg=typer.colors.RED, bold=True)
    typer.echo(f"{label} {' '.join(str(error).splitlines())}", err=True)


@contextmanager
def watched() -> Iterator[Observer]:
    """Show progress on standard error, so that standard output holds the answer alone."""
    import logging

    import click
    from rich.console import Console

    from experiments.runs.progress import lines, progress

    context = click.get_current_context(silent=True)
    flags = {} if context is None else context.meta
    if flags.get("quiet"):
        with quiet("fedunlearn"):
            yield lambda tick: None
        return
    if flags.get("verbose"):
        logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
        yield lines(Console(stderr=True), interval_s=0.0)
        return
    with progress(Console(stderr=True)) as observer:
        yield observer


def show_page(page: Path) -> None:
    """Show a page in a browser, if there is one."""
    import webbrowser

    if not webbrowser.open(page.absolute().as_uri()):
        typer.echo(f"no browser was found; open {page} in one", err=True)


def print_json(value: object) -> None:
    """Print a value as JSON; what JSON does not know as text."""
    typer.echo(json.dumps(value, indent=2, default=str))


def print_table(entries: Sequence[dict[str, object]]) -> None:
    """Print entries as a table: a column per key, a line per part of a list or mapping."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=160)  # a pipe has no width to keep to
    table = Table(box=None, pad_edge=False, header_style="bold")
    # What is said in sentences or long lists does not fit into a table; --json has it.
    long = ("summary", "strategies")
    keys = [key for key in (entries[0] if entries else ()) if key not in long]
    for key in keys:
        table.add_column(key.replace("_", "\n"), overflow="fold", no_wrap=key == "name")
    for entry in entries:
        table.add_row(*(_cell(entry[key]) for key in keys))
    console.print(table, markup=False, highlight=False)


def _cell(value: object) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{key} = {item}" for key, item in value.items()) or "-"
    if isinstance(value, (list, tuple)):
        return "\n".join(map(str, value)) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) or "-"
