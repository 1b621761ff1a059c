"""What a request leaves in memory for as long as a run lasts: a few notes, no data and no model."""

from __future__ import annotations

import gc
import logging
import tracemalloc
from pathlib import Path

import pytest

from experiments.federation import conduct, launch
from experiments.runs.folder import RunFolder
from experiments.runs.progress import Tick
from tests.support.small import small
from tests.support.undrawn import undrawn
from unlearning.request import Request, Scope

FIRST, LAST = 4, 12  # rounds, with a request after each
NOTES = 12_000  # bytes a request: itself, its events, what was measured; about half of it is used
DATA = 90 * 64 * 4  # bytes of the examples alone


class Asking:
    """Asks for a sample after every round, and counts the bytes held after two of them."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder, self._asked, self.held = folder, 0, dict[int, int]()

    def __call__(self, tick: Tick) -> None:
        at = tick.server_round
        if tick.phase not in ("learn", "recover") or not self._asked < at <= LAST:
            return
        self._asked = at
        if at in (FIRST, LAST):
            gc.collect()
            self.held[at] = tracemalloc.get_traced_memory()[0]
        with self._folder.open_ledger() as ledger:
            ledger.receive(Request(Scope.SAMPLE, samples={at % 3: (at,)}, id=f"request-{at}"))


def test_a_request_leaves_a_few_notes_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undrawn(monkeypatch.setattr)
    # Of the lines of a log pytest keeps each: a fifth of what a request may leave.
    monkeypatch.setattr(logging.getLogger("fedunlearn"), "propagate", False)
    # It takes up memory and lets all of it go, piece by piece, which is slow to count.
    monkeypatch.setattr(conduct, "overwrite_small", lambda: None)
    folder = RunFolder(tmp_path / "run")
    asking = Asking(folder)
    settings = small(
        rounds=LAST,
        recovery_rounds=0,
        strategy="no-t",
        options={"fine_tune_rounds": 1},
        requests=[],
    )
    gc.freeze()  # only what is made from here on is counted: no other garbage is looked for
    tracemalloc.start()
    try:
        launch.run(settings, folder.path, observer=asking)
    finally:
        tracemalloc.stop()
    with folder.open_ledger(readonly=True) as ledger:
        assert {ledger.state(one.id) for one in ledger.requests()} == {"fulfilled"}
    assert NOTES < DATA
    assert asking.held[LAST] - asking.held[FIRST] < (LAST - FIRST) * NOTES
