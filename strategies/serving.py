"""Requests on their way: what is due or held, who is concerned, served, dismissed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message

from strategies.federation import Federation
from strategies.roster import DELETE, Roster
from strategies.wire import to_content
from unlearning.arrays import Arrays
from unlearning.errors import HistoryError, LedgerError
from unlearning.fulfil import Unlearner, finish, fulfil
from unlearning.protocol import Wire, part
from unlearning.records.book import now
from unlearning.records.history import History
from unlearning.records.ledger import BATCH
from unlearning.request import Forgotten, Request

__all__ = [
    "ask_again",
    "dismiss",
    "due",
    "forgotten_before",
    "has_work",
    "is_concerned",
    "keep_participants",
    "leave",
    "outstanding",
    "ready",
    "serve_due",
    "sorted_out",
    "unanswered",
]

log = logging.getLogger("fedunlearn")

_FATES = {
    "refused": "was refused",
    "failed": "failed, its data stay out of training; ask again, with another strategy if need be",
}


def ask_again(strategy: Unlearner, federation: Federation) -> None:
    """Ask the owners that have not confirmed a deletion; it is over when all have."""
    for request in federation.ledger.pending():
        if request.id in federation.history.served:
            finish(request, strategy, federation.ledger)


def serve_due(
    strategy: Unlearner, federation: Federation, roster: Roster, arrays: Arrays
) -> Arrays:
    """Serve every request that is due, oldest first; return the model to go on with.

    Owners that have not confirmed an earlier deletion are asked again first.
    """
    ask_again(strategy, federation)
    for request in ready(federation, roster):
        edited = federation.edited
        log.info("serving request %s: forget %s", request.id, request.describe())
        judge = federation.judge

        def measured(
            before: Arrays, after: Arrays, request: Request = request, judge: Any = judge
        ) -> Mapping[str, float | None]:
            with federation.aside():
                return {} if judge is None else judge(request, before, after)

        try:
            arrays = fulfil(
                request,
                strategy,
                arrays,
                federation.history,
                federation.ledger,
                measured,
                federation.guard,
                federation.keep_answer,
            )
            if request.id in federation.history.served:
                federation.settle()
            if request in federation.ledger.pending():
                log.warning("request %s: an owner has not confirmed the deletion", request.id)
            if (held := federation.ledger.held().get(request.id)) is not None:
                federation.edited = edited
                log.warning("request %s is held: %s", request.id, held.facts["reason"])
        except (InterruptedError, LedgerError):  # the run was cancelled, or cannot go on
            raise
        except Exception as error:
            # A request that cannot be served must not end the federation for all.
            state = federation.ledger.state(request.id)
            log.warning("request %s %s: %s", request.id, _FATES.get(state, state), error)
            if state == "refused":
                continue
            log.debug("request %s", request.id, exc_info=True)
            federation.edited = edited
            federation.failed |= {request.id}
            federation.forgotten = federation.forgotten | request
            roster.forget(request.leavers)
    return arrays


def outstanding(federation: Federation) -> list[Request]:
    """Return the requests that are still to be served; those that failed wait to be asked anew."""
    return [r for r in federation.ledger.waiting() if r.id not in federation.failed]


def due(federation: Federation) -> list[Request]:
    """Return the requests that are due, those left out that failed since the run was started."""
    made = {request.id for request in federation.ledger.pending()}
    lost = made - set(federation.history.served)  # interrupted before its deletion: once more
    found = federation.ledger.due(federation.completed, lost)
    return [request for request in found if request.id not in federation.failed]


def ready(federation: Federation, roster: Roster) -> list[Request]:
    """Return what can be served now: what is due, and neither too much nor too little of it.

    The rest is held, its data out of training from now on.
    """
    ledger = federation.ledger
    found, kept_back = sorted_out(federation)
    held = ledger.held()
    for request, reason in kept_back:
        federation.forgotten = federation.forgotten | request
        roster.forget(request.leavers)
        if request.id not in held:
            ledger.add(request.id, "held", stage=BATCH, reason=reason)
    return found


def sorted_out(federation: Federation) -> tuple[list[Request], list[tuple[Request, str]]]:
    """Return what can be served now, oldest first, and what waits, with the reason.

    Whoever asked for more than ``rate`` requests in ``window_s`` waits until the window has moved
    on; where there is less than a ``batch`` to be published together, all of it waits. What the
    operator has released waits for nothing.
    """
    ledger = federation.ledger
    found, kept_back = [], []
    begun = _begun(federation) if federation.rate else {}
    for request in due(federation):
        askers = _askers(request)
        most = max((begun.get(who, 0) for who in askers), default=0)
        if federation.rate and most >= federation.rate and not ledger.is_released(request.id):
            kept_back.append((request, _too_many(federation)))
            continue
        for who in askers:
            begun[who] = begun.get(who, 0) + 1
        found.append(request)
    waiting = [request for request in found if not ledger.is_released(request.id)]
    if waiting and len(waiting) < federation.batch:
        reason = f"it waits until {federation.batch} requests can be published together"
        kept_back += [(request, reason) for request in waiting]
        found = [request for request in found if request not in waiting]
    return found, kept_back


def has_work(federation: Federation) -> bool:
    """Return whether a request can be served now, or is still to be held."""
    found, kept_back = sorted_out(federation)
    held = federation.ledger.held()
    return bool(found) or any(request.id not in held for request, _ in kept_back)


def _askers(request: Request) -> list[str]:
    """Return whose requests this one counts among: the clients it names, or who sent it."""
    named = sorted({*request.clients, *request.samples})
    return [f"client {client}" for client in named] or [request.asked_by]


def _begun(federation: Federation) -> dict[str, int]:
    """Return how many requests of everyone were begun in the last ``window_s`` seconds."""
    ledger, since = federation.ledger, now() - timedelta(seconds=federation.window_s)
    counts: dict[str, int] = {}
    for request in ledger.requests():
        begun = any(
            one.event == "started"
            and one.branch == ledger.branch
            and datetime.fromisoformat(one.utc) > since
            for one in ledger.events(request.id)
        )
        for who in _askers(request) if begun else ():
            counts[who] = counts.get(who, 0) + 1
    return counts


def _too_many(federation: Federation) -> str:
    return (
        f"its asker had {federation.rate} request(s) begun within {federation.window_s:g} s, the "
        "limit of guard.max_requests; it is taken up when the window has passed"
    )


def unanswered(federation: Federation) -> frozenset[str]:
    """Return the requests that are held or failed: the model still rests on what they name."""
    return frozenset(request.id for request in federation.ledger.waiting())


def forgotten_before(forgotten: Forgotten, request: Request, held: frozenset[str]) -> Forgotten:
    """Return what the model no longer rests on: requests before this one that were answered."""
    left_out = held | {request.id}
    rest = tuple(one for one in forgotten.requests if one.id not in left_out)
    # As a rule all of them, and what is known of these is not added up again.
    return forgotten if len(rest) == len(forgotten.requests) else Forgotten(rest)


def leave(
    federation: Federation,
    roster: Roster,
    request: Request,
    history: History,
    held: frozenset[str],
) -> bool:
    """Take what a request names out of the federation; return whether the model may rest on it.

    Raises
    ------
    HistoryError
        If rounds were learned of which nothing is recorded.
    """
    earlier = forgotten_before(federation.forgotten, request, held)
    federation.forgotten = federation.forgotten | request
    roster.forget(request.leavers)
    if federation.completed and not history.last_round:
        raise HistoryError(
            f"{federation.completed} rounds were learned but none is recorded, so nobody can "
            "tell whom the model rests on; serve the request where it was learned"
        )
    # Of a model that was trained elsewhere nobody noted who took part.
    return federation.foreign or is_concerned(request, history, earlier, roster.nodes)


def is_concerned(
    request: Request, history: History, earlier: Forgotten, nodes: Mapping[int, int]
) -> bool:
    """Return whether a model may rest on something that is not forgotten already.

    It does not where the owners never took part. But serving earlier requests deleted what the
    history knew of their owners: of these, nobody can tell.
    """
    known = {client: earlier.omission(client) for client in request.owners(nodes)}
    fresh = {
        client
        for client, gone in known.items()
        if not gone.everything and gone | request.omission(client) != gone
    }
    purged = {client for client in fresh if known[client]}
    return bool(fresh) and (bool(purged) or history.first_round(request) is not None)


def keep_participants(clean: History, request: Request, history: History) -> None:
    """Note in a clean history who took part, leavers left out.

    The state of a model that is no network rests on the owners that stay as it did before. A
    purge would strike them from every round, and their next request would be taken for one of
    a client that never took part.
    """
    wanted = "globals" in clean.keep  # else nobody keeps it, and it may be large
    for server_round in history.rounds:
        with clean.record(server_round, history.initial if wanted else {}) as entry:
            for client, count in history.participants(server_round).items():
                if client not in request.leavers:
                    entry.note(client, count)


def dismiss(federation: Federation, roster: Roster, request: Request) -> dict[str, object]:
    """Have the owners delete for good; not those that have left and confirmed it, who hold nothing.

    Returns
    -------
    dict
        Who ``acknowledged`` and who stayed ``unacknowledged``, by id, and how many ``examples`` of
        what the request names those who answered hold; 0: there was nothing to forget. Where bytes
        of messages can lie beyond what was deleted: ``residuals``, in words.
    """
    left = frozenset[int]().union(*(one.leavers for one in federation.ledger.fulfilled()))
    owners = [c for c in request.owners(roster.nodes) if c in request.leavers or c not in left]
    model = ArrayRecord()

    def ask(client: int) -> Message:
        facts = {
            **federation.client_config,
            Wire.CLIENT: client,
            Wire.FORGET: request.omission(client).to_json(),
        }
        return Message(to_content(model, {}, facts), roster.nodes[client], DELETE)

    replies = roster.send_and_receive(map(ask, owners), timeout=federation.timeout_s)
    done: dict[int, int] = {}
    for reply in replies:
        receipt = part(reply.content, Wire.CONFIG, ConfigRecord) or ConfigRecord()
        client, count = roster.sender(reply), receipt.get(Wire.NAMED_EXAMPLES)
        if receipt.get(Wire.CLIENT) == client:  # it answers for itself
            done[client] = max(count, 0) if isinstance(count, int) else 0
    silent = sorted(set(owners) - done.keys())
    total = sum(done.values())
    if not total and not silent:
        log.info("request %s: its owners hold nothing of it; nothing to forget", request.id)
    left_behind = {"residuals": list(federation.residuals)} if federation.residuals else {}
    return {
        "acknowledged": sorted(done),
        "unacknowledged": silent,
        "examples": total,
        **left_behind,
    }
