"""What a round costs is counted, not timed: messages, and flushes to the disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from experiments.config.loading import load
from experiments.config.registry import make
from experiments.federation.grids import LocalGrid
from experiments.federation.participants import client_app
from experiments.federation.task import Scenario, Task, task
from strategies.base import UnlearningStrategy
from strategies.federation import Federation
from strategies.roster import Roster
from strategies.wire import to_arrays, to_record
from unlearning import arrays as named
from unlearning.fulfil import fulfil
from unlearning.models import forest, forest_parts
from unlearning.models.trees import Plan
from unlearning.protocol import Scalar, Wire
from unlearning.records.history import History
from unlearning.records.ledger import Ledger
from unlearning.records.store import Store
from unlearning.request import Request, Scope

_CONFIG = Path(__file__).parents[3] / "experiments" / "configs" / "digits_client.toml"
_CLIENTS, _ROUNDS = 4, 3
_BESIDE = 20_000  # bytes hashed beside the arrays that changed: events, rows of the index
_FLUSHES = 5  # of a request for one sample: three heads of four events, the owner's deletion
_OTHERS = 8  # flushes of a round that are no client's: its model, its folders, its index


class _Counting(LocalGrid):
    sent = 0

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        there = list(messages)
        self.sent += len(there)
        return super().push_messages(there)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows with every flush, by the name of the call."""
    flushed: list[str] = []

    def counting(name: str) -> Callable[[int], None]:
        flush = getattr(os, name)

        def call(file: int) -> None:
            flushed.append(name)
            flush(file)

        return call

    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, counting(name))
    return flushed


def called(monkeypatch: pytest.MonkeyPatch, where: object, *names: str) -> list[str]:
    """Return a list that grows with every call of some functions, by their names."""
    calls: list[str] = []

    def counting(name: str) -> Callable[..., Any]:
        plain = getattr(where, name)

        def call(*given: Any) -> Any:
            calls.append(name)
            return plain(*given)

        return call

    for name in names:
        monkeypatch.setattr(where, name, counting(name))
    return calls


def settings(made: Task, home: Path) -> dict[str, Scalar]:
    """Return what clients are told of data and device."""
    return {
        Wire.SCENARIO: made.scenario.to_json(),
        Wire.DEVICE: "cpu",
        Wire.HOME: str(home / "clients"),
    }


def test_a_round_sends_each_client_one_message_and_flushes_its_update_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed = counted(monkeypatch)
    changes = [f"data.clients={_CLIENTS}", "train.local_epochs=1"]
    made = task(Scenario.of(load(_CONFIG, changes)))
    grid = _Counting(client_app, _CLIENTS)
    told = settings(made, tmp_path)
    federation = Federation(
        history=History(tmp_path / "history", keep=("globals", "updates")),
        train={"local_epochs": 1, "batch_size": 32, "learning_rate": 0.1},
        recovery_rounds=0,
        client_config=told,
    )
    federation.roster = Roster.discover(grid, _CLIENTS, told, timeout_s=60)
    federation.history.start(made.initial())
    learning = UnlearningStrategy()
    learning.join(federation)
    grid.sent = 0
    flushed.clear()
    learning.start(grid, to_record(federation.history.initial), num_rounds=_ROUNDS)
    federation.history.close()
    assert grid.sent == _ROUNDS * _CLIENTS
    assert _ROUNDS * _CLIENTS <= len(flushed) <= _ROUNDS * (_CLIENTS + _OTHERS)


