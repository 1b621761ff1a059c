"""FedAvg with history and unlearning hooks: the contract every algorithm fills in.

References
----------
McMahan, Moore, Ramage, Hampson, Agueera y Arcas, "Communication-Efficient Learning of Deep
Networks from Decentralized Data", AISTATS 2017 (arXiv 1602.05629).
"""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Result

from strategies.federation import (
    ATTRIBUTION,
    INITIAL,
    LAST_LOCAL,
    PUBLIC,
    Federation,
    without_public_data,
)
from strategies.roster import DELETE, Roster
from strategies.stopping import has_recovered, mean_over
from strategies.wire import BadReplyError, num_bytes, read_reply, to_arrays, to_content, to_record
from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.cost import Cost
from unlearning.errors import (
    ConfigError,
    FederationError,
    FedUnlearnError,
    HistoryError,
    UnsupportedRequestError,
)
from unlearning.fulfil import fulfil
from unlearning.models import heads
from unlearning.models.array_model import ArrayModel
from unlearning.protocol import Instruction, Reply, Settings, Wire, part
from unlearning.records.history import COLUMNS, History
from unlearning.records.ledger import BATCH
from unlearning.request import Forgotten, Guarantee, Request, Scope

__all__ = ["EVERY_MODEL", "UnlearningStrategy", "in_range", "one_of"]

log = logging.getLogger("fedunlearn")

EVERY_MODEL = frozenset({"*"})  # of a strategy: networks, and whatever else can be learned

_UNLEARN = 1  # last component of a seed address in unlearning rounds; learning rounds have none


def in_range(name: str, value: float, low: float, high: float = float("inf")) -> None:
    """Raise ConfigError unless ``low <= value <= high``."""
    if not low <= value <= high:
        raise ConfigError(f"option {name!r} is {value!r}; it must be from {low:g} to {high:g}")


