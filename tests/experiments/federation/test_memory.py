"""After a deletion no object of the process holds an array of the client that left."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from itertools import compress, islice
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


@pytest.fixture
def old() -> list[object]:
    """Return what is there before a test, and may hold something by its end."""
    gc.collect()
    gc.unfreeze()
    found: list[object] = gc.get_objects()
    gc.freeze()  # garbage is looked for in what the test makes alone
    return found


def held_values(old: list[object]) -> Iterator[Any]:
    """Yield every array and byte string that an object or a running function holds.

    What is new comes first: who looks for one alone need not look through the rest.
    """
    gc.collect()
    seen: set[int] = set()
    frame: FrameType | None = sys._getframe(1)
    new = [one for one in gc.get_objects() if one is not old]
    while frame is not None:
        new.append(frame.f_locals)
        frame = frame.f_back
    for holders in (new, old):
        while holders:
            held = gc.get_referents(*holders)
            # By their types: some libraries' objects answer isinstance with a warning.
            kinds = set(map(type, held))
            wanted = {kind for kind in kinds if issubclass(kind, np.ndarray | bytes | bytearray)}
            looked_at = wanted | {dict, tuple}
            held = list(compress(held, map(looked_at.__contains__, map(type, held))))
            found = {id(one): one for one in held if type(one) in wanted and id(one) not in seen}
            # Of arrays alone, which the collector does not follow: few among all, so they come
            # first.
            apart = [one for one in held if type(one) not in wanted and not gc.is_tracked(one)]
            holders = list({id(one): one for one in apart if id(one) not in seen}.values())
            seen.update(found, map(id, holders))
            yield from found.values()


def hits(updates: list[bytes], old: list[object]) -> Iterator[str]:
    """Yield what holds a window of some bytes, which are given turned around."""
    needles = Needles(one[::-1] for one in updates)
    assert len(needles) > 20
    own = {id(one) for one in needles._windows} | {id(needles._sorted)}
    for value in held_values(old):
        data = (
            np.ascontiguousarray(value).tobytes() if isinstance(value, np.ndarray) else bytes(value)
        )
        if id(value) not in own and next(needles.find(data), None) is not None:
            # None is named where something of before the test holds it.
            holders = sorted(type(one).__name__ for one in gc.get_referrers(value))
            yield f"{type(value).__name__} in {holders}"


@pytest.mark.slow  # so it comes early: the less others have left in memory, the less is searched
@pytest.mark.parametrize("strategy", ["fed-eraser", "retrain"])
def test_after_a_deletion_nothing_holds_the_leavers_arrays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str, old: list[object]
) -> None:
    updates: list[bytes] = []
    found: dict[str, list[str]] = {}
    add = RoundEntry.add

    def noted(entry: RoundEntry, client: int, examples: int | Examples, update: Arrays) -> None:
        add(entry, client, examples, update)
        if client == 2:
            # Kept turned around, so that the list itself is not found.
            updates.extend(np.ascontiguousarray(a).tobytes()[::-1] for a in update.values())
            moment, most = "while it trains", 1  # the search finds what is there
        else:
            moment, most = "learning goes on" if entry.batch == "round-00003" else "", None
        if moment and moment not in found:
            found[moment] = list(islice(hits(updates, old), most))

    monkeypatch.setattr(RoundEntry, "add", noted)
    launch.run(config(strategy), tmp_path / "run", observer=lambda tick: None)
    with Ledger(RunFolder(tmp_path / "run").ledger, readonly=True) as ledger:
        assert ledger.forgotten().clients == {2}
    assert found.pop("while it trains")
    assert found == {"learning goes on": []}
    assert list(hits(updates, old)) == []
