"""Many runs in one folder: listed, stopped, cleaned."""

import subprocess
import sys
import time

import pytest

from experiments.runs.folder import FederationFacts, RunFolder
from experiments.runs.log import LOG, logged
from experiments.runs.progress import Tick
from experiments.runs.shelf import freed, shelf, stop, waste
from tests.support.finished import write_run
from unlearning.errors import ConfigError


def compared(path):
    write_run(path)
    folder = RunFolder(path)
    folder.write_federation(FederationFacts({0: 10, 3: 10}, (0, 1), kind="compare"))
    with folder.tracked(lambda tick: None) as tell:
        tell(Tick("no-t", 0, "recover", 3, 3, 3))
    return folder


def test_runs_are_listed_the_latest_first(tmp_path):
    folder = compared(tmp_path / "plan" / "one")
    fresh = RunFolder.claim(tmp_path / "two", {"rounds": 3, "strategy": "no-t"})
    found = {entry.run: entry for entry in shelf(tmp_path)}
    assert set(found) == {str(folder.path), str(fresh.path)}
    one, two = found[str(folder.path)], found[str(fresh.path)]
    assert (one.kind, one.state, one.done, one.requests) == ("compare", "finished", "3/3", "1/1")
    assert (two.state, two.strategies) == ("not begun", ("no-t",))
    assert shelf(folder.path)[0].run == str(folder.path)
    times = [entry.when for entry in shelf(tmp_path)]
    assert times == sorted(times, reverse=True)


def test_a_damaged_run_does_not_hide_the_others(tmp_path):
    folder = compared(tmp_path / "one")
    folder.status.write_text("{")
    compared(tmp_path / "two")
    assert sorted(entry.state[:8] for entry in shelf(tmp_path)) == ["damaged:", "finished"]


def test_no_folder_is_said(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        shelf(tmp_path / "nowhere")


def test_a_comparison_that_ended_needs_no_history(tmp_path):
    folder = compared(tmp_path / "one")
    folder.history(0).mkdir(parents=True)
    (folder.history(0) / "a").write_bytes(b"x" * 100)
    paths = waste(folder)
    assert paths == [folder.histories]
    assert freed(paths, remove=False) == 100
    assert folder.histories.is_dir()
    assert freed(paths, remove=True) == 100
    assert not folder.histories.exists()
    assert folder.ledger.is_file()
    assert waste(folder, everything=True) == [folder.path]


def test_a_run_keeps_what_later_requests_need(tmp_path):
    folder = compared(tmp_path / "one")
    folder.write_federation(FederationFacts({0: 10, 3: 10}, (0, 1), kind="run"))
    folder.history(0).mkdir(parents=True)
    assert waste(folder) == []


def test_what_runs_is_not_cleaned_and_what_ended_not_stopped(tmp_path):
    folder = compared(tmp_path / "one")
    with pytest.raises(ConfigError, match="not running"):
        stop(folder, wait_s=1)
    with (
        folder.tracked(lambda tick: None),
        pytest.raises(ConfigError, match="end it first: fedunlearn stop"),
    ):
        waste(folder)


def test_a_run_is_asked_to_end(tmp_path):
    folder = compared(tmp_path / "one")
    code = (
        "import sys, time; from pathlib import Path; from experiments.runs import status\n"
        "with status.tracked(Path(sys.argv[1]), print): time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(folder.status)])
    try:
        for _ in range(600):
            now = folder.read_status()
            if now is not None and now.is_running and now.pid == process.pid:
                break
            time.sleep(0.05)
        assert stop(folder, wait_s=30)
    finally:
        process.kill()
        process.wait()


def test_the_log_tells_of_phases_warnings_and_the_end(tmp_path):
    import logging

    seen = []
    with logged(tmp_path, seen.append, "fedunlearn run a.toml") as tell:
        for number in (1, 2):
            tell(Tick("no-t", 0, "learn", number, number, 3))
        logging.getLogger("fedunlearn").warning("round 1: client 2 is left out")
        tell(Tick("no-t", 0, "unlearn", 1, 3, 3))
    with pytest.raises(ValueError, match="odd"), logged(tmp_path, seen.append, "again"):
        raise ValueError("odd")
    lines = [
        line.partition(" ")[2] for line in (tmp_path / LOG).read_text(encoding="utf-8").splitlines()
    ]
    assert lines == [
        "INFO started: fedunlearn run a.toml",
        "INFO no-t (seed 0): learn",
        "WARNING round 1: client 2 is left out",
        "INFO no-t (seed 0): unlearn",
        "INFO finished",
        "INFO started: again",
        "ERROR ended: ValueError: odd",
    ]
    assert len(seen) == 3
