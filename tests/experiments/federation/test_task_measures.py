"""What a comparison measures of tasks: against hand-made models, and in whole runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from experiments.app import client_app
from experiments.config.loading import Config, from_mapping
from experiments.federation import launch
from experiments.federation.grids import LocalGrid
from experiments.federation.party import Party
from experiments.federation.task import Scenario, Task, task
from experiments.federation.task_judge import judge_of, task_accuracy
from experiments.federation.task_measures import linear_cka, measure, probe_accuracy, relearn_rounds
from experiments.runs.details import TaskMeasure, read_details
from experiments.runs.results import ORIGINAL, RETRAIN
from unlearning.arrays import Arrays
from unlearning.errors import FederationError
from unlearning.models.heads import task_of
from unlearning.request import Request, Scope

PARITY = Request(Scope.TASK, tasks=("parity",))
PARTIAL = Request(Scope.TASK, clients=(1,), tasks=("parity",))


def config(**changes: object) -> Config:
    return from_mapping(
        {
            "rounds": 2,
            "recovery_rounds": 1,
            "strategy": "head-drop",
            "data": {"name": "digit-pairs", "clients": 4, "limit": 240, "tasks_per_client": 2},
            "model": {"name": "multi-task", "hidden": 16, "width": 8},
            "train": {"batch_size": 16, "learning_rate": 0.1, "momentum": 0.5},
            "requests": [{"scope": "task", "tasks": ["parity"]}],
            "engine": {"grid": "local"},
            **changes,
        }
    )


def party(found: Task, name: str, arrays: Arrays, request: Request = PARITY) -> Party:
    outputs = judge_of(found, [request]).outputs(arrays)
    return Party(name, 0, "none", arrays, outputs, {}, None, "task")


def ask(found: Task, parties: list[Party], request: Request = PARITY) -> list[TaskMeasure]:
    grid = LocalGrid(client_app, len(found.clients))
    return measure(grid, config(), found, [request], parties)


def of(measured: list[TaskMeasure], strategy: str, name: str) -> dict[str | None, float]:
    return {
        found.task: found.value
        for found in measured
        if (found.strategy, found.measure) == (strategy, name)
    }


def shifted(arrays: Arrays, shift: float) -> Arrays:
    """Return another model: its trunk reads the inputs upside down, more or less."""
    return {n: a if task_of(n) else (a + np.float32(shift)) for n, a in arrays.items()}


def test_measures_of_three_models() -> None:
    """The original, its trunk under another head of the task, and a model with another trunk."""
    found = task(Scenario.of(config()))
    original = found.initial()
    dropped = {n: -a if task_of(n) == "parity" else a for n, a in original.items()}
    other = shifted(original, 0.3)
    parties = [
        party(found, ORIGINAL, original),
        party(found, RETRAIN, other),
        party(found, "head-drop", dropped),
    ]
    measured = ask(found, parties)
    seen = {p.strategy: task_accuracy(found, p.arrays) for p in parties}
    for name, each in seen.items():
        assert of(measured, name, "accuracy") == each
        stays = [each["left"], each["right"]]
        assert of(measured, name, "retained") == {None: pytest.approx(np.mean(stays))}
        assert list(of(measured, name, "retained_worst").values()) == [min(stays)]
        gaps = {q: each[q] - seen[RETRAIN][q] for q in ("left", "right")}
        assert of(measured, name, "change") == pytest.approx(gaps)
        ((worst, least),) = of(measured, name, "worst_change").items()
        assert least == pytest.approx(min(gaps.values()))
        assert gaps[str(worst)] == min(gaps.values())
    # The old head is the original's, whatever has become of the model's own.
    assert of(measured, "head-drop", "old_head")["parity"] == seen[ORIGINAL]["parity"]
    assert seen["head-drop"]["parity"] != seen[ORIGINAL]["parity"]
    # Trunk and data are the same, so a fresh head must find the same; on another it need not.
    assert of(measured, "head-drop", "probe") == of(measured, ORIGINAL, "probe")
    assert of(measured, "head-drop", "cka_original")["parity"] == pytest.approx(1)
    assert of(measured, "head-drop", "cka_retrained")["parity"] < 0.999
    assert of(measured, RETRAIN, "cka_retrained")["parity"] == pytest.approx(1)


def test_nothing_is_compared_without_a_retrained_model() -> None:
    found = task(Scenario.of(config()))
    measured = ask(found, [party(found, ORIGINAL, found.initial())])
    names = {one.measure for one in measured}
    assert {"accuracy", "retained", "old_head", "probe", "relearn_rounds", "cka_original"} <= names
    assert not names & {"change", "worst_change", "cka_retrained"}


def test_partial_request_counts_the_task_among_those_that_stay() -> None:
    found = task(Scenario.of(config()))
    arrays = found.initial()
    parties = [party(found, ORIGINAL, arrays, PARTIAL), party(found, RETRAIN, arrays, PARTIAL)]
    measured = ask(found, parties, PARTIAL)
    each = task_accuracy(found, arrays)
    assert of(measured, ORIGINAL, "retained")[None] == pytest.approx(np.mean(list(each.values())))
    assert set(of(measured, ORIGINAL, "change")) == {"left", "right", "parity"}
    assert not {one.measure for one in measured} & {"old_head", "probe", "relearn_rounds"}
    assert of(measured, ORIGINAL, "cka_retrained") == {"parity": pytest.approx(1)}


def test_requests_that_name_no_task_measure_nothing() -> None:
    found = task(Scenario.of(config()))
    asked = Request(Scope.CLIENT, clients=(1,))
    assert ask(found, [party(found, ORIGINAL, found.initial(), asked)], asked) == []


def test_probe_finds_what_the_trunk_tells_and_no_more() -> None:
    """A trunk that answers the same to every input leaves the majority of the 300 examples."""
    found = task(Scenario.of(config()))
    arrays = found.initial()
    blind = {n: a if task_of(n) else np.zeros_like(a) for n, a in arrays.items()}
    labels = found.test_task_labels()[:, 2]
    shares = [float((labels == value).mean()) for value in (0, 1)]
    assert probe_accuracy(found, blind, "parity", 0) in shares
    wide = task(Scenario.of(config(model={"name": "multi-task"})))
    assert probe_accuracy(wide, wide.initial(), "left", 0) > 0.2  # random features, 10 classes


def test_linear_cka_by_hand() -> None:
    """Invariant to rotation, scale and shift; zero for what has nothing in common."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(50, 3)).astype(np.float32)
    turn = np.linalg.qr(generator.normal(size=(3, 3)))[0].astype(np.float32)
    assert linear_cka(x, 5 * x @ turn + 2) == pytest.approx(1, abs=1e-5)
    left = np.array([[1, 0], [-1, 0], [0, 0], [0, 0]], np.float32)
    right = np.array([[0], [0], [1], [-1]], np.float32)
    assert linear_cka(left, right) == 0
    assert linear_cka(left, np.ones((4, 1), np.float32)) == 0
    # a = (1, -1, 0, 0), b = (1, 0, -1, 0): (a.b)^2 / (|a|^2 |b|^2) = 1/4
    b = np.array([[1], [0], [-1], [0]], np.float32)
    assert linear_cka(left[:, :1], b) == pytest.approx(0.25)


