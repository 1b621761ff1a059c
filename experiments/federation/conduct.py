"""Conduct the federations of one seed: learn, let strategies answer, recover, and judge.

What a stage finds is a value that the next one takes; nothing is written here but what a request
itself leaves in ledger and history. What the run tells of it is kept by the books.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from flwr.serverapp import Grid

from experiments.config.loading import Config, alias_of
from experiments.federation.branching import close, expect_served, fork, own_recovery
from experiments.federation.checkpoint import Saved
from experiments.federation.founding import (
    Site,
    compared_model,
    first_model,
    found_federation,
    prepare_foreign,
    recovery_of,
    start,
)
from experiments.federation.from_scratch import from_scratch, reference
from experiments.federation.going_on import going_on, take_up
from experiments.federation.judge import Judge
from experiments.federation.party import Failure, Party, in_words
from experiments.federation.site_judge import site_judge
from experiments.federation.task import Task
from experiments.federation.task_judge import judge_of
from experiments.federation.testimony import Testimony
from experiments.federation.watching import Lookout, Pace, first_request, guess, last_round
from experiments.runs.details import PREPARE, Answer, Point
from experiments.runs.folder import RunFolder
from experiments.runs.progress import Observer
from experiments.runs.results import ORIGINAL, RETRAIN
from strategies.base import UnlearningStrategy
from strategies.federation import Federation, Moment, keep_nothing
from strategies.serving import has_work
from unlearning.arrays import Arrays
from unlearning.cost import Cost
from unlearning.errors import ConfigError
from unlearning.evaluation.scorecard import score
from unlearning.freed import overwrite_from_now_on, overwrite_small
from unlearning.protocol import Wire
from unlearning.records.ledger import Ledger
from unlearning.request import Request

__all__ = ["Conductor"]

log = logging.getLogger("fedunlearn")

_AGAIN_S = 60.0  # until owners that have not confirmed a deletion are asked again
_LOOK_S = 0.5  # between two looks at the ledger of a run that stays to serve


@dataclass(frozen=True)
class _Learned:
    """What all strategies of a comparison start from: a federation and the model it came to."""

    federation: Federation
    arrays: Arrays
    judge: Judge
    is_given: bool  # trained elsewhere: nothing was learned here


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
    idle_s : float
        How long a run waits for requests after its rounds, counted from the last it served.
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
        idle_s: float = 0.0,
    ) -> None:
        self._founded: list[Federation] = []
        self._idle_s = idle_s
        self._site = Site(config, task, folder, stop)
        self._config, self._task, self._glances = config, task, glances
        self._ledger = ledger
        self._requests = task.scheduled(config)
        self._pace = Pace(tell, config.seed, share)

    def close(self) -> None:
        """Let go of the histories, however the run ended: it may be resumed in this process."""
        for federation in self._founded:
            federation.history.close()

    def run(self, grid: Grid, strategy: UnlearningStrategy) -> Iterator[Party | Answer]:
        """Learn and serve every request, scheduled or arriving; yield original and result.

        Raises
        ------
        ConfigError
            If there is no run folder to keep the model in.
        """
        folder, config = self._site.folder, self._config
        if folder is None:
            raise ConfigError("a run keeps its model; give it a run folder")
        overwrite_from_now_on()  # before anything of anybody is there
        self._receive()
        name = alias_of(config.strategy)
        federation = found_federation(self._site, grid, [strategy], self._site.homes, self._ledger)
        self._founded.append(federation)
        prepare_foreign(self._site, federation)
        own = config.recovering(config.strategy)
        for key, value in recovery_of(own).items():
            setattr(federation, key, value)
        rounds = last_round(own)
        self._pace.expected = rounds + guess(strategy, config)
        lookout = self._watch(federation, name, self._judge(self._requests))
        seen = Testimony(self._task, config.device)
        kept, saved = going_on(self._site, federation, self._site.homes)

        def judge(request: Request, before: Arrays, after: Arrays) -> dict[str, float | None]:
            judged, points = self._judge_now(request, federation), lookout.points.so_far()
            original = self._original(before, judged, federation, request.scope, points)
            seen.enter(request, original, federation.history.read_bytes)
            return score(judged.outputs(after)).to_json()

        federation.judge = judge
        if saved is None:
            arrays = first_model(self._site)
        else:
            seen.take_up(saved)
            arrays, rounds = take_up(saved, federation, lookout, self._pace)
        federation.save = seen.saving(kept.save, lookout, self._pace)
        federation.settle = _settling(kept.settle)
        arrays = start(strategy, grid, federation, arrays, rounds)
        arrays = self._keep_serving(strategy, grid, federation, arrays)
        yield from seen.told
        served = self._served()
        final = self._judge(served, federation)
        outputs = final.outputs(arrays)
        yield Party(
            name,
            config.seed,
            str(strategy.guarantee) if served else "none",
            arrays,
            outputs,
            {**federation.costs, PREPARE: federation.preparation(strategy.keepsakes())},
            seen.read_bytes if served else None,
            served[-1].scope.value if served else "none",
            lookout.points[seen.points :],  # what came before is the original's
            final.tally(outputs),
        )
        federation.history.close()

    def compare(
        self,
        grid: Grid,
        strategies: Mapping[str, UnlearningStrategy],
        *,
        onward: bool = False,
        done: Collection[str] = (),
    ) -> Iterator[Party | Failure]:
        """Learn up to the first request once, then let every strategy answer on a fork.

        One strategy that cannot answer does not cost the answers of all others: it yields a
        failure.

        Parameters
        ----------
        grid : Grid
            Of this federation.
        strategies : mapping of str to UnlearningStrategy
            By alias or ``module:Class``.
        onward : bool
            Let the original learn on with everything for as long as the others recover: models of
            unequal numbers of rounds differ for that reason alone.
        done : collection of str
            Aliases of those whose answers are there already, from before an interruption.
        """
        self._receive()
        self._ledger = self._ledger.drawn(self._requests, seed=self._config.seed)
        federation = found_federation(
            self._site, grid, strategies.values(), self._site.homes / "learn", Ledger()
        )  # learning serves nothing: the branches do
        self._founded.append(federation)
        left = {name: s for name, s in strategies.items() if alias_of(name) not in done}
        if left or ORIGINAL not in done:
            learned, original = self._learn(grid, federation, strategies.values())
            if onward:
                learner = UnlearningStrategy()
                later = self._branch(grid, ORIGINAL, learner, learned, Ledger())
                original = replace(later, guarantee="none", costs=original.costs)
            if ORIGINAL not in done:
                yield original
            for name, strategy in left.items():
                if name == RETRAIN and learned.is_given:
                    found = self._from_scratch(grid, self._requests, learned.judge)
                    yield reference(self._site, self._ledger, self._requests, learned.judge, *found)
                else:
                    yield self._answer(grid, name, strategy, learned)
        close(self._site, self._ledger, self._requests, federation, list(strategies))

    def without(self, grid: Grid, gone: Request) -> Arrays:
        """Learn from the beginning as if what ``gone`` names had never been there, then go on.

        That is the model of the strategy ``retrain`` after its recovery, bit for bit, without an
        original to begin with.
        """
        return self._from_scratch(grid, [gone], None)[0]

    # Inside ---------------------------------------------------------------------------------

    def _learn(
        self, grid: Grid, federation: Federation, strategies: Iterable[UnlearningStrategy]
    ) -> tuple[_Learned, Party]:
        """Learn up to the first request; return what all start from, and the original."""
        config = self._config
        is_given = config.start.model is not None
        first, last = first_request(config), last_round(config)
        if is_given:  # nothing is learned before the requests, and nothing after recovery
            first, last = 0, config.recovery_rounds
        self._pace.expected = first + sum(last - first + guess(s, config) for s in strategies)
        judge = self._judge(self._requests)
        lookout = self._watch(federation, ORIGINAL, judge)
        arrays, rounds = compared_model(self._site, federation), first
        kept, saved = going_on(self._site, federation, self._site.homes / "learn")
        if saved is not None:
            arrays, rounds = take_up(saved, federation, lookout, self._pace)

        def save(moment: Moment) -> None:
            kept.save(Saved(moment, lookout.points.so_far(), self._pace.done))

        federation.save = save
        if not is_given:
            arrays = start(UnlearningStrategy(), grid, federation, arrays, rounds)
        federation.save = keep_nothing
        scope, points = self._requests[0].scope, tuple(lookout.points)
        original = self._original(arrays, judge, federation, scope, points)
        return _Learned(federation, arrays, judge, is_given), original

    def _from_scratch(
        self, grid: Grid, gone: Iterable[Request], judge: Judge | None
    ) -> tuple[Arrays, dict[str, Cost], Lookout]:
        def watch(federation: Federation) -> Lookout:
            return self._watch(federation, RETRAIN, judge)

        return from_scratch(self._site, grid, gone, watch)

    def _keep_serving(
        self, strategy: UnlearningStrategy, grid: Grid, federation: Federation, arrays: Arrays
    ) -> Arrays:
        """Serve what comes after the last round, until nothing has come for so long."""
        last = asked = time.monotonic()
        while time.monotonic() - last < self._idle_s:
            if self._site.stop():
                raise InterruptedError
            if has_work(federation):
                arrays = start(strategy, grid, federation, arrays, 0)
                last = asked = time.monotonic()
            elif self._ledger.pending() and time.monotonic() - asked > _AGAIN_S:
                arrays = start(strategy, grid, federation, arrays, 0)
                asked = time.monotonic()
            else:
                time.sleep(_LOOK_S)
        return arrays

    def _receive(self) -> None:
        for request in self._requests:
            self._ledger.receive(request)

    def _judge(
        self,
        requests: Iterable[Request],
        federation: Federation | None = None,
        leavers: frozenset[int] = frozenset(),
    ) -> Judge:
        """Return the judge of some requests; one that sites are to help needs the federation."""
        if self._task.remote and federation is not None:
            return site_judge(self._task, requests, self._config.device, federation, leavers)
        return judge_of(self._task, requests, self._config.device)

    def _judge_now(self, request: Request, federation: Federation) -> Judge:
        """Return the judge of a request that is being served.

        Of what was served before, sites have nothing left to look at: it is judged alone there.
        """
        if self._task.remote:
            return self._judge([request], federation, request.leavers)
        return self._judge([*self._served(), request])

    def _answer(
        self, grid: Grid, name: str, strategy: UnlearningStrategy, learned: _Learned
    ) -> Party | Failure:
        """Return what a strategy answers, or why it does not."""
        alias, seed = alias_of(name), self._config.seed
        try:
            branch = self._ledger.on_branch(f"{alias}/seed-{seed}")
            branch.restart()
            return self._branch(grid, name, strategy, learned, branch)
        except InterruptedError:
            raise  # nothing failed: someone wants the whole run to end
        except Exception as error:
            log.debug("strategy %s failed", name, exc_info=True)
            scope = self._requests[0].scope.value
            return Failure(name, alias, seed, str(strategy.guarantee), scope, in_words(error))

    def _branch(
        self,
        grid: Grid,
        name: str,
        strategy: UnlearningStrategy,
        learned: _Learned,
        ledger: Ledger,
    ) -> Party:
        """Let one strategy answer on copies of everything, then throw the copies away."""
        alias, seed = alias_of(name), self._config.seed
        federation = fork(self._site, grid, name, strategy, learned.federation, ledger)
        history, home = federation.history, Path(str(federation.client_config[Wire.HOME]))
        read: list[int] = []

        def measure(request: Request, before: Arrays, after: Arrays) -> dict[str, float | None]:
            read.append(history.read_bytes)
            return score(learned.judge.outputs(after)).to_json()

        federation.judge = measure
        lookout = self._watch(federation, alias, learned.judge, learned.federation.completed)
        own = own_recovery(self._config, name, strategy)
        rounds = own.recovery_rounds
        if not learned.is_given:
            rounds = last_round(own) - learned.federation.completed
        try:
            final = start(strategy, grid, federation, learned.arrays, rounds)
            expect_served(federation.ledger)
            outputs = learned.judge.outputs(final)
        finally:
            history.destroy()
            shutil.rmtree(home, ignore_errors=True)
        return Party(
            alias,
            seed,
            str(strategy.guarantee),
            final,
            outputs,
            {
                **federation.costs,
                PREPARE: learned.federation.preparation(strategy.keepsakes()),
            },
            sum(read),
            self._requests[0].scope.value,
            tuple(lookout.points),
            learned.judge.tally(outputs),
        )

    def _original(
        self,
        arrays: Arrays,
        judge: Judge,
        federation: Federation,
        scope: str,
        timeline: Sequence[Point],
    ) -> Party:
        outputs = judge.outputs(arrays)
        for_others = federation.preparation(federation.keepsakes)
        return Party(
            ORIGINAL,
            self._config.seed,
            "none",
            arrays,
            outputs,
            {"learn": federation.costs.get("learn", Cost()) - for_others},
            None,
            str(scope),
            timeline,
            judge.tally(outputs),
        )

    def _watch(
        self, federation: Federation, name: str, judge: Judge | None, position: int = 0
    ) -> Lookout:
        """Measure after every round, if anyone wants to know, and tell how far we are."""
        seen = judge if self._glances else None
        lookout = Lookout(name, self._config.seed, self._pace.step, seen, position)
        federation.watch = lookout
        return lookout

    def _served(self) -> list[Request]:
        return self._ledger.answered()


def _settling(settle: Callable[[], None]) -> Callable[[], None]:
    """Return what follows a deletion: moments that rest on it go, and what is free in memory."""

    def settled() -> None:
        settle()
        overwrite_small()

    return settled
