"""On Ray, a client that hangs in native code costs its own answer and nobody else's.

It holds the interpreter's lock for ever, so that no signal handler of Python's gets a turn.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from experiments.cli import app
from tests.support.deployed import eventually
from tests.support.forked import RAY, ended, forked, is_running

# One cluster at a time, side by side with tests that compute and not with others that wait.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.xdist_group("ray")]

HANGING = """
import ctypes, sys
from pathlib import Path
import numpy as np
from torch import nn
from experiments.data import Dataset

def data():
    generator = np.random.default_rng(0)
    x, test = (generator.random((n, 4)).astype(np.float32) for n in (90, 40))
    owner = np.repeat(np.arange(3), 30)
    x[owner == 1, 0] = 7
    y, test_y = ((a[:, 1] > 0.5).astype(np.int64) for a in (x, test))
    return Dataset(x, y, test, test_y, 2, "hanging", owner=owner)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x):
        if self.training and x[0, 0] == 7 and "default_worker" in sys.argv[0]:
            Path(__file__).with_name("hangs").touch()
            library, lock = ctypes.PyDLL(None), ctypes.create_string_buffer(64)
            library.pthread_mutex_lock(lock)
            library.pthread_mutex_lock(lock)
        return self.layer(x)

def model(shape, num_classes):
    return Net()
"""
CONFIG = """
rounds = 1
recovery_rounds = 0
strategy = "fine-tune"
data = { name = "hanging:data", partitioner = "natural-id", clients = 3 }
model = { name = "hanging:model" }
train = { local_epochs = 1, batch_size = 8 }
engine = { workers = 1, timeout_s = TIMEOUT }
"""


def started(home: Path, timeout_s: int) -> int:
    """Begin a run in a process of its own, and return that; what it says goes to ``said``."""
    (home / "hanging.py").write_text(HANGING)
    (home / "hanging.toml").write_text(CONFIG.replace("TIMEOUT", str(timeout_s)))

    def run() -> None:
        os.chdir(home)
        sys.path.insert(0, str(home))
        os.environ |= {"PYTHONPATH": str(home), "FEDUNLEARN_CACHE": str(home / "cache")}
        app(["run", "hanging.toml", "--out", "run"])

    return forked(run, home / "said", knows=RAY)


def test_a_client_that_hangs_is_left_out_and_those_behind_it_answer(tmp_path: Path) -> None:
    run = started(tmp_path, 8)
    assert ended(run, 600) == 0, (tmp_path / "said").read_text()
    log = (tmp_path / "run" / "run.log").read_text()
    lost = re.findall(r"round (\d+): client (\d+) is left out: (.*)", log)
    assert {client for _, client, _ in lost} == {"1"}
    assert all("hung for 8 s" in why for *_, why in lost)


def test_sigterm_does_not_wait_for_a_client_that_hangs(tmp_path: Path) -> None:
    run = started(tmp_path, 600)
    eventually(lambda: (tmp_path / "hangs").exists() or not is_running(run))
    os.kill(run, signal.SIGTERM)
    begun = time.monotonic()
    code, said = ended(run, 120), (tmp_path / "said").read_text()
    assert code == 128 + signal.SIGTERM, said
    assert "interrupted" in said
    assert time.monotonic() - begun < 90  # ten minutes if it waited
