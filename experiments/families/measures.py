"""From finished runs to what the families are compared by: a line per run, strategy and seed.

Everything is read from the files of a run folder; nothing is trained or predicted here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from experiments.config.schema import DataConfig
from experiments.families.kin import family_of
from experiments.runs.results import (
    ORIGINAL,
    RETRAIN,
    Details,
    Phases,
    Row,
    read_details,
    read_results,
    strategies,
)
from strategies.registry import strategies as registered
from unlearning.evaluation.recovery import descent, level_to_reach
from unlearning.evaluation.scorecard import average_gap
from unlearning.records.ledger import Ledger

__all__ = [
    "MEASURES",
    "Cell",
    "Course",
    "Finished",
    "Measure",
    "Measured",
    "joined",
    "read_run",
    "scopes_of",
    "seeds_of",
]

IID = "iid"
_SPENT = ("wall_s", "examples", "client_rounds")


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


def read_run(folder: Path, name: str, *, margin: float) -> Finished:
    """Return what the comparison needs of a finished run.

    Parameters
    ----------
    folder : Path
        Holds ``results.json``; ``details.json`` and ``ledger.sqlite`` add course and phases.
    name : str
        What to call it.
    margin : float
        Test accuracy below the level that still counts as back, a fraction.

    Raises
    ------
    ResultsError
        If a file is missing, damaged or of another shape.
    """
    config, rows = read_results(folder)
    details = read_details(folder)
    after = _after_unlearning(folder / "ledger.sqlite")
    courses = _courses(details, after)
    before = {
        seed: course[0] for (alias, seed), (course, _) in courses.items() if alias == ORIGINAL
    }
    reach = {
        seed: level_to_reach(value, _last(courses, RETRAIN, seed)) for seed, value in before.items()
    }
    index = {(row.strategy, row.seed): row for row in rows}
    phases = {(found.strategy, found.seed): found for found in details.phases}
    lines = []
    for alias in strategies(rows):
        for row in sorted((row for row in rows if row.strategy == alias), key=lambda r: r.seed):
            key = (alias, row.seed)
            numbers = _of_row(row, index, after.get(key))
            if row.seed in reach and alias != ORIGINAL and key in courses:
                numbers |= _of_course(before[row.seed], courses[key][0], reach[row.seed], margin)
            numbers |= _of_cost(row, index.get((RETRAIN, row.seed)), phases)
            whole = {entry: numbers.get(entry) for entry in MEASURES}
            lines.append(Measured(name, alias, family_of(alias), row.guarantee, row.seed, whole))
    texts = [str(request.get("text", "something")) for request in details.requests]
    marker = [index[key].metrics["backdoor_success"] for key in index if key[0] == ORIGINAL]
    is_backdoor = (details.marker or {}).get("kind") == "backdoor"
    return Finished(
        name=name,
        scope=rows[0].scope if rows else "",
        partition=_partition(config),
        data=str(_part(config, "data").get("name", details.data.get("name", ""))),
        model=str(_part(config, "model").get("name", details.data.get("model", ""))),
        clients=int(details.data.get("clients", 0)),
        lines=tuple(lines),
        courses=dict(_mean_courses(courses)),
        refused={refused.strategy: refused.reason for refused in details.refused},
        seeds=tuple(sorted({row.seed for row in rows})),
        asked=" and ".join(texts),
        level=sum(reach.values()) / len(reach) if reach else None,
        marker_before=tuple(v for v in marker if v is not None) if is_backdoor else (),
        settings={key: value for key, value in config.items() if key != "seed"},
    )


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


# Inside -------------------------------------------------------------------------------------------

_Key = tuple[str, int]
_Curves = Mapping[_Key, tuple[dict[int, float], int]]  # course since the request, unlearning rounds


def _part(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = config.get(name)
    return found if isinstance(found, Mapping) else {}


def _partition(config: Mapping[str, Any]) -> str:
    """Return the partitioner with its parameters: ``dirichlet(alpha=0.3)``."""
    data = _part(config, "data")
    own = [
        f"{k}={v}"
        for k, v in sorted(data.items())
        if k not in DataConfig.model_fields and v is not None
    ]
    return f"{data.get('partitioner', IID)}{'(' + ', '.join(own) + ')' if own else ''}"


def _after_unlearning(ledger: Path) -> dict[_Key, float]:
    """Return test accuracy when the last request was fulfilled, by strategy and seed."""
    if not ledger.exists():
        return {}
    found: dict[_Key, float] = {}
    with Ledger(ledger) as events:
        for event in events.events():
            alias, _, seed = event.branch.rpartition("/seed-")
            metrics = event.facts.get("metrics")
            if event.event != "fulfilled" or not alias or not isinstance(metrics, Mapping):
                continue
            value = metrics.get("test_accuracy")
            if value is not None and seed.isdecimal():
                found[alias, int(seed)] = float(value)
    return found


def _courses(details: Details, after: Mapping[_Key, float]) -> _Curves:
    """Return test accuracy by rounds since the request; the original's is its last one, at 0."""
    found: dict[_Key, tuple[dict[int, float], int]] = {}
    learned: dict[int, tuple[int, float]] = {}
    for point in details.timeline:
        if (
            point.strategy == ORIGINAL
            and point.phase == "learn"
            and point.test_accuracy is not None
        ):
            learned[point.seed] = max(
                learned.get(point.seed, (0, 0.0)), (point.round, point.test_accuracy)
            )
    for seed, (_, value) in learned.items():
        found[ORIGINAL, seed] = ({0: value}, 0)
    for point in details.timeline:
        if point.strategy == ORIGINAL or point.test_accuracy is None or point.seed not in learned:
            continue
        course, unlearned = found.setdefault((point.strategy, point.seed), ({}, 0))
        course[point.round - learned[point.seed][0]] = point.test_accuracy
        is_unlearning = point.phase == "unlearn"
        found[point.strategy, point.seed] = (course, unlearned + is_unlearning)
    for key, value in after.items():
        # Without a round of its own the unlearned model goes into service at once.
        course, unlearned = found.get(key, ({}, 0))
        if key[1] in learned and not unlearned:
            found[key] = ({0: value, **course}, 0)
    return found


