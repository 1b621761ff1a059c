"""One self-contained page per run: what was forgotten, at what cost, and how far the claim goes.

Reads ``results.json``, ``details.json``, ``ledger.sqlite`` and ``audit.json`` of the run folder and
nothing else. The parts stand in :mod:`experiments.reporting`, which chooses the words and rounds
the numbers; statistics and verdicts come from :mod:`unlearning`, what a page looks like stands in
:mod:`experiments.reporting.template`. The same content goes to ``report.json`` and,
as tables, to ``table.tex``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from markupsafe import Markup
from pydantic import BaseModel

from experiments.reporting import claims, closeness, cost, findings, latex, origin
from experiments.reporting.audit import Audited, audit
from experiments.reporting.features import feature_table
from experiments.reporting.page import rendered
from experiments.reporting.requests import asked_for, unserved
from experiments.reporting.run import TITLES, Run
from experiments.reporting.scorecard import scorecard
from experiments.reporting.sites import site_table
from experiments.reporting.svg import as_pdf, inline
from experiments.reporting.tasks import task_table
from experiments.reporting.template import TEMPLATE
from experiments.reporting.text import text_table
from experiments.reporting.timeline import timeline
from experiments.runs.details import read_details
from experiments.runs.folder import RunFolder
from experiments.runs.results import Row, read_results
from experiments.runs.table import DASH, with_sd
from unlearning.evaluation.scorecard import METRICS, summarise
from unlearning.records.files import write_atomically

__all__ = ["render"]

_PARTIAL = (
    "This is a part: the run ended, or goes on, before every strategy had answered. What stands "
    "here is finished; the others have no row."
)
_SHORT = 12  # characters of a digest that are shown
_LONG_LEDGER = 30  # events beyond which the table is folded
_ALTERNATIVES = {
    "timeline": "Accuracy on test, retain and forget data and backdoor success over the rounds of "
    "learning, unlearning and recovery, one panel per strategy",
    "trade_off": "Average gap to retraining against cost, per strategy; scorecard and cost table "
    "hold the numbers",
    "differences": "Paired differences to retraining with 95 % intervals and margins, one panel "
    "per measure, one line per strategy; the table below holds the numbers",
    "attack": "Share of the forget set found against share of false alarms, one panel per "
    "strategy, each with the band of an attack that finds nothing; the table below holds the areas",
    "changes": "Change in accuracy per remaining client and class, one map per strategy; the "
    "folded tables below hold the numbers",
    "audit": "Curves of the likelihood-ratio attack with the band of chance, one panel per "
    "strategy; the tables below hold the numbers",
}


def _content(run_dir: Path) -> dict[str, object]:
    """Return all that the page shows, numbers as numbers and words as words."""
    audited = audit(run_dir)
    config, rows = _results(run_dir, audited)
    run = Run(rows, read_details(run_dir))
    details = run.details
    ledger, broken = origin.events(run_dir / "ledger.sqlite", details.ledger_head)
    if not rows:
        broken = ""  # an audit serves no request of its own
    asked = findings.asked(details) or (audited.asked if audited else "")
    requests = asked_for(run, ledger) if rows else []
    unfinished = [_PARTIAL] if details.partial else []
    limits = [
        *unfinished,
        *(findings.warnings(run) if rows else ()),
        *findings.audit_warnings(audited),
    ]
    left = unserved(requests)
    summary = findings.summary(run, left) if rows else ""
    return {
        "title": f"Forgetting {asked}" if asked else f"Unlearning {'report' if rows else 'audit'}",
        "summary": summary or findings.audit_summary(audited),
        "findings": [*findings.audit_findings(audited), *findings.findings(run, left)],
        "warnings": [broken, *limits] if broken else limits,
        "num_seeds": len(run.seeds),
        "num_strategies": len(run.strategies),
        "has_reference": run.has_reference,
        "scorecard": scorecard(run),
        "asked": requests,
        "audit": audited,
        "differences": closeness.differences(run),
        "timeline": timeline(details.timeline),
        "course": details.timeline,
        "cost": cost.costs(run),
        "trade_off": cost.trades(run),
        "attack": closeness.attack(run),
        "changes": closeness.changes(run),
        "tasks": task_table(run),
        "features": feature_table(run),
        "text": text_table(run),
        "sites": site_table(run),
        "claims": claims.claims(run, ledger),
        "always": claims.ALWAYS,
        "refused": details.refused,
        "notes": [(e.strategy, e.seed, note) for e in details.extra for note in e.notes],
        "measures": claims.MEASURES,
        "distances": _distances(run),
        "events": ledger,
        "ledger_head": details.ledger_head,
        "ledger_broken": broken,
        "ran": {"strategies": run.strategies, "seeds": run.seeds},
        "command": details.command,
        "versions": details.versions,
        "digests": origin.digests(run_dir),
        "rows": rows,
        "config": tomli_w.dumps(origin.without_none(_as_run(config, run))),  # type: ignore[arg-type]
    }


def _results(run_dir: Path, audited: Audited | None) -> tuple[dict[str, Any], tuple[Row, ...]]:
    """Return configuration and rows; of an audit alone, which makes no rows, none."""
    if audited is not None and not (run_dir / "results.json").exists():
        folder = RunFolder(run_dir)
        return (dict(folder.read_config()) if folder.config.is_file() else {}), ()
    return read_results(run_dir)


def _as_run(config: Mapping[str, Any], run: Run) -> dict[str, Any]:
    """Return the configuration with the strategies that answered, where it lists any."""
    if not run.answers or "strategies" not in config:
        return dict(config)
    return {**config, "strategies": list(run.answers)}


def _distances(run: Run) -> dict[str, str]:
    """Return the distance of parameters to the retrained model's, in words."""
    found: dict[str, list[float]] = {}
    for extra in run.details.extra:
        if extra.array_distance is not None:
            found.setdefault(extra.strategy, []).append(extra.array_distance)
    names = [name for name in run.strategies if name in found]
    return {name: with_sd(summarise(found[name]), 3) for name in names}


