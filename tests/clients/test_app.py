from __future__ import annotations

import importlib
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clients.app import _time_limit

SLOW = "import time\nfor _ in range(40): time.sleep(0.01)\nDONE = True\n"


def test_work_that_takes_too_long_is_ended() -> None:
    begun = time.monotonic()
    with pytest.raises(TimeoutError, match=r"longer than 0\.05 s"), _time_limit(0.05):
        time.sleep(60)
    assert time.monotonic() - begun < 50


def test_an_import_is_finished_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a module would fail everyone who comes to this process later."""
    (tmp_path / "slow_to_import.py").write_text(SLOW)
    monkeypatch.syspath_prepend(str(tmp_path))

    def work() -> None:
        importlib.import_module("slow_to_import")
        time.sleep(5)

    with pytest.raises(TimeoutError), _time_limit(0.05):
        work()
    assert sys.modules.pop("slow_to_import").DONE


def test_without_a_limit_nothing_is_set() -> None:
    with _time_limit(0.0):
        time.sleep(0.01)


HANG = """
import ctypes
from clients.app import _time_limit
with _time_limit(0.2, disposable=True):
    ctypes.PyDLL(None).sleep(1200)  # holds the interpreter's lock: nothing in Python runs meanwhile
"""


@pytest.mark.timeout(600)  # of which it takes but the imports, however busy the machine
def test_a_worker_that_hangs_outside_of_python_ends() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", HANG], capture_output=True, timeout=500, check=False
    )
    assert ended.returncode == 1
    assert b"Timeout" in ended.stderr
