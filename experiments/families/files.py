"""The comparison of several runs for other programs: CSV, JSON, and LaTeX tables for a paper."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from experiments.families.claims import Interval, Judgement, interval
from experiments.families.kin import CONTROL, family_of, in_order
from experiments.families.measures import MEASURES, Finished, scopes_of
from experiments.families.needs import NEEDS, candidates
from experiments.runs.results import ORIGINAL, RETRAIN

__all__ = ["as_csv", "as_json", "as_latex", "claims_as_csv"]

_IDENTITY = ("scenario", "scope", "partition", "data", "model", "strategy", "family", "guarantee")
_IN_PAPER = ("drop", "rounds_back", "end_gap", "gap", "share_examples", "share_wall_s")


def as_csv(runs: Sequence[Finished]) -> str:
    """Return a line per scenario, strategy and seed; what was not measured is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*_IDENTITY, "seed", *MEASURES))
    for run in runs:
        for line in run.lines:
            identity = (run.name, run.scope, run.partition, run.data, run.model)
            who = (line.strategy, line.family, line.guarantee, line.seed)
            numbers = (_short(line.numbers[name]) for name in MEASURES)
            writer.writerow((*identity, *who, *numbers))
    return text.getvalue()


def claims_as_csv(judgements: Sequence[Judgement]) -> str:
    """Return a line per part of every claim."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    found_columns = ("mean", "low", "high", "seeds", "part_verdict", "exceptions")
    writer.writerow(("claim", "verdict", "part", "needs", *found_columns))
    for judgement in judgements:
        for part in judgement.findings:
            found = part.measured
            numbers = (
                ("", "", "", "")
                if found is None
                else (*map(_short, (found.mean, found.low, found.high)), found.n)
            )
            who = (judgement.claim.name, judgement.verdict, part.text, part.needs)
            writer.writerow((*who, *numbers, part.verdict, "; ".join(part.exceptions)))
    return text.getvalue()


def as_json(
    runs: Sequence[Finished],
    judgements: Sequence[Judgement],
    *,
    margin: float,
    missing: Sequence[str] = (),
) -> str:
    """Return everything that stands on the page, as plain values."""
    found = {
        "margin": margin,
        "measures": {
            name: {"title": entry.title, "unit": entry.unit, "text": entry.text}
            for name, entry in MEASURES.items()
        },
        "scenarios": [_scenario(run) for run in runs],
        "missing": list(missing),
        "needs": {
            kind: _needs([run for run in runs if run.is_traditional is traditional])
            for kind, traditional in (("networks", False), ("traditional models", True))
        },
        "claims": [_claim(judgement) for judgement in judgements],
    }
    return json.dumps(found, indent=1, allow_nan=False) + "\n"


def as_latex(runs: Sequence[Finished], judgements: Sequence[Judgement]) -> str:
    """Return a table per scenario and one of the claims, in the style of the package booktabs."""
    tables = [_latex_scenario(run) for run in runs]
    if judgements:
        tables.append(_latex_claims(judgements))
    return "% \\usepackage{booktabs}\n" + "\n".join(tables)


# Inside -------------------------------------------------------------------------------------------


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.9g}"


def _plain(found: Interval | None) -> dict[str, float | int | None] | None:
    if found is None:
        return None
    return {"mean": found.mean, "low": found.low, "high": found.high, "n": found.n}


def _scenario(run: Finished) -> dict[str, Any]:
    return {
        "name": run.name,
        "scope": run.scope,
        "asked": run.asked,
        "partition": run.partition,
        "data": run.data,
        "model": run.model,
        "clients": run.clients,
        "seeds": list(run.seeds),
        "level": run.level,
        "refused": dict(run.refused),
        "courses": {
            name: {
                "rounds": list(course.rounds),
                "test_accuracy": list(course.accuracy),
                "unlearning_rounds": course.unlearned,
            }
            for name, course in run.courses.items()
        },
        "strategies": {
            name: {
                measure: _plain(interval(values))
                for measure in MEASURES
                if (values := run.cell(name, measure).values)
            }
            for name in run.strategies
        },
    }


def _claim(found: Judgement) -> dict[str, Any]:
    return {
        "name": found.claim.name,
        "claim": found.claim.text,
        "source": found.claim.source,
        "note": found.claim.note,
        "verdict": str(found.verdict),
        "parts": [
            {
                "text": part.text,
                "measure": part.measure,
                "needs": part.needs,
                "verdict": str(part.verdict),
                "found": _plain(part.measured),
                "exceptions": list(part.exceptions),
                "why": part.why,
            }
            for part in found.findings
        ],
    }


def _needs(runs: Sequence[Finished]) -> list[dict[str, Any]]:
    known = {scope: candidates(runs, scope) for scope in scopes_of(runs)}
    return [
        {
            "need": need.name,
            "rule": need.rule,
            "scopes": {
                scope: [
                    {"strategy": c.strategy, "shown": need.shows(c), "forgets": c.forgets}
                    for c in sorted(found, key=need.order)
                    if need.keeps(c)
                ]
                for scope, found in known.items()
            },
        }
        for need in NEEDS
    ]


def _escaped(text: str) -> str:
    special = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}"}
    return "".join(special.get(character, character) for character in text)


def _cell(found: Interval | None, decimals: int) -> str:
    if found is None:
        return "--"
    mean = f"{found.mean:.{decimals}f}"
    if found.low is None or found.high is None or found.low == found.high:
        return f"${mean}$"
    return f"${mean}\\ [{found.low:.{decimals}f}, {found.high:.{decimals}f}]$"


def _latex_scenario(run: Finished) -> str:
    names = in_order(name for name in run.strategies if name != ORIGINAL)
    order = sorted(names, key=lambda name: family_of(name) != CONTROL and name != RETRAIN)
    heads = [f"{MEASURES[name].title} {MEASURES[name].unit}".strip() for name in _IN_PAPER]
    lines = [
        r"\begin{table}",
        rf"\caption{{{_escaped(run.name)}: {_escaped(run.asked)} forgotten; {_escaped(run.data)}, "
        rf"{_escaped(run.partition)}, {_escaped(run.model)}; mean and 95\,\% interval over "
        rf"{len(run.seeds)} seed{'s' if len(run.seeds) != 1 else ''}.}}",
        rf"\begin{{tabular}}{{l{'r' * len(heads)}}}",
        r"\toprule",
        " & ".join(["Strategy", *map(_escaped, heads)]) + r" \\",
        r"\midrule",
    ]
    for name in order:
        cells = [_latex_number(run, name, measure) for measure in _IN_PAPER]
        lines.append(" & ".join([_escaped(name), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _latex_number(run: Finished, name: str, measure: str) -> str:
    cell = run.cell(name, measure)
    if measure == "rounds_back":
        budgets = run.cell(name, "budget").values
        if budgets and len(cell.values) < len(budgets):
            lost = len(budgets) - len(cell.values)
            return f"{lost}/{len(budgets)} not within {max(budgets):.0f}"
    decimals = MEASURES[measure].decimals
    return _cell(
        interval(cell.values) if cell.values else None, 3 if decimals is None else decimals
    )


def _latex_claims(judgements: Sequence[Judgement]) -> str:
    lines = [
        r"\begin{table}",
        r"\caption{Claims of the surveys and what was found.}",
        r"\begin{tabular}{p{0.6\linewidth}l}",
        r"\toprule",
        r"Claim & Verdict \\",
        r"\midrule",
        *(rf"{_escaped(found.claim.text)} & {found.verdict} \\" for found in judgements),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
        "",
    ]
    return "\n".join(lines)
