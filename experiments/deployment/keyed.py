"""A grid that knows its nodes by their keys, and the mail that rides on their messages.

Flower's SuperLink vouches for the key behind every node id. Here a key becomes a client through the
roster; a node whose key is not in it does not exist. Sites cannot speak unasked, so their wishes
ride on replies, and what became of them on the next messages.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator

from flwr.app import ConfigRecord, Message
from flwr.serverapp import Grid

# Private in Flower 1.41: Grid's signatures name it.
from experiments.deployment.debts import Collector
from experiments.deployment.keys import normal_form
from experiments.deployment.members import MEMBER, Members
from experiments.deployment.wishes import Wish, parse
from strategies.passing import PassingGrid
from unlearning.errors import RequestError
from unlearning.protocol import part

__all__ = ["MAIL", "RESIDUAL", "KeyedGrid"]

RESIDUAL = (
    "Flower's SuperLink keeps the bytes of messages that it has delivered in its database and "
    "write-ahead log while it runs, and after an ordinary end; `fedunlearn federation stop` "
    "empties both"
)

MAIL = "mail"  # the record of both directions; its entries are numbered texts of JSON
_MOST_LETTERS = 8  # of one reply
_MOST_BYTES = 1 << 20  # of one letter
_LOOK_S = 2.0  # between two looks for sites that owe a deletion
_PULL_S = 0.2  # least time between two looks for replies

log = logging.getLogger("fedunlearn")


class KeyedGrid(PassingGrid):
    """Flower's grid with a roster of keys.

    Parameters
    ----------
    grid : Grid
        That of a SuperLink with node authentication.
    members : callable
        Returns the roster as it is now.
    receive : callable
        ``receive(wish, client) -> verdict``; None: not yet, the site sends it again. Never raises.
    debts : Collector or None
        Deletions of earlier runs that sites have not confirmed; None: there are none.
    """

    def __init__(
        self,
        grid: Grid,
        members: Callable[[], Members],
        receive: Callable[[Wish, int], dict[str, object] | None],
        debts: Collector | None = None,
    ) -> None:
        super().__init__(grid)
        self._members, self._receive = members, receive
        self._debts = debts
        self._clients: dict[int, int] = {}  # node -> client
        self._outgoing: dict[int, list[str]] = {}  # client -> letters
        self._lock = threading.Lock()
        self._looked = 0.0
        self._pulled = 0.0

    @property
    def residuals(self) -> tuple[str, ...]:
        """Where bytes of deleted messages can still lie."""
        return (RESIDUAL,)

    def identify(self, node: int) -> int | None:
        """Return the client whose key a node has; None: no member."""
        if node not in self._clients:
            self._look()
        return self._clients.get(node)

    def write(self, client: int, letter: dict[str, object]) -> None:
        """Send something along with the next message to a client."""
        with self._lock:
            self._outgoing.setdefault(client, []).append(json.dumps(letter, default=str))

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes that are there, whose keys are members' and who owe no deletion."""
        return self._look()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages, each with what there is to tell its site."""
        self._look_for_debtors()
        return self.grid.push_messages([self._with_mail(message) for message in messages])

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that are there, after taking the sites' letters out of them.

        Looks not too often: every look costs the SuperLink as much as a site's.
        """
        time.sleep(max(0.0, self._pulled + _PULL_S - time.monotonic()))
        found = [self._opened(reply) for reply in self.grid.pull_messages(message_ids)]
        self._pulled = time.monotonic()
        return found

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send and wait."""
        sent = [self._with_mail(message) for message in messages]
        return self._each_opened(self.grid.send_and_receive(sent, timeout=timeout))

    def _look(self) -> list[int]:
        """Return the members' nodes that are there, and learn whose each is."""
        members, found = self._members(), []
        self._looked = time.monotonic()
        for node in self.grid.get_nodes():
            member = members.of_key(normal_form(node.public_key))
            if member is None:
                self._clients.pop(node.node_id, None)
                continue
            self._clients[node.node_id] = member.client
            if self._debts is not None and self._debts.is_owed_by(member.client):
                self._debts.ask(self.grid, node.node_id, member.client)
                if self._debts.is_owed_by(member.client):
                    continue  # it takes part once it has deleted what an earlier run forgot
            if member.state == MEMBER:
                found.append(node.node_id)
        return found

    def _look_for_debtors(self) -> None:
        """Ask sites that came back in the middle of a run for what they owe."""
        owed = self._debts is not None and self._debts.is_any_owed
        if owed and time.monotonic() - self._looked > _LOOK_S:
            self._look()

    def _with_mail(self, message: Message) -> Message:
        client = self._clients.get(message.metadata.dst_node_id)
        with self._lock:
            letters = [] if client is None else self._outgoing.pop(client, [])
        if letters:
            message.content[MAIL] = ConfigRecord({str(i): one for i, one in enumerate(letters)})
        return message

    def _each_opened(self, replies: Iterable[Message]) -> Iterator[Message]:
        for reply in replies:
            yield self._opened(reply)

    def _opened(self, reply: Message) -> Message:
        if reply.has_error() or MAIL not in reply.content:
            return reply
        record = part(reply.content, MAIL, ConfigRecord) or ConfigRecord()
        del reply.content[MAIL]
        client = self.identify(reply.metadata.src_node_id)
        if client is None:
            return reply
        for letter in list(record.values())[:_MOST_LETTERS]:
            text = str(letter)
            if len(text) > _MOST_BYTES:
                log.warning("client %d sent a letter larger than any wish", client)
                continue
            try:
                wish = parse(text)
            except RequestError as error:
                log.warning("client %d sent a letter that is no wish: %s", client, error)
                continue
            if (verdict := self._receive(wish, client)) is not None:
                self.write(client, verdict)
        return reply
