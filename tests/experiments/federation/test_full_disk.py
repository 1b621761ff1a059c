"""A disk that is full or broken: one line, the old state stays, and the run goes on with room."""

from __future__ import annotations

import builtins
import errno
import gc
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.config.loading import Config, from_mapping
from experiments.federation import launch
from experiments.runs.folder import RunFolder
from experiments.runs.inspection import verify
from experiments.runs.intent import Intent
from experiments.runs.results import read_results
from unlearning.errors import FedUnlearnError, StorageError
from unlearning.records.files import write_atomically


def config() -> Config:
    return from_mapping(
        {
            "rounds": 2,
            "recovery_rounds": 1,
            "strategy": "fed-eraser",
            "data": {"name": "digits", "clients": 3, "limit": 90},
            "model": {"name": "mlp", "hidden": 4},
            "requests": [{"scope": "client", "clients": [2], "at_round": 2}],
            "engine": {"grid": "local"},
        }
    )


def silent(tick: object) -> None:
    pass


class Disk:
    """A disk below one folder that takes ``room`` writes, then none until it is mended.

    SQLite writes by itself and is not reached; its errors are turned into words where its
    transactions are.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
        self.root, self.code = str(root), errno.ENOSPC
        self.writes, self.room = 0, 10**9
        self.at: list[str] = []
        for name, place in (("mkdir", 0), ("replace", 1), ("link", 1)):
            monkeypatch.setattr(os, name, self._guarded(getattr(os, name), place))
        real_open, real_file, fsync = os.open, io.open, os.fsync

        def opened(path: Any, flags: int, *rest: Any, **named: Any) -> int:
            if flags & (os.O_WRONLY | os.O_RDWR):
                self.take(path)
            return real_open(path, flags, *rest, **named)

        def file(path: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
            if set(mode) & set("wax+"):
                self.take(path)
            return real_file(path, mode, *rest, **named)

        def flushed(descriptor: int) -> None:
            self.take(os.readlink(f"/proc/self/fd/{descriptor}"))
            fsync(descriptor)

        monkeypatch.setattr(os, "open", opened)
        monkeypatch.setattr(os, "fsync", flushed)
        monkeypatch.setattr(io, "open", file)
        monkeypatch.setattr(builtins, "open", file)

    def _guarded(self, real: Callable[..., Any], place: int) -> Callable[..., Any]:
        def guarded(*args: Any, **named: Any) -> Any:
            self.take(args[place])
            return real(*args, **named)

        return guarded

    def take(self, path: object) -> None:
        """Count a write, or refuse it."""
        if not isinstance(path, str | Path) or not str(path).startswith(self.root):
            return
        self.writes += 1
        if self.writes > self.room:
            self.at.append(str(path))
            raise OSError(self.code, os.strerror(self.code), str(path))


def outcome(call: Callable[[], object]) -> str:
    """Return in words what went wrong, one line; nothing if nothing did."""
    said = ""
    try:
        call()
    except FedUnlearnError as error:
        said = str(error)
    gc.collect()  # as if its process had ended: the history is let go
    assert "\n" not in said
    return said


def _filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tries: int, code: int, *also: int
) -> None:
    """Fill the disk after so many writes, spread over a run, and after ``also``; then go on."""
    with monkeypatch.context() as patched:
        disk = Disk(patched, tmp_path / "alone")
        launch.run(config(), tmp_path / "alone", observer=silent)
        writes = disk.writes
    wanted = [row.model_digest for row in read_results(tmp_path / "alone")[1]]
    for room in sorted({*np.linspace(0, writes - 1, tries).astype(int).tolist(), *also}):
        path = tmp_path / f"room-{room}"
        with monkeypatch.context() as patched:
            disk = Disk(patched, path)
            disk.room, disk.code = room, code
            outcome(lambda path=path: launch.run(config(), path, observer=silent))
        folder = RunFolder(path)
        if not folder.config.is_file() or not (path / "intent.json").is_file():
            continue  # it had not begun, and begins anew
        said = outcome(
            lambda folder=folder: launch.resume(folder, Intent.read(folder.path), observer=silent)
        )
        assert not said, (room, disk.at[:2], said)
        found = [row.model_digest for row in read_results(path)[1]]
        assert found == wanted, (room, disk.at[:2])
        assert verify(folder).problems == (), (room, disk.at[:2])


def test_a_full_disk_is_one_line_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _filled(tmp_path, monkeypatch, 4, errno.ENOSPC, 20, 87)  # the key's second half; a request


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_is_full_or_broken_at_every_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    _filled(tmp_path, monkeypatch, 10_000, code)


def test_what_was_needed_and_what_is_free_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "file"
    write_atomically(target, b"old")
    disk = Disk(monkeypatch, tmp_path)
    for room in range(4):
        disk.writes, disk.room = 0, room
        with pytest.raises(StorageError, match=r"No space left.*\(3 bytes were needed, \d+ are"):
            write_atomically(target, b"new")
        assert target.read_bytes() in (b"old", b"new")
        assert [path.name for path in tmp_path.iterdir()] == ["file"]
