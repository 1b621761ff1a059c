"""The commands ``fedunlearn federation operator ...``: whose word counts for others' data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.answers import print_json, print_table
from experiments.cli.options import Json, feature_help, numbers

__all__ = ["operator"]

operator = typer.Typer(
    no_args_is_help=True,
    help="Operators: classes, tasks, features and others' data are forgotten at their signed word.",
)
Folder = Annotated[Path, typer.Argument(metavar="FED", help="The federation's folder.")]
Several = list[str] | None


@operator.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the key shall be kept.")],
    name: Annotated[str, typer.Option(help="What the federation shall call the operator.")],
    as_json: Json = False,
) -> None:
    """Make an operator's key, on the operator's own machine.

    Example: fedunlearn federation operator init OPERATOR --name alice
    """
    from experiments.deployment import keys

    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    public = keys.make_site_key(folder / "operator.key", name)
    if as_json:
        print_json({"key": str(folder / "operator.key"), "public": str(public)})
        return
    typer.echo(f"send {public} to the server; {folder / 'operator.key'} stays here")


@operator.command()
def add(
    folder: Folder,
    public: Annotated[Path, typer.Argument(metavar="NAME.pub", help="The operator's public key.")],
    name: Annotated[str | None, typer.Option(help="Its name; default: of the file.")] = None,
    as_json: Json = False,
) -> None:
    """Enter an operator's key.

    Example: fedunlearn federation operator add FED alice.pub
    """
    from experiments.deployment.server import Server

    made = Server.open(folder).operators.add(name or public.stem, public)
    if as_json:
        print_json({"name": made.name, "active": made.active})
        return
    typer.echo(f"orders signed by {made.name} count from now on")


@operator.command("list")
def list_them(folder: Folder, as_json: Json = False) -> None:
    """Say whose orders count.

    Example: fedunlearn federation operator list FED
    """
    from experiments.deployment.server import Server

    known = [
        {"name": one.name, "active": one.active} for one in Server.open(folder).operators.all()
    ]
    if as_json:
        print_json(known)
    elif known:
        print_table(known)
    else:
        typer.echo("no operator is known; `fedunlearn federation operator add` enters one")


@operator.command()
def remove(folder: Folder, name: str, as_json: Json = False) -> None:
    """Let an operator's key count no longer.

    Example: fedunlearn federation operator remove FED alice
    """
    from experiments.deployment.server import Server

    gone = Server.open(folder).operators.remove(name)
    if as_json:
        print_json({"name": gone.name, "active": gone.active})
        return
    typer.echo(f"orders signed by {gone.name} count no longer; those taken before stand")


@operator.command()
def sign(
    key: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of the operator's key.")],
    federation: Annotated[
        str, typer.Option(metavar="ID", help="Its id, as `federation status` tells it.")
    ],
    name: Annotated[str, typer.Option(help="The operator's name, as the federation knows it.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The order to write.")],
    clients: Annotated[
        Several, typer.Option("--client", metavar="ID", help="A client; may be repeated.")
    ] = None,
    samples: Annotated[
        Several,
        typer.Option("--samples", metavar="4,8", help="Positions; one list for each --client."),
    ] = None,
    classes: Annotated[
        Several, typer.Option("--class", metavar="LABEL", help="A class; repeatable.")
    ] = None,
    tasks: Annotated[
        Several, typer.Option("--task", metavar="NAME", help="A task; repeatable.")
    ] = None,
    features: Annotated[
        Several,
        typer.Option(
            "--feature",
            metavar="NAME|INDEX",
            help=feature_help("every example, at --client if given", mask=False),
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Sign an order; at the server `fedunlearn request RUN --signed FILE` takes it.

    Example: fedunlearn federation operator sign OPERATOR --name alice --federation ID --class 3
    --out order.json
    """
    import json

    from experiments.deployment import orders
    from unlearning.records.files import write_atomically

    order = orders.compose(
        federation,
        name,
        key / "operator.key",
        clients=[number for text in clients or () for number in numbers(text, "--client")],
        samples=[list(numbers(text, "--samples")) for text in samples or ()],
        classes=[number for text in classes or () for number in numbers(text, "--class")],
        tasks=list(tasks or ()),
        features=[int(word) if word.isdecimal() else word for word in features or ()],
    )
    write_atomically(out, json.dumps(order, indent=1).encode())
    if as_json:
        print_json({"file": str(out), **order["body"]})
        return
    typer.echo(f"signed order {order['body']['nonce'][:8]}: {out}; hand it to the server")
