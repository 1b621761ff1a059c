"""The commands ``fedunlearn run | compare | status | verify | resume``: one federation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from experiments.cli.answers import FAILED, OVERDUE, complain, print_json, watched
from experiments.cli.options import (
    Anyway,
    ConfigFile,
    Json,
    Out,
    Overrides,
    Run,
    numbers,
    seconds,
    words,
)
from unlearning.errors import ConfigError, FedUnlearnError

if TYPE_CHECKING:
    from experiments.runs.folder import RunFolder
    from experiments.runs.results import FailedRow

__all__ = ["compare", "resume", "run", "status", "sweep", "verify"]


def run(
    config: ConfigFile,
    out: Out = None,
    overrides: Overrides = None,
    keep_serving: Annotated[
        bool, typer.Option("--keep-serving", help="Stay after the last round and serve requests.")
    ] = False,
    idle: Annotated[
        str | None,
        typer.Option(
            metavar="1h", help="With --keep-serving: end when none came for so long; default: 1h."
        ),
    ] = None,
    anyway: Anyway = False,
    as_json: Json = False,
) -> None:
    """Learn, serve the requests with the configured strategy, recover, report."""
    from experiments.api import calls
    from experiments.config.loading import load
    from experiments.runs.folder import RunFolder, default_out

    if idle is not None and not keep_serving:
        raise ConfigError("--idle says how long --keep-serving waits; give both, or neither")
    settings = load(config, overrides or ())
    with watched() as observer:
        made = calls.run(
            settings,
            out=out or default_out(config),
            progress=observer,
            idle_s=seconds(idle or "1h", "--idle") if keep_serving else 0.0,
            anyway=anyway,
        )
    _show_results(RunFolder.open(made.path), as_json=as_json)


def compare(
    config: ConfigFile,
    strategies: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Strategies to compare; default: those of the config."),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="0,1,2", help="Seeds; default: that of the config.")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="examples=N",
            help="All but retrain stop at this cost, after a round.",
        ),
    ] = None,
    out: Out = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Learn once, then let every strategy answer the same requests from the same history."""
    from experiments.api import calls
    from experiments.config.loading import load
    from experiments.runs.folder import RunFolder, default_out

    settings = load(config, [*(overrides or ()), *_budget(budget)])
    names = None if strategies is None else words(strategies, "--strategies")
    chosen = None if seeds is None else numbers(seeds, "--seeds")
    with watched() as observer:
        made = calls.compare(
            settings,
            strategies=names,
            seeds=chosen,
            out=out or default_out(config),
            progress=observer,
        )
    _show_results(RunFolder.open(made.path), as_json=as_json)


def _budget(text: str | None) -> list[str]:
    """Return the override that stands for ``--budget``."""
    if text is None:
        return []
    kind, _, number = text.partition("=")
    try:
        examples = float(number)
    except ValueError:
        examples = 0.0
    if kind.strip() != "examples" or not 1 <= examples < 1e18 or examples != int(examples):
        raise ConfigError(
            f"--budget is {text!r}; give a whole number of examples, such as examples=1e6"
        )
    return [f"stop.examples={int(examples)}"]


def status(run: Run, as_json: Json = False) -> None:
    """Say how far a run is and what became of each request; exit code 3: one is overdue.

    Exit code 1: its ledger was cut or changed, so that what it says cannot be trusted.
    """
    from experiments.runs.folder import RunFolder
    from experiments.runs.inspection import ALARMS, overview

    found = overview(RunFolder.open(run))
    if as_json:
        print_json(found.to_json())
    else:
        for line in found.lines():
            typer.secho(line, fg=typer.colors.RED if line.startswith(ALARMS) else None)
    if found.broken:
        raise typer.Exit(FAILED)
    if found.is_overdue:
        raise typer.Exit(OVERDUE)


def verify(run: Run, as_json: Json = False) -> None:
    """Check the ledger's chain, every file of the history, and the model; nothing is changed."""
    from experiments.runs.folder import RunFolder
    from experiments.runs.inspection import verify as examine

    found = examine(RunFolder.open(run))
    if as_json:
        print_json(found.to_json())
    else:
        for line in found.checked:
            typer.echo(line)
    for problem in found.problems:
        complain(FedUnlearnError(problem))
    if found.problems:
        raise typer.Exit(FAILED)


def sweep(
    run: Run,
    yes: Annotated[bool, typer.Option("--yes", help="Remove them; else they are listed.")] = False,
) -> None:
    """Remove what a crash left in the history and its index does not name."""
    from experiments.runs.folder import RunFolder
    from experiments.runs.inspection import leftovers
    from experiments.runs.inspection import sweep as remove

    folder = RunFolder.open(run)
    found = remove(folder) if yes else leftovers(folder)
    for path in found:
        typer.echo(f"{'removed' if yes else 'left over'}: {path}")
    if not found:
        typer.echo("nothing is left over")
    elif not yes:
        typer.echo(f"nothing was removed; `fedunlearn sweep {run} --yes` does it")


def resume(
    run: Run,
    accept_change: Annotated[
        bool,
        typer.Option(
            "--accept-change", help="Go on though config or code have changed; the ledger says so."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Go on with a run, comparison or audit that was interrupted; serve what was asked since."""
    from experiments.api.calls import open_run
    from experiments.runs.folder import RunFolder

    found = open_run(run)
    with watched() as observer:
        went_on = found.resume(progress=observer, accept_change=accept_change)
    if not went_on:
        typer.echo(f"{run} is finished and nothing waits in it: nothing to do", err=True)
    elif found.kind == "audit":
        from experiments.cli.audits import show_audit

        show_audit(found.path, as_json=as_json)
    else:
        _show_results(RunFolder.open(run), as_json=as_json)


def _show_results(folder: RunFolder, *, as_json: bool) -> None:
    from rich.console import Console

    from experiments.cli.feature_table import feature_table
    from experiments.cli.task_table import plain_task_table, task_table
    from experiments.runs.details import read_details
    from experiments.runs.inspection import overview
    from experiments.runs.results import read_failed, read_results
    from experiments.runs.table import plain_table, table
    from experiments.runs.text import plain_text_table

    failed = read_failed(folder.path)
    if as_json:
        typer.echo(folder.results.read_text(encoding="utf-8"))
        _end(failed)
        return
    _, rows = read_results(folder.path)
    details = read_details(folder.path)
    tasks = (details.task_measures, details.rounds.get("relearn"))
    console = Console()
    if console.is_terminal:
        console.print(table(rows, failed))
        if details.task_measures:
            console.print(task_table(*tasks))
    else:
        typer.echo(plain_table(rows, failed))
        if details.task_measures:
            typer.echo(f"\n{plain_task_table(*tasks)}")
    if details.feature_measures:
        typer.echo(f"\n{feature_table(details.feature_measures)}")
    if details.text_measures:
        typer.echo(f"\n{plain_text_table(details.text_measures)}\n")
    for request in overview(folder).requests:
        typer.echo(request.remark)
    typer.echo(f"report: {folder.report}")
    _end(failed)


def _end(failed: Sequence[FailedRow]) -> None:
    """End with an exit code of its own where a strategy failed, and say which on one line each."""
    for row in failed:
        complain(FedUnlearnError(f"{row.strategy} failed (seed {row.seed}): {row.failed}"))
    if failed:
        raise typer.Exit(FAILED)
