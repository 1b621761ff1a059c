"""A Grid around Flower's: who is who, in which order, until when, and never the forgotten.

Flower addresses nodes by random ids that change from run to run. The roster maps stable client
ids to nodes once, hides forgotten clients from every strategy (Flower's own included), refuses any
message to them, and hands replies back in the order the messages were given, a bounded number in
flight, so that sums do not depend on who was fast and memory does not depend on how many replied.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MessageType
from flwr.serverapp import Grid

from strategies.joining import last_line, meet
from strategies.passing import PassingGrid
from strategies.wire import num_bytes
from unlearning.protocol import Scalar, Wire, part
from unlearning.records.commitment import Commitment

__all__ = ["ForgottenClientError", "Roster"]

log = logging.getLogger("fedunlearn")

_FASTEST_POLL_S, _SLOWEST_POLL_S = 0.002, 0.05
_TRIES, _PAUSE_S = 4, 1.0  # of one message whose worker died; the pause grows with each
_GRACE, _GRACE_S = 0.2, 5.0  # a client that ends its own work when its time is over says so first
_HUNG = 2  # as of a client that raised
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
    sent_at: float = 0.0
    not_before: float = 0.0
    failure: Message | None = None
    failed_at: float = 0.0  # first

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
        self.failed_at = self.failed_at or time.monotonic()
        self.not_before = time.monotonic() + _PAUSE_S * min(self.tries, _TRIES)
        self.tries += 1


class Roster(PassingGrid):
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
    capped : mapping of int to int
        Client id to the number of examples that it counts as at most, whatever it declared.
    tasks : mapping of int to frozenset of str
        Client id to the tasks that it said it has labels for, where there are several.
    stop : callable
        Asked while waiting; True cancels the run.
    restart_s : float
        How long it may take until a worker process that ended is noticed and another one works in
        its place, where workers are ended if a client hangs; 0: they are not.
    """

    def __init__(
        self,
        grid: Grid,
        nodes: Mapping[int, int],
        declared: Mapping[int, int] | None = None,
        *,
        window: int = 16,
        capped: Mapping[int, int] | None = None,
        tasks: Mapping[int, frozenset[str]] | None = None,
        stop: Callable[[], bool] = lambda: False,
        restart_s: float = 0.0,
    ) -> None:
        super().__init__(grid)
        self.nodes = dict(sorted(nodes.items()))
        self.declared = dict(declared or {})
        self.capped = dict(capped or {})
        self.forgotten: frozenset[int] = frozenset()
        self.helping: frozenset[int] = frozenset()  # leavers that help to be forgotten, right now
        self.lost: dict[int, str] = {}  # of the last exchange: client -> reason
        self.bytes_down = 0
        self.tasks: Mapping[int, frozenset[str]] = {} if tasks is None else tasks
        self.commitments: dict[int, Commitment] = {}  # of the clients that were asked for one
        self._window = window
        self._stop = stop
        self.restart_s = restart_s
        self._died_at = float("-inf")  # when a worker was last known to have ended
        self._client_of = {node: client for client, node in self.nodes.items()}

    @classmethod
    def discover(
        cls,
        grid: Grid,
        expected: int,
        config: Mapping[str, Scalar],
        *,
        registered: Mapping[int, int] | None = None,
        quorum: float = 1.0,
        least: int = 0,
        cap: float = 3.0,
        timeout_s: float = 120.0,
        window: int = 16,
        stop: Callable[[], bool] = lambda: False,
        restart_s: float = 0.0,
    ) -> Roster:
        """Wait until ``expected`` clients have said who they are; see :func:`joining.meet`.

        Parameters
        ----------
        cap : float
            A client that is not ``registered`` counts as so many times the median of all declared
            numbers of examples at most; 0: as many as it says.

        Raises
        ------
        FederationError
            If fewer than the quorum are there after ``timeout_s`` seconds.
        """
        joined = meet(
            grid,
            expected,
            config,
            registered=registered,
            quorum=quorum,
            least=least,
            timeout_s=timeout_s,
            stop=stop,
        )
        made = cls(
            grid, joined.nodes, joined.declared, window=window, stop=stop, restart_s=restart_s
        )
        made.capped = joined.caps(registered, cap)
        for client, most in sorted(made.capped.items()):
            log.warning(
                "client %d declares %d training examples that nobody registered; it counts as %d",
                client,
                joined.declared[client],
                most,
            )
        made.tasks = joined.tasks
        made.commitments = {
            client: Commitment(root, joined.declared[client])
            for client, root in sorted(joined.roots.items())
        }
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

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes of the remaining clients that are there, ordered by client."""
        alive = set(self.grid.get_node_ids())
        return [self.nodes[client] for client in self.clients if self.nodes[client] in alive]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send, after checking that no message goes to a forgotten client."""
        checked = [self._allow(message) for message in messages]
        return self.grid.push_messages(checked)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterator[Message]:
        """Yield replies in the order of ``messages``; what failed is in ``lost`` afterwards.

        Messages are taken from the iterable as places in the window become free, so neither they
        nor the replies are ever all in memory. Error replies are left out and named in ``lost``,
        and so is everyone else once ``timeout`` seconds have passed without any reply: a client's
        time runs from the start of its own work, not while it waits for others to be done.

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
        patience = self.restart_s
        patience += float("inf") if timeout is None else timeout + min(_GRACE_S, _GRACE * timeout)
        deadline = time.monotonic() + patience
        pause = _FASTEST_POLL_S
        while True:
            waiting.extend(self._fill(source, self._window - len(waiting)))
            if not waiting:
                return
            if self._stop():
                raise InterruptedError("run cancelled")
            if arrived := self._collect(waiting, timeout):
                deadline = time.monotonic() + patience
            while waiting and waiting[0].reply is not None:
                yield from self._accept(waiting.popleft())
            if timeout is not None and time.monotonic() > deadline:
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
        sent.sent_at = time.monotonic()
        sent.id = next((found for found in self.push_messages([message]) if found), "")
        if not sent.id:
            self.lost[sent.client] = "the message could not be delivered; its node may have left"
        return bool(sent.id)

    def _collect(self, waiting: Iterable[_Sent], limit: float | None) -> bool:
        """Take in what has arrived; return whether anything has.

        A message whose worker process died is sent again, a little later, since the client is not
        to blame and a new worker takes its time to start. One whose worker died at the client's own
        limit was ended since the client hung; but not where another worker has ended in the
        meantime, which it may have waited for in vain.
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
            now, begun = time.monotonic(), max(answered.sent_at, self._died_at)
            hung = limit is not None and now - begun >= limit
            starting = answered.failed_at and now - answered.failed_at < self.restart_s
            self._died_at = now if died else self._died_at
            if died and hung:
                why = f"its work hung for {limit:g} s, and its worker was ended"
                answered.reply = Message(Error(_HUNG, why), reply_to=answered.message)
            elif died and (answered.tries < _TRIES or starting):
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
            self.lost[sent.client] = last_line(reply.error.reason)
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
