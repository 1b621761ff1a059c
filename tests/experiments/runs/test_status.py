import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from experiments.runs import status
from experiments.runs.progress import Tick
from experiments.runs.status import Status
from unlearning.errors import ConfigError, FederationError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "status.json"


def silent(tick):
    pass


def write(path, **changes):
    path.write_text(json.dumps(replace(Status(), **changes).__dict__))


def test_every_tick_is_written_and_passed_on(path):
    seen = []
    tick = Tick("fed-eraser", 0, "unlearn", 3, 13, 25, 0.5)
    with status.tracked(path, seen.append) as observe:
        observe(tick)
        found = status.read(path)
    assert seen == [tick]
    assert (found.state, found.pid) == ("running", os.getpid())
    assert (found.strategy, found.phase, found.server_round) == ("fed-eraser", "unlearn", 3)
    assert (found.rounds_done, found.rounds_total, found.accuracy) == (13, 25, 0.5)


def test_a_run_that_ends_is_finished_whatever_the_total_was_guessed_to_be(path):
    with status.tracked(path, silent) as observe:
        observe(Tick("fed-eraser", 0, "recover", 3, 15, 16))
        assert status.read(path).is_running
    found = status.read(path)
    assert (found.state, found.error) == ("finished", None)
    assert (found.rounds_done, found.rounds_total) == (15, 15)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), InterruptedError("run cancelled")])
def test_a_run_that_someone_ends_is_interrupted_and_has_not_failed(path, error):
    with pytest.raises(type(error)), status.tracked(path, silent):
        raise error
    assert (status.read(path).state, status.read(path).error) == ("interrupted", None)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FederationError("too few clients"), "too few clients"),
        (ZeroDivisionError("by zero"), "ZeroDivisionError: by zero"),
    ],
)
def test_a_run_that_raises_has_failed_and_says_why(path, error, words):
    with pytest.raises(type(error)), status.tracked(path, silent):
        raise error
    assert (status.read(path).state, status.read(path).error) == ("failed", words)


def test_a_run_whose_process_is_gone_has_failed(path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    write(path, pid=gone.pid)
    found = status.read(path)
    assert found.state == "failed"
    assert str(gone.pid) in found.error


@pytest.mark.skipif(
    not os.path.exists("/proc/self/stat"),
    reason="no /proc to tell processes apart by; run it on Linux",
)
def test_a_reused_process_number_is_not_the_run(path):
    write(path, process_started="1")
    assert status.read(path).state == "failed"


def test_a_process_on_another_host_is_taken_at_its_word(path):
    write(path, pid=2**22 - 1, host="elsewhere.invalid")
    assert status.read(path).is_running


def test_a_finished_run_is_not_judged_by_its_process(path):
    write(path, state="finished", pid=2**22 - 1)
    assert status.read(path).state == "finished"


def test_no_file_is_no_status(path):
    assert status.read(path) is None


@pytest.mark.parametrize("text", ["", "[]", '{"state": "running", "colour": "red"}'])
def test_a_file_that_is_no_status_is_named(path, text):
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"status\.json is not a run's status"):
        status.read(path)
