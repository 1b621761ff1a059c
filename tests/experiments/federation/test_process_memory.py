"""After the deletion no byte of the leaver's updates is left in the memory of the process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.config.loading import from_mapping
from experiments.federation import launch
from experiments.runs.scan import WINDOW, Needles
from unlearning.records.history import History

RAW: dict[str, Any] = {
    "rounds": 3,
    "recovery_rounds": 1,
    "strategy": "fed-eraser",
    "device": "cpu",
    "data": {"name": "digits", "clients": 3, "limit": 240},
    "model": {"name": "mlp", "hidden": 32},
    "engine": {"grid": "local"},
}
LEAVES = {"requests": [{"scope": "client", "clients": [2], "at_round": 3}]}
CHILD = """
import gc, json, sys
from pathlib import Path
from experiments.config.loading import from_mapping
from experiments.federation import launch
from unlearning.records.recording import RoundEntry
def wait():
    print("ready", flush=True)
    sys.stdin.readline()
add = RoundEntry.add
def held(entry, client, examples, update):
    if client == 2 and entry.batch == "round-00002":
        wait()  # the server has the leaver's update in hand
    if client == 0 and entry.batch == "round-00004":
        wait()  # the first round after the deletion
    add(entry, client, examples, update)
RoundEntry.add = held
launch.run(from_mapping(json.loads(sys.argv[1])), Path(sys.argv[2]), observer=lambda tick: None)
gc.collect()
wait()
"""


_PART = 1 << 20  # bytes looked at together
_PAGE = os.sysconf("SC_PAGE_SIZE")
_THERE, _OF_A_FILE = 3 << 62, 1 << 61  # in memory or swapped out; as it lies on the disk


def _found(pid: int, needles: Needles) -> Iterator[int]:
    """Yield where needles lie in what a process has written."""
    maps = Path(f"/proc/{pid}/maps").read_text(encoding="ascii", errors="replace").splitlines()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in maps:
            span, rights, *_ = line.split()
            if not rights.startswith("rw"):
                continue
            whole = [int(part, 16) for part in span.split("-")]
            # What is shared is told from a file by nothing.
            for begin, end in [whole] if rights.endswith("s") else _written(pid, *whole):
                for at in range(begin, end, _PART):
                    try:
                        memory.seek(at)
                        data = memory.read(min(_PART + WINDOW - 1, end - at))
                    except (OSError, ValueError):
                        continue
                    yield from (at + place for place in needles.find(data))


def _written(pid: int, begin: int, end: int) -> list[list[int]]:
    """Return from where to where pages were written: others are zeros, or a library's file."""
    with Path(f"/proc/{pid}/pagemap").open("rb") as file:
        file.seek(begin // _PAGE * 8)
        pages = np.frombuffer(file.read((end - begin) // _PAGE * 8), np.uint64)
    own = ((pages & np.uint64(_THERE)) != 0) & ((pages & np.uint64(_OF_A_FILE)) == 0)
    edges = np.flatnonzero(np.diff(own, prepend=False, append=False)).reshape(-1, 2)
    spans: list[list[int]] = (begin + edges * _PAGE).tolist()
    return spans


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not Path("/proc/self/pagemap").exists(), reason="needs /proc, which Linux has")
def test_no_byte_of_the_leaver_is_left_in_memory(tmp_path: Path) -> None:
    """Needles come from a twin that forgets nobody: the process that is searched makes none."""
    launch.run(from_mapping(RAW), tmp_path / "twin", observer=lambda tick: None)
    with History.open(tmp_path / "twin" / "history" / "seed-0", readonly=True) as history:
        updates = [
            np.ascontiguousarray(array).tobytes()
            for server_round in history.rounds
            for array in history.update(server_round, client=2).values()
        ]
    needles = Needles(updates)
    assert len(needles) > 100
    found: list[int] = []
    command = [sys.executable, "-c", CHILD, json.dumps(RAW | LEAVES), str(tmp_path / "run")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        for most in (1, None, None):  # while it is held, one that the scan can see will do
            assert any(line.strip() == "ready" for line in child.stdout)
            found.append(len(list(islice(_found(child.pid, needles), most))))
            child.stdin.write("\n")
            child.stdin.flush()
    during, after, end = found
    print(f"{len(needles)} needles: {after} hits after the deletion, {end} at the end")
    assert child.returncode == 0
    assert during > 0
    assert (after, end) == (0, 0)
