"""One self-contained page per run: what was forgotten, at what cost, and how far the claim goes.

Reads ``results.json``, ``details.json`` and ``ledger.sqlite`` of the run folder and nothing else.
This module chooses the words and rounds the numbers; statistics and verdicts come from
:mod:`unlearning.scorecard`, what a page looks like stands in
:mod:`experiments.page`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import tomli_w
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from experiments import timeline
from experiments.page import TEMPLATE
from experiments.results import (
    CONTROLS,
    DASH,
    FINE_TUNE,
    ORIGINAL,
    RETRAIN,
    Details,
    Row,
    by_seed,
    read_details,
    read_results,
    spread,
    strategies,
    with_sd,
)
from unlearning.errors import FedUnlearnError
from unlearning.files import write_atomically
from unlearning.ledger import Event, Ledger
from unlearning.request import Request
from unlearning.scorecard import (
    MARKER_MARGIN,
    MARKER_POWER,
    METRICS,
    Verdict,
    average_gap,
    improves,
    judge_marker,
    paired_differences,
    summarise,
)

__all__ = ["render"]

_TITLES = {
    "retain_accuracy": "Retain accuracy",
    "forget_accuracy": "Forget accuracy",
    "test_accuracy": "Test accuracy",
    "mia_auc": "MIA AUC",
    "backdoor_success": "Backdoor success",
    "prediction_distance": "Prediction distance",
}
_WORK = (  # name, title, unit
    ("wall_s", "Wall time", "s"),
    ("client_rounds", "Client rounds", ""),
    ("client_s", "Client time", "s"),
    ("examples", "Examples processed", ""),
    ("bytes_up", "Up", "MB"),
    ("bytes_down", "Down", "MB"),
)
_COUNTS = ("client_rounds", "examples")
_MEGABYTE = 1e6
_MINUS = "\N{MINUS SIGN}"
_SHORT = 12  # characters of a digest that are shown
_SHOWN_REQUESTS = 3
_LONG_LEDGER = 30  # events beyond which the table is folded


@dataclass(frozen=True)
class _Cell:
    """A table cell: a number in words, what stands below it, and why there is none."""

    text: str
    below: str = ""
    why: str = ""


@dataclass(frozen=True)
class _Line:
    strategy: str
    guarantee: str
    control: bool
    cells: tuple[_Cell, ...]
    seeds: str = ""
    verdict: _Cell = field(default_factory=lambda: _Cell(""))


@dataclass(frozen=True)
class _Finding:
    lead: str
    text: str


@dataclass(frozen=True)
class _Work:
    """One line of the cost table; ``span`` lines belong to the strategy, 0: not its first."""

    strategy: str
    span: int
    phase: str
    cells: tuple[_Cell, ...]


class _Run:
    """What a run left behind, with the comparisons that several parts of the page need."""

    def __init__(self, rows: Sequence[Row], details: Details) -> None:
        self.rows, self.details = tuple(rows), details
        self.strategies = strategies(rows)
        self.answers = tuple(name for name in self.strategies if name not in CONTROLS)
        self.seeds = tuple(sorted({row.seed for row in rows}))
        self.guarantees = {row.strategy: row.guarantee or "none" for row in rows}
        kind = (details.marker or {}).get("kind", "")
        self.has_backdoor = kind == "backdoor"
        measured = by_seed(rows, ORIGINAL, "backdoor_success").values()
        self.marker_before = [value for value in measured if value is not None]

    @property
    def has_power(self) -> bool:
        """Whether the marker can tell forgetting from not having learned."""
        return bool(self.marker_before) and summarise(self.marker_before).mean >= MARKER_POWER

    def gaps(self, strategy: str) -> dict[int, float | None]:
        """Return the average gap to the retrained model of the same seed."""
        cards = {row.seed: row.metrics for row in self.rows if row.strategy == RETRAIN}
        return {
            row.seed: average_gap(row.metrics, cards[row.seed])
            for row in self.rows
            if row.strategy == strategy and row.seed in cards
        }

    def to_retrain(self, strategy: str, name: str) -> list[float]:
        """Return the differences to the retrained model in one number, paired by seed."""
        ours = by_seed(self.rows, strategy, name)
        return paired_differences(ours, by_seed(self.rows, RETRAIN, name))

    def verdict(self, strategy: str) -> Verdict | None:
        """Return what the marker says about a strategy; None: no verdict may be given."""
        return judge_marker(self.marker_before, self.to_retrain(strategy, "backdoor_success"))

    def against_fine_tune(self, strategy: str) -> list[float]:
        """Return the differences of the average gap to that of fine-tuning, paired by seed."""
        return paired_differences(self.gaps(strategy), self.gaps(FINE_TUNE))


def _number(value: float | None, decimals: int = 3, *, sign: bool = False) -> str:
    if value is None:
        return DASH
    text = f"{value:{'+' if sign else ''},.{decimals}f}"
    if float(text.replace(",", "")) == 0:  # no sign on what rounds to zero
        text = f"{0:.{decimals}f}"
    return text.replace("-", _MINUS)


def _mean(values: Sequence[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return summarise(found).mean if found else None


# --- the scorecard -------------------------------------------------------------------------------


def _why_not(run: _Run, strategy: str, name: str) -> str:
    """Return why a number of the scorecard was not measured."""
    if name == "prediction_distance" and RETRAIN not in run.strategies:
        return "no retrained model to compare with"
    if name == "backdoor_success" and not run.has_backdoor:
        return "no backdoor was planted in this run"
    if name == "backdoor_success":
        return "no test example with the trigger has another true label"
    if name in ("mia_auc", "prediction_distance"):
        return "the forget set or the held-out set is empty"
    return f"the {name.removesuffix('_accuracy')} set is empty for {strategy}"


def _metric(run: _Run, strategy: str, name: str) -> _Cell:
    found = spread(run.rows, strategy, name)
    if found is None:
        return _Cell(DASH, why=_why_not(run, strategy, name))
    is_compared = strategy != RETRAIN and name != "prediction_distance"
    gap = _mean(run.to_retrain(strategy, name)) if is_compared else None
    return _Cell(with_sd(found, 3), "" if gap is None else _number(gap, sign=True))


def _gap(run: _Run, strategy: str) -> _Cell:
    gaps = [value for value in run.gaps(strategy).values() if value is not None]
    if not gaps:
        return _Cell(DASH, why="no retrained model to compare with")
    return _Cell(with_sd(summarise(gaps), 3))


def _verdict_cell(run: _Run, strategy: str) -> _Cell:
    if strategy in (ORIGINAL, RETRAIN):
        return _Cell("before" if strategy == ORIGINAL else "reference")
    verdict = run.verdict(strategy)
    if verdict is not None:
        below = "one seed" if len(run.seeds) == 1 else ""
        return _Cell(verdict.value, below if verdict is Verdict.INCONCLUSIVE else "")
    if not run.marker_before:
        return _Cell(DASH, why="no verdict without a planted backdoor")
    if not run.has_power:
        return _Cell(DASH, why="no verdict: the marker has no power")
    return _Cell(DASH, why="no retrained model to compare with, or not measured")


def _scorecard(run: _Run) -> list[_Line]:
    lines = []
    for name in run.strategies:
        found = len({row.seed for row in run.rows if row.strategy == name})
        lines.append(
            _Line(
                strategy=name,
                guarantee=run.guarantees[name],
                control=name in CONTROLS,
                cells=(*(_metric(run, name, metric) for metric in METRICS), _gap(run, name)),
                seeds="" if found == len(run.seeds) else f"{found} of {len(run.seeds)} seeds",
                verdict=_verdict_cell(run, name),
            )
        )
    return lines


def _reasons(titles: Sequence[str], cells: Sequence[Sequence[_Cell]]) -> list[str]:
    """Return why dashes stand in a table, column by column, for those who cannot hover."""
    found = dict.fromkeys(
        f"{title}: {cell.why}"
        for line in cells
        for title, cell in zip(titles, line, strict=True)
        if cell.why
    )
    return list(found)


# --- what was found, and what limits it ----------------------------------------------------------


def _times_fewer(run: _Run, strategy: str) -> str:
    """Return the cost beside retraining's, in words; empty if not both were measured."""
    ours, base = (spread(run.rows, name, "examples") for name in (strategy, RETRAIN))
    if ours is None or base is None:
        return ""
    if not ours.mean:
        return f"no example processed in place of {base.mean:,.0f} for retraining"
    text = f"{ours.mean:,.0f} examples processed in place of {base.mean:,.0f} for retraining"
    faster = spread(run.rows, strategy, "speedup_examples")
    return text if faster is None else f"{text}, a speed-up of {with_sd(faster)}"


