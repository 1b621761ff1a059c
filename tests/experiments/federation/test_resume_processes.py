"""Real processes and real signals: killed on Ray, stopped by SIGTERM, and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from experiments.cli import app
from experiments.runs import status
from experiments.runs.folder import RunFolder
from experiments.runs.results import read_results
from tests.support.deployed import eventually, rounds_done
from tests.support.forked import ended, forked

ROOT = Path(__file__).parents[3]
CONFIG = """
rounds = 6
recovery_rounds = 2
strategy = "fed-eraser"
[data]
name = "digits"
clients = 4
limit = 300
[model]
name = "mlp"
[train]
local_epochs = 1
[[requests]]
scope = "client"
clients = [3]
at_round = 4
"""


def command(*arguments: object) -> list[str]:
    code = "from experiments.cli import app; app()"
    return [sys.executable, "-c", code, *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "FLWR_TELEMETRY_ENABLED": "0"}


def finish(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def here(*arguments: object) -> Result:
    """Run a command in this process, where no process of its own is the matter."""
    return CliRunner().invoke(app, list(map(str, arguments)))


def begin(config: Path, out: Path, rounds: int, *settings: str) -> subprocess.Popen[str]:
    """Start a run and return when it has done some rounds."""
    overrides = [part for setting in settings for part in ("--set", setting)]
    process = subprocess.Popen(
        command("run", config, "--out", out, *overrides),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 300  # however busy the machine is
    while time.monotonic() < deadline:
        try:
            if json.loads((out / "status.json").read_text())["rounds_done"] >= rounds:
                return process
        except (OSError, ValueError):
            pass
        time.sleep(0.02)
    process.kill()
    raise AssertionError("the run did not get so far")


def held(config: Path, out: Path, said: Path) -> int:
    """Fork a run that waits for a signal after its first round; return its process then."""

    def run() -> None:
        signals, wakes = os.pipe()
        os.set_blocking(wakes, False)
        signal.set_wakeup_fd(wakes)
        write = status._write

        def written(path: Path, found: status.Status) -> None:
            write(path, found)
            if found.is_running and found.rounds_done == 1:
                os.read(signals, 1)

        status._write = written
        app(["run", str(config), "--out", str(out), "--set", "engine.grid=local"])

    process = forked(run, said)
    eventually(lambda: rounds_done(out) == 1, 100.0)
    return process


def digests(out: Path) -> dict[str, str | None]:
    return {row.strategy: row.model_digest for row in read_results(out)[1]}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "small.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def alone(config: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    out = tmp_path_factory.mktemp("alone") / "run"
    assert here("run", config, "--set", "engine.grid=local", "--out", out).exit_code == 0
    return digests(out)


@pytest.mark.slow
@pytest.mark.nightly  # tests/test_end_to_end.py asks the same of a comparison every time
@pytest.mark.timeout(400)
@pytest.mark.xdist_group("ray")
@pytest.mark.parametrize(("workers", "rounds"), [(1, 5), (2, 2)])
def test_a_run_killed_on_ray_is_resumed_there(
    config: Path, alone: dict[str, str | None], tmp_path: Path, workers: int, rounds: int
) -> None:
    out = tmp_path / "run"
    process = begin(config, out, rounds, f"engine.workers={workers}")
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    found = finish("resume", out)
    assert found.returncode == 0, found.stderr
    assert digests(out) == alone
    assert here("resume", out).stderr.endswith("nothing to do\n")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_at_a_safe_point_and_names_the_command_that_goes_on(
    config: Path, alone: dict[str, str | None], tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "run"
    process = held(config, out, tmp_path / "said")
    os.kill(process, number)
    assert ended(process) == 128 + number
    said = (tmp_path / "said").read_text()
    assert said.splitlines()[-1] == f"go on with: fedunlearn resume {out}"
    left = RunFolder(out).read_status()
    assert left is not None
    assert left.state == "interrupted"
    resumed = here("resume", out)
    assert resumed.exit_code == 0, resumed.output
    assert digests(out) == alone
