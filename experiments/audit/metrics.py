"""From traces to metrics: one function per metric reads a side of models against retrained ones.

A reading has one value per training seed wherever the definition gives one; their spread is the
spread that counts. What a metric means, and its mathematics, stand in
:mod:`unlearning.evaluation`; here is only which part of a trace goes where.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from experiments.audit.traces import RELEARN_STEPS, Probes, Trace
from unlearning.evaluation.conformal import conformal, conformal_threshold
from unlearning.evaluation.gaps import fairness, tow
from unlearning.evaluation.gaussian import gaussian_score
from unlearning.evaluation.lira import Lira, retain_change, smallest_rate, tpr_at_fpr, u_lira
from unlearning.evaluation.metrics import js_divergence
from unlearning.evaluation.quality import forgetting_quality
from unlearning.evaluation.relearn import anamnesis_index, relearn_steps
from unlearning.evaluation.rmia import rmia_auc
from unlearning.evaluation.scorecard import Verdict
from unlearning.evaluation.signals import confidence_of_logits
from unlearning.evaluation.three_sample import three_sample

__all__ = ["INSTRUMENTS", "Reading", "Sides"]

Floats = NDArray[np.float64]

_RATE = 0.01  # false-positive rate of M9, or the smallest that can be measured
_REFERENCES = 4  # reference models of M8; more gain little (Zarifzadeh et al. 2024)
_FORGET, _RETAIN, _TEST = 0, 1, 2  # places in Trace.accuracies


@dataclass(frozen=True)
class Reading:
    """One metric of one side.

    Parameters
    ----------
    value : float
        In the metric's unit.
    seeds : ndarray of shape (K,) or None
        One value per training seed, of which ``value`` is the mean; None where the definition
        needs all models at once.
    low, high : float or None
        95 % interval where the metric brings its own.
    verdict : Verdict or None
        Where it brings its own.
    """

    value: float
    seeds: Floats | None = None
    low: float | None = None
    high: float | None = None
    verdict: Verdict | None = None

    @staticmethod
    def of(seeds: Sequence[float] | Floats) -> Reading:
        """Return the reading of values per seed."""
        values = np.asarray(seeds, dtype=np.float64)
        return Reading(float(values.mean()), values)


@dataclass(frozen=True)
class Sides:
    """The models that a reading compares, K each; row i of ``judged`` and ``before`` share a seed.

    Parameters
    ----------
    judged : sequence of Trace
        Models of a strategy or a control.
    before : sequence of Trace
        Originals of the same seeds.
    reference : sequence of Trace
        Retrained models of other seeds.
    originals : sequence of Trace
        Originals of yet other seeds.
    probes : Probes
        Labels of all sets.
    repeats : int
        Of bootstraps; they only serve intervals.
    """

    judged: Sequence[Trace]
    before: Sequence[Trace]
    reference: Sequence[Trace]
    originals: Sequence[Trace]
    probes: Probes
    repeats: int = 1000

    @cached_property
    def lira(self) -> Lira | None:
        """The likelihood-ratio attack on the forget set; None with too few models."""
        if min(len(self.judged), len(self.reference)) < 3:
            return None
        return u_lira(self.phi("judged"), self.phi("reference"))

    def phi(self, side: str, part: str = "forget") -> Floats:
        """Return logit-scaled confidences, shape (K, n)."""
        labels = getattr(self.probes, part).y
        traces: Sequence[Trace] = getattr(self, side)
        return np.stack([confidence_of_logits(getattr(t, part), labels) for t in traces])

    def pairs(self) -> list[tuple[Trace, Trace]]:
        """Return judged and reference models, one by one; their seeds have nothing in common."""
        return list(zip(self.judged, self.reference, strict=True))


def _forget_gap(sides: Sides) -> Reading | None:
    return _differences(sides, lambda trace: trace.accuracies[_FORGET])


def _tow(sides: Sides) -> Reading | None:
    def one(ours: Trace, theirs: Trace) -> float:
        pair = [(float(ours.accuracies[i]), float(theirs.accuracies[i])) for i in range(3)]
        return tow(forget=pair[_FORGET], retain=pair[_RETAIN], test=pair[_TEST])

    return Reading.of([one(ours, theirs) for ours, theirs in sides.pairs()])


def _lira(sides: Sides) -> Reading | None:
    return None if sides.lira is None else Reading.of(sides.lira.per_model)


def _quality(sides: Sides) -> Reading | None:
    if len(sides.judged) < 3:
        return None
    return Reading(forgetting_quality(sides.phi("judged"), sides.phi("reference")).score)


def _three_sample(sides: Sides) -> Reading | None:
    if min(len(sides.judged), len(sides.reference), len(sides.originals)) < 2:
        return None
    found = three_sample(
        sides.phi("judged"), sides.phi("reference"), sides.phi("originals"), repeats=sides.repeats
    )
    return Reading(found.statistic, None, found.low, found.high, found.verdict)


def _marker(sides: Sides) -> Reading | None:
    if not len(sides.judged[0].marker):
        return None
    return _differences(sides, lambda trace: trace.marker[0])


def _gaussian(sides: Sides) -> Reading | None:
    if not len(sides.judged[0].noise):
        return None
    return Reading.of([gaussian_score(float(t.noise.sum()), len(t.noise)).z for t in sides.judged])


def _rmia(sides: Sides) -> Reading | None:
    parts = ("forget", "held_out", "test")
    if any(not len(getattr(sides.probes, part).y) for part in parts):
        return None
    models = sides.reference[:_REFERENCES]
    behind = {part: np.stack([_true(sides, t, part) for t in models]) for part in parts}
    found = []
    for trace in sides.judged:
        members, non_members, population = (
            (_true(sides, trace, part), behind[part]) for part in parts
        )
        found.append(rmia_auc(members, non_members, population))
    return Reading.of(found)


def _tpr(sides: Sides) -> Reading | None:
    if sides.lira is None:
        return None
    rate = max(_RATE, smallest_rate(int((sides.lira.truths == 0).sum())))
    return Reading(tpr_at_fpr(sides.lira.scores, sides.lira.truths, rate)) if rate < 1 else None


def _relearn(sides: Sides) -> Reading | None:
    if not len(sides.judged[0].relearn):
        return None
    goal = float(np.mean([trace.relearn[0] for trace in sides.originals]))

    def steps(trace: Trace) -> float:
        found = relearn_steps(trace.relearn.tolist(), goal)
        return RELEARN_STEPS if found is None else found  # cut off: at least so many

    found = [anamnesis_index(steps(ours), steps(theirs)) for ours, theirs in sides.pairs()]
    known = [value for value in found if value is not None]
    return Reading.of(known) if len(known) == len(found) else None


def _divergence(sides: Sides) -> Reading | None:
    return Reading.of(
        [
            js_divergence(softmax(ours.forget, axis=1), softmax(theirs.forget, axis=1))
            for ours, theirs in sides.pairs()
        ]
    )


def _coverage(sides: Sides) -> Reading | None:
    found = []
    for trace in sides.judged:
        limit = conformal_threshold(softmax(trace.test, axis=1), sides.probes.test.y)
        forget = softmax(trace.forget, axis=1)
        found.append(conformal(forget, sides.probes.forget.y, limit).coverage)
    return Reading.of(found)


def _retain_change(sides: Sides) -> Reading | None:
    if len(sides.judged) < 3:
        return None
    changes = retain_change(
        sides.phi("before", "retain"), sides.phi("judged", "retain"), sides.probes.retain_clients
    )
    return Reading(max(change.high for change in changes.values()))


def _fairness(sides: Sides) -> Reading | None:
    def clients(trace: Trace) -> dict[int, float]:
        return {c: float(v) for c, v in enumerate(trace.clients) if not np.isnan(v)}

    return Reading.of(
        [fairness(clients(ours), clients(theirs)).worst for ours, theirs in sides.pairs()]
    )


def _differences(sides: Sides, number: Callable[[Trace], float]) -> Reading:
    return Reading.of([number(ours) - number(theirs) for ours, theirs in sides.pairs()])


def _true(sides: Sides, trace: Trace, part: str) -> Floats:
    """Return the probability of the true label on a set, at least the smallest float32."""
    labels = getattr(sides.probes, part).y
    found = softmax(getattr(trace, part).astype(np.float64), axis=1)[np.arange(len(labels)), labels]
    return np.asarray(np.maximum(found, np.finfo(np.float32).tiny), dtype=np.float64)


INSTRUMENTS: Mapping[str, Callable[[Sides], Reading | None]] = {
    "M1": _forget_gap,
    "M2": _tow,
    "M3": _lira,
    "M4": _quality,
    "M5": _three_sample,
    "M6": _marker,
    "M7": _gaussian,
    "M8": _rmia,
    "M9": _tpr,
    "M10": _relearn,
    "M11": _divergence,
    "M12": _coverage,
    "M14": _retain_change,
    "M15": _fairness,
}
