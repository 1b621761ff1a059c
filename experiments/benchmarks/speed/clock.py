"""CPU seconds of whole process trees, measured in turn, so that a noisy machine disturbs all."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["HERE", "Child", "Found", "Setting", "Unmeasured", "child", "cpu_seconds", "in_turn"]

HERE = Path(__file__).resolve().parents[3]

# One thread everywhere: a second core that happens to be free changes CPU seconds as well.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Unmeasured(Exception):  # noqa: N818 - a reason, not an error
    """Why a part cannot be measured here, in words."""


@dataclass(frozen=True)
class Setting:
    """What a part is measured with.

    Parameters
    ----------
    root : Path or None
        Folder of data sets.
    against : Path or None
        A worktree of an older build.
    repeats : int
        How often whole commands are measured; medians count.
    """

    root: Path | None = None
    against: Path | None = None
    repeats: int = 3

    def data(self, needs: str) -> Path:
        """Return the folder of data sets.

        Raises
        ------
        Unmeasured
            If none was named.
        """
        if self.root is None:
            raise Unmeasured(f"it needs {needs}; name the folder of data sets by --root")
        return self.root

    def older(self) -> Path:
        """Return the worktree of the older build.

        Raises
        ------
        Unmeasured
            If none was named.
        """
        if self.against is None:
            raise Unmeasured("it is held against an older build; name its worktree by --against")
        return self.against


@dataclass(frozen=True)
class Found:
    """What a part measured.

    Parameters
    ----------
    figures : mapping
        By the keys of the table of goals.
    details : mapping
        Further plain JSON values that say what lies behind them.
    """

    figures: Mapping[str, Any]
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Child:
    """What a process of its own did.

    Parameters
    ----------
    answer : dict
        The JSON object that it printed last.
    cpu_s : float
        CPU seconds of it and all that it started.
    megabytes : float
        Its largest resident size, or that of the largest process it started.
    """

    answer: dict[str, Any]
    cpu_s: float
    megabytes: float


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def in_turn(repeats: int, *works: Callable[[], object]) -> list[float]:
    """Return the median CPU seconds of some pieces of work, done one after the other, in turn."""
    taken: list[list[float]] = [[] for _ in works]
    for _ in range(repeats):
        for work, found in zip(works, taken, strict=True):
            begun = cpu_seconds()
            work()
            found.append(cpu_seconds() - begun)
    return [statistics.median(found) for found in taken]


def child(source: Path, worktree: Path, arguments: Sequence[str], *, timeout_s: float) -> Child:
    """Run a script on the code of a worktree, with its interpreter if it has one.

    The script is read from ``source`` and run in the worktree, whatever that holds; its last line
    on standard output is a JSON object.

    Raises
    ------
    Unmeasured
        If it fails, with the last line of what it said.
    """
    own = worktree / ".venv" / "bin" / "python"
    python = str(own) if own.exists() else sys.executable
    quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    with tempfile.TemporaryDirectory() as home:
        places = {"FEDUNLEARN_CACHE": f"{home}/cache", "FLWR_HOME": f"{home}/flwr"}
        environment = {**os.environ, **_ONE_THREAD, **quiet, **places}
        environment["PYTHONPATH"] = str(worktree)
        watched = (python, "-c", _WATCH, python, "-", *arguments)
        done = subprocess.run(
            watched,
            input=source.read_text(),
            cwd=worktree,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    lines = done.stdout.splitlines()
    if done.returncode or len(lines) < 2:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise Unmeasured(f"{source.name} failed in {worktree.name}: {said[-1]}")
    used = json.loads(lines[-1])
    return Child(json.loads(lines[-2]), used["cpu_s"], used["megabytes"])


# A process that does nothing but start another: only so is what that one used its own alone. What
# that one leaves behind, as Ray's daemons and workers, becomes its child and is waited for. Ray's
# daemon reaps its workers so that their seconds are added to nobody's: all that live are looked at.
_WATCH = """
import ctypes, json, os, resource, subprocess, sys, time
PR_SET_CHILD_SUBREAPER = 36
try:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
except AttributeError:
    pass
ticks, seen = os.sysconf("SC_CLK_TCK"), {}
def look():
    parents, used = {}, {}
    for name in filter(str.isdigit, os.listdir("/proc") if os.path.isdir("/proc") else ()):
        try:
            with open(f"/proc/{name}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(name)] = int(fields[1])
        used[int(name), fields[19]] = (int(fields[11]) + int(fields[12])) / ticks
    for who, seconds in used.items():
        above = who[0]
        while above in parents and above != os.getpid():
            above = parents[above]
        if above == os.getpid() != who[0]:
            seen[who] = seconds
done = subprocess.Popen(sys.argv[1:], stdin=sys.stdin)
while done.poll() is None:
    look()
    time.sleep(0.1)
until = time.monotonic() + 120  # on a busy machine they take their time to end
while time.monotonic() < until:
    look()
    try:
        if os.waitpid(-1, os.WNOHANG) == (0, 0):
            time.sleep(0.05)
    except ChildProcessError:
        break
used = resource.getrusage(resource.RUSAGE_CHILDREN)
seconds = max(used.ru_utime + used.ru_stime, sum(seen.values()))
print(json.dumps({"cpu_s": seconds, "megabytes": used.ru_maxrss / 1024}))
sys.exit(done.returncode)
"""
