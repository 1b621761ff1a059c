"""The conductor without a run folder: the same models, and two ways to be compared fairly."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.app import client_app
from experiments.config.loading import from_mapping
from experiments.config.registry import make
from experiments.config.schema import Config
from experiments.federation.conduct import Conductor
from experiments.federation.grids import LocalGrid
from experiments.federation.party import Party
from experiments.federation.task import Scenario, Task, task
from experiments.runs.folder import RunFolder
from unlearning.arrays import digest
from unlearning.errors import ConfigError
from unlearning.records.ledger import Ledger
from unlearning.request import Request, Scope

RAW = {
    "seed": 3,
    "rounds": 2,
    "recovery_rounds": 2,
    "device": "cpu",
    "data": {"clients": 3, "limit": 120},
    "model": {"hidden": 4},
    "marker": {"client": 1},
    "recovery": {"learning_rate": 0.05},  # else a mix-up of the two would not show
    "requests": [{"scope": "sample", "samples": "marked"}],
}


@pytest.fixture(scope="module")
def config() -> Config:
    return from_mapping(RAW)


@pytest.fixture(scope="module")
def made(config: Config) -> Task:
    return task(Scenario.of(config))


def conductor(config: Config, made: Task, place: RunFolder | Path, glances: bool) -> Conductor:
    ledger = Ledger()
    return Conductor(config, made, place, ledger, lambda _: None, lambda: False, glances=glances)


def compared(
    config: Config,
    made: Task,
    place: RunFolder | Path,
    *names: str,
    glances: bool = False,
    onward: bool = False,
) -> dict[str, Party]:
    strategies = {name: make(name, {}) for name in ("retrain", *names)}
    found = conductor(config, made, place, glances).compare(
        LocalGrid(client_app, 3), strategies, onward=onward
    )
    return {party.strategy: party for party in found}


def test_no_folder_gives_the_same_models(config: Config, made: Task, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    kept = compared(config, made, folder, "fed-eraser", "fed-osd", glances=True)
    bare = compared(config, made, tmp_path / "bare", "fed-eraser", "fed-osd")
    assert {name: digest(party.arrays) for name, party in kept.items()} == {
        name: digest(party.arrays) for name, party in bare.items()
    }
    assert kept["retrain"].timeline
    assert not bare["retrain"].timeline
    left = [path for path in (tmp_path / "bare").rglob("*") if path.is_file()]
    assert not left


def test_learning_without_is_retraining(config: Config, made: Task, tmp_path: Path) -> None:
    models = compared(config, made, tmp_path, onward=True)
    grid = LocalGrid(client_app, 3)
    (request,) = config.domain_requests(made.marked_samples)
    again = conductor(config, made, tmp_path, glances=False).without(grid, request)
    assert digest(again) == digest(models["retrain"].arrays)
    half = Request(Scope.SAMPLE, samples={1: made.marked(1)[::2]})
    part = conductor(config, made, tmp_path, glances=False).without(grid, half)
    assert digest(part) not in {digest(party.arrays) for party in models.values()}


def test_original_learns_on_with_everything(config: Config, made: Task, tmp_path: Path) -> None:
    shorter = compared(config, made, tmp_path)["original"]
    original = compared(config, made, tmp_path, onward=True)["original"]
    assert original.guarantee == "none"
    assert digest(original.arrays) != digest(shorter.arrays)
    longer = config.model_copy(update={"rounds": 4, "recovery_rounds": 0})
    whole = compared(longer, made, tmp_path)["original"]
    assert digest(original.arrays) == digest(whole.arrays)


def test_a_run_needs_a_folder(config: Config, made: Task, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give it a run folder"):
        list(
            conductor(config, made, tmp_path, glances=False).run(
                LocalGrid(client_app, 3), make("retrain", {})
            )
        )
