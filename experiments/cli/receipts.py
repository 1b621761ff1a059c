"""The commands ``fedunlearn receipt make | check``, ``withdraw | extend | rekey | reanchor``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.answers import print_json
from experiments.cli.options import Json, Run

__all__ = ["extend", "reanchor", "receipt", "rekey", "withdraw"]

receipt = typer.Typer(
    name="receipt",
    no_args_is_help=True,
    help="Make the receipt of a request, signed for third parties, or check one.",
)
Asked = Annotated[str, typer.Argument(metavar="REQUEST", help="The request's id.")]
Reason = Annotated[str, typer.Option(help="Why, for the ledger.")]


@receipt.command("make")
def make(
    run: Run,
    request_id: Asked,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where to write; default: RUN/receipts/REQUEST."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write receipt.json and receipt.html; example: fedunlearn receipt make RUN config-1."""
    from experiments.reporting.receipts import write
    from experiments.runs.folder import RunFolder
    from unlearning.request import check_id

    folder = RunFolder.open(run)
    if out is None:
        check_id(request_id)  # an older ledger may hold one that leads elsewhere: give --out
        out = folder.path / "receipts" / request_id
    paths = write(folder, request_id, out)
    if as_json:
        print_json({"json": str(paths[0]), "html": str(paths[1]), "key": f"{run}/ledger.pub"})
        return
    for path in paths:
        typer.echo(f"receipt: {path}")
    typer.echo(f"the public key to check it with: {folder.ledger.with_suffix('.pub')}")


@receipt.command("check")
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="receipt.json or receipt.html.")],
    key: Annotated[
        Path | None,
        typer.Option(metavar="PUB", help="The operator's public key, got by another way."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a receipt with nothing but its file; exit code 0: good, 1: not, 2: no receipt."""
    from experiments.reporting.receipts import check_file

    found = check_file(file, key)
    if as_json:
        checks = [{"what": one.what, "holds": one.holds} for one in found.checks]
        print_json({"good": found.is_good, "state": found.state, "checks": checks})
    else:
        for one in found.checks:
            typer.echo(f"{'ok ' if one.holds else 'BAD'} {one.what}")
        if key is None:
            typer.echo(f"    whose key it is was not checked; its fingerprint: {found.fingerprint}")
        typer.echo("a receipt cannot prove:")
        for limit in found.cannot_prove:
            typer.echo(f"  - {limit}")
        word = "good" if found.is_good else "NOT good: do not rely on it"
        typer.echo(f"the receipt is {word}; request to forget {found.forget}: {found.state}")
    if not found.is_good:
        raise typer.Exit(1)


def withdraw(run: Run, request_id: Asked, reason: Reason) -> None:
    """Take a request back before it is served."""
    from experiments.runs.folder import RunFolder
    from experiments.runs.steering import withdraw as take_back

    take_back(RunFolder.open(run), request_id, reason)
    typer.echo(f"request {request_id} is withdrawn")


def extend(
    run: Run,
    request_id: Asked,
    to: Annotated[str, typer.Option(metavar="YYYY-MM-DD", help="The new due date, UTC.")],
    reason: Reason,
) -> None:
    """Give an open request a later due date, for a reason: by two months in all, Art. 12(3) GDPR.

    A config may say otherwise: `promise.extension_days`.
    """
    from experiments.runs.folder import RunFolder
    from experiments.runs.steering import extend as put_off

    due = put_off(RunFolder.open(run), request_id, to, reason)
    typer.echo(f"request {request_id} is due {due:%Y-%m-%d}")


def rekey(run: Run, reason: Reason) -> None:
    """Sign the ledger with a new key from now on: the old one is lost, or known to others."""
    from experiments.runs.folder import RunFolder

    folder = RunFolder.open(run)
    with folder.open_ledger() as ledger:
        ledger.rekey(reason)
    typer.echo(f"the new public key: {folder.ledger.with_suffix('.pub')}; the old one is kept")


def reanchor(run: Run, reason: Reason) -> None:
    """Begin the anchor of the ledger anew, knowingly: the file before is lost, or was given up."""
    from experiments.runs.folder import RunFolder

    with RunFolder.open(run).open_ledger() as ledger:
        ledger.reanchor(reason)
        line = ledger.anchored().line
    typer.echo(line or "the ledger has no anchor from now on")
