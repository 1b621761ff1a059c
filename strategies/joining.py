"""Who takes part: nodes say which client they are, once, before a federation begins.

Nothing that a node says of itself is believed beyond what is known: an id that nobody has, or that
somebody else has already, and more examples than the client is registered with are refused, and
the node is left out by name. One that fails or stays silent is left out too, as long as enough
others are there.
"""

from __future__ import annotations

import json
import logging
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from unlearning.errors import FederationError
from unlearning.protocol import Scalar, Wire, part

__all__ = ["Identifying", "Joined", "last_line", "meet"]

log = logging.getLogger("fedunlearn")

_POLL_S = 0.05
_TRIES, _PAUSE_S = 5, 0.2  # of a node that answers with an error; the pause doubles with each


@runtime_checkable
class Identifying(Protocol):
    """A grid that knows by something better than a node's word which client it is."""

    def identify(self, node: int) -> int | None:
        """Return the client of a node; None: it is nobody's."""


@dataclass
class Joined:
    """Who is there.

    Parameters
    ----------
    nodes : dict of int to int
        Client id to node id.
    declared : dict of int to int
        Client id to the number of training examples it said it holds.
    tasks : dict of int to frozenset of str
        Client id to the tasks it has labels for, where it said so.
    roots : dict of int to str
        Client id to the root it committed itself to, where it was asked for one.
    refused : dict of int to str
        Node id to the reason why it is left out.
    """

    nodes: dict[int, int] = field(default_factory=dict)
    declared: dict[int, int] = field(default_factory=dict)
    tasks: dict[int, frozenset[str]] = field(default_factory=dict)
    roots: dict[int, str] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)

    def caps(self, registered: Mapping[int, int] | None, factor: float) -> dict[int, int]:
        """Return as how many examples a client counts at most that nobody registered.

        Parameters
        ----------
        registered : mapping of int to int, or None
            Clients whose number is known: it is their weight, never capped.
        factor : float
            So many times the median of all declared numbers; 0: no cap.
        """
        if not factor or not self.declared:
            return {}
        most = max(1, math.floor(factor * statistics.median(self.declared.values())))
        return {
            c: most for c, n in self.declared.items() if c not in (registered or {}) and n > most
        }


def meet(
    grid: Grid,
    expected: int,
    config: Mapping[str, Scalar],
    *,
    registered: Mapping[int, int] | None = None,
    quorum: float = 1.0,
    least: int = 0,
    timeout_s: float = 120.0,
    stop: Callable[[], bool] = lambda: False,
) -> Joined:
    """Wait until ``expected`` nodes have said who they are, or will not any more.

    A simulation starts the server before its nodes exist, so the first look may find few.

    Parameters
    ----------
    grid : Grid
        Flower's grid.
    expected : int
        How many there should be.
    config : mapping
        Goes with the question: what clients are made of.
    registered : mapping of int to int, or None
        Training examples by client id, as far as the server knows; None: it knows nobody.
    quorum : float
        Share of ``expected`` without which nothing begins.
    least : int
        How many there must be besides; 0: what the share says alone.
    timeout_s : float
        How long to wait for all of them.
    stop : callable
        True cancels.

    Raises
    ------
    FederationError
        If fewer than the quorum are there in the end.
    """
    joined = Joined()
    tries: dict[int, int] = {}
    again: dict[int, float] = {}  # node -> when it may be asked again
    reasons: dict[int, str] = {}
    begun = time.monotonic()
    deadline = begun + timeout_s
    while len(joined.nodes) + len(joined.refused) < expected and time.monotonic() <= deadline:
        if stop():
            raise InterruptedError("run cancelled")
        known = {*joined.nodes.values(), *joined.refused}
        nodes = [
            node
            for node in grid.get_node_ids()
            if node not in known and time.monotonic() >= again.get(node, 0.0)
        ]
        heard: dict[int, Message] = {}
        for reply in _asked(grid, nodes, config, deadline, stop):
            heard[reply.metadata.src_node_id] = reply
        for node in nodes:
            if node not in heard:
                reasons[node] = "it did not answer"
            elif heard[node].has_error():
                reasons[node] = last_line(heard[node].error.reason)
            elif found := _introduced(heard[node], node, joined, registered, grid):
                reasons[node] = found
            else:
                continue
            tries[node] = tries.get(node, 0) + 1
            again[node] = time.monotonic() + _PAUSE_S * 2 ** tries[node]
            if tries[node] >= _TRIES:
                joined.refused[node] = reasons[node]
        if len(joined.nodes) + len(joined.refused) < expected:
            time.sleep(_POLL_S)
    joined.refused = {
        **{n: r for n, r in reasons.items() if n not in joined.nodes.values()},
        **joined.refused,
    }
    if len(joined.nodes) < (needed := max(1, least, math.ceil(quorum * expected))):
        last = next(reversed(joined.refused.values()), "no node was there")
        raise FederationError(
            f"{len(joined.nodes)} of {expected} clients answered within {timeout_s:g} s, {needed} "
            f"are needed (last problem: {last}); start the missing ones, or lower data.clients, "
            "engine.min_replies or engine.min_clients"
        )
    for node, reason in sorted(joined.refused.items()):
        log.warning("node %d is left out: %s", node, reason)
    if missing := expected - len(joined.nodes) - len(joined.refused):
        log.warning("%d of %d clients are not there and are left out", missing, expected)
    return joined


