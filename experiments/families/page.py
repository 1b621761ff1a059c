"""Words and numbers of the pages that look at several runs at once.

Statistics come from :mod:`experiments.families.claims` and :mod:`experiments.families.needs`; what
a page looks like stands in :mod:`experiments.families.template`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from markupsafe import Markup

from experiments.families import sparks
from experiments.families.claims import Finding, Judgement, Verdict
from experiments.families.kin import CONTROL, FAMILIES, family_of, in_order, title
from experiments.families.measures import MEASURES, Finished, scopes_of, seeds_of
from experiments.families.needs import NEEDS, candidates
from experiments.families.tables import COLUMNS, Shown, by_family, overview, scenario, shown
from experiments.families.template import STYLE, TEMPLATE
from experiments.reporting.page import rendered
from experiments.runs.results import RETRAIN
from experiments.runs.table import DASH
from strategies.registry import describe

__all__ = ["page"]

_CHOICES = 4  # strategies named for one need
_FEW_SEEDS = 5


def page(
    runs: Sequence[Finished],
    judgements: Sequence[Judgement],
    *,
    heading: str,
    margin: float,
    missing: Sequence[str] = (),
    command: str = "",
    versions: dict[str, str] | None = None,
) -> str:
    """Return the page as HTML that asks for nothing from anywhere.

    Parameters
    ----------
    runs : sequence of Finished
        At least one.
    judgements : sequence of Judgement
        Of the claims; empty: the page says nothing of claims and families' needs.
    heading : str
        Its title.
    margin : float
        Below the level that counts as back.
    missing : sequence of str
        Scenarios of the plan that are not there.
    command, versions : str, dict
        How to make it again.
    """
    seeds = seeds_of(runs)
    answered = in_order({n for run in runs for n in run.strategies if family_of(n) != CONTROL})
    content = {
        "title": heading,
        "summary": _summary(runs, answered),
        "warnings": _warnings(runs, missing),
        "choices": _CHOICES,
        "needs": _needs(runs) if judgements else [],
        "judgements": [_judged(found) for found in judgements],
        "tally": _tally(judgements),
        "scenarios": [scenario(run) for run in runs],
        "columns": COLUMNS,
        "by_family": by_family(runs) if judgements else [],
        "overviews": [
            {"title": words, "runs": [r.name for r in own], "rows": overview(own, answered)}
            for words, own in _kinds(runs)
        ],
        "served": _served(answered) if judgements else [],
        "families": [(key, name) for key, (name, _) in FAMILIES.items()],
        "num_seeds": len(seeds),
        "margin": margin,
        "measures": [MEASURES[name] for name, *_ in COLUMNS],
        "command": command,
        "versions": versions or {},
        "dash": DASH,
        "is_comparison": bool(judgements),
    }
    return rendered(TEMPLATE, content, kind="unlearning comparison", style=STYLE)


# --- words --------------------------------------------------------------------------------------


def _listed(words: Iterable[str]) -> str:
    found = list(words)
    return " and ".join(filter(None, [", ".join(found[:-1]), *found[-1:]]))


def _summary(runs: Sequence[Finished], answered: Sequence[str]) -> str:
    scopes = _listed(scopes_of(runs))
    data = _listed(dict.fromkeys(run.data for run in runs))
    scenarios = f"{len(runs)} scenario{'s' if len(runs) != 1 else ''}"
    seeds = len(seeds_of(runs))
    return (
        f"{len(answered)} strategies in {scenarios} on {data}: requests of scope {scopes}, "
        f"{seeds} seed{'s' if seeds != 1 else ''}. In every scenario all strategies answer from "
        "the same learned model, beside one retrained without the data and one only trained on."
    )


def _warnings(runs: Sequence[Finished], missing: Sequence[str]) -> list[str]:
    found = []
    seeds = len(seeds_of(runs))
    if seeds == 1:
        found.append("One seed is an observation, not a finding: there is no interval.")
    elif seeds < _FEW_SEEDS:
        found.append(
            f"{seeds} seeds are few: intervals are wide, and what is not shown here may be shown "
            "by more."
        )
    if missing:
        found.append(f"Scenarios of the plan that have not been run: {', '.join(missing)}.")
    lame = [run.name for run in runs if RETRAIN not in run.strategies]
    if lame:
        found.append(f"Without a retrained model, nothing to compare with: {', '.join(lame)}.")
    if any(line.numbers["wall_s"] is not None for run in runs for line in run.lines):
        found.append(
            "Wall times depend on the machine and on what else it did; examples, traffic and "
            "client rounds are exact counts."
        )
    return found


def _tally(judgements: Sequence[Judgement]) -> str:
    counts = [
        f"{number} {verdict}"
        for verdict in Verdict
        if (number := sum(found.verdict is verdict for found in judgements))
    ]
    return ", ".join(counts)


# --- claims -------------------------------------------------------------------------------------


def _judged(found: Judgement) -> dict[str, Any]:
    return {
        "name": found.claim.name,
        "text": found.claim.text,
        "source": found.claim.source,
        "note": found.claim.note,
        "verdict": found.verdict,
        "parts": [_found(entry) for entry in found.findings],
    }


def _found(finding: Finding) -> dict[str, Any]:
    text: Shown
    if finding.measured is None:
        text = Shown(DASH if finding.why else "declared", why=finding.why)
    else:
        entry = MEASURES[finding.measure]
        mean, _, bounds = shown(finding.measured, entry.decimals).partition(" [")
        text = Shown(mean, f"[{bounds}" if bounds else finding.why, _on_scale(finding))
    return {
        "text": finding.text,
        "needs": finding.needs.replace("-", "\N{MINUS SIGN}"),
        "verdict": finding.verdict,
        "cell": text,
        "exceptions": finding.exceptions,
        "n": finding.measured.n if finding.measured else 0,
    }


def _on_scale(finding: Finding) -> Markup | str:
    """Return the interval beside the boundary that the claim names."""
    found = finding.measured
    if found is None:
        return ""
    ends = [v for v in (found.mean, found.low, found.high, *finding.marks) if v is not None]
    low, high = min(ends), max(ends)
    room = 0.12 * (high - low) or 0.01
    return sparks.strip(
        found.mean,
        found.low,
        found.high,
        start=low - room,
        end=high + room,
        marks=finding.marks,
        text=f"{shown(found)}, the claim needs {finding.needs}",
    )


# --- needs --------------------------------------------------------------------------------------


def _kinds(runs: Sequence[Finished]) -> list[tuple[str, list[Finished]]]:
    """Return the runs of networks and those of traditional models, of those that there are."""
    kinds = (
        ("Networks", [run for run in runs if not run.is_traditional]),
        (
            "Traditional models, each with strategies of its own",
            [r for r in runs if r.is_traditional],
        ),
    )
    return [(words, own) for words, own in kinds if own]


def _needs(runs: Sequence[Finished]) -> list[dict[str, Any]]:
    """Return a table for networks and one for traditional models, of those that were run."""
    return [
        {"title": words, "scopes": scopes_of(own), "rows": _need_rows(own)}
        for words, own in _kinds(runs)
    ]


def _need_rows(runs: Sequence[Finished]) -> list[dict[str, Any]]:
    """Return a row per need: its name and, per scope, who may be named with what speaks for it."""
    known = {scope: candidates(runs, scope) for scope in scopes_of(runs)}
    rows = []
    for need in NEEDS:
        cells = []
        for found in known.values():
            fitting = sorted((c for c in found if need.keeps(c)), key=need.order)
            sound = [c for c in fitting if c.forgets]
            cells.append(
                {
                    "named": [(c.strategy, need.shows(c)) for c in sound[:_CHOICES]],
                    "nearest": [c.strategy for c in fitting[:2]] if not sound else [],
                }
            )
        rows.append({"name": need.name, "rule": need.rule, "cells": cells})
    return rows


# --- what the registry says ---------------------------------------------------------------------


def _served(answered: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    measured = set(answered)
    for found in describe():
        rows.append(
            {
                "name": found.alias,
                "family": family_of(found.alias),
                "title": title(family_of(found.alias)),
                "scopes": found.scopes,
                "models": _listed(found.models),
                "guarantee": found.guarantee,
                "needs": ", ".join(found.needs) or "nothing",
                "asks": found.asks_forgotten,
                "measured": found.alias in measured,
            }
        )
    place = {name: i for i, name in enumerate(in_order(str(row["name"]) for row in rows))}
    return sorted(rows, key=lambda row: place[str(row["name"])])
