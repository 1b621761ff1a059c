"""The scorecard: one line per strategy, the controls first, every number with its interval."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.reporting.run import TITLES, Cell, Run, mean, measured, number, reasons
from experiments.reporting.sites import why_not_told
from experiments.runs.results import CONTROLS, ORIGINAL, RETRAIN, spread
from experiments.runs.table import DASH
from unlearning.evaluation.scorecard import METRICS, Verdict

__all__ = ["Line", "Scorecard", "scorecard"]


@dataclass(frozen=True)
class Line:
    """A strategy's line of a table."""

    strategy: str
    guarantee: str
    control: bool
    cells: tuple[Cell, ...]
    seeds: str
    verdict: Cell


@dataclass(frozen=True)
class Scorecard:
    """The table: titles of the columns that hold numbers, lines, and why numbers are missing."""

    titles: tuple[str, ...]
    lines: tuple[Line, ...]
    reasons: tuple[str, ...]


def scorecard(run: Run) -> Scorecard:
    """Return the scorecard of a run."""
    lines = tuple(_line(run, name) for name in run.strategies)
    titles = (*(TITLES[name] for name in METRICS), "Average gap")
    why = reasons([*titles, "Marker"], [(*line.cells, line.verdict) for line in lines])
    return Scorecard(titles, lines, tuple(why))


def _line(run: Run, name: str) -> Line:
    found = len({row.seed for row in run.rows if row.strategy == name})
    return Line(
        strategy=name,
        guarantee=run.guarantees[name],
        control=name in CONTROLS,
        cells=(*(_metric(run, name, metric) for metric in METRICS), _gap(run, name)),
        seeds="" if found == len(run.seeds) else f"{found} of {len(run.seeds)} seeds",
        verdict=_verdict(run, name),
    )


def _metric(run: Run, strategy: str, name: str) -> Cell:
    is_compared = strategy != RETRAIN and name != "prediction_distance"
    gap = mean(run.to_retrain(strategy, name)) if is_compared else None
    below = "" if gap is None else number(gap, sign=True)
    return measured(spread(run.rows, strategy, name), _why_not(run, strategy, name), below=below)


def _why_not(run: Run, strategy: str, name: str) -> str:
    """Return why a number would not have been measured."""
    if name == "prediction_distance" and not run.has_reference:
        return "no retrained model to compare with"
    if name == "backdoor_success" and not run.has_backdoor:
        return "no backdoor was planted in this run"
    if name == "backdoor_success":
        return "no test example with the trigger has another true label"
    if run.details.data.get("at_sites"):
        return why_not_told(name)
    if name == "mia_auc" and any(row.scope == "feature" for row in run.rows):
        return "the rows stay members without their values, before and after"
    if name in ("mia_auc", "prediction_distance"):
        return "the forget set or the held-out set is empty"
    return f"the {name.removesuffix('_accuracy')} set is empty for {strategy}"


def _gap(run: Run, strategy: str) -> Cell:
    return measured(run.gap(strategy), "no retrained model to compare with")


def _verdict(run: Run, strategy: str) -> Cell:
    if strategy in (ORIGINAL, RETRAIN):
        return Cell("before" if strategy == ORIGINAL else "reference")
    verdict = run.verdict(strategy)
    if verdict is not None:
        below = "one seed" if len(run.seeds) == 1 else ""
        return Cell(verdict.value, below if verdict is Verdict.INCONCLUSIVE else "")
    if not run.marker_before:
        return Cell(DASH, why="no verdict without a planted backdoor")
    if not run.is_marker_asked:
        return Cell(DASH, why="no verdict: nobody asked to forget the marked data")
    if not run.has_power:
        return Cell(DASH, why="no verdict: the marker has no power")
    return Cell(DASH, why="no retrained model to compare with, or not measured")
