"""The command line: ``fedunlearn run | compare | audit | request | status | report | ...``.

Everything heavy is imported inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
import typer
from typer.core import TyperGroup

from experiments.cli.kit import kit
from experiments.federation.quiet import quiet
from unlearning.errors import ConfigError, FedUnlearnError

if TYPE_CHECKING:
    from experiments.attacks.trial import Trial
    from experiments.runs.folder import RunFolder
    from experiments.runs.progress import Observer

__all__ = ["app"]

USER_ERROR = 2  # exit code of everything the user can put right
INTERRUPTED = 130  # as shells report SIGINT


class _Commands(TyperGroup):
    """Commands that answer a user's mistake with one line, and with a traceback on ``--debug``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # Taken before and after the command's name.
        ctx.meta["debug"] = "--debug" in args
        return super().parse_args(ctx, [arg for arg in args if arg != "--debug"])

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except FedUnlearnError as error:
            _complain(error, debug=ctx.meta["debug"])
            raise typer.Exit(USER_ERROR) from None
        except (KeyboardInterrupt, InterruptedError) as error:
            typer.echo("interrupted", err=True)
            if ctx.meta["debug"]:
                _complain(error, debug=True)
            raise typer.Exit(INTERRUPTED) from None


def _complain(error: BaseException, *, debug: bool) -> None:
    if debug:
        traceback.print_exception(error)
    label = typer.style("error:", fg=typer.colors.RED, bold=True)
    typer.echo(f"{label} {' '.join(str(error).splitlines())}", err=True)


app = typer.Typer(
    cls=_Commands,
    name="fedunlearn",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)
app.add_typer(kit)

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="The TOML file.")]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.")]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="RUN", help="The run folder to make; default: runs/CONFIG-TIME."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a config key; may be repeated."),
]
Json = Annotated[bool, typer.Option("--json", help="Answer with JSON on standard output.")]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("fedunlearn"))
        raise typer.Exit


@app.callback()
def main(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error as well.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_version, help="Show the version."),
    ] = False,
) -> None:
    """Make a federation forget, and see how far it really did."""


