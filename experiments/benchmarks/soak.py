"""Let a federation run long, with requests that come in at random, and see what grows.

Call: ``python -m experiments.benchmarks.soak [--rounds 10000] [--clients 100] [--every 100]``. One
line per ``--every`` rounds: resident memory, open files, threads, bytes of ledger and of the
history's index, CPU seconds per round; at the end the slopes of the second half.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.config.loading import Config, from_mapping
from experiments.federation import launch
from experiments.runs.folder import RunFolder
from experiments.runs.progress import Tick
from unlearning.records.store import INDEX
from unlearning.request import Request, Scope

__all__ = ["Sample", "Watch", "main"]

_MEGABYTE = 1e6


@dataclass(frozen=True)
class Sample:
    """What a process takes at a moment."""

    rounds: int
    memory: float  # megabytes, resident
    files: int
    threads: int
    ledger: int  # bytes
    index: int  # bytes
    round_s: float  # CPU seconds per round since the sample before

    def line(self) -> str:
        """Return it as a row of a table."""
        return (
            f"| {self.rounds} | {self.memory:.0f} | {self.files} | {self.threads} | {self.ledger} "
            f"| {self.index} | {self.round_s:.4f} |"
        )


class Watch:
    """Counts rounds, asks for samples to be forgotten now and then, and takes samples.

    Parameters
    ----------
    folder : RunFolder
        Of the run.
    every : int
        Rounds between two samples.
    chance : float
        Of a request after a round.
    clients : int
        Number of clients.
    """

    def __init__(self, folder: RunFolder, every: int, chance: float, clients: int) -> None:
        self._folder, self._every, self._chance, self._clients = folder, every, chance, clients
        self._generator = np.random.default_rng(0)
        self._last = self._seen = 0  # no set of rounds: what grows here is not to be measured
        self._cpu = time.process_time()
        self.samples: list[Sample] = []
        self.requests = 0

    def __call__(self, tick: Tick) -> None:
        """Look after a round."""
        if tick.phase not in ("learn", "recover") or tick.server_round <= self._last:
            return
        self._last = tick.server_round
        self._seen += 1
        if self._generator.random() < self._chance:
            self._ask()
        if self._seen % self._every == 0:
            self.samples.append(self._sample())
            print(self.samples[-1].line(), flush=True)

    def _ask(self) -> None:
        client = int(self._generator.integers(self._clients))
        self.requests += 1
        request = Request(Scope.SAMPLE, samples={client: (self.requests % 3,)})
        with self._folder.open_ledger() as ledger:
            ledger.receive(request)

    def _sample(self) -> Sample:
        cpu, before = time.process_time(), self._cpu
        self._cpu = cpu
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        index = self._folder.history(0) / INDEX
        return Sample(
            self._seen,
            pages * os.sysconf("SC_PAGE_SIZE") / _MEGABYTE,
            len(os.listdir("/proc/self/fd")),
            threading.active_count(),
            self._folder.ledger.stat().st_size,
            index.stat().st_size if index.exists() else 0,
            (cpu - before) / self._every,
        )


def _config(rounds: int, clients: int, grid: str) -> Config:
    return from_mapping(
        {
            "rounds": rounds,
            "recovery_rounds": 0,
            "strategy": "no-t",
            "options": {"fine_tune_rounds": 1},  # its default is a share of all rounds
            "data": {"name": "digits", "clients": clients, "held_out": 0.0},
            "model": {"name": "mlp", "hidden": 8},
            "train": {"local_epochs": 1, "batch_size": 32, "learning_rate": 0.01},
            "engine": {"grid": grid},
        }
    )


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks.soak")
    parser.add_argument("--rounds", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--chance", type=float, default=0.02, help="of a request after a round")
    parser.add_argument("--grid", default="stacked", help="local: every client on its own")
    found = parser.parse_args()
    print("| rounds | MB | files | threads | ledger | index | CPU s per round |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder(Path(place) / "run")
        watch = Watch(folder, found.every, found.chance, found.clients)
        config = _config(found.rounds, found.clients, found.grid)
        launch.run(config, folder.path, observer=watch)
        with folder.open_ledger(readonly=True) as ledger:
            ledger.verify()
            served = sum(ledger.state(one.id) == "fulfilled" for one in ledger.requests())
    half = watch.samples[len(watch.samples) // 2 :]
    if len(half) > 1:
        slope = np.polyfit([one.rounds for one in half], [one.memory for one in half], 1)[0]
        print(f"memory grows by {1000 * slope:.2f} MB in 1,000 rounds (second half)")
    print(f"{served} of {watch.requests} requests fulfilled")


if __name__ == "__main__":
    main()
