"""Bring a federation about: its clients on the grid, its stores, its settings, its first model."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from flwr.serverapp import Grid

from clients import steps
from clients.state import named_as
from experiments.config.loading import Config
from experiments.federation.distil import distil
from experiments.federation.guard import robust_of, watchman_of
from experiments.federation.keys import keys_of
from experiments.federation.task import Task
from experiments.models.foreign import fitted, read_arrays
from experiments.runs.folder import RunFolder
from strategies import fitness
from strategies.base import UnlearningStrategy
from strategies.federation import ATTRIBUTION, INITIAL, LAST_LOCAL, PUBLIC, Federation
from strategies.roster import Roster
from strategies.wire import to_arrays, to_record
from unlearning.arrays import Arrays, mismatch
from unlearning.errors import ConfigError, FedUnlearnError, unknown
from unlearning.protocol import Scalar, Settings, Wire
from unlearning.records.history import COLUMNS, History
from unlearning.records.ledger import Ledger
from unlearning.records.store import INDEX

__all__ = [
    "Site",
    "check_foreign",
    "compared_model",
    "first_model",
    "found_federation",
    "found_history",
    "keepsakes",
    "prepare_foreign",
    "start",
    "starting_history",
    "starting_model",
    "strange_need",
]

_JOIN_S = 300.0  # longest wait for all clients to say who they are
_RESTART_S = 60.0  # until a worker that ended is noticed and another one works, on a busy machine
_LEAST_WINDOW = 16  # messages in flight: bounds the server's memory, keeps every worker busy
_STACKED_WINDOW = 64  # where they are answered together: more save nothing


log = logging.getLogger("fedunlearn")


@dataclass(frozen=True)
class Site:
    """Where the federations of one seed take place: what all of them have in common.

    Parameters
    ----------
    config : Config
        With the seed of this federation.
    task : Task
        Data and model of this seed.
    place : RunFolder or Path
        Where things are kept; of a mere path, what clients remember alone, histories in memory.
    stop : callable
        True cancels.
    """

    config: Config
    task: Task
    place: RunFolder | Path
    stop: Callable[[], bool]

    @property
    def seed(self) -> int:
        """Of this federation."""
        return self.config.seed

    @property
    def folder(self) -> RunFolder | None:
        """The run folder, if there is one."""
        return self.place if isinstance(self.place, RunFolder) else None

    @property
    def homes(self) -> Path:
        """Where the clients of this seed remember."""
        inside = self.place.homes if isinstance(self.place, RunFolder) else self.place / "clients"
        return inside / f"seed-{self.seed}"

    @property
    def window(self) -> int:
        """Messages in flight at a time."""
        together = self.config.engine.grid in ("stacked", "auto")
        least = _STACKED_WINDOW if together else _LEAST_WINDOW
        return max(least, 4 * self.config.engine.workers)


def found_federation(
    site: Site,
    grid: Grid,
    strategies: Collection[UnlearningStrategy],
    home: Path,
    ledger: Ledger,
) -> Federation:
    """Return a federation that keeps what the strategies need and nothing more.

    Raises
    ------
    FederationError
        If the clients do not say in time who they are.
    """
    config, task, folder = site.config, site.task, site.folder
    needs = frozenset[str]().union(*(strategy.needs for strategy in strategies))
    client_config: dict[str, Scalar] = {
        Wire.SCENARIO: task.scenario.for_sites().to_json(),
        Wire.DEVICE: config.device,
        Wire.HOME: str(home.absolute()),
        Wire.TIMEOUT: config.engine.timeout_s,
    }
    if config.engine.min_clients > len(task.clients):
        raise ConfigError(
            f"engine.min_clients = {config.engine.min_clients}: the federation has "
            f"{len(task.clients)} clients; lower it or add some"
        )
    roster = Roster.discover(
        grid,
        len(task.clients),
        {**client_config, Wire.COMMIT: config.guard.commitment},
        registered=None if task.remote else task.facts().clients,
        quorum=config.engine.min_replies,
        least=config.engine.min_clients,
        cap=config.guard.count_cap,
        # To start is no work of a client's: a worker process takes the time it takes.
        timeout_s=_JOIN_S if config.engine.grid == "ray" else min(config.engine.timeout_s, _JOIN_S),
        window=site.window,
        stop=site.stop,
        restart_s=_RESTART_S if config.engine.grid == "ray" and not task.remote else 0.0,
    )
    if away := sorted(set(task.clients) - roster.nodes.keys()):
        log.warning("not there, and left out of this run: client %s", ", ".join(map(str, away)))
    if task.remote:
        task.told(roster.declared)
        if folder is not None:
            folder.write_federation(replace(folder.read_federation(), clients=task.facts().clients))
    if roster.commitments and folder is not None:
        folder.write_commitments({k: c.root for k, c in roster.commitments.items()})
    return Federation(
        seed=config.seed,
        history=found_history(site, needs & COLUMNS),
        ledger=ledger,
        train=config.train.model_dump(exclude={"fraction"}),
        **recovery_of(config),
        tolerance=config.stop.tolerance,
        budget=config.stop.examples,
        fraction=config.train.fraction,
        timeout_s=config.engine.timeout_s,
        min_replies=config.engine.min_replies,
        client_config=client_config,
        remember=LAST_LOCAL in needs,
        keepsakes=keepsakes(strategies),
        has_tasks=bool(task.tasks),
        has_text=task.is_sequential,
        attribute=ATTRIBUTION in needs,
        model=task.array_model,
        distil=partial(distil, task, config.device) if config.data.public else None,
        guard=watchman_of(
            config.guard, task, roster.commitments, config.device, _class_bests(ledger)
        ),
        robust=robust_of(config.guard),
        length_factor=config.guard.length_factor,
        batch=config.guard.batch,
        rate=config.guard.max_requests,
        window_s=config.guard.window_s,
        residuals=tuple(getattr(grid, "residuals", ())),
        stop=site.stop,
        roster=roster,
    )


def recovery_of(config: Config) -> dict[str, Any]:
    """Return what a federation is told of recovery, by the names of its parameters."""
    return {
        "recovery": config.recovery_train.model_dump(exclude={"fraction"}),
        "recovery_rounds": config.recovery_rounds,
        "recovery_fraction": config.recovery_train.fraction,
        "server_momentum": config.recovery.server_momentum,
    }


def _class_bests(ledger: Ledger) -> Mapping[str, float]:
    """Return the best accuracies that the guard wrote down last; empty: none."""
    found = [e.facts["class_bests"] for e in ledger.events() if "class_bests" in e.facts]
    return found[-1] if found and isinstance(found[-1], Mapping) else {}


def found_history(site: Site, keep: frozenset[str]) -> History:
    """Return the history of a seed, that of an interrupted run where there is one."""
    config, folder = site.config, site.folder
    root = None if folder is None else folder.history(config.seed)
    return History(
        root,
        keep=_kept(root, keep),
        interval=config.history.interval,
        dtype=config.history.dtype,
        key=None if folder is None else folder.key,
        keys=keys_of(config, folder),
    )


def _kept(root: Path | None, wanted: frozenset[str]) -> frozenset[str]:
    """Return the columns that a history goes on with: those recorded so far, where they suffice.

    The strategy may have been changed for one that needs less.
    """
    if root is None or not (root / INDEX).is_file():
        return wanted
    try:
        with History.open(root, readonly=True) as recorded:
            found = frozenset(recorded.kept.keep)
    except (FedUnlearnError, sqlite3.Error):  # opened in earnest, it says what is wrong
        return wanted
    return found if found >= wanted else wanted


def prepare_foreign(site: Site, federation: Federation) -> None:
    """Let a run from a model that was trained elsewhere record its own rounds, and not that model.

    The file of the model is the user's: it may be gone once somebody was forgotten.
    """
    if site.config.start.model is not None:
        federation.foreign, federation.untrained = True, site.task.initial()


def first_model(site: Site) -> Arrays:
    """Return the model before the first round of a run."""
    given = starting_model(site.config, site.task)
    return site.task.initial() if given is None else given


def compared_model(site: Site, federation: Federation) -> Arrays:
    """Return the model before the first round of a comparison.

    One from elsewhere brings its own history, in memory.
    """
    config, task = site.config, site.task
    given = starting_model(config, task)
    if given is None:
        return task.initial()
    imported = starting_history(config, task, given)
    federation.foreign = imported is None
    federation.history.destroy()  # it would keep the model it starts from
    federation.history = imported or History(keep=federation.history.keep)
    if imported is not None:
        federation.completed = max(imported.rounds)
    return given


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
    found = read_arrays(Path(path))
    rename = None if task.array_model else partial(named_as, task.fresh_model(0))
    try:
        return fitted(found, task.initial(), rename)
    except ConfigError as error:
        raise ConfigError(
            f"start.model = {path!r} is not a model of [model] {config.model.name!r}: {error}"
        ) from error


def starting_history(config: Config, task: Task, arrays: Arrays) -> History | None:
    """Return a copy, in memory, of the history that ``[start]`` names; None: it names none.

    Raises
    ------
    ConfigError
        If it is that of another model, or of clients that are not there.
    HistoryError
        If it cannot be read.
    """
    if config.start.history is None:
        return None
    with History.open(Path(config.start.history), readonly=True) as recorded:
        found = recorded.fork(None, durable=False)
    where = f"start.history = {config.start.history!r}"
    if problem := mismatch(arrays, found.initial):
        raise ConfigError(f"{where} is that of another model than start.model: {problem}")
    known = set(task.facts().clients)
    seen = {client for number in found.rounds for client in found.participants(number)}
    if strange := sorted(seen - known):
        raise ConfigError(
            f"{where} knows client {strange[0]}, and data.clients gives {len(known)} of them; "
            "clients are numbered from 0 in the same order"
        )
    return found


def check_foreign(config: Config, strategy: UnlearningStrategy) -> None:
    """Refuse a strategy that needs more of a model's training elsewhere than was imported.

    Raises
    ------
    HistoryError
        If something it needs is not there.
    """
    if config.start.history is None:
        strategy.check_foreign()
    else:
        fitness.check_foreign(type(strategy).__name__, strategy.needs - COLUMNS - {INITIAL})


def strange_need(strategy: UnlearningStrategy) -> str:
    """Return in words what a strategy needs that nobody can keep or make; empty if nothing."""
    known = sorted({*COLUMNS, INITIAL, LAST_LOCAL, ATTRIBUTION, PUBLIC, *steps.names()})
    strange = [name for name in strategy.keepsakes() if name not in known]
    return unknown("need", strange[0], known) if strange else ""


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


def start(
    strategy: UnlearningStrategy, grid: Grid, federation: Federation, arrays: Arrays, rounds: int
) -> Arrays:
    """Let a strategy learn and serve in a federation; return the model it comes to."""
    strategy.join(federation)
    timeout = federation.timeout_s
    result = strategy.start(grid, to_record(arrays), num_rounds=rounds, timeout=timeout)
    return to_arrays(result.arrays)
