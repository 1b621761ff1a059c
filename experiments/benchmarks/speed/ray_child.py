"""Learn on a Ray cluster of two nodes; print wall seconds of a round.

Argument, one JSON object: ``config``, ``changes``, ``rounds``. A head and a worker node, of one
processor each, are started on the loopback interface and ended again.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

RAY = Path(sys.executable).parent / "ray"
WAIT_S = 180.0  # for a node to be there
ENVIRONMENT = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_DOCKER_CPU_WARNING": "1"}


def called(*words: str) -> str:
    """Return what a Python process printed; end with what went wrong."""
    done = subprocess.run(
        [sys.executable, *words], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    return done.stdout if not done.returncode else sys.exit(done.stderr.strip())


@contextmanager
def cluster() -> Iterator[str]:
    """Yield the address of a cluster, and end both of its nodes with all that they began."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{found.getsockname()[1]}"
    home = mkdtemp(prefix="r-")  # sockets lie below: a short path
    common = ["--num-cpus", "1", "--disable-usage-stats", "--block", "--node-ip-address=127.0.0.1"]
    port = address.rpartition(":")[2]
    head = ["--head", "--port", port, "--include-dashboard", "false", "--temp-dir", home]
    begun: list[subprocess.Popen[bytes]] = []
    own = {k: v for k, v in ENVIRONMENT.items() if k != "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"}
    try:
        for nodes, words in enumerate((head, ["--address", address]), 1):
            begun.append(
                subprocess.Popen(
                    [str(RAY), "start", *words, *common],
                    env=own,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            )
            wait_for(address, nodes)
        yield address
    finally:
        for process in reversed(begun):
            for number in (signal.SIGTERM, signal.SIGKILL):
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(20)
        shutil.rmtree(home, ignore_errors=True)


def wait_for(address: str, nodes: int) -> None:
    """Wait until a cluster has so many nodes."""
    code = (
        "import sys, time, ray\n"
        f"until = time.monotonic() + {WAIT_S}\n"
        "while True:\n"
        "    try:\n"
        f"        ray.init({address!r}, logging_level='ERROR', log_to_driver=False)\n"
        "        break\n"
        "    except Exception:\n"
        "        if time.monotonic() > until: raise\n"
        "        time.sleep(1)\n"
        f"while sum(one['Alive'] for one in ray.nodes()) < {nodes}:\n"
        "    if time.monotonic() > until: sys.exit('a node of the cluster does not start')\n"
        "    time.sleep(.5)\n"
    )
    called("-c", code)


def main(config: str, changes: list[str], rounds: int) -> None:
    """Print ``round_s``, wall seconds of a round after the first."""
    with TemporaryDirectory() as home, cluster() as address:
        sets = [*changes, f"rounds={rounds}", f"engine.ray_address={address}"]
        words = [part for one in sets for part in ("--set", one)]
        code = "from experiments.cli import app; app()"
        called("-c", code, "--quiet", "run", config, "--out", f"{home}/run", *words)
        points = json.loads(Path(home, "run", "details.json").read_text())["timeline"]
    ends = [one["wall_s"] for one in points if one["phase"] == "learn"]
    print(json.dumps({"round_s": (ends[-1] - ends[0]) / (len(ends) - 1), "rounds": len(ends)}))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
