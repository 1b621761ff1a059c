"""Processes that go on after the command that began them, and how they are ended again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from unlearning.errors import ConfigError

__all__ = [
    "environment",
    "free_port",
    "helpers",
    "is_open",
    "is_running",
    "program",
    "spawn",
    "stop",
]

_POLL_S = 0.1
_started: dict[int, subprocess.Popen[bytes]] = {}  # by this process; they may outlive it
_GRACE_S = 20.0  # between asking a process to end and ending it


def program(name: str) -> str:
    """Return the path of one of Flower's programs in this environment.

    Raises
    ------
    ConfigError
        If it is not installed.
    """
    found = Path(sys.executable).parent / name
    if not found.exists():
        raise ConfigError(
            f"{found} is missing; install flwr in the environment of {sys.executable}"
        )
    return str(found)


def environment(flwr_home: Path) -> dict[str, str]:
    """Return what Flower's programs need: a home of their own, and no word to anybody."""
    beside = str(Path(sys.executable).parent)
    return {
        **os.environ,
        "FLWR_HOME": str(flwr_home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        # Between two looks for tasks; Flower's own 1 s is waited for with every message.
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": os.environ.get(
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL", "0.25"
        ),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        "PATH": os.pathsep.join([beside, os.environ.get("PATH", "")]),  # they start each other
    }


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def is_open(host: str, port: int) -> bool:
    """Return whether somebody listens."""
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False


def spawn(
    command: Sequence[str], pid_file: Path, log: Path, env: Mapping[str, str], cwd: Path
) -> int:
    """Start a process that leads a session of its own; its output goes to a log.

    Raises
    ------
    ConfigError
        If the one of the pid file is still running.
    """
    if is_running(pid_file):
        raise ConfigError(f"it is running already (process {_read(pid_file)[0]}); stop it first")
    with log.open("ab") as out:
        started = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
        )
    _started[started.pid] = started
    pid_file.write_text(json.dumps([started.pid, _born(started.pid)]))
    return started.pid


def is_running(pid_file: Path) -> bool:
    """Return whether the process of a pid file is there, and no other took its number."""
    pid, born = _read(pid_file)
    return bool(pid) and _is_alive(pid) and _born(pid) == born


def helpers(pid_file: Path, name: str) -> list[int] | None:
    """Return the processes called ``name`` that a process began; None: the system does not tell."""
    if not Path("/proc/self/stat").exists():
        return None
    found = []
    for pid in _descendants(_read(pid_file)[0]):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if any(word.endswith(name.encode()) for word in words[:2]):
                found.append(pid)
    return found


def stop(pid_file: Path, *, at_once: bool = False) -> bool:
    """End the process of a pid file and those it began; return whether there was one."""
    pid, _ = _read(pid_file)
    running = is_running(pid_file)
    if running:
        os.kill(pid, signal.SIGKILL if at_once else signal.SIGTERM)
        deadline = time.monotonic() + _GRACE_S
        while _is_alive(pid) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        for one in _session(pid):  # it may have left some behind
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(one, signal.SIGKILL)
        deadline = time.monotonic() + _GRACE_S
        while _session(pid) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        if pid in _started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                _started[pid].wait(_POLL_S)
                del _started[pid]  # one that takes its time to end is kept, or nobody reaps it
    pid_file.unlink(missing_ok=True)
    return running


def _read(pid_file: Path) -> tuple[int, str]:
    try:
        pid, born = json.loads(pid_file.read_text())
        return int(pid), str(born)
    except (OSError, ValueError, TypeError):
        return 0, ""


def _stat(pid: int) -> list[str]:
    """Return the fields of a process behind its name; none where it is gone (or without /proc)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _is_alive(pid: int) -> bool:
    if pid in _started and _started[pid].poll() is not None:  # else it would stay as a zombie
        return False
    fields = _stat(pid)
    if fields:
        return fields[0] != "Z"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not Path("/proc/self/stat").exists()


def _born(pid: int) -> str:
    fields = _stat(pid)
    return fields[19] if len(fields) > 19 else ""


def _descendants(ancestor: int) -> list[int]:
    """Return the processes that one began, and those that these began; Flower detaches some."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        fields = _stat(int(entry.name))
        if len(fields) > 1 and fields[0] != "Z":
            parents[int(entry.name)] = int(fields[1])
    found = [ancestor]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]


def _session(leader: int) -> list[int]:
    """Return the processes of a session; none where the system does not tell."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        fields = _stat(int(entry.name))
        if len(fields) > 3 and fields[3] == str(leader) and fields[0] != "Z":
            found.append(int(entry.name))
    return found