def one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    """Raise ConfigError unless ``value`` is one of ``known``."""
    if value not in known:
        raise ConfigError(f"option {name!r} is {value!r}; it must be one of {', '.join(known)}")


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

    def __init__(self) -> None:
        super().__init__(min_train_nodes=1, min_evaluate_nodes=1, min_available_nodes=1)
        self.federation = Federation()
        self.request: Request | None = None
        self.rewritten: History | None = None
        self._arrays: Arrays = {}
        self._phase_begun = 0.0
        self._asked: dict[int, Instruction] = {}
        self._losses: dict[int, tuple[float, int]] = {}  # of the last exchange, by client
        self._before: float | None = None  # the loss of the remaining before the request
        self._held: frozenset[str] = frozenset()  # requests whose data the model still rests on

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
        A model that is no network says itself how it is learned; of one with several tasks every
        part is averaged over those who trained it.
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
        return self.federation.sample(server_round, tuple(self._roster.nodes))

    @property
    def remaining(self) -> tuple[int, ...]:
        """The clients that are still members, in order; leavers of this request are not."""
        return self._roster.clients

    @property
    def unanswered(self) -> tuple[int, ...]:
        """The clients of this exchange whose answer is missing or bad, once all were read.

        Those that hold no data any more have nothing to answer and are not among them.
        """
        lost = self._roster.lost
        return tuple(sorted(client for client, why in lost.items() if why != _NOTHING_LEFT))

    def recorded(
        self, history: History, server_round: int, arrays: Arrays, replies: Iterable[Reply]
    ) -> Arrays:
        """Return what ``learn`` makes of the replies, and record the round as it happens."""
        with history.record(server_round, arrays) as entry:

            def noted() -> Iterator[Reply]:
                for reply in replies:
                    if reply.update is not None:
                        entry.add(reply.client, reply.num_examples, reply.update)
                    else:
                        entry.note(reply.client, reply.num_examples)
                    yield reply

            current = self.learn(server_round, arrays, noted())
            self._check_finite(current, f"the model of round {server_round}")
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

    def _keep_participants(self, request: Request, history: History) -> None:
        """Rewrite the history so that it still tells who took part, leavers left out.

        The state of a model that is no network rests on the owners that stay as it did before. A
        purge would strike them from every round, and their next request would be taken for one of
        a client that never took part.
        """
        clean = self.rewrite(history, before=1)
        for server_round in history.rounds:
            with clean.record(server_round, history.initial) as entry:
                for client, count in history.participants(server_round).items():
                    if client not in request.leavers:
                        entry.note(client, count)

    # What the rest of the system calls ------------------------------------------------------

    def join(self, federation: Federation) -> None:
        """Take the federation to work in; call it before ``start``."""
        self.federation = federation

    def options(self) -> dict[str, object]:
        """Return the constructor's options and their values."""
        from strategies.registry import options

        return {name: getattr(self, name) for name in options(type(self))}

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
        self.federation.history.require(self.needs, type(self).__name__)
        if PUBLIC in self.needs and self.federation.distil is None:
            raise without_public_data(type(self).__name__)
        if missing := sorted(self.keepsakes().keys() - self.federation.keepsakes.keys()):
            raise ConfigError(
                f"{type(self).__name__} needs {missing[0]!r}, which the clients did not make while "
                "they trained; learn with this strategy configured from the start"
            )
        if LAST_LOCAL in self.needs and not self.federation.remember:
            raise ConfigError(
                f"{type(self).__name__} needs clients that kept their last local model; "
                "learn with this strategy configured from the start"
            )

    def check_foreign(self) -> None:
        """Refuse a model that was trained elsewhere if anything of its training is needed.

        Raises
        ------
        HistoryError
            If ``needs`` is not empty.
        """
        if missing := sorted(self.needs):
            raise HistoryError(
                f"{type(self).__name__} needs {', '.join(missing)}, and this model was trained "
                "elsewhere: nothing of that was recorded; use a strategy that needs nothing, such "
                "as no-t or fine-tune (`fedunlearn list strategies`)"
            )

    def check_scope(self, request: Request) -> None:
        """Refuse a request of a scope that is not served, naming the strategies that could.

        Raises
        ------
        UnsupportedRequestError
            If the scope is not among ``scopes``.
        """
        if request.scope not in self.scopes:
            from strategies.registry import who_serves

            model = self.federation.model
            able = who_serves(request.scope, None if model is None else model.name)
            raise UnsupportedRequestError(
                f"{type(self).__name__} does not serve requests of scope {request.scope.value!r} "
                f"(it serves: {', '.join(sorted(self.scopes)) or 'none'}); strategies that do: "
                f"{', '.join(able) or 'none'}"
            )

    @classmethod
    def works_on(cls, model: str | None) -> bool:
        """Return whether it works on an array model, by its name, or on networks (None)."""
        if cls.models is None or cls.models == EVERY_MODEL:
            return model is None or cls.models is not None
        return model in cls.models

    def check_model(self, model: ArrayModel | None) -> None:
        """Refuse to work on a model that the strategy does not know.

        Parameters
        ----------
        model : ArrayModel or None
            What is learned; None: a network.

        Raises
        ------
        ConfigError
            If it is not among ``models``.
        """
        known = type(self).models
        if not self.works_on(None if model is None else model.name):
            fitting = "any network" if known is None else ", ".join(sorted(known))
            chosen = "a network" if model is None else repr(model.name)
            raise ConfigError(
                f"{type(self).__name__} does not work on the model that is learned, {chosen} "
                f"(it works on: {fitting}); choose another strategy or another model.name"
            )

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
        self._held = frozenset(federation.ledger.held())
        earlier = Forgotten(
            tuple(
                r
                for r in federation.forgotten.requests
                if r.id != request.id and r.id not in self._held
            )
        )
        federation.forgotten = federation.forgotten | request
        roster.forget(request.leavers)
        if federation.completed and not history.rounds:
            raise HistoryError(
                f"{federation.completed} rounds were learned but none is recorded, so nobody can "
                "tell whom the model rests on; serve the request where it was learned"
            )
        if not self._concerned(request, history, earlier):
            return arrays
        if not roster.clients:
            federation.edited = federation.completed
            return history.initial
        self.request, self.rewritten = request, None
        self._before = mean_over(federation.losses, roster.clients)
        roster.helping = request.leavers if self.asks_forgotten else frozenset()
        begun = federation.clock()
        try:
            current, rounds = self.prepare(request, history, arrays)
            self._losses = {}
            for server_round in range(1, rounds + 1):
                if self.learns_again and self._has_recovered():
                    break
                before, current = current, self._unlearning_round(server_round, current)
                if current is not before:  # else nobody was asked and nothing was done
                    federation.observe("unlearn", server_round, current)
            difference = named.mismatch(arrays, current)
            if difference and federation.model is None:
                raise FederationError(f"{type(self).__name__} returned a model whose {difference}")
            self._check_finite(current, "the unlearned model")
            if federation.model is not None and self.rewritten is None:
                self._keep_participants(request, history)
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

    def dismiss(self, request: Request) -> dict[str, list[int]]:
        """Have the owners delete for good; return who acknowledged and who did not answer."""
        roster = self._roster
        owners = request.owners(roster.nodes)
        model = ArrayRecord()

        def ask(client: int) -> Message:
            facts = {
                **self.federation.client_config,
                Wire.CLIENT: client,
                Wire.FORGET: request.omission(client).to_json(),
            }
            return Message(to_content(model, {}, facts), roster.nodes[client], DELETE)

        replies = roster.send_and_receive(map(ask, owners), timeout=self.federation.timeout_s)
        done = [roster.sender(reply) for reply in replies if _acknowledges(reply, roster)]
        return {
            "acknowledged": sorted(done),
            "unacknowledged": sorted(set(owners) - set(done)),
        }

    def overlap(self, request: Request) -> dict[str, object]:
        """Have clients hash their samples, to tell how much of the forgotten is still held.

        Returns
        -------
        dict
            ``samples`` named by the request, how many of them are still held as another sample
            (``copies``), the ``clients`` that hold one, and those that were ``unanswered``. Equal
            bits alone are found.
        """
        roster = self._roster
        owners = set(request.owners(roster.nodes))
        salt = {"salt": secrets.token_hex(32)}
        how = Instruction("fingerprints", salt, arrays={}, answers="free")
        asked = dict.fromkeys(sorted(owners | set(roster.clients)), how)
        self.request, roster.helping = request, request.leavers
        gone: Counter[bytes] = Counter()
        kept: dict[int, set[bytes]] = {}
        try:
            messages = self._messages(asked, {}, 0, unlearning=True)
            replies = roster.send_and_receive(messages, timeout=self.federation.timeout_s)
            for reply in self._read(replies, asked, {}, "unlearn"):
                gone.update(map(bytes, reply.arrays["forget"]))
                kept[reply.client] = set(map(bytes, reply.arrays["retain"]))
        finally:
            self.request, roster.helping = None, frozenset()
        everyone = set().union(*kept.values())
        return {
            "samples": sum(gone.values()),
            "copies": sum(count for one, count in gone.items() if one in everyone),
            "clients": [client for client, held in kept.items() if held & gone.keys()],
            "unanswered": list(self.unanswered),
        }

    def discard(self) -> None:
        """Throw away a rewritten trajectory that will not be used."""
        if self.rewritten is not None:
            self.rewritten.destroy()
            self.rewritten = None

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
                timeout_s=timeout,
                stop=federation.stop,
            )
        timeout = federation.timeout_s = min(federation.timeout_s, timeout)
        federation.forgotten = federation.ledger.forgotten()
        federation.roster.forget(federation.forgotten.clients)
        if not federation.completed:
            federation.history.start(to_arrays(initial_arrays))
        flower = super().start
        common = (timeout, train_config, evaluate_config, evaluate_fn)
        result = flower(federation.roster, initial_arrays, num_rounds, *common)
        arrays = result.arrays if num_rounds else initial_arrays
        while federation.ledger.due(federation.completed):
            before = {request.id for request in federation.ledger.waiting()}
            arrays = to_record(self._serve_due(to_arrays(arrays)))
            if before <= {request.id for request in federation.ledger.waiting()}:
                break  # what is left is held: the model in force stays as it is
            if federation.recovery_rounds and federation.roster.clients:
                rounds = federation.recovery_rounds
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
        self._phase_begun = federation.clock()
        if self._is_at_rest():
            self._asked = {}
            return []
        self._asked = dict(self.teach(federation.completed + 1))
        if not self._asked:
            raise FederationError("no client is left to learn from; add clients or end the run")
        return self._messages(self._asked, self._arrays, federation.completed + 1)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Check replies one by one, record them, and return the next model."""
        federation = self.federation
        if not self._asked:  # recovered; what is left of the budget is not spent
            return to_record(self._arrays), None
        number = federation.completed + 1
        phase = "recover" if federation.forgotten.requests else "learn"
        read = self._read(replies, self._asked, self._arrays, phase)

        if federation.robust is not None and phase == "learn":
            read = federation.robust.watch(number, read)

        def learn(number: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
            return self.recorded(federation.history, number, arrays, replies)

        current = self._combined(learn, number, self._arrays, read, robust=phase == "recover")
        federation.completed, federation.losses = number, self._losses
        federation.spend(phase, Cost(wall_s=federation.clock() - self._phase_begun))
        federation.observe(phase, number, current)
        return to_record(current), None

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask the remaining clients about a split of their data, where the federation wants it."""
        federation, roster = self.federation, self._roster
        if not federation.evaluate_split or not self._asked:
            return []

        def ask(client: int) -> Message:
            facts = {
                **federation.client_config,
                Wire.CLIENT: client,
                Wire.SPLIT: federation.evaluate_split,
                **self._forgotten_parts(client),
            }
            content = to_content(arrays, {}, facts)
            return Message(content, roster.nodes[client], MessageType.EVALUATE)

        return map(ask, roster.clients)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Return the example-weighted means of what the clients measured."""
        parts = [part(reply.content, Wire.METRICS, MetricRecord) for reply in replies]
        records = [record for record in parts if record is not None]
        weights = [float(str(record[Wire.NUM_EXAMPLES])) for record in records]
        if not sum(weights):
            return None
        return MetricRecord(
            {
                name: sum(w * float(str(r[name])) for w, r in zip(weights, records, strict=True))
                / sum(weights)
                for name in ("loss", "accuracy")
            }
        )

    # Inside ---------------------------------------------------------------------------------

    @property
    def _roster(self) -> Roster:
        if self.federation.roster is None:
            raise FederationError(
                f"{type(self).__name__} has no grid yet; call start or give its federation a roster"
            )
        return self.federation.roster

    def _has_recovered(self) -> bool:
        loss = mean_over(self._losses, self._losses.keys())
        return has_recovered(loss, self._before, self.federation.tolerance)

    def _is_at_rest(self) -> bool:
        """Return whether recovery is over and no request is to come."""
        return self._has_recovered() and not self.federation.ledger.waiting()

    def _serve_due(self, arrays: Arrays) -> Arrays:
        """Serve every request that is due, oldest first."""
        federation = self.federation
        for request in self._ready():
            edited = federation.edited
            log.info("serving request %s: forget %s", request.id, request.describe())
            judge = federation.judge

            def measured(
                before: Arrays, after: Arrays, request: Request = request, judge: Any = judge
            ) -> Mapping[str, float | None]:
                with federation.aside():
                    return {} if judge is None else judge(request, before, after)

            try:
                arrays = fulfil(
                    request,
                    self,
                    arrays,
                    federation.history,
                    federation.ledger,
                    measured,
                    federation.guard,
                )
                if (held := federation.ledger.held().get(request.id)) is not None:
                    federation.edited = edited
                    log.warning("request %s is held: %s", request.id, held.facts["reason"])
            except FedUnlearnError as error:
                if federation.ledger.state(request.id) != "refused":
                    raise
                # A request that cannot be served must not end the federation for all.
                log.warning("request %s was refused: %s", request.id, error)
        return arrays

    def _ready(self) -> list[Request]:
        """Return what can be served now: what is due, if enough of it is there to be published.

        The rest is held, its data out of training from now on.
        """
        federation, ledger = self.federation, self.federation.ledger
        due = ledger.due(federation.completed)
        released = [request for request in due if ledger.is_released(request.id)]
        waiting = [request for request in due if request not in released]
        if len(waiting) >= federation.batch:
            return due
        held = ledger.held()
        for request in waiting:
            federation.forgotten = federation.forgotten | request
            self._roster.forget(request.leavers)
            if request.id not in held:
                reason = f"it waits until {federation.batch} requests can be published together"
                ledger.add(request.id, "held", stage=BATCH, reason=reason)
        return released

    def _concerned(self, request: Request, history: History, earlier: Forgotten) -> bool:
        """Return whether the model may rest on something that is not forgotten already.

        It does not where the owners never took part. But serving earlier requests deleted what the
        history knew of their owners: of these, nobody can tell.
        """
        if self.federation.foreign:
            return True
        nodes = self._roster.nodes
        known = {client: earlier.omission(client) for client in request.owners(nodes)}
        fresh = {
            client
            for client, gone in known.items()
            if not gone.everything and gone | request.omission(client) != gone
        }
        purged = {client for client in fresh if known[client]}
        return bool(fresh) and (bool(purged) or history.first_round(request) is not None)

    def _unlearning_round(self, server_round: int, arrays: Arrays) -> Arrays:
        self._arrays = arrays
        asked = dict(self.instruct(server_round))
        messages = self._messages(asked, arrays, server_round, unlearning=True)
        replies = self._roster.send_and_receive(messages, timeout=self.federation.timeout_s)
        read = self._read(replies, asked, arrays, "unlearn")
        if not asked:
            return self.combine(server_round, arrays, iter(()))
        self._asked = asked
        trains = all(found.step == "train" and found.arrays is None for found in asked.values())
        return self._combined(self.combine, server_round, arrays, read, robust=trains)

    def _combined(
        self,
        hook: Callable[[int, Arrays, Iterable[Reply]], Arrays],
        server_round: int,
        arrays: Arrays,
        replies: Iterator[Reply],
        *,
        robust: bool = False,
    ) -> Arrays:
        """Let a hook combine replies, and see that enough of them are good.

        Where the federation wants it, and all of them trained one model, they are made harmless
        first. They are counted when the last has come, still inside the hook, so that a round with
        too few of them is not recorded either.
        """
        valid: list[int] = []

        def counted() -> Iterator[Reply]:
            for reply in replies:
                valid.append(reply.client)
                yield reply
            lost = {c: why for c, why in self._roster.lost.items() if why != _NOTHING_LEFT}
            for client, why in sorted(lost.items()):
                log.warning("round %d: client %d is left out: %s", server_round, client, why)
            idle = self._roster.lost.keys() - lost.keys()
            if len(valid) < self.federation.min_replies * (len(self._asked) - len(idle)):
                raise FederationError(self._too_few(server_round, len(valid)))

        stream = counted()
        if robust and self.federation.robust is not None:
            stream = self.federation.robust.cleaned(arrays, stream)
        first = next(stream, None)
        if first is None:
            raise FederationError(self._too_few(server_round, 0))
        current = hook(server_round, arrays, _again(first, stream))
        for _ in stream:  # a hook may stop early; what it left is still checked and counted
            pass
        self._check_finite(current, f"the model of round {server_round}")
        if arrays.keys() != current.keys():
            return current
        return {name: current[name] for name in arrays}

    def _check_finite(self, arrays: Arrays, what: str) -> None:
        if not named.is_finite(arrays):
            raise FederationError(
                f"{what} is not finite and was discarded; lower the learning rate or the step of "
                f"{type(self).__name__}"
            )

    def _too_few(self, server_round: int, valid: int) -> str:
        lost = "; ".join(f"client {c}: {why}" for c, why in sorted(self._roster.lost.items())[:5])
        return (
            f"round {server_round}: {valid} of {len(self._asked)} clients gave a valid reply, "
            f"fewer than engine.min_replies allows ({lost or 'none was asked'})"
        )

    def _messages(
        self,
        asked: Mapping[int, Instruction],
        arrays: Arrays,
        server_round: int,
        *,
        unlearning: bool = False,
    ) -> Iterator[Message]:
        """Yield one message per client, in order; the model is serialised once."""
        federation, roster = self.federation, self._roster
        shared = to_record(arrays)
        absolute = federation.completed if unlearning else server_round
        defaults = dict(federation.train)
        if not unlearning and federation.forgotten.requests:
            defaults |= federation.recovery
        for client in sorted(asked):
            instruction = asked[client]
            address = [federation.seed, server_round, client]
            if instruction.seed_round is not None:
                address[1] = instruction.seed_round
            elif unlearning:
                address = [federation.seed, absolute + server_round, client, _UNLEARN]
            model = shared if instruction.arrays is None else to_record(instruction.arrays)
            trains = instruction.step == "train"
            keepsakes = federation.keepsakes if trains else self.keepsakes()
            kept = federation.attribution(client, absolute)
            if unlearning and trains:
                kept = {}
            facts = {
                **federation.client_config,
                Wire.CLIENT: client,
                Wire.STEP: instruction.step,
                Wire.SEED: address,
                Wire.SERVER_ROUND: absolute,
                Wire.REMEMBER: federation.remember and not (unlearning and trains),
                Wire.KEEP: {} if unlearning and trains else dict(keepsakes),
                Wire.SETTINGS: {**defaults, **kept, **instruction.settings},
                **self._forgotten_parts(client),
            }
            content = to_content(model, instruction.extras, facts)
            yield Message(content, roster.nodes[client], MessageType.TRAIN, group_id=str(absolute))

    def _forgotten_parts(self, client: int) -> dict[str, object]:
        """Return what a client must leave out: for good, and for the request being served.

        What a held request and this one both name is being forgotten now, not forgotten already.
        """
        current = self.request
        known = self.federation.forgotten.requests
        if current is not None:
            asked = current.omission(client)
            known = tuple(
                r
                for r in known
                if r.id != current.id
                and not (r.id in self._held and asked.covers(r.omission(client)))
            )
        earlier = Forgotten(known)
        parts: dict[str, object] = {Wire.OMIT: earlier.omission(client).to_json()}
        if current is not None:
            parts[Wire.FORGET] = current.omission(client).to_json()
        return parts

    def _read(
        self,
        messages: Iterable[Message],
        asked: Mapping[int, Instruction],
        arrays: Arrays,
        phase: str,
    ) -> Iterator[Reply]:
        """Yield checked replies; quarantine bad ones by name; meter all of them."""
        federation, roster = self.federation, self._roster
        down = roster.bytes_down
        self._losses = {}
        for message in messages:
            client = roster.sender(message)
            instruction = asked[client]
            sent = arrays if instruction.arrays is None else instruction.arrays
            try:
                reply = read_reply(
                    message,
                    client,
                    sent,
                    model_like=instruction.answers == "model",
                    declared=roster.declared.get(client),
                )
            except BadReplyError as error:
                roster.lost[client] = f"quarantined: {error}"
                continue
            federation.spend(
                phase,
                Cost(
                    client_s=reply.metrics.get(Wire.CLIENT_SECONDS, 0.0),
                    examples=int(reply.metrics.get(Wire.EXAMPLES_PROCESSED, 0)),
                    bytes_up=num_bytes(part(message.content, Wire.ARRAYS, ArrayRecord) or {}),
                ),
            )
            if reply.num_examples == 0:
                roster.lost[client] = _NOTHING_LEFT
                continue
            if Wire.LOSS in reply.metrics:
                self._losses[client] = reply.metrics[Wire.LOSS], reply.num_examples
            yield reply
        federation.spend(phase, Cost(client_rounds=len(asked), bytes_down=roster.bytes_down - down))


_NOTHING_LEFT = "holds no data any more"


def _update(reply: Reply) -> Arrays:
    if reply.update is None:
        raise FederationError(f"client {reply.client} sent no model; this round needs one")
    return reply.update


def _acknowledges(reply: Message, roster: Roster) -> bool:
    """Return whether a client answers for itself that it deleted."""
    receipt = part(reply.content, Wire.CONFIG, ConfigRecord) or ConfigRecord()
    return receipt.get(Wire.CLIENT) == roster.sender(reply)


def _again(first: Reply, rest: Iterator[Reply]) -> Iterator[Reply]:
    yield first
    yield from rest
