"""Start a federation: on Flower's Ray simulation, or in this process.

One ServerApp and one Ray start serve a whole comparison. Ray listens on the loopback interface
only, its workers restart when they die, and an interrupt ends the run cleanly.
"""

from __future__ import annotations

import errno
import gc
import logging
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from experiments.config.loading import Config, load
from experiments.federation.books import Books
from experiments.federation.course import Course
from experiments.federation.estimate import check_room
from experiments.federation.preflight import check_working_directory
from experiments.federation.quiet import quiet
from experiments.runs.folder import COMPARE, RUN, RunFolder
from experiments.runs.intent import Intent, fingerprint
from experiments.runs.progress import Observer
from experiments.runs.status import FINISHED
from experiments.runs.stopping import Stop, StoppedError
from unlearning.errors import ConfigError, FedUnlearnError, StorageError
from unlearning.records.files import free_bytes
from unlearning.records.ledger import Ledger

__all__ = ["compare", "conduct", "on_ray", "resume", "run"]

log = logging.getLogger("fedunlearn")


def run(
    config: Config,
    out: Path,
    *,
    observer: Observer,
    command: str | None = None,
    idle_s: float = 0.0,
    anyway: bool = False,
) -> Path:
    """Learn, serve the configured and any arriving requests, recover; return the run folder.

    ``command`` is what the report calls the words that made it, if not this process's own;
    ``idle_s`` how long the run stays after its rounds and waits for requests; ``anyway`` begins it
    though the disk seems too small for its history.

    Raises
    ------
    FedUnlearnError
        If the config cannot work; nothing is written then.
    """
    course = replace(Course.of_run(config, observer), idle_s=idle_s)
    return conduct(_called(course, command), out, anyway=anyway)


def compare(
    config: Config,
    out: Path,
    *,
    strategies: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    observer: Observer,
    command: str | None = None,
) -> Path:
    """Learn once per seed, then let every strategy answer from the same history.

    Parameters
    ----------
    config : Config
        Needs at least one request.
    out : Path
        The run folder to make.
    strategies : sequence of str, optional
        Aliases or ``module:Class``; default: those of the config. The controls ``retrain`` and
        ``fine-tune`` are always there.
    seeds : sequence of int, optional
        Default: the config's.
    observer : Observer
        Told of every round.
    command : str, optional
        What the report calls the words that made it; default: this process's command line.

    Raises
    ------
    FedUnlearnError
        If the config cannot work; nothing is written then.
    """
    course = Course.of_comparison(config, observer, strategies, seeds)
    return conduct(_called(course, command), out)


def conduct(course: Course, out: Path, *, anyway: bool = False) -> Path:
    """Check a course, carry it out on the grid of its config, and return the run folder.

    Raises
    ------
    FedUnlearnError
        If the config cannot work, or the disk cannot hold its history (unless ``anyway``); nothing
        is written then.
    """
    _check(course)
    if not anyway:
        check_room(course.sizes(), out)
    return _carried_out(course, course.begin(out), out)


def resume(
    folder: RunFolder,
    intent: Intent,
    *,
    observer: Observer,
    accept_change: bool = False,
) -> Path | None:
    """Go on with a run or a comparison that was interrupted, or serve what came after its end.

    Parameters
    ----------
    folder : RunFolder
        Of the run.
    intent : Intent
        What it was made to do.
    observer : Observer
        Told of every round.
    accept_change : bool
        Go on though config or code are not those it began with; the ledger then says so.

    Returns
    -------
    Path or None
        The run folder; None where there was nothing to do.

    Raises
    ------
    ConfigError
        If config or code were changed, or another process is at work in the folder.
    FedUnlearnError
        If the federation cannot go on.
    """
    now = fingerprint(folder.config)
    with folder.open_ledger() as ledger:
        if _is_over(folder, intent, ledger):
            return None
        if now != intent.sha256 and not accept_change:
            raise ConfigError(
                f"config or code of {folder.path} are not those it began with, so it would not "
                "come out as it would have; put them back, or go on all the same with "
                f"`fedunlearn resume {folder.path} --accept-change`"
            )
        if now != intent.sha256:
            ledger.note("change-accepted", before=intent.sha256, now=now)
    course = Course.of_intent(load(folder.config), intent, observer)
    _check(course, begun=True)
    if now != intent.sha256 and course.kind == RUN:
        course.name_strategy(folder)
    return _carried_out(course, course.reopen(folder), folder.path)


