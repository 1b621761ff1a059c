"""One federation as a strategy sees it: its clients, its stores, its settings and its clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from unlearning.arrays import Arrays
from unlearning.cost import Cost
from unlearning.entropy import Noise
from unlearning.errors import ConfigError
from unlearning.fulfil import Guard
from unlearning.models import shards
from unlearning.models.array_model import ArrayModel
from unlearning.models.sequences import groups_in
from unlearning.protocol import Scalar, Settings
from unlearning.records.history import History
from unlearning.records.ledger import Ledger
from unlearning.request import Forgotten, Request
from unlearning.weighing import TRUNK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from strategies.robustness import Robust
    from strategies.roster import Roster

__all__ = [
    "ATTRIBUTION",
    "INITIAL",
    "LAST_LOCAL",
    "LEARN",
    "PUBLIC",
    "RECOVER",
    "UNLEARN",
    "Distil",
    "Federation",
    "Judge",
    "Watch",
    "keeping",
    "without_public_data",
]

LEARN, UNLEARN, RECOVER = "learn", "unlearn", "recover"  # phases of a federation

# Names among a strategy's needs, beside the columns of the history:
LAST_LOCAL = "last_local"  # every client's last local model, kept by itself
INITIAL = "initial"  # the untrained model of this run
ATTRIBUTION = "attribution"  # every client's account of what each task did to its updates
PUBLIC = "public"  # unlabelled examples at the server

_SAMPLE = 2  # last component of the seed address of a draw; unlearning rounds have 1, learning 0


def keeping(name: str) -> str:
    """Return under what the cost of one keepsake stands among the phases."""
    return f"keep {name}"


Watch = Callable[[str, int, Arrays], None]
Judge = Callable[[Request, Arrays, Arrays], Mapping[str, float | None]]
Distil = Callable[[Arrays, Arrays, Settings, Sequence[int]], tuple[Arrays, int]]


def _see_nothing(phase: str, server_round: int, arrays: Arrays) -> None:
    """Watch nothing."""


def without_public_data(strategy: str) -> ConfigError:
    """Return the error of a strategy that has nothing to train on at the server."""
    return ConfigError(
        f"{strategy} trains on the server and data.public is 0; set data.public to the share of "
        "the training examples that the server gets without labels, for example 0.05"
    )


@dataclass(frozen=True)
class Moment:
    """From where a run goes on: with its history and ledger, all that later rounds rest on.

    Parameters
    ----------
    arrays : Arrays
        The global model.
    completed, goal, edited, losses, before, failed, costs
        As of :class:`Federation`.
    rounds : int
        The last round of the history that belongs to it.
    served : tuple of str
        The requests whose data are deleted in that history.
    lengths : mapping of int to list of float
        How long updates of learning were, where a robust rule wants to know.
    phase : str
        ``learn`` or ``recover`` for a round that nobody has looked at yet, else empty.
    velocity : Arrays
        As of :class:`Federation`.
    """

    arrays: Arrays
    completed: int
    goal: int
    edited: int
    losses: Mapping[int, tuple[float, int]]
    before: float | None
    failed: frozenset[str]
    costs: Mapping[str, Cost]
    rounds: int
    served: tuple[str, ...]
    lengths: Mapping[int, list[float]]
    phase: str = ""
    velocity: Arrays = field(default_factory=dict)


Save = Callable[[Moment], None]


def keep_nothing(moment: Moment) -> None:
    """Write nothing down."""


def _settle_nothing() -> None:
    """Remove nothing."""


@dataclass
class Federation:
    """What a strategy works with; what stands before ``roster`` is set once.

    Parameters
    ----------
    seed : int
        Root of all randomness of the run.
    history, ledger : History, Ledger
        The run's stores.
    train : mapping
        Settings of the local step ``train``.
    recovery : mapping
        Settings that replace some of ``train`` in rounds after an unlearning.
    recovery_rounds : int
        Learning rounds that follow when a request is served after the last round.
    recovery_fraction : float or None
        As ``fraction``, in rounds of recovery; None: the same.
    server_momentum : float
        What share of its last step the model goes on with in every round of recovery, [0, 1).
    tolerance : float or None
        Retraining and recovery end when the training loss exceeds what it was before the request by
        no more than this share; None: they use their budget of rounds.
    budget : int
        Unlearning and recovery end after the round that brings them to so many examples; 0: never.
    fraction : float
        Share of the clients that trains in a round, (0, 1].
    timeout_s : float
        Deadline of every exchange, in seconds.
    min_replies : float
        Smallest share of valid replies a round may have, [0, 1].
    client_config : mapping
        Sent with every message: what the clients are made of, where they remember.
    remember : bool
        Whether clients keep their last local model.
    keepsakes : mapping of str to mapping
        What else clients make and keep while they train: the step that makes it, its settings.
    foreign : bool
        Whether the model was trained elsewhere: nobody recorded who took part, and there is no
        untrained model to go back to.
    untrained : Arrays or None
        What the history starts from where that is not the model that learning starts from: of one
        that was trained elsewhere nothing is kept. None: they are the same.
    options : mapping
        The strategy's options, for the ledger.
    evaluate_split : str
        Ask the remaining clients about this split after every learning round (``held-out``,
        ``retain``); empty: do not ask, as where a simulation has all the data at hand.
    watch : callable
        ``watch(phase, server_round, arrays)`` after each round; its time is not counted.
    judge : callable or None
        ``judge(request, before, after)`` measures an unlearned model; its time is not counted.
    model : ArrayModel or None
        What is learned, where it is no network; it then says itself how.
    distil : callable or None
        ``distil(student, teacher, settings, seed)`` trains a model on the server's public data to
        answer as another does; returns it and the number of examples it was trained on, passes
        counted. None: the server has no data.
    has_tasks : bool
        Whether an example has a label per task.
    has_text : bool
        Whether text is learned.
    attribute : bool
        Whether clients of a model for several tasks keep what each task did to the trunk.
    guard : Guard or None
        Looks at requests before they are served and at answers before they are published.
    noise_key : bytes or None
        Key of all noise that a claim rests on, for tests and comparisons that must come out the
        same twice; nothing is then certified. None, the default: the operating system's entropy.
        It is no option of a scenario and is written nowhere.
    robust : Robust or None
        How updates are combined in rounds of unlearning and of recovery; None: as in learning.
    length_factor : float
        An update may be so many times as long as the median of its round; 0: as long as it likes.
    batch : int
        So many requests are published together; fewer wait, their data out of training.
    rate : int
        So many requests of one asker are begun within ``window_s``; more wait, their data out of
        training; 0: any number.
    window_s : float
        Of ``rate``, seconds.
    residuals : tuple of str
        Where else, in words, bytes of deleted messages can still lie; the ledger notes them.
    stop : callable
        True cancels the run.
    roster : Roster or None
        Set when the grid is there.
    completed : int
        Learning rounds done so far, the ones before a fork included.
    edited : int
        What ``completed`` was when an unlearning last changed the model; -1: never. While the two
        are equal, the model is not the average of the last round.
    losses : mapping of int to (float, int)
        What clients reported in the last learning round: mean training loss in nats, examples.
    forgotten : Forgotten
        Who and what may never be trained on again.
    failed : frozenset of str
        Requests that failed since the run was started; they are not tried again before the next
        start, or before somebody asks anew.
    costs : dict
        Cost by phase: ``learn``, ``unlearn``, ``recover``.
    save : callable
        ``save(moment)`` writes down from where a run that is killed goes on: before a round is
        recorded, and before what a request names is deleted.
    settle : callable
        ``settle()`` removes the moments that rest on what was deleted.
    goal : int
        What ``completed`` is to come to.
    owed : int
        Rounds of recovery that follow once the request being served is answered.
    before : float or None
        The training loss of the remaining clients before the request that was served last, nats.
    phase : str
        ``learn``, ``unlearn`` or ``recover``: the round that is under way.
    velocity : Arrays
        The last step of recovery, where the server has momentum.
    """

    seed: int = 0
    history: History = field(default_factory=History)
    ledger: Ledger = field(default_factory=Ledger)
    train: Settings = field(default_factory=dict)
    recovery: Settings = field(default_factory=dict)
    recovery_rounds: int = 5
    recovery_fraction: float | None = None
    server_momentum: float = 0.0
    tolerance: float | None = None
    budget: int = 0
    fraction: float = 1.0
    timeout_s: float = 600.0
    min_replies: float = 0.5
    client_config: Mapping[str, Scalar] = field(default_factory=dict)
    remember: bool = False
    keepsakes: Mapping[str, Settings] = field(default_factory=dict)
    foreign: bool = False
    untrained: Arrays | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    evaluate_split: str = ""
    watch: Watch = _see_nothing
    judge: Judge | None = None
    model: ArrayModel | None = None
    distil: Distil | None = None
    has_tasks: bool = False
    has_text: bool = False
    attribute: bool = False
    guard: Guard | None = None
    robust: Robust | None = None
    noise_key: bytes | None = None
    length_factor: float = 10.0
    batch: int = 1
    rate: int = 0
    window_s: float = 3600.0
    residuals: tuple[str, ...] = ()
    stop: Callable[[], bool] = lambda: False
    roster: Roster | None = None
    completed: int = 0
    edited: int = -1
    losses: Mapping[int, tuple[float, int]] = field(default_factory=dict)
    forgotten: Forgotten = field(default_factory=Forgotten)
    failed: frozenset[str] = frozenset()
    costs: dict[str, Cost] = field(default_factory=dict)
    save: Save = keep_nothing
    settle: Callable[[], None] = _settle_nothing
    goal: int = 0
    owed: int = 0
    before: float | None = None
    phase: str = LEARN
    velocity: Arrays = field(default_factory=dict)
    _aside_s: float = 0.0

    def sample(self, server_round: int, clients: tuple[int, ...]) -> tuple[int, ...]:
        """Return who trains in a round: drawn from all clients ever, then without the forgotten.

        The draw does not depend on who has left, so a retrained federation keeps the same random
        stream as the original one. Where only the forgotten were drawn, the next in line step in.

        Parameters
        ----------
        server_round : int
            Absolute round, from 1.
        clients : tuple of int
            All clients ever, in order.
        """
        # Seeds are padded with zeros: [seed, round] alone would be the address of client 0.
        address = [self.seed, server_round, 0, _SAMPLE]
        order = np.random.default_rng(address).permutation(len(clients))
        size = max(1, round(self.share_drawn * len(clients)))
        gone = self.forgotten.clients
        drawn = [clients[i] for i in order[:size] if clients[i] not in gone]
        if not drawn:
            drawn = [clients[i] for i in order if clients[i] not in gone][:1]
        return tuple(sorted(drawn))

    def draw(
        self,
        server_round: int,
        clients: tuple[int, ...],
        names: Iterable[str],
        gone: frozenset[int] | None = None,
    ) -> tuple[int, ...]:
        """Return who trains in a round of a model, by the names of its arrays.

        Of a model in shards or sequences every group draws for itself. There, and where training
        samples stably, it is drawn by keys that ignore whoever has left (``gone``; None: all up to
        now).
        """
        stable = 1 if self.train.get("stable_steps") else 0
        if count := groups_in(list(names)) or stable:
            gone = self.forgotten.clients if gone is None else gone
            return shards.drawn(self.seed, server_round, clients, gone, self.share_drawn, count)
        return self.sample(server_round, clients)

    @property
    def share_drawn(self) -> float:
        """The share of clients that trains in the round under way."""
        own = self.recovery_fraction if self.phase == RECOVER else None
        return self.fraction if own is None else own

    def attribution(self, client: int, server_round: int) -> dict[str, Scalar]:
        """Return what a client must know to keep, or to hand out, what each task has done.

        That is its share in the last average of the trunk it was part of, 0 if it trained no task
        that shares the trunk, and the number of this round. A recovery round whose updates were
        replaced by robust ones is nobody's: its share is 0.
        """
        if not self.attribute:
            return {}
        facts: dict[str, Scalar] = {"attribute": True, "round": server_round}
        for last in reversed(self.history.rounds):
            if (share := self.history.weights(last, part=TRUNK).get(client)) is not None:
                lost = self.robust is not None and 0 <= self.edited < last
                return {**facts, "share": 0.0 if lost else share, "share_round": last}
        return facts

    @property
    def has_learned(self) -> bool:
        """Whether any round was learned since a request last changed the model."""
        return self.edited != self.completed

    def secret_noise(self, purpose: str) -> Noise:
        """Return noise for one model that is released, with a key that is kept nowhere.

        With ``noise_key`` it is the same again for the same request of the same run.
        """
        served = len(self.forgotten.requests)
        return Noise(self.noise_key, f"{purpose}|{self.seed}|{self.completed}|{served}")

    def moment(self, arrays: Arrays, **changes: Any) -> Moment:
        """Return the present moment, some of it as it will be when it is written down."""
        rounds, served = self.history.mark
        now: dict[str, Any] = {
            "completed": self.completed,
            "goal": self.goal + self.owed,
            "edited": self.edited,
            "losses": dict(self.losses),
            "before": self.before,
            "failed": self.failed,
            "costs": dict(self.costs),
            "rounds": rounds,
            "served": served,
            "lengths": {} if self.robust is None else self.robust.lengths,
            "velocity": self.velocity,
        }
        return Moment(arrays, **{**now, **changes})

    def keep_answer(self, arrays: Arrays, request: Request, clean: History) -> None:
        """Write down the answer to a request, before what it names is deleted."""
        served = (*self.history.served, request.id)
        with self.aside():
            self.save(self.moment(arrays, rounds=clean.mark[0], served=served))

    def resume(self, moment: Moment) -> None:
        """Take up what was written down; the history must be that of the moment."""
        self.completed, self.goal, self.edited = moment.completed, moment.goal, moment.edited
        self.losses, self.before = dict(moment.losses), moment.before
        self.failed, self.costs = moment.failed, dict(moment.costs)
        self.velocity = dict(moment.velocity)
        if self.robust is not None:
            self.robust.lengths = {k: list(v) for k, v in moment.lengths.items()}

    def observe(self, phase: str, server_round: int, arrays: Arrays) -> None:
        """Let the watcher look at a model, off the clock."""
        with self.aside():
            self.watch(phase, server_round, arrays)

    def spend(self, phase: str, cost: Cost) -> None:
        """Add to the cost of a phase."""
        self.costs[phase] = self.costs.get(phase, Cost()) + cost

    @property
    def is_spent(self) -> bool:
        """Whether unlearning and recovery have used up their budget of examples."""
        if not self.budget:
            return False
        used = sum(self.costs.get(phase, Cost()).examples for phase in ("unlearn", "recover"))
        return used >= self.budget

    def preparation(self, names: Iterable[str]) -> Cost:
        """Return what learning spent on keepsakes, a part of the cost of learning."""
        return sum((self.costs.get(keeping(name), Cost()) for name in names), Cost())

    def clock(self) -> float:
        """Return seconds of work since some moment, time spent watching and judging left out."""
        return time.perf_counter() - self._aside_s

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Do something that is not part of the work and not on the clock."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._aside_s += time.perf_counter() - begun