def _answer_finding(run: _Run, strategy: str) -> _Finding:
    verdict = run.verdict(strategy)
    lead = f"{strategy} ({run.guarantees[strategy]}{f', marker {verdict}' if verdict else ''})"
    parts = []
    for name, words in (
        ("backdoor_success", "backdoor success"),
        ("forget_accuracy", "forget accuracy"),
        ("test_accuracy", "test accuracy"),
    ):
        found = spread(run.rows, strategy, name)
        if found is None:
            continue
        differences = run.to_retrain(strategy, name)
        gap = f" ({_number(_mean(differences), sign=True)} to retraining)" if differences else ""
        parts.append(f"{words} {_number(found.mean)}{gap}")
    if cost := _times_fewer(run, strategy):
        parts.append(cost)
    return _Finding(lead, "; ".join(parts) + ".")


def _findings(run: _Run) -> list[_Finding]:
    found = []
    before = spread(run.rows, ORIGINAL, "backdoor_success")
    reference = spread(run.rows, RETRAIN, "backdoor_success")
    if before is not None and run.has_power:
        text = (
            f"the original model takes a share of {_number(before.mean)} of the test examples with "
            "the trigger for the attacker's label"
        )
        if reference is not None:
            text += f"; the model retrained without the data, {_number(reference.mean)}"
        found.append(_Finding("The marker has power", f"{text}."))
    found.extend(_answer_finding(run, name) for name in run.answers)
    if FINE_TUNE in run.strategies:
        control = _answer_finding(run, FINE_TUNE)
        found.append(_Finding("fine-tune, the control that every answer must beat", control.text))
    gaps = {name: _mean(list(run.gaps(name).values())) for name in run.answers}
    measured = {name: gap for name, gap in gaps.items() if gap is not None}
    if len(measured) > 1:
        best = min(measured, key=lambda name: measured[name])
        text = f"{best}, with an average gap of {_number(measured[best])}."
        found.append(_Finding("Closest to retraining", text))
    return found


