"""The audit's findings, if the run folder holds one: cards, verdicts and the attack's curves.

Read leniently: whatever is missing from ``audit.json`` is shown as a dash, and what is unknown is
left aside, so that a report never fails for an audit of another version.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.reporting import pictures
from experiments.reporting.run import Cell, interval, number
from experiments.runs.record import ResultsError
from experiments.runs.table import DASH, significant

__all__ = ["AUDIT", "Audited", "Card", "Judged", "Measured", "audit"]

AUDIT = "audit.json"
_BAND_POINTS = 101
_TIED = "\N{NO-BREAK SPACE}"
_SMALL = 0.001  # a probability below it is told as that


@dataclass(frozen=True)
class Card:
    """The validity card of one metric, and what the metric is."""

    id: str
    title: str
    unit: str
    perfect: str
    source: str
    decides: bool
    passes: bool
    reason: str
    false_alarms: Cell
    separation: Cell
    dose: Cell

    @property
    def was_tried(self) -> bool:
        """Whether the controls put it to the test; what does not apply here did not fail."""
        return self.false_alarms.value is not None or self.separation.value is not None

    @property
    def verdict(self) -> str:
        """What the card says, in words."""
        if self.passes:
            return f"Passes{'; the verdict rests on it' if self.decides else ''}."
        lead = "Fails, and decides nothing" if self.was_tried else "Not applicable"
        return f"{lead}: {self.reason.rstrip('.')}."


@dataclass(frozen=True)
class Judged:
    """The verdict on one strategy or control."""

    strategy: str
    control: bool
    guarantee: str
    verdict: Cell
    why: str
    more_seeds: Cell


@dataclass(frozen=True)
class Measured:
    """One metric over all rows: value, calibrated score, Holm's p, equivalence."""

    card: Card
    lines: tuple[tuple[str, bool, tuple[Cell, ...]], ...]


@dataclass(frozen=True)
class Audited:
    """Everything of an audit that a report shows."""

    command: str
    asked: str
    facts: tuple[tuple[str, str], ...]
    exploratory: bool
    models_per_side: int | None
    margins: tuple[tuple[str, float], ...]
    cards: tuple[Card, ...]
    rows: tuple[Judged, ...]
    metrics: tuple[Measured, ...]
    curves: tuple[dict[str, Any], ...]
    picture: str | None


def audit(run_dir: Path) -> Audited | None:
    """Return what an audit left in the run folder, None if there was none.

    Raises
    ------
    ResultsError
        If ``audit.json`` cannot be read.
    """
    path = run_dir / AUDIT
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path} cannot be read ({error}); run the audit again") from error
    if not isinstance(found, dict):
        raise ResultsError(f"{path} holds no audit; run the audit again")
    return _audited(found)


def _audited(found: Mapping[str, Any]) -> Audited:
    rows = _objects(found.get("rows"))
    cards = tuple(_card(metric) for metric in _objects(found.get("metrics")))
    curves = _objects(found.get("roc"))
    return Audited(
        command=str(found.get("command") or ""),
        asked=_asked(_mapping(found.get("scenario"))),
        facts=tuple(_facts(found)),
        exploratory=bool(found.get("exploratory")),
        models_per_side=found.get("models_per_side"),
        margins=tuple((str(k), float(v)) for k, v in _mapping(found.get("margins")).items()),
        cards=cards,
        rows=tuple(_judged(row) for row in rows),
        metrics=tuple(
            Measured(
                card,
                tuple(
                    (str(row.get("strategy")), row.get("kind") == "control", _estimates(estimate))
                    for row in rows
                    if (estimate := _mapping(row.get("metrics")).get(card.id)) is not None
                ),
            )
            for card in cards
        ),
        curves=tuple(dict(one) for one in curves),
        picture=pictures.attack([curve for one in curves if (curve := _curve(one))]),
    )


