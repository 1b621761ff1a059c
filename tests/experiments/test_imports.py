"""What a process imports is counted: seconds that every worker would pay must not come back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

_HERE = Path(__file__).parents[2]
_CONFIG = _HERE / "experiments" / "configs" / "digits_client.toml"
HEAVY = ("torch._dynamo", "sklearn", "pandas", "scipy.stats")

# One process does one thing after the other, and tells what it has imported after each.
_BEGIN = f"""
import json, sys
sys.path[:0] = [{str(_HERE)!r}]
from fedunlearn import main
def command(*words):
    sys.argv = ["fedunlearn", *words]
    try:
        main()
    except SystemExit as left:
        assert not left.code, left.code
def tell():
    print(json.dumps(sorted(sys.modules)))
command("--version")
"""

# What the doctor's process imports beside Ray.
_CLUSTER = "import experiments.federation.cluster"

_STEP = """
import torch
from clients.descent import PlainSGD
w = torch.nn.Parameter(torch.ones(3))
sgd = PlainSGD([w], 0.1, momentum=0.9, weight_decay=0.1)
sgd.zero_grad(); w.sum().backward()
torch.nn.utils.clip_grad_norm_([w], 1.0); sgd.step()
"""

# A worker's process: its apps, its data and its model.
_WORKER = f"""
import experiments.app
from experiments.config.loading import load
from experiments.federation.participants import client_app
from experiments.federation.task import Scenario, task
from pathlib import Path
made = task(Scenario.of(load(Path({str(_CONFIG)!r}), [])))
made.initial()
"""

# A whole comparison, clients and server in one process: training, judging, drawing.
_COMPARE = f"""
import gc, tempfile
changes = ("engine.grid=local", "rounds=2", "recovery_rounds=1", "train.local_epochs=1",
    "train.momentum=0.9")
command("--quiet", "compare", {str(_CONFIG)!r}, "--strategies", "fed-eraser",
    "--out", tempfile.mkdtemp(dir="."), *(f"--set={{change}}" for change in changes))
assert gc.get_stats()[2]["collections"] <= 1, "what is imported is looked through as ever"
"""

_DOES = {"cluster": _CLUSTER, "step": _STEP, "worker": _WORKER, "compare": _COMPARE}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Return the modules that are there after each."""
    place = tmp_path_factory.mktemp("imports")
    code = _BEGIN + "".join(f"{does}\ntell()\n" for does in _DOES.values())
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=place,
        env={**os.environ, "FEDUNLEARN_CACHE": str(place / "cache")},  # empty: shares are dealt out
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("[")]
    return {name: set(json.loads(line)) for name, line in zip(_DOES, lines, strict=True)}


@pytest.mark.parametrize(
    ("does", "most"),
    [
        ("worker", 1_925),  # of them 25 of the command line alone
        ("compare", 2_450),
    ],
)
def test_a_network_imports_nothing_heavy(told: dict[str, set[str]], does: str, most: int) -> None:
    assert not told[does].intersection(HEAVY)
    assert len(told[does]) <= most


def test_starting_ray_imports_neither_a_network_nor_flower(told: dict[str, set[str]]) -> None:
    assert not told["cluster"] & {"torch", "flwr", "ray"}


def test_a_step_imports_no_compiler(told: dict[str, set[str]]) -> None:
    assert "clients.descent" in told["step"]
    assert "torch._dynamo" not in told["step"]
