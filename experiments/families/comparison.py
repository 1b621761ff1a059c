"""The comparison of the families: run what a plan asks for, and tell what came of it.

``families.html`` is the page, ``families.json`` holds everything on it, ``families.csv`` a line per
scenario, strategy and seed, ``claims.csv`` a line per part of a claim, ``families.tex`` the tables
for a paper.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

from experiments.families.claims import judge
from experiments.families.files import as_csv, as_json, as_latex, claims_as_csv
from experiments.families.measures import Finished, joined
from experiments.families.page import page
from experiments.families.plan import Plan, Scenario, is_complete, run_scenario
from experiments.families.reading import read_run
from experiments.families.surveys import CLAIMS
from experiments.runs.command import command_line
from experiments.runs.progress import Observer
from experiments.runs.versions import versions
from unlearning.errors import ConfigError
from unlearning.records.files import write_atomically

__all__ = ["carry_out", "finished_runs", "write_comparison"]


def carry_out(
    plan: Plan,
    out: Path,
    *,
    only: Collection[str] = (),
    overrides: Sequence[str] = (),
    observer: Observer,
    tell: Callable[[str], None] = lambda text: None,
    command: str | None = None,
) -> None:
    """Run the scenarios of a plan that are not there yet, each in its own subfolder.

    Parameters
    ----------
    plan : Plan
        What to run.
    out : Path
        Folder of the scenarios' folders.
    only : collection of str
        Names of the scenarios to run; empty: all.
    overrides : sequence of str
        ``key=value`` for every scenario.
    observer : Observer
        Told of every round.
    tell : callable
        Told in a line what is done with each scenario.
    command : str, optional
        What the reports call the words that made them; default: this process's command line.

    Raises
    ------
    ConfigError
        If a name is unknown, a scenario's config is wrong, or its folder holds another comparison.
        All of them are checked before the first one runs.
    """
    names = [scenario.name for scenario in plan.scenarios]
    if unknown := sorted(set(only) - set(names)):
        raise ConfigError(f"no scenario is named {unknown[0]!r}; the plan has {', '.join(names)}")
    wanted = [s for s in plan.scenarios if s.config and (not only or s.name in only)]
    said = command or command_line()
    courses = [(s.name, replace(plan.course(s, overrides, observer), command=said)) for s in wanted]
    missing = []
    for name, course in courses:
        if is_complete(out / name, course):
            tell(f"{name}: kept")
        else:
            course.check()
            missing.append((name, course))
    for number, (name, course) in enumerate(missing, 1):
        tell(f"{name}: {number} of {len(missing)} to run")
        run_scenario(out / name, course)


def finished_runs(plan: Plan, out: Path) -> tuple[list[Finished], list[str]]:
    """Return the finished scenarios of a plan, and the names of those that are not there.

    Raises
    ------
    ResultsError
        If a finished run cannot be read, or a folder that the plan names holds none.
    """
    found: list[Finished] = []
    missing: list[str] = []
    for scenario in plan.scenarios:
        folder = _place(scenario, out)
        if scenario.config and not (folder / "results.json").is_file():
            missing.append(scenario.name)
        else:
            found.append(read_run(folder, scenario.name, margin=plan.margin))
    return joined(found), missing


def write_comparison(plan: Plan, out: Path, *, command: str | None = None) -> Path:
    """Judge the finished scenarios of a plan and write page, CSV, JSON and LaTeX.

    Raises
    ------
    ConfigError
        If none has finished.
    ResultsError
        If a finished run cannot be read.
    """
    runs, missing = finished_runs(plan, out)
    if not runs:
        raise ConfigError(f"no scenario of the plan has finished in {out}; run it without --only")
    judgements = [judge(claim, runs) for claim in CLAIMS]
    texts = {
        "families.html": page(
            runs,
            judgements,
            heading=plan.title,
            margin=plan.margin,
            missing=missing,
            command=command or command_line(),
            versions=versions(),
        ),
        "families.csv": as_csv(runs),
        "claims.csv": claims_as_csv(judgements),
        "families.json": as_json(runs, judgements, margin=plan.margin, missing=missing),
        "families.tex": as_latex(runs, judgements),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_atomically(out / name, text.encode())
    return out / "families.html"


def _place(scenario: Scenario, out: Path) -> Path:
    return Path(scenario.run) if scenario.run else out / scenario.name
