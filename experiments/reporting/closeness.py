"""How close to retraining: paired differences, the attack's curves, and who gains or loses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from experiments.reporting import pictures
from experiments.reporting.run import TITLES, Cell, Run, interval, measured, number, reasons
from experiments.runs.results import CONTROLS, ORIGINAL, RETRAIN, by_seed, spread
from experiments.runs.table import DASH
from unlearning.evaluation.attack_roc import mean_found, null_band
from unlearning.evaluation.scorecard import (
    ACCURACY_MARGIN,
    MARGINS,
    bounded,
    closeness,
    summarise,
)
from unlearning.evaluation.tally import Tally, accuracy_change, remaining_clients

__all__ = ["Attack", "Change", "Changes", "Differences", "attack", "changes", "differences"]

_MOST_SINGLE = 5  # seeds whose own curves are drawn; of more, only their mean can be read
_MOST_CELLS = 4000  # numbers of all maps together; beyond, the page shows the clients' totals alone
_Z = 1.96  # half width of a 95 % band, in standard errors


@dataclass(frozen=True)
class Line:
    """A strategy's line of a table."""

    strategy: str
    control: bool
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Differences:
    """Paired differences to the retrained model, each beside the margin declared for it."""

    titles: tuple[str, ...]
    margins: tuple[float, ...]
    lines: tuple[Line, ...]
    reasons: tuple[str, ...]
    picture: str | None


def differences(run: Run) -> Differences | None:
    """Return the differences of every strategy to retraining, None without a retrained model."""
    others = [name for name in run.strategies if name != RETRAIN]
    shown = [name for name in MARGINS if any(run.to_retrain(other, name) for other in others)]
    if not run.has_reference or not shown:
        return None
    lines = tuple(
        Line(name, name in CONTROLS, tuple(_difference(run, name, metric) for metric in shown))
        for name in others
    )
    titles = tuple(TITLES[name] for name in shown)
    panels = {
        title: [
            pictures.Gap(line.strategy, cell.value, cell.low, cell.high, line.control)
            for line in lines
            if (cell := line.cells[i]).value is not None
        ]
        for i, title in enumerate(titles)
    }
    margins = tuple(MARGINS[name] for name in shown)
    return Differences(
        titles,
        margins,
        lines,
        tuple(reasons(titles, [line.cells for line in lines])),
        pictures.differences(panels, dict(zip(titles, margins, strict=True))),
    )


def _difference(run: Run, strategy: str, name: str) -> Cell:
    found = run.to_retrain(strategy, name)
    where = closeness(found, MARGINS[name])
    if where is None:
        return Cell(DASH, why="not measured for both models")
    spread = bounded(summarise(found), -1.0, 1.0)  # of two shares
    return measured(spread, "", below=str(where), sign=True)


# --- the attack ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Attack:
    """The membership attack on every model: area, and the band of an attack that finds nothing."""

    lines: tuple[Line, ...]  # area; band of one seed; seeds within it
    members: tuple[int, int]
    non_members: tuple[int, int]
    curves: tuple[dict[str, object], ...]
    picture: str | None


def attack(run: Run) -> Attack | None:
    """Return what the attack found, None if no run of it was recorded."""
    measured_on = [name for name in run.strategies if spread(run.rows, name, "mia_auc")]
    if not measured_on:
        return None
    curves = [curve for name in measured_on if (curve := _curves(run, name))]
    sizes = [(one.members, one.non_members) for one in run.details.rocs] or [(0, 0)]
    members, non_members = zip(*sizes, strict=True)
    return Attack(
        tuple(_attacked(run, name) for name in measured_on),
        (min(members), max(members)),
        (min(non_members), max(non_members)),
        tuple(
            {"strategy": c.strategy, "fpr": c.fpr.tolist(), "tpr": c.tpr.tolist()} for c in curves
        ),
        pictures.attack(curves),
    )


def _attacked(run: Run, strategy: str) -> Line:
    errors = {
        extra.seed: extra.mia_null_se for extra in run.details.extra if extra.strategy == strategy
    }
    areas = by_seed(run.rows, strategy, "mia_auc")
    pairs = [
        (area, error)
        for seed, area in areas.items()
        if area is not None and (error := errors.get(seed)) is not None
    ]
    area = measured(spread(run.rows, strategy, "mia_auc"), "")
    if not pairs:
        missing = Cell(DASH, why="the size of the sets was not recorded")
        return Line(strategy, strategy in CONTROLS, (area, missing, missing))
    half = _Z * max(error for _, error in pairs)
    within = sum(abs(value - 0.5) <= _Z * error for value, error in pairs)
    band = Cell(interval(0.5 - half, 0.5 + half), value=half, low=0.5 - half, high=0.5 + half)
    inside = Cell(f"{within} of {len(pairs)}", value=within / len(pairs), n=len(pairs))
    return Line(strategy, strategy in CONTROLS, (area, band, inside))