def _marker_warnings(run: _Run) -> list[str]:
    if run.marker_before and not run.has_power:
        return [
            "The marker has no power: backdoor success of the original model is "
            f"{_number(summarise(run.marker_before).mean, 2)}, below {MARKER_POWER:.2f}. It cannot "
            "tell a model that forgot from one that never learned, so no verdict is given."
        ]
    if not run.marker_before:
        return [
            "No backdoor was planted, so no verdict is given: on easy data accuracy and the "
            "membership attack can hardly tell a model that did nothing from a retrained one."
        ]
    return []


def _warnings(run: _Run) -> list[str]:
    """Return what limits the claims of this run, the gravest first."""
    found = _marker_warnings(run)
    if RETRAIN not in run.strategies:
        found.append(
            "No retrained model: how much was forgotten cannot be said without one. "
            "The command fedunlearn compare makes one."
        )
    for name in run.answers:
        ours, theirs = (_mean(list(run.gaps(n).values())) for n in (name, FINE_TUNE))
        differences = run.against_fine_tune(name)
        if not differences or improves(differences):
            continue
        pair = f"average gap {_number(ours)} against {_number(theirs)}"
        found.append(
            f"{name} is not better than fine-tuning alone ({pair})."
            if improves(differences) is False
            else f"{name} is not shown to be better than fine-tuning alone: its lead ({pair}) is "
            "within the spread over seeds."
        )
    if len(run.seeds) == 1:
        found.append(
            "One seed is an observation, not a finding: no interval can be given. "
            "Repeat with --seeds 0,1,2,3,4."
        )
    errors = [e.mia_null_se for e in run.details.extra if e.strategy == ORIGINAL]
    noise, before = _mean(errors), spread(run.rows, ORIGINAL, "mia_auc")
    if noise is not None and before is not None and abs(before.mean - 0.5) < 2 * noise:
        found.append(
            f"The membership attack tells nothing here: its AUC on the original model, "
            f"{_number(before.mean)}, is within two standard errors of chance (±"
            f"{_number(2 * noise)})."
        )
    return found


# --- cost ----------------------------------------------------------------------------------------


def _amount(run: _Run, strategy: str, phase: str, name: str) -> _Cell:
    """Return one cost of one phase (``total``: of the row), over the seeds."""
    if phase == "total":
        values = list(by_seed(run.rows, strategy, name).values())
    else:
        works = [getattr(p, phase) for p in run.details.phases if p.strategy == strategy]
        values = [getattr(work, name) for work in works]
    found = [value for value in values if value is not None]
    if not found:
        return _Cell(DASH, why="not recorded by this run")
    scaled = [value / _MEGABYTE for value in found] if name.endswith(("up", "down")) else found
    return _Cell(with_sd(summarise(scaled), 0 if name in _COUNTS else None))


