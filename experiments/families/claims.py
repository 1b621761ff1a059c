"""Claims as declared tests, and the verdicts that finished runs give.

A claim has one or more parts. A part names a number of :mod:`experiments.families.measures`, whose
it is, what it is held against, and where the boundary lies. For every seed the differences are
averaged over the scenarios and strategies that the part speaks of; the 95 % interval of these
averages over the seeds, the unit of replication, decides. It must lie on one side of the boundary
as a whole.

A claim is confirmed if all of its parts are (an intersection-union test, so no correction is due),
contradicted if one part is, with an interval widened for the number of parts (Bonferroni), and
inconclusive otherwise. Strategies whose own interval lies on the other side are named as exceptions
even where the family as a whole confirms the claim.

References
----------
R. L. Berger, J. C. Hsu: Bioequivalence Trials, Intersection-Union Tests and Equivalence Confidence
Sets. Statistical Science 11(4), 1996.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import numpy as np

from experiments.families.measures import Finished
from experiments.runs.results import FINE_TUNE, RETRAIN
from strategies.registry import strategies as registered
from unlearning.evaluation.scorecard import summarise

__all__ = [
    "ACCURACY",
    "MARKER",
    "ROUNDING",
    "Claim",
    "Contrast",
    "Declared",
    "Finding",
    "Interval",
    "Judgement",
    "Part",
    "Verdict",
    "balanced",
    "interval",
    "judge",
]

CONFIDENCE = 0.95
ACCURACY = 0.02  # test accuracy that makes no difference, a fraction
MARKER = 0.1  # backdoor success that makes no difference, a fraction
ROUNDING = 1e-6  # what float arithmetic may do to a number that is equal by construction

Relation = Literal["below", "above", "within"]
By = Mapping[int, float]  # seed to value


class Verdict(StrEnum):
    """What the data say of a claim or of a part of it."""

    CONFIRMED = "confirmed"
    CONTRADICTED = "contradicted"
    INCONCLUSIVE = "inconclusive"
    UNTESTED = "not tested"


@dataclass(frozen=True)
class Interval:
    """Mean over the seeds and its t interval; ``low`` and ``high`` are None for one seed."""

    mean: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Finding:
    """What one part of a claim found.

    Parameters
    ----------
    text : str
        What was looked at, in words.
    verdict : Verdict
        Of this part.
    measured : Interval or None
        What decided; None where a declaration was read or nothing was measured.
    needs : str
        What the claim asks of the number, in words.
    exceptions : tuple of str
        Who is on the other side, with the scenario.
    why : str
        Why nothing can be said; empty otherwise.
    measure : str
        Name of the number; empty for declarations.
    marks : tuple of float
        The boundaries.
    """

    text: str
    verdict: Verdict
    measured: Interval | None = None
    needs: str = ""
    exceptions: tuple[str, ...] = ()
    why: str = ""
    measure: str = ""
    marks: tuple[float, ...] = ()


@dataclass(frozen=True)
class Part:
    """A comparison of numbers, paired by seed and scenario.

    Parameters
    ----------
    text : str
        What is looked at.
    measure : str
        Name of a number.
    ours : tuple of str
        Strategies that the claim is about.
    relation : {"below", "above", "within"}
        Where the number must lie: below the bound, above it, or between minus and plus the bound.
    bound : float
        The boundary, in the unit of the number.
    theirs : tuple of str
        Whose mean is subtracted first, in the same scenario at the same seed; empty: nothing is.
    scopes : tuple of str
        Scopes that the part is about; empty: all.
    """

    text: str
    measure: str
    ours: tuple[str, ...]
    relation: Relation
    bound: float
    theirs: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()

    def cells(self, runs: Iterable[Finished]) -> dict[tuple[str, str], By]:
        """Return the number, or the difference, by strategy and scenario."""
        found: dict[tuple[str, str], By] = {}
        for run in runs:
            if self.scopes and run.scope not in self.scopes:
                continue
            base = _mean([_values(run, name, self.measure) for name in self.theirs])
            for name in self.ours:
                own = _values(run, name, self.measure)
                if self.theirs:
                    own = {seed: value - base[seed] for seed, value in own.items() if seed in base}
                if own:
                    found[name, run.name] = own
        return found


@dataclass(frozen=True)
class Contrast:
    """The same strategy in a scenario whose clients differ and in its IID twin.

    Parameters
    ----------
    text, measure, relation, bound
        As of :class:`Part`; the number is the one of the clients that differ less its twin's.
    ours : tuple of str
        Strategies; empty: all but the retrained and the fine-tuned control.
    """

    text: str
    measure: str
    relation: Relation
    bound: float
    ours: tuple[str, ...] = ()

    def cells(self, runs: Iterable[Finished]) -> dict[tuple[str, str], By]:
        """Return the difference by strategy and scenario."""
        known = tuple(runs)
        twins = {(r.scope, r.data, r.model, r.clients): r for r in known if r.is_iid}
        found: dict[tuple[str, str], By] = {}
        for run in known:
            twin = twins.get((run.scope, run.data, run.model, run.clients))
            if run.is_iid or twin is None:
                continue
            chosen = self.ours or (n for n in run.strategies if n not in (RETRAIN, FINE_TUNE))
            for name in chosen:
                here, there = (_values(r, name, self.measure) for r in (run, twin))
                both = {seed: here[seed] - there[seed] for seed in here if seed in there}
                if both:
                    found[name, run.name] = both
        return found


@dataclass(frozen=True)
class Declared:
    """What strategies declare, held against what the runs refused.

    Parameters
    ----------
    text, needs : str
        What was looked at, and what the claim asks.
    ours : tuple of str
        Strategies that the claim is about.
    breaks : callable
        ``breaks(strategy)``: in words how it breaks the claim; empty: it does not.
    """

    text: str
    needs: str
    ours: tuple[str, ...]
    breaks: Callable[[str], str]


@dataclass(frozen=True)
class Claim:
    """A sentence of the surveys and how it is tested.

    Parameters
    ----------
    name, text, source : str
        Short name, the claim, and where it comes from.
    parts : tuple
        All must hold.
    note : str
        What the test leaves open.
    """

    name: str
    text: str
    source: str
    parts: tuple[Part | Contrast | Declared, ...]
    note: str = ""


@dataclass(frozen=True)
class Judgement:
    """A claim and what the data say of it."""

    claim: Claim
    verdict: Verdict
    findings: tuple[Finding, ...]


def interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Return mean and Student's t interval of the mean.

    Raises
    ------
    ValueError
        If there is no value.
    """
    found = summarise(values, confidence)
    return Interval(found.mean, found.low, found.high, found.n)


