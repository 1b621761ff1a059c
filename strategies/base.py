"""FedAvg with history and unlearning hooks: the contract every algorithm fills in.

References
----------
McMahan, Moore, Ramage, Hampson, Agueera y Arcas, "Communication-Efficient Learning of Deep
Networks from Decentralized Data", AISTATS 2017 (arXiv 1602.05629).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import ClassVar

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Result

from strategies import discovery, fitness, serving
from strategies.exchange import (
    LEARN,
    RECOVER,
    UNLEARN,
    Exchange,
    check_model,
    evaluation_messages,
    mean_measures,
    missing,
)
from strategies.federation import ATTRIBUTION, INITIAL, LAST_LOCAL, PUBLIC, Federation
from strategies.fitness import EVERY_MODEL, in_range, one_of
from strategies.roster import Roster
from strategies.shares import Span
from strategies.stopping import has_recovered, mean_over
from strategies.wire import to_arrays, to_record
from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.cost import Cost
from unlearning.errors import ConfigError, FederationError, RoundError
from unlearning.models import heads
from unlearning.models.array_model import ArrayModel
from unlearning.protocol import Instruction, Reply, Settings
from unlearning.records.history import COLUMNS, History
from unlearning.request import Guarantee, Request, Scope

__all__ = ["EVERY_MODEL", "UnlearningStrategy", "in_range", "one_of"]


log = logging.getLogger("fedunlearn")


class UnlearningStrategy(FedAvg):
    """A Flower strategy that learns by FedAvg, records history, and serves requests to forget.

    An algorithm overrides ``prepare`` and, as needed, ``instruct`` and ``combine``; families that
    do not learn by FedAvg also override ``teach`` and ``learn``. The class attributes are facts
    that the contract tests check. Constructors store options and check their range.

    Attributes
    ----------
    scopes : frozenset of Scope
        Requests it serves; others are refused before a message is sent.
    guarantee : Guarantee
        How far its claim goes.
    needs : frozenset of str
        What must have been kept: columns of the history; ``initial``, the untrained model;
        ``last_local`` and, by the name of the
        step that makes it, whatever else at the clients; and ``public``, examples at the server.
    asks_forgotten : bool
        Whether leaving clients are asked to help (never to train).
    models : frozenset of str or None
        The array models it works on, by name; None: any network; ``EVERY_MODEL``: both.
    tunable : mapping of str to Span
        Options that ``fedunlearn tune`` may search, and where.
    learns_again : bool
        Whether its rounds of unlearning are rounds of training like any other, which end early by
        the rule that also ends recovery.
    """

    scopes: ClassVar[frozenset[Scope]] = frozenset()
    guarantee: ClassVar[Guarantee] = Guarantee.APPROXIMATE
    needs: ClassVar[frozenset[str]] = frozenset()
    asks_forgotten: ClassVar[bool] = False
    models: ClassVar[frozenset[str] | None] = None
    learns_again: ClassVar[bool] = False
    tunable: ClassVar[Mapping[str, Span]] = {}

    def __init__(self) -> None:
        super().__init__(min_train_nodes=1, min_evaluate_nodes=1, min_available_nodes=1)
        self.federation = Federation()
        self.request: Request | None = None
        self.rewritten: History | None = None
        self._arrays: Arrays = {}
        self._phase_begun = 0.0
        self._exchange: Exchange | None = None  # the round that is under way
        self._losses: Mapping[int, tuple[float, int]] = {}  # of the last exchange, by client

    # The hooks of an algorithm --------------------------------------------------------------

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        """Return where to start and how many rounds of unlearning follow (0 is allowed).

        Parameters
        ----------
        request : Request
            What to forget; its scope is one of ``scopes``.
        history : History
            What training left behind; not to be changed.
        arrays : Arrays
            The current global model; not to be changed.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how it unlearns")

    def instruct(self, server_round: int) -> Mapping[int, Instruction]:
        """Return who works in an unlearning round (from 1), and how; default: as in learning."""
        return self.teach(self.federation.completed + server_round)

    def combine(self, server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Return the next model of an unlearning round; default: as in learning.

        ``replies`` is consumed once, ordered by client, and read as they arrive.
        """
        return self.learn(self.federation.completed + server_round, arrays, replies)

    def teach(self, server_round: int) -> Mapping[int, Instruction]:
        """Return who learns in a round (absolute, from 1), and how; default: FedAvg.

        A model that is no network says itself how it is learned; all remaining clients take part.
        """
        model = self.federation.model
        if model is not None:
            return model.teach(self._arrays, self.remaining)
        return {client: Instruction() for client in self.sample(server_round)}

    def learn(self, server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Return the next model of a learning round; default: the example-weighted mean.

        The mean is taken over updates, in float64, and added to ``arrays``.
        A model that is no network says itself how it is learned; of one in parts (heads of several
        tasks, shards) every part is averaged over those who trained it.
        """
        model = self.federation.model
        if model is not None:
            return model.learn(arrays, replies)
        if heads.tasks_of(arrays):
            return heads.average(arrays, replies)
        terms = ((reply.num_examples, _update(reply)) for reply in replies)
        return named.apply_update(arrays, named.weighted_mean(terms))

    # What an algorithm may call ------------------------------------------------------------

    def sample(self, server_round: int) -> tuple[int, ...]:
        """Return the remaining clients that train in a round (absolute, from 1)."""
        return self.federation.draw(server_round, tuple(self._roster.nodes), self._arrays)

    @property
    def remaining(self) -> tuple[int, ...]:
        """The clients that are still members, in order; leavers of this request are not."""
        return self._roster.clients

    @property
    def unanswered(self) -> tuple[int, ...]:
        """The clients of this exchange whose answer is missing or bad, once all were read.

        Those that hold no data any more have nothing to answer and are not among them.
        """
        return tuple(sorted(missing(self._roster.lost)))

    def recorded(
        self,
        history: History,
        server_round: int,
        arrays: Arrays,
        replies: Iterable[Reply],
        kept: Callable[[Arrays], None] | None = None,
    ) -> Arrays:
        """Return what ``learn`` makes of the replies, and record the round as it happens.

        ``kept`` is called with the model before the round counts as recorded.
        """
        with history.record(server_round, arrays) as entry:

            def noted() -> Iterator[Reply]:
                for reply in replies:
                    if reply.update is not None:
                        entry.add(reply.client, reply.examples, reply.update)
                    else:
                        entry.note(reply.client, reply.num_examples)
                    yield reply

            current = self.learn(server_round, arrays, noted())
            self._check_model(current, arrays, f"the model of round {server_round}")
            if kept is not None:
                kept(current)
            return current

    def rewrite(self, history: History, *, before: int) -> History:
        """Return a fork of ``history`` with the rounds before ``before``, to record a clean one.

        It replaces the history when the request is fulfilled and is thrown away if it fails.
        """
        self.discard()
        root = history.root
        self.rewritten = history.fork(
            None if root is None else root.with_name(f"{root.name}.new"), durable=False
        )
        self.rewritten.truncate(before - 1)
        return self.rewritten

    def discard(self) -> None:
        """Throw away a rewritten trajectory that will not be used."""
        if self.rewritten is not None:
            self.rewritten.destroy()
            self.rewritten = None

    # What the rest of the system calls ------------------------------------------------------

    def join(self, federation: Federation) -> None:
        """Take the federation to work in; call it before ``start``.

        Noise with a key that someone else knows hides nothing: a claim that rests on it is then
        approximate.

        Raises
        ------
        ConfigError
            If the constructor of a strategy of one's own has left out its base's.
        """
        if "rewritten" not in vars(self):
            raise ConfigError(
                f"{type(self).__name__} does not call super().__init__() in its constructor; add it"
            )
        self.federation = federation
        if self.guarantee is Guarantee.CERTIFIED and federation.noise_key is not None:
            self.guarantee = Guarantee.APPROXIMATE  # type: ignore[misc]

    def options(self) -> dict[str, object]:
        """Return the constructor's options and their values."""
        known = discovery.options(type(self), UnlearningStrategy)
        return {name: getattr(self, name) for name in known}

    def keepsakes(self) -> Mapping[str, Settings]:
        """Return what clients must make and keep while they train, and with which settings.

        Whatever is needed and nobody else keeps; its name is that of the step that makes it.
        """
        return {
            name: {} for name in self.needs - COLUMNS - {ATTRIBUTION, INITIAL, LAST_LOCAL, PUBLIC}
        }

    def check(self, request: Request) -> None:
        """Refuse, in words and before any message, what this strategy cannot serve.

        Raises
        ------
        UnsupportedRequestError
            If the scope is not served.
        ConfigError
            If it does not work on the model that is learned.
        HistoryError
            If the run was not recorded as the strategy needs.
        """
        self.check_scope(request)
        if self.federation.foreign:
            self.check_foreign()
        self.check_model(self.federation.model)
        fitness.check_needs(type(self).__name__, self.needs, self.keepsakes(), self.federation)

    def check_foreign(self) -> None:
        """Raise HistoryError where a model was trained elsewhere and ``needs`` is not empty."""
        fitness.check_foreign(type(self).__name__, self.needs)

    def check_scope(self, request: Request) -> None:
        """Raise UnsupportedRequestError, naming who could, if a scope is not served."""
        model = self.federation.model
        name = None if model is None else model.name
        fitness.check_scope(type(self), UnlearningStrategy, request.scope, name)

    @classmethod
    def works_on(cls, model: str | None) -> bool:
        """Return whether it works on an array model, by its name, or on networks (None)."""
        return fitness.works_on(cls.models, model)

    def check_model(self, model: ArrayModel | None) -> None:
        """Raise ConfigError if what is learned (None: a network) is not among ``models``."""
        fitness.check_model(type(self), None if model is None else model.name)

    def unlearn(self, request: Request, history: History, arrays: Arrays) -> Arrays:
        """Return the model without what the request names; counts its cost under ``unlearn``.

        A target that never took part changes nothing; where nobody is left, the answer is the
        initial model, which nobody influenced.

        Raises
        ------
        FederationError
            If a round had too few valid replies or the result is not finite.
        HistoryError
            If what the strategy needs was not recorded.
        """
        federation, roster = self.federation, self._roster
        held = serving.unanswered(federation)
        if not serving.leave(federation, roster, request, history, held):
            return arrays
        if not roster.clients:
            federation.edited = federation.completed
            return history.initial
        self.request, self.rewritten = request, None
        self.federation.before = mean_over(federation.losses, roster.clients)
        roster.helping = request.leavers if self.asks_forgotten else frozenset()
        begun = federation.clock()
        try:
            current, rounds = self.prepare(request, history, arrays)
            self._losses = {}
            for server_round in range(1, rounds + 1):
                if (self.learns_again and self._has_recovered()) or federation.is_spent:
                    break
                before, current = current, self._unlearning_round(server_round, current, held)
                if current is not before:  # else nobody was asked and nothing was done
                    federation.observe("unlearn", server_round, current)
            self._check_model(current, arrays, "the unlearned model")
            if federation.model is not None and self.rewritten is None:
                serving.keep_participants(self.rewrite(history, before=1), request, history)
        except BaseException:
            self.discard()
            raise
        finally:
            roster.helping = frozenset()
            federation.spend("unlearn", Cost(wall_s=federation.clock() - begun))
            self.request = None
            self._losses = {}
        federation.edited = federation.completed
        return current

    def dismiss(self, request: Request) -> dict[str, object]:
        """Have the owners delete for good; return who acknowledged, who did not, and how much."""
        return serving.dismiss(self.federation, self._roster, request)

    def overlap(self, request: Request) -> dict[str, object]:
        """Have clients hash their samples, to tell how much of the forgotten is still held."""
        return serving.overlap(self.federation, self._roster, request)

    # Flower's strategy ----------------------------------------------------------------------

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Learn ``num_rounds`` rounds with Flower's own loop, serving requests between them.

        Requests still open after the last round are served too, and ``recovery_rounds`` further
        rounds follow.
        """
        federation = self.federation
        if federation.roster is None or federation.roster.grid is not grid:
            expected = len(list(grid.get_node_ids()))
            federation.roster = Roster.discover(
                grid,
                max(1, expected),
                federation.client_config,
                quorum=federation.min_replies,
                timeout_s=timeout,
                stop=federation.stop,
            )
        timeout = federation.timeout_s = min(federation.timeout_s, timeout)
        federation.forgotten, federation.failed = federation.ledger.forgotten(), frozenset()
        federation.roster.forget(federation.forgotten.clients)
        if not federation.completed:
            federation.history.start(to_arrays(initial_arrays))
        federation.goal, federation.owed = federation.completed + num_rounds, 0
        self._losses = dict(federation.losses) if federation.edited < federation.completed else {}
        flower = super().start
        common = (timeout, train_config, evaluate_config, evaluate_fn)
        result = flower(federation.roster, initial_arrays, num_rounds, *common)
        arrays = result.arrays if num_rounds else initial_arrays
        while serving.due(federation):
            before = {request.id for request in federation.ledger.waiting()}
            federation.owed = federation.recovery_rounds
            arrays = to_record(self._serve_due(to_arrays(arrays)))
            federation.owed = 0
            if before <= {request.id for request in federation.ledger.waiting()}:
                break  # what is left is held or failed: the model in force stays as it is
            if federation.recovery_rounds and federation.roster.clients:
                rounds = federation.recovery_rounds
                federation.goal = federation.completed + rounds
                result = flower(federation.roster, arrays, rounds, *common)
                arrays = result.arrays
        result.arrays = arrays
        return result

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Serve what is open, then return the messages of the next learning round."""
        federation = self.federation
        self._arrays = self._serve_due(to_arrays(arrays))
        self._phase_begun, self._exchange = federation.clock(), None
        if self._is_at_rest():
            return []
        number = federation.completed + 1
        phase = RECOVER if federation.forgotten.requests else LEARN
        asked = dict(self.teach(number))
        if not asked:
            raise FederationError("no client is left to learn from; add clients or end the run")
        return self._open_exchange(asked, self._arrays, number, phase).messages()

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Check replies one by one, record them, and return the next model."""
        federation = self.federation
        exchange = self._exchange
        if exchange is None:  # recovered; what is left of the budget is not spent
            return to_record(self._arrays), None
        number, phase = exchange.number, exchange.phase
        read = exchange.read(replies)
        if federation.robust is not None and phase == LEARN:
            read = federation.robust.watch(number, read)

        def kept(current: Arrays) -> None:
            """Write down where a killed run goes on, before the round counts as recorded."""
            spent = Cost(wall_s=federation.clock() - self._phase_begun)
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
            return self.recorded(federation.history, number, arrays, replies, kept)

        try:
            current = exchange.combine(learn, read, robust=phase == RECOVER)
        except RoundError as error:
            log.warning("round %d is asked again: %s", number, error)
            current = self._arrays
        federation.completed, federation.losses = number, exchange.losses
        federation.spend(phase, Cost(wall_s=federation.clock() - self._phase_begun))
        federation.observe(phase, number, current)
        return to_record(current), None

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask the remaining clients about a split of their data, where the federation wants it."""
        if not self.federation.evaluate_split or self._exchange is None:
            return []
        return evaluation_messages(self.federation, self._roster, arrays)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Return the example-weighted means of what the clients measured."""
        return mean_measures(replies)

    # Inside ---------------------------------------------------------------------------------

    @property
    def _roster(self) -> Roster:
        if self.federation.roster is None:
            raise FederationError(
                f"{type(self).__name__} has no grid yet; call start or give its federation a roster"
            )
        return self.federation.roster

    def _check_model(self, current: Arrays, before: Arrays, what: str) -> None:
        like = before if self.federation.model is None else None
        check_model(current, like, what, type(self).__name__)

    def _has_recovered(self) -> bool:
        loss = mean_over(self._losses, self._losses.keys())
        return has_recovered(loss, self.federation.before, self.federation.tolerance)

    def _is_at_rest(self) -> bool:
        """Return whether recovery is over and no request is to come."""
        over = self._has_recovered() or self.federation.is_spent
        return over and not serving.outstanding(self.federation)

    def _serve_due(self, arrays: Arrays) -> Arrays:
        return serving.serve_due(self, self.federation, self._roster, arrays)

    def _open_exchange(
        self,
        asked: Mapping[int, Instruction],
        arrays: Arrays,
        number: int,
        phase: str,
        held: frozenset[str] = frozenset(),
    ) -> Exchange:
        """Return the exchange with the clients that are asked; it is the one under way."""
        exchange = Exchange(
            self.federation,
            self._roster,
            asked,
            arrays,
            number,
            phase,
            who=type(self).__name__,
            keepsakes=self.keepsakes(),
            request=self.request,
            held=held,
        )
        self._exchange, self._losses = exchange, exchange.losses
        return exchange

    def _unlearning_round(self, server_round: int, arrays: Arrays, held: frozenset[str]) -> Arrays:
        self._arrays = arrays
        asked = dict(self.instruct(server_round))
        if not asked:
            return self.combine(server_round, arrays, iter(()))
        exchange = self._open_exchange(asked, arrays, server_round, UNLEARN, held)
        trains = all(found.step == "train" and found.arrays is None for found in asked.values())
        return exchange.combine(self.combine, exchange.ask(), robust=trains)


def _update(reply: Reply) -> Arrays:
    if reply.update is None:
        raise FederationError(f"client {reply.client} sent no model; this round needs one")
    return reply.update
