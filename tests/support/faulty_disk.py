"""Let a run meet a disk that fails at a write, then go on with it; one line of JSON per write.

Call, with ``faulty_disk.c`` compiled: ``LD_PRELOAD=faulty_disk.so python -m
tests.support.faulty_disk FOLDER CODE STICKY NUMBER ...`` or, for every n-th write of a run from the
k-th on, ``... FOLDER CODE STICKY k/n``.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from experiments.federation import launch
from experiments.runs.folder import RunFolder
from experiments.runs.inspection import verify
from experiments.runs.intent import Intent
from experiments.runs.results import read_results
from tests.support.small import small
from tests.support.undrawn import undrawn
from unlearning.errors import FedUnlearnError
from unlearning.records.ledger import Ledger

__all__ = ["Outcome", "main"]


@dataclass(frozen=True)
class Outcome:
    """What became of a run at a disk that failed at one write.

    Parameters
    ----------
    number : int
        Of the write, counted from 1.
    call, path : str
        What failed first, and where; empty: the run had fewer writes.
    said : str
        The error, one line; empty: there was none, the write was not needed.
    raw : str
        What is no error for users: a traceback.
    began : bool
        Whether the run had begun, so that it can be resumed.
    then : str
        What went wrong when it was resumed with room; empty: nothing.
    problems : tuple of str
        What ``verify`` finds at the end.
    digest : str
        Of the model at the end.
    fulfilled, failed : int
        How often the ledger says so. A request that failed at a fault that passed is served again
        at a later round, so the model is another one.
    """

    number: int
    call: str
    path: str
    said: str
    raw: str
    began: bool
    then: str = ""
    problems: tuple[str, ...] = ()
    digest: str = ""
    fulfilled: int = 0
    failed: int = 0


def _tried(call: Callable[[], object]) -> tuple[str, str]:
    """Return what was said to the user, and what should never be seen by one."""
    try:
        call()
    except FedUnlearnError as error:
        return str(error), ""
    except BaseException:
        return "", traceback.format_exc()
    return "", ""


def _apart(call: Callable[[], object]) -> Any:
    """Return what a call finds in a process of its own."""
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(sender, json.dumps(call()).encode())
        finally:
            os._exit(0)
    os.close(sender)
    with os.fdopen(receiver, "rb") as file:
        found = file.read()
    os.waitpid(child, 0)
    return json.loads(found)


def _run(path: Path) -> Path:
    return launch.run(small(), path, observer=lambda tick: None)


def _attempt(path: Path, number: int, code: int, sticky: int) -> Outcome:
    disk = ctypes.CDLL(None)

    def first() -> object:
        disk.disk_fails(str(path).encode(), number, code, sticky)
        said, raw = _tried(lambda: _run(path))
        return *map(_text, ("failed_call", "failed_path")), said, raw

    call, where, said, raw = _apart(first)
    folder = RunFolder(path)
    began = folder.config.is_file() and (path / "intent.json").is_file()
    return Outcome(
        number, call, where, said, raw, began, *(_apart(lambda: _end(folder)) if began else ())
    )


def _text(name: str) -> str:
    found = ctypes.c_char.in_dll(ctypes.CDLL(None), name)  # its first byte
    return ctypes.string_at(ctypes.addressof(found)).decode()


def _end(folder: RunFolder) -> object:
    """Go on where there is room again; return the last fields of an outcome."""
    said, raw = _tried(
        lambda: launch.resume(folder, Intent.read(folder.path), observer=lambda tick: None)
    )
    if said or raw:
        return said or raw, (), "", 0, 0
    with Ledger(folder.ledger, readonly=True) as ledger:
        events = [event.event for event in ledger.events()]
    digest = [row.model_digest for row in read_results(folder.path)[1]][-1]
    return "", verify(folder).problems, digest, events.count("fulfilled"), events.count("failed")


def _count(path: Path) -> tuple[int, str]:
    disk = ctypes.CDLL(None)
    disk.disk_fails(str(path).encode(), 0, 0, 0)
    _run(path)
    writes = disk.disk_writes()
    disk.disk_fails(b"", 0, 0, 0)
    return writes, str(read_results(path)[1][-1].model_digest)


def main(root: Path, code: int, sticky: int, chosen: list[str]) -> None:
    """Try each write, and print what came of it."""
    torch.set_num_threads(1)  # threads do not survive a fork
    undrawn()
    writes, digest = _count(root / "alone")  # in this process: it imports what all others need
    gc.collect()
    gc.freeze()  # a collection in a child would copy every page it looks at
    print(json.dumps({"writes": writes, "digest": digest}), flush=True)
    first, _, step = chosen[0].partition("/")
    numbers = range(int(first), writes + 1, int(step)) if step else map(int, chosen)
    for number in numbers:
        path = root / f"write-{number:05d}"
        print(json.dumps(asdict(_attempt(path, number, code, sticky))), flush=True)
        shutil.rmtree(path, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
