"""Deletions that a run of the federation still waits for: asked again in every later run.

A site that was away when its data were to be deleted owes the confirmation. As long as it does, it
is no node of any later run: it is asked to delete first, and takes part once it has. What it says
is entered in the ledger of the run that asked.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid

from experiments.deployment.server import Server
from experiments.runs.folder import RunFolder
from strategies.roster import DELETE
from strategies.wire import to_content
from unlearning.errors import RequestError
from unlearning.fulfil import confirm
from unlearning.protocol import Scalar, Wire, part
from unlearning.records.files import write_atomically
from unlearning.records.ledger import Ledger
from unlearning.request import Request

__all__ = ["Collector", "Debt", "check_nothing_open", "debts", "ledgers", "remember"]

_RUNS = "runs.json"
_AGAIN_S = 60.0  # until a question that nobody answered is asked again

log = logging.getLogger("fedunlearn")


@dataclass(frozen=True)
class Debt:
    """A deletion that one site has not confirmed.

    Parameters
    ----------
    run : Path
        The run that asked.
    request : Request
        What is to be forgotten; its model is made.
    client : int
        Whose confirmation is missing.
    """

    run: Path
    request: Request
    client: int


def remember(server: Server, run: Path) -> None:
    """Note a run of a federation, so that later ones find its ledger."""
    known = _runs(server)
    if (path := run.absolute()) not in known:
        text = json.dumps([str(one) for one in (*known, path)], indent=1)
        write_atomically(server.folder / _RUNS, text.encode())


def debts(server: Server, besides: Path) -> list[Debt]:
    """Return what sites owe from all runs but one.

    A run whose folder is gone has taken its ledger along: nothing is known of it.
    """
    found = []
    for run, ledger in ledgers(server, besides):
        for request in ledger.pending():
            found += [Debt(run, request, client) for client in _missing(server, ledger, request)]
    return found


def check_nothing_open(server: Server, besides: Path) -> None:
    """Refuse a new run while another one has requests that are not served.

    Raises
    ------
    RequestError
        Naming them: their data would be trained on anew.
    """
    for run, ledger in ledgers(server, besides):
        if waiting := ledger.waiting():
            names = ", ".join(request.id for request in waiting)
            raise RequestError(
                f"{run} has not served request {names}, and a new run would train on what they "
                f"name; serve them first with `fedunlearn federation run {server.folder} --resume "
                f"--out {run}`, or `fedunlearn withdraw` those that were not begun"
            )


class Collector:
    """Asks the sites that owe a confirmation, each when its node is there.

    Parameters
    ----------
    server : Server
        The federation.
    run : Path
        The run that is under way: it asks for its own deletions itself.
    facts : mapping
        What every message to a client carries: scenario and device.
    """

    def __init__(self, server: Server, run: Path, facts: Mapping[str, Scalar]) -> None:
        self._server, self._facts = server, facts
        self._owed: dict[int, list[Debt]] = {}
        for debt in debts(server, run):
            self._owed.setdefault(debt.client, []).append(debt)
        self._asked: dict[str, tuple[Debt, float]] = {}  # message id -> what it asks, and when

    @property
    def is_any_owed(self) -> bool:
        """Whether some client still owes something."""
        return any(self._owed.values())

    def is_owed_by(self, client: int) -> bool:
        """Return whether a client must confirm something before it may take part."""
        return bool(self._owed.get(client))

    def ask(self, grid: Grid, node: int, client: int) -> None:
        """Ask a client's node for what it owes, and take in what it has said."""
        now = time.monotonic()
        waiting = [debt for debt, at in self._asked.values() if now - at < _AGAIN_S]
        for debt in self._owed.get(client, ()):
            if debt in waiting:
                continue
            omission = debt.request.omission(client).to_json()
            facts = {**self._facts, Wire.CLIENT: client, Wire.FORGET: omission}
            message = Message(to_content(ArrayRecord(), {}, facts), node, DELETE)
            for message_id in grid.push_messages([message]):
                if message_id:
                    self._asked[message_id] = (debt, now)
        self._collect(grid)

    def _collect(self, grid: Grid) -> None:
        for reply in grid.pull_messages(list(self._asked)):
            debt, _ = self._asked.pop(reply.metadata.reply_to_message_id, (None, 0.0))
            if debt is None:
                continue
            if reply.has_error():
                log.warning("client %d could not delete: %s", debt.client, reply.error.reason)
                continue
            said = part(reply.content, Wire.CONFIG, ConfigRecord) or ConfigRecord()
            if said.get(Wire.CLIENT) != debt.client:
                log.warning("client %d answered for another about a deletion", debt.client)
                continue
            count = said.get(Wire.NAMED_EXAMPLES)
            _enter(self._server, debt, count if isinstance(count, int) else 0)
            self._owed[debt.client] = [one for one in self._owed[debt.client] if one != debt]


def _enter(server: Server, debt: Debt, examples: int) -> None:
    """Note in the ledger of the run that asked that a client has deleted."""
    log.info("client %d has confirmed request %s of %s", debt.client, debt.request.id, debt.run)
    with RunFolder.open(debt.run).open_ledger() as ledger:
        if ledger.state(debt.request.id) == "fulfilled":  # by a run that goes on beside this one
            return
        left = [one for one in _missing(server, ledger, debt.request) if one != debt.client]
        before = _deletion(ledger, debt.request)
        done = before.get("acknowledged")
        known = before.get("examples")
        confirm(
            debt.request,
            {
                "acknowledged": sorted({*(done if isinstance(done, list) else []), debt.client}),
                "unacknowledged": left,
                "examples": (known if isinstance(known, int) else 0) + max(examples, 0),
                **({"residuals": before["residuals"]} if "residuals" in before else {}),
            },
            ledger,
        )


def _missing(server: Server, ledger: Ledger, request: Request) -> list[int]:
    """Return the owners of a request that have not confirmed."""
    said = _deletion(ledger, request).get("unacknowledged")
    if isinstance(said, list):
        return [int(client) for client in said]
    return list(request.owners(member.client for member in server.members))


def _deletion(ledger: Ledger, request: Request) -> Mapping[str, object]:
    """Return what is known of a deletion."""
    told = [e.facts for e in ledger.events(request.id) if e.event == "deletion-pending"]
    found = [facts["deletion"] for facts in told if isinstance(facts.get("deletion"), dict)]
    last = found[-1] if found else {}
    return last if isinstance(last, dict) else {}


def _runs(server: Server) -> list[Path]:
    try:
        found = json.loads((server.folder / _RUNS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    return [Path(str(one)) for one in found]


def ledgers(server: Server, besides: Path) -> Iterator[tuple[Path, Ledger]]:
    """Yield the runs of a federation but one, and their ledgers, to be read.

    Raises
    ------
    LedgerError
        If one is damaged: what it forgot must not be trained on, and nobody can tell what it was.
    """
    for run in _runs(server):
        if run == besides.absolute() or not RunFolder(run).ledger.exists():
            continue
        with RunFolder.open(run).open_ledger(readonly=True) as ledger:
            yield run, ledger