def decide(found: Interval, relation: Relation, bound: float) -> Verdict:
    """Return on which side of a boundary the whole interval lies."""
    if found.low is None or found.high is None:
        return Verdict.INCONCLUSIVE
    if relation == "within":
        if -bound < found.low and found.high < bound:
            return Verdict.CONFIRMED
        outside = found.low > bound or found.high < -bound
        return Verdict.CONTRADICTED if outside else Verdict.INCONCLUSIVE
    low, high = (found.low, found.high) if relation == "below" else (-found.high, -found.low)
    edge = bound if relation == "below" else -bound
    if high < edge:
        return Verdict.CONFIRMED
    # On the boundary itself nothing is shown: equal is neither below nor above.
    return Verdict.CONTRADICTED if low > edge else Verdict.INCONCLUSIVE


def judge(claim: Claim, runs: Sequence[Finished]) -> Judgement:
    """Return what finished runs say of a claim."""
    confidence = 1 - (1 - CONFIDENCE) / len(claim.parts)
    findings = tuple(
        _read_declaration(part, runs)
        if isinstance(part, Declared)
        else _compare(part, runs, confidence)
        for part in claim.parts
    )
    found = [finding.verdict for finding in findings]
    if Verdict.CONTRADICTED in found:
        verdict = Verdict.CONTRADICTED
    elif all(entry is Verdict.CONFIRMED for entry in found):
        verdict = Verdict.CONFIRMED
    elif all(entry is Verdict.UNTESTED for entry in found):
        verdict = Verdict.UNTESTED
    else:
        verdict = Verdict.INCONCLUSIVE
    return Judgement(claim, verdict, findings)


# Inside -------------------------------------------------------------------------------------------


def _values(run: Finished, strategy: str, measure: str) -> dict[int, float]:
    found = run.cell(strategy, measure).by_seed
    return {seed: value for seed, value in found.items() if value is not None}


def _mean(parts: Sequence[By]) -> dict[int, float]:
    """Return the mean over those that have a seed, seed by seed."""
    seeds = sorted({seed for part in parts for seed in part})
    return {seed: float(np.mean([part[seed] for part in parts if seed in part])) for seed in seeds}


def balanced(cells: Iterable[By]) -> list[float]:
    """Return one average per seed, over cells that have the same seeds.

    A cell that lacks a seed would make the averages of two seeds tell of different strategies; the
    seeds that most cells share are kept, and cells without all of them left out.
    """
    known = [cell for cell in cells if cell]
    if not known:
        return []
    widest: By = max(known, key=lambda cell: len(cell))
    wanted = set(widest)
    full = [cell for cell in known if wanted <= set(cell)]
    return [float(np.mean([cell[seed] for cell in full])) for seed in sorted(wanted)]


def _compare(part: Part | Contrast, runs: Sequence[Finished], confidence: float) -> Finding:
    cells = part.cells(runs)
    needs = _needs(part)
    values = balanced(cells.values())
    if not values:
        why = "no run measured it"
        return Finding(part.text, Verdict.UNTESTED, needs=needs, why=why, measure=part.measure)
    found = interval(values)
    verdict = decide(found, part.relation, part.bound)
    if verdict is Verdict.CONTRADICTED:
        # One of several parts is enough to contradict, so each must be surer of it.
        wide = decide(interval(values, confidence), part.relation, part.bound)
        verdict = wide if wide is Verdict.CONTRADICTED else Verdict.INCONCLUSIVE
    alone = 1 - (1 - CONFIDENCE) / len(cells)
    against: dict[str, list[str]] = {}
    for (name, scenario), cell in cells.items():
        own = decide(interval(list(cell.values()), alone), part.relation, part.bound)
        if own is Verdict.CONTRADICTED:
            against.setdefault(name, []).append(scenario)
    exceptions = [f"{name} ({', '.join(scenarios)})" for name, scenarios in against.items()]
    why = "one seed has no interval" if found.n == 1 else ""
    marks = (-part.bound, part.bound) if part.relation == "within" else (part.bound,)
    return Finding(part.text, verdict, found, needs, tuple(exceptions), why, part.measure, marks)


def _read_declaration(part: Declared, runs: Sequence[Finished]) -> Finding:
    known = registered()
    broken = {name: part.breaks(name) for name in part.ours if name in known}
    exceptions = tuple(f"{name}: {how}" for name, how in broken.items() if how)
    if not broken:
        return Finding(part.text, Verdict.UNTESTED, needs=part.needs, why="no such strategy")
    verdict = Verdict.CONTRADICTED if exceptions else Verdict.CONFIRMED
    return Finding(part.text, verdict, needs=part.needs, exceptions=exceptions)


def _needs(part: Part | Contrast) -> str:
    if part.relation == "within":
        return f"between -{part.bound:g} and +{part.bound:g}"
    return f"{part.relation} {part.bound:g}"
