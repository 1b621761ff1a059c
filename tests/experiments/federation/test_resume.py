"""A run that is killed anywhere comes out as one that was left alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.config.loading import Config, from_mapping
from experiments.federation import launch
from experiments.federation.checkpoint import Checkpoints
from experiments.runs.folder import RunFolder
from experiments.runs.intent import Intent
from experiments.runs.results import read_results
from strategies import federation as module
from unlearning import fulfil as fulfilling
from unlearning.errors import ConfigError
from unlearning.records import rewriting
from unlearning.records.ledger import Ledger
from unlearning.records.store import Store
from unlearning.request import Request, Scope


def config(strategy: str, **changes: object) -> Config:
    return from_mapping(
        {
            "rounds": 4,
            "recovery_rounds": 2,
            "strategy": strategy,
            "data": {"name": "digits", "clients": 4, "limit": 240},
            "model": {"name": "mlp", "hidden": 8},
            "train": {"local_epochs": 1, "batch_size": 32, "learning_rate": 0.1},
            "requests": [
                {"scope": "client", "clients": [3], "at_round": 2},
                {"scope": "sample", "samples": {"1": [0, 1, 2]}, "at_round": 4},
            ],
            "engine": {"grid": "local"},
            **changes,
        }
    )


def silent(tick: object) -> None:
    pass


def digests(path: Path) -> dict[tuple[str, int], str | None]:
    _, rows = read_results(path)
    return {(row.strategy, row.seed): row.model_digest for row in rows}


def resume(path: Path) -> Path | None:
    return launch.resume(RunFolder.open(path), Intent.read(path), observer=silent)


class Killer:
    """Ends a process at the n-th of all places where a run can be cut."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached: list[str] = []
        self._at = -1
        for owner, name in [
            (module.Federation, "moment"),
            (Store, "insert"),
            (rewriting, "purge"),
            (rewriting, "adopt"),
            (fulfilling, "finish"),
            (Ledger, "add"),
            (Checkpoints, "save"),
        ]:
            self._around(monkeypatch, owner, name)

    def _around(self, monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
        real = getattr(owner, name)

        def cut(*arguments: object, **named: object) -> object:
            self._step(f"before {name}")
            found = real(*arguments, **named)
            self._step(f"after {name}")
            return found

        monkeypatch.setattr(owner, name, cut)

    def _step(self, name: str) -> None:
        self.reached.append(name)
        if len(self.reached) == self._at:
            os._exit(9)  # nothing is tidied up, as with SIGKILL

    def count(self, body: Callable[[], Path]) -> tuple[Path, int]:
        """Return what a run leaves that is left alone, and how many places it passes."""
        self.reached.clear()
        return body(), len(self.reached)

    def kill(self, number: int, body: Callable[[], Path]) -> None:
        """Run something in a process of its own that ends at a place."""
        child = os.fork()
        if child == 0:
            self.reached.clear()
            self._at = number
            try:
                body()
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 9


@pytest.fixture
def killer(monkeypatch: pytest.MonkeyPatch) -> Killer:
    torch.set_num_threads(1)  # threads do not survive a fork
    return Killer(monkeypatch)


LEAVERS = [{"scope": "client", "clients": [k], "at_round": n} for k, n in ((3, 2), (1, 4))]
TASKS = [
    {"scope": "task", "tasks": [name], "at_round": n} for name, n in (("parity", 2), ("left", 4))
]
SPECIAL: dict[str, dict[str, object]] = {  # what differs where a strategy serves something else
    "fed-recover": {"requests": LEAVERS},
    "forest-deletion": {
        "data": {"name": "breast-cancer", "clients": 4, "limit": 160},
        "model": {"name": "forest", "trees": 3, "depth": 4},
        "recovery_rounds": 0,
        "requests": LEAVERS,
    },
    "head-drop": {
        "data": {"name": "digit-pairs", "clients": 4, "limit": 240, "tasks_per_client": 2},
        "model": {"name": "multi-task"},
        "requests": TASKS,
    },
}
EVERYWHERE = [pytest.mark.slow, pytest.mark.nightly, pytest.mark.timeout(3600)]


@pytest.mark.parametrize(
    ("strategy", "kills"),
    [
        ("fed-eraser", 5),
        ("retrain", 2),
        *[
            pytest.param(name, 40, marks=EVERYWHERE)
            for name in ("fed-eraser", "gradient-ascent", "no-t", "retrain", *SPECIAL)
        ],
    ],
)
def test_a_run_killed_anywhere_comes_out_the_same(
    tmp_path: Path, killer: Killer, strategy: str, kills: int
) -> None:
    settings = config(strategy, **SPECIAL.get(strategy, {}))
    alone, places = killer.count(lambda: launch.run(settings, tmp_path / "alone", observer=silent))
    killed_everywhere(tmp_path, killer, settings, alone, places, kills)


def killed_everywhere(
    tmp_path: Path, killer: Killer, settings: Config, alone: Path, places: int, kills: int
) -> None:
    """Kill a run at places from the first to the last; each must come out as the one left alone."""
    wanted = digests(alone)
    for number in np.linspace(1, places, kills).astype(int).tolist():
        path = tmp_path / f"killed-{number}"
        killer.kill(number, lambda: launch.run(settings, path, observer=silent))  # noqa: B023
        assert resume(path) == path
        assert digests(path) == wanted, number
        with Ledger(RunFolder(path).ledger, readonly=True) as ledger:
            ledger.verify()
            ends = [e.request_id for e in ledger.events() if e.event == "fulfilled"]
        assert sorted(ends) == ["config-1", "config-2"]
        assert not list((path / "history").glob("*.new*"))


@pytest.mark.parametrize(
    "kills",
    [3, pytest.param(25, marks=[pytest.mark.slow, pytest.mark.nightly, pytest.mark.timeout(900)])],
)
def test_a_run_from_a_model_of_elsewhere_goes_on(
    tmp_path: Path, killer: Killer, kills: int
) -> None:
    """The file may be gone by then: it holds what was forgotten. The run folder never has it."""
    trained = launch.run(config("no-t", requests=[]), tmp_path / "trained", observer=silent)
    model = tmp_path / "model.safetensors"
    model.write_bytes(RunFolder(trained).model.read_bytes())
    requests = [
        {"scope": "client", "clients": [3], "at_round": 0},
        {"scope": "sample", "samples": {"1": [0, 1, 2]}, "at_round": 2},
    ]
    settings = config("no-t", requests=requests, start={"model": str(model)})
    alone, places = killer.count(lambda: launch.run(settings, tmp_path / "alone", observer=silent))
    killed_everywhere(tmp_path, killer, settings, alone, places, kills)
    path = tmp_path / "late"
    killer.kill(places - 3, lambda: launch.run(settings, path, observer=silent))
    needle = model.read_bytes()[-64:]
    assert not [p for p in path.rglob("*") if p.is_file() and needle in p.read_bytes()]
    model.unlink()
    assert resume(path) == path
    assert digests(path) == digests(alone)


def test_a_comparison_keeps_what_is_finished_and_goes_on(tmp_path: Path, killer: Killer) -> None:
    settings = config("fed-eraser", strategies=["fed-eraser", "no-t"])

    def compare(path: Path) -> Path:
        return launch.compare(settings, path, seeds=(0, 1), observer=silent)

    alone, places = killer.count(lambda: compare(tmp_path / "alone"))
    wanted = digests(alone)
    assert len(wanted) == 10
    for number in np.linspace(3, places - 1, 4).astype(int).tolist():
        path = tmp_path / f"killed-{number}"
        killer.kill(number, lambda: compare(path))  # noqa: B023
        assert resume(path) == path
        assert digests(path) == wanted, number
        assert not (path / "checkpoint").exists()


def test_a_finished_run_has_nothing_to_do_and_serves_what_comes_later(tmp_path: Path) -> None:
    path = launch.run(config("no-t"), tmp_path / "run", observer=silent)
    before = digests(path)
    assert resume(path) is None
    assert digests(path) == before
    with Ledger(RunFolder(path).ledger) as ledger:
        ledger.receive(Request(Scope.CLIENT, clients=(0,), id="late"))
    assert resume(path) == path
    with Ledger(RunFolder(path).ledger, readonly=True) as ledger:
        assert ledger.state("late") == "fulfilled"
    assert digests(path) != before
    assert resume(path) is None


def test_a_changed_config_is_refused_unless_it_is_accepted(tmp_path: Path, killer: Killer) -> None:
    killer.kill(30, lambda: launch.run(config("no-t"), tmp_path / "run", observer=silent))
    folder = RunFolder(tmp_path / "run")
    text = folder.config.read_text()
    folder.config.write_text(text.replace("learning_rate = 0.1", "learning_rate = 0.05"))
    with pytest.raises(ConfigError, match=r"not those it began with.*--accept-change"):
        resume(folder.path)
    intent = Intent.read(folder.path)
    assert launch.resume(folder, intent, observer=silent, accept_change=True) == folder.path
    with Ledger(folder.ledger, readonly=True) as ledger:
        assert [e.event for e in ledger.events("")] == ["change-accepted"]


def test_of_two_processes_in_one_folder_the_second_is_refused(tmp_path: Path) -> None:
    from experiments.runs.lock import held

    path = launch.run(config("no-t"), tmp_path / "run", observer=silent)
    with Ledger(RunFolder(path).ledger) as ledger:
        ledger.receive(Request(Scope.CLIENT, clients=(0,), id="late"))
    with held(path) as fence:
        assert fence == 2
        with pytest.raises(ConfigError, match="is in use by process"):
            resume(path)
    assert resume(path) == path


def test_what_a_folder_of_an_older_version_lacks_is_said(tmp_path: Path) -> None:
    path = launch.run(config("no-t"), tmp_path / "run", observer=silent)
    (path / "intent.json").unlink()
    with pytest.raises(ConfigError, match="made by a version that kept no"):
        Intent.read(path)
    (path / "intent.json").write_text(json.dumps({"kind": "run"}))
    with pytest.raises(ConfigError, match="is damaged"):
        Intent.read(path)
