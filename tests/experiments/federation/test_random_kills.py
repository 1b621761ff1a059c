"""A run killed at any moment, wherever its process is then, comes out as one left alone."""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from experiments.config.loading import Config
from experiments.federation import launch
from experiments.runs.folder import RunFolder
from experiments.runs.intent import Intent
from tests.experiments.federation.test_resume import SPECIAL, config, digests, silent
from tests.experiments.federation.test_resume_processes import begin, finish
from tests.support.undrawn import undrawn
from unlearning.records.ledger import Ledger
from unlearning.records.receipt import check, make

STRATEGIES = ("fed-eraser", "gradient-ascent", "fed-recover", "forest-deletion", "head-drop")
ELSEWHERE = "a model of elsewhere"  # no strategy, but a run that begins from a file
CASES = (*STRATEGIES, ELSEWHERE)
SEED = 2026
KILLS_ON_RAY = 6
NIGHTLY = [pytest.mark.slow, pytest.mark.nightly, pytest.mark.timeout(3600)]


def settings_of(case: str, place: Path) -> Config:
    """Return the config of a run; what it begins from is made in a folder."""
    if case != ELSEWHERE:
        return config(case, **SPECIAL.get(case, {}))
    trained = launch.run(config("no-t", requests=[]), place / "trained", observer=silent)
    requests = [
        {"scope": "client", "clients": [3], "at_round": 0},
        {"scope": "sample", "samples": {"1": [0, 1, 2]}, "at_round": 2},
    ]
    model = str(RunFolder(trained).model)
    return config("no-t", requests=requests, start={"model": model})


def apart(call: Callable[[], object], cpu_s: float = 0.0) -> Any:
    """Return what a call finds in a process of its own; None if it is killed after so much CPU."""
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if cpu_s:  # its signal ends a process where it stands, as SIGKILL does
                signal.signal(signal.SIGPROF, signal.SIG_DFL)
                signal.setitimer(signal.ITIMER_PROF, cpu_s)
            os.write(sender, json.dumps(call()).encode())
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(sender)
    with os.fdopen(receiver, "rb") as file:
        found = file.read()
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in ((-signal.SIGPROF, 0) if cpu_s else (0,))
    return json.loads(found) if code == 0 else None


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def run(settings: Config, path: Path | str) -> float:
    """Run, and return the CPU seconds it took."""
    before = cpu()
    launch.run(settings, Path(path), observer=silent)
    return cpu() - before


def go_on(settings: Config, path: Path) -> object:
    """Resume a run, or begin it anew where it had not begun.

    Return where it lies, and after how many CPU seconds the next round was done.
    """
    before, rounds = cpu(), list[float]()

    def tick(tick: object) -> None:
        rounds.append(cpu() - before)

    if (path / "intent.json").is_file() and RunFolder(path).config.is_file():
        launch.resume(RunFolder.open(path), Intent.read(path), observer=tick)
    else:
        path = launch.run(settings, path.with_name(f"{path.name}-anew"), observer=tick)
    return str(path), [*rounds, cpu() - before][0]


def everything(path: Path | str) -> object:
    """Return what must be the same: digests, ends of requests; and check ledger and receipts."""
    path = Path(path)
    with Ledger(RunFolder(path).ledger) as ledger:
        ledger.verify()
        ends = sorted(e.request_id for e in ledger.events() if e.event == "fulfilled")
        for name in ends:
            receipt = make(ledger, name, ledger.seal, ledger.due_date(name))
            assert all(one.holds for one in check(receipt))
    assert not list((path / "history").glob("*.new*"))
    return [sorted([*key, value] for key, value in digests(path).items()), ends]


@pytest.mark.parametrize(
    ("case", "kills"),
    [
        ("fed-eraser", 3),
        *[pytest.param(name, 40, marks=NIGHTLY) for name in STRATEGIES],
        pytest.param(ELSEWHERE, 25, marks=NIGHTLY),
    ],
)
def test_a_run_killed_at_random_moments_comes_out_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, kills: int
) -> None:
    torch.set_num_threads(1)  # threads do not survive a fork
    undrawn(monkeypatch.setattr)
    settings = settings_of(case, tmp_path)
    launch.run(settings, tmp_path / "first", observer=silent)  # imports what the children need
    gc.collect()
    gc.freeze()  # a collection in a child would copy every page it looks at

    took = apart(partial(run, settings, tmp_path / "alone"))
    wanted = apart(partial(everything, tmp_path / "alone"))
    served: list[float] = []
    generator = np.random.default_rng([SEED, CASES.index(case)])
    for number, share in enumerate(generator.uniform(0.0, 1.0, kills).tolist()):
        path = tmp_path / f"killed-{number}"
        killed = apart(partial(run, settings, path), share * took) is None
        path, used = apart(partial(go_on, settings, path))
        assert apart(partial(everything, path)) == wanted, (number, share)
        served.append(used)
        print(f"{case} {number}: {killed=} at {share:.3f}, served after {used:.2f} s")
    print(
        f"{case}: {kills} of {kills} the same; from the restart to the next round, CPU seconds "
        f"without imports: median {np.median(served):.2f}, most {max(served):.2f}"
    )


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.xdist_group("ray")
@pytest.mark.parametrize("case", ["forest-deletion", "head-drop"])
def test_a_run_killed_on_ray_at_random_moments_comes_out_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """SIGKILL after random rounds and a random while; few, for each starts Ray twice."""
    undrawn(monkeypatch.setattr)
    alone = launch.run(settings_of(case, tmp_path), tmp_path / "alone", observer=silent)
    wanted, status = everything(alone), RunFolder(alone).read_status()
    assert status is not None
    generator = np.random.default_rng([SEED, CASES.index(case), 1])
    for number in range(KILLS_ON_RAY):
        rounds, pause = int(generator.integers(status.rounds_done)), generator.uniform(0, 0.3)
        out = tmp_path / f"killed-{number}"
        process = begin(RunFolder(alone).config, out, rounds, "engine.grid=ray", "engine.workers=2")
        time.sleep(pause)
        process.kill()
        process.communicate()
        found = finish("resume", out)
        assert found.returncode == 0, found.stderr
        assert everything(out) == wanted, (number, rounds, pause)
        killed = process.returncode == -signal.SIGKILL
        print(f"{case} on Ray {number}: {killed=} after {rounds} rounds and {pause:.2f} s")
