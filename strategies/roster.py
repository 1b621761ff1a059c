"""A Grid around Flower's: who is who, in which order, until when, and never the forgotten.

Flower addresses nodes by random ids that change from run to run. The roster maps stable client
ids to nodes once, hides forgotten clients from every strategy (Flower's own included), refuses any
message to them, and hands replies back in the order the messages were given, a bounded number in
flight, so that sums do not depend on who was fast and memory does not depend on how many replied.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from strategies.wire import num_bytes
from unlearning.errors import FederationError
from unlearning.protocol import Scalar, Wire, part
from unlearning.records.commitment import Commitment

if TYPE_CHECKING:
    from flwr.supercore.run import Run

__all__ = ["ForgottenClientError", "Roster"]

_FASTEST_POLL_S, _SLOWEST_POLL_S = 0.002, 0.05
_TRIES, _PAUSE_S = 4, 1.0  # of one message whose worker died; the pause grows with each
_WORKER_DIED = 0  # Flower's error code where a worker ended without an answer
DELETE = f"{MessageType.QUERY}.delete"


class ForgottenClientError(RuntimeError):
    """Something tried to send a message to a client that has been forgotten."""


@dataclass
class _Sent:
    """A message on its way, and the reply once it is there."""

    client: int
    message: Message
    id: str = ""
    reply: Message | None = None
    tries: int = 1
    not_before: float = 0.0
    failure: Message | None = None

    def again(self, failure: Message) -> None:
        """Make a fresh copy of the message, to be sent in a while."""
        old = self.message
        self.message = Message(
            old.content,
            old.metadata.dst_node_id,
            old.metadata.message_type,
            group_id=old.metadata.group_id,
        )
        self.id, self.failure = "", failure
        self.not_before = time.monotonic() + _PAUSE_S * self.tries
        self.tries += 1


class Roster(Grid):
    """The clients of one federation behind a Flower grid.

    Parameters
    ----------
    grid : Grid
        Flower's grid, or any other.
    nodes : mapping of int to int
        Client id to node id.
    declared : mapping of int to int
        Client id to the number of training examples it said it holds.
    window : int
        Messages in flight at most.
    stop : callable
        Asked while waiting; True cancels the run.
    """

    def __init__(
        self,
        grid: Grid,
        nodes: Mapping[int, int],
        declared: Mapping[int, int] | None = None,
        *,
        window: int = 16,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.grid = grid
        self.nodes = dict(sorted(nodes.items()))
        self.declared = dict(declared or {})
        self.forgotten: frozenset[int] = frozenset()
        self.helping: frozenset[int] = frozenset()  # leavers that help to be forgotten, right now
        self.lost: dict[int, str] = {}  # of the last exchange: client -> reason
        self.bytes_down = 0
        self.commitments: dict[int, Commitment] = {}  # of the clients that were asked for one
        self._window = window
        self._stop = stop
        self._client_of = {node: client for client, node in self.nodes.items()}

    @classmethod
    def discover(
        cls,
        grid: Grid,
        expected: int,
        config: Mapping[str, Scalar],
        *,
        timeout_s: float = 120.0,
        window: int = 16,
        stop: Callable[[], bool] = lambda: False,
    ) -> Roster:
        """Wait until ``expected`` clients have said who they are.

        A simulation starts the server before its nodes exist, so the first look may find few.

        Raises
        ------
        FederationError
            If they have not all answered after ``timeout_s`` seconds, or two claim one id.
        """
        nodes: dict[int, int] = {}
        declared: dict[int, int] = {}
        roots: dict[int, str] = {}
        reason = "no node was there"
        deadline = time.monotonic() + timeout_s
        while len(nodes) < expected:
            if stop():
                raise InterruptedError("run cancelled")
            if time.monotonic() > deadline:
                raise FederationError(
                    f"{len(nodes)} of {expected} clients answered within {timeout_s:g} s "
                    f"(last problem: {reason}); start the missing ones or lower data.clients"
                )
            found = set(nodes.values())
            messages = [
                Message(
                    RecordDict({Wire.CONFIG: ConfigRecord(dict(config))}), node, MessageType.QUERY
                )
                for node in grid.get_node_ids()
                if node not in found
            ]
            left = max(0.1, deadline - time.monotonic())
            for reply in grid.send_and_receive(messages, timeout=left) if messages else []:
                if reply.has_error():
                    reason = _last_line(reply.error.reason)
                    continue
                node = reply.metadata.src_node_id
                try:
                    client, examples, root = _introduction(reply)
                except (KeyError, ValueError) as error:
                    reason = f"node {node} does not say who it is ({error!r})"
                    continue
                if nodes.setdefault(client, node) != node:
                    raise FederationError(
                        f"two nodes claim to be client {client}; give each its own partition-id"
                    )
                declared[client] = examples
                roots |= {client: root} if root else {}
            if len(nodes) < expected:
                time.sleep(_SLOWEST_POLL_S)
        made = cls(grid, nodes, declared, window=window, stop=stop)
        made.commitments = {k: Commitment(root, declared[k]) for k, root in sorted(roots.items())}
        return made

    @property
    def clients(self) -> tuple[int, ...]:
        """Client ids that are still members, in order."""
        return tuple(client for client in self.nodes if client not in self.forgotten)

    def client_of(self, message: Message) -> int:
        """Return the client a message is addressed to."""
        return self._client_of.get(message.metadata.dst_node_id, -1)

    def sender(self, reply: Message) -> int:
        """Return the client a reply (without an error) comes from."""
        return self._client_of[reply.metadata.src_node_id]

    def forget(self, clients: Iterable[int]) -> None:
        """Hide clients from now on and refuse messages to them."""
        self.forgotten = self.forgotten | frozenset(clients)

    # Flower's Grid -------------------------------------------------------------------------

    def set_run(self, run: Run) -> None:
        """Pass on."""
        self.grid.set_run(run)

    @property
    def run(self) -> Run:
        """The run of the grid inside."""
        return self.grid.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Pass on."""
        return self.grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes of the remaining clients that are there, ordered by client."""
        alive = set(self.grid.get_node_ids())
        return [self.nodes[client] for client in self.clients if self.nodes[client] in alive]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send, after checking that no message goes to a forgotten client."""
        checked = [self._allow(message) for message in messages]
        return self.grid.push_messages(checked)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Pass on."""
        return self.grid.pull_messages(message_ids)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterator[Message]:
        """Yield replies in the order of ``messages``; what failed is in ``lost`` afterwards.

        Messages are taken from the iterable as places in the window become free, so neither they
        nor the replies are ever all in memory. Error replies and replies that did not come before
        ``timeout`` seconds had passed are left out and named in ``lost``.

        Raises
        ------
        ForgottenClientError
            If a message is addressed to a forgotten client.
        InterruptedError
            If the run was cancelled.
        """
        self.lost = {}
        source = iter(messages)
        waiting: deque[_Sent] = deque()
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = _FASTEST_POLL_S
        while True:
            waiting.extend(self._fill(source, self._window - len(waiting)))
            if not waiting:
                return
            if self._stop():
                raise InterruptedError("run cancelled")
            arrived = self._collect(waiting)
            while waiting and waiting[0].reply is not None:
                yield from self._accept(waiting.popleft())
            if deadline is not None and time.monotonic() > deadline:
                late = [sent.client for sent in waiting if sent.reply is None]
                for sent in waiting:
                    yield from self._accept(sent)
                unsent = [self.client_of(message) for message in source]
                self.lost |= dict.fromkeys([*late, *unsent], f"no reply within {timeout:g} s")
                return
            pause = _FASTEST_POLL_S if arrived else min(pause * 1.5, _SLOWEST_POLL_S)
            if waiting and not arrived:
                time.sleep(pause)

    def _fill(self, source: Iterator[Message], places: int) -> list[_Sent]:
        """Send up to ``places`` further messages.

        They are pushed one by one: of several, Flower's grids do not say which did not get through.
        """
        batch: list[_Sent] = []
        while len(batch) < places and (message := next(source, None)) is not None:
            sent = _Sent(self.client_of(message), message)
            if self._send(sent):
                batch.append(sent)
        return batch

    def _send(self, sent: _Sent) -> bool:
        """Push a message; return whether it got through, and note in ``lost`` if not."""
        message = sent.message
        self.bytes_down += num_bytes(part(message.content, Wire.ARRAYS, ArrayRecord) or {})
        sent.id = next((found for found in self.push_messages([message]) if found), "")
        if not sent.id:
            self.lost[sent.client] = "the message could not be delivered; its node may have left"
        return bool(sent.id)

    def _collect(self, waiting: Iterable[_Sent]) -> bool:
        """Take in what has arrived; return whether anything has.

        A message whose worker process died is sent again, a little later, since the client is not
        to blame and a new worker takes its time to start.
        """
        for sent in waiting:
            if sent.reply is None and not sent.id and time.monotonic() >= sent.not_before:
                sent.reply = None if self._send(sent) else sent.failure
        pending = {sent.id: sent for sent in waiting if sent.reply is None and sent.id}
        arrived = list(self.grid.pull_messages(list(pending))) if pending else []
        for reply in arrived:
            answered = pending.get(reply.metadata.reply_to_message_id)
            if answered is None:  # nobody waits for it
                continue
            died = reply.has_error() and reply.error.code == _WORKER_DIED
            if died and answered.tries < _TRIES:
                answered.again(reply)
            else:
                answered.reply = reply
        return bool(arrived)

    def _accept(self, sent: _Sent) -> Iterator[Message]:
        """Yield a reply, or note in ``lost`` why it is none."""
        reply = sent.reply
        if reply is None:
            return
        if reply.has_error():
            self.lost[sent.client] = _last_line(reply.error.reason)
        elif reply.metadata.src_node_id != self.nodes.get(sent.client):
            self.lost[sent.client] = "quarantined: another node answered in its place"
        else:
            yield reply

    def _allow(self, message: Message) -> Message:
        client = self.client_of(message)
        if client in self.forgotten and message.metadata.message_type != DELETE:
            record = part(message.content, Wire.CONFIG, ConfigRecord) or ConfigRecord()
            if client not in self.helping or record.get(Wire.STEP, "train") == "train":
                raise ForgottenClientError(
                    f"a message of type {message.metadata.message_type!r} was addressed to client "
                    f"{client}, which has been forgotten; it was not sent"
                )
        return message


def _introduction(reply: Message) -> tuple[int, int, str]:
    """Return client id, number of training examples and root that a node answers with."""
    properties = part(reply.content, Wire.CONFIG, ConfigRecord) or ConfigRecord()
    root = str(properties.get(Wire.COMMITMENT, ""))
    return int(str(properties[Wire.CLIENT])), int(str(properties[Wire.NUM_EXAMPLES])), root


def _last_line(reason: str | None) -> str:
    lines = [line.strip() for line in (reason or "").splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
