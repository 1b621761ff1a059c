"""From traces to findings: metrics with cards, rows with intervals and verdicts, ROC curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from experiments.audit.controls import Controls, Gallery, read
from experiments.audit.jobs import Prepared
from experiments.audit.metrics import Reading, Sides
from experiments.audit.plan import Plan
from experiments.audit.results import (
    CardRecord,
    Estimate,
    Findings,
    MetricRecord,
    Roc,
    RowRecord,
)
from experiments.audit.store import TraceStore
from experiments.audit.traces import COUNTED, PHASES, Tracer
from experiments.audit.verdict import DECIDING, MARGINS, Opinion, decide
from experiments.config.loading import alias_of
from experiments.config.registry import resolve
from experiments.federation.task import Scenario, task
from experiments.runs.results import FINE_TUNE, ORIGINAL, RETRAIN
from unlearning.errors import FedUnlearnError
from unlearning.evaluation.catalogue import metrics_by_id
from unlearning.evaluation.costs import earned_speedup
from unlearning.evaluation.ranks import roc_points
from unlearning.evaluation.scorecard import Verdict, summarise
from unlearning.evaluation.statistics import holm, summarise_differences, tost, verdict

__all__ = ["AGAIN", "evaluate"]

AGAIN = "-again"  # behind a control's name: its second set of models
_POINTS = 101  # of a ROC curve


@dataclass(frozen=True)
class _Line:
    """A row in the making."""

    name: str
    kind: str
    guarantee: str
    sides: Sides
    readings: Mapping[str, Reading]


def evaluate(prepared: Prepared) -> Findings:
    """Return what the traces of an audit say.

    Raises
    ------
    FedUnlearnError
        If the trace of a control is missing.
    """
    config = prepared.config
    plan = Plan(config, prepared.names, prepared.size, prepared.key, prepared.doses)
    made = task(Scenario.of(config))
    requests = made.scheduled(config)
    traces = plan.find(TraceStore())
    gallery = Gallery(plan, traces, Tracer(made, requests, config.train, config.device).probes)
    names = {alias_of(name): name for name in prepared.names}
    if lost := [m for m in plan.models() if m not in traces and m.role not in names]:
        raise FedUnlearnError(
            f"the trace of {lost[0].role}, seed {lost[0].seed}, is missing; run the audit again"
        )
    controls = Controls(gallery)
    cards = {entry.id: controls.card(entry) for entry in metrics_by_id().values()}
    lines = list(_lines(gallery, names))
    rows = _rows(lines, controls, cards, gallery)
    metrics = tuple(
        MetricRecord(
            id=entry.id,
            name=entry.name,
            title=entry.title,
            unit=entry.unit,
            perfect=entry.perfect,
            remembered=entry.remembered,
            source=entry.source,
            card=cards[entry.id],
            decides=entry.id in DECIDING,
        )
        for entry in metrics_by_id().values()
    )
    curves = tuple(_roc(line, controls) for line in lines if line.sides.lira is not None)
    return Findings(metrics, rows, curves)


def _lines(gallery: Gallery, names: Mapping[str, str]) -> list[_Line]:
    """Return every control and strategy with what the metrics say of it."""
    plan = gallery.plan
    judged, reference, again = map(list, (plan.judged, plan.reference, plan.again))
    found = []
    for role, name, kind, guarantee in (
        (ORIGINAL, ORIGINAL, "control", "none"),
        (RETRAIN, RETRAIN, "control", "exact"),
    ):
        first = gallery.sides(role, judged, reference, again)
        second = gallery.sides(role, again, reference, judged)
        found.append(_Line(name, kind, guarantee, first, read(first)))
        found.append(_Line(f"{name}{AGAIN}", kind, guarantee, second, read(second)))
    for role in (FINE_TUNE, *names):
        seeds = gallery.seeds(role, judged)
        if len(seeds) < max(2, plan.size // 2):
            continue  # told among those that were refused
        sides = gallery.sides(role, seeds, reference, again)
        kind = "control" if role == FINE_TUNE else "strategy"
        guarantee = str(resolve(names.get(role, role)).guarantee)
        found.append(_Line(role, kind, guarantee, sides, read(sides)))
    return found


def _rows(
    lines: Sequence[_Line], controls: Controls, cards: Mapping[str, CardRecord], gallery: Gallery
) -> tuple[RowRecord, ...]:
    estimates = [
        {metric: _estimate(metric, found, controls) for metric, found in line.readings.items()}
        for line in lines
    ]
    _adjust(lines, estimates)
    rows = []
    for line, found in zip(lines, estimates, strict=True):
        opinions = {
            metric: _opinion(line, metric, found[metric], controls)
            for metric in DECIDING
            if metric in line.readings and cards[metric].passes
        }
        fate, why, more = decide(opinions, {m: cards[m].reason for m in DECIDING})
        if (speedup := _speedup(line, fate, gallery)) is not None:
            found["M16"] = speedup
        rows.append(
            RowRecord.model_validate(
                {
                    "strategy": line.name,
                    "kind": line.kind,
                    "guarantee": line.guarantee,
                    "metrics": found,
                    "verdict": fate,
                    "why": why,
                    "more_seeds": more,
                    "work": _work(line),
                }
            )
        )
    return tuple(rows)


def _estimate(metric: str, reading: Reading, controls: Controls) -> Estimate:
    """Return a reading with its interval, its place between the controls, and its tests."""
    low, high = reading.low, reading.high
    zero, line = controls.zero(metric), controls.scale(metric)
    p = equivalent = None
    count = 0
    if reading.seeds is not None:
        count = len(reading.seeds)
        spread = summarise(reading.seeds.tolist())
        low, high = spread.low, spread.high
        if zero is not None:
            differences = (reading.seeds - zero).tolist()
            p = summarise_differences(differences).p
            if metric in MARGINS:
                equivalent = tost(differences, MARGINS[metric]).equivalent
    on_scale: tuple[float | None, float | None] = (None, None)
    if line is not None and low is not None and high is not None:
        on_scale = line.interval(low, high)
    return Estimate(
        value=reading.value,
        low=low,
        high=high,
        n=count,
        calibrated=None if line is None else line(reading.value),
        calibrated_low=on_scale[0],
        calibrated_high=on_scale[1],
        p=p,
        equivalent=equivalent,
    )


def _adjust(lines: Sequence[_Line], estimates: list[dict[str, Estimate]]) -> None:
    """Adjust each metric's p values over everything that claims to have unlearned (Holm)."""
    claims = [
        found
        for line, found in zip(lines, estimates, strict=True)
        if line.kind == "strategy" or line.name == FINE_TUNE
    ]
    for metric in {name for found in claims for name in found}:
        tested = [found for found in claims if metric in found and found[metric].p is not None]
        values = [p for found in tested if (p := found[metric].p) is not None]
        for found, adjusted in zip(tested, holm(values) if values else [], strict=True):
            found[metric] = found[metric].model_copy(update={"p_holm": adjusted})


