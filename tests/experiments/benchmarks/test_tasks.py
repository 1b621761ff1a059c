from __future__ import annotations

from pathlib import Path

import pytest

from experiments.benchmarks.tasks import _read, _write, chosen_by_validation, lines_of
from tests.support.taskworld import config


def tried(**held_out: float) -> list[dict[str, object]]:
    """Return lines of strategies with these accuracies on held-out data."""
    return [{"strategy": name, "retained_held_out": value} for name, value in held_out.items()]


def test_validation_takes_the_most_forgetting_that_costs_at_most_a_point() -> None:
    names = {f"task-subtraction alpha={a}": v for a, v in ((0.1, 0.97), (0.5, 0.9), (0.2, 0.951))}
    lines = tried(original=0.96, **{"head-drop": 0.96}, **names)
    found = chosen_by_validation(lines)
    assert found == {"strategy": "task-subtraction by validation", "retained_held_out": 0.951}
    lines[0]["retained_held_out"] = 0.99
    assert chosen_by_validation(lines) is None  # all cost more
    assert chosen_by_validation(tried(original=0.5, **{"task-subtraction alpha=0.1": 0.5})) is None


def test_lines_hold_what_the_models_are() -> None:
    """An isolated task: deletion is retraining bit for bit, and the others answer as before."""
    model = {"name": "multi-task", "hidden": 16, "width": 8, "isolated": "parity"}
    chosen = config(model=model, recovery_rounds=0, rounds=2)
    names = ["isolated-adapters", "head-drop", "start-again"]
    lines = {str(line["strategy"]): line for line in lines_of(chosen, names, 0)}
    assert list(lines) == ["original", "retrain", "fine-tune", *names]
    deleted, again = lines["isolated-adapters"], lines["start-again"]
    assert deleted["equals_retrained"]
    assert deleted["others_as_original"]
    assert deleted["examples"] == 0
    assert deleted["guarantee"] == "exact"
    assert deleted["probe"] == lines["retrain"]["probe"]
    assert deleted["relearn_rounds"] is None
    assert not lines["fine-tune"]["equals_retrained"]
    assert not again["equals_retrained"]
    assert not again["others_as_original"]
    assert lines["retrain"]["examples"]


def test_budget_is_spent_from_the_initial_model() -> None:
    """As many rounds as were learned, from the same start: the cost of retraining."""
    lines = {str(a["strategy"]): a for a in lines_of(config(recovery_rounds=3), ["start-again"], 0)}
    assert lines["start-again"]["examples"] == lines["fine-tune"]["examples"]
    assert lines["retrain"]["examples"] == pytest.approx(
        2 * float(str(lines["fine-tune"]["examples"]))
    )


def test_lines_survive_the_file(tmp_path: Path) -> None:
    lines: list[dict[str, object]] = [{"seed": 0, "probe": 0.25, "relearn_rounds": None}]
    _write(tmp_path / "a.csv", lines)
    _write(tmp_path / "a.csv", [*_read(tmp_path / "a.csv"), {**lines[0], "seed": 1}])
    assert (tmp_path / "a.csv").read_text() == "seed,probe,relearn_rounds\n0,0.25,\n1,0.25,\n"
    assert _read(tmp_path / "none.csv") == []
