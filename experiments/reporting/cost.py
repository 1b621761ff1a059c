"""What forgetting cost, apart for unlearning and recovery, and what was bought with it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from experiments.reporting.pictures import Trade, trade_off
from experiments.reporting.run import Cell, Run, mean, reasons
from experiments.runs.details import PREPARE
from experiments.runs.results import CONTROLS, ORIGINAL, by_seed, spread
from experiments.runs.table import DASH, with_sd
from unlearning.evaluation.scorecard import Spread, summarise

__all__ = ["WORK", "Costs", "Work", "costs", "trades"]

WORK = (  # name, title, unit
    ("wall_s", "Wall time", "s"),
    ("client_rounds", "Client rounds", ""),
    ("client_s", "Client time", "s"),
    ("examples", "Examples processed", ""),
    ("bytes_up", "Up", "MB"),
    ("bytes_down", "Down", "MB"),
)
_BESIDE = {
    "history_bytes": "History",
    "speedup_wall": "Speed-up by wall time",
    "speedup_examples": "Speed-up by examples",
}
_COUNTS = ("client_rounds", "examples")
_MEGABYTE = 1e6


@dataclass(frozen=True)
class Work:
    """One line of the cost table; ``span`` lines belong to the strategy, 0: not its first."""

    strategy: str
    span: int
    phase: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Costs:
    """The cost table, and why numbers are missing."""

    lines: tuple[Work, ...]
    reasons: tuple[str, ...]


def costs(run: Run) -> Costs:
    """Return the cost table of a run."""
    split = {phases.strategy for phases in run.details.phases}
    prepared = {p.strategy for p in run.details.phases if p.prepare and p.prepare.examples}
    lines = []
    for strategy in run.strategies:
        phases = ["unlearn", "recover", "total"] if strategy in split else ["total"]
        if strategy in prepared:
            phases.insert(0, PREPARE)
        for i, phase in enumerate(phases):
            cells = [_amount(run, strategy, phase, name) for name, *_ in WORK]
            if phase == "total":
                cells += [_beside(run, strategy, name) for name in _BESIDE]
            words = "learn" if strategy == ORIGINAL else phase
            lines.append(Work(strategy, len(phases) if i == 0 else 0, words, tuple(cells)))
    titles = [*(title for _, title, _ in WORK), *_BESIDE.values()]
    totals = [line.cells for line in lines if len(line.cells) == len(titles)]
    return Costs(tuple(lines), tuple(reasons(titles, totals)))


def _cell(found: Spread, decimals: int | None = None) -> Cell:
    cell = Cell(with_sd(found, decimals), value=found.mean, sd=found.sd)
    return replace(cell, low=found.low, high=found.high, n=found.n)


def _amount(run: Run, strategy: str, phase: str, name: str) -> Cell:
    """Return one cost of one phase (``total``: of the row), over the seeds."""
    if phase == "total":
        values = list(by_seed(run.rows, strategy, name).values())
    else:
        works = [getattr(p, phase) for p in run.details.phases if p.strategy == strategy]
        values = [None if work is None else getattr(work, name) for work in works]
    found = [value for value in values if value is not None]
    if not found:
        return Cell(DASH, why="not recorded by this run")
    scaled = [value / _MEGABYTE for value in found] if name.endswith(("up", "down")) else found
    return _cell(summarise(scaled), 0 if name in _COUNTS else None)


def _beside(run: Run, strategy: str, name: str) -> Cell:
    """Return history or a speed-up: numbers of a row as a whole."""
    found = [value for value in by_seed(run.rows, strategy, name).values() if value is not None]
    if found:
        scaled = [value / _MEGABYTE for value in found] if name == "history_bytes" else found
        return _cell(summarise(scaled))
    if name == "history_bytes":
        return Cell(DASH, why="not recorded by this run")
    if strategy == ORIGINAL:
        return Cell(DASH, why="the original model answered no request")
    if not run.has_reference:
        return Cell(DASH, why="no retrained model to compare with")
    return Cell(DASH, why="nothing was spent, or it was not measured")


def trades(run: Run) -> str | None:
    """Return the picture of gap against cost, by examples or else by wall time."""
    names = [name for name in run.strategies if name != ORIGINAL]
    for cost, label in (
        ("examples", "examples processed, unlearning and recovery together"),
        ("wall_s", "wall time, unlearning and recovery together (s)"),
    ):
        found = []
        for name in names:
            spent, gap = spread(run.rows, name, cost), run.gap(name)
            if spent is not None and gap is not None:
                control = name in CONTROLS
                found.append(Trade(name, spent.mean, gap.mean, gap.low, gap.high, control))
        if len(found) > 1:
            untouched = mean(list(run.gaps(ORIGINAL).values()))
            return trade_off(found, cost_label=label, untouched=untouched)
    return None
