"""A SuperNode whose messages find everything imported: one process imports, a fork answers.

By itself Flower starts a Python process for every message, which imports Flower, PyTorch and this
package before it does anything (some three CPU seconds), and a SuperNode without a message sleeps
for three seconds. Here the node sleeps less, and its SuperExec hands every message to a *nursery*:
a process of one thread that has imported all of it, and forks.

    python -m experiments.deployment.warm OPTIONS-OF-FLOWER-SUPERNODE

What runs is still what was sent: where a bundle brings code, its digest is compared with that of
the same files as installed, and if it differs they are imported anew, from the bundle.

This rests on parts of Flower that are not public, so it works with the versions that
:mod:`experiments.deployment.waits` names alone.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from experiments.deployment import waits
from unlearning.errors import ConfigError

__all__ = ["check_flower", "command", "digests", "drop_others", "main", "stamp"]

_POLL_S = "0.1"  # of its SuperExec, on loopback
_HOUSE = __package__.partition(".")[0]
_OURS = (_HOUSE, "clients", "strategies", "unlearning")
_APP = f"{_HOUSE}.app"  # on the floor above: nothing here imports it but Flower's own way
_OWN = "experiments.deployment.warm"  # run as a program it has another name
_AT_WORK = ("httpcore", f"{_HOUSE}.models.array_models")  # imported not before a message
_WATCH_S, _GRACE_S = 0.5, 5.0
_EXECUTOR, _NURSERY = "--executor", "--nursery"

log = logging.getLogger("fedunlearn")


def check_flower() -> None:
    """Refuse a Flower that this was not tried with.

    Raises
    ------
    ConfigError
        If it is another one.
    """
    if not waits.is_tested():
        found, known = importlib.metadata.version("flwr"), " and ".join(waits.TESTED)
        raise ConfigError(f"--warm was tried with Flower {known}, this is {found}; leave it out")


def command(*arguments: str) -> list[str]:
    """Return the command line of this program."""
    return [sys.executable, "-m", _OWN, *arguments]


def main(arguments: Sequence[str]) -> None:
    """Be a node, its SuperExec, or the nursery of that."""
    check_flower()
    if arguments[:1] == [_NURSERY]:
        _nursery(sys.stdin)
    elif arguments[:1] == [_EXECUTOR]:
        _executor(arguments[1], int(arguments[2]))
    else:
        _node(list(arguments))


# The node ---------------------------------------------------------------------------------------


def _node(arguments: list[str]) -> None:
    from flwr.supernode.cli import flower_supernode

    address = f"127.0.0.1:{arguments[arguments.index('--port') + 1]}"
    subprocess.Popen(command(_EXECUTOR, address, str(os.getpid())))
    waits.nap_less()
    waits.look_soon()
    # Our executor takes the place of the one that a node starts for itself otherwise.
    sys.argv = ["flower-supernode", *arguments, "--isolation", "process"]
    flower_supernode()


# Its SuperExec ----------------------------------------------------------------------------------


def _executor(address: str, node: int) -> None:
    """Ask the node for tasks, and hand them on, for as long as the node is there."""
    os.environ["FLWR_SUPEREXEC_TASK_POLL_INTERVAL"] = _POLL_S
    threading.Thread(target=_end_with, args=(node,), daemon=True).start()
    from flwr.supercore.constant import TaskType
    from flwr.supercore.superexec.executor import ExecutionSpec, LaunchResult, SubprocessExecutor

    superexec: Any = importlib.import_module("flwr.supercore.superexec.run_superexec")

    class Handing(SubprocessExecutor):
        """Hands messages to the nursery; without one, starts a process as Flower does."""

        def __init__(self) -> None:
            self._nursery = subprocess.Popen(command(_NURSERY), stdin=subprocess.PIPE, text=True)

        def launch(self, spec: ExecutionSpec) -> LaunchResult:
            pipe = self._nursery.stdin
            if spec.task_type == TaskType.CLIENT_APP and pipe is not None:
                try:
                    pipe.write(json.dumps(asdict(spec)) + "\n")
                    pipe.flush()
                except OSError as error:
                    log.warning("the nursery is gone (%s): a new process per message", error)
                else:
                    return LaunchResult.accepted()
            return super().launch(spec)

        def close(self) -> None:
            if self._nursery.stdin is not None:
                self._nursery.stdin.close()

    superexec.get_executor = lambda *args, **kwargs: Handing()
    superexec.run_superexec(runtime_api_address=address, insecure=True, parent_pid=node)


def _end_with(node: int) -> None:
    """End this process once the node is gone.

    Flower raises an interrupt in the main thread then, and once. One that came while the node was
    turned away got lost, and the SuperExec went on for good with asking nobody for tasks.
    """
    while os.getppid() == node:
        time.sleep(_WATCH_S)
    time.sleep(_GRACE_S)  # for Flower's own way to end
    os._exit(1)


# The nursery ------------------------------------------------------------------------------------


def _nursery(tasks: IO[str]) -> None:
    """Import everything once; fork for every line that comes."""
    importlib.import_module("flwr.supernode.runtime.run_clientapp")
    for name in (_APP, *_AT_WORK):
        importlib.import_module(name)
    waits.look_soon()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how a fork ended
    known = stamp()
    while line := tasks.readline():
        if os.fork() == 0:
            if stamp() != known:
                log.warning("another version was installed meanwhile: it is imported anew")
                _forget(_OURS)
            _answer(json.loads(line))
            return


def stamp() -> int:
    """Return what changes when other files are installed in the place of this package's."""
    root = Path(__file__).parents[2]
    files = (path for name in _OURS for path in sorted((root / name).rglob("*.py")))
    found = ((str(path), path.stat()) for path in files)
    return hash(tuple((name, state.st_mtime_ns, state.st_size) for name, state in found))