def _asked(
    grid: Grid,
    nodes: list[int],
    config: Mapping[str, Scalar],
    deadline: float,
    stop: Callable[[], bool],
) -> Iterator[Message]:
    """Ask nodes who they are; yield what comes before the deadline."""
    pending: set[str] = set()
    for node in nodes:
        content = RecordDict({Wire.CONFIG: ConfigRecord(dict(config))})
        pending |= {i for i in grid.push_messages([Message(content, node, MessageType.QUERY)]) if i}
    while pending:
        if stop():
            raise InterruptedError("run cancelled")
        came = list(grid.pull_messages(list(pending)))
        for reply in came:
            pending.discard(reply.metadata.reply_to_message_id)
            yield reply
        if time.monotonic() > deadline:
            return
        if pending and not came:  # a grid that answers one at a time is asked on at once
            time.sleep(_POLL_S)


def _introduced(
    reply: Message,
    node: int,
    joined: Joined,
    registered: Mapping[int, int] | None,
    grid: Grid,
) -> str:
    """Take a node in as the client it says it is, or refuse it; return what may yet be mended."""
    properties = part(reply.content, Wire.CONFIG, ConfigRecord) or ConfigRecord()
    try:
        client = int(str(properties[Wire.CLIENT]))
        count = int(str(properties[Wire.NUM_EXAMPLES]))
        tasks = json.loads(str(properties.get(Wire.TASKS, "null")))
    except (KeyError, ValueError) as error:
        return f"node {node} does not say who it is ({error!r})"
    why = ""
    known = grid.identify(node) if isinstance(grid, Identifying) else client
    if known != client:
        whose = "nobody's" if known is None else f"that of client {known}"
        why = (
            f"its settings say that it is client {client}, and its key is {whose}; give each site "
            "its own settings"
        )
    elif client < 0 or (registered is not None and client not in registered):
        why = f"it claims to be client {client}, and there is none"
    elif client in joined.nodes:
        why = (
            f"it claims to be client {client}, who is there already as node {joined.nodes[client]}"
        )
    elif count < 0 or (registered is not None and count > registered[client]):
        most = "0 or more" if registered is None else f"registered with {registered[client]}"
        why = f"client {client} declares {count} training examples, {most}"
    if why:
        joined.refused[node] = why
        return ""
    joined.nodes[client], joined.declared[client] = node, count
    if isinstance(tasks, list):
        joined.tasks[client] = frozenset(map(str, tasks))
    if root := str(properties.get(Wire.COMMITMENT, "")):
        joined.roots[client] = root
    return ""


def last_line(reason: str | None) -> str:
    """Return the last line of a reason that is not empty."""
    lines = [line.strip() for line in (reason or "").splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
