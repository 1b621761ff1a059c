from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.omissions import OMISSIONS
from unlearning import arrays as named
from unlearning.errors import HistoryError
from unlearning.records import files, memory
from unlearning.records.files import write_atomically
from unlearning.records.memory import ClientMemory
from unlearning.request import Omission

MODEL = {
    "weight": np.array([[1, -2], [3, 4]], np.float32),
    "half": np.array([0.5], np.float16),
    "steps": np.array(7),
}


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_new_client_remembers_nothing(tmp_path: Path) -> None:
    memory = ClientMemory(tmp_path, 3)
    assert memory.tombstones == Omission()
    assert memory.recall("last_local") is None
    assert files_below(tmp_path) == []


@given(st.lists(OMISSIONS, max_size=4))
def test_tombstones_add_up_across_restarts(
    tmp_path_factory: pytest.TempPathFactory, omissions: list[Omission]
) -> None:
    home, total = tmp_path_factory.mktemp("home"), Omission()
    for omission in omissions:
        ClientMemory(home, 3).bury(omission)
        total = total | omission
    assert ClientMemory(home, 3).tombstones == total
    assert ClientMemory(home, 4).tombstones == Omission()


def test_tombstones_are_read_again_only_where_they_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, elsewhere = ClientMemory(tmp_path, 3), ClientMemory(tmp_path, 3)
    elsewhere.bury(Omission(samples=frozenset({1})))
    assert here.tombstones.samples == {1}
    read: list[bytes] = []
    plain = memory._omission

    def reading(data: bytes) -> Omission:
        read.append(data)
        return plain(data)

    monkeypatch.setattr(memory, "_omission", reading)
    assert here.tombstones == here.tombstones == Omission(samples=frozenset({1}))
    assert not read
    for sample in range(2, 20):  # by another process, as fast as it can
        elsewhere.bury(Omission(samples=frozenset({sample})))
        assert sample in here.tombstones.samples
    (tmp_path / "client-00003" / "tombstones.json").unlink()
    assert here.tombstones == Omission()


def test_models_come_back_with_their_facts(tmp_path: Path) -> None:
    ClientMemory(tmp_path, 3).remember("last_local", MODEL, {"round": 12, "share": 0})
    found = ClientMemory(tmp_path, 3).recall("last_local")
    assert found is not None
    assert named.digest(found[0]) == named.digest(MODEL)
    assert found[1] == {"round": 12, "share": 0}
    assert ClientMemory(tmp_path, 4).recall("last_local") is None
    assert ClientMemory(tmp_path, 3).recall("other") is None


def test_remembering_again_replaces(tmp_path: Path) -> None:
    memory = ClientMemory(tmp_path, 3)
    memory.remember("last_local", MODEL, {"round": 1})
    memory.remember("last_local", {"weight": MODEL["weight"] + 1}, {"round": 2})
    found = memory.recall("last_local")
    assert found is not None
    assert list(found[0]) == ["weight"]
    assert found[1] == {"round": 2}
    assert files_below(tmp_path) == ["client-00003/last_local.safetensors"]


def test_burying_deletes_what_was_derived_and_keeps_the_tombstone(tmp_path: Path) -> None:
    memory = ClientMemory(tmp_path, 3)
    memory.remember("last_local", MODEL, {})
    memory.remember("synthetic", MODEL, {})
    ClientMemory(tmp_path, 4).remember("last_local", MODEL, {})
    memory.bury(Omission(samples=frozenset({1})))
    assert files_below(tmp_path) == [
        "client-00003/tombstones.json",
        "client-00004/last_local.safetensors",
    ]


def test_the_tombstone_comes_before_the_deletion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash in between must not lose that the data may never be trained on again."""
    memory = ClientMemory(tmp_path, 3)
    memory.remember("last_local", MODEL, {})

    def crash(self: Path, **_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "unlink", crash)
    with pytest.raises(KeyboardInterrupt):
        memory.bury(Omission(everything=True))
    assert ClientMemory(tmp_path, 3).tombstones.everything


@pytest.mark.parametrize("text", ["", "{", "[]", '"gone"', '{"samples": ["x"]}', "null"])
def test_damaged_tombstones_are_an_error_never_nothing(tmp_path: Path, text: str) -> None:
    memory = ClientMemory(tmp_path, 3)
    memory.bury(Omission(everything=True))
    path = tmp_path / "client-00003" / "tombstones.json"
    path.write_text(text)
    with pytest.raises(HistoryError, match=r"tombstones\.json cannot be read .* backup"):
        _ = memory.tombstones


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    match how:
        case "empty":
            path.write_bytes(b"")
        case "short":
            path.write_bytes(data[:-1])
        case "head-only":
            path.write_bytes(data[: 8 + size])
        case "no-metadata":
            from safetensors.numpy import save

            path.write_bytes(save(MODEL))
        case "facts-no-json":
            path.write_bytes(data.replace(b"round", b"ro\\nd"))
        case "long-header":
            path.write_bytes((2**60).to_bytes(8, "little") + data[8:])


@pytest.mark.parametrize(
    "how", ["empty", "short", "head-only", "no-metadata", "facts-no-json", "long-header"]
)
def test_a_damaged_model_is_no_model(tmp_path: Path, how: str) -> None:
    memory = ClientMemory(tmp_path, 3)
    memory.remember("last_local", MODEL, {"round": 1})
    damage(tmp_path / "client-00003" / "last_local.safetensors", how)
    assert memory.recall("last_local") is None


def test_without_a_home_nothing_is_kept_and_remembering_says_so() -> None:
    memory = ClientMemory(None, 3)
    memory.bury(Omission(everything=True))
    assert memory.tombstones == Omission()
    assert memory.recall("last_local") is None
    with pytest.raises(HistoryError, match="no folder was given"):
        memory.remember("last_local", MODEL, {})


# Files --------------------------------------------------------------------------------------


def test_writing_replaces_the_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for data in (b"one", b"", b"three"):
        write_atomically(path, data)
        assert path.read_bytes() == data
    assert files_below(tmp_path) == ["file"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


@pytest.mark.parametrize("step", ["fsync", "replace", "fchmod"])
def test_a_failure_leaves_the_old_content_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(files.os, step, fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert files_below(tmp_path) == ["file"]


def test_a_durable_write_flushes_file_and_folder_in_this_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    flush, replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        calls.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        flush(descriptor)

    def rename(*names: str) -> None:
        calls.append("rename")
        replace(*names)

    monkeypatch.setattr(files.os, "fsync", fsync)
    monkeypatch.setattr(files.os, "replace", rename)
    write_atomically(tmp_path / "file", b"x")
    assert calls == ["file", "rename", "folder"]
    calls.clear()
    write_atomically(tmp_path / "file", b"y", durable=False)
    assert calls == ["rename"]
