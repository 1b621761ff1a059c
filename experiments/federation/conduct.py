"""Conduct the federations of one seed: learn, let strategies answer, recover, and judge."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from flwr.serverapp import Grid

from experiments.config.loading import Config, alias_of
from experiments.federation.distil import distil
from experiments.federation.guard import robust_of, watchman_of
from experiments.federation.judge import Judge
from experiments.federation.task import Task
from experiments.federation.task_judge import judge_of
from experiments.runs.details import Point, Refused
from experiments.runs.folder import RunFolder
from experiments.runs.progress import Observer, Tick
from experiments.runs.results import FINE_TUNE, ORIGINAL, RETRAIN
from strategies.base import UnlearningStrategy
from strategies.federation import ATTRIBUTION, LAST_LOCAL, Federation
from strategies.roster import Roster
from strategies.wire import to_arrays, to_record
from unlearning.arrays import Arrays, mismatch, not_finite
from unlearning.cost import Cost
from unlearning.errors import (
    ConfigError,
    FederationError,
    FedUnlearnError,
    UnsupportedRequestError,
)
from unlearning.evaluation.scorecard import Outputs, score
from unlearning.evaluation.tally import Tally
from unlearning.packing import PackingError, pack, unpack_file
from unlearning.protocol import Scalar, Settings, Wire
from unlearning.records.files import write_atomically
from unlearning.records.history import COLUMNS, History
from unlearning.records.ledger import Ledger
from unlearning.request import Forgotten, Request

__all__ = ["Conductor", "Party", "keepsakes", "starting_model"]

_JOIN_S = 300.0  # longest wait for all clients to say who they are
_LEAST_WINDOW = 16  # messages in flight: bounds the server's memory, keeps every worker busy


@dataclass
class Party:
    """One row in the making: a strategy's model at one seed, and what led to it.

    Parameters
    ----------
    strategy : str
        Alias, or ``original``.
    seed : int
        Of the federation.
    guarantee : str
        Of the strategy; ``none`` for the original.
    arrays : Arrays
        The final model.
    outputs : Outputs
        What it says about every set.
    costs : mapping of str to Cost
        By phase.
    history_bytes : int or None
        Bytes of the history that the strategy read.
    scope : str
        Of the request.
    timeline : list of Point
        Measurements along the way.
    tally : Tally or None
        Right answers per remaining client and class.
    """

    strategy: str
    seed: int
    guarantee: str
    arrays: Arrays
    outputs: Outputs
    costs: Mapping[str, Cost]
    history_bytes: int | None
    scope: str
    timeline: list[Point] = field(default_factory=list)
    tally: Tally | None = None


class Conductor:
    """Runs the federations of one seed on a grid.

    Parameters
    ----------
    config : Config
        With the seed of this federation.
    task : Task
        Data and model of this seed.
    folder : RunFolder or Path
        Where things are kept; of a mere path, what clients remember alone, histories in memory.
    ledger : Ledger
        Of the run; branches of it serve a comparison.
    tell : Observer
        Told of every round.
    stop : callable
        True cancels.
    share : (int, int)
        This is federation number ``share[0]`` of ``share[1]``, for the progress.
    glances : bool
        Whether to measure after every round, for a timeline.
    """

    def __init__(
        self,
        config: Config,
        task: Task,
        folder: RunFolder | Path,
        ledger: Ledger,
        tell: Observer,
        stop: Callable[[], bool],
        *,
        share: tuple[int, int] = (0, 1),
        glances: bool = True,
    ) -> None:
        self._config, self._task, self._glances = config, task, glances
        self._folder = folder if isinstance(folder, RunFolder) else None
        self._ledger, self._tell, self._stop = ledger, tell, stop
        self._requests = config.domain_requests(task.marked_samples)
        self._homes = folder.homes if isinstance(folder, RunFolder) else folder / "clients"
        self._share = share
        self._done = 0
        self._expected = 0
        self.failures: tuple[Refused, ...] = ()
        self._timeline: list[Point] = []
        self._position = 0
        self._window = max(_LEAST_WINDOW, 4 * config.engine.workers)

    def run(self, grid: Grid, strategy: UnlearningStrategy) -> list[Party]:
        """Learn and serve every request, scheduled or arriving; return original and result.

        Raises
        ------
        ConfigError
            If there is no run folder to keep the model in.
        """
        if self._folder is None:
            raise ConfigError("a run keeps its model; give it a run folder")
        for request in self._requests:
            self._ledger.receive(request)
        name, seed = alias_of(self._config.strategy), self._config.seed
        federation = self._federation(grid, [strategy], self._homes / f"seed-{seed}")
        rounds = max([self._config.rounds, *(self._last_round(r) for r in self._requests)])
        self._expected = rounds + self._guess(strategy)
        parties: list[Party] = []
        read: list[int] = []

        def judge(request: Request, before: Arrays, after: Arrays) -> dict[str, float | None]:
            read.append(federation.history.read_bytes)
            judged = self._judge([*self._served(), request])
            if not parties:
                parties.append(self._original(before, judged, federation, request.scope))
                self._timeline = []  # what follows is the strategy's
            return score(judged.outputs(after)).to_json()

        self._watch(federation, name, self._judge(self._requests))
        federation.judge = judge
        given = starting_model(self._config, self._task)
        federation.foreign = given is not None
        if given is not None:
            federation.history.destroy()  # it would keep the model it starts from
            federation.history = History(keep=federation.history.keep)
        start = self._task.initial() if given is None else given
        arrays = self._start(strategy, grid, federation, start, rounds)
        served = self._served()
        final = self._judge(served)
        outputs = final.outputs(arrays)
        scope = served[-1].scope.value if served else "none"
        parties.append(
            Party(
                name,
                seed,
                str(strategy.guarantee) if served else "none",
                arrays,
                outputs,
                dict(federation.costs),
                sum(read) if served else None,
                scope,
                self._timeline,
                final.tally(outputs),
            )
        )
        write_atomically(self._folder.model, pack(arrays))
        federation.history.close()
        return parties

    def compare(
        self, grid: Grid, strategies: Mapping[str, UnlearningStrategy], *, onward: bool = False
    ) -> list[Party]:
        """Learn up to the first request once, then let every strategy answer on a fork.

        Parameters
        ----------
        grid : Grid
            Of this federation.
        strategies : mapping of str to UnlearningStrategy
            By alias or ``module:Class``.
        onward : bool
            Let the original learn on with everything for as long as the others recover: models of
            unequal numbers of rounds differ for that reason alone.
        """
        for request in self._requests:
            self._ledger.receive(request)
        seed = self._config.seed
        judge = self._judge(self._requests)
        first = min(request.at_round or self._config.rounds for request in self._requests)
        last = max([self._config.rounds, *(self._last_round(r) for r in self._requests)])
        home = self._homes / f"seed-{seed}" / "learn"
        federation = self._federation(grid, strategies.values(), home)
        federation.ledger = Ledger()  # learning serves nothing: the branches do
        self._expected = first + sum(last - first + self._guess(s) for s in strategies.values())
        self._watch(federation, ORIGINAL, judge)
        learner = UnlearningStrategy()
        arrays = self._start(learner, grid, federation, self._task.initial(), first)
        scope = self._requests[0].scope
        parties = [self._original(arrays, judge, federation, scope)]
        if onward:
            later = self._branch(grid, ORIGINAL, learner, federation, Ledger(), arrays, judge, last)
            parties = [replace(later, guarantee="none", costs=parties[0].costs)]
        for name, strategy in strategies.items():
            branch = self._ledger.on_branch(f"{alias_of(name)}/seed-{seed}")
            try:
                party = self._branch(grid, name, strategy, federation, branch, arrays, judge, last)
            except InterruptedError:
                raise
            except Exception as error:
                if name in (RETRAIN, FINE_TUNE):
                    raise
                # One strategy that cannot answer must not cost the answers of all others; one of a
                # user's own may raise anything.
                known = isinstance(error, FedUnlearnError)
                why = f"{error}" if known else f"{type(error).__name__}: {error}"
                self.failures += (Refused(strategy=name, reason=f"seed {seed}: {why}"),)
            else:
                parties.append(party)
        self._close(federation, list(strategies))
        return parties

    def without(self, grid: Grid, gone: Request) -> Arrays:
        """Learn from the beginning as if what ``gone`` names had never been there, then go on.

        That is the model of the strategy ``retrain`` after its recovery, bit for bit, without an
        original to begin with.
        """
        config = self._config
        federation = self._federation(grid, (), self._homes / f"seed-{config.seed}" / "without")
        federation.ledger = Ledger()
        federation.ledger.receive(gone)
        for event in ("started", "fulfilled"):
            federation.ledger.add(gone.id, event)
        recovery, federation.recovery = federation.recovery, federation.train
        federation.recovery_rounds = 0
        self._watch(federation, RETRAIN, None)
        arrays = self._task.initial()
        learner = UnlearningStrategy()
        for rounds in (config.rounds, config.recovery_rounds):
            arrays = self._start(learner, grid, federation, arrays, rounds)
            federation.recovery = recovery
        federation.history.close()
        return arrays

    # Inside ---------------------------------------------------------------------------------

    def _judge(self, requests: Iterable[Request]) -> Judge:
        return judge_of(self._task, requests, self._config.device)

    def _branch(
        self,
        grid: Grid,
        name: str,
        strategy: UnlearningStrategy,
        learned: Federation,
        ledger: Ledger,
        arrays: Arrays,
        judge: Judge,
        last: int,
    ) -> Party:
        """Let one strategy answer on copies of everything, then throw the copies away."""
        alias, seed = alias_of(name), self._config.seed
        safe = alias.replace(":", ".").replace("/", ".")
        home = self._homes / f"seed-{seed}" / safe
        remember, kept = LAST_LOCAL in strategy.needs, strategy.keepsakes()
        origin = Path(str(learned.client_config[Wire.HOME]))
        if (remember or kept or learned.attribute) and origin.exists():
            shutil.copytree(origin, home)
        roster = learned.roster
        if roster is None:
            raise RuntimeError("a branch needs a federation that has met its clients")
        root = learned.history.root
        place = None if root is None else root.with_name(f"seed-{seed}.{safe}")
        history = learned.history.fork(place, durable=False)  # it lives as long as the branch
        read: list[int] = []

        def measure(request: Request, before: Arrays, after: Arrays) -> dict[str, float | None]:
            read.append(history.read_bytes)
            return score(judge.outputs(after)).to_json()

        federation = replace(
            learned,
            history=history,
            ledger=ledger,
            client_config={**learned.client_config, Wire.HOME: str(home)},
            roster=Roster(
                grid, roster.nodes, roster.declared, window=self._window, stop=self._stop
            ),
            judge=measure,
            # What all others are measured against must be there, whatever it looks like.
            guard=None if name in (RETRAIN, FINE_TUNE) else learned.guard,
            remember=remember,  # what other strategies have kept must not cost this one anything
            keepsakes=kept,
            forgotten=Forgotten(),
            costs={},
        )
        self._timeline, self._position = [], learned.completed
        self._watch(federation, alias, judge)
        rounds = last - learned.completed
        try:
            final = self._start(strategy, grid, federation, arrays, rounds)
            self._expect_served(federation.ledger)
        finally:
            history.destroy()
            shutil.rmtree(home, ignore_errors=True)
        outputs = judge.outputs(final)
        return Party(
            alias,
            seed,
            str(strategy.guarantee),
            final,
            outputs,
            dict(federation.costs),
            sum(read),
            self._requests[0].scope.value,
            self._timeline,
            judge.tally(outputs),
        )

    def _expect_served(self, ledger: Ledger) -> None:
        """Raise where there is no answer: refused, failed, or held by the guard.

        A federation goes on after that, a comparison must not take it for an answer.
        """
        for held in ledger.held().values():
            raise FederationError(f"its answer is held by the guard: {held.facts['reason']}")
        for request in ledger.requests():
            if (state := ledger.state(request.id)) in ("refused", "failed"):
                told = [e for e in ledger.events(request.id) if e.branch == ledger.branch]
                kind = UnsupportedRequestError if state == "refused" else FederationError
                raise kind(str(told[-1].facts["reason"]))

    def _close(self, federation: Federation, names: list[str]) -> None:
        """After a comparison: nothing of the forgotten stays in the run's own stores."""
        seed = self._config.seed
        branch = self._ledger.on_branch(f"seed-{seed}")
        for request in self._requests:
            facts = {"strategy": "comparison", "strategies": names}
            branch.add(request.id, "started", **facts)
            removed = federation.history.purge(request)
            branch.add(request.id, "fulfilled", **facts, removed_bytes=removed.bytes)
        federation.history.close()
        shutil.rmtree(self._homes / f"seed-{seed}", ignore_errors=True)
        if self._homes.exists() and not any(self._homes.iterdir()):
            self._homes.rmdir()

    def _federation(
        self, grid: Grid, strategies: Collection[UnlearningStrategy], home: Path
    ) -> Federation:
        """Return a federation that keeps what the strategies need and nothing more."""
        config = self._config
        needs = frozenset[str]().union(*(strategy.needs for strategy in strategies))
        history = History(
            None if self._folder is None else self._folder.history(config.seed),
            keep=needs & COLUMNS,
            interval=config.history.interval,
            dtype=config.history.dtype,
        )
        client_config: dict[str, Scalar] = {
            Wire.SCENARIO: self._task.scenario.to_json(),
            Wire.DEVICE: config.device,
            Wire.HOME: str(home.absolute()),
            Wire.TIMEOUT: config.engine.timeout_s,
        }
        train = config.train.model_dump()
        recovery = config.recovery_train.model_dump()
        fraction = train.pop("fraction")
        recovery.pop("fraction")
        roster = Roster.discover(
            grid,
            len(self._task.clients),
            {**client_config, Wire.COMMIT: config.guard.commitment},
            timeout_s=min(config.engine.timeout_s, _JOIN_S),
            window=self._window,
            stop=self._stop,
        )
        if roster.commitments and self._folder is not None:
            self._folder.write_commitments({k: c.root for k, c in roster.commitments.items()})
        return Federation(
            seed=config.seed,
            history=history,
            ledger=self._ledger,
            train=train,
            recovery=recovery,
            recovery_rounds=config.recovery_rounds,
            tolerance=config.stop.tolerance,
            fraction=fraction,
            timeout_s=config.engine.timeout_s,
            min_replies=config.engine.min_replies,
            client_config=client_config,
            remember=LAST_LOCAL in needs,
            keepsakes=keepsakes(strategies),
            attribute=ATTRIBUTION in needs,
            model=self._task.array_model,
            distil=partial(distil, self._task, config.device) if config.data.public else None,
            guard=watchman_of(config.guard, self._task, roster.commitments, config.device),
            robust=robust_of(config.guard),
            batch=config.guard.batch,
            stop=self._stop,
            roster=roster,
        )

    def _start(
        self,
        strategy: UnlearningStrategy,
        grid: Grid,
        federation: Federation,
        arrays: Arrays,
        rounds: int,
    ) -> Arrays:
        strategy.join(federation)
        timeout = federation.timeout_s
        result = strategy.start(grid, to_record(arrays), num_rounds=rounds, timeout=timeout)
        return to_arrays(result.arrays)

    def _original(self, arrays: Arrays, judge: Judge, federation: Federation, scope: str) -> Party:
        outputs = judge.outputs(arrays)
        return Party(
            ORIGINAL,
            self._config.seed,
            "none",
            arrays,
            outputs,
            {"learn": federation.costs.get("learn", Cost())},
            None,
            str(scope),
            self._timeline,
            judge.tally(outputs),
        )

    def _watch(self, federation: Federation, name: str, judge: Judge | None) -> None:
        """Measure after every round, if anyone wants to know, and tell how far we are."""
        seed = self._config.seed
        begun = time.perf_counter()

        def watch(phase: str, server_round: int, arrays: Arrays) -> None:
            self._position += 1
            self._done += 1
            label = ORIGINAL if phase == "learn" else name
            facts = {"strategy": label, "seed": seed, "phase": phase, "round": self._position}
            seen = judge.glance(arrays) if judge is not None and self._glances else {}
            wall_s = time.perf_counter() - begun
            if seen:
                self._timeline.append(Point.model_validate({**facts, **seen, "wall_s": wall_s}))
            number, of = self._share
            self._expected = max(self._expected, self._done)
            done, total = number * self._expected + self._done, of * self._expected
            accuracy = seen.get("test_accuracy")
            self._tell(Tick(name, seed, phase, server_round, done, total, accuracy))

        federation.watch = watch

    def _last_round(self, request: Request) -> int:
        return (request.at_round or self._config.rounds) + self._config.recovery_rounds

    def _guess(self, strategy: UnlearningStrategy) -> int:
        """Return about how many rounds of unlearning a strategy takes, for the progress only."""
        known = {RETRAIN: self._config.rounds, FINE_TUNE: 0}
        name = alias_of(f"{type(strategy).__module__}:{type(strategy).__name__}")
        return known.get(name, self._config.rounds // 2) * len(self._requests)

    def _served(self) -> list[Request]:
        return [r for r in self._ledger.requests() if self._ledger.state(r.id) == "fulfilled"]


def starting_model(config: Config, task: Task) -> Arrays | None:
    """Return the model that ``[start]`` names, or None if the run starts from an untrained one.

    Raises
    ------
    ConfigError
        If the file cannot be read or holds another model.
    """
    path = config.start.model
    if path is None:
        return None
    try:
        found = unpack_file(Path(path).expanduser())
    except (OSError, PackingError) as error:
        raise ConfigError(
            f"start.model = {path!r} cannot be read ({error}); name a safetensors file"
        ) from error
    expected = task.initial()
    if difference := mismatch(expected, found):
        raise ConfigError(
            f"start.model = {path!r} is not a model of [model] {config.model.name!r}: {difference}"
        )
    # A constant of the architecture, such as a mask of -inf, is no sign of a broken model.
    own = {name: a for name, a in found.items() if not np.array_equal(a, expected[name])}
    if odd := not_finite(own):
        raise ConfigError(
            f"start.model = {path!r} holds a value in array {odd!r} that is not finite; take a "
            "model whose training did not diverge"
        )
    return {name: found[name] for name in expected}


def keepsakes(strategies: Iterable[UnlearningStrategy]) -> dict[str, Settings]:
    """Return what clients must make and keep while they train, for all of the strategies.

    Raises
    ------
    ConfigError
        If two want the same made with different settings.
    """
    found: dict[str, Settings] = {}
    for strategy in strategies:
        for name, how in strategy.keepsakes().items():
            if found.setdefault(name, how) != how:
                raise ConfigError(
                    f"{type(strategy).__name__} wants clients to make {name!r} with {dict(how)}, "
                    f"another strategy with {dict(found[name])}; give both the same options, or "
                    "compare them in separate runs"
                )
    return found
