"""The commands ``fedunlearn request | claim | release``; heavy imports are inside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.answers import print_json
from experiments.cli.options import Json, Run, feature_help, numbers, words

__all__ = ["claim", "release", "request"]


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
    records: Annotated[
        list[str] | None,
        typer.Option(
            "--records",
            metavar="ID,...",
            help="Samples by the data's own ids, at --client if given; repeatable.",
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
    features: Annotated[
        list[str] | None,
        typer.Option(
            "--feature",
            metavar="NAME|INDEX",
            help=feature_help("every example, at --client if given"),
        ),
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
    signed: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A site's signed wish or an operator's order, in place of all of the above.",
        ),
    ] = None,
    at_once: Annotated[
        bool, typer.Option("--now", help="Serve it at once, where the run does not go on.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Ask a run to forget a client, samples, classes, a task or features, while it goes on."""
    from experiments.api.calls import open_run
    from experiments.runs.admission import compose, read_claim
    from experiments.runs.folder import RunFolder
    from experiments.runs.record_ids import RecordIds

    folder = RunFolder.open(run)
    if signed is not None:
        from experiments.deployment.desk import enter_signed

        request = enter_signed(folder, signed)
        if as_json:
            print_json({"id": request.id, "text": request.describe(), "new": True})
            return
        typer.echo(f"recorded request {request.id}: forget {request.describe()}")
        return
    asked = compose(
        clients=[number for text in clients or () for number in numbers(text, "--client")],
        samples=[numbers(text, "--samples") for text in samples or ()],
        classes=[number for text in classes or () for number in numbers(text, "--class")],
        tasks=tasks or (),
        records=[one for text in records or () for one in words(text, "--records")],
        known=lambda: RecordIds.read(folder.records),
        features=features or (),
        columns=folder.read_federation().named if features else None,
        at_round=at_round,
        asked_by=asked_by,
        **({} if request_id is None else {"id": request_id}),
    )
    is_new = open_run(run).ask(asked, claim=None if claim is None else read_claim(claim))
    status = folder.read_status()
    is_running = status is not None and status.is_running
    if is_running:
        when = f"after round {at_round}" if at_round else "before the next round"
        fate = f"it will be served {when}"
    elif at_once:
        fate = "it is served now"
    else:
        fate = f"waiting: `fedunlearn resume {run}` serves it"
    if as_json:
        answer = {"id": asked.id, "text": asked.describe(), "new": is_new, "running": is_running}
        print_json({**answer, "request": asked.to_json()})
        return
    typer.echo(
        f"recorded request {asked.id}: forget {asked.describe()}; {fate}"
        if is_new
        else f"request {asked.id} was recorded before; nothing is changed"
    )
    if at_once and not is_running:
        _serve(run)


def _serve(run: Path) -> None:
    from experiments.cli.runs import resume

    resume(run)


def claim(
    run: Run,
    client: Annotated[int, typer.Option(min=0, metavar="ID", help="Whose samples.")],
    samples: Annotated[str, typer.Option(metavar="4,8,15", help="Their positions.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The file to make.")],
) -> None:
    """Open samples a client committed itself to, for `request --claim`; the client's own part."""
    from experiments.runs.admission import write_claim
    from experiments.runs.folder import RunFolder

    folder, positions = RunFolder.open(run), numbers(samples, "--samples")
    from experiments.federation.claims import claim_of

    write_claim(out, claim_of(folder, client, positions))
    typer.echo(f"claim: {out}")


def release(
    run: Run,
    request_id: Annotated[str, typer.Argument(metavar="ID", help="The held request.")],
    released_by: Annotated[str, typer.Option(help="Who says so, for the ledger.")] = "operator",
    at_once: Annotated[
        bool, typer.Option("--now", help="Serve it at once, where the run does not go on.")
    ] = False,
) -> None:
    """Let a request go that a guard holds: it is served next time, whatever the guard says."""
    from experiments.runs.folder import RunFolder
    from experiments.runs.steering import release as let_go

    let_go(RunFolder.open(run), request_id, released_by)
    typer.echo(f"released request {request_id}; it is served as soon as the run goes on")
    status = RunFolder.open(run).read_status()
    if at_once and not (status is not None and status.is_running):
        _serve(run)