def _answer(spec: dict[str, Any]) -> None:
    """Be, in a fork, the process that Flower would have started for a message."""
    runtime: Any = importlib.import_module("flwr.supernode.runtime.run_clientapp")
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    load = runtime.get_load_client_app_fn

    def loader(*args: Any, **kwargs: Any) -> Any:
        inside = load(*args, **kwargs)

        def checked(fab_id: str, fab_version: str, fab_hash: str) -> Any:
            drop_others(Path(runtime.get_project_dir(fab_id, fab_version, fab_hash)))
            return inside(fab_id, fab_version, fab_hash)

        return checked

    runtime.get_load_client_app_fn = loader
    from flwr.supercore.tls import validate_and_resolve_root_certificates

    code: object = 1
    try:
        runtime.run_clientapp(
            runtime_api_address=spec["runtime_api_address"],
            token=spec["token"],
            insecure=spec["insecure"],
            certificates=validate_and_resolve_root_certificates(
                spec["root_certificates_path"], spec["insecure"]
            ),
            parent_pid=spec["parent_pid"],
            runtime_dependency_install=spec["runtime_dependency_install"],
        )
    except SystemExit as left:
        code = left.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0)


def digests(bundle: Path) -> tuple[str, str]:
    """Return the digest of a bundle's code and that of the same files as installed (or ``""``).

    Parameters
    ----------
    bundle : Path
        Where Flower has laid it out.

    Returns
    -------
    tuple of str
        SHA-256, hex, over names and contents of all ``.py`` files; empty where there are none.
    """
    sent, here = hashlib.sha256(), hashlib.sha256()
    files = sorted(path.relative_to(bundle) for path in bundle.rglob("*.py"))
    for name in files:
        for state, content in ((sent, (bundle / name).read_bytes()), (here, _installed(name))):
            if content is not None:
                state.update(json.dumps([name.as_posix(), len(content)]).encode() + content)
    return (sent.hexdigest(), here.hexdigest()) if files else ("", "")


def _installed(name: Path) -> bytes | None:
    """Return the content of the installed file of that name; None where there is none."""
    path = Path(__file__).parents[2] / name
    return path.read_bytes() if path.is_file() else None


def drop_others(bundle: Path) -> bool:
    """Let what a bundle brings be imported anew, if it is not what is installed.

    Returns
    -------
    bool
        Whether it differed.
    """
    sent, here = digests(bundle)
    if sent == here:
        return False
    brought = {path.stem for path in bundle.glob("*.py")}
    brought |= {path.name for path in bundle.iterdir() if path.is_dir()}
    log.warning(
        "the bundle's code (digest %s) is not the installed one (%s): it is imported anew",
        sent[:12], here[:12],
    )  # fmt: skip
    _forget(brought)
    return True


def _forget(packages: Collection[str]) -> None:
    """Let packages be imported anew when they are asked for."""
    for name in list(sys.modules):
        if name.partition(".")[0] in packages:
            del sys.modules[name]


if __name__ == "__main__":
    main(sys.argv[1:])
