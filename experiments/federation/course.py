"""What a run or a comparison is going to do, checked as far as possible before it begins."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from flwr.serverapp import Grid

from experiments.config.loading import Config, alias_of
from experiments.config.registry import make, resolve
from experiments.config.registry import strategies as registered
from experiments.federation import preflight
from experiments.federation.answers import answers
from experiments.federation.books import Books
from experiments.federation.checkpoint import Outcome, Outcomes
from experiments.federation.conduct import Conductor
from experiments.federation.estimate import Sizes
from experiments.federation.feature_measures import feature_measures
from experiments.federation.founding import (
    check_foreign,
    keepsakes,
    starting_history,
    starting_model,
    strange_need,
)
from experiments.federation.guard import check_fits
from experiments.federation.party import Failure, Party, in_words
from experiments.federation.refusing import name_strategy
from experiments.federation.task import Scenario, Task, task
from experiments.federation.task_measures import measure
from experiments.federation.text_measures import measure_text
from experiments.runs.command import command_line
from experiments.runs.details import Refused
from experiments.runs.folder import COMPARE, RUN, RunFolder
from experiments.runs.intent import Intent, fingerprint
from experiments.runs.progress import Observer
from experiments.runs.results import FINE_TUNE, RETRAIN
from experiments.tracking import live as tracking
from strategies.base import UnlearningStrategy
from strategies.federation import PUBLIC, without_public_data
from strategies.fitness import Ground
from unlearning.errors import ConfigError, FedUnlearnError
from unlearning.request import Request

__all__ = ["Course"]

ALL = "all"  # in place of a strategy's name: every one there is


@dataclass(frozen=True)
class Course:
    """A run (one strategy) or a comparison (several, and the controls).

    Parameters
    ----------
    config : Config
        All settings.
    kind : str
        ``"run"`` or ``"compare"``.
    names : tuple of str
        Strategies by alias or ``module:Class``.
    seeds : tuple of int
        One federation each.
    observer : Observer
        Told of every round.
    lenient : bool
        Whether strategies that cannot serve for want of something are left out, with the reason.
    asked : tuple of str
        Strategies that someone asked for by name: where such a one cannot serve, it has failed.
    command : str
        What the report calls the words that made it; default: this process's command line.
    idle_s : float
        How long a run stays after its rounds and waits for requests.
    """

    config: Config
    kind: str
    names: tuple[str, ...]
    seeds: tuple[int, ...]
    observer: Observer
    lenient: bool = False
    asked: tuple[str, ...] = ()
    command: str = field(default_factory=command_line)
    idle_s: float = 0.0

    @classmethod
    def of_run(cls, config: Config, observer: Observer) -> Course:
        """Return the course of a run with the configured strategy."""
        return cls(config, RUN, (config.strategy,), (config.seed,), observer)

    @classmethod
    def of_comparison(
        cls,
        config: Config,
        observer: Observer,
        strategies: Sequence[str] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> Course:
        """Return the course of a comparison; the controls come first."""
        chosen = tuple(strategies or config.strategies or (config.strategy,))
        everything = ALL in chosen
        asked = () if everything else chosen
        if everything:
            chosen = (*(name for name in chosen if name != ALL), *registered())
        names = tuple(dict.fromkeys((RETRAIN, FINE_TUNE, *chosen)))
        return cls(
            config, COMPARE, names, tuple(seeds or (config.seed,)), observer, everything, asked
        )

    @property
    def num_clients(self) -> int:
        """Number of clients of every federation of the course."""
        return len(self.tasks[self.seeds[0]].clients)

    @property
    def settings(self) -> dict[str, Any]:
        """The config as the run folder keeps it: plain values, the strategies written out."""
        config = self.config.to_dict()
        if (anchor := self.config.ledger.anchor) is not None:
            # Requests come from other folders and must find the same file.
            config["ledger"] = {**config["ledger"], "anchor": str(_place(anchor))}
        if self.kind == COMPARE:
            config["strategies"] = [n for n in self.names if n not in (RETRAIN, FINE_TUNE)]
        return config

    def check(self, *, begun: bool = False) -> None:
        """Refuse, before anything is written, whatever can be seen to be wrong.

        A strategy of a comparison that cannot even be made is no reason: it fails by itself. A run
        that has ``begun`` does not need the model any more that it started from.

        Raises
        ------
        FedUnlearnError
            Unknown strategy, option, data set, client, class or sample; nothing to compare; nobody
            left; no public data for a strategy that needs them; two strategies that want clients
            to keep one thing in two ways; a strategy that does not serve a scheduled request of a
            run.
        """
        if self.kind == COMPARE:
            self._check_comparison()
        if len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"seeds {list(self.seeds)} name one twice; name each once")
        sizes = {len(found.clients) for found in self.tasks.values()}
        if len(sizes) > 1:
            raise ConfigError(f"seeds give {sorted(sizes)} clients; set data.clients")
        for name in self.names:
            if self._lacks_public(name) and not self.lenient:
                raise without_public_data(name)
        keepsakes(made for made in map(self._made, self.names) if not isinstance(made, Broken))
        tracking.check(self.config.track)
        preflight.check(self.config, self.tasks[self.seeds[0]])
        if not begun and (anchor := self.config.ledger.anchor) is not None:
            preflight.check_anchor(_place(anchor))
        scheduled = len(self.config.requests) if self.kind == COMPARE else None
        check_fits(self.config.guard, self.tasks[self.seeds[0]], scheduled)
        for table in self.config.option_tables:
            resolve(table)
        for seed in self.seeds:
            requests = self.tasks[seed].requests(self.config)
            if not (begun and self.kind == RUN):
                given = starting_model(self.config, self.tasks[seed])
                if given is not None:
                    starting_history(self.config, self.tasks[seed], given)
            if self.kind == RUN:
                self._check_run(seed, requests)

    def _check_comparison(self) -> None:
        if self.config.history.encrypt:
            raise ConfigError(
                "history.encrypt is for `fedunlearn run`: a comparison keeps the models of all its "
                "strategies unencrypted until it ends; leave it out"
            )
        if not self.config.requests:
            raise ConfigError(
                "the config has no [[requests]], so there is nothing to compare; add one, or use "
                "`fedunlearn run`"
            )

    def _check_run(self, seed: int, requests: Sequence[Request]) -> None:
        strategy = self._strategy(self.names[0])
        self._check_fit(strategy, seed, requests)
        if self.config.start.history is not None:
            raise ConfigError(
                "start.history is for comparisons; use `fedunlearn compare`, or leave it out"
            )
        if self.config.start.model is not None:
            strategy.check_foreign()

    def sizes(self) -> Sizes:
        """Return what the course will take up, worked out from its config."""
        made = [one for one in map(self._made, self.names) if not isinstance(one, Broken)]
        needs = frozenset[str]().union(*(strategy.needs for strategy in made))
        return Sizes.of(self.config, self.tasks[self.seeds[0]], needs)

    def claim(self, out: Path) -> RunFolder:
        """Make the run folder.

        Raises
        ------
        ConfigError
            If it holds something else.
        """
        folder = RunFolder.claim(out, self.settings)
        first = self.tasks[self.seeds[0]].facts()
        folder.write_federation(replace(first, kind=self.kind, seeds=self.seeds))
        if self.kind == RUN:
            self.name_strategy(folder)
        if self.kind == RUN and (ids := self.tasks[self.seeds[0]].record_ids()) is not None:
            ids.write(folder.records)
        return folder

    def name_strategy(self, folder: RunFolder) -> None:
        """Write into a run folder what the strategy of a run serves: requests are held to it."""
        first = self.tasks[self.seeds[0]]
        name_strategy(folder, self.names[0], self._strategy(self.names[0]), self._ground(first))

    def begin(self, out: Path) -> AbstractContextManager[Books]:
        """Make the run folder and open its books, for the time of a block.

        Raises
        ------
        ConfigError
            If the folder holds something else.
        """
        folder = self.claim(out)
        self.intent(fingerprint(folder.config)).write(folder.path)
        return self.reopen(folder)

    def intent(self, sha256: str) -> Intent:
        """Return what the run folder keeps, to go on after an interruption."""
        return Intent(
            self.kind,
            self.names,
            self.seeds,
            self.lenient,
            self.asked,
            self.command,
            sha256,
            {},
        )

    @classmethod
    def of_intent(cls, config: Config, intent: Intent, observer: Observer) -> Course:
        """Return the course that a run folder was made for; a run's strategy is its config's."""
        return cls(
            config,
            intent.kind,
            (config.strategy,) if intent.kind == RUN else intent.names,
            intent.seeds,
            observer,
            intent.lenient,
            intent.asked,
            intent.command,
        )

    def reopen(self, folder: RunFolder) -> AbstractContextManager[Books]:
        """Open the books of a run folder that is there, for the time of a block."""
        first = self.tasks[self.seeds[0]]
        return Books.kept(folder, self.config, first, self.kind, self.observer, self.command)

    def conduct(self, grid: Grid, books: Books, stop: Callable[[], bool]) -> None:
        """Run everything on a grid: federation, rounds, requests served, judged, written.

        Raises
        ------
        FedUnlearnError
            If the federation cannot go on.
        """
        for number, seed in enumerate(self.seeds):
            config, found = self.config.model_copy(update={"seed": seed}), self.tasks[seed]
            share = (number, len(self.seeds))
            conductor = Conductor(
                config,
                found,
                books.folder,
                books.ledger,
                books.tick,
                stop,
                share=share,
                idle_s=self.idle_s,
            )
            with closing(conductor):
                self._carry_out(grid, books, conductor, seed, stop)
        books.close()
        if self.kind == COMPARE:
            shutil.rmtree(books.folder.checkpoints, ignore_errors=True)

    def _carry_out(
        self,
        grid: Grid,
        books: Books,
        conductor: Conductor,
        seed: int,
        stop: Callable[[], bool],
    ) -> None:
        """Run one seed, and enter what it leaves into the books."""
        config, found = self.config.model_copy(update={"seed": seed}), self.tasks[seed]
        kept = self._kept(books.folder, seed)
        known = kept.load()
        if kept.is_complete:  # before an interruption
            for outcome in known:
                books.enter(outcome)
            return
        # Answers and measures are worked out again: they need all parties.
        kinds = (Party, Failure, Refused)
        made: list[Outcome] = [one for one in known if isinstance(one, kinds)]
        for outcome in made:
            books.enter(outcome)
        for outcome in self._outcomes(conductor, grid, seed, made):
            self._enter(outcome, made, books, kept)
        parties = [one for one in made if isinstance(one, Party)]
        served = self._served(books, seed)
        for answer in answers(found, served, parties, config.device):
            self._enter(answer, made, books, kept)
        whole = [party for party in parties if party.arrays]
        for seen in feature_measures(found, served, whole, config.device):
            self._enter(seen, made, books, kept)
        if found.tasks:
            for measured in measure(
                grid, config, found, served, whole, say=books.measuring, stop=stop
            ):
                self._enter(measured, made, books, kept)
        if found.is_sequential:
            for told in measure_text(
                found, served, parties, config.device, say=books.measuring, stop=stop
            ):
                self._enter(told, made, books, kept)
        kept.complete()

    def _kept(self, folder: RunFolder, seed: int) -> Outcomes:
        """Return what a comparison keeps of a seed; a run has its moments instead."""
        place = folder.checkpoints / f"seed-{seed}" / "outcomes"
        return Outcomes(place if self.kind == COMPARE else None)

    @staticmethod
    def _enter(outcome: Outcome, made: list[Outcome], books: Books, kept: Outcomes) -> None:
        books.enter(outcome)
        kept.add(len(made), outcome)
        made.append(outcome)

    def _outcomes(
        self, conductor: Conductor, grid: Grid, seed: int, known: Sequence[Outcome]
    ) -> Iterator[Outcome]:
        """Yield what every strategy leaves at one seed, but for what is known already."""
        if self.kind == RUN:
            yield from conductor.run(grid, self._strategy(self.names[0]))
            return
        serving, unable = self.serving(seed)
        done = {one.strategy for one in known if isinstance(one, (Party, Failure, Refused))}
        yield from conductor.compare(grid, serving, done=done)
        for refused in unable:
            if refused.strategy in done or alias_of(refused.strategy) in done:
                continue
            yield self._failure(refused, seed) if refused.strategy in self.asked else refused

    def _failure(self, refused: Refused, seed: int) -> Failure:
        """Return that a strategy which was asked for by its name does not answer."""
        scope = self.tasks[seed].requests(self.config)[0].scope.value
        guarantee = str(resolve(refused.strategy).guarantee)
        return Failure(
            refused.strategy, alias_of(refused.strategy), seed, guarantee, scope, refused.reason
        )

    def _served(self, books: Books, seed: int) -> list[Request]:
        if self.kind == COMPARE:
            return list(self.tasks[seed].requests(self.config))
        ledger = books.ledger
        return ledger.answered()

    def serving(self, seed: int) -> tuple[dict[str, UnlearningStrategy], tuple[Refused, ...]]:
        """Return the strategies that serve every request, and the reasons of the others."""
        serving: dict[str, UnlearningStrategy] = {}
        refused: list[Refused] = []
        requests = self.tasks[seed].requests(self.config)
        for name in self.names:
            strategy = self._made(name)
            try:
                if isinstance(strategy, Broken):
                    raise strategy.error
                if self._lacks_public(name):
                    raise without_public_data(name)
                self._check_fit(strategy, seed, requests)
                if self.config.start.model is not None and name != RETRAIN:
                    check_foreign(self.config, strategy)  # retraining begins from nothing
            except Exception as error:
                refused.append(Refused(strategy=name, reason=in_words(error)))
            else:
                serving[name] = strategy
        return serving, tuple(refused)

    def _check_fit(
        self, strategy: UnlearningStrategy, seed: int, requests: Sequence[Request]
    ) -> None:
        """Refuse a strategy that does not fit the model, the data, or a request."""
        strategy.check_model(self.tasks[seed].array_model)
        ground = self._ground(self.tasks[seed])
        strategy.check_ground(ground)
        for request in requests:
            strategy.check_request(request, ground)

    def _ground(self, found: Task) -> Ground:
        text, interval = found.is_sequential, self.config.history.interval
        return Ground(bool(found.tasks), text, interval, found.initial)

    def _lacks_public(self, name: str) -> bool:
        return PUBLIC in resolve(name).needs and not self.config.data.public

    def _strategy(self, name: str) -> UnlearningStrategy:
        made = self._made(name)
        if isinstance(made, Broken):
            raise ConfigError(f"strategy {name} cannot be made: {in_words(made.error)}")
        return made

    def _made(self, name: str) -> UnlearningStrategy | Broken:
        """Return a new strategy, or what is wrong with its code; a user's mistake is raised."""
        try:
            made = make(name, self.config.options_for(name))
            if strange := strange_need(made):
                raise LookupError(strange)
            if not hasattr(made, "federation"):
                raise TypeError(
                    "its constructor does not call super().__init__(); call it first of all"
                )
        except FedUnlearnError:
            raise
        except Exception as error:
            return Broken(error)
        return made

    @cached_property
    def tasks(self) -> dict[int, Task]:
        """The task of every seed."""
        return {seed: task(Scenario.of(self.config, seed)) for seed in self.seeds}


def _place(anchor: str) -> Path:
    return Path(anchor).expanduser().absolute()


@dataclass(frozen=True)
class Broken:
    """A strategy whose code fails before any work."""

    error: Exception
