"""How far a run is: a small file that another process may read at any time."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from experiments.runs.progress import Observer, Tick
from unlearning.errors import ConfigError, FedUnlearnError
from unlearning.records.files import write_atomically

__all__ = ["Status", "read", "tracked"]

RUNNING, FINISHED, FAILED, INTERRUPTED = "running", "finished", "failed", "interrupted"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Status:
    """Content of ``status.json``.

    Parameters
    ----------
    state : str
        ``"running"``, ``"finished"``, ``"failed"`` or ``"interrupted"``.
    phase, strategy, server_round, rounds_done, rounds_total, accuracy
        Of the latest tick.
    error : str or None
        Why it failed, in words.
    pid, host, process_started
        Who writes it: a process number is reused, so the time the process started is kept beside
        it where the system tells (empty elsewhere).
    updated : str
        UTC, ISO 8601.
    """

    state: str = RUNNING
    phase: str = "start"
    strategy: str = ""
    server_round: int = 0
    rounds_done: int = 0
    rounds_total: int = 0
    accuracy: float | None = None
    error: str | None = None
    pid: int = field(default_factory=os.getpid)
    host: str = field(default_factory=platform.node)
    process_started: str = field(default_factory=lambda: _process_started(os.getpid()))
    updated: str = field(default_factory=_now)

    @property
    def is_running(self) -> bool:
        """Whether the run goes on, as far as this host can tell."""
        return self.state == RUNNING


def read(path: Path) -> Status | None:
    """Return the status, judged: a run whose process is gone has failed. None if there is no file.

    A process on another host cannot be judged; its word is taken.

    Raises
    ------
    ConfigError
        If the file is not a status.
    """
    try:
        status = Status(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{path} is not a run's status ({error}); delete it") from error
    if status.is_running and not _is_alive(status):
        gone = f"process {status.pid} ended without finishing the run"
        return replace(status, state=FAILED, error=gone)
    return status


@contextmanager
def tracked(path: Path, observer: Observer) -> Iterator[Observer]:
    """Keep the status at ``path`` up to date while the block runs, and say how it ended.

    Parameters
    ----------
    path : Path
        The file; its folder exists.
    observer : Observer
        Told of every tick after it is written.

    Yields
    ------
    Observer
        To be called with every tick.
    """
    status = Status()
    _write(path, status)

    def observe(tick: Tick) -> None:
        nonlocal status
        status = replace(
            status,
            phase=tick.phase,
            strategy=tick.strategy,
            server_round=tick.server_round,
            rounds_done=tick.rounds_done,
            rounds_total=tick.rounds_total,
            accuracy=tick.accuracy,
        )
        _write(path, status)
        observer(tick)

    try:
        yield observe
    except BaseException as error:  # an interrupt ends a run as well
        is_for_user = isinstance(error, FedUnlearnError)
        reason = str(error) if is_for_user else f"{type(error).__name__}: {error}".rstrip(": ")
        is_wanted = isinstance(error, (KeyboardInterrupt, InterruptedError))
        state = INTERRUPTED if is_wanted else FAILED
        with suppress(OSError):  # what ended the run is told, not that this could not be written
            _write(path, replace(status, state=state, error=None if is_wanted else reason))
        raise
    # The total was a guess on the way; now it is known.
    _write(path, replace(status, state=FINISHED, rounds_total=status.rounds_done))


def _write(path: Path, status: Status) -> None:
    # Not synced to disk: after a power cut the process is gone and the file says enough.
    text = json.dumps(asdict(replace(status, updated=_now())), indent=1)
    write_atomically(path, text.encode(), durable=False)


def _is_alive(status: Status) -> bool:
    if status.host != platform.node():
        return True
    try:
        os.kill(status.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it exists, and belongs to someone else
    return status.process_started == _process_started(status.pid)


def _process_started(pid: int) -> str:
    """Return when a process started, in ticks since boot; empty where ``/proc`` does not tell."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    # The command in parentheses may hold spaces; the fields after it are plain. A zombie is gone.
    fields = text.rpartition(")")[2].split()
    return "zombie" if fields[0] == "Z" else fields[19]
