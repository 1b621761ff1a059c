"""What clients say of a model on their own data: sums over their splits, never a row of theirs."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

from flwr.app import Message, MessageType, MetricRecord

from strategies.federation import Federation
from strategies.roster import Roster
from strategies.wire import to_content, to_record
from unlearning.arrays import Arrays
from unlearning.protocol import EVERY, Wire, part
from unlearning.request import Forgotten, Request
from unlearning.told import SPLITS, Told

__all__ = ["ask_splits"]

log = logging.getLogger("fedunlearn")


def ask_splits(
    federation: Federation,
    roster: Roster,
    arrays: Arrays,
    requests: Iterable[Request],
    leavers: frozenset[int] = frozenset(),
) -> dict[str, Told]:
    """Ask every client about a model on what it retains, what is forgotten and what it held out.

    Parameters
    ----------
    federation : Federation
        Settings, and who has been forgotten.
    roster : Roster
        The clients behind the grid.
    arrays : Arrays
        The model.
    requests : iterable of Request
        Their union is the forget split; what a client has deleted is in no split of it any more.
    leavers : frozenset of int
        Forgotten clients that have not deleted yet, and are asked a last time.

    Returns
    -------
    dict of str to Told
        By split. Who is away, or says what cannot be, is left out.
    """
    asked = tuple(requests)
    judged = Forgotten(asked)
    known = {request.id for request in asked}
    others = Forgotten(tuple(r for r in federation.forgotten.requests if r.id not in known))
    model = to_record(arrays)

    def questions() -> Iterator[Message]:
        for client in sorted({*roster.clients, *(leavers & roster.nodes.keys())}):
            facts = {
                **federation.client_config,
                Wire.CLIENT: client,
                Wire.STEP: "evaluate",  # to a leaver nothing else may be sent
                Wire.SPLIT: EVERY,
                Wire.OMIT: others.omission(client).to_json(),
                Wire.FORGET: judged.omission(client).to_json(),
            }
            yield Message(to_content(model, {}, facts), roster.nodes[client], MessageType.EVALUATE)

    before, roster.helping = roster.helping, leavers
    found: dict[str, list[tuple[int, int, int]]] = {split: [] for split in SPLITS}
    silent: dict[str, list[int]] = {split: [] for split in SPLITS}
    try:
        for reply in roster.send_and_receive(questions(), timeout=federation.timeout_s):
            client = roster.sender(reply)
            record = part(reply.content, Wire.METRICS, MetricRecord) or MetricRecord()
            for split in SPLITS:
                count, right, few = (
                    _whole(record.get(f"{split}-{name}")) for name in ("examples", "right", "few")
                )
                if few == 1:
                    silent[split].append(client)
                elif 0 <= right <= count and count:
                    found[split].append((client, count, right))
        if roster.lost:
            names = ", ".join(map(str, sorted(roster.lost)))
            log.warning("client %s did not say how the model does on its data", names)
    finally:
        roster.helping = before
    return {split: Told(tuple(found[split]), tuple(silent[split])) for split in SPLITS}


def _whole(value: object) -> int:
    """Return a count, -1 for what is none."""
    return value if type(value) is int else -1
