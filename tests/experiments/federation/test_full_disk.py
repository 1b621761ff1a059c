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
from collections.abc import Callable, Iterator
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


def _swept(library: Path, root: Path, code: int, sticky: int, *chosen: object) -> int:
    """Let a run meet a fault at each of the writes that are chosen; return how many it has.

    What becomes of each is looked at, and printed, as soon as it is known.
    """
    wanted = map(str, (root, code, sticky, *chosen))
    with (
        (root / "stderr").open("w+", encoding="utf-8") as stderr,
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.faulty_disk", *wanted],
            cwd=ROOT,
            env={**os.environ, "LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as process,
    ):
        lines = map(json.loads, process.stdout or ())
        alone = next(lines)
        bad = [words for line in lines for words in _bad(Outcome(**line), sticky, alone["digest"])]
        assert process.wait() == 0
        stderr.seek(0)
        assert stderr.read() == ""  # no traceback of a log, either
    assert not bad, "\n".join(bad)
    return int(alone["writes"])


def _bad(seen: Outcome, sticky: int, digest: str) -> Iterator[str]:
    """Yield in words what should not have become of a run at a fault."""
    print(seen.number, seen.call, seen.path, "|", seen.said, flush=True)
    at = f"write {seen.number} ({seen.call} {seen.path})"
    if seen.raw:
        yield f"{at}: {seen.raw}"
    if "\n" in seen.said:
        yield f"{at}: more than a line: {seen.said}"
    if seen.said and not ("bytes were needed" in seen.said or "bytes are free" in seen.said):
        yield f"{at}: nothing is said of the room: {seen.said}"
    # Nothing but the log, and the last word of a run, can do without a disk.
    if not seen.said and sticky and seen.path and not seen.path.endswith(_SPARE):
        yield f"{at}: nobody noticed"
    if seen.then or seen.problems:
        yield f"{at}: afterwards {seen.then} {seen.problems}"
    if seen.began and not seen.then:
        if seen.fulfilled != 1:
            yield f"{at}: fulfilled {seen.fulfilled} times"
        if seen.failed and sticky:
            yield f"{at}: the request failed"
        if seen.digest != digest and not seen.failed:
            yield f"{at}: another model"


_SPARE = ("run.log", "status.json")


def test_a_disk_that_fails_where_sqlite_writes_too(faulty: Path, tmp_path: Path) -> None:
    assert _swept(faulty, tmp_path, errno.ENOSPC, 1, 1, 63, 303, 471, 668) >= 668


_PARTS = 4  # of a sweep, a minute or more each: `-k "ENOSPC-full-1of4"` is a sixteenth of all


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(1, _PARTS + 1), ids=lambda part: f"{part}of{_PARTS}")
@pytest.mark.parametrize("sticky", [1, 0], ids=["full", "once"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])
def test_a_disk_that_fails_at_every_write(
    faulty: Path, tmp_path: Path, code: int, sticky: int, part: int
) -> None:
    assert _swept(faulty, tmp_path, code, sticky, f"{part}/{_PARTS}") > 667


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
