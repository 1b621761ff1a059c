"""The rounds of one strategy: the exchange under way, how a round is kept, when to stop.

It is told which hooks to call and knows no algorithm.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from flwr.app import ArrayRecord, Message

from strategies import serving
from strategies.exchange import LEARN, RECOVER, UNLEARN, Exchange, Hook, check_model
from strategies.federation import Federation
from strategies.roster import Roster
from strategies.stopping import has_recovered, mean_over
from unlearning.arrays import Arrays
from unlearning.cost import Cost
from unlearning.errors import FederationError, RoundError
from unlearning.protocol import Instruction, Reply, Settings
from unlearning.records.history import History
from unlearning.request import Request

__all__ = ["Instruct", "Record", "Rounds", "recorded"]

log = logging.getLogger("fedunlearn")

Instruct = Callable[[int], Mapping[int, Instruction]]
Kept = Callable[[Arrays], None]
Record = Callable[[History, int, Arrays, Iterable[Reply], Kept], Arrays]


@dataclass
class Rounds:
    """The round that is under way.

    Parameters
    ----------
    who : str
        The strategy's name, for messages.
    arrays : Arrays
        The model that the round begins with.
    losses : mapping of int to (float, int)
        What clients of the last exchange reported: mean training loss in nats, examples.
    record : ArrayRecord or None
        The model as Flower's record, where a round of learning begins with one.
    """

    who: str
    arrays: Arrays = field(default_factory=dict)
    losses: Mapping[int, tuple[float, int]] = field(default_factory=dict)
    record: ArrayRecord | None = None
    _exchange: Exchange | None = None
    _begun: float = 0.0

    @property
    def asks_nobody(self) -> bool:
        """Whether no message of a learning round is under way: recovery is over."""
        return self._exchange is None

    def has_recovered(self, federation: Federation) -> bool:
        """Return whether the training loss is back to what it was before the request."""
        loss = mean_over(self.losses, self.losses.keys())
        return has_recovered(loss, federation.before, federation.tolerance)

    def is_at_rest(self, federation: Federation) -> bool:
        """Return whether recovery is over and no request is to come."""
        over = self.has_recovered(federation) or federation.is_spent
        return over and not serving.outstanding(federation)

    def learn(
        self,
        federation: Federation,
        roster: Roster,
        teach: Instruct,
        keepsakes: Mapping[str, Settings],
    ) -> Iterable[Message]:
        """Begin the next round of learning from ``arrays``; return its messages.

        Raises
        ------
        FederationError
            If nobody is left to ask.
        """
        self._begun, self._exchange = federation.clock(), None
        if self.is_at_rest(federation):
            return []
        number = federation.completed + 1
        phase = federation.phase = RECOVER if federation.forgotten.requests else LEARN
        asked = dict(teach(number))
        if not asked:
            raise FederationError("no client is left to learn from; add clients or end the run")
        exchange = Exchange(
            federation, roster, asked, self.arrays, number, phase, self.who, keepsakes,
            record=self.record,
        )  # fmt: skip
        return self._opened(exchange).messages()

    def learned(self, federation: Federation, replies: Iterable[Message], record: Record) -> Arrays:
        """End the round of learning: return the next model, recorded and accounted for."""
        exchange = self._exchange
        if exchange is None:  # recovered; what is left of the budget is not spent
            return self.arrays
        number, phase = exchange.number, exchange.phase
        read = exchange.read(replies)
        if federation.robust is not None and phase == LEARN:
            read = federation.robust.watch(number, read)

        def kept(current: Arrays) -> None:
            """Write down where a killed run goes on, before the round counts as recorded."""
            spent = Cost(wall_s=federation.clock() - self._begun)
            with federation.aside():
                known = federation.costs.get(phase, Cost())
                later = {
                    "completed": number,
                    "losses": dict(exchange.losses),
                    "costs": {**federation.costs, phase: known + spent},
                    "rounds": number,
                    "phase": phase,
                }
                federation.save(federation.moment(current, **later))

        def learn(number: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
            return record(federation.history, number, arrays, replies, kept)

        try:
            current = exchange.combine(learn, read, robust=phase == RECOVER)
        except RoundError as error:
            log.warning("round %d is asked again: %s", number, error)
            current = self.arrays
        federation.completed, federation.losses = number, exchange.losses
        federation.spend(phase, Cost(wall_s=federation.clock() - self._begun))
        federation.observe(phase, number, current)
        return current

    def unlearn(
        self,
        federation: Federation,
        roster: Roster,
        number: int,
        instruct: Instruct,
        combine: Hook,
        *,
        keepsakes: Mapping[str, Settings],
        request: Request | None,
        held: frozenset[str],
        reuses: bool = False,
    ) -> Arrays:
        """Carry out one round of unlearning from ``arrays``, with nobody if nobody is asked."""
        asked = dict(instruct(number))
        if not asked:
            return combine(number, self.arrays, iter(()))
        exchange = Exchange(
            federation, roster, asked, self.arrays, number, UNLEARN, self.who, keepsakes,
            request, held, reuses,
        )  # fmt: skip
        trains = all(found.step == "train" and found.arrays is None for found in asked.values())
        return self._opened(exchange).combine(combine, exchange.ask(), robust=trains)

    def _opened(self, exchange: Exchange) -> Exchange:
        self._exchange, self.losses = exchange, exchange.losses
        return exchange


def recorded(
    history: History,
    server_round: int,
    arrays: Arrays,
    replies: Iterable[Reply],
    learn: Hook,
    *,
    who: str,
    like: Arrays | None,
    kept: Kept | None = None,
) -> Arrays:
    """Return what ``learn`` makes of the replies, and record the round as it happens.

    Parameters
    ----------
    history : History
        Where it is recorded.
    server_round : int
        The round, absolute.
    arrays : Arrays
        The model before it.
    replies : iterable of Reply
        Consumed once, ordered by client.
    learn : callable
        ``learn(server_round, arrays, replies)``.
    who : str
        The strategy's name, for messages.
    like : Arrays or None
        A model whose names, shapes and dtypes the next one must have; None: any will do.
    kept : callable or None
        Called with the model before the round counts as recorded.
    """
    with history.record(server_round, arrays) as entry:

        def noted() -> Iterator[Reply]:
            for reply in replies:
                if reply.update is not None:
                    entry.add(reply.client, reply.examples, reply.update)
                else:
                    entry.note(reply.client, reply.num_examples)
                yield reply
                del reply  # large, and it would lie there while the next one is read

        current = learn(server_round, arrays, noted())
        current = check_model(current, like, f"the model of round {server_round}", who)
        if kept is not None:
            kept(current)
        return current
