"""What the families are compared by: a line per run, strategy and seed.

Values alone; :mod:`experiments.families.reading` makes them of the files of a run folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from strategies.registry import strategies as registered

__all__ = [
    "IID",
    "MEASURES",
    "Cell",
    "Course",
    "Finished",
    "Measure",
    "Measured",
    "joined",
    "scopes_of",
    "seeds_of",
]

IID = "iid"


@dataclass(frozen=True)
class Measure:
    """A number of the comparison.

    Parameters
    ----------
    name, title : str
        In files and in tables.
    unit : str
        Empty for fractions and counts.
    text : str
        What it is, in one sentence.
    decimals : int or None
        Digits after the point; None: three significant digits.
    """

    name: str
    title: str
    unit: str
    text: str
    decimals: int | None = 3


_ALL = (
    Measure("before", "Before", "", "test accuracy before the request"),
    Measure("lowest", "Lowest", "", "lowest test accuracy after the request"),
    Measure("drop", "Drop", "", "test accuracy before the request less the lowest after it"),
    Measure("after", "After", "", "test accuracy when the unlearning ends, before recovery"),
    Measure("loss", "Lost", "", "level to reach less test accuracy when the unlearning ends"),
    Measure("end", "End", "", "test accuracy after recovery"),
    Measure("end_gap", "End to retrain", "", "test accuracy after recovery less retraining's"),
    Measure("short", "Short of level", "", "level to reach less test accuracy after recovery"),
    Measure("rounds_back", "Rounds back", "rounds", "rounds from the request until back", 1),
    Measure("budget", "Budget", "rounds", "rounds after the request that were looked at", 0),
    Measure("gap", "Gap", "", "average gap of the scorecard to the retrained model"),
    Measure("forget_gap", "Forget to retrain", "", "forget accuracy less retraining's"),
    Measure("marker_gap", "Marker to retrain", "", "backdoor success less retraining's"),
    Measure("distance", "Distance", "", "prediction distance to the retrained model"),
    Measure("wall_s", "Wall time", "s", "unlearning and recovery", None),
    Measure("examples", "Examples", "", "examples processed, unlearning and recovery", 0),
    Measure("bytes", "Traffic", "bytes", "up and down, unlearning and recovery", 0),
    Measure("client_rounds", "Client rounds", "", "answers asked of clients, both phases", 0),
    Measure("history_bytes", "History", "bytes", "history that was read to answer", 0),
    Measure("unlearn_wall_s", "Unlearning", "s", "wall time without recovery", None),
    Measure("unlearn_examples", "Unlearning examples", "", "without recovery", 0),
    Measure("unlearn_client_rounds", "Unlearning client rounds", "", "without recovery", 0),
    Measure("share_wall_s", "Wall time", "of retraining", "wall time over retraining's"),
    Measure("share_examples", "Examples", "of retraining", "examples over retraining's"),
    Measure("share_bytes", "Traffic", "of retraining", "bytes over retraining's"),
    Measure("share_client_rounds", "Client rounds", "of retraining", "over retraining's"),
    Measure("share_unlearn_wall_s", "Unlearning", "of retraining", "wall time without recovery"),
    Measure("share_unlearn_examples", "Unlearning", "of retraining", "examples without recovery"),
)
MEASURES: Mapping[str, Measure] = {entry.name: entry for entry in _ALL}


@dataclass(frozen=True)
class Measured:
    """One strategy at one seed of one scenario.

    Parameters
    ----------
    scenario : str
        Name of the scenario, or of the run folder.
    strategy, family, guarantee : str
        Alias, family of :mod:`experiments.families.kin`, claim.
    seed : int
        Training seed, the unit of replication.
    numbers : mapping of str to float or None
        By the names of :data:`MEASURES`; None: not measured. ``rounds_back`` is None beside a
        ``budget`` where the model was not back within that many rounds.
    """

    scenario: str
    strategy: str
    family: str
    guarantee: str
    seed: int
    numbers: Mapping[str, float | None]


@dataclass(frozen=True)
class Course:
    """Mean test accuracy over the seeds, round by round since the request."""

    rounds: tuple[int, ...]
    accuracy: tuple[float, ...]
    unlearned: int  # rounds of unlearning; recovery follows


@dataclass(frozen=True)
class Finished:
    """A run as the comparison sees it.

    Parameters
    ----------
    name : str
        Of the scenario.
    scope, partition, data, model : str
        Of the first request, the partitioner with its parameters, the data set, the model.
    clients : int
        Their number; 0: not known.
    lines : tuple of Measured
        In the order of the tables.
    courses : mapping of str to Course
        By strategy; the original's ends at the request and has round 0 only.
    refused : mapping of str to str
        Strategies that did not answer, and why.
    seeds : tuple of int
        In order.
    asked : str
        What was to be forgotten, in words.
    level : float or None
        Mean test accuracy to be back at.
    marker_before : tuple of float
        Backdoor success of the original model, a value per seed; empty without a backdoor.
    settings : mapping
        The config without its seed: runs of equal settings can be joined.
    """

    name: str
    scope: str
    partition: str
    data: str
    model: str
    clients: int
    lines: tuple[Measured, ...]
    courses: Mapping[str, Course]
    refused: Mapping[str, str]
    seeds: tuple[int, ...]
    asked: str
    level: float | None
    marker_before: tuple[float, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_iid(self) -> bool:
        """Whether every client's examples are drawn from one distribution."""
        return self.partition == IID

    @property
    def is_traditional(self) -> bool:
        """Whether the model is no network, but one that a strategy of its own forgets from."""
        own = (cls.models or frozenset() for cls in registered().values())
        return self.model in frozenset[str]().union(*own)

    @property
    def strategies(self) -> tuple[str, ...]:
        """Who answered, in the order of the tables."""
        return tuple(dict.fromkeys(line.strategy for line in self.lines))

    def cell(self, strategy: str, measure: str) -> Cell:
        """Return one number of one strategy over the seeds."""
        own = [line for line in self.lines if line.strategy == strategy]
        return Cell({line.seed: line.numbers[measure] for line in own})


