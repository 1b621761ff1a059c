"""What may be said of every request after every strategy, from the files of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.runs.details import Answer, Details
from experiments.runs.results import ORIGINAL, RETRAIN, Row
from unlearning.evaluation.fate import FORGET_MEASURES, Fated, fate
from unlearning.evaluation.scorecard import MARKER_POWER, summarise

__all__ = ["fates", "is_marker_asked", "measured_answers"]


def is_marker_asked(details: Details) -> bool:
    """Return whether the data that carry the marker were to be forgotten.

    A run of an earlier version did not write it down; then a request must name the marked client,
    or samples of it.
    """
    marker = details.marker or {}
    if "asked" in marker:
        return bool(marker["asked"])
    owner = marker.get("client")
    return any(
        (request.get("scope") == "client" and owner in (request.get("clients") or ()))
        or (request.get("scope") == "sample" and str(owner) in map(str, request.get("samples", ())))
        for request in details.requests
    )


def measured_answers(details: Details, rows: Sequence[Row]) -> tuple[Answer, ...]:
    """Return the measures of every request by itself; of earlier versions where there is but one.

    The scorecard of a single request is its own; that of several says nothing of each.
    """
    if details.answers or len(details.requests) != 1:
        return details.answers
    asked = is_marker_asked(details)
    return tuple(
        Answer(
            request=str(details.requests[0].get("id", "")),
            strategy=row.strategy,
            seed=row.seed,
            forget_accuracy=row.metrics["forget_accuracy"],
            mia_auc=row.metrics["mia_auc"],
            backdoor_success=row.metrics["backdoor_success"] if asked else None,
        )
        for row in rows
    )


def fates(details: Details, rows: Sequence[Row]) -> dict[tuple[str, str], Fated]:
    """Return the verdict by request and strategy; original and retrained model have none."""
    answers = measured_answers(details, rows)
    names = dict.fromkeys(a.strategy for a in answers if a.strategy not in (ORIGINAL, RETRAIN))
    found = {}
    for request in details.requests:
        own = [answer for answer in answers if answer.request == request.get("id")]
        theirs = _by_seed(own, RETRAIN)
        before = [v for v in _by_seed(own, ORIGINAL)["backdoor_success"].values() if v is not None]
        has_power = bool(before) and summarise(before).mean >= MARKER_POWER
        for name in names:
            ours = _by_seed(own, name)
            if not any(ours.values()):
                continue
            if not has_power:
                ours = {**ours, "backdoor_success": {}}
            found[str(request.get("id")), name] = fate(
                ours, theirs, unseen=_unseen(request, own, name)
            )
    return found


def _by_seed(answers: Sequence[Answer], strategy: str) -> dict[str, dict[int, float | None]]:
    own = [answer for answer in answers if answer.strategy == strategy]
    return {name: {one.seed: getattr(one, name) for one in own} for name in FORGET_MEASURES}


def _unseen(
    request: Mapping[str, Any], answers: Sequence[Answer], strategy: str
) -> dict[int, int] | None:
    """Return the number of examples by seed where whole classes are forgotten everywhere."""
    if request.get("scope") != "class":
        return None
    return {one.seed: one.examples for one in answers if one.strategy == strategy}