def _objects(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value or () if isinstance(item, Mapping)]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _facts(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what the audit was made of, and what it cost."""
    scenario = _mapping(found.get("scenario"))
    facts = [(str(name).replace("_", " "), _plain(value)) for name, value in scenario.items()]
    for name, title, unit in (
        ("models_per_side", "models per side", ""),
        ("federations", "federations", ""),
        ("reused", "of these found in the store", ""),
        ("seconds", "wall time", " s"),
        ("cpu_seconds", "processor time", " s"),
        ("workers", "worker processes", ""),
    ):
        if isinstance(value := found.get(name), int | float):
            facts.append((title, f"{significant(value) if unit else f'{value:,}'}{unit}"))
    if isinstance(memory := found.get("peak_rss_bytes"), int | float):
        facts.append(("most memory", f"{memory / 1e6:,.0f} MB"))
    if found.get("key"):
        facts.append(("key of the store", str(found["key"])))
    return facts


def _asked(scenario: Mapping[str, Any]) -> str:
    """Return in words what was to be forgotten; empty if the audit does not say."""
    requests = scenario.get("requests")
    texts = requests if isinstance(requests, list | tuple) else [requests] if requests else []
    words = [str(one.get("text", "")) if isinstance(one, Mapping) else str(one) for one in texts]
    return " and ".join(filter(None, words))


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_plain(v)}" for k, v in value.items() if v is not None)
    if isinstance(value, list | tuple):
        return "; ".join(map(_plain, value))
    return DASH if value is None else str(value)


def _number(value: Any, why: str, low: Any = None, high: Any = None, **more: Any) -> Cell:
    if not isinstance(value, int | float):
        return Cell(DASH, why=why)
    words = interval(low, high) if all(isinstance(v, int | float) for v in (low, high)) else ""
    return Cell(number(value), interval=words, value=value, low=low, high=high, **more)


def _probability(value: Any) -> Cell:
    cell = _number(value, "no test applies")
    small = cell.value is not None and cell.value < _SMALL
    return replace(cell, text=f"< {_SMALL}") if small else cell


def _card(metric: Mapping[str, Any]) -> Card:
    card = _mapping(metric.get("card"))
    missing = "could not be checked here"
    dose = card.get("dose") or ()
    steps = ", ".join(
        f"{share:g}{_TIED}%:{_TIED}{number(value)}"
        for share, value in (step for step in dose if len(step) == 2)
        if isinstance(share, int | float)
    )
    return Card(
        id=str(metric.get("id")),
        title=str(metric.get("title") or metric.get("name") or metric.get("id")),
        unit=str(metric.get("unit") or ""),
        perfect=str(metric.get("perfect") if metric.get("perfect") is not None else ""),
        source=str(metric.get("source") or ""),
        decides=bool(metric.get("decides")),
        passes=bool(card.get("passes")),
        reason=str(card.get("reason") or ("" if card.get("passes") else "no reason was given")),
        false_alarms=_number(
            card.get("false_alarm_rate"),
            missing,
            card.get("false_alarm_low"),
            card.get("false_alarm_high"),
        ),
        separation=_number(card.get("separation_auc"), missing),
        dose=_number(card.get("dose_spearman"), missing, below=steps),
    )


def _judged(row: Mapping[str, Any]) -> Judged:
    why = str(row.get("why") or "")
    verdict, more = row.get("verdict"), row.get("more_seeds")
    return Judged(
        strategy=str(row.get("strategy")),
        control=row.get("kind") == "control",
        guarantee=str(row.get("guarantee") or "none"),
        verdict=Cell(str(verdict)) if verdict else Cell(DASH, why=why or "no verdict was given"),
        why=why,
        more_seeds=Cell(f"{more}", value=more)
        if isinstance(more, int)
        else Cell(DASH, why="settled, or not known"),
    )


def _estimates(estimate: Any) -> tuple[Cell, ...]:
    found = _mapping(estimate)
    n = found.get("n")
    equal = found.get("equivalent")
    words = {True: "yes", False: "not shown", None: DASH}
    return (
        _number(found.get("value"), "not measured", found.get("low"), found.get("high"), n=n),
        _number(
            found.get("calibrated"),
            "the metric does not tell retrained from original",
            found.get("calibrated_low"),
            found.get("calibrated_high"),
        ),
        _probability(found.get("p_holm")),
        Cell(words.get(equal, DASH), why="" if equal is not None else "no margin, or not tested"),
    )


def _curve(found: Mapping[str, Any]) -> pictures.Curves | None:
    fpr, tpr = found.get("fpr"), found.get("tpr")
    if not fpr or not tpr or len(fpr) != len(tpr):
        return None
    area = found.get("auc")
    title = f"AUC {number(area)}" if isinstance(area, int | float) else ""
    band = _band(found.get("null_low"), found.get("null_high"))
    return pictures.Curves(
        str(found.get("strategy")), title, np.array(fpr), np.array(tpr), band=band, steps=False
    )


def _band(low: Any, high: Any) -> tuple[np.ndarray, ...] | None:
    """Return the curves of two normal scores whose areas are the ends of the null band.

    An area alone leaves the curve open; of equal spread, ROC(t) = Phi(Phi^-1(t) + d) has the area
    Phi(d / sqrt 2).
    """
    areas: Sequence[Any] = (low, high)
    if not all(isinstance(area, int | float) and 0 < area < 1 for area in areas):
        return None
    from scipy.special import ndtr, ndtri  # not scipy.stats, a second to import

    shares = np.linspace(0, 1, _BAND_POINTS)
    with np.errstate(invalid="ignore"):
        ends = [ndtr(ndtri(shares) + np.sqrt(2) * ndtri(area)) for area in areas]
    return (shares, *ends)
