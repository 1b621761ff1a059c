"""The commands ``fedunlearn site ...``: a site's own side; heavy imports are inside them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.answers import FAILED, print_json
from experiments.cli.federations import Show, shower
from experiments.cli.options import Json, feature_help, numbers, words

__all__ = ["site"]

site = typer.Typer(
    name="site",
    no_args_is_help=True,
    help="A site of a federation: its key, its data, what it asks for and what it was told.",
)
Folder = Annotated[Path, typer.Argument(metavar="KIT", help="The site's folder.")]
Label = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="Of a .csv: the column of labels.")
]
Data = "x and y in an .npz, a .csv, a folder CLASS/*.png, or module:function."


@site.command()
def init(
    folder: Folder,
    name: Annotated[str, typer.Option(help="What the server shall call it.")],
    as_json: Json = False,
) -> None:
    """Make the site's key here; only its public half leaves.

    Example: fedunlearn site init KIT --name clinic-a
    """
    from experiments.deployment.kit import Kit

    made, public = Kit.init(folder, name)
    if as_json:
        print_json({"folder": str(made.folder), "public": str(public)})
        return
    typer.echo(f"send {public} to the server's operator; the key itself stays in {made.folder}")


@site.command()
def start(
    folder: Folder,
    data: Annotated[str | None, typer.Option(metavar="FILE", help=Data)] = None,
    label: Label = None,
    invitation: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What the server's operator handed over.")
    ] = None,
    warm: Annotated[
        bool, typer.Option("--warm", help="Import once and fork per message: rounds are faster.")
    ] = False,
    as_json: Json = False,
    show: Show = False,
) -> None:
    """Take part: start the SuperNode with this site's own data and home.

    Example: fedunlearn site start KIT --invitation clinic-a.toml --data mine.npz
    """
    from experiments.deployment.kit import Kit

    kit = Kit.open(folder)
    if invitation is not None:
        kit = kit.accept(invitation)
    if data is not None:
        kit = kit.hold(data, label)
    pid = kit.start(shower(show), lambda line: typer.echo(line, err=True), warm=warm)
    if as_json:
        print_json({"pid": pid, "client": kit.client})
        return
    typer.echo(f"client {kit.client} takes part (process {pid}); its log: supernode.log")


@site.command()
def stop(folder: Folder, as_json: Json = False) -> None:
    """End the SuperNode.

    Example: fedunlearn site stop KIT
    """
    from experiments.deployment.kit import Kit

    stopped = Kit.open(folder).stop()
    if as_json:
        print_json({"stopped": stopped})
        return
    typer.echo("stopped" if stopped else "it was not running")


@site.command()
def ask(
    folder: Folder,
    samples: Annotated[
        str | None, typer.Option(metavar="4,8", help="Positions in the training set to forget.")
    ] = None,
    rows: Annotated[
        str | None, typer.Option(metavar="4,8", help="Rows of the site's file to forget.")
    ] = None,
    records: Annotated[
        str | None,
        typer.Option(metavar="ID,...", help="Rows by their own ids (column id), kept at the site."),
    ] = None,
    features: Annotated[
        list[str] | None,
        typer.Option(
            "--feature",
            metavar="NAME|INDEX",
            help=feature_help("every row of this site"),
        ),
    ] = None,
    leave: Annotated[bool, typer.Option("--leave", help="Forget this whole site.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Bring it by hand; default: with the next reply."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Sign a wish to be forgotten.

    Example: fedunlearn site ask KIT --rows 4,8 --out wish.json
    """
    from experiments.deployment.kit import Kit
    from unlearning.errors import ConfigError

    if sum([*(one is not None for one in (samples, rows, records)), bool(features), leave]) != 1:
        raise ConfigError("give one of --samples, --rows, --records, --feature and --leave")
    path, wish = Kit.open(folder).ask(
        None if samples is None else numbers(samples, "--samples"),
        None if rows is None else numbers(rows, "--rows"),
        out,
        None if records is None else words(records, "--records"),
        features or None,
    )
    if as_json:
        print_json({"file": str(path), **wish["body"]})
        return
    how = "hand it to the operator" if out else "it leaves with the next reply"
    typer.echo(f"signed wish {wish['body']['nonce'][:8]}: {path}; {how}")


@site.command()
def status(folder: Folder, as_json: Json = False) -> None:
    """Say what this site is, holds, has asked for and was answered.

    Example: fedunlearn site status KIT --json
    """
    from dataclasses import asdict

    from experiments.deployment import processes
    from experiments.deployment.kit import Kit

    kit = Kit.open(folder)
    known = kit.pin
    found: dict[str, object] = {
        **kit.settings,
        "running": processes.is_running(kit.pid_file),
        "joined": None if known is None else asdict(known),
        "deleted": kit.tombstones,
        "waiting": [letter["body"] for letter in kit.letters("outbox")],
        "verdicts": kit.letters("verdicts"),
        "receipts": len(kit.letters("receipts")),
    }
    if as_json:
        print_json(found)
        return
    for key, value in found.items():
        typer.echo(f"{key}: {value}")


@site.command()
def receipt(
    folder: Folder,
    key: Annotated[
        Path | None, typer.Option(metavar="PUB", help="The operator's key, got by another way.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check the receipts that this site was sent.

    Example: fedunlearn site receipt KIT --key ledger.pub
    """
    from experiments.deployment.kit import Kit
    from unlearning.records.receipt import check
    from unlearning.records.seal import canonical, read_public

    public = None if key is None else read_public(key)
    found = []
    for letter in Kit.open(folder).letters("receipts"):
        checks = check(canonical(letter["receipt"]), public)
        found.append({"nonce": letter["nonce"], "good": all(one.holds for one in checks)})
    if as_json:
        print_json(found)
    else:
        for one in found:
            typer.echo(f"{'ok ' if one['good'] else 'BAD'} wish {str(one['nonce'])[:8]}")
        if not found:
            typer.echo("no receipt came yet; the operator makes one with `fedunlearn receipt make`")
    if not all(one["good"] for one in found):
        raise typer.Exit(FAILED)


@site.command("update-data")
def update_data(
    folder: Folder,
    data: Annotated[str, typer.Option(metavar="FILE", help=Data)],
    label: Label = None,
    as_json: Json = False,
) -> None:
    """Begin a new epoch with other data: positions name rows of these from now on.

    Example: fedunlearn site update-data KIT --data new.npz
    """
    from experiments.deployment.kit import Kit

    _, epoch = Kit.open(folder).replace_data(data, label)
    if as_json:
        print_json({"epoch": epoch})
        return
    typer.echo(
        f"epoch {epoch}; rows that were forgotten before are not looked for in the new data: leave "
        "them out yourself"
    )