def _page(content: Mapping[str, object]) -> str:
    """Return the content as a page."""
    events = content["events"]
    return rendered(
        TEMPLATE,
        {
            **content,
            "picture": _picture,
            "metric_titles": [TITLES[name] for name in METRICS],
            "work": cost.WORK,
            "fold_events": isinstance(events, list) and len(events) > _LONG_LEDGER,
            "short": _SHORT,
            "dash": DASH,
        },
        kind="unlearning report",
    )


def _picture(svg: str, name: str) -> Markup:
    return Markup(inline(svg, name, escape(_ALTERNATIVES[name])))


def _plain(value: object) -> object:
    """Return content as JSON has it; pictures are left out, their numbers are in."""
    if isinstance(value, Row):
        return value.to_json()
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if is_dataclass(value):
        names = (entry.name for entry in fields(value))
        return {name: _plain(getattr(value, name)) for name in names if name != "picture"}
    if isinstance(value, Mapping):
        pictures = ("timeline", "trade_off")
        return {str(k): _plain(item) for k, item in value.items() if k not in pictures}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _drawn(run_dir: Path, *, pdf: bool) -> tuple[dict[str, object], dict[str, bytes]]:
    """Return the content, and its pictures as PDF where they are wanted: they are drawn once."""
    if not pdf:
        return _content(run_dir), {}
    with as_pdf() as found:
        return _content(run_dir), found


def render(run_dir: Path, figures: Path | None = None) -> Path:
    """Write ``report.html``, ``report.json`` and ``table.tex``; return the path of the page.

    Parameters
    ----------
    run_dir : Path
        Holds ``results.json`` or ``audit.json`` or both; ``details.json`` and ``ledger.sqlite``
        are told of if they are there.
    figures : Path or None
        A folder, made if need be, to write every picture into as PDF.

    Raises
    ------
    ResultsError
        If ``results.json`` and ``audit.json`` are missing, or a file is damaged.
    """
    content, pdfs = _drawn(run_dir, pdf=figures is not None)
    page = run_dir / "report.html"
    text = json.dumps(_plain(content), indent=1, allow_nan=False, ensure_ascii=False)
    tables = latex.tables(
        content["scorecard"],  # type: ignore[arg-type]
        content["differences"],  # type: ignore[arg-type]
        content["cost"],  # type: ignore[arg-type]
        seeds=content["num_seeds"],  # type: ignore[arg-type]
        command=str(content["command"]),
    )
    write_atomically(page, _page(content).encode())
    write_atomically(run_dir / "report.json", f"{text}\n".encode())
    write_atomically(run_dir / "table.tex", tables.encode())
    if figures is not None:
        figures.mkdir(parents=True, exist_ok=True)
        for name, drawn in pdfs.items():
            write_atomically(figures / f"{name}.pdf", drawn)
    return page
