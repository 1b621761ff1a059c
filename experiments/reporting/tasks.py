"""Several tasks: what was measured of each, one line per measure and task."""

from __future__ import annotations

from dataclasses import dataclass, replace

from experiments.reporting.run import Cell, Run, measured, reasons
from unlearning.evaluation.scorecard import summarise

__all__ = ["TaskLine", "Tasks", "task_table"]

_WORDS = {  # a measure without words of its own is shown under its name
    "accuracy": "Accuracy of the task's own head",
    "change": "Its difference to retraining",
    "retained": "Mean accuracy of the tasks that stay",
    "retained_worst": "Accuracy of the worst task that stays",
    "worst_change": "Greatest loss against retraining, of the tasks that stay",
    "old_head": "Accuracy of the original's head on this trunk",
    "probe": "Accuracy of a fresh head on the frozen trunk",
    "relearn_rounds": "Rounds of learning until the task is back",
    "cka_original": "Likeness to the original's trunk (CKA)",
    "cka_retrained": "Likeness to the retrained trunk (CKA)",
}
_LEAST = ("retained_worst", "worst_change")  # their task is a finding, not a subject
_ROUNDS = "relearn_rounds"
_AT_LEAST = "\N{GREATER-THAN OR EQUAL TO}"
_SEVERAL = "several"


@dataclass(frozen=True)
class TaskLine:
    """One measure of one task, or over several; ``cells`` are the strategies'."""

    measure: str
    task: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Tasks:
    """The table of measures per task."""

    strategies: tuple[str, ...]
    lines: tuple[TaskLine, ...]
    reasons: tuple[str, ...]


def task_table(run: Run) -> Tasks | None:
    """Return what was measured per task, None if nothing was."""
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    which: dict[tuple[str, str], set[str]] = {}  # measure, strategy: the tasks that were least
    for one in run.details.task_measures:
        least = one.measure in _LEAST
        task = _SEVERAL if least or one.task is None else one.task
        found.setdefault((one.measure, task), {}).setdefault(one.strategy, []).append(one.value)
        if least and one.task is not None:
            which.setdefault((one.measure, one.strategy), set()).add(one.task)
    names = tuple(name for name in run.strategies if any(name in by for by in found.values()))
    if not names:
        return None
    limit = run.details.rounds.get("relearn")
    lines = tuple(
        TaskLine(
            _WORDS.get(measure, measure.replace("_", " ")),
            task,
            tuple(
                _cell(
                    values.get(name),
                    ", ".join(sorted(which.get((measure, name), ()))),
                    limit if measure == _ROUNDS else None,
                )
                for name in names
            ),
        )
        for (measure, task), values in found.items()
    )
    return Tasks(names, lines, tuple(reasons(names, [line.cells for line in lines])))


def _cell(values: list[float] | None, below: str, limit: int | None) -> Cell:
    """Return mean and interval; what was given up after ``limit`` rounds is a lower bound."""
    spread = summarise(values) if values else None
    cell = measured(spread, "does not apply to it, or was not measured", below=below)
    if not values or limit is None or max(values) <= limit:
        return cell
    text = f"> {limit}" if min(values) > limit else f"{_AT_LEAST} {cell.text}"
    return replace(cell, text=text, interval="", low=None, high=None, sd=None)
