"""Which strategy for which need: declared rules, read off the measured comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from experiments.config.loading import alias_of
from experiments.families.claims import Interval, interval
from experiments.families.kin import CONTROL, family_of
from experiments.families.measures import Finished
from experiments.runs.results import FINE_TUNE, RETRAIN
from strategies.registry import strategies as registered
from unlearning.evaluation.scorecard import Verdict as Marker
from unlearning.evaluation.scorecard import judge_marker, paired_differences

__all__ = ["NEEDS", "Candidate", "Need", "candidates"]


@dataclass(frozen=True)
class Candidate:
    """One strategy over all scenarios of one scope.

    Parameters
    ----------
    strategy, family, guarantee : str
        Who it is.
    gap : float
        Mean average gap to retraining.
    closer : Interval or None
        Average gap less fine-tuning's, paired by seed; None: not measured.
    forgets : bool
        Closer than fine-tuning as a whole interval, or exact; not suppressed, which hides and still
        holds; and no marker says otherwise.
    drop, rounds_back, share_examples, unlearn_client_rounds : float or None
        Means over scenarios and seeds; ``rounds_back`` is None where any seed was not back.
    stored : tuple of str
        What must have been kept while learning.
    asks : bool
        Whether the leaver has to help.
    """

    strategy: str
    family: str
    guarantee: str
    gap: float
    closer: Interval | None
    forgets: bool
    drop: float | None
    rounds_back: float | None
    share_examples: float | None
    unlearn_client_rounds: float | None
    stored: tuple[str, ...]
    asks: bool


@dataclass(frozen=True)
class Need:
    """What someone may want, and how to choose by it.

    Parameters
    ----------
    name, rule : str
        The need, and what is shown, in words.
    keeps : callable
        Whether a candidate may be named.
    order : callable
        The smaller, the earlier.
    shows : callable
        What stands beside the name.
    """

    name: str
    rule: str
    keeps: Callable[[Candidate], bool]
    order: Callable[[Candidate], float]
    shows: Callable[[Candidate], str]


def candidates(runs: Sequence[Finished], scope: str) -> list[Candidate]:
    """Return everybody who answered requests of a scope, the controls left out, nearest first."""
    own = [run for run in runs if run.scope == scope]
    names = dict.fromkeys(name for run in own for name in run.strategies)
    found = [
        _candidate(name, [run for run in own if name in run.strategies])
        for name in names
        if family_of(name) != CONTROL and name != RETRAIN
    ]
    return sorted((c for c in found if c is not None), key=lambda c: c.gap)


def _candidate(name: str, runs: Sequence[Finished]) -> Candidate | None:
    gaps = [value for run in runs for value in run.cell(name, "gap").values]
    if not gaps:
        return None
    line = next(line for line in runs[0].lines if line.strategy == name)
    cls = registered().get(alias_of(name))
    closer = _closer(name, runs)
    exact = line.guarantee == "exact"
    is_closer = closer is not None and closer.high is not None and closer.high < 0
    return Candidate(
        strategy=name,
        family=line.family,
        guarantee=line.guarantee,
        gap=float(np.mean(gaps)),
        closer=closer,
        forgets=(exact or is_closer)
        and line.guarantee != "suppressed"
        and not _still_marked(name, runs),
        drop=_mean(runs, name, "drop"),
        rounds_back=_rounds_back(runs, name),
        share_examples=_mean(runs, name, "share_examples"),
        unlearn_client_rounds=_mean(runs, name, "unlearn_client_rounds"),
        stored=tuple(sorted(cls.needs - {"initial"})) if cls else (),
        asks=bool(cls and cls.asks_forgotten),
    )


def _mean(runs: Sequence[Finished], name: str, measure: str) -> float | None:
    found = [value for run in runs for value in run.cell(name, measure).values]
    return float(np.mean(found)) if found else None


def _rounds_back(runs: Sequence[Finished], name: str) -> float | None:
    lines = [line.numbers for run in runs for line in run.lines if line.strategy == name]
    looked_at = [numbers for numbers in lines if numbers["budget"] is not None]
    found = [numbers["rounds_back"] for numbers in looked_at]
    values = [value for value in found if value is not None]
    return float(np.mean(values)) if values and len(values) == len(found) else None


def _closer(name: str, runs: Sequence[Finished]) -> Interval | None:
    """Return the gap less fine-tuning's, averaged over scenarios, with its interval over seeds."""
    by_seed: dict[int, list[float]] = {}
    for run in runs:
        ours, theirs = (run.cell(who, "gap").by_seed for who in (name, FINE_TUNE))
        for seed in sorted(ours.keys() & theirs.keys()):
            left, right = ours[seed], theirs[seed]
            if left is not None and right is not None:
                by_seed.setdefault(seed, []).append(left - right)
    return interval([float(np.mean(found)) for found in by_seed.values()]) if by_seed else None


def _still_marked(name: str, runs: Sequence[Finished]) -> bool:
    """Return whether the planted marker says "not forgotten" in any scenario."""
    for run in runs:
        values = run.cell(name, "marker_gap").by_seed
        differences = paired_differences(values, dict.fromkeys(values, 0.0))
        if judge_marker(run.marker_before, differences) is Marker.NOT_FORGOTTEN:
            return True
    return False


def _or_last(value: float | None) -> float:
    return float("inf") if value is None else value


def _gap(candidate: Candidate) -> str:
    return f"gap {candidate.gap:.3f}"


def _outage(candidate: Candidate) -> str:
    drop, rounds = max(0.0, _or_last(candidate.drop)), _or_last(candidate.rounds_back)
    return f"drop {drop:.3f}, back after {rounds:.1f} rounds"


NEEDS: tuple[Need, ...] = (
    Need(
        "A promise, not a measurement",
        "exact or certified by construction; nearest to retraining first",
        lambda c: c.guarantee in ("exact", "certified"),
        lambda c: c.gap,
        lambda c: f"{c.guarantee}, {_gap(c)}",
    ),
    Need(
        "As close to retraining as can be",
        "smallest average gap, with less work than retraining",
        lambda c: c.share_examples is None or c.share_examples < 1,
        lambda c: c.gap,
        _gap,
    ),
    Need(
        "As little work as can be",
        "fewest examples processed, recovery included, as a share of retraining's",
        lambda c: c.share_examples is not None,
        lambda c: _or_last(c.share_examples),
        lambda c: f"{_or_last(c.share_examples):.2f} of retraining",
    ),
    Need(
        "The service must not suffer",
        "smallest drop of test accuracy on the way; back in all seeds",
        lambda c: c.drop is not None and c.rounds_back is not None,
        lambda c: _or_last(c.drop),
        _outage,
    ),
    Need(
        "Nothing was kept while learning",
        "needs no history and no keepsakes of clients",
        lambda c: not c.stored,
        lambda c: c.gap,
        _gap,
    ),
    Need(
        "The leaver is gone already",
        "does not ask it for help",
        lambda c: not c.asks,
        lambda c: c.gap,
        _gap,
    ),
    Need(
        "Clients cannot be called for the unlearning",
        "no client round before recovery",
        lambda c: c.unlearn_client_rounds == 0,
        lambda c: c.gap,
        _gap,
    ),
)