def _opinion(line: _Line, metric: str, estimate: Estimate, controls: Controls) -> Opinion:
    """Return what one metric says of a row."""
    reading, zero = line.readings[metric], controls.zero(metric)
    if reading.verdict is not None:
        return Opinion(reading.verdict, None)
    if reading.seeds is None or zero is None:
        return Opinion(Verdict.INCONCLUSIVE, None)
    found = verdict((reading.seeds - zero).tolist(), MARGINS[metric])
    fate = found.verdict
    if fate is Verdict.NOT_FORGOTTEN and estimate.p_holm is not None and estimate.p_holm >= 0.05:
        fate = Verdict.INCONCLUSIVE
    return Opinion(fate, found.more_seeds)


def _work(line: _Line) -> dict[str, float]:
    """Return what unlearning and recovery took, means over seeds; what no clock has a part in."""
    rows = [PHASES.index("unlearn"), PHASES.index("recover")]
    totals = np.mean([trace.work[rows].sum(axis=0) for trace in line.sides.judged], axis=0)
    return {name: float(value) for name, value in zip(COUNTED, totals, strict=True)}


def _speedup(line: _Line, fate: Verdict | None, gallery: Gallery) -> Estimate | None:
    """Return how many fewer examples were processed than in retraining, where it forgot (M16)."""
    column, rows = COUNTED.index("examples"), [PHASES.index("unlearn"), PHASES.index("recover")]

    def spent(sides: Sides) -> list[float]:
        return [float(trace.work[rows, column].sum()) for trace in sides.judged]

    plan = gallery.plan
    blocks = (list(plan.judged), list(plan.reference), list(plan.again))
    value = earned_speedup(spent(gallery.sides(RETRAIN, *blocks)), spent(line.sides), fate)
    return None if value is None else Estimate(value=value, n=len(line.sides.judged))


def _roc(line: _Line, controls: Controls) -> Roc:
    """Return the attack's ROC curve, at evenly spaced false-positive rates."""
    lira = line.sides.lira
    if lira is None:
        raise ValueError(f"{line.name} has too few models for a ROC curve")
    false_rates, true_rates = roc_points(lira.truths, lira.scores)
    at = np.linspace(0, 1, _POINTS)
    low, high = controls.spread("M3") or (0.5, 0.5)
    return Roc(
        strategy=line.name,
        fpr=tuple(float(x) for x in at),
        tpr=tuple(float(y) for y in np.interp(at, false_rates, true_rates)),
        auc=lira.auc,
        null_low=low,
        null_high=high,
    )
