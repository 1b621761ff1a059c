"""A run of a deployed federation: the ServerApp's part of it, and what waits for its end."""

from __future__ import annotations

import logging
import shlex
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from flwr.serverapp import Grid

from experiments.config.loading import Config, load, to_toml
from experiments.data.sites import REMOTE
from experiments.deployment.debts import Collector
from experiments.deployment.desk import (
    bind,
    catch_up,
    close_memberships,
    learned,
    post_receipts,
    receiver,
)
from experiments.deployment.keyed import KeyedGrid
from experiments.deployment.server import Server
from experiments.deployment.waits import look_soon
from experiments.federation.course import Course
from experiments.runs.folder import RunFolder
from experiments.runs.intent import Intent
from unlearning.errors import ConfigError, FederationError, FedUnlearnError
from unlearning.protocol import Scalar, Wire

__all__ = ["keyed_grid", "run", "serve", "with_members"]

log = logging.getLogger("fedunlearn")

_POLL_S, _LOOK_S = 1.0, 15.0
_RECEIPTS_S = 1.0
_ENDED = "finished"


def run(
    server: Server,
    config: Config,
    out: Path,
    *,
    resume: bool = False,
    idle_s: float = 0.0,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Hand a run to the SuperLink and wait for its end.

    Parameters
    ----------
    server : Server
        Its SuperLink must run on this machine.
    config : Config
        With ``data.name = "remote"``; who takes part is filled in from the roster.
    out : Path
        The run folder.
    resume : bool
        Go on in a folder that is there; its own config counts then.
    idle_s : float
        How long the run stays after its last round and waits for wishes.
    say : callable
        Told of what happens.

    Raises
    ------
    FederationError
        If the run fails.
    """
    if not server.is_running:
        raise ConfigError(
            f"the SuperLink of {server.folder} is down; `fedunlearn federation start`"
        )
    if not server.is_whole:
        raise ConfigError(
            f"the SuperLink of {server.folder} has lost its SuperExec and begins no run; "
            "`fedunlearn federation start` puts it right"
        )
    folder = out.expanduser().absolute()
    settings = server.folder / "app" / "config.toml"
    if not resume:
        catch_up(server, folder)
        settings.write_text(to_toml(with_members(config, server)))
    options = {
        "federation": str(server.folder),
        "config": str(settings),
        "out": str(folder),
        "resume": resume,
        "idle-s": float(idle_s),
    }
    run_id = server.submit(options)
    say(f"run {run_id} is at the SuperLink")
    try:
        state, details = _ended(server, folder, run_id)
    except KeyboardInterrupt:
        server.halt(run_id)
        raise
    if state != f"{_ENDED}:completed":
        failed = server.folder / "app" / "failure.txt"
        told = failed.read_text().strip() if failed.exists() else details
        raise FederationError(f"the run ended as {state} ({told or 'no reason given'})")
    return folder


def _ended(server: Server, folder: Path, run_id: str) -> tuple[str, str]:
    """Wait for the end of a run; return how it ended and what Flower says of it."""
    state, details, asked = "", "", time.monotonic()
    while not state.startswith(_ENDED):
        time.sleep(_POLL_S)
        # Every look at the SuperLink starts a program; folder and process say when it is due.
        is_working = _is_working(folder) or server.is_at_work
        if is_working and time.monotonic() < asked + _LOOK_S:
            continue
        asked = time.monotonic()
        if not server.is_whole:
            what = "SuperExec" if server.is_running else "SuperLink"
            raise FederationError(
                f"the {what} ended; `fedunlearn federation start`, then `federation run --resume`"
            )
        state, details = server.state_of(run_id)
    return state, details


def _is_working(folder: Path) -> bool:
    try:
        status = RunFolder.open(folder).read_status()
    except FedUnlearnError:
        return True  # not begun
    return status is None or status.is_running


def with_members(config: Config, server: Server) -> Config:
    """Return a config with the members of the roster filled in.

    Raises
    ------
    ConfigError
        If it is no config for sites with their own data, or nobody is a member.
    """
    if config.data.name != REMOTE:
        raise ConfigError(
            f"data.name = {config.data.name!r} is a simulation's; a federation's sites hold their "
            f"own data: set data.name = {REMOTE!r}, data.shape and data.classes"
        )
    if config.requests:
        raise ConfigError(
            "[[requests]] of a config bear no signature, and in a federation who asks must sign; "
            "leave them out and bring them with `fedunlearn request RUN --signed FILE`"
        )
    present = sorted(server.members.present, key=lambda member: member.client)
    if not present:
        raise ConfigError("the federation has no members; `fedunlearn federation add` adds them")
    known = all(member.rows for member in present)
    data = config.data.model_copy(
        update={
            "clients": len(present),
            "members": tuple(member.client for member in present),
            "rows": tuple(member.rows for member in present) if known else (),
        }
    )
    return config.model_copy(update={"data": data})


def serve(grid: Grid, options: Mapping[str, object]) -> None:
    """Carry a run out in the ServerApp; what a user can put right is left in words.

    Raises
    ------
    FedUnlearnError
        If the run fails; Flower then says only that it did.
    """
    server = Server.open(Path(str(options["federation"])))
    note = server.folder / "app" / "failure.txt"
    note.unlink(missing_ok=True)
    try:
        _serve(grid, server, options)
    except Exception as error:
        note.write_text(f"{' '.join(str(error).split())}\n")
        raise


def _serve(grid: Grid, server: Server, options: Mapping[str, object]) -> None:
    look_soon()
    out = Path(str(options["out"]))
    folder: RunFolder
    if options.get("resume"):
        folder = RunFolder.open(out)
        intent = Intent.read(out)
        course = Course.of_intent(load(folder.config), intent, _tell)
    else:
        course = Course.of_run(load(Path(str(options["config"]))), _tell)
        words = ("fedunlearn", "federation", "run", str(server.folder), "config.toml")
        course = replace(course, command=shlex.join([*words, "--out", str(out)]))
    course = replace(course, idle_s=float(str(options.get("idle-s", 0.0))))
    course.check()
    opened = course.reopen(RunFolder.open(out)) if options.get("resume") else course.begin(out)
    with opened as books:
        bind(books.folder, server)
        keyed = keyed_grid(grid, server, course, books.folder)
        over = threading.Event()
        posting = threading.Thread(
            target=_post, args=(server, books.folder, keyed, over), daemon=True
        )
        posting.start()
        try:
            course.conduct(keyed, books, lambda: False)
        finally:
            over.set()
            posting.join()
        learned(server, books.folder)
        close_memberships(server, books.ledger)
    log.info("report: %s", books.folder.report)


def keyed_grid(grid: Grid, server: Server, course: Course, folder: RunFolder) -> KeyedGrid:
    """Return the grid of a run whose nodes are known by their keys, and owe no deletion."""
    (seed,) = course.seeds
    facts: dict[str, Scalar] = {
        Wire.SCENARIO: course.tasks[seed].scenario.for_sites().to_json(),
        Wire.DEVICE: course.config.device,
        Wire.TIMEOUT: course.config.engine.timeout_s,
    }
    owed = Collector(server, folder.path, facts)
    return KeyedGrid(grid, lambda: server.members, receiver(server, folder), owed)


def _post(server: Server, folder: RunFolder, grid: KeyedGrid, over: threading.Event) -> None:
    told: set[str] = set()
    while not over.wait(_RECEIPTS_S):
        try:
            post_receipts(server, folder, grid, told)
        except Exception as error:  # a receipt less must not end the run
            log.warning("receipts could not be sent: %s", error)


def _tell(tick: object) -> None:
    log.info("%s", tick)