class _Hash:
    """A hash that counts what goes into it."""

    def __init__(self, real: Any, counted: list[int], data: bytes = b"") -> None:
        self._real, self._counted = real(), counted
        self.update(data)

    def update(self, data: Any) -> None:
        self._counted.append(memoryview(data).nbytes)
        self._real.update(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def learned(
    config: str, changes: list[str], home: Path
) -> tuple[_Counting, Federation, named.Arrays]:
    """Return a federation that has learned, on disk, with messages that are counted."""
    loaded = load(_CONFIG.with_name(config), [f"data.clients={_CLIENTS}", *changes])
    made = task(Scenario.of(loaded))
    grid = _Counting(client_app, _CLIENTS)
    told = settings(made, home)
    federation = Federation(
        history=History(home / "history"),
        ledger=Ledger(home / "ledger.sqlite"),
        recovery_rounds=0,
        model=made.array_model,
        client_config=told,
    )
    federation.roster = Roster.discover(grid, _CLIENTS, told, timeout_s=60)
    federation.history.start(made.initial())
    learning = UnlearningStrategy()
    learning.join(federation)
    initial = to_record(federation.history.initial)
    result = learning.start(grid, initial, num_rounds=loaded.rounds)
    return grid, federation, to_arrays(result.arrays)


def test_a_deletion_from_a_forest_is_two_messages_where_no_split_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one more per level that grows again and client; four events, however many."""
    depth = 6
    changes = ["model.trees=4", f"model.depth={depth}", f"rounds={depth}"]
    grid, federation, arrays = learned("forest_cancer.toml", changes, tmp_path)
    flushed = counted(monkeypatch)
    looks: list[Store] = []

    def look(store: Store, *_: object) -> Iterator[str]:
        looks.append(store)
        return iter(())

    monkeypatch.setattr(Store, "orphans", look)
    monkeypatch.setattr(Store, "read", look)
    put_together = called(monkeypatch, forest_parts, "spliced", "patched")
    binned = called(monkeypatch, Plan, "binned")
    looked = called(monkeypatch, forest, "_is_decided")
    generators = called(monkeypatch, np.random, "default_rng")
    sent: list[int] = []
    grown = 0
    for sample in range(8):
        grid.sent = 0
        for calls in (flushed, put_together, binned, looked):
            calls.clear()
        before = sum(len(federation.ledger.events(one.id)) for one in federation.ledger.requests())
        answering = make("forest-deletion", {})
        answering.join(federation)
        request = Request(Scope.SAMPLE, samples={0: (sample,)})
        arrays = fulfil(request, answering, arrays, federation.history, federation.ledger)
        assert len(federation.ledger.events(request.id)) == 4
        assert before == 4 * sample
        assert len(flushed) <= _FLUSHES
        assert len(put_together) == 1  # however many levels grow again
        grown += grid.sent > 2
        most = 1 + (_CLIENTS if grown == 1 else 0)  # the sample; once, what each client holds
        assert len(binned) <= most
        assert len(looked) <= 2  # for open nodes, in the forest before and after
        sent.append(grid.sent)
    federation.history.close()
    assert grown > 1
    assert not generators  # counting draws nothing, and a generator takes as long as the counting
    assert not looks  # at what lies in the history's folder: however large, none of it changes
    assert min(sent) == 2  # the owner's counts, and its deletion
    assert 2 < max(sent) <= 2 + depth * _CLIENTS


def test_a_request_to_sums_hashes_only_what_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid, federation, arrays = learned("digits_ridge.toml", ["rounds=1"], tmp_path)
    flushed, sha256 = counted(monkeypatch), hashlib.sha256
    hashed: list[int] = []
    monkeypatch.setattr(hashlib, "sha256", lambda data=b"": _Hash(sha256, hashed, data))
    for sample in (1, 2):  # the first finds a state that nothing is known of yet
        grid.sent = 0
        flushed.clear()
        hashed.clear()
        answering = make("ridge", {})
        answering.join(federation)
        request = Request(Scope.SAMPLE, samples={0: (sample,)})
        arrays = fulfil(request, answering, arrays, federation.history, federation.ledger)
    federation.history.close()
    changed = sum(arrays[name].nbytes for name in ("weights", "inverse", "gram/0", "cross/0"))
    assert changed <= sum(hashed) <= changed + _BESIDE
    assert grid.sent == 2  # the owner's sums, and its deletion
    assert len(flushed) <= _FLUSHES
