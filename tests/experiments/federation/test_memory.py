"""After a deletion no object of the process holds an array of the client that left."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
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


def held_values() -> Iterator[Any]:
    """Yield every array and byte string that an object or a running function holds."""
    gc.unfreeze()  # what was there before the first test may hold something by now
    gc.collect()
    seen: set[int] = set()
    frame: FrameType | None = sys._getframe(1)
    holders: list[object] = gc.get_objects()
    while frame is not None:
        holders.append(frame.f_locals)
        frame = frame.f_back
    while holders:
        held = gc.get_referents(*holders)
        # By their types: some libraries' objects answer isinstance with a warning.
        wanted = {
            kind
            for kind in set(map(type, held))
            if issubclass(kind, np.ndarray | bytes | bytearray)
        }
        new = {id(one): one for one in held if type(one) in wanted and id(one) not in seen}
        # Of arrays alone, which the collector does not follow: few among all, so they come first.
        apart = [one for one in held if type(one) in (dict, tuple) and not gc.is_tracked(one)]
        holders = list({id(one): one for one in apart if id(one) not in seen}.values())
        seen.update(new, map(id, holders))
        yield from new.values()


def hits(updates: list[bytes]) -> list[str]:
    """Return what holds a window of some bytes, which are given turned around."""
    needles = Needles(one[::-1] for one in updates)
    assert len(needles) > 20
    own = {id(one) for one in needles._windows} | {id(needles._sorted)}
    found = []
    for value in held_values():
        data = (
            np.ascontiguousarray(value).tobytes() if isinstance(value, np.ndarray) else bytes(value)
        )
        if id(value) not in own and next(needles.find(data), None) is not None:
            holders = sorted(type(one).__name__ for one in gc.get_referrers(value))
            found.append(f"{type(value).__name__} in {holders}")
    return found


@pytest.mark.slow  # so it comes early: the less others have left in memory, the less is searched
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
