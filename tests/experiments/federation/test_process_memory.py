"""After the deletion no byte of the leaver's updates is left in the memory of the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from unlearning.records.history import History

CHILD = """
import gc, sys
from pathlib import Path
from experiments.config.loading import from_mapping
from experiments.federation import launch
mode, out = sys.argv[1], Path(sys.argv[2])
raw = {
    "rounds": 3, "recovery_rounds": 1, "strategy": "fed-eraser", "device": "cpu",
    "data": {"name": "digits", "clients": 3, "limit": 240},
    "model": {"name": "mlp", "hidden": 32}, "engine": {"grid": "local"},
}
if mode != "twin":
    raw["requests"] = [{"scope": "client", "clients": [2], "at_round": 3}]
def wait():
    print("ready", flush=True)
    sys.stdin.readline()
if mode == "during":  # stop where the server has the leaver's update in hand
    from unlearning.records.recording import RoundEntry
    add = RoundEntry.add
    def held(entry, client, examples, update):
        if client == 2 and entry.batch == "round-00002":
            wait()
        add(entry, client, examples, update)
    RoundEntry.add = held
launch.run(from_mapping(raw), out, observer=lambda tick: None)
gc.collect()
wait()
"""


_PART = 1 << 24  # bytes looked at together
_WINDOW = 64  # bytes of a needle


def hits(mode: str, out: Path, needles: list[bytes]) -> int:
    """Run a federation in a process of its own; count needles in its memory when it waits."""
    command = [sys.executable, "-c", CHILD, mode, str(out)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert any(line.strip() == "ready" for line in child.stdout)
        found = _held(child.pid, needles) if needles else 0
        child.communicate("\n")
    return found


def _held(pid: int, needles: list[bytes]) -> int:
    """Return how often needles lie in what a process can write."""
    count = 0
    maps = Path(f"/proc/{pid}/maps").read_text(encoding="ascii", errors="replace").splitlines()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in maps:
            span, rights, *_ = line.split()
            if not rights.startswith("rw"):
                continue
            begin, end = (int(part, 16) for part in span.split("-"))
            for at in range(begin, end, _PART):
                try:
                    memory.seek(at)
                    data = memory.read(min(_PART + _WINDOW - 1, end - at))
                except (OSError, ValueError):
                    continue
                count += sum(data.count(needle) for needle in needles)
    return count


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs /proc, which Linux has")
def test_no_byte_of_the_leaver_is_left_in_memory(tmp_path: Path) -> None:
    """Needles come from a twin that forgets nobody: the process that is searched holds none."""
    hits("twin", tmp_path / "twin", [])
    needles = set()
    with History.open(tmp_path / "twin" / "history" / "seed-0", readonly=True) as history:
        for server_round in history.rounds:
            for array in history.update(server_round, client=2).values():
                data = np.ascontiguousarray(array).tobytes()
                windows = (data[at : at + _WINDOW] for at in range(0, len(data) - _WINDOW + 1, 640))
                needles |= {window for window in windows if len(set(window)) > 20}
    assert needles
    during = hits("during", tmp_path / "during", sorted(needles))
    after = hits("after", tmp_path / "after", sorted(needles))
    print(f"{len(needles)} needles: {during} hits while it is held, {after} after the deletion")
    assert during > 0  # the scan can see them
    assert after == 0