@app.command()
def run(
    config: ConfigFile,
    out: Out = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Learn, serve the requests with the configured strategy, recover, report."""
    from experiments.config.loading import load
    from experiments.runs.folder import RunFolder, default_out

    settings = load(config, overrides or ())
    from experiments.federation import launch

    with _watched() as observer:
        made = launch.run(settings, out or default_out(config), observer=observer)
    _show_results(RunFolder.open(made), as_json=as_json)


@app.command()
def compare(
    config: ConfigFile,
    strategies: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Strategies to compare; default: those of the config."),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="0,1,2", help="Seeds; default: that of the config.")
    ] = None,
    out: Out = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Learn once, then let every strategy answer the same requests from the same history."""
    from experiments.config.loading import load
    from experiments.runs.folder import RunFolder, default_out

    settings = load(config, overrides or ())
    names = None if strategies is None else _words(strategies, "--strategies")
    numbers = None if seeds is None else _numbers(seeds, "--seeds")
    from experiments.federation import launch

    with _watched() as observer:
        made = launch.compare(
            settings,
            out or default_out(config),
            strategies=names,
            seeds=numbers,
            observer=observer,
        )
    _show_results(RunFolder.open(made), as_json=as_json)


@app.command()
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
    from experiments.audit import run as auditing
    from experiments.config.loading import load
    from experiments.runs.folder import default_out

    settings = load(config, overrides or ())
    names = None if strategies is None else _words(strategies, "--strategies")
    with _watched() as observer:
        made = auditing.audit(
            settings,
            out or default_out(config),
            strategies=names,
            size=models,
            workers=workers,
            observer=observer,
        )
    from experiments.reporting.report import (
        render,  # loads matplotlib: only once the workers are gone
    )

    page = render(made)
    _show_audit(made, page, as_json=as_json)


@app.command()
def request(
    run: Run,
    clients: Annotated[
        list[str] | None,
        typer.Option("--client", metavar="ID", help="A client; may be repeated."),
    ] = None,
    samples: Annotated[
        list[str] | None,
        typer.Option(
            "--samples",
            metavar="4,8,15",
            help="Positions in the training set of a client: one list for each --client, in the "
            "same order.",
        ),
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", metavar="LABEL", help="A class, at --client if given; repeatable."),
    ] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option("--task", metavar="NAME", help="A task, at --client if given; repeatable."),
    ] = None,
    at_round: Annotated[
        int | None,
        typer.Option(min=1, help="Serve after this round; default: as soon as possible."),
    ] = None,
    asked_by: Annotated[str, typer.Option(help="Who asks, for the ledger.")] = "operator",
    request_id: Annotated[
        str | None,
        typer.Option("--id", help="A name of its own: the same id twice is one request."),
    ] = None,
    claim: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The opened samples, where the run asks for them."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Ask a run to forget a client, samples, classes or a task, while it goes on."""
    from experiments.runs.admission import admit, compose, read_claim
    from experiments.runs.folder import RunFolder

    folder = RunFolder.open(run)
    asked = compose(
        clients=[number for text in clients or () for number in _numbers(text, "--client")],
        samples=[_numbers(text, "--samples") for text in samples or ()],
        classes=[number for text in classes or () for number in _numbers(text, "--class")],
        tasks=tasks or (),
        at_round=at_round,
        asked_by=asked_by,
        **({"id": request_id} if request_id else {}),
    )
    is_new = admit(folder, asked, None if claim is None else read_claim(claim))
    status = folder.read_status()
    is_running = status is not None and status.is_running
    if is_running:
        when = f"after round {at_round}" if at_round else "before the next round"
        fate = f"it will be served {when}"
    else:
        state = "not begun" if status is None else status.state
        fate = f"the run has {state}, so the request waits until it is resumed"
    if as_json:
        answer = {"id": asked.id, "text": asked.describe(), "new": is_new, "running": is_running}
        _print_json({**answer, "request": asked.to_json()})
        return
    typer.echo(
        f"recorded request {asked.id}: forget {asked.describe()}; {fate}"
        if is_new
        else f"request {asked.id} was recorded before; nothing is changed"
    )


@app.command()
def claim(
    run: Run,
    client: Annotated[int, typer.Option(min=0, metavar="ID", help="Whose samples.")],
    samples: Annotated[str, typer.Option(metavar="4,8,15", help="Their positions.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The file to make.")],
) -> None:
    """Open samples a client committed itself to, for `request --claim`; the client's own part."""
    from experiments.runs.admission import write_claim
    from experiments.runs.folder import RunFolder

    folder, positions = RunFolder.open(run), _numbers(samples, "--samples")
    from experiments.federation.claims import claim_of

    write_claim(out, claim_of(folder, client, positions))
    typer.echo(f"claim: {out}")


@app.command()
def release(
    run: Run,
    request_id: Annotated[str, typer.Argument(metavar="ID", help="The held request.")],
    released_by: Annotated[str, typer.Option(help="Who says so, for the ledger.")] = "operator",
) -> None:
    """Let a request go that a guard holds: it is served next time, whatever the guard says."""
    from experiments.runs.admission import release as let_go
    from experiments.runs.folder import RunFolder

    let_go(RunFolder.open(run), request_id, released_by)
    typer.echo(f"released request {request_id}; it is served as soon as the run goes on")


@app.command()
def status(run: Run, as_json: Json = False) -> None:
    """Say how far a run is and what became of each request."""
    from experiments.runs.folder import RunFolder
    from experiments.runs.inspection import overview

    found = overview(RunFolder.open(run))
    if as_json:
        _print_json(found.to_json())
    else:
        typer.echo("\n".join(found.lines()))


@app.command()
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="A run folder; several make one page across them."),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="The page across several runs to write."),
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Show it in a browser.")] = False,
) -> None:
    """Make the report again from what the run left on disk: as a page, as JSON, as LaTeX.

    Several runs make one page across them.
    """
    from experiments.runs.folder import RunFolder

    if len(runs) == 1 and out is None:
        folder = RunFolder.open(runs[0])
        from experiments.reporting.report import render

        page = render(folder.path)
    else:
        from experiments.families.across import render_across

        page = render_across(runs, out)
    typer.echo(f"report: {page}")
    if show:
        _open(page)


