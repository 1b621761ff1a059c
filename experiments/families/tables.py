"""The tables of the pages over several runs: a scenario's, the families', and all at one glance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from experiments.families import sparks
from experiments.families.claims import Interval, balanced, interval
from experiments.families.kin import CONTROL, FAMILIES, family_of, in_order, title
from experiments.families.measures import Cell, Finished, scopes_of
from experiments.runs.results import ORIGINAL, RETRAIN
from experiments.runs.table import DASH, significant
from unlearning.evaluation.scorecard import judge_marker

__all__ = ["COLUMNS", "Shown", "by_family", "number", "overview", "scenario", "shown"]

_MINUS = "\N{MINUS SIGN}"
_MEGABYTE = 1e6
_NEVER = 1e9  # rounds: sorted after every number, before what was not measured
COLUMNS = (  # measure, title, unit below it
    ("drop", "Drop", "of test accuracy"),
    ("rounds_back", "Back after", "rounds"),
    ("end_gap", "Test accuracy", "to retraining"),
    ("gap", "Average gap", "to retraining"),
    ("share_examples", "Examples", "of retraining"),
    ("share_wall_s", "Wall time", "of retraining"),
    ("share_bytes", "Traffic", "of retraining"),
    ("unlearn_client_rounds", "Clients asked", "to unlearn"),
    ("history_bytes", "History read", "MB"),
)


@dataclass(frozen=True)
class Shown:
    """A table cell: the mean, its interval below, a picture, why there is no number; to sort by."""

    text: str
    below: str = ""
    picture: Markup | str = ""
    why: str = ""
    value: float | None = None


@dataclass(frozen=True)
class Line:
    """A strategy in the table of one scenario."""

    strategy: str
    family: str
    guarantee: str
    control: bool
    course: Markup | str
    cells: tuple[Shown, ...]
    marker: Shown


def number(value: float | None, decimals: int | None = 3, *, sign: bool = False) -> str:
    """Return a number as the pages write it; a dash for None."""
    if value is None:
        return DASH
    if decimals is None:
        return significant(value).replace("-", _MINUS)
    text = f"{value:{'+' if sign else ''},.{decimals}f}"
    if float(text.replace(",", "")) == 0:  # no sign on what rounds to zero
        text = f"{0:.{decimals}f}"
    return text.replace("-", _MINUS)


def shown(found: Interval, decimals: int | None = 3, *, sign: bool = False) -> str:
    """Return ``mean [low, high]``; the mean alone where there is no interval to be seen."""
    mean = number(found.mean, decimals, sign=sign)
    if found.low is None or found.high is None:
        return mean
    low, high = (number(edge, decimals, sign=sign) for edge in (found.low, found.high))
    return mean if low == mean == high else f"{mean} [{low}, {high}]"


def scenario(run: Finished) -> dict[str, Any]:
    """Return what the page tells of one scenario: its facts, and a line per strategy."""
    longest = max((c.rounds[-1] for c in run.courses.values() if c.rounds), default=1)
    widest = max(
        (i.high or i.mean for n in run.strategies if (i := _interval(run.cell(n, "gap")))),
        default=1.0,
    )
    names = [name for name in run.strategies if name != ORIGINAL]
    controls = [name for name in names if family_of(name) == CONTROL or name == RETRAIN]
    order = [*controls, *in_order(name for name in names if name not in controls)]
    original = _interval(run.cell(ORIGINAL, "end"))
    retrained = _interval(run.cell(RETRAIN, "end"))
    return {
        "name": run.name,
        "asked": run.asked,
        "clients": run.clients,
        "data": run.data,
        "model": run.model,
        "partition": run.partition,
        "seeds": len(run.seeds),
        "original": shown(original) if original else "",
        "retrained": shown(retrained) if retrained else "",
        "lines": [_line(run, name, longest, widest) for name in order],
        "refused": [(name, why) for name, why in run.refused.items()],
    }


def _line(run: Finished, name: str, longest: int, widest: float) -> Line:
    return Line(
        strategy=name,
        family=family_of(name),
        guarantee=next(line.guarantee for line in run.lines if line.strategy == name),
        control=family_of(name) == CONTROL or name == RETRAIN,
        course=_course(run, name, longest),
        cells=tuple(_cell(run, name, measure, widest) for measure, *_ in COLUMNS),
        marker=_marker(run, name),
    )


def _interval(cell: Cell) -> Interval | None:
    return interval(cell.values) if cell.values else None


def _course(run: Finished, name: str, longest: int) -> Markup | str:
    start, found = run.courses.get(ORIGINAL), run.courses.get(name)
    if start is None or found is None or not found.rounds:
        return ""
    drop = _interval(run.cell(name, "drop"))
    return sparks.course(
        found.rounds,
        found.accuracy,
        before=start.accuracy[0],
        level=run.level,
        unlearned=found.unlearned,
        longest=longest,
        text=f"test accuracy of {name} over {found.rounds[-1]} rounds after the request"
        + (f", drop {number(drop.mean)}" if drop else ""),
    )


def _cell(run: Finished, name: str, measure: str, widest: float) -> Shown:
    cell = run.cell(name, measure)
    if measure == "rounds_back":
        return _rounds_back(run, name)
    found = _interval(cell)
    if found is None:
        is_own = name == RETRAIN and measure in ("gap", "end_gap")
        return Shown(DASH, why="it is the reference itself" if is_own else "not measured")
    if measure == "history_bytes":
        text = significant(found.mean / _MEGABYTE) if found.mean else "0"
        return Shown(text, value=found.mean)
    if measure == "unlearn_client_rounds":
        return Shown(number(found.mean, 0), value=found.mean)
    decimals = 2 if measure.startswith("share_") else 3
    picture: Markup | str = ""
    if measure == "gap":
        text = f"average gap {shown(found)}"
        picture = sparks.strip(
            found.mean, found.low, found.high, start=0.0, end=max(widest, 0.01), text=text
        )
    signed = measure == "end_gap"
    mean, _, bounds = shown(found, decimals, sign=signed).partition(" [")
    return Shown(mean, f"[{bounds}" if bounds else "", picture, value=found.mean)


def _rounds_back(run: Finished, name: str) -> Shown:
    """Return when the model was back; seeds in which it was not are said to be so."""
    own = [line.numbers for line in run.lines if line.strategy == name]
    looked_at = [numbers for numbers in own if numbers["budget"] is not None]
    if not looked_at:
        return Shown(DASH, why="the course after the request was not recorded")
    budget = max(int(numbers["budget"] or 0) for numbers in looked_at)
    back = [value for numbers in looked_at if (value := numbers["rounds_back"]) is not None]
    lost = len(looked_at) - len(back)
    if not back:
        return Shown(f"not within {budget}", value=_NEVER)
    mean = sum(back) / len(back)
    text = number(mean, 1).removesuffix(".0")
    spread = f"{min(back):.0f} to {max(back):.0f}" if min(back) != max(back) else ""
    if lost:
        return Shown(f"{text} of {budget}", f"in {lost} of {len(looked_at)} not", value=mean)
    return Shown(f"{text} of {budget}", spread, value=mean)


def _marker(run: Finished, name: str) -> Shown:
    if name == RETRAIN:
        return Shown("reference")
    verdict = judge_marker(run.marker_before, run.cell(name, "marker_gap").values)
    if verdict is not None:
        return Shown(str(verdict))
    why = "the marker has no power" if run.marker_before else "no backdoor was planted"
    return Shown(DASH, why=why)


def by_family(runs: Sequence[Finished]) -> list[dict[str, Any]]:
    """Return, scope by scope, a row per family: means over its strategies and scenarios."""
    found = []
    for scope in scopes_of(runs):
        own = [run for run in runs if run.scope == scope]
        for family in FAMILIES:
            pairs = [
                (run, name)
                for run in own
                for name in run.strategies
                if family_of(name) == family and name != RETRAIN
            ]
            if pairs:
                cells = [_family_cell(pairs, measure) for measure, *_ in COLUMNS]
                names = in_order(dict.fromkeys(name for _, name in pairs))
                found.append(
                    {
                        "scope": scope,
                        "title": title(family),
                        "names": names,
                        "scenarios": len({run.name for run, _ in pairs}),
                        "cells": cells,
                    }
                )
    return found


def _family_cell(pairs: Sequence[tuple[Finished, str]], measure: str) -> Shown:
    """Return one number of a family, averaged seed by seed over its strategies and scenarios."""
    if measure == "rounds_back":
        own = [x.numbers for run, name in pairs for x in run.lines if x.strategy == name]
        looked_at = [numbers for numbers in own if numbers["budget"] is not None]
        back = [value for numbers in looked_at if (value := numbers["rounds_back"]) is not None]
        if not back:
            return Shown(
                DASH if not looked_at else "never", why="" if looked_at else "not recorded"
            )
        lost = len(looked_at) - len(back)
        below = f"in {lost} of {len(looked_at)} not" if lost else ""
        return Shown(number(sum(back) / len(back), 1), below)
    cells = [run.cell(name, measure).by_seed for run, name in pairs]
    values = balanced([{s: v for s, v in cell.items() if v is not None} for cell in cells])
    if not values:
        return Shown(DASH, why="not measured")
    found = interval(values)
    if measure == "history_bytes":
        return Shown(significant(found.mean / _MEGABYTE) if found.mean else "0")
    decimals = 0 if measure == "unlearn_client_rounds" else 2 if "share" in measure else 3
    mean, _, bounds = shown(found, decimals, sign=measure == "end_gap").partition(" [")
    return Shown(mean, f"[{bounds}" if bounds else "")


def overview(runs: Sequence[Finished], answered: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row per strategy, a cell per run: its average gap, or why there is none."""
    rows = []
    for name in answered:
        if name == RETRAIN or not any(name in run.strategies for run in runs):
            continue
        cells = []
        for run in runs:
            found = _interval(run.cell(name, "gap"))
            why = "refused" if name in run.refused else "not among its strategies"
            cells.append(
                Shown(DASH, why=why) if found is None else Shown(number(found.mean), _bounds(found))
            )
        rows.append({"name": name, "family": family_of(name), "cells": cells})
    return rows


def _bounds(found: Interval) -> str:
    return shown(found).partition(" ")[2]
