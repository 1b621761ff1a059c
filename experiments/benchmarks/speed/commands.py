"""Whole commands of two builds in turn: CPU seconds of all their processes, and wall seconds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.benchmarks.speed.clock import HERE, child

__all__ = ["CONFIGS", "STACKED", "Beside", "beside", "command"]

_SCRIPT = Path(__file__).with_name("command_child.py")
CONFIGS = "experiments/configs"
STACKED = ("--set", "engine.grid=stacked")  # in place of local, with the same bits


@dataclass(frozen=True)
class Beside:
    """Medians of a command in this build and in an older one.

    Parameters
    ----------
    cpu_s, wall_s : pair of float
        Ours, theirs.
    runs : tuple of pair of float
        CPU seconds of every run, ours and theirs.
    """

    cpu_s: tuple[float, float]
    wall_s: tuple[float, float]
    runs: tuple[tuple[float, float], ...]

    @property
    def ratio(self) -> float:
        """CPU seconds, ours of theirs."""
        return self.cpu_s[0] / self.cpu_s[1]

    @property
    def wall_ratio(self) -> float:
        """Wall seconds, ours of theirs."""
        return self.wall_s[0] / self.wall_s[1]

    def details(self) -> dict[str, object]:
        """Return seconds by build, and the CPU seconds of every run."""
        names = ("ours", "older")
        return {
            "cpu_s": dict(zip(names, self.cpu_s, strict=True)),
            "wall_s": dict(zip(names, self.wall_s, strict=True)),
            "runs_cpu_s": [dict(zip(names, run, strict=True)) for run in self.runs],
        }


def command(
    arguments: Sequence[str], worktree: Path = HERE, timeout_s: float = 3600
) -> tuple[float, float]:
    """Return CPU seconds of the process tree, and wall seconds, of one command of a build.

    Parameters
    ----------
    arguments : sequence of str
        Of ``fedunlearn``; paths count from the worktree, ``{home}`` is a folder for a while.
    worktree : Path
        Whose code runs.
    timeout_s : float
        After so many seconds it is given up.
    """
    found = child(_SCRIPT, worktree, arguments, timeout_s=timeout_s)
    return found.cpu_s, float(found.answer["wall_s"])


def beside(
    older: Path, arguments: Sequence[str], repeats: int = 3, *, ours: Sequence[str] = ()
) -> Beside:
    """Run a command in this build and in an older one, in turn.

    ``ours`` are further arguments of this build, for what the older one does not know.
    """
    taken: dict[Path, list[tuple[float, float]]] = {HERE: [], older: []}
    for _ in range(repeats):
        for worktree, found in taken.items():
            further = ours if worktree == HERE else ()
            found.append(command([*arguments, *further], worktree))
    medians = [
        tuple(statistics.median(column) for column in zip(*found, strict=True))
        for found in taken.values()
    ]
    (our_cpu, our_wall), (their_cpu, their_wall) = medians
    cpu = zip(*([seconds for seconds, _ in found] for found in taken.values()), strict=True)
    return Beside((our_cpu, their_cpu), (our_wall, their_wall), tuple(cpu))
