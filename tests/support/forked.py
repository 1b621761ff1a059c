"""A process of its own that need not import again what the tests have imported."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn

import torch

__all__ = ["RAY", "ended", "forked", "is_running"]

RAY = ("flwr.simulation", "ray")  # what a run on Ray imports


def forked(does: Callable[[], object], said: Path, *, knows: Iterable[str] = ()) -> int:
    """Do something in a fork, which ends with it; what it says goes to a file.

    Parameters
    ----------
    does : callable
        What the fork does.
    said : Path
        The file.
    knows : iterable of str
        Modules that it needs and that other forks will need, too.

    Returns
    -------
    int
        Its process; `ended` waits for it.
    """
    for name in knows:
        importlib.import_module(name)
    torch.set_num_threads(1)  # threads do not survive a fork
    child = os.fork()
    if child == 0:
        _be(does, said)
    return child


def is_running(process: int) -> bool:
    """Return whether a fork has not come to its end."""
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def ended(process: int, within_s: float = 100.0) -> int:
    """Wait for a fork, and return its exit code; one that takes longer is killed."""
    until = time.monotonic() + within_s
    while (found := os.waitpid(process, os.WNOHANG)) == (0, 0):
        if time.monotonic() > until:
            os.kill(process, signal.SIGKILL)
        time.sleep(0.02)
    return os.waitstatus_to_exitcode(found[1])


def _be(does: Callable[[], object], said: Path) -> NoReturn:
    code: object = 1
    try:
        with said.open("w", encoding="utf-8") as file:
            for number in (1, 2):
                os.dup2(file.fileno(), number)
        sys.stdout, sys.stderr = (os.fdopen(n, "w", closefd=False) for n in (1, 2))
        does()
        code = 0
    except SystemExit as left:
        code = left.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)