def _beside(run: _Run, strategy: str, name: str) -> _Cell:
    """Return history or a speed-up: numbers of a row as a whole."""
    found = [value for value in by_seed(run.rows, strategy, name).values() if value is not None]
    if found:
        scaled = [value / _MEGABYTE for value in found] if name == "history_bytes" else found
        return _Cell(with_sd(summarise(scaled)))
    if name == "history_bytes":
        return _Cell(DASH, why="not recorded by this run")
    if strategy == ORIGINAL:
        return _Cell(DASH, why="the original model answered no request")
    if RETRAIN not in run.strategies:
        return _Cell(DASH, why="no retrained model to compare with")
    return _Cell(DASH, why="nothing was spent, or it was not measured")


def _cost(run: _Run) -> list[_Work]:
    split = {phases.strategy for phases in run.details.phases}
    lines = []
    for strategy in run.strategies:
        phases = ["unlearn", "recover", "total"] if strategy in split else ["total"]
        for i, phase in enumerate(phases):
            cells = [_amount(run, strategy, phase, name) for name, *_ in _WORK]
            if phase == "total":
                names = ("history_bytes", "speedup_wall", "speedup_examples")
                cells += [_beside(run, strategy, name) for name in names]
            words = "learn" if strategy == ORIGINAL else phase
            lines.append(_Work(strategy, len(phases) if i == 0 else 0, words, tuple(cells)))
    return lines


def _trade_off(run: _Run) -> str | None:
    """Return the picture of gap against cost, by examples or else by wall time."""
    names = [name for name in run.strategies if name != ORIGINAL]
    for cost, label in (
        ("examples", "examples processed, unlearning and recovery together"),
        ("wall_s", "wall time, unlearning and recovery together (s)"),
    ):
        trades = []
        for name in names:
            spent = spread(run.rows, name, cost)
            gaps = [value for value in run.gaps(name).values() if value is not None]
            if spent is not None and gaps:
                gap = summarise(gaps)
                trades.append(
                    timeline.Trade(name, spent.mean, gap.mean, gap.sd, control=name in CONTROLS)
                )
        if len(trades) > 1:
            untouched = _mean(list(run.gaps(ORIGINAL).values()))
            return timeline.trade_off(trades, cost_label=label, untouched=untouched)
    return None


# --- ledger, configuration, and the page ---------------------------------------------------------


def _picture(svg: str | None, prefix: str, words: str) -> Markup | None:
    return None if svg is None else Markup(timeline.inline(svg, prefix, escape(words)))


def _flat(facts: Mapping[str, object], before: str = "") -> list[tuple[str, str]]:
    """Return nested facts as pairs of a dotted name and a short text."""
    pairs: list[tuple[str, str]] = []
    for name, value in facts.items():
        if isinstance(value, Mapping):
            pairs.extend(_flat(value, f"{before}{name}."))
        elif isinstance(value, float):
            pairs.append((f"{before}{name}", _number(value)))
        elif value is not None:
            pairs.append((f"{before}{name}", str(value)))
    return pairs


def _fact_pairs(event: Event) -> list[tuple[str, str]]:
    if event.event != "received":
        return _flat(event.facts)
    request = Request.from_json(event.facts)
    when = "as soon as possible" if request.at_round is None else f"after round {request.at_round}"
    return [("forget", request.describe()), ("serve", when), ("asked by", request.asked_by)]


def _ledger(path: Path, head: str) -> tuple[list[dict[str, Any]], str]:
    """Return the events of the ledger, and what is wrong with it (empty: its chain is sound)."""
    if not path.exists():
        return [], "The run folder holds no ledger: what became of the requests cannot be shown."
    try:
        with Ledger(path) as ledger:
            ledger.verify(head or None)
            events = [
                {
                    "seq": event.seq,
                    "utc": event.utc,
                    "request": event.request_id[:_SHORT],
                    "branch": event.branch,
                    "event": event.event,
                    "facts": _fact_pairs(event),
                    "hash": event.hash,
                }
                for event in ledger.events()
            ]
    except FedUnlearnError as error:
        return [], f"The ledger cannot be trusted: {error}."
    return events, ""


