"""A federation of real processes on loopback, for the time of a block."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from experiments.config.loading import from_mapping
from experiments.config.schema import Config
from experiments.deployment import processes
from experiments.deployment.kit import Kit
from experiments.deployment.server import Server
from experiments.deployment.shares import remote, write_shares

__all__ = ["Deployed", "deployed", "eventually", "needs_processes", "rounds_done", "silent"]

_SUPERLINK = Path(sys.executable).parent / "flower-superlink"

needs_processes = pytest.mark.skipif(
    not _SUPERLINK.exists() or not Path("/proc/self/stat").exists(),
    reason=f"needs {_SUPERLINK} (install flwr in this environment) and /proc (run it on Linux)",
)


def rounds_done(out: Path) -> int:
    """Return how many rounds a run has done; 0 while it has not said so."""
    try:
        return int(json.loads((out / "status.json").read_text())["rounds_done"])
    except (OSError, ValueError):
        return 0


def silent(line: str) -> None:
    """Say nothing."""


@dataclass
class Deployed:
    """What runs.

    Parameters
    ----------
    server : Server
        With its SuperLink.
    kits : list of Kit
        With their SuperNodes.
    config : Config
        Of a run, and the same as a simulation's.
    """

    server: Server
    kits: list[Kit]
    config: Config
    simulated: Config

    def processes(self, name: str) -> list[int]:
        """Return the processes of that name that the SuperLink began."""
        return processes.helpers(self.server.pid_file, name) or []

    def kill(self, name: str) -> None:
        """Kill a helper of the SuperLink with SIGKILL."""
        (pid, *_) = self.processes(name)
        os.kill(pid, signal.SIGKILL)


@contextmanager
def deployed(out: Path, *, rounds: int = 4, **changes: object) -> Iterator[Deployed]:
    """Set up a warm site per client, three with digits; end everything afterwards."""
    simulated = from_mapping(
        {
            "rounds": rounds,
            "recovery_rounds": 1,
            "strategy": "retrain",
            "device": "cpu",
            "data": {"name": "digits", "clients": 3, "limit": 300, "test_limit": 100},
            "model": {"name": "mlp", "hidden": 8},
            "engine": {"grid": "local", "timeout_s": 300.0, "min_replies": 0.5},
            **changes,
        }
    )
    files = write_shares(simulated, out / "shares")
    server = Server.init(out / "fed", f"127.0.0.1:{processes.free_port()}")
    kits = []
    for client, file in enumerate(files):
        kit, public = Kit.init(out / f"site-{client}", f"site-{client}")
        _, invitation = server.add(public)
        kits.append(kit.accept(invitation).hold(str(file)))
    try:
        server.start()
        with ThreadPoolExecutor(len(kits)) as pool:
            list(pool.map(lambda kit: kit.start(silent, silent, warm=True), kits))
        yield Deployed(server, kits, remote(simulated, out / "shares"), simulated)
    finally:
        for kit in kits:
            kit.stop()
        server.stop()


def eventually(holds: Callable[[], object], within_s: float = 300.0) -> None:
    """Return when something holds.

    Raises
    ------
    AssertionError
        If it does not within that time.
    """
    until = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.2)
