"""Many runs in one folder: list them, stop one, throw away what is not needed any more."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from experiments.runs.folder import COMPARE, RunFolder
from experiments.runs.inspection import overview
from unlearning.errors import ConfigError, FedUnlearnError

__all__ = ["Entry", "freed", "shelf", "stop", "waste"]

_DEPTH = 3  # a plan's scenarios lie in a folder of their own below the runs


@dataclass(frozen=True)
class Entry:
    """One run on the shelf.

    Parameters
    ----------
    run : str
        Its folder.
    when : str
        UTC, of its last word.
    kind, state : str
        ``run``, ``compare`` or ``audit``; how it is.
    done : str
        Rounds done, of how many.
    requests : str
        Requests served, of how many.
    strategies : tuple of str
        Those of its config.
    """

    run: str
    when: str
    kind: str
    state: str
    done: str
    requests: str
    strategies: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """Return plain values."""
        return asdict(self)


def shelf(folder: Path) -> list[Entry]:
    """Return the runs below a folder, the latest first; what cannot be read is listed as damaged.

    Raises
    ------
    ConfigError
        If there is no such folder.
    """
    if not folder.is_dir():
        raise ConfigError(f"folder {folder} does not exist; name the one that holds your runs")
    found = [_entry(RunFolder(path)) for path in sorted(_folders(folder))]
    return sorted(found, key=lambda entry: entry.when, reverse=True)


def stop(folder: RunFolder, *, wait_s: float) -> bool:
    """Ask the process of a run to end cleanly; return whether it has ended.

    Parameters
    ----------
    folder : RunFolder
        Of the run.
    wait_s : float
        How long to wait for its end, in seconds.

    Raises
    ------
    ConfigError
        If it is not running, or runs on another host.
    """
    status = folder.read_status()
    if status is None or not status.is_running:
        state = "not begun" if status is None else status.state
        raise ConfigError(f"{folder.path} is not running ({state}); there is nothing to stop")
    if status.host != platform.node():
        raise ConfigError(f"{folder.path} runs on {status.host}; stop it there")
    os.kill(status.pid, signal.SIGTERM)
    until = time.monotonic() + wait_s
    while time.monotonic() < until:
        now = folder.read_status()
        if now is None or not now.is_running:
            return True
        time.sleep(0.1)
    return False


def waste(folder: RunFolder, *, everything: bool = False) -> list[Path]:
    """Return what can be thrown away of a run.

    A comparison that has ended needs neither its history nor its clients' files; a run needs both
    for requests that may come. Its results, report and ledger stay unless everything goes.

    Parameters
    ----------
    folder : RunFolder
        Of a run that has ended.
    everything : bool
        The whole folder, its ledger too.

    Raises
    ------
    ConfigError
        If it is running.
    """
    status = folder.read_status()
    if status is not None and status.is_running:
        raise ConfigError(f"{folder.path} is running; end it first: fedunlearn stop {folder.path}")
    if everything:
        return [folder.path]
    if _kind(folder) != COMPARE:
        return []
    return [path for path in (folder.histories, folder.homes) if path.exists()]


def freed(paths: list[Path], *, remove: bool) -> int:
    """Return the bytes below some paths, which are removed if asked."""
    size = sum(
        file.stat().st_size
        for path in paths
        for file in path.rglob("*")
        if file.is_file() and not file.is_symlink()
    )
    if remove:
        for path in paths:
            shutil.rmtree(path)
    return size


def _folders(folder: Path, depth: int = _DEPTH) -> Iterator[Path]:
    if RunFolder(folder).config.is_file():
        yield folder
    elif depth:
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink() and not path.name.startswith("."):
                yield from _folders(path, depth - 1)


def _kind(folder: RunFolder) -> str:
    if folder.federation.is_file():
        return folder.read_federation().kind
    return "audit" if (folder.path / "audit.json").is_file() else "?"


def _entry(folder: RunFolder) -> Entry:
    written = datetime.fromtimestamp(folder.config.stat().st_mtime, UTC)
    when = written.isoformat(timespec="seconds")
    try:
        found = overview(folder)
        config, kind = folder.read_config(), _kind(folder)
    except FedUnlearnError as error:
        return Entry(str(folder.path), when, "?", f"damaged: {error}", "", "", ())
    status = found.status
    served = sum("fulfilled" in request.states.values() for request in found.requests)
    named = config.get("strategies") or [config.get("strategy", "")]
    return Entry(
        run=str(folder.path),
        when=when if status is None else status.updated,
        kind=kind,
        state="not begun" if status is None else status.state,
        done="" if status is None else f"{status.rounds_done}/{status.rounds_total}",
        requests=f"{served}/{len(found.requests)}",
        strategies=tuple(map(str, named)) if isinstance(named, list) else (),
    )
