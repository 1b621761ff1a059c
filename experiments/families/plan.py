"""A plan: which scenarios the families are compared in, each a comparison of its own.

A plan is a TOML file. What stands at its top holds for every scenario that does not say otherwise.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import tomli_w
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from experiments.config.loading import load, read_toml
from experiments.federation import launch
from experiments.federation.course import Course
from experiments.runs.folder import RunFolder, differences
from experiments.runs.progress import Observer
from unlearning.errors import ConfigError

__all__ = [
    "DEFAULT",
    "Plan",
    "Scenario",
    "default_out",
    "is_complete",
    "read_plan",
    "run_scenario",
    "usual",
]

DEFAULT = Path("experiments/plans/digits.toml")


def _tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


Texts = Annotated[tuple[str, ...], BeforeValidator(_tuple)]
Seeds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(_tuple)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Scenario(_Table):
    """One comparison, or one that has run already.

    Parameters
    ----------
    name : str
        Of its folder: small letters, digits and hyphens.
    config : str
        The TOML file; a relative path is looked for in the working directory and beside the
        packages.
    run : str
        The folder of a finished comparison, in place of a config.
    overrides : tuple of str
        ``key=value`` as for ``--set``; they follow those of the plan.
    strategies : tuple of str
        Empty: those of the plan, or else of the config.
    seeds : tuple of int
        Empty: those of the plan.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    config: str = ""
    run: str = ""
    overrides: Texts = ()
    strategies: Texts = ()
    seeds: Seeds = ()

    @model_validator(mode="after")
    def _one_of_two(self) -> Scenario:
        if bool(self.config) == bool(self.run):
            raise ValueError(f"scenario {self.name!r} needs either config or run, and not both")
        return self


class Plan(_Table):
    """What stands in the file.

    Parameters
    ----------
    title : str
        Of the page.
    margin : float
        Test accuracy below the level to reach that still counts as back, a fraction.
    seeds, strategies, overrides
        For every scenario that does not name its own; overrides of both are applied.
    scenarios : tuple of Scenario
        In the order of the page.
    """

    title: str = "The families of federated unlearning compared"
    margin: float = Field(default=0.02, ge=0, lt=1)
    seeds: Seeds = (0, 1, 2)
    strategies: Texts = ()
    overrides: Texts = ()
    scenarios: Annotated[tuple[Scenario, ...], BeforeValidator(_tuple)] = ()

    @model_validator(mode="after")
    def _names_differ(self) -> Plan:
        names = [scenario.name for scenario in self.scenarios]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two scenarios are named {twice[0]!r}; give each its own name")
        return self

    def course(self, scenario: Scenario, overrides: Iterable[str], observer: Observer) -> Course:
        """Return what the comparison of a scenario is going to do.

        Parameters
        ----------
        scenario : Scenario
            One with a config.
        overrides : iterable of str
            From the command line; they win.
        observer : Observer
            Told of every round.

        Raises
        ------
        ConfigError
            If the config or an override is wrong.
        """
        config = load(scenario.config, [*self.overrides, *scenario.overrides, *overrides])
        names = scenario.strategies or self.strategies or None
        return Course.of_comparison(config, observer, names, scenario.seeds or self.seeds)

    def with_overrides(self, overrides: Iterable[str]) -> Plan:
        """Return the plan with ``key=value`` that win in every scenario."""
        more = tuple(overrides)
        scenarios = tuple(
            one.model_copy(update={"overrides": (*one.overrides, *more)}) for one in self.scenarios
        )
        return self.model_copy(update={"scenarios": scenarios})

    def with_runs(self, folders: Sequence[Path]) -> Plan:
        """Return the plan with finished comparisons added, each named as its folder.

        Raises
        ------
        ConfigError
            If a name is taken.
        """
        found = tuple({"name": _folder_name(folder), "run": str(folder)} for folder in folders)
        raw = self.model_dump()
        return _checked({**raw, "scenarios": (*raw["scenarios"], *found)}, "--from")


def usual(runs: Sequence[object]) -> Path | None:
    """Return the plan that is meant where none is named: embedded digits, or none beside runs."""
    return None if runs else DEFAULT


def default_out(plan: Plan | str | os.PathLike[str] | None) -> Path:
    """Return the folder of a comparison that names none: ``runs/families-PLAN``."""
    name = "runs" if plan is None else "plan" if isinstance(plan, Plan) else Path(plan).stem
    return Path("runs") / f"families-{name}"


def read_plan(path: str | os.PathLike[str]) -> Plan:
    """Return the plan in a TOML file; one that is not there is looked for beside the packages.

    Raises
    ------
    ConfigError
        If the file cannot be read or is no plan.
    """
    return _checked(read_toml(path, "plan"), f"plan {str(path)!r}")


def is_complete(folder: Path, course: Course) -> bool:
    """Return whether a folder holds the finished comparison that a course would make.

    Raises
    ------
    ConfigError
        If it holds another one, or one that is running; nothing there is changed.
    """
    there = RunFolder(folder)
    if not there.config.is_file():
        return False
    # Through TOML and back, as the file went.
    wanted = tomllib.loads(tomli_w.dumps(course.settings))
    odd = differences(there.read_config(), wanted)
    if not odd and there.federation.is_file():
        seeds = there.read_federation().seeds
        odd = [] if seeds == course.seeds else [f"seeds are {seeds} there, {course.seeds} here"]
    if odd:
        raise ConfigError(
            f"{folder} holds another comparison ({'; '.join(odd[:3])}); "
            "give another folder with --out, or delete it"
        )
    if there.results.is_file():
        return True
    status = there.read_status()
    if status is not None and status.is_running:
        raise ConfigError(f"{folder} is in use by process {status.pid}; wait until it has ended")
    return False


def run_scenario(folder: Path, course: Course) -> None:
    """Run the comparison of a scenario; what an interrupted one has left is thrown away.

    Call :func:`is_complete` before: it refuses folders that hold anything else.

    Raises
    ------
    FedUnlearnError
        If the config cannot work.
    """
    import shutil

    if RunFolder(folder).config.is_file():
        shutil.rmtree(folder)
    launch.conduct(course, folder)


# Inside -------------------------------------------------------------------------------------------


def _folder_name(folder: Path) -> str:
    """Return the name of a folder in small letters, digits and hyphens."""
    text = "".join(c if c.isascii() and c.isalnum() else "-" for c in folder.resolve().name.lower())
    return text.strip("-") or "run"


def _checked(raw: dict[str, Any], source: str) -> Plan:
    try:
        return Plan.model_validate(raw)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(map(str, problem["loc"]))
        reason = problem["msg"].removeprefix("Value error, ")
        known = f"; known keys: {', '.join(Plan.model_fields)}"
        remedy = known if problem["type"] == "extra_forbidden" else ""
        raise ConfigError(f"{source}: {place + ': ' if place else ''}{reason}{remedy}") from error