def _without_none(value: object) -> object:
    """Return a configuration without what was not set; TOML knows no null."""
    if isinstance(value, Mapping):
        return {str(k): _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [_without_none(item) for item in value if item is not None]
    return value


def _asked(details: Details) -> str:
    """Return in words what was to be forgotten, the first requests only; empty if nothing."""
    texts = [str(request.get("text", "something")) for request in details.requests]
    if len(texts) > _SHOWN_REQUESTS:
        texts[_SHOWN_REQUESTS:] = [f"{len(texts) - _SHOWN_REQUESTS} more"]
    return " and ".join(filter(None, [", ".join(texts[:-1]), *texts[-1:]]))


def _summary(run: _Run) -> str:
    """Return in one sentence what this run did."""
    details = run.details
    data = details.data
    who = f"{data['clients']} clients" if "clients" in data else "A federation"
    what = f" learned {data['name']}" if "name" in data else " learned"
    learned = details.rounds.get("learned")
    rounds = f" for {learned} rounds" if learned else ""
    asked = _asked(details)
    wish = f" The federation was then asked to forget {asked}." if asked else ""
    names = ", ".join(run.answers)
    recovery = details.rounds.get("recovery")
    after = f", each followed by {recovery} rounds of recovery" if recovery else ""
    answered = f" Answered by {names}{after}." if names else ""
    return f"{who}{what}{rounds}.{wish}{answered}"


def _page(run_dir: Path) -> dict[str, object]:
    """Return all that the template shows."""
    config, rows = read_results(run_dir)
    run = _Run(rows, read_details(run_dir))
    details = run.details
    events, broken = _ledger(run_dir / "ledger.sqlite", details.ledger_head)
    scorecard, cost = _scorecard(run), _cost(run)
    titles = [*(_TITLES[name] for name in METRICS), "Average gap", "Marker"]
    cost_titles = [title for _, title, _ in _WORK]
    beside = ["History", "Speed-up by wall time", "Speed-up by examples"]
    asked = _asked(details)
    return {
        "title": f"Forgetting {asked}" if asked else "Unlearning report",
        "summary": _summary(run),
        "findings": _findings(run),
        "warnings": [broken, *_warnings(run)] if broken else _warnings(run),
        "num_seeds": len(run.seeds),
        "num_strategies": len(run.strategies),
        "scorecard": scorecard,
        "metric_titles": [_TITLES[name] for name in METRICS],
        "scorecard_reasons": _reasons(titles, [(*x.cells, x.verdict) for x in scorecard]),
        "has_reference": RETRAIN in run.strategies,
        "margin": MARKER_MARGIN,
        "timeline": _picture(
            timeline.timeline(details.timeline),
            "timeline",
            "Accuracy on test, retain and forget data and backdoor success over the rounds of "
            "learning, unlearning and recovery, one panel per strategy",
        ),
        "trade_off": _picture(
            _trade_off(run), "trade", "Average gap to retraining against cost, per strategy"
        ),
        "work": _WORK,
        "cost": cost,
        "cost_reasons": _reasons(
            [*cost_titles, *beside], [line.cells for line in cost if line.cells[6:]]
        ),
        "guarantees": {
            guarantee: [name for name in run.strategies if run.guarantees[name] == guarantee]
            for guarantee in dict.fromkeys(run.guarantees[name] for name in run.strategies)
        },
        "refused": details.refused,
        "notes": [(e.strategy, e.seed, note) for e in details.extra for note in e.notes],
        "distances": {
            name: with_sd(summarise(found), 3)
            for name in run.strategies
            if (
                found := [
                    e.array_distance
                    for e in details.extra
                    if e.strategy == name and e.array_distance is not None
                ]
            )
        },
        "events": events,
        "fold_events": len(events) > _LONG_LEDGER,
        "ledger_head": details.ledger_head,
        "ledger_broken": broken,
        "rows": rows,
        "short": _SHORT,
        "command": details.command,
        "versions": details.versions,
        "marker": details.marker,
        "config": tomli_w.dumps(_without_none(config)),  # type: ignore[arg-type]
        "dash": DASH,
    }


def render(run_dir: Path) -> Path:
    """Write ``report.html`` into a finished run's folder and return its path.

    Parameters
    ----------
    run_dir : Path
        Holds ``results.json``; ``details.json`` and ``ledger.sqlite`` are told of if they are
        there.

    Raises
    ------
    ResultsError
        If ``results.json`` is missing, or it or ``details.json`` is damaged.
    """
    templates = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    path = run_dir / "report.html"
    page = templates.from_string(TEMPLATE).render(_page(run_dir))
    write_atomically(path, page.encode())
    return path
