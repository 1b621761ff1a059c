"""Controls of an audit: null, positive and dose, each metric's card and its scale.

Null and positive runs are splits of the retrained and original models into disjoint sides: every
split is an audit of its own, but models return in several of them. Their spread is therefore the
spread over models, and intervals of the rate of false alarms are a little too short.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from experiments.audit.jobs import Model
from experiments.audit.metrics import INSTRUMENTS, Reading, Sides
from experiments.audit.plan import DOSES, Plan
from experiments.audit.results import CardRecord
from experiments.audit.traces import Probes, Trace
from experiments.runs.results import ORIGINAL, RETRAIN
from unlearning.evaluation.calibrated import Scale, scale
from unlearning.evaluation.cards import MIN_SEPARATION, Card, validity_card
from unlearning.evaluation.catalogue import metrics_by_id
from unlearning.evaluation.entry import Metric

__all__ = ["NULL_RUNS", "Controls", "Gallery", "read", "splits"]

NULL_RUNS = 20
_SPLIT = 6  # last part of the address of the draws of splits


@dataclass(frozen=True)
class Gallery:
    """All traces of an audit, and how to put sides together.

    Parameters
    ----------
    plan : Plan
        Which seeds serve what.
    traces : mapping of Model to Trace
        Those that are there.
    probes : Probes
        Labels of all sets.
    """

    plan: Plan
    traces: Mapping[Model, Trace]
    probes: Probes

    def seeds(self, role: str, block: Sequence[int]) -> list[int]:
        """Return the seeds of a block on which there is a model of that role."""
        return [seed for seed in block if Model(role, seed) in self.traces]

    def sides(
        self,
        role: str,
        judged: Sequence[int],
        reference: Sequence[int],
        originals: Sequence[int],
        repeats: int = 1000,
    ) -> Sides:
        """Return a role's models on some seeds beside retrained and original ones of others."""

        def take(which: str, seeds: Sequence[int]) -> list[Trace]:
            return [self.traces[Model(which, seed)] for seed in seeds]

        return Sides(
            judged=take(role, judged),
            before=take(ORIGINAL, judged),
            reference=take(RETRAIN, reference[: len(judged)]),
            originals=take(ORIGINAL, originals),
            probes=self.probes,
            repeats=repeats,
        )


class Controls:
    """What every metric says of models whose fate is known.

    Parameters
    ----------
    gallery : Gallery
        All traces.
    """

    def __init__(self, gallery: Gallery) -> None:
        self._cards: dict[str, CardRecord] = {}
        plan = gallery.plan
        draws = splits(plan)
        self.null = [read(gallery.sides(RETRAIN, *split, repeats=1)) for split in draws]
        self.positive = [read(gallery.sides(ORIGINAL, *split, repeats=1)) for split in draws]
        blocks = (plan.judged, plan.reference, plan.again)
        self.doses = {
            k: read(gallery.sides(Model.dosed(k, 0).role, *blocks, repeats=1))
            for k in (DOSES if plan.doses else ())
        }

    def values(self, runs: Sequence[Mapping[str, Reading]], metric: str) -> list[float]:
        """Return what a metric said in several runs; empty if it did not apply in one."""
        found = [run[metric].value for run in runs if metric in run]
        return found if len(found) == len(runs) else []

    def scale(self, metric: str) -> Scale | None:
        """Return the scale on which retraining is 0 and no unlearning 1, where there is one.

        Runs share models, so that a test of their means finds differences where there are none;
        the two controls also have to lie apart, run by run.
        """
        found = metrics_by_id()[metric]
        separation = self.card(found).separation_auc
        if separation is None or separation < MIN_SEPARATION:
            return None
        return scale(self.values(self.null, metric), self.values(self.positive, metric))

    def zero(self, metric: str) -> float | None:
        """Return what the metric says of retrained models, the mean over null runs."""
        found = self.values(self.null, metric)
        return float(np.mean(found)) if found else None

    def spread(self, metric: str) -> tuple[float, float] | None:
        """Return between which values 95 % of the null runs lie."""
        found = self.values(self.null, metric)
        if not found:
            return None
        low, high = np.quantile(found, [0.025, 0.975])
        return float(low), float(high)

    def card(self, metric: Metric) -> CardRecord:
        """Return whether a metric may be trusted here."""
        if metric.id not in self._cards:
            self._cards[metric.id] = self._made(metric)
        return self._cards[metric.id]

    def _made(self, metric: Metric) -> CardRecord:
        if metric.id not in INSTRUMENTS:
            return CardRecord(passes=False, reason=_NOT_MADE.get(metric.id, "not measured here"))
        null = self.values(self.null, metric.id)
        if not null:
            return CardRecord(passes=False, reason=_NOT_APPLICABLE.get(metric.id, _TOO_FEW))
        if metric.remembered is None:
            return CardRecord(passes=False, reason="does not measure forgetting")
        found = validity_card(
            metric.id,
            null,
            self.values(self.positive, metric.id),
            {k: [run[metric.id].value] for k, run in self.doses.items() if metric.id in run},
            remembered=metric.remembered,
        )
        return _record(found)


_TOO_FEW = "could not be measured with these models"
_NOT_MADE = {
    "M13": "needs a second pair of federations with forgotten and unseen data swapped",
    "M16": "is a cost, quoted for strategies that forgot",
    "M17": "needs several requests one after the other",
    "M18": "is a guarantee in words",
}
_NOT_APPLICABLE = {
    "M6": "needs a planted backdoor or flipped labels (marker.kind)",
    "M7": "needs planted noise (marker.kind = noise) and a network",
    "M8": "needs held-out data of the owners (data.held_out), and a request that takes examples",
    "M10": "retrained models are there without relearning, or it is no network",
}


def read(sides: Sides) -> dict[str, Reading]:
    """Return what every metric that applies says."""
    found = {metric: instrument(sides) for metric, instrument in INSTRUMENTS.items()}
    return {metric: reading for metric, reading in found.items() if reading is not None}


def splits(plan: Plan) -> list[tuple[list[int], list[int], list[int]]]:
    """Return seeds of judged, reference and original models, disjoint within each split."""
    pool = np.array([*plan.judged, *plan.reference, *plan.again])
    generator = np.random.default_rng([plan.config.seed, 0, 0, _SPLIT])
    found = []
    for _ in range(NULL_RUNS):
        first, second, third = generator.permutation(pool).reshape(3, -1).tolist()
        found.append((sorted(first), sorted(second), sorted(third)))
    return found


def _record(card: Card) -> CardRecord:
    return CardRecord(
        passes=card.passes,
        reason=card.reason,
        false_alarm_rate=card.false_alarm_rate,
        false_alarm_low=card.false_alarm_low,
        false_alarm_high=card.false_alarm_high,
        separation_auc=card.separation_auc,
        dose_spearman=card.dose_spearman,
        dose=card.dose,
    )