@app.command()
def families(
    plan: Annotated[
        Path | None,
        typer.Argument(
            metavar="[PLAN]",
            help="The TOML file; default: experiments/plans/digits.toml, or with --from none.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FOLDER", help="Default: runs/families-PLAN."),
    ] = None,
    runs: Annotated[
        list[Path] | None,
        typer.Option("--from", metavar="RUN", help="A finished comparison to add; repeatable."),
    ] = None,
    only: Annotated[
        str | None, typer.Option(metavar="A,B", help="Run these scenarios now; default: all.")
    ] = None,
    overrides: Overrides = None,
    show: Annotated[bool, typer.Option("--open", help="Show it in a browser.")] = False,
    as_json: Json = False,
) -> None:
    """Compare the families of strategies over many scenarios, and test the surveys' claims.

    Scenarios that are in the folder already are kept, so an interrupted comparison goes on.
    """
    from experiments.families.plan import DEFAULT, Plan, read_plan

    path = plan or (None if runs else DEFAULT)
    wanted = (read_plan(path) if path else Plan()).with_runs(runs or ())
    names = () if only is None else _words(only, "--only")
    folder = out or Path("runs") / f"families-{path.stem if path else 'runs'}"
    from experiments.families.comparison import carry_out, write_comparison

    def tell(text: str) -> None:
        typer.echo(text, err=True)

    with _watched() as observer:
        carry_out(
            wanted, folder, only=names, overrides=overrides or (), observer=observer, tell=tell
        )
    page = write_comparison(wanted, folder)
    if as_json:
        typer.echo((folder / "families.json").read_text(encoding="utf-8"))
    else:
        typer.echo(f"page: {page}")
    if show:
        _open(page)


class Kind(StrEnum):
    """What can be listed."""

    STRATEGIES = "strategies"
    DATASETS = "datasets"
    MODELS = "models"
    PARTITIONERS = "partitioners"
    ATTACKS = "attacks"


@app.command("list")
def list_(
    kind: Annotated[Kind, typer.Argument(help="What to list.")], as_json: Json = False
) -> None:
    """List what a config can name."""
    from experiments.cli import listing

    entries = listing.entries(kind.value)
    if as_json:
        _print_json(entries)
    else:
        _print_table(entries)


class Defence(StrEnum):
    """Which arms of an attack are run."""

    ON = "on"
    OFF = "off"
    BOTH = "both"


@app.command()
def attack(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="As `fedunlearn list attacks` has it, or all.")
    ],
    defence: Annotated[Defence, typer.Option(help="Which arms are run.")] = Defence.BOTH,
    seeds: Annotated[str, typer.Option(metavar="0,1,2", help="One federation each.")] = "0",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write every trial to this CSV file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Attack the unlearning of a small federation, with the defence off and on."""
    numbers = _numbers(seeds, "--seeds")
    if out is not None and not out.parent.is_dir():
        raise ConfigError(f"--out {out}: the folder {out.parent} does not exist; make it")
    from experiments import attacks  # loads Flower: only once all options are right
    from experiments.attacks.trial import summary, write_csv

    chosen = list(attacks.attacks()) if name == "all" else [name]
    with quiet("flwr", "fedunlearn", level=logging.CRITICAL), _spinner() as tell:
        trials = [t for one in chosen for t in attacks.run(one, numbers, defence.value, tell)]
    if out is not None:
        write_csv(out, trials)
    lines = summary(trials)
    if as_json:
        _print_json(lines)
    else:
        _print_table(lines)


@app.command()
def verify(run: Run, as_json: Json = False) -> None:
    """Check the ledger's chain, every file of the history, and the model."""
    from experiments.runs.folder import RunFolder
    from experiments.runs.inspection import verify as examine

    found = examine(RunFolder.open(run))
    if as_json:
        _print_json(found.to_json())
    else:
        for line in found.checked:
            typer.echo(line)
    for problem in found.problems:
        _complain(FedUnlearnError(problem), debug=False)
    if found.problems:
        raise typer.Exit(USER_ERROR)


