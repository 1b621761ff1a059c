"""Every request by itself: what was asked, what became of it, and what may be said of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.reporting.origin import Entry
from experiments.reporting.run import Cell, Run, measured, number
from experiments.runs.details import Answer
from experiments.runs.fates import measured_answers
from experiments.runs.results import CONTROLS, ORIGINAL, RETRAIN
from experiments.runs.table import DASH
from unlearning.evaluation.scorecard import RANGES, bounded, summarise

__all__ = ["Asked", "Fate", "asked_for", "unserved"]

_FULFILLED = "fulfilled"
_UNSERVED = ("held", "failed", "refused")
_RISKS = {
    "exact": "None from training itself.",
    "certified": "Bounded by epsilon and delta, while the proof's assumptions hold.",
    "approximate": "Traces that these measures do not see.",
    "suppressed": "Other weights still hold it: whoever undoes the hiding has it back.",
}
_REFERENCE = "it is what others are measured against"
_NAMES = (("forget_accuracy", "Forget accuracy"), ("mia_auc", "MIA AUC"))


@dataclass(frozen=True)
class Fate:
    """One request after one strategy."""

    strategy: str
    control: bool
    guarantee: str
    state: str
    reason: str  # why it is not fulfilled
    cells: tuple[Cell, ...]  # forget accuracy and MIA AUC; below, retraining's
    verdict: str
    why: str
    risk: str


@dataclass(frozen=True)
class Asked:
    """One request, and what became of it."""

    id: str
    who: str
    what: str
    fates: tuple[Fate, ...]


def _states(
    request: str, strategy: str, ledger: Sequence[Entry], *, alone: bool
) -> dict[str, list[Entry]]:
    """Return what became of a request: its last events by their name, one per branch."""
    last: dict[str, Entry] = {}
    for entry in ledger:
        is_own = entry.branch.rpartition("/")[0] == strategy or (alone and not entry.branch)
        if entry.request == request and is_own:
            last[entry.branch] = entry
    found: dict[str, list[Entry]] = {}
    for entry in last.values():
        found.setdefault(entry.event, []).append(entry)
    return found


def asked_for(run: Run, ledger: Sequence[Entry]) -> list[Asked]:
    """Return the requests of a run, each with its fate after every strategy."""
    verdicts = run.fates
    answers = measured_answers(run.details, run.rows)
    shown = [name for name in run.strategies if name not in (ORIGINAL, RETRAIN)]
    shown = shown or [name for name in run.strategies if name == RETRAIN]
    alone = len(shown) == 1
    branches = dict.fromkeys(entry.branch.rpartition("/")[0] for entry in ledger)
    left = [n for n in branches if n and n not in run.strategies and not n.startswith("seed-")]
    found = []
    for request in run.details.requests:
        name = str(request.get("id", ""))
        lines = []
        for strategy in (*shown, *left):
            now = _states(name, strategy, ledger, alone=alone)
            if not now and ledger:
                continue
            said = verdicts.get((name, strategy))
            lines.append(
                Fate(
                    strategy=strategy,
                    control=strategy in CONTROLS,
                    guarantee=run.guarantees.get(strategy, ""),
                    state=_state(now),
                    reason=_reason(now),
                    cells=tuple(_cell(answers, name, strategy, *one) for one in _NAMES),
                    verdict=str(said.fate) if said and _is_served(now) else "not measured",
                    why=_why(_REFERENCE if strategy == RETRAIN else said.why if said else "", now),
                    risk=_risk(run.guarantees.get(strategy, ""), now),
                )
            )
        found.append(Asked(name, str(request.get("asked_by", "")), _what(request), tuple(lines)))
    return found


def unserved(asked: Sequence[Asked]) -> dict[str, str]:
    """Return, by strategy, which requests it did not serve and what became of them."""
    found: dict[str, list[str]] = {}
    for request in asked:
        for fate in request.fates:
            if fate.state in _UNSERVED:
                found.setdefault(fate.strategy, []).append(f"{request.what}: {fate.state}")
    return {name: ", ".join(words) for name, words in found.items()}


def _what(request: Mapping[str, Any]) -> str:
    return str(request.get("text", "something"))


def _is_served(now: Mapping[str, Sequence[Entry]]) -> bool:
    return _FULFILLED in now or not set(now) & set(_UNSERVED)  # else the rows tell


def _state(now: Mapping[str, Sequence[Entry]]) -> str:
    """Return the state, or how many seeds ended in each."""
    if not now:
        return DASH
    if len(now) == 1:
        return next(iter(now))
    return ", ".join(f"{event} ({len(found)} seeds)" for event, found in now.items())


def _reason(now: Mapping[str, Sequence[Entry]]) -> str:
    texts = (
        dict(entry.facts).get("reason", "")
        for event, found in now.items()
        for entry in found
        if event != _FULFILLED
    )
    return "; ".join(dict.fromkeys(filter(None, texts)))


def _why(said: str, now: Mapping[str, Sequence[Entry]]) -> str:
    if not _is_served(now):
        return "not answered"
    return said or "several requests were pooled into one scorecard"


def _risk(guarantee: str, now: Mapping[str, Sequence[Entry]]) -> str:
    if not _is_served(now):
        return "All of it: the model still holds the data."
    seen = dict.fromkeys(risk for found in now.values() for one in found for risk in one.risks)
    said = " ".join(f"{risk[0].upper()}{risk[1:]}." for risk in seen)
    return f"{_RISKS.get(guarantee, '')} {said}".strip()


def _cell(answers: Sequence[Answer], request: str, strategy: str, name: str, title: str) -> Cell:
    ours, theirs = (
        [
            value
            for one in answers
            if (one.request, one.strategy) == (request, who)
            and (value := getattr(one, name)) is not None
        ]
        for who in (strategy, RETRAIN)
    )
    is_other = theirs and strategy != RETRAIN
    beside = f"retrained {number(summarise(theirs).mean)}" if is_other else ""
    spread = bounded(summarise(ours), *RANGES[name]) if ours else None
    return measured(spread, f"{title.lower()} of this request was not measured", below=beside)
