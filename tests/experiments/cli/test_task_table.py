from __future__ import annotations

from rich.console import Console

from experiments.cli.task_table import plain_task_table, task_table
from experiments.runs.details import TaskMeasure
from experiments.runs.table import DASH


def measures() -> tuple[TaskMeasure, ...]:
    def one(strategy: str, seed: int, name: str, value: float, task: str = "") -> TaskMeasure:
        facts = {"strategy": strategy, "seed": seed, "measure": name, "value": value}
        return TaskMeasure(**facts, task=task or None)

    return (
        one("t-4", 0, "retained", 0.9),
        one("t-4", 1, "retained", 0.8),
        one("t-4", 0, "probe", 0.5, "a"),
        one("t-4", 0, "probe", 0.7, "b"),
        one("t-4", 1, "probe", 0.6, "a"),
        one("t-4", 1, "probe", 0.6, "b"),
        one("t-4", 0, "relearn_rounds", 21, "a"),
        one("t-4", 1, "relearn_rounds", 9, "a"),
        one("retrain", 0, "retained", 0.95),
        one("retrain", 0, "relearn_rounds", 21, "a"),
        one("original", 0, "relearn_rounds", 1, "a"),
    )


def test_lines_hold_means_bounds_and_dashes() -> None:
    lines = plain_task_table(measures(), 20).splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["original", "retrain", "t-4"]
    original, retrain, ours = lines[1:4]
    assert original.split()[1:] == [*[DASH] * 5, "1.0", DASH]
    assert ">20" in retrain
    assert "0.850 ± 0.071" in ours
    assert "0.600 " in ours  # over tasks first: no spread over the seeds
    assert "≥15.0" in ours
    assert "a, b" in lines[-1]
    assert "given up after 20" in lines[-1]


def test_nothing_is_said_of_traces_where_none_was_looked_for() -> None:
    partial = [m for m in measures() if m.measure == "retained"]
    assert "probe" not in plain_task_table(partial).splitlines()[-1]


def test_table_fits_a_narrow_terminal() -> None:
    console = Console(width=80, record=True, force_terminal=False)
    console.print(task_table(measures(), 20))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert "±0.071" in text
