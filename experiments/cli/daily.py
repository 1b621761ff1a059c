"""The commands ``fedunlearn runs | logs | watch | stop | clean | doctor``: daily life."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.answers import USER_ERROR, print_json, print_table
from experiments.cli.options import Json, Run
from unlearning.errors import ConfigError

__all__ = ["clean", "doctor", "logs", "runs", "stop", "watch"]

_POLL_S = 0.5  # between two looks at a log that is followed


def runs(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Default: runs.")] = Path(
        "runs"
    ),
    as_json: Json = False,
) -> None:
    """List the runs in a folder: when, of what kind, how far, which requests were served."""
    from experiments.runs.shelf import shelf

    found = [entry.to_json() for entry in shelf(folder)]
    if as_json:
        print_json(found)
    elif found:
        print_table(found)
    else:
        typer.echo(f"no run lies in {folder}")


def logs(
    run: Run,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")
    ] = False,
) -> None:
    """Show what a run did when: its phases, its warnings, how it ended."""
    import time

    from experiments.runs.folder import RunFolder
    from experiments.runs.log import LOG

    folder = RunFolder.open(run)
    path = folder.path / LOG
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; this run kept no log")
    with path.open(encoding="utf-8") as file:
        while True:
            status = folder.read_status()  # before reading, so that its last lines are not missed
            for line in file:
                typer.echo(line, nl=False)
            if not follow or status is None or not status.is_running:
                return
            time.sleep(_POLL_S)


def watch(run: Run) -> None:
    """Show how far a run is until it has ended: its phase, accuracy, requests."""
    import time

    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from experiments.runs.folder import RunFolder
    from experiments.runs.inspection import overview

    folder, console = RunFolder.open(run), Console()
    last = ""
    # Elsewhere than on a terminal every change is a line of its own.
    with (
        Live(console=console, auto_refresh=False) if console.is_terminal else nullcontext() as live
    ):
        while True:
            found = overview(folder)
            text = "\n".join(found.lines())
            if live is not None:
                live.update(Text(text), refresh=True)
            elif text != last:
                typer.echo(text)
            last = text
            if found.status is None or not found.status.is_running:
                return
            time.sleep(_POLL_S)


def stop(
    run: Run,
    wait: Annotated[float, typer.Option(metavar="SECONDS", help="Wait for its end.")] = 60.0,
) -> None:
    """Ask a running federation to end cleanly, and wait until it has."""
    from experiments.runs.folder import RunFolder
    from experiments.runs.shelf import stop as ask

    if not ask(RunFolder.open(run), wait_s=wait):
        raise ConfigError(f"{run} was asked to end, and has not within {wait:g} s; wait longer")
    typer.echo(f"{run} has ended")


def clean(
    runs: Annotated[
        list[Path] | None, typer.Argument(metavar="[RUN]...", help="Runs that have ended.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="The whole folders, their ledgers too.")
    ] = False,
    cache: Annotated[bool, typer.Option("--cache", help="The cache folder of audits.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; otherwise only say what.")] = False,
) -> None:
    """Throw away what ended comparisons need no more: histories and clients' files.

    Results, reports and ledgers stay, unless --all is given.
    """
    from experiments.runs.folder import RunFolder
    from experiments.runs.shelf import freed, waste

    if not runs and not cache:
        raise ConfigError("nothing is named; give run folders, or --cache")
    paths = [
        path for run in runs or () for path in waste(RunFolder.open(run), everything=everything)
    ]
    if cache:
        from experiments.data.places import cache_folder

        paths += [path for path in [cache_folder()] if path.exists()]
    size = freed(paths, remove=yes)
    done = "removed" if yes else "would remove"
    for path in paths:
        typer.echo(f"{done} {path}")
    hint = "" if yes or not paths else "; --yes does it"
    typer.echo(f"{done} {size / 2**20:.1f} MiB in all{hint}")


def doctor(
    fast: Annotated[bool, typer.Option("--fast", help="Do not start Ray.")] = False,
    as_json: Json = False,
) -> None:
    """Look whether everything that is needed is there, and say what to do about what is not."""
    from experiments.doctor import examine

    found = examine(start_ray=not fast)
    if as_json:
        print_json([check.to_json() for check in found])
    else:
        for check in found:
            typer.echo(check.line())
    if any(check.state == "bad" for check in found):
        raise typer.Exit(USER_ERROR)