def _last(courses: _Curves, alias: str, seed: int) -> float | None:
    course, _ = courses.get((alias, seed), ({}, 0))
    return course[max(course)] if course else None


def _mean_courses(courses: _Curves) -> Iterator[tuple[str, Course]]:
    """Yield the mean over seeds of every strategy, over the rounds that all seeds have."""
    for alias in dict.fromkeys(alias for alias, _ in courses):
        own = [found for (name, _), found in courses.items() if name == alias]
        rounds = sorted(set.intersection(*(set(course) for course, _ in own)))
        mean = tuple(sum(course[r] for course, _ in own) / len(own) for r in rounds)
        yield alias, Course(tuple(rounds), mean, max(unlearned for _, unlearned in own))


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


def _less(left: float | None, right: float | None) -> float | None:
    return None if left is None or right is None else left - right


def _of_row(row: Row, index: Mapping[_Key, Row], after: float | None) -> dict[str, float | None]:
    """Return what final models say, against the original and the retrained one of the seed."""
    original, reference = index.get((ORIGINAL, row.seed)), index.get((RETRAIN, row.seed))
    theirs: Mapping[str, float | None] = reference.metrics if reference else {}
    start = original.metrics["test_accuracy"] if original else None
    end = row.metrics["test_accuracy"]
    level = None if start is None else level_to_reach(start, theirs.get("test_accuracy"))
    compared = reference is not None and row.strategy != RETRAIN
    found: dict[str, float | None] = {"end": end}
    if row.strategy != ORIGINAL:
        found |= {"after": after, "loss": _less(level, after), "short": _less(level, end)}
    if compared:
        found |= {
            "gap": average_gap(row.metrics, theirs),
            "end_gap": _less(end, theirs["test_accuracy"]),
            "forget_gap": _less(row.metrics["forget_accuracy"], theirs["forget_accuracy"]),
            "marker_gap": _less(row.metrics["backdoor_success"], theirs["backdoor_success"]),
            "distance": row.metrics["prediction_distance"],
        }
    return found


def _of_course(
    before: float, course: Mapping[int, float], level: float, margin: float
) -> dict[str, float | None]:
    found = descent(before, course, level, margin)
    return {
        "before": before,
        "lowest": found.lowest,
        "drop": found.drop,
        "rounds_back": None if found.rounds_back is None else float(found.rounds_back),
        "budget": float(found.budget),
    }


def _spent(row: Row | None, phases: Mapping[_Key, Phases]) -> dict[str, float | None]:
    """Return absolute costs of a row; the original's are those of learning and left out."""
    if row is None or row.strategy == ORIGINAL:
        return {}
    up, down = row.cost["bytes_up"], row.cost["bytes_down"]
    found = {name: row.cost[name] for name in (*_SPENT, "history_bytes")}
    found["bytes"] = None if up is None or down is None else up + down
    if own := phases.get((row.strategy, row.seed)):
        found |= {f"unlearn_{name}": getattr(own.unlearn, name) for name in _SPENT}
    return found


def _of_cost(
    row: Row, reference: Row | None, phases: Mapping[_Key, Phases]
) -> dict[str, float | None]:
    """Return costs, and their shares of the retrained model's at the same seed."""
    ours, base = _spent(row, phases), _spent(reference, phases)
    shares = {
        f"share_{name}": value / whole
        for name, value in ours.items()
        if f"share_{name}" in MEASURES and value is not None and (whole := base.get(name))
    }
    return {**ours, **shares}


def seeds_of(runs: Iterable[Finished]) -> tuple[int, ...]:
    """Return every seed that any run has, in order."""
    return tuple(sorted({seed for run in runs for seed in run.seeds}))


def scopes_of(runs: Sequence[Finished]) -> tuple[str, ...]:
    """Return the scopes of the runs, in the order client, sample, class, task."""
    order = ("client", "sample", "class", "task")
    found = {run.scope for run in runs}
    return tuple(scope for scope in order if scope in found)
