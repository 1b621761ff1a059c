"""A simulation on a Ray cluster of a head and a worker process: the models are the same."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
RAY = Path(sys.executable).parent / "ray"
SETS = ("rounds=2", "recovery_rounds=1", "data.clients=4", "data.limit=200", "strategy=fed-eraser")
_ONE_HOST = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # with "0" Ray refuses a second node
ENVIRONMENT = {
    **os.environ,
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_DOCKER_CPU_WARNING": "1",
    "PYTHONPATH": str(ROOT),
}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def called(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )


def alive(address: str) -> int:
    """Return how many nodes the cluster has; 0 where there is none yet."""
    code = (
        f"import ray; ray.init({address!r}, logging_level='ERROR', log_to_driver=False);"
        "print('nodes', sum(one['Alive'] for one in ray.nodes()))"
    )
    said = called("-c", code).stdout.split()
    return int(said[-1]) if said[-2:-1] == ["nodes"] else 0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """Start a head and a worker with one processor each, and end both with all they began."""
    address, begun = f"127.0.0.1:{free_port()}", []
    # Of its own, so that no other Ray on this machine joins it; sockets lie below: a short path.
    home = Path(tempfile.mkdtemp(prefix="r-"))
    place = ["--temp-dir", str(home)]
    common = ["--num-cpus", "1", "--disable-usage-stats", "--block", "--node-ip-address=127.0.0.1"]
    head = ["--head", "--port", address.rpartition(":")[2], "--include-dashboard", "false", *place]

    def start(*words: str) -> None:
        log = (tmp_path / f"ray-{len(begun)}.log").open("w")
        begun.append(
            subprocess.Popen(
                [str(RAY), "start", *words, *common],
                env={k: v for k, v in ENVIRONMENT.items() if k != _ONE_HOST},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        )
        log.close()

    def wait_for(nodes: int) -> None:
        until = time.monotonic() + 180
        while alive(address) < nodes:
            logs = [(path.name, path.read_text()[-500:]) for path in tmp_path.glob("ray-*.log")]
            assert time.monotonic() < until, logs
            time.sleep(1)

    try:
        start(*head)
        wait_for(1)
        start("--address", address)
        wait_for(2)
        yield address
    finally:
        for process in reversed(begun):
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(20)
        shutil.rmtree(home, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.xdist_group("ray")  # one cluster at a time
@pytest.mark.timeout(900)
@pytest.mark.skipif(not RAY.exists(), reason=f"{RAY} is missing; install ray in this environment")
def test_a_cluster_of_two_gives_the_same_models(cluster: str, tmp_path: Path) -> None:
    def run(name: str, *more: str) -> list[str]:
        sets = [part for one in (*SETS, *more) for part in ("--set", one)]
        code = "from experiments.cli import app; app()"
        config, out = "experiments/configs/digits_client.toml", tmp_path / name
        done = called("-c", code, "run", config, "--out", str(out), *sets)
        assert done.returncode == 0, done.stderr
        rows = json.loads((out / "results.json").read_text())["rows"]
        return [row["model_digest"] for row in rows]

    there = run("cluster", f"engine.ray_address={cluster}")
    assert there == run("here", "engine.grid=local")
    assert alive(cluster) == 2  # it was somebody else's, and is still there
    again = run("own", "engine.workers=1")  # without an address nothing joins it
    assert again == there
