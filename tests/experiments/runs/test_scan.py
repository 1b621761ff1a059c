"""Scanning: a copy is found wherever it lies as it is, and nothing else is."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from experiments.cli import app
from experiments.runs import scan as module
from experiments.runs.folder import RunFolder
from experiments.runs.scan import Needles, read_needles, scan
from unlearning.errors import ConfigError

RNG = np.random.default_rng(0)


@given(st.integers(0, 200), st.binary(max_size=50))
def test_a_copy_is_found_at_any_offset(offset: int, tail: bytes) -> None:
    secret = np.random.default_rng(1).bytes(200)
    needles = Needles([secret])
    assert len(needles) == 3
    data = bytes(offset) + secret + tail
    assert list(needles.find(data)) == [offset, offset + 64, offset + 128]
    assert list(needles.find(data.replace(secret[70:71], b"\0"))) != [offset, offset + 64]
    assert list(needles.find(bytes(offset))) == []


@given(st.data())
def test_windows_of_any_bytes_are_found_as_one_by_one(data: st.DataObject) -> None:
    dull = st.lists(st.sampled_from([bytes(1), bytes(9), b"\1", b"\1\2", bytes(range(20))]))
    parts = [b"".join(data.draw(dull)) + RNG.bytes(2) * 3 + bytes(range(58)) for _ in range(3)]
    needles = Needles(parts)
    hay = b"".join(data.draw(st.permutations([*parts, bytes(70), bytes(3), b"\1" * 40])))
    windows = {part[at : at + 64] for part in parts for at in range(0, len(part) - 63, 64)}
    varied = {one for one in windows if len(set(one)) >= 8}
    assert list(needles.find(hay)) == [
        at for at in range(len(hay) - 63) if hay[at : at + 64] in varied
    ]


def test_a_window_across_two_chunks_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK", 100)
    secret = RNG.bytes(64)
    for offset in range(30, 110):
        path = tmp_path / "file"
        path.write_bytes(bytes(offset) + secret + bytes(77))
        (found,), files, size = scan([path], Needles([secret]))
        assert (found.offset, found.count, files, size) == (offset, 1, 1, offset + 64 + 77)


def test_what_sqlite_keeps_of_deleted_rows_is_found(tmp_path: Path) -> None:
    secret = RNG.bytes(512)
    db = sqlite3.connect(tmp_path / "a.sqlite", isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("CREATE TABLE t (x BLOB)")
    db.execute("INSERT INTO t VALUES (?)", (secret,))
    db.execute("DELETE FROM t")
    found, _, _ = scan([tmp_path], Needles([secret]))
    assert [one.path.name for one in found] == ["a.sqlite-wal"]
    db.close()


def test_the_command_tells_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDUNLEARN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    run = RunFolder.claim(tmp_path / "run", {"rounds": 1})
    secret = RNG.normal(size=(40, 3))
    np.savez(tmp_path / "needle.npz", x=secret)
    call = ["scan", str(run.path), "--needle", str(tmp_path / "needle.npz")]
    assert CliRunner().invoke(app, call).exit_code == 0
    spilled = tmp_path / "tmp" / "ray" / "spill"
    spilled.mkdir(parents=True)
    (spilled / "object").write_bytes(b"head" + secret.tobytes())
    found = CliRunner().invoke(app, call)
    assert found.exit_code == 1
    assert f"{spilled / 'object'}: 15 window(s), the first at byte 4" in found.stdout


def test_needles_that_tell_nothing_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "zero.npz", x=np.zeros(1000))
    for name in ("zero.npz", "none.npz"):
        with pytest.raises(ConfigError, match=r"holds no 64 bytes|cannot be read"):
            read_needles(tmp_path / name)


def test_a_run_of_a_federation_is_looked_for_in_flowers_database_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # Ray's logs lie in the usual one
    monkeypatch.delenv("FLWR_HOME", raising=False)
    run, fed = tmp_path / "run", tmp_path / "fed"
    run.mkdir()
    fed.mkdir()
    assert fed not in module.places(run, tmp_path / "cache")
    (run / "deployment.json").write_text(json.dumps({"federation": "f", "folder": str(fed)}))
    assert fed in module.places(run, tmp_path / "cache")
    secret = RNG.bytes(256)
    (fed / "superlink.db-wal").write_bytes(bytes(7) + secret)
    found, _, _ = scan(module.places(run, tmp_path / "cache"), Needles([secret]))
    assert [one.path.name for one in found] == ["superlink.db-wal"]
