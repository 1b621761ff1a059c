"""Whether a request may enter the ledger of a running federation.

Everything is judged from the run folder alone, without Flower and PyTorch, so that asking takes a
moment.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.runs.folder import COMPARE, FederationFacts, RunFolder
from experiments.runs.intent import Intent
from experiments.runs.record_ids import RecordIds
from unlearning.columns import NO_VALUES, Columns
from unlearning.errors import RequestError, UnsupportedRequestError, unknown
from unlearning.records.commitment import Claim, Commitment, Opening
from unlearning.records.files import write_atomically
from unlearning.records.ledger import Ledger
from unlearning.request import Forgotten, Omission, Request, Scope, check_id, kinds

__all__ = [
    "admit",
    "check",
    "check_claim",
    "compose",
    "read_claim",
    "write_claim",
]

_SIGNED = {"wish", "order"}  # facts that hold body and signature


def compose(
    clients: Sequence[int] = (),
    samples: Sequence[tuple[int, ...]] = (),
    classes: Sequence[int] = (),
    tasks: Sequence[str] = (),
    features: Sequence[int | str] = (),
    records: Sequence[str] = (),
    known: Callable[[], RecordIds] | None = None,
    columns: Columns | None = None,
    **rest: Any,
) -> Request:
    """Return the request that options of a command line mean; its scope follows from them.

    Parameters
    ----------
    clients : sequence of int
        Clients alone leave for good; with ``classes``, ``tasks`` or ``features`` they own what is
        named.
    samples : sequence of tuple of int
        One for each of ``clients``, in the same order: positions of that client's samples.
    classes, tasks, features : sequence
        What is forgotten, at ``clients`` if any are named, everywhere otherwise; features as
        positions or, with ``columns``, as words.
    records : sequence of str
        Samples by their own ids, at ``clients`` if any are named.
    known : callable or None
        Gives the ids of the run; needed with ``records``.
    columns : Columns or None
        What the values of an example are called.
    **rest
        Further fields of :class:`~unlearning.request.Request`.

    Raises
    ------
    RequestError
        If nothing is named, the options do not go together, or a record is unknown.
    """
    if samples and len(samples) != len(clients):
        raise RequestError(
            f"{len(clients)} client(s) but {len(samples)} list(s) of samples; give one --samples "
            "for each --client, in the same order"
        )
    if len([given for given in (samples, records, classes, tasks, features) if given]) > 1:
        raise RequestError(
            "samples, records, classes, tasks and features are separate requests; ask for one at "
            "a time"
        )
    if records and known is not None:
        found = known().find(records, clients)
        return Request(Scope.SAMPLE, samples=found, records=tuple(records), **rest)
    if features:
        named = (columns or Columns()).find(features)
        return Request(
            Scope.FEATURE,
            clients=tuple(clients),
            features=named.positions,
            called=named.called,
            **rest,
        )
    if tasks:
        return Request(Scope.TASK, clients=tuple(clients), tasks=tuple(tasks), **rest)
    if samples:
        owned: dict[int, tuple[int, ...]] = {}
        for client, chosen in zip(clients, samples, strict=True):
            owned[client] = (*owned.get(client, ()), *chosen)
        return Request(Scope.SAMPLE, samples=owned, **rest)
    if classes:
        scope = Scope.SAMPLE if clients else Scope.CLASS
        return Request(scope, clients=tuple(clients), classes=tuple(classes), **rest)
    if clients:
        return Request(Scope.CLIENT, clients=tuple(clients), **rest)
    raise RequestError(
        "nothing to forget is named; give --client, --records, --class, --task or --feature"
    )


def admit(folder: RunFolder, request: Request, claim: Claim | None = None, **facts: object) -> bool:
    """Check a request against a run and append it to the run's ledger.

    Parameters
    ----------
    folder : RunFolder
        The run.
    request : Request
        What is asked.
    claim : Claim or None
        The opened samples; needed where the clients committed themselves to theirs.
    **facts
        Plain values that the ledger keeps beside the request.

    Returns
    -------
    bool
        False if the ledger knows this very request already: nothing is changed then.

    Raises
    ------
    RequestError
        If the run cannot be asked this, or knows another request by this id; the ledger is left as
        it was.
    """
    federation, config = folder.read_federation(), folder.read_config()
    if federation.strategy != config.get("strategy", federation.strategy):
        # The config was changed since, and `resume --accept-change` will say what is served.
        federation = replace(federation, strategy="", scopes=(), refusals={})
    if federation.kind == COMPARE:
        raise RequestError(
            f"{folder.path} is a comparison, in which all strategies answer the same scheduled "
            "requests; put it under [[requests]] in the config, or ask a folder of `fedunlearn run`"
        )
    if folder.deployment.exists() and not facts.keys() & _SIGNED:
        raise RequestError(
            f"{folder.path} is a run of a federation, where who asks must sign: a site with "
            "`fedunlearn site ask`, an operator with `fedunlearn federation operator sign`; bring "
            "the file with `fedunlearn request RUN --signed FILE`"
        )
    rounds = config.get("rounds")
    with folder.open_ledger() as ledger:

        def examine() -> None:
            if _is_known(request, ledger):
                return
            check_id(request.id)
            _check_goes_on(folder)
            check(request, federation, ledger)
            check_claim(request, federation, claim)
            _check_round(request, folder, rounds if isinstance(rounds, int) else None)

        # Looked at and written in one go: of two processes that let the last two clients go, the
        # second must see what the first has asked for.
        return ledger.receive(request, check=examine, **facts)


def _is_known(request: Request, ledger: Ledger) -> bool:
    """Return whether the ledger holds this very request; refuse another one by its id."""
    for known in ledger.requests():
        if known.id != request.id:
            continue
        if _content(known) == _content(request):
            return True
        raise RequestError(
            f"request {request.id} is known and asks to forget {_at(known)}; this one asks to "
            f"forget {_at(request)}: give it another --id"
        )
    return False


def _content(request: Request) -> dict[str, object]:
    """Return what a request asks for, whoever asks."""
    return {k: v for k, v in request.to_json().items() if k not in ("asked_by", "called")}


def _at(request: Request) -> str:
    when = "" if request.at_round is None else f" after round {request.at_round}"
    return f"{request.describe()}{when}"


def _check_goes_on(folder: RunFolder) -> None:
    """Refuse to promise what nobody can keep: a run that is over and cannot be resumed."""
    status = folder.read_status()
    if status is not None and not status.is_running and not Intent.is_in(folder.path):
        raise RequestError(
            f"{folder.path} is over and was made by a version that could not be resumed, so the "
            "request would never be served; run its config again with another --out and ask there"
        )


def _check_round(request: Request, folder: RunFolder, rounds: int | None) -> None:
    """Refuse a round that will not come, or has been."""
    if request.at_round is None:
        return
    if rounds is not None and request.at_round > rounds:
        raise RequestError(
            f"round {request.at_round} lies after the last of the {rounds} rounds of {folder.path};"
            f" give --at-round 1 to {rounds}, or leave it out"
        )
    status = folder.read_status()
    # Rounds of unlearning are counted by themselves: they do not tell how far learning is.
    counted = status is not None and status.phase in ("learn", "recover")
    done = status.server_round if counted and status is not None else 0
    if request.at_round < done:
        raise RequestError(
            f"round {request.at_round} of {folder.path} is over ({done} are done); leave "
            "--at-round out, and it is served as soon as possible"
        )


def check_claim(request: Request, federation: FederationFacts, claim: Claim | None) -> None:
    """Refuse samples that are not those the clients committed themselves to.

    Raises
    ------
    RequestError
        If the run has commitments and a named sample is not opened, or opened to something else.
    """
    if not federation.commitments or not request.samples:
        return
    if claim is None:
        raise RequestError(
            "this run takes requests for samples with a claim only; the client makes one with "
            "`fedunlearn claim RUN --client ID --samples ... --out FILE`, give it with --claim FILE"
        )
    for client, positions in request.samples.items():
        known = Commitment(federation.commitments[client], federation.clients[client])
        known.check_opened(client, positions, claim)


def read_claim(path: Path) -> Claim:
    """Return the claim that a file holds.

    Raises
    ------
    RequestError
        If it holds none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {
            int(client): {int(place): Opening.from_json(one) for place, one in opened.items()}
            for client, opened in found.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RequestError(
            f"{path} is no claim ({error}); make one with `fedunlearn claim`"
        ) from error


def write_claim(path: Path, claim: Claim) -> None:
    """Write a claim that :func:`read_claim` reads."""
    plain = {
        str(client): {str(place): one.to_json() for place, one in opened.items()}
        for client, opened in claim.items()
    }
    write_atomically(path, json.dumps(plain, indent=1).encode())


def check(request: Request, federation: FederationFacts, ledger: Ledger) -> None:
    """Refuse a request that names what does not exist, or must not or need not be forgotten.

    Raises
    ------
    RequestError
        For an unknown client, sample, class or task; for a class where there are several tasks;
        for a task at clients that do not hold it, or at all that do; for what is forgotten already
        or waits to be; for the only clients left.
    UnsupportedRequestError
        If the strategy of the run does not serve the scope, or refuses such a request all the same.
    """
    if federation.scopes and request.scope.value not in federation.scopes:
        raise UnsupportedRequestError(
            f"strategy {federation.strategy!r} does not serve requests of scope "
            f"{request.scope.value!r} (it serves: {', '.join(federation.scopes)}); "
            "`fedunlearn list strategies` shows which do"
        )
    _check_names(request, federation)
    for kind in kinds(request):
        if kind in federation.refusals:
            raise UnsupportedRequestError(federation.refusals[kind])
    _check_holders(request, federation, ledger)
    _check_not_asked(request, federation, ledger)
    _check_someone_stays(request, federation, ledger)


def _check_names(request: Request, federation: FederationFacts) -> None:
    clients = federation.clients
    for client in (*request.clients, *request.samples):
        if client not in clients:
            raise RequestError(_unknown("client", client, clients))
    for client, samples in request.samples.items():
        if odd := [sample for sample in samples if not 0 <= sample < clients[client]]:
            raise RequestError(
                f"unknown sample {odd[0]} of client {client}: "
                f"its training samples are counted from 0 to {clients[client] - 1}"
            )
    if request.classes and federation.tasks:
        raise RequestError(
            f"{request.describe()}: this federation learns several tasks "
            f"({', '.join(federation.tasks)}), and a label means another thing in each; ask for a "
            "task, for samples or for a client instead, or learn one task with another model.name"
        )
    for label in request.classes:
        if label not in federation.classes:
            raise RequestError(_unknown("class", label, federation.classes))
    if request.features and not federation.features:
        raise RequestError(f"{request.describe()}: {NO_VALUES}")
    for feature in request.features:
        if not 0 <= feature < federation.features:
            raise RequestError(f"unknown feature {feature} (known: 0 to {federation.features - 1})")
    for task in request.tasks:
        if task not in federation.tasks:
            raise RequestError(unknown("task", task, federation.tasks))


def _check_holders(request: Request, federation: FederationFacts, ledger: Ledger) -> None:
    """Refuse a task at clients that do not hold it, or at all that do: that is the whole task."""
    if not (request.tasks and request.clients and federation.holders):
        return
    asked = _asked(ledger)
    for task in request.tasks:
        holders = {
            client
            for client in federation.holders.get(task, ())
            if not (gone := asked.omission(client)).everything and task not in gone.tasks
        }
        if holders and not holders - set(request.clients):
            raise RequestError(
                f"{request.describe()}: nobody else holds task {task!r}, so that its head would "
                "rest on what is to be forgotten; leave the clients out to forget the task itself"
            )
    held = {client for task in request.tasks for client in federation.holders.get(task, ())}
    if odd := [client for client in request.clients if client not in held]:
        raise RequestError(
            f"{request.describe()}: client {odd[0]} holds no example of it (clients that do: "
            f"{', '.join(map(str, sorted(held))) or 'none'})"
        )


def _asked(ledger: Ledger) -> Forgotten:
    """Return all that was asked for so far; what was refused or taken back does not count."""
    off = ("refused", "withdrawn")
    return Forgotten(tuple(one for one in ledger.requests() if ledger.state(one.id) not in off))


def _unknown(kind: str, value: int, known: Iterable[int]) -> str:
    """Return that a number is unknown; many known numbers in a row are named by their ends."""
    ids = sorted(known)
    if len(ids) > 2 and ids == list(range(ids[0], ids[-1] + 1)):
        return f"unknown {kind} {value} (known: {ids[0]} to {ids[-1]})"
    return unknown(kind, value, ids)


def _check_not_asked(request: Request, federation: FederationFacts, ledger: Ledger) -> None:
    """Refuse what earlier requests ask for in full; those refused or failed do not count."""
    asked = Forgotten(
        tuple(one for one in _asked(ledger).requests if ledger.state(one.id) != "failed")
    )
    owners = request.owners(federation.clients)
    if all(asked.omission(k).covers(request.omission(k)) for k in owners):
        part = _covering(request, asked, owners)
        raise RequestError(
            f"{request.describe()} is forgotten already or waits to be "
            f"(request {part.id}, {ledger.state(part.id)}); nothing is left to ask for"
        )


def _covering(request: Request, asked: Forgotten, owners: Iterable[int]) -> Request:
    """Return the earlier request to name: one that covers all that is asked for, or a part."""
    wanted = {client: request.omission(client) for client in owners}

    def share(known: Request) -> tuple[int, int]:
        """Return for how many owners it asks for all of this, and for how many for a part."""
        found = {client: known.omission(client) for client in wanted}
        whole = [client for client in wanted if found[client].covers(wanted[client])]
        part = [client for client in wanted if _meet(found[client], wanted[client])]
        return len(whole), len(part)

    return max(asked.requests, key=share)


def _meet(one: Omission, other: Omission) -> bool:
    return bool(
        (one.everything and other)
        or (other.everything and one)
        or one.samples & other.samples
        or one.classes & other.classes
        or one.tasks & other.tasks
        or one.features & other.features
    )


def _check_someone_stays(request: Request, federation: FederationFacts, ledger: Ledger) -> None:
    """Refuse a request that would leave no client to train."""
    gone = ledger.forgotten().clients
    leaving = frozenset[int]().union(*(known.leavers for known in ledger.waiting()))
    if request.leavers and not set(federation.clients) - gone - leaving - request.leavers:
        before = sorted(gone | leaving)
        others = f" (clients {', '.join(map(str, before))} have left or wait to)" if before else ""
        raise RequestError(
            f"{request.describe()} would leave no client to train{others}; "
            "a federation needs at least one"
        )
