"""What keeping the way back costs: the share of a run that goes into its checkpoints.

Call: ``python -m experiments.benchmarks.checkpoints [CONFIG] [--set KEY=VALUE]``. CPU
and wall seconds of every moment that is written, beside those of the whole run; the goal is 5 %.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from experiments.config.loading import load
from experiments.federation import launch
from experiments.federation.checkpoint import Checkpoints

__all__ = ["main"]

_CONFIG = Path(__file__).parents[1] / "configs" / "digits_client.toml"
_GOAL = 0.05


class _Clock:
    """Adds up what one function takes."""

    def __init__(self) -> None:
        self.calls, self.cpu, self.wall = 0, 0.0, 0.0

    def around(self, real: Callable[..., None]) -> Callable[..., None]:
        """Return the function, its time taken."""

        def timed(*arguments: Any, **named: Any) -> None:
            cpu, wall = time.process_time(), time.perf_counter()
            real(*arguments, **named)
            self.calls += 1
            self.cpu += time.process_time() - cpu
            self.wall += time.perf_counter() - wall

        return timed


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks.checkpoints")
    parser.add_argument("config", nargs="?", type=Path, default=_CONFIG)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    found = parser.parse_args()
    config = load(found.config, [*found.set, "engine.grid=local"])
    clock, first = _Clock(), _Clock()
    with tempfile.TemporaryDirectory() as place:

        def run() -> None:
            launch.run(config, Path(place) / "run", observer=lambda tick: None)

        with patch.object(Checkpoints, "save", clock.around(Checkpoints.save)):
            first.around(run)()
    cpu, wall = clock.cpu / first.cpu, clock.wall / first.wall
    print(f"{clock.calls} checkpoints: {1000 * clock.cpu / max(clock.calls, 1):.2f} ms CPU each")
    print(f"{100 * cpu:.2f} % of the run's CPU seconds, {100 * wall:.2f} % of its wall seconds")
    print(f"goal {100 * _GOAL:.0f} %: {'held' if cpu <= _GOAL else 'missed'}")


if __name__ == "__main__":
    main()
