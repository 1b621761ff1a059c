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
from experiments.runs.folder import RunFolder
from experiments.runs.results import read_results

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
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        try:
            if json.loads((out / "status.json").read_text())["rounds_done"] >= rounds:
                return process
        except (OSError, ValueError):
            pass
        time.sleep(0.02)
    process.kill()
    raise AssertionError("the run did not get so far")


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
@pytest.mark.timeout(400)
@pytest.mark.xdist_group("ray")
@pytest.mark.parametrize(
    ("workers", "rounds"),
    [
        # The way back is the same; how many workers make a model is asked of Ray elsewhere.
        pytest.param(1, 2, marks=pytest.mark.nightly),
        (2, 5),
    ],
)
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
    process = begin(config, out, 1, "engine.grid=local")
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert said.splitlines()[-1] == f"go on with: fedunlearn resume {out}"
    status = RunFolder(out).read_status()
    assert status is not None
    assert status.state == "interrupted"
    resumed = here("resume", out)
    assert resumed.exit_code == 0, resumed.output
    assert digests(out) == alone
