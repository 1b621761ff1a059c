from __future__ import annotations

import ctypes
import importlib
import sys
import time
from pathlib import Path

import pytest

from clients.app import _time_limit
from tests.support.forked import ended, forked

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


def test_a_worker_that_hangs_outside_of_python_ends(tmp_path: Path) -> None:
    def hang() -> None:
        library, lock = ctypes.PyDLL(None), ctypes.create_string_buffer(64)
        with _time_limit(0.2, disposable=True):  # the interpreter's lock is held: no handler runs
            library.pthread_mutex_lock(lock)
            library.pthread_mutex_lock(lock)

    assert ended(forked(hang, tmp_path / "said"), 60) == 1
    assert "Timeout (0:00:00" in (tmp_path / "said").read_text()
