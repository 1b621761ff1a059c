"""After the last round: rows, details, timeline and report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from experiments.config.loading import Config
from experiments.federation.answers import asks_for_marker
from experiments.federation.conduct import Party
from experiments.federation.task import Task
from experiments.federation.task_measures import relearn_limit
from experiments.reporting.report import render
from experiments.reporting.timeline import timeline
from experiments.runs.details import (
    Answer,
    Details,
    Extra,
    Phases,
    Refused,
    Roc,
    Tallied,
    TaskMeasure,
    Work,
    write_details,
)
from experiments.runs.folder import RunFolder
from experiments.runs.results import ORIGINAL, RETRAIN, Row, write_results
from experiments.runs.versions import versions
from unlearning.arrays import digest, mismatch, parameters
from unlearning.cost import Cost, speedup
from unlearning.evaluation.attack_roc import attack_roc
from unlearning.evaluation.metrics import array_distance
from unlearning.evaluation.scorecard import membership_null_se, score
from unlearning.records.files import write_atomically
from unlearning.records.ledger import Ledger

__all__ = ["write_all"]

_DIGITS = 6  # of a share in details.json


def write_all(
    folder: RunFolder,
    config: Config,
    task: Task,
    parties: Sequence[Party],
    refused: Sequence[Refused],
    ledger: Ledger,
    command: str,
    task_measures: Sequence[TaskMeasure] = (),
    answers: Sequence[Answer] = (),
) -> None:
    """Write ``results.json``, ``results.csv``, ``details.json``, the timeline and the report."""
    references = {party.seed: party for party in parties if party.strategy == RETRAIN}
    rows = [_row(party, references.get(party.seed)) for party in parties]
    write_results(folder.path, config.to_dict(), rows)
    asked = ledger.requests()
    requests = [{**request.to_json(), "text": request.describe()} for request in asked]
    details = Details(
        command=command,
        versions=versions(),
        rounds={
            "learned": config.rounds,
            "recovery": config.recovery_rounds,
            **({"relearn": relearn_limit(config)} if task_measures else {}),
        },
        marker={**config.marker.model_dump(), "asked": asks_for_marker(task, asked)}
        if config.marker
        else None,
        requests=tuple(requests),
        data={
            "name": config.data.name,
            "clients": len(task.clients),
            "classes": task.num_classes,
            "model": config.model.name,
        },
        timeline=tuple(point for party in parties for point in party.timeline),
        phases=tuple(_phases(party) for party in parties if party.strategy != ORIGINAL),
        extra=tuple(_extra(party, references.get(party.seed)) for party in parties),
        task_measures=tuple(task_measures),
        answers=tuple(answers),
        refused=tuple(refused),
        rocs=tuple(filter(None, map(_roc, parties))),
        tallies=tuple(filter(None, map(_tally, parties))),
        ledger_head=ledger.head,
        history={"interval": config.history.interval, "dtype": config.history.dtype},
    )
    write_details(folder.path, details)
    if picture := timeline(details.timeline):
        write_atomically(folder.timeline, picture.encode())
    render(folder.path)


def _total(costs: Mapping[str, Cost], names: Sequence[str]) -> Cost:
    return sum((costs[name] for name in names if name in costs), Cost())


def _row(party: Party, reference: Party | None) -> Row:
    phases = ("learn",) if party.strategy == ORIGINAL else ("unlearn", "recover")
    spent = _total(party.costs, phases)
    cost: dict[str, Any] = {**spent.to_json(), "history_bytes": party.history_bytes}
    if reference is not None and party.strategy != ORIGINAL:
        base = _total(reference.costs, phases)
        cost["speedup_wall"] = speedup(base.wall_s, spent.wall_s)
        cost["speedup_examples"] = speedup(base.examples, spent.examples)
    metrics = score(party.outputs, reference.outputs if reference else None).to_json()
    return Row(
        strategy=party.strategy,
        seed=party.seed,
        scope=party.scope,
        guarantee=party.guarantee,
        metrics=metrics,
        cost=cost,
        model_digest=digest(party.arrays),
    )


def _phases(party: Party) -> Phases:
    found = {name: party.costs.get(name, Cost()).to_json() for name in ("unlearn", "recover")}
    return Phases(
        strategy=party.strategy,
        seed=party.seed,
        **{name: Work(**values) for name, values in found.items()},
    )


def _extra(party: Party, reference: Party | None) -> Extra:
    distance = None
    # A model that is no network may have other shapes, or whole numbers alone.
    if (
        reference is not None
        and not mismatch(party.arrays, reference.arrays)
        and any(array.any() for array in parameters(reference.arrays).values())
    ):
        distance = array_distance(party.arrays, reference.arrays)
    return Extra(
        strategy=party.strategy,
        seed=party.seed,
        array_distance=distance,
        mia_null_se=membership_null_se(party.outputs),
    )


def _roc(party: Party) -> Roc | None:
    found = attack_roc(party.outputs)
    if found is None:
        return None
    return Roc(
        strategy=party.strategy,
        seed=party.seed,
        fpr=tuple(round(share, _DIGITS) for share in found.fpr),
        tpr=tuple(round(share, _DIGITS) for share in found.tpr),
        members=found.members,
        non_members=found.non_members,
    )


def _tally(party: Party) -> Tallied | None:
    if party.tally is None:
        return None
    return Tallied(strategy=party.strategy, seed=party.seed, **asdict(party.tally))