@app.command()
def resume(run: Run) -> None:
    """Go on with a run that was interrupted (comes later)."""
    from experiments.runs.folder import RunFolder

    RunFolder.open(run)
    raise FedUnlearnError(
        f"{run} cannot be resumed: `resume` comes in a later version; "
        "run the config again with another --out"
    )


@contextmanager
def _spinner() -> Iterator[Callable[[Trial], None]]:
    """Show on standard error which trial was done last."""
    from rich.console import Console

    with Console(stderr=True).status("learning") as shown:
        yield lambda trial: shown.update(
            f"{trial.attack}, seed {trial.seed}: {trial.variant}, defence {trial.defence}"
        )


def _open(page: Path) -> None:
    import webbrowser

    if not webbrowser.open(page.absolute().as_uri()):
        typer.echo(f"no browser was found; open {page} in one", err=True)


def _words(text: str, option: str) -> tuple[str, ...]:
    words = tuple(word for part in text.split(",") if (word := part.strip()))
    if not words:
        raise ConfigError(f"{option} is {text!r}; give names separated by commas")
    return words


def _numbers(text: str, option: str) -> tuple[int, ...]:
    words = _words(text, option)
    if odd := [word for word in words if not word.isdecimal()]:
        raise ConfigError(
            f"{option} is {text!r}, and {odd[0]!r} is no whole number; "
            "give numbers separated by commas, for example 4,8,15"
        )
    return tuple(int(word) for word in words)


@contextmanager
def _watched() -> Iterator[Observer]:
    """Show progress on standard error, so that standard output holds the answer alone."""
    from rich.console import Console

    from experiments.runs.progress import progress

    with progress(Console(stderr=True)) as observer:
        yield observer


def _show_results(folder: RunFolder, *, as_json: bool) -> None:
    from rich.console import Console

    from experiments.cli.task_table import plain_task_table, task_table
    from experiments.runs.results import plain_table, read_details, read_results, table

    if as_json:
        typer.echo(folder.results.read_text(encoding="utf-8"))
        return
    _, rows = read_results(folder.path)
    details = read_details(folder.path)
    tasks = (details.task_measures, details.rounds.get("relearn"))
    console = Console()
    if console.is_terminal:
        console.print(table(rows))
        if details.task_measures:
            console.print(task_table(*tasks))
    else:
        typer.echo(plain_table(rows))
        if details.task_measures:
            typer.echo(f"\n{plain_task_table(*tasks)}")
    typer.echo(f"report: {folder.report}")


def _show_audit(run: Path, page: Path, *, as_json: bool) -> None:
    from rich.console import Console

    from experiments.audit.results import AUDIT, read_audit
    from experiments.cli.audit_table import cards_table, closing, rows_table

    if as_json:
        typer.echo((run / AUDIT).read_text(encoding="utf-8"))
        return
    found, console = read_audit(run), Console()
    if not console.is_terminal:
        console = Console(width=160)  # a pipe has no width to keep to
    console.print(cards_table(found))
    console.print(rows_table(found))
    console.print(closing(found), markup=False, highlight=False)
    typer.echo(f"findings: {run / AUDIT}\nreport: {page}")


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2, default=str))


def _print_table(entries: Sequence[dict[str, object]]) -> None:
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
