"""Flower grids that call the ClientApp in this process: one by one, or many clients at once.

For tests, and for the many tiny federations of a statistical audit. The same app, the same seeds,
the same model bit for bit as on Ray. The private corners of Flower that an in-process grid needs
are touched here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

# Private in Flower 1.41: messages take their sender from a process-wide identity, which every
# launch path but this one sets, and Grid's signatures name Run.
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from clients.together import Together

__all__ = ["LocalGrid", "Run", "StackedGrid"]

_FIRST_NODE = 1000
_CLIENT_RAISED = 2  # Flower's error code


class LocalGrid(Grid):
    """Calls a ClientApp directly, one node after the other.

    A message is answered when its reply is asked for, so that no more than one reply, which may be
    a large model, waits to be read.

    Parameters
    ----------
    app : ClientApp
        Flower's app; errors it raises become error replies, as in Flower's engines.
    num_nodes : int
        Number of nodes; each has its ``partition-id``, from 0.
    """

    def __init__(self, app: ClientApp, num_nodes: int) -> None:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
        self._app = app
        self._ids = count(1)
        self._replies: dict[str, Message] = {}
        self._waiting: dict[str, Message] = {}
        self.contexts = {
            _FIRST_NODE + i: Context(
                run_id=1,
                node_id=_FIRST_NODE + i,
                node_config={"partition-id": i, "num-partitions": num_nodes},
                state=RecordDict(),
                run_config={},
            )
            for i in range(num_nodes)
        }

    def set_run(self, run: Run) -> None:
        """Do nothing: there is one run."""

    @property
    def run(self) -> Run:
        """An empty run."""
        return Run.create_empty(run_id=1)

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a message to one node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return all nodes."""
        return list(self.contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Take in messages; return their ids."""
        ids = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = f"{next(self._ids)}"
            ids.append(message.metadata.message_id)
            self._waiting[ids[-1]] = message
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Have the oldest of these messages that waits answered; return what replies are there.

        So the last reply is there only after as many calls as there are messages.
        """
        asked = list(message_ids)
        wanted = set(asked)
        first = next((i for i in self._waiting if i in wanted), None)
        if first is not None:
            self._replies[first] = self._answer(self._waiting.pop(first))
        return [self._replies.pop(i) for i in asked if i in self._replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push, then pull until all are there."""
        ids = list(self.push_messages(messages))
        return [reply for i in ids for reply in self.pull_messages([i])]

    def _answer(self, message: Message) -> Message:
        try:
            return self._app(message, self.contexts[message.metadata.dst_node_id])
        except (Exception, SystemExit) as error:
            # As Flower's engines do: a client's failure is a reply.
            reason = f"{type(error).__name__}: {error}"
            return Message(Error(code=_CLIENT_RAISED, reason=reason), reply_to=message)


class StackedGrid(LocalGrid):
    """A grid that lets clients with small dense networks train side by side.

    Messages wait until the replies are fetched; those that can be answered together are, and all
    others as the grid above answers them. The models are the same, bit for bit.

    Parameters
    ----------
    app : ClientApp
        Flower's app, without mods.
    num_nodes : int
        Number of nodes.
    together : Together
        Answers many messages at once; it must make the participants that ``app`` makes.
    """

    def __init__(self, app: ClientApp, num_nodes: int, together: Together) -> None:
        super().__init__(app, num_nodes)
        self.together = together

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Have all that waits answered, and return the replies that are there."""
        waiting, self._waiting = list(self._waiting.values()), {}
        pairs = [(message, self.contexts[message.metadata.dst_node_id]) for message in waiting]
        for message, reply in zip(waiting, self.together.answers(pairs), strict=True):
            made = self._answer(message) if reply is None else reply
            self._replies[message.metadata.message_id] = made
        return super().pull_messages(message_ids)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push, then pull all of them at once."""
        return self.pull_messages(self.push_messages(messages))
