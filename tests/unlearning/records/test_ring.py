"""An encrypted history: the same arrays, no byte of them on disk, none once the key is gone."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from unlearning.arrays import Arrays, digest
from unlearning.errors import HistoryError
from unlearning.records.history import COLUMNS, History
from unlearning.records.ring import Keys, Ring
from unlearning.request import Request, Scope

MASTER = bytes(range(32))
LEAVER = Request(Scope.CLIENT, clients=(1,), id="leaver")


def model(seed: int) -> Arrays:
    return {"w": np.random.default_rng(seed).normal(size=40).astype(np.float32)}


def record(history: History, server_round: int) -> None:
    with history.record(server_round, model(server_round)) as entry:
        for client in range(3):
            entry.add(client, 10 + client, model(100 * server_round + client))


def made(root: Path, keys: Keys | None, rounds: int = 3, dtype: str = "float32") -> History:
    history = History(root, keep=COLUMNS, dtype=dtype, keys=keys)
    history.start(model(0))
    for t in range(1, rounds + 1):
        record(history, t)
    return history


def keys_in(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*.key")}


def everything(root: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file())


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_what_is_encrypted_reads_as_what_is_not(tmp_path: Path, dtype: str) -> None:
    keys = Keys(tmp_path / "keys", MASTER)
    with made(tmp_path / "plain", None, dtype=dtype) as plain:
        for history in (
            made(tmp_path / "locked", keys, dtype=dtype),
            History.open(tmp_path / "locked", keys=keys),
        ):
            with history:
                assert history.verify() == []
                for t in (1, 2, 3):
                    assert digest(history.arrays(t)) == digest(plain.arrays(t))
                    for k in range(3):
                        assert digest(history.update(t, k)) == digest(plain.update(t, k))
                for k in range(3):
                    assert digest(history.contribution(k)) == digest(plain.contribution(k))
                assert digest(history.initial) == digest(plain.initial)
    held = everything(tmp_path / "locked")
    assert b"safetensors-layout" not in held
    for t in (1, 2, 3):
        assert model(t)["w"].tobytes()[:32] not in held
        assert model(100 * t + 1)["w"].tobytes()[:32] not in held
    assert model(101)["w"].tobytes()[:32] in everything(tmp_path / "plain") or dtype == "float16"


def test_a_restored_backup_holds_nothing_of_what_was_deleted(tmp_path: Path) -> None:
    keys, root = Keys(tmp_path / "keys", MASTER), tmp_path / "run"
    with made(root, keys) as history:
        before = keys_in(keys.folder)
        shutil.copytree(root, tmp_path / "backup")
        history.purge(LEAVER)
        assert history.verify() == []
        assert digest(history.update(2, 0)) == digest(model(200))
        after = keys_in(keys.folder)
        assert after < before
        assert sum(name.startswith("client-00001-") for name in after) == 0
        assert sum(name.startswith("file-") for name in after) == 2  # initial and round 1
    with History.open(tmp_path / "backup", readonly=True, keys=keys) as old:
        assert old.participants(1) == {0: 10, 1: 11, 2: 12}
        for read in (lambda: old.update(1, 1), lambda: old.contribution(1), lambda: old.arrays(2)):
            with pytest.raises(HistoryError, match="destroyed with what it locked"):
                read()
        assert digest(old.update(1, 2)) == digest(model(102))  # who stayed can still be read


def test_a_crash_before_the_keys_went_goes_forwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, root = Keys(tmp_path / "keys", MASTER), tmp_path / "run"

    def crash(ring: Ring, names: object) -> None:
        raise KeyboardInterrupt

    with made(root, keys) as history:
        monkeypatch.setattr(Ring, "destroy", crash)
        with pytest.raises(KeyboardInterrupt):
            history.purge(LEAVER)
        monkeypatch.undo()
    assert any(name.startswith("client-00001-") for name in keys_in(keys.folder))
    with History.open(root, keys=keys) as history:
        assert not any(name.startswith("client-00001-") for name in keys_in(keys.folder))
        assert 1 not in history.participants(2)


def test_forks_share_the_keys_and_destroy_none(tmp_path: Path) -> None:
    keys, root = Keys(tmp_path / "keys", MASTER), tmp_path / "run"
    with made(root, keys) as history:
        fork = history.fork(tmp_path / "run.new", durable=False)
        memory = history.fork(None)
        fork.truncate(1)
        fork.purge(LEAVER)
        assert digest(history.update(1, 1)) == digest(memory.update(1, 1)) == digest(model(101))
        with fork.record(2, model(7)) as entry:
            entry.add(0, 5, model(8))
        history.adopt(fork, LEAVER)
        fork.destroy()
        assert digest(history.update(2, 0)) == digest(model(8))
        assert digest(history.arrays(2)) == digest(model(7))
        assert not any(name.startswith("client-00001-") for name in keys_in(keys.folder))
        named = {blob.key for blob in history.store.select()}
        assert {name.rpartition("-")[2][:-4] for name in keys_in(keys.folder)} == named
        history.destroy()
    assert keys_in(keys.folder) == set()


def test_a_state_that_is_replaced_takes_its_key_along(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys", MASTER)
    with made(tmp_path / "run", keys, rounds=1) as history:
        count = len(keys_in(keys.folder))
        for value in range(3):
            history.keep_state(model(value))
        assert digest(history.state) == digest(model(2))
        assert len(keys_in(keys.folder)) == count + 1


def test_another_master_key_or_none_is_said_in_words(tmp_path: Path) -> None:
    keys, root = Keys(tmp_path / "keys", MASTER), tmp_path / "run"
    made(root, keys).close()
    with History.open(root, readonly=True) as history:  # files can be checked without keys
        assert history.verify() == []
        with pytest.raises(HistoryError, match="open the history with its keys"):
            history.update(1, 1)
    wrong = Keys(keys.folder, bytes(32))
    with (
        History.open(root, readonly=True, keys=wrong) as history,
        pytest.raises(HistoryError, match="the master key is another one"),
    ):
        history.update(1, 1)
    with pytest.raises(HistoryError, match=r"was recorded with history\.encrypt"):
        History(root, keep=COLUMNS)
    made(tmp_path / "plain", None, rounds=0).close()
    with pytest.raises(HistoryError, match=r"was recorded without history\.encrypt"):
        History(tmp_path / "plain", keep=COLUMNS, keys=keys)
    with pytest.raises(HistoryError, match="32 bytes"):
        Keys(tmp_path, b"short")


def test_locked_bytes_open_as_what_they_are_and_unchanged(tmp_path: Path) -> None:
    ring = Keys(tmp_path, MASTER).ring("one")
    locked = ring.lock(b"content", "client-00001", "update|1|1")
    assert ring.unlock(locked, "update|1|1") == b"content"
    assert ring.lock(b"content", "client-00001", "update|1|1") != locked
    for data, about in ((locked, "update|2|1"), (locked[:-1] + b"\0", "update|1|1")):
        with pytest.raises(HistoryError, match="not what its key locked"):
            ring.unlock(data, about)