def _is_over(folder: RunFolder, intent: Intent, ledger: Ledger) -> bool:
    status = folder.read_status()
    if status is None or status.state != FINISHED:
        return False
    return intent.kind == COMPARE or not [*ledger.waiting(), *ledger.pending()]


def _check(course: Course, *, begun: bool = False) -> None:
    course.check(begun=begun)
    if _grid_of(course) == "ray":
        check_working_directory()


def _carried_out(course: Course, opened: AbstractContextManager[Books], out: Path) -> Path:
    """Carry a course out on the grid of its config; say how it goes on if somebody stops it."""
    kind, stop = _grid_of(course), Stop()
    try:
        with opened as books:

            def body(grid: Grid) -> None:
                course.conduct(grid, books, stop.is_set)

            if kind == "ray":
                on_ray(course.config, course.num_clients, body, stop)
            else:
                told = _in_process(kind, course.num_clients, body, stop)
                RunFolder(out).write_engine(told)
    except StoppedError as error:
        error.go_on = f"fedunlearn resume {out}"
        raise
    except FedUnlearnError:
        raise
    except (OSError, sqlite3.OperationalError) as error:
        raise _no_disk(error, out) from error
    return out


def _no_disk(error: OSError | sqlite3.OperationalError, out: Path) -> FedUnlearnError:
    """Return in one line that the disk does not take what is written, and how the run goes on."""
    fault = error if isinstance(error, OSError) else OSError(errno.EIO, str(error))
    path = fault.filename if isinstance(fault.filename, str) else str(out)
    found = StorageError(fault, path, None, None)
    found.remedy = (
        f"{free_bytes(out)} bytes are free there; remove the cause, then `fedunlearn resume {out}` "
        "goes on"
    )
    return found


def _called(course: Course, command: str | None) -> Course:
    return course if command is None else replace(course, command=command)


def _grid_of(course: Course) -> str:
    from experiments.federation.participants import chosen_grid

    return chosen_grid(course.config, course.tasks[course.seeds[0]])


def _in_process(
    kind: str, num_clients: int, body: Callable[[Grid], None], stop: Stop
) -> dict[str, object]:
    """Call ``body`` with a grid of this process; return how its clients were trained."""
    from experiments.federation.grids import StackedGrid
    from experiments.federation.participants import in_process

    grid = in_process(kind, num_clients)
    with stop.listening(), quiet("flwr", level=logging.WARNING):  # the progress bar tells the same
        body(grid)
    if not isinstance(grid, StackedGrid):
        return {"grid": kind}
    found = grid.together
    log.info("trained side by side: %d times, %d on their own", found.stacked, found.alone)
    return {
        "grid": kind,
        "stacked": found.stacked,
        "alone": found.alone,
        "reasons": dict(found.reasons),
    }


def on_ray(
    config: Config,
    num_clients: int,
    body: Callable[[Grid], None],
    stop: Stop | None = None,
    *,
    client_app: ClientApp | None = None,
) -> None:
    """Call ``body`` with the grid of a Ray simulation, and end the simulation when it returns.

    Parameters
    ----------
    config : Config
        Its ``engine`` and ``device`` are read.
    num_clients : int
        Number of simulated nodes.
    body : callable
        Runs in a thread of this process; what it raises is raised here.
    stop : Stop, optional
        Set by SIGINT and SIGTERM.
    client_app : ClientApp, optional
        Must live in an importable module; default: that of a scenario.

    Raises
    ------
    ConfigError
        If Ray does not start.
    """
    from experiments.federation import cluster, participants
    from experiments.federation.simulation import simulate

    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        try:
            body(grid)
        except InterruptedError:
            _end_workers()
            raise

    gpus = cluster.gpus_per_worker(config)
    cluster.start(config, gpus)
    resources: dict[str, Any] = {
        "num_cpus": 1,
        "num_gpus": gpus,
        "max_restarts": -1,  # a dead worker is otherwise never replaced and swallows messages
    }
    # Ray sets its own handlers when it starts, so ours come after it.
    with (stop or Stop()).listening(), quiet("flwr", level=logging.WARNING):
        simulate(server_app, client_app or participants.client_app, num_clients, resources)


def _end_workers() -> None:
    """End all workers of this process's Ray at once.

    Else the simulation waits for clients at work, for as long as they may work. Flower shows its
    pool of workers to nobody, so their handles are looked for in memory.
    """
    import ray
    from ray.actor import ActorHandle

    for handle in [found for found in gc.get_objects() if isinstance(found, ActorHandle)]:
        ray.kill(handle)
