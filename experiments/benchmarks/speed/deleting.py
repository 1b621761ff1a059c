"""Deletions of single samples through the whole product, in a process of their own."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from experiments.benchmarks.speed.clock import HERE, child

__all__ = ["beside", "deletions"]

_SCRIPT = Path(__file__).with_name("deletions_child.py")


def deletions(
    config: Path,
    changes: Sequence[str],
    strategy: str,
    count: int,
    worktree: Path = HERE,
    timeout_s: float = 600,
) -> list[float]:
    """Return the CPU seconds of each of some requests for one sample.

    Parameters
    ----------
    config : Path
        Data, model, rounds; below ``experiments/configs`` of this build.
    changes : sequence of str
        ``key=value`` over it.
    strategy : str
        Who answers.
    count : int
        Requests, one after the other.
    worktree : Path
        Whose code is measured.
    timeout_s : float
        After so many seconds it is given up.
    """
    asked = {
        "config": str(worktree / config.relative_to(HERE)),
        "changes": list(changes),
        "strategy": strategy,
        "count": count,
    }
    found = child(_SCRIPT, worktree, [json.dumps(asked)], timeout_s=timeout_s)
    return [float(one) for one in found.answer["deletions_s"]]


def beside(
    older: Path, config: Path, changes: Sequence[str], strategy: str, count: int, repeats: int = 3
) -> tuple[float, float]:
    """Return the median CPU seconds of a deletion in this build and in an older one, in turn."""
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(repeats):
        ours += deletions(config, changes, strategy, count)
        theirs += deletions(config, changes, strategy, count, older)
    return statistics.median(ours), statistics.median(theirs)
