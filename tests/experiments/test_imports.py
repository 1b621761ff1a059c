"""What a process imports is counted: seconds that every worker would pay must not come back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

_HERE = Path(__file__).parents[2]
_CONFIG = _HERE / "experiments" / "configs" / "digits_client.toml"
HEAVY = ("torch._dynamo", "sklearn", "pandas", "scipy.stats")

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
import sys, tempfile
from fedunlearn import main
changes = ("engine.grid=local", "rounds=2", "recovery_rounds=1", "train.local_epochs=1",
    "train.momentum=0.9")
sys.argv = ["fedunlearn", "--quiet", "compare", {str(_CONFIG)!r}, "--strategies", "fed-eraser",
    "--out", tempfile.mkdtemp(dir="."), *(f"--set={{change}}" for change in changes)]
try:
    main()
except SystemExit as left:
    assert not left.code, left.code
import gc
assert gc.get_stats()[2]["collections"] <= 1, "what is imported is looked through as ever"
"""

_TOLD = """
import json, sys
print(json.dumps(sorted(sys.modules)))
"""


@pytest.mark.parametrize(
    ("does", "most"),
    [
        pytest.param(_WORKER, 1_900, id="worker"),
        pytest.param(_COMPARE, 2_450, id="compare"),
    ],
)
def test_a_network_imports_nothing_heavy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str, most: int
) -> None:
    monkeypatch.setenv("FEDUNLEARN_CACHE", str(tmp_path / "cache"))  # empty: shares are dealt out
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = [{str(_HERE)!r}]\n{does}{_TOLD}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    modules = set(json.loads(done.stdout.splitlines()[-1]))
    assert not modules.intersection(HEAVY)
    assert len(modules) <= most