@dataclass(frozen=True)
class Cell:
    """One number of one strategy in one scenario, by seed."""

    by_seed: Mapping[int, float | None]

    @property
    def values(self) -> list[float]:
        """What was measured, in order of seeds."""
        return [v for _, v in sorted(self.by_seed.items()) if v is not None]


def joined(runs: Sequence[Finished]) -> list[Finished]:
    """Return the runs, those of equal settings and different seeds as one, named as the first.

    A long comparison may be run seed by seed, each in a folder of its own.
    """
    found: list[Finished] = []
    for run in runs:
        for place, other in enumerate(found):
            if other.settings == run.settings and not set(other.seeds) & set(run.seeds):
                found[place] = _join(other, run)
                break
        else:
            found.append(run)
    return found


def seeds_of(runs: Iterable[Finished]) -> tuple[int, ...]:
    """Return every seed that any run has, in order."""
    return tuple(sorted({seed for run in runs for seed in run.seeds}))


def scopes_of(runs: Sequence[Finished]) -> tuple[str, ...]:
    """Return the scopes of the runs, in the order client, sample, class, task."""
    order = ("client", "sample", "class", "task")
    found = {run.scope for run in runs}
    return tuple(scope for scope in order if scope in found)


def _join(one: Finished, other: Finished) -> Finished:
    """Return two runs of equal settings as one; means are weighted by their numbers of seeds."""
    weights = (len(one.seeds), len(other.seeds))
    names = [*one.strategies, *(n for n in other.strategies if n not in one.strategies)]
    lines = sorted(
        (*one.lines, *(replace(line, scenario=one.name) for line in other.lines)),
        key=lambda line: (names.index(line.strategy), line.seed),
    )
    courses = dict(other.courses)
    for name, course in one.courses.items():
        courses[name] = (
            _join_courses(course, other.courses[name], weights) if name in other.courses else course
        )
    levels = (one.level, other.level)
    level = None
    if levels[0] is not None and levels[1] is not None:
        level = (weights[0] * levels[0] + weights[1] * levels[1]) / sum(weights)
    return replace(
        one,
        lines=tuple(lines),
        courses=courses,
        refused={**other.refused, **one.refused},
        seeds=tuple(sorted((*one.seeds, *other.seeds))),
        level=level,
        marker_before=(*one.marker_before, *other.marker_before),
    )


def _join_courses(one: Course, other: Course, weights: tuple[int, int]) -> Course:
    left = dict(zip(one.rounds, one.accuracy, strict=True))
    right = dict(zip(other.rounds, other.accuracy, strict=True))
    rounds = tuple(sorted(left.keys() & right.keys()))
    both = tuple((weights[0] * left[r] + weights[1] * right[r]) / sum(weights) for r in rounds)
    return Course(rounds, both, max(one.unlearned, other.unlearned))
