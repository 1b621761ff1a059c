"""The commands ``fedunlearn federation ...``: the server's side; heavy imports are inside."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.answers import FAILED, print_json, print_table
from experiments.cli.operators import operator
from experiments.cli.options import ConfigFile, Json, Out, Overrides, seconds

__all__ = ["Show", "federation", "shower"]

federation = typer.Typer(
    name="federation",
    no_args_is_help=True,
    help="A federation of real processes whose sites hold their own data: the server's side.",
)
federation.add_typer(operator, name="operator")
_SOON_DAYS = 30  # a certificate that ends so soon is told of
Folder = Annotated[Path, typer.Argument(metavar="FED", help="The federation's folder.")]
Show = Annotated[
    bool, typer.Option("--show-commands", help="Print the commands of Flower's that are run.")
]


def shower(wanted: bool) -> Callable[[str], None]:
    """Return what prints commands on standard error, or does nothing."""
    return (lambda line: typer.echo(f"$ {line}", err=True)) if wanted else (lambda line: None)


@federation.command()
def init(
    folder: Folder,
    address: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="By which the sites reach the server.")
    ],
    as_json: Json = False,
) -> None:
    """Make authority, certificate and an empty roster.

    Example: fedunlearn federation init FED --address fl.example.org:9092
    """
    from experiments.deployment.server import Server

    made = Server.init(folder, address)
    if as_json:
        print_json({"id": made.id, "address": address, "ca": str(made.folder / "tls" / "ca.crt")})
        return
    typer.echo(f"{made.folder}: {made.id}; add sites with `fedunlearn federation add`")


@federation.command()
def add(
    folder: Folder,
    public: Annotated[Path, typer.Argument(metavar="SITE.pub", help="What the site sent.")],
    name: Annotated[str | None, typer.Option(help="Its name; default: of the file.")] = None,
    as_json: Json = False,
    show: Show = False,
) -> None:
    """Enter a site's public key; write its invitation.

    Example: fedunlearn federation add FED clinic-a.pub
    """
    from experiments.deployment.server import Server

    member, invitation = Server.open(folder, shower(show)).add(public, name)
    if as_json:
        print_json({"client": member.client, "name": member.name, "invitation": str(invitation)})
        return
    typer.echo(
        f"client {member.client} is {member.name}; hand {invitation} to it by a way that nobody "
        "can change: it says whom to trust"
    )


@federation.command()
def start(
    folder: Folder,
    host: Annotated[str, typer.Option(help="The interface; default: by the address.")] = "",
    as_json: Json = False,
    show: Show = False,
) -> None:
    """Start the SuperLink with TLS and node authentication; register the roster's keys.

    Example: fedunlearn federation start FED --show-commands
    """
    from experiments.deployment.server import Server

    server = Server.open(folder, shower(show))
    pid = server.start(host)
    if as_json:
        print_json({"pid": pid, "address": server.address})
        return
    typer.echo(f"SuperLink runs (process {pid}) at {server.address}")


@federation.command("run")
def run_(
    folder: Folder,
    config: ConfigFile,
    out: Out = None,
    overrides: Overrides = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on in the run folder --out, with its config.")
    ] = False,
    idle: Annotated[
        str, typer.Option(metavar="10m", help="Stay so long after the last round for wishes.")
    ] = "0s",
    as_json: Json = False,
    show: Show = False,
) -> None:
    """Learn with the sites that are members and serve what they ask for.

    Example: fedunlearn federation run FED config.toml --out RUN
    """
    from experiments.config.loading import load
    from experiments.deployment.server import Server
    from experiments.deployment.serving import run
    from experiments.runs.folder import RunFolder, default_out

    server = Server.open(folder, shower(show))
    made = run(
        server,
        load(config, overrides or ()),
        out or default_out(config),
        resume=resume,
        idle_s=0.0 if idle in ("0", "0s") else seconds(idle, "--idle"),
        say=lambda line: typer.echo(line, err=True),
    )
    if as_json:
        print_json({"run": str(made), "clients": RunFolder.open(made).read_federation().clients})
        return
    typer.echo(f"report: {RunFolder.open(made).report}")


@federation.command()
def status(folder: Folder, as_json: Json = False) -> None:
    """Say who is in the roster and whether the SuperLink runs.

    Example: fedunlearn federation status FED --json
    """
    from experiments.deployment.server import Server

    server = Server.open(folder)
    sites: list[dict[str, object]] = [
        {
            "client": member.client,
            "name": member.name,
            "state": member.state,
            "registered": bool(member.node),
            "examples": member.rows or "unknown",
        }
        for member in server.members
    ]
    until = server.certified_until
    if as_json:
        facts = {"id": server.id, "running": server.is_running}
        print_json({**facts, "certified_until": until.isoformat(), "sites": sites})
        return
    state = "runs" if server.is_running else "is down"
    typer.echo(f"{server.id} at {server.address}: SuperLink {state}")
    left = (until - datetime.now(UTC)).days
    if left < _SOON_DAYS:
        typer.echo(
            f"the certificate {f'ends in {left} days' if left >= 0 else 'has ended'}: sites are "
            "turned away then; make a new one with `fedunlearn federation renew`"
        )
    print_table(sites)


@federation.command()
def remove(folder: Folder, name: str, as_json: Json = False, show: Show = False) -> None:
    """Take a site out of the roster; its key is used up for ever.

    Example: fedunlearn federation remove FED clinic-a
    """
    from experiments.deployment.server import Server

    member = Server.open(folder, shower(show)).remove(name)
    if as_json:
        print_json({"client": member.client, "state": member.state})
        return
    typer.echo(
        f"{name} (client {member.client}) is out and its key is used up: to come back it needs a "
        "new one; what it left in models stays until it is asked to be forgotten"
    )


@federation.command()
def renew(folder: Folder, as_json: Json = False) -> None:
    """Make the server's certificate anew; sites trust the authority and notice nothing.

    Example: fedunlearn federation renew FED
    """
    from experiments.deployment.server import Server

    server = Server.open(folder)
    until = server.renew()
    if as_json:
        print_json({"certified_until": until.isoformat(), "running": server.is_running})
        return
    then = "; the SuperLink takes it up when it is stopped and started again"
    typer.echo(f"good until {until:%Y-%m-%d}{then if server.is_running else ''}")


@federation.command()
def stop(folder: Folder, as_json: Json = False) -> None:
    """Stop the SuperLink and empty its database of deleted messages.

    Example: fedunlearn federation stop FED
    """
    from experiments.deployment.server import Server

    stopped = Server.open(folder).stop()
    if as_json:
        print_json({"stopped": stopped})
        return
    typer.echo("stopped, and the database vacuumed" if stopped else "it was not running")


@federation.command()
def poc(
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to make.")],
    sites: Annotated[int, typer.Option(min=3, max=8, help="How many sites.")] = 3,
    data: Annotated[str, typer.Option(help="A data set to share out among them.")] = "digits",
    warm: Annotated[
        bool,
        typer.Option("--warm/--cold", help="Sites fork per message, or start a process as Flower."),
    ] = True,
    as_json: Json = False,
    show: Show = False,
) -> None:
    """Show all of it on this machine: keys, TLS, learning, wishes, a kill, deletion, receipts.

    Example: fedunlearn federation poc --sites 3 --data digits --out DIR
    """
    from experiments.deployment.poc import prove

    said = partial(typer.echo, err=True)
    found = prove(out, sites, data, say=said, show=shower(show), warm=warm)
    if as_json:
        print_json([{"what": one.what, "happened": one.happened, "ok": one.ok} for one in found])
    else:
        for one in found:
            typer.echo(f"{'ok ' if one.ok else 'BAD'} {one.what}: {one.happened}")
    if not all(one.ok for one in found):
        raise typer.Exit(FAILED)
