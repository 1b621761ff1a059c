"""What a run or a comparison is going to do, checked as far as possible before it begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from flwr.serverapp import Grid

from experiments.config.loading import Config
from experiments.config.registry import make, resolve
from experiments.config.registry import strategies as registered
from experiments.federation import preflight
from experiments.federation.answers import answers
from experiments.federation.conduct import Conductor, Party, keepsakes, starting_model
from experiments.federation.finish import write_all
from experiments.federation.guard import check_fits
from experiments.federation.task import Scenario, Task, task
from experiments.federation.task_measures import measure
from experiments.runs.command import command_line
from experiments.runs.details import Answer, Refused, TaskMeasure
from experiments.runs.folder import COMPARE, RUN, RunFolder
from experiments.runs.log import logged
from experiments.runs.progress import Observer, Tick
from experiments.runs.results import FINE_TUNE, RETRAIN
from strategies.base import UnlearningStrategy
from strategies.federation import PUBLIC, without_public_data
from unlearning.errors import ConfigError, UnsupportedRequestError
from unlearning.records.ledger import Ledger

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
    command : str
        What the report calls the words that made it; default: this process's command line.
    """

    config: Config
    kind: str
    names: tuple[str, ...]
    seeds: tuple[int, ...]
    observer: Observer
    lenient: bool = False
    command: str = field(default_factory=command_line)

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
        if everything:
            chosen = (*(name for name in chosen if name != ALL), *registered())
        names = tuple(dict.fromkeys((RETRAIN, FINE_TUNE, *chosen)))
        return cls(config, COMPARE, names, tuple(seeds or (config.seed,)), observer, everything)

    @property
    def num_clients(self) -> int:
        """Number of clients of every federation of the course."""
        return len(self.tasks[self.seeds[0]].clients)

    @property
    def settings(self) -> dict[str, Any]:
        """The config as the run folder keeps it: plain values, the strategies written out."""
        config = self.config.to_dict()
        if self.kind == COMPARE:
            config["strategies"] = [n for n in self.names if n not in (RETRAIN, FINE_TUNE)]
        return config

    def check(self) -> None:
        """Refuse, before anything is written, whatever can be seen to be wrong.

        Raises
        ------
        FedUnlearnError
            Unknown strategy, option, data set, client, class or sample; nothing to compare; nobody
            left; no public data for a strategy that needs them; two strategies that want clients
            to keep one thing in two ways; a strategy that does not serve a scheduled request of a
            run.
        """
        if self.kind == COMPARE and not self.config.requests:
            raise ConfigError(
                "the config has no [[requests]], so there is nothing to compare; add one, or use "
                "`fedunlearn run`"
            )
        if self.kind == COMPARE and self.config.start.model is not None:
            raise ConfigError(
                "a comparison learns its own model, so start.model cannot be given; use "
                "`fedunlearn run`, or leave [start] out"
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"seeds {list(self.seeds)} name one twice; name each once")
        sizes = {len(found.clients) for found in self.tasks.values()}
        if len(sizes) > 1:
            raise ConfigError(f"seeds give {sorted(sizes)} clients; set data.clients")
        for name in self.names:
            if self._lacks_public(name) and not self.lenient:
                raise without_public_data(name)
        keepsakes(map(self._strategy, self.names))
        preflight.check(self.config, self.tasks[self.seeds[0]])
        scheduled = len(self.config.requests) if self.kind == COMPARE else None
        check_fits(self.config.guard, self.tasks[self.seeds[0]], scheduled)
        for table in self.config.option_tables:
            resolve(table)
        for seed in self.seeds:
            requests = self.tasks[seed].requests(self.config)
            if self.kind == RUN:
                self._strategy(self.names[0]).check_model(self.tasks[seed].array_model)
                for request in requests:
                    self._strategy(self.names[0]).check_scope(request)
                if starting_model(self.config, self.tasks[seed]) is not None:
                    self._strategy(self.names[0]).check_foreign()

    def claim(self, out: Path) -> RunFolder:
        """Make the run folder.

        Raises
        ------
        ConfigError
            If it holds something else.
        """
        folder = RunFolder.claim(out, self.settings)
        first = self.tasks[self.seeds[0]].facts()
        cls = resolve(self.names[0]) if self.kind == RUN else None
        folder.write_federation(
            replace(
                first,
                kind=self.kind,
                seeds=self.seeds,
                strategy=self.names[0] if cls else "",
                scopes=tuple(sorted(cls.scopes)) if cls else (),
            )
        )
        return folder

    @contextmanager
    def tracked(self, folder: RunFolder) -> Iterator[Observer]:
        """Keep the folder's status and log up to date and pass ticks on to the observer."""
        with (
            logged(folder.path, self.observer, self.command) as noted,
            folder.tracked(noted) as tell,
        ):
            yield tell

    def conduct(
        self, grid: Grid, folder: RunFolder, tell: Observer, stop: Callable[[], bool]
    ) -> None:
        """Run everything on a grid and write the results and the report.

        Raises
        ------
        FedUnlearnError
            If the federation cannot go on.
        """
        ledger = Ledger(folder.ledger)
        parties: list[Party] = []
        refused: tuple[Refused, ...] = ()
        task_measures: list[TaskMeasure] = []
        measured: list[Answer] = []
        watched = _Last(tell)
        for number, seed in enumerate(self.seeds):
            config, found = self.config.model_copy(update={"seed": seed}), self.tasks[seed]
            conductor = Conductor(
                config,
                found,
                folder,
                ledger,
                watched,
                stop,
                share=(number, len(self.seeds)),
            )
            if self.kind == RUN:
                here = conductor.run(grid, self._strategy(self.names[0]))
                served = [r for r in ledger.requests() if ledger.state(r.id) == "fulfilled"]
            else:
                serving, unable = self.serving(seed)
                here = conductor.compare(grid, serving)
                failed = (*unable, *conductor.failures)
                refused += tuple(one for one in failed if one not in refused)
                served = list(found.requests(config))
            parties += here
            measured += answers(found, served, here, config.device)
            if found.tasks:
                task_measures += measure(
                    grid, config, found, served, here, say=watched.measuring, stop=stop
                )
        write_all(
            folder,
            self.config,
            self.tasks[self.seeds[0]],
            parties,
            refused,
            ledger,
            self.command,
            task_measures,
            measured,
        )

    def serving(self, seed: int) -> tuple[dict[str, UnlearningStrategy], tuple[Refused, ...]]:
        """Return the strategies that serve every request, and the reasons of the others."""
        serving: dict[str, UnlearningStrategy] = {}
        refused: list[Refused] = []
        requests = self.tasks[seed].requests(self.config)
        for name in self.names:
            strategy = self._strategy(name)
            try:
                if self._lacks_public(name):
                    raise without_public_data(name)
                strategy.check_model(self.tasks[seed].array_model)
                for request in requests:
                    strategy.check_scope(request)
            except (ConfigError, UnsupportedRequestError) as error:
                refused.append(Refused(strategy=name, reason=str(error)))
            else:
                serving[name] = strategy
        return serving, tuple(refused)

    def _lacks_public(self, name: str) -> bool:
        return PUBLIC in self._strategy(name).needs and not self.config.data.public

    def _strategy(self, name: str) -> UnlearningStrategy:
        return make(name, self.config.options_for(name))

    @cached_property
    def tasks(self) -> dict[int, Task]:
        """The task of every seed."""
        return {seed: task(Scenario.of(self.config, seed)) for seed in self.seeds}


class _Last:
    """Passes ticks on, and tells with the last one's counts what is being measured after it."""

    def __init__(self, tell: Observer) -> None:
        self._tell = tell
        self._tick: Tick | None = None

    def __call__(self, tick: Tick) -> None:
        self._tick = tick
        self._tell(tick)

    def measuring(self, strategy: str) -> None:
        """Tell that a strategy's model is being measured."""
        if self._tick is not None:
            now = replace(
                self._tick, strategy=strategy, phase="measure", server_round=0, accuracy=None
            )
            self._tell(now)
