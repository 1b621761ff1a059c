"""After a deletion no object of the process holds an array of the client that left."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.config.loading import Config
from experiments.federation import launch
from experiments.runs.folder import RunFolder
from experiments.runs.scan import Needles
from tests.support.small import small
from unlearning.arrays import Arrays
from unlearning.records.ledger import Ledger
from unlearning.records.recording import RoundEntry
from unlearning.weighing import Examples


def config(strategy: str) -> Config:
    return small(strategy=strategy, rounds=3, recovery_rounds=2, model={"hidden": 8})


def held_values() -> Iterator[tuple[Any, object]]:
    """Yield every array and byte string that an object or a running function holds, and by whom."""
    gc.unfreeze()  # what was there before the first test may hold something by now
    gc.collect()
    seen: set[int] = set()
    frame = sys._getframe(1)
    holders: list[object] = gc.get_objects()
    while frame is not None:
        holders.append(frame.f_locals)
        frame = frame.f_back  # type: ignore[assignment]
    for holder in holders:  # it grows
        for value in gc.get_referents(holder):
            kind = type(value)  # some libraries' objects answer isinstance with a warning
            if id(value) in seen:
                continue
            if issubclass(kind, np.ndarray | bytes | bytearray):
                seen.add(id(value))
                yield value, holder
            elif kind in (dict, tuple) and not gc.is_tracked(value):
                seen.add(id(value))  # of arrays alone, which the collector does not follow
                holders.append(value)


def hits(updates: list[bytes]) -> list[str]:
    """Return what holds a window of some bytes, which are given turned around."""
    needles = Needles(one[::-1] for one in updates)
    assert len(needles) > 20
    own = {id(one) for one in needles._windows} | {id(needles._heads)}
    found = []
    for value, holder in held_values():
        data = (
            np.ascontiguousarray(value).tobytes() if isinstance(value, np.ndarray) else bytes(value)
        )
        if id(value) not in own and next(needles.find(data), None) is not None:
            keys = list(holder)[:4] if isinstance(holder, dict) else ""
            found.append(f"{type(value).__name__} in {type(holder).__name__} {keys}")
    return found


@pytest.mark.parametrize("strategy", ["fed-eraser", "retrain"])
def test_after_a_deletion_nothing_holds_the_leavers_arrays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    updates: list[bytes] = []
    found: dict[str, list[str]] = {}
    add = RoundEntry.add

    def noted(entry: RoundEntry, client: int, examples: int | Examples, update: Arrays) -> None:
        add(entry, client, examples, update)
        if client == 2:
            # Kept turned around, so that the list itself is not found.
            updates.extend(np.ascontiguousarray(a).tobytes()[::-1] for a in update.values())
            moment = "while it trains"
        else:
            moment = "learning goes on" if entry.batch == "round-00003" else ""
        if moment and moment not in found:
            found[moment] = hits(updates)

    monkeypatch.setattr(RoundEntry, "add", noted)
    launch.run(config(strategy), tmp_path / "run", observer=lambda tick: None)
    with Ledger(RunFolder(tmp_path / "run").ledger, readonly=True) as ledger:
        assert ledger.forgotten().clients == {2}
    assert found.pop("while it trains")  # the search finds what is there
    assert found == {"learning goes on": []}
    assert hits(updates) == []
