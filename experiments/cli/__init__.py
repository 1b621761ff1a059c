"""The command line: ``fedunlearn run | compare | audit | request | status | report | ...``.

Everything heavy is imported inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

from typing import Annotated

import click
import typer
from typer.core import TyperGroup

from experiments.cli.answers import INTERRUPTED, USER_ERROR, complain
from experiments.cli.attacks import attack
from experiments.cli.audits import audit
from experiments.cli.begin import demo, new
from experiments.cli.daily import clean, doctor, logs, runs, stop, watch
from experiments.cli.estimate import estimate
from experiments.cli.federations import federation
from experiments.cli.kit import kit
from experiments.cli.listing import list_
from experiments.cli.models import convert, import_history
from experiments.cli.receipts import extend, reanchor, receipt, rekey, withdraw
from experiments.cli.reports import families, leaderboard, report
from experiments.cli.requests import claim, release, request
from experiments.cli.runs import compare, resume, run, status, sweep, verify
from experiments.cli.scan import scan
from experiments.cli.sites import site
from experiments.cli.tuning import tune
from unlearning.errors import FedUnlearnError

__all__ = ["app"]


_ANYWHERE = ("--debug", "--quiet", "--verbose")  # before the command or after it


class _Commands(TyperGroup):
    """Commands that answer a user's mistake with one line, and with a traceback on ``--debug``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # Taken before and after the command's name.
        for flag in _ANYWHERE:
            ctx.meta[flag.strip("-")] = flag in args
        return super().parse_args(ctx, [arg for arg in args if arg not in _ANYWHERE])

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except FedUnlearnError as error:
            complain(error, debug=ctx.meta["debug"])
            raise typer.Exit(USER_ERROR) from None
        except (KeyboardInterrupt, InterruptedError) as error:
            if ctx.meta["debug"]:
                complain(error, debug=True)
            typer.echo("interrupted: what was finished is kept", err=True)
            if go_on := getattr(error, "go_on", ""):
                typer.echo(f"go on with: {go_on}", err=True)
            raise typer.Exit(getattr(error, "exit_code", INTERRUPTED)) from None


app = typer.Typer(
    cls=_Commands,
    name="fedunlearn",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("fedunlearn"))
        for name in ("flwr", "torch", "ray"):
            typer.echo(f"{name} {version(name)}")
        raise typer.Exit


@app.callback()
def main(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error as well.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Show no progress, only the answer.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Tell of every round, in lines; and warnings.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            is_eager=True,
            callback=_version,
            help="Show the versions of this, Flower, PyTorch and Ray.",
        ),
    ] = False,
) -> None:
    """Make a federation forget, and see how far it really did.

    Exit codes: 0 done; 1 a fault of ours, or what was checked does not hold; 2 something you can
    put right, said in one line; 3 a request is overdue (status); 130, 143 stopped, to be resumed.
    """


# In the order of `--help`. A command is a function of its module, named as it is typed.
_COMMANDS = (
    run,
    compare,
    audit,
    request,
    claim,
    release,
    withdraw,
    extend,
    rekey,
    reanchor,
    status,
    report,
    families,
    leaderboard,
    tune,
    list_,
    attack,
    estimate,
    verify,
    sweep,
    scan,
    resume,
    runs,
    logs,
    watch,
    stop,
    clean,
    demo,
    new,
    doctor,
    convert,
    import_history,
)
for _command in _COMMANDS:
    app.command(_command.__name__.rstrip("_").replace("_", "-"))(_command)
app.add_typer(kit)
app.add_typer(federation)
app.add_typer(site)
app.add_typer(receipt)
