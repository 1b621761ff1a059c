"""What clients hold of a request: copies elsewhere, and whether there was anything to forget."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

from strategies.exchange import UNLEARN, Exchange, missing
from strategies.federation import Federation
from strategies.roster import Roster
from unlearning.arrays import Array
from unlearning.errors import FederationError
from unlearning.protocol import Instruction, Reply
from unlearning.request import Request

__all__ = ["overlap", "refuse_idle"]


def overlap(
    federation: Federation, roster: Roster, request: Request, held: frozenset[str]
) -> dict[str, object]:
    """Have clients hash their samples, to tell how much of the forgotten is still held.

    Parameters
    ----------
    federation, roster : Federation, Roster
        Who is there.
    request : Request
        What is forgotten.
    held : frozenset of str
        Requests that are not answered yet: the model still rests on their data.

    Returns
    -------
    dict
        ``samples`` named by the request, how many of them are still held as another sample
        (``copies``), the ``clients`` that hold one, and those that were ``unanswered``. Equal
        bits alone are found.
    """
    there = set(roster.clients) | request.leavers  # who left before has nothing to say any more
    owners = set(request.owners(there & roster.nodes.keys()))
    gone: Counter[bytes] = Counter()
    kept: dict[int, set[bytes]] = {}
    for reply in _hashed(federation, roster, request, owners | set(roster.clients), held):
        gone.update(map(bytes, reply.arrays["forget"]))
        kept[reply.client] = set(map(bytes, reply.arrays["retain"]))
    everyone = set().union(*kept.values())
    return {
        "samples": sum(gone.values()),
        "copies": sum(count for one, count in gone.items() if one in everyone),
        "clients": [client for client, mine in kept.items() if mine & gone.keys()],
        "unanswered": sorted(missing(roster.lost)),
    }


def refuse_idle(
    federation: Federation, roster: Roster, request: Request, held: frozenset[str], why: str
) -> None:
    """Refuse an answer for which nothing was done, if there is something to forget.

    The owners are asked what they hold. One that the request names and that does not say counts as
    holding it; one that it does not name, as everybody of a class, cannot make it fail by silence.

    Parameters
    ----------
    federation, roster, request, held
        As of :func:`overlap`.
    why : str
        Who did nothing, and why.

    Raises
    ------
    FederationError
        If somebody holds what the request names.
    """
    there = set(roster.clients) | request.leavers
    owners = set(request.owners(there & roster.nodes.keys()))
    replies = list(_hashed(federation, roster, request, owners, held))
    count = sum(len(reply.arrays["forget"]) for reply in replies)
    named = request.leavers | set(request.clients) | set(request.samples)
    silent = ", ".join(map(str, sorted(named & missing(roster.lost).keys())))
    if not count and not silent:
        return
    left = f"{count} examples are to be forgotten" if count else f"client {silent} is silent"
    raise FederationError(
        f"{why}, and {left}; change its options, or ask again with another strategy"
    )


def _hashed(
    federation: Federation,
    roster: Roster,
    request: Request,
    asked: Iterable[int],
    held: frozenset[str],
) -> Iterator[Reply]:
    """Yield the fingerprints of clients; leavers may answer, too."""
    how = Instruction("fingerprints", {"salt": secrets.token_hex(32)}, arrays={}, answers="free")
    messages = dict.fromkeys(sorted(asked), how)
    exchange = Exchange(federation, roster, messages, {}, 0, UNLEARN, request=request, held=held)
    roster.helping = request.leavers
    try:
        for reply in exchange.ask():
            if any(not _hashes(reply.arrays.get(name)) for name in ("forget", "retain")):
                roster.lost[reply.client] = "quarantined: it sent no fingerprints"
                continue
            yield reply
    finally:
        roster.helping = frozenset()


def _hashes(found: Array | None) -> bool:
    """Return whether an array holds one hash per row."""
    return found is not None and found.ndim == 2 and found.dtype == np.uint8
