"""From finished runs to what the families are compared by.

Everything is read from the files of a run folder; nothing is trained or predicted here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments.config.schema import DataConfig
from experiments.families.kin import family_of
from experiments.families.measures import IID, MEASURES, Course, Finished, Measured
from experiments.runs.details import Details, Phases, read_details
from experiments.runs.fates import is_marker_asked
from experiments.runs.results import ORIGINAL, RETRAIN, Row, read_results, strategies
from unlearning.evaluation.recovery import descent, level_to_reach
from unlearning.evaluation.scorecard import average_gap
from unlearning.records.ledger import Ledger

__all__ = ["read_run"]

_SPENT = ("wall_s", "examples", "client_rounds")
_Key = tuple[str, int]
_Curves = Mapping[_Key, tuple[dict[int, float], int]]  # course since the request, unlearning rounds


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
    # A marker whose data nobody asked to forget says nothing of forgetting.
    kind = (details.marker or {}).get("kind")
    is_backdoor = kind in ("backdoor", "spurious") and is_marker_asked(details)
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