def test_relearning_stops_at_the_goal_and_gives_up() -> None:
    found = task(Scenario.of(config()))
    grid = LocalGrid(client_app, len(found.clients))
    arrays = found.initial()
    goals = {"parity": 0.0, "left": 1.1}
    assert relearn_rounds(grid, config(), found, arrays, goals, 2) == {"parity": 1, "left": 3}


def test_relearning_learns_the_forgotten_task() -> None:
    """Its head moves: what is being relearned is not left out of the data."""
    found = task(Scenario.of(config()))
    arrays = found.initial()
    start = task_accuracy(found, arrays)["left"]
    grid = LocalGrid(client_app, len(found.clients))
    settings = config(train={"batch_size": 8, "learning_rate": 0.2, "momentum": 0.5})
    needed = relearn_rounds(grid, settings, found, arrays, {"left": start + 0.2}, 20)
    assert 1 < needed["left"] <= 20


def test_what_fails_to_relearn_costs_no_other_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **rest: object) -> None:
        raise FederationError("a worker died")

    monkeypatch.setattr("experiments.federation.task_measures.relearn_rounds", fail)
    found = task(Scenario.of(config()))
    measured = ask(found, [party(found, ORIGINAL, found.initial())])
    names = {one.measure for one in measured}
    assert "probe" in names
    assert "relearn_rounds" not in names


# Whole runs -----------------------------------------------------------------------------------


def test_comparison_keeps_measures_of_every_strategy_and_seed(tmp_path: Path) -> None:
    seen = []
    out = launch.compare(config(), tmp_path / "run", seeds=(0, 1), observer=seen.append)
    details = read_details(out)
    strategies = {ORIGINAL, RETRAIN, "fine-tune", "head-drop"}
    for name in ("retained", "retained_worst", "worst_change", "probe", "relearn_rounds"):
        rows = [(m.strategy, m.seed) for m in details.task_measures if m.measure == name]
        assert sorted(rows) == sorted((s, seed) for s in strategies for seed in (0, 1)), name
    assert details.rounds["relearn"] == 2
    assert {tick.strategy for tick in seen if tick.phase == "measure"} == strategies
    results = json.loads((out / "results.json").read_text())
    assert set(results) == {"config", "rows"}
    assert "probe" not in json.dumps(results["rows"])


def test_run_measures_what_it_served(tmp_path: Path) -> None:
    out = launch.run(config(), tmp_path / "run", observer=lambda tick: None)
    names = {(m.strategy, m.measure) for m in read_details(out).task_measures}
    assert {(ORIGINAL, "probe"), ("head-drop", "probe"), ("head-drop", "relearn_rounds")} <= names
    assert ("head-drop", "worst_change") not in names
    quiet = config(requests=[])
    out = launch.run(quiet, tmp_path / "quiet", observer=lambda tick: None)
    assert read_details(out).task_measures == ()


def test_strategy_that_refuses_the_request_is_a_failed_row_of_a_comparison(tmp_path: Path) -> None:
    """It knows only when it sees the model that the task has trained the trunk."""
    chosen = ("isolated-adapters", "head-drop")
    out = launch.compare(config(), tmp_path / "run", strategies=chosen, observer=lambda tick: None)
    details = read_details(out)
    assert {found.strategy for found in details.refused} == {"isolated-adapters"}
    assert "which has trained the trunk" in details.refused[0].reason
    rows = {row["strategy"]: row for row in json.loads((out / "results.json").read_text())["rows"]}
    assert set(rows) == {ORIGINAL, RETRAIN, "fine-tune", "head-drop", "isolated-adapters"}
    assert "which has trained the trunk" in rows["isolated-adapters"]["failed"]
    assert [name for name in rows if "failed" in rows[name]] == ["isolated-adapters"]
