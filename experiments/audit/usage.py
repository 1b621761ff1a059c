"""What an audit takes: processor time and memory of this process and all below it."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

__all__ = ["Usage"]

_PROC = Path("/proc")
_KILO = 1024


class Usage:
    """Watches this process and its descendants; begins when it is made.

    Notes
    -----
    Memory is the sum of the proportional set sizes (PSS): a page that n processes share counts
    1/n in each. Where the system does not tell (no ``/proc``), it is this process' and its largest
    child's peak resident size, and processor time that of this process and its ended children.
    """

    def __init__(self) -> None:
        self._begun = time.perf_counter()
        self._cpu: dict[int, float] = {}
        self._before = _own_cpu_s()
        self.peak_bytes = 0
        self.look()

    def look(self) -> None:
        """Take a sample."""
        total = 0
        for process in _family(os.getpid()):
            try:
                total += _pss(process)
                self._cpu[process] = _cpu_s(process)
            except (OSError, ValueError, IndexError):
                continue  # it ended while we looked
        if not total:
            peaks = [resource.getrusage(who).ru_maxrss for who in _WHO]
            total = sum(peaks) * _KILO
        self.peak_bytes = max(self.peak_bytes, total)

    @property
    def seconds(self) -> float:
        """Wall-clock seconds so far."""
        return time.perf_counter() - self._begun

    @property
    def cpu_seconds(self) -> float:
        """Processor seconds of all processes so far."""
        own = _own_cpu_s() - self._before
        return own + sum(spent for process, spent in self._cpu.items() if process != os.getpid())


_WHO = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def _own_cpu_s() -> float:
    return time.process_time()


def _family(process: int) -> list[int]:
    """Return a process and all below it."""
    found, waiting = [], [process]
    while waiting:
        found.append(waiting.pop())
        for listing in (_PROC / str(found[-1]) / "task").glob("*/children"):
            try:
                waiting += map(int, listing.read_text().split())
            except OSError:
                continue
    return found


def _pss(process: int) -> int:
    for line in (_PROC / str(process) / "smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * _KILO
    raise ValueError(f"the system does not tell the memory of process {process}")


def _cpu_s(process: int) -> float:
    # The name, in brackets, may hold anything; fields 14 and 15 are counted behind it.
    fields = (_PROC / str(process) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
