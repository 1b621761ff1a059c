"""FedAvg with history and unlearning hooks: the contract every algorithm fills in.

References
----------
McMahan, Moore, Ramage, Hampson, Agueera y Arcas, "Communication-Efficient Learning of Deep
Networks from Decentralized Data", AISTATS 2017 (arXiv 1602.05629).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Result

from strategies import answering, discovery, fitness, holdings, serving, starting
from strategies.exchange import evaluation_messages, mean_measures, missing
from strategies.federation import ATTRIBUTION, INITIAL, LAST_LOCAL, PUBLIC, Federation
from strategies.fitness import EVERY_MODEL, Ground, in_range, one_of
from strategies.mistakes import told_to_author
from strategies.momentum import carried_on
from strategies.roster import Roster
from strategies.rounds import Rounds, recorded
from strategies.shares import Span
from strategies.wire import to_arrays, to_record
from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.errors import ConfigError, FederationError
from unlearning.models import heads
from unlearning.models.array_model import ArrayModel
from unlearning.protocol import Instruction, Reply, Settings
from unlearning.records.history import COLUMNS, History
from unlearning.request import Guarantee, Request, Scope

__all__ = ["EVERY_MODEL", "UnlearningStrategy", "in_range", "one_of"]


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
    reuses : bool
        Whether a round of unlearning rests on recorded updates too: ``combine`` is then called also
        where whoever is asked has no data left.
    several_tasks : bool
        Whether it works where an example has a label per task; else it refuses there.
    moves_inputs : bool
        Whether clients move examples along a slope: possible with numbers, not with text.
    learns_again : bool
        Whether its rounds of unlearning are rounds of training like any other, which end early by
        the rule that also ends recovery.
    edits : bool
        Whether it changes the model itself. False: all it does is left to recovery.
    settled : str
        Why the model as it is answers the request being served, where a hook knows. Otherwise an
        answer that changed no weight fails, unless nobody holds what is forgotten.
    idle : str
        Why an algorithm has done nothing of what it is for, where a hook knows; the request fails
        likewise, whatever has changed the model meanwhile.
    """

    scopes: ClassVar[frozenset[Scope]] = frozenset()
    guarantee: ClassVar[Guarantee] = Guarantee.APPROXIMATE
    needs: ClassVar[frozenset[str]] = frozenset()
    asks_forgotten: ClassVar[bool] = False
    models: ClassVar[frozenset[str] | None] = None
    moves_inputs: ClassVar[bool] = False
    learns_again: ClassVar[bool] = False
    edits: ClassVar[bool] = True
    reuses: ClassVar[bool] = False
    several_tasks: ClassVar[bool] = True
    tunable: ClassVar[Mapping[str, Span]] = {}

    def __init__(self) -> None:
        super().__init__(min_train_nodes=1, min_evaluate_nodes=1, min_available_nodes=1)
        self._federation: Federation | None = None
        self.request: Request | None = None
        self.rewritten: History | None = None
        self.settled = self.idle = ""
        self._under_way = Rounds(type(self).__name__)

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
        terms = map(_term, replies)
        return named.apply_update(arrays, named.weighted_mean(terms))

    # What an algorithm may call ------------------------------------------------------------

    def sample(self, server_round: int) -> tuple[int, ...]:
        """Return the remaining clients that train in a round (absolute, from 1)."""
        return self.federation.draw(server_round, tuple(self._roster.nodes), self._arrays)

    @property
    def federation(self) -> Federation:
        """The federation it works in; one of nobody, in memory, before :meth:`join`."""
        if self._federation is None:
            self._federation = Federation()
        return self._federation

    @federation.setter
    def federation(self, federation: Federation) -> None:
        self._federation = federation

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

        def learn(number: int, before: Arrays, answers: Iterable[Reply]) -> Arrays:
            return carried_on(self.federation, before, self.learn(number, before, answers))

        return recorded(
            history,
            server_round,
            arrays,
            replies,
            learn,
            who=type(self).__name__,
            like=arrays if self.federation.model is None else None,
            kept=kept,
        )

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

    def rewrite_afresh(self, history: History) -> History:
        """Return a record of no rounds, in memory, for the few that a clean one has.

        As with :meth:`rewrite` it replaces the history or is thrown away.
        """
        self.discard()
        self.rewritten = history.anew()
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
            If the scope is not served, or the data are of a kind it does not work on.
        ConfigError
            If it does not work on the model that is learned.
        HistoryError
            If the run was not recorded as the strategy needs.
        """
        ground = fitness.ground_of(self.federation)
        self.check_request(request, ground)
        if self.federation.foreign:
            self.check_foreign()
        self.check_model(self.federation.model)
        self.check_ground(ground)
        fitness.check_needs(type(self).__name__, self.needs, self.keepsakes(), self.federation)

    def check_foreign(self) -> None:
        """Raise HistoryError where a model was trained elsewhere and ``needs`` is not empty."""
        fitness.check_foreign(type(self).__name__, self.needs)

    def check_request(self, request: Request, ground: Ground) -> None:
        """Refuse what can be told of a request before the first round: by default its scope."""
        self.check_scope(request)

    def check_ground(self, ground: Ground) -> None:
        """Refuse what is known before the first round and stands against every request.

        Raises
        ------
        UnsupportedRequestError
            If it does not work on data of this kind.
        """
        fitness.check_ground(type(self), ground)

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

    def fingerprint(self, arrays: Arrays) -> str:
        """Return what tells a model from any other, for the ledger.

        An array model may say itself what that is, by a method of the same name.
        """
        own = getattr(self.federation.model, "fingerprint", named.fingerprint)
        return str(own(arrays))

    def unlearn(self, request: Request, history: History, arrays: Arrays) -> Arrays:
        """Return the model without what the request names; counts its cost under ``unlearn``.

        A target that never took part changes nothing; where nobody is left, the answer is the
        initial model, which nobody influenced.

        Raises
        ------
        FederationError
            If a round had too few valid replies or the result is not finite, or nothing was done.
        HistoryError
            If what the strategy needs was not recorded.
        """
        with told_to_author(type(self)):
            return answering.unlearn(self, self._under_way, self._roster, request, history, arrays)

    def dismiss(self, request: Request) -> dict[str, object]:
        """Have the owners delete for good; return who acknowledged, who did not, and how much."""
        return serving.dismiss(self.federation, self._roster, request)

    def overlap(self, request: Request) -> dict[str, object]:
        """Have clients hash their samples, to tell how much of the forgotten is still held."""
        held = serving.unanswered(self.federation)
        return holdings.overlap(self.federation, self._roster, request, held)

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
        roster = starting.begin(
            federation, grid, lambda: to_arrays(initial_arrays), num_rounds, timeout
        )
        fresh = federation.edited < federation.completed
        self._under_way.losses = dict(federation.losses) if fresh else {}
        flower = super().start
        common = (federation.timeout_s, train_config, evaluate_config, evaluate_fn)
        result = flower(roster, initial_arrays, num_rounds, *common)

        def learn(arrays: Arrays, rounds: int) -> Arrays:
            nonlocal result
            result = flower(roster, to_record(arrays), rounds, *common)
            return to_arrays(result.arrays)

        arrays = to_arrays(result.arrays if num_rounds else initial_arrays)
        serving.ask_again(self, federation)  # where no round is left that would
        result.arrays = to_record(starting.serve_rest(federation, arrays, self._serve_due, learn))
        return result

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Serve what is open, then return the messages of the next learning round."""
        given = to_arrays(arrays, copy=False)
        now = self._under_way.arrays = self._serve_due(given)
        self._under_way.record = arrays if now is given else None
        with told_to_author(type(self)):
            return self._under_way.learn(
                self.federation, self._roster, self.teach, self.keepsakes()
            )

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Check replies one by one, record them, and return the next model."""
        with told_to_author(type(self)):
            current = self._under_way.learned(self.federation, replies, self.recorded)
        return to_record(current), None

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask the remaining clients about a split of their data, where the federation wants it."""
        if not self.federation.evaluate_split or self._under_way.asks_nobody:
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

    @property
    def _arrays(self) -> Arrays:
        """The model that the round under way begins with."""
        return self._under_way.arrays

    def _serve_due(self, arrays: Arrays) -> Arrays:
        return serving.serve_due(self, self.federation, self._roster, arrays)


def _term(reply: Reply) -> tuple[int, Arrays]:
    """Return what a reply weighs in the mean, and its update."""
    if reply.update is None:
        raise FederationError(f"client {reply.client} sent no model; this round needs one")
    return reply.num_examples, reply.update
