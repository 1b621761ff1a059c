"""What a round costs is counted, not timed: messages, and flushes to the disk."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from flwr.app import Message

from experiments.config.loading import load
from experiments.federation.grids import LocalGrid
from experiments.federation.participants import client_app
from experiments.federation.task import Scenario, task
from strategies.base import UnlearningStrategy
from strategies.federation import Federation
from strategies.roster import Roster
from strategies.wire import to_record
from unlearning.protocol import Wire
from unlearning.records.history import History

_CONFIG = Path(__file__).parents[3] / "experiments" / "configs" / "digits_client.toml"
_CLIENTS, _ROUNDS = 4, 3
_OTHERS = 8  # flushes of a round that are no client's: its model, its folders, its index


class _Counting(LocalGrid):
    sent = 0

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        there = list(messages)
        self.sent += len(there)
        return super().push_messages(there)


def test_a_round_sends_each_client_one_message_and_flushes_its_update_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []
    flush = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (flushed.append(1), flush(file))[1])
    changes = [f"data.clients={_CLIENTS}", "train.local_epochs=1"]
    made = task(Scenario.of(load(_CONFIG, changes)))
    grid = _Counting(client_app, _CLIENTS)
    told = {
        Wire.SCENARIO: made.scenario.to_json(),
        Wire.DEVICE: "cpu",
        Wire.HOME: str(tmp_path / "clients"),
    }
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