def _curves(run: Run, strategy: str) -> pictures.Curves | None:
    found = run.rocs(strategy)
    if not found:
        return None
    shares, mean, _, _ = mean_found(found)
    widest = min(found, key=lambda curve: (curve.members, curve.non_members))
    area = spread(run.rows, strategy, "mia_auc")
    single = [(np.array(curve.fpr), np.array(curve.tpr)) for curve in found]
    return pictures.Curves(
        strategy,
        "" if area is None else f"AUC {number(area.mean)}",
        shares,
        mean,
        single if 1 < len(single) <= _MOST_SINGLE else (),
        null_band(widest.members, widest.non_members),
    )


# --- who gains and who loses ---------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """Change in accuracy from the original model to a strategy's, means over seeds.

    ``cells`` (clients by columns) and ``of_clients`` are over the clients' own data that stay,
    ``on_test`` over the test data; None where there is no example.
    """

    strategy: str
    cells: tuple[tuple[float | None, ...], ...]
    of_clients: tuple[float | None, ...]
    on_test: tuple[float | None, ...]


@dataclass(frozen=True)
class Changes:
    """Who gains and who loses."""

    by: str
    clients: tuple[str, ...]
    columns: tuple[str, ...]
    test_columns: tuple[str, ...]
    changes: tuple[Change, ...]
    titles: tuple[str, ...]
    lines: tuple[Line, ...]  # worst remaining client and more, against retraining
    reasons: tuple[str, ...]
    margin: float
    in_full: bool  # whether a page can hold every cell as a number
    picture: str | None


_REMAINING = (
    "Worst remaining client",
    "Its difference to retraining",
    "SD over clients",
    "Share of clients that lose",
)


def changes(run: Run) -> Changes | None:
    """Return who gains and who loses, None if the run did not count it."""
    before = run.tallies(ORIGINAL)
    shape = _shape(list(before.values())[:1])
    others = [name for name in run.strategies if name != ORIGINAL]
    drawn, found = [], []
    for name in others:
        after = run.tallies(name)
        seeds = [s for s in sorted(before.keys() & after.keys()) if _shape([before[s]]) == shape]
        seeds = [seed for seed in seeds if _shape([after[seed]]) == shape]
        if not seeds:
            continue
        cells, rows, test = accuracy_change(
            [after[seed] for seed in seeds], [before[seed] for seed in seeds]
        )
        drawn.append(pictures.Change(name, cells, rows, test))
        found.append(Change(name, tuple(map(_plain, cells)), _plain(rows), _plain(test)))
    if not drawn:
        return None
    first = next(iter(before.values()))
    clients = tuple(map(str, first.clients))
    lines = tuple(
        Line(name, name in CONTROLS, _remaining(run, name))
        for name in run.strategies
        if name != RETRAIN and run.has_reference
    )
    return Changes(
        first.by,
        clients,
        first.columns,
        first.test_columns,
        tuple(found),
        _REMAINING,
        lines,
        tuple(reasons(_REMAINING, [line.cells for line in lines])),
        ACCURACY_MARGIN,
        len(drawn) * drawn[0].cells.size <= _MOST_CELLS,
        pictures.change_map(drawn, clients, first.columns, by=first.by),
    )


def _shape(found: Sequence[Tally]) -> list[tuple[object, ...]]:
    return [(one.clients, one.columns, one.test_columns) for one in found]


def _plain(values: Sequence[float] | np.ndarray) -> tuple[float | None, ...]:
    return tuple(float(value) if np.isfinite(value) else None for value in values)


def _remaining(run: Run, strategy: str) -> tuple[Cell, ...]:
    ours, reference = run.tallies(strategy), run.tallies(RETRAIN)
    found = [
        one
        for seed in sorted(ours.keys() & reference.keys())
        if (one := remaining_clients(ours[seed], reference[seed], ACCURACY_MARGIN))
    ]
    if not found:
        why = "no retrained model with the same clients"
        return (Cell(DASH, why=why),) * len(_REMAINING)
    often = Counter(one.client for one in found)
    names = ", ".join(
        f"{client}" if count == len(found) else f"{client} ({count} of {len(found)} seeds)"
        for client, count in sorted(often.items(), key=lambda item: (-item[1], item[0]))
    )
    return (
        Cell(names, value=float(min(often))),
        measured(summarise([one.worst for one in found]), "", sign=True),
        measured(summarise([one.sd for one in found]), ""),
        measured(summarise([one.share for one in found]), ""),
    )
