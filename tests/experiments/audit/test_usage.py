"""Memory and processor time of a process and of those below it."""

from __future__ import annotations

import subprocess
import sys

from experiments.audit.usage import Usage

_WORK = """
import sys, time
held = bytearray(200_000_000)
held[::4096] = b"x" * len(held[::4096])
end = time.process_time() + 0.3
while time.process_time() < end: pass
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_child_counts() -> None:
    usage = Usage()
    before = usage.peak_bytes
    child = subprocess.Popen(
        [sys.executable, "-c", _WORK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    child.stdout.readline()
    usage.look()
    child.communicate("")
    assert usage.peak_bytes - before > 100_000_000  # what others share may change by a few
    assert usage.cpu_seconds >= 0.29
    assert usage.seconds >= 0.3
    usage.look()  # what has ended stays counted
    assert usage.cpu_seconds >= 0.29
