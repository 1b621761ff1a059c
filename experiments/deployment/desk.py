"""Where wishes become requests of a run, and where what became of them goes back to the sites."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.deployment import orders
from experiments.deployment.debts import check_nothing_open, ledgers, remember
from experiments.deployment.members import LEFT, MEMBER
from experiments.deployment.server import Server
from experiments.deployment.wishes import Wish, log_verdict, parse, read_text
from experiments.runs.admission import admit
from experiments.runs.folder import RunFolder
from unlearning.errors import ConfigError, FedUnlearnError, RequestError
from unlearning.records.files import write_atomically
from unlearning.records.ledger import Ledger
from unlearning.records.receipt import make
from unlearning.request import Request

if TYPE_CHECKING:  # it imports Flower, and bringing a wish takes but a moment
    from experiments.deployment.keyed import KeyedGrid

__all__ = [
    "bind",
    "catch_up",
    "close_memberships",
    "enter",
    "enter_signed",
    "learned",
    "post_receipts",
    "receiver",
    "server_of",
]


def bind(folder: RunFolder, server: Server) -> None:
    """Note in a run folder which federation it is of, and in the federation where the run is."""
    value = {"federation": server.id, "folder": str(server.folder)}
    write_atomically(folder.deployment, json.dumps(value, indent=1).encode())
    remember(server, folder.path)


def server_of(folder: RunFolder) -> Server:
    """Return the federation that a run is of.

    Raises
    ------
    ConfigError
        If it is a simulation's.
    """
    try:
        found = json.loads((folder.deployment).read_text(encoding="utf-8"))
        return Server.open(Path(str(found["folder"])))
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"{folder.path} is no run of a deployed federation, and only sites of one sign; leave "
            "--signed out"
        ) from error


def enter(server: Server, folder: RunFolder, wish: Wish, sender: int | None = None) -> Request:
    """Judge a wish and enter it in a run's ledger, with body and signature.

    Raises
    ------
    RequestError
        Why it is refused; logged.
    """
    inbox = server.inbox
    request = inbox.take(wish, sender)
    try:
        admit(folder, request, wish=dict(wish))
    except RequestError as error:
        inbox.log(wish["body"], f"refused: {error}")
        raise
    except BaseException:
        inbox.drop(wish)  # nothing was entered, and it is not the wish's fault
        raise
    return request


def enter_signed(folder: RunFolder, path: Path) -> Request:
    """Judge a signed file, a site's wish or an operator's order, and enter it.

    Raises
    ------
    RequestError
        Why it is refused; logged.
    """
    server, text = server_of(folder), read_text(path)
    if not orders.is_order(text):
        return enter(server, folder, parse(text))
    order, desk = orders.parse(text), server.orders
    request = desk.take(order, columns=folder.read_federation().named)
    try:
        admit(folder, request, order=dict(order))
    except RequestError as error:
        log_verdict(server.folder / "wishes", order["body"], f"refused: {error}")
        raise
    except BaseException:
        desk.drop(order)
        raise
    return request


def receiver(server: Server, folder: RunFolder) -> Callable[[Wish, int], dict[str, object] | None]:
    """Return what takes wishes that came with replies, and answers each in words."""

    def receive(wish: Wish, client: int) -> dict[str, object] | None:
        body = wish["body"]
        if not all(folder.read_federation().clients.values()):
            return None  # how many examples the sites hold is known when all have joined
        letter: dict[str, object] = {"kind": "verdict", "nonce": body["nonce"], "run": folder.path}
        try:
            request = enter(server, folder, wish, client)
        except FedUnlearnError as error:
            return {**letter, "taken": False, "why": str(error)}
        return {**letter, "taken": True, "request": request.id}

    return receive


def learned(server: Server, folder: RunFolder) -> None:
    """Note in the roster how many examples the sites said that they hold."""
    members = server.members
    for client, rows in folder.read_federation().clients.items():
        member = members.of_client(client)
        if member is not None and rows and not member.rows:
            members.change(client, rows=rows)


def close_memberships(server: Server, ledger: Ledger) -> list[int]:
    """Enter as left whoever was forgotten altogether; return whom."""
    gone, members = [], server.members
    for request in ledger.requests():
        if ledger.state(request.id) not in ("fulfilled", "deletion-pending", "unlearned"):
            continue
        for client in request.clients:
            member = members.of_client(client)
            if request.scope.value == "client" and member and member.state == MEMBER:
                members.change(client, state=LEFT)
                gone.append(client)
    return gone


def catch_up(server: Server, run: Path) -> None:
    """Before a new run: enter who was forgotten in earlier ones, whatever became of these.

    Raises
    ------
    RequestError
        If a request of an earlier run is not served yet.
    """
    check_nothing_open(server, run)
    for _, ledger in ledgers(server, run):
        close_memberships(server, ledger)  # of a run that was killed before it did so


def post_receipts(server: Server, folder: RunFolder, grid: KeyedGrid, told: set[str]) -> None:
    """Send the receipts of fulfilled wishes along with the next messages to their sites."""
    with folder.open_ledger(readonly=True) as ledger:
        for request in ledger.requests():
            if request.id in told or ledger.state(request.id) != "fulfilled":
                continue
            told.add(request.id)
            for event in ledger.events(request.id):
                wish = event.facts.get("wish")
                if event.event == "received" and isinstance(wish, dict):
                    body = wish["body"]
                    receipt = json.loads(make(ledger, request.id, ledger.seal, datetime.now(UTC)))
                    letter = {"kind": "receipt", "nonce": body["nonce"], "receipt": receipt}
                    grid.write(int(body["client"]), letter)
