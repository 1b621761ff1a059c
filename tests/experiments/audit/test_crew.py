"""A crew that is told to stop does not wait for what is under way."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from experiments.audit.crew import crew
from experiments.audit.usage import Usage
from experiments.runs.stopping import StoppedError, ended_by_sigterm

pytestmark = pytest.mark.xdist_group("crew")  # as in test_run.py


def test_sigterm_ends_work_that_hangs() -> None:
    """Two processes sleep for ten minutes; SIGTERM comes when they are at it."""
    sent: list[float] = []

    def send() -> None:
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGTERM)

    def work() -> None:
        with ended_by_sigterm(), crew(2, Usage()) as staff:
            staff.call("time:sleep", 0)  # the processes are there
            threading.Timer(0.5, send).start()
            list(staff.each("time:sleep", [(600,), (600,)]))

    with pytest.raises(StoppedError) as told:
        work()
    assert told.value.exit_code == 128 + signal.SIGTERM
    assert time.monotonic() - sent[0] < 30


def test_sigterm_means_afterwards_what_it_meant_before() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with ended_by_sigterm():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
