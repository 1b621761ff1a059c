"""A disk that is full or broken: one line, the old state stays, and the run goes on with room."""

from __future__ import annotations

import builtins
import errno
import gc
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.federation import launch
from experiments.runs.folder import RunFolder
from experiments.runs.inspection import verify
from experiments.runs.intent import Intent
from experiments.runs.results import read_results
from tests.support.faulty_disk import Outcome
from tests.support.small import small
from unlearning.errors import FedUnlearnError, StorageError
from unlearning.records.files import write_atomically

ROOT = Path(__file__).parents[3]


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
        launch.run(small(), tmp_path / "alone", observer=silent)
        writes = disk.writes
    wanted = [row.model_digest for row in read_results(tmp_path / "alone")[1]]
    for room in sorted({*np.linspace(0, writes - 1, tries).astype(int).tolist(), *also}):
        path = tmp_path / f"room-{room}"
        with monkeypatch.context() as patched:
            disk = Disk(patched, path)
            disk.room, disk.code = room, code
            outcome(lambda path=path: launch.run(small(), path, observer=silent))
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


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the library that makes a disk fail, also where SQLite writes by itself."""
    compiler = shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("needs Linux and a C compiler, `cc` (apt-get install gcc)")
    library = tmp_path_factory.mktemp("faulty") / "faulty_disk.so"
    source = ROOT / "tests" / "support" / "faulty_disk.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


def _swept(library: Path, root: Path, code: int, sticky: int, numbers: list[int]) -> int:
    """Let a run meet a fault at each of these writes (none: at every one); return how many."""
    wanted = map(str, (root, code, sticky, *numbers))
    found = subprocess.run(
        [sys.executable, "-m", "tests.support.faulty_disk", *wanted],
        cwd=ROOT,
        env={**os.environ, "LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stderr == ""  # no traceback of a log, either
    first, *lines = map(json.loads, found.stdout.splitlines())
    for line in lines:
        seen = Outcome(**line)
        print(seen.number, seen.call, seen.path, "|", seen.said)
        assert not seen.raw, seen
        assert "\n" not in seen.said, seen
        if seen.said:
            assert "bytes were needed" in seen.said or "bytes are free" in seen.said, seen
        elif sticky:  # nothing but the log and the last word of it can do without
            assert not seen.path or seen.path.endswith(("run.log", "status.json")), seen
        assert not seen.then, seen
        assert not seen.problems, seen
        if seen.began:
            assert seen.fulfilled == 1, seen
            assert seen.digest == first["digest"] or seen.failed, seen
            assert not (seen.failed and sticky), seen
    return len(lines)


def test_a_disk_that_fails_where_sqlite_writes_too(faulty: Path, tmp_path: Path) -> None:
    numbers = [1, 19, 63, 183, 303, 545, 737]
    assert _swept(faulty, tmp_path, errno.ENOSPC, 1, numbers) == len(numbers)


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("sticky", [1, 0], ids=["from then on", "once"])
def test_a_disk_that_fails_at_every_write(
    faulty: Path, tmp_path: Path, code: int, sticky: int
) -> None:
    assert _swept(faulty, tmp_path, code, sticky, []) > 700


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
