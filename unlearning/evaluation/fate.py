"""What may be said of one request: forgotten, not forgotten, inconclusive, or not measured.

*Fulfilled* says that the work was done and the data deleted. Whether the model forgot is another
question, answered beside a model retrained without the data and by the margins that were declared
before any run (:data:`unlearning.evaluation.scorecard.MARGINS`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from unlearning.evaluation.scorecard import (
    MARGINS,
    Closeness,
    closeness,
    paired_differences,
)

__all__ = ["FORGET_MEASURES", "Fate", "Fated", "fate"]

FORGET_MEASURES = ("forget_accuracy", "mia_auc", "backdoor_success")
_ALPHA = 0.05
_WORDS = {
    "forget_accuracy": "forget accuracy",
    "mia_auc": "membership AUC",
    "backdoor_success": "backdoor success",
}

BySeed = Mapping[int, float | None]


class Fate(StrEnum):
    """The verdict that stands beside the state of a request."""

    FORGOTTEN = "forgotten"
    NOT_FORGOTTEN = "not forgotten"
    INCONCLUSIVE = "inconclusive"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Fated:
    """A verdict, and in words what it rests on."""

    fate: Fate
    why: str


def fate(
    ours: Mapping[str, BySeed],
    theirs: Mapping[str, BySeed],
    *,
    unseen: Mapping[int, int] | None = None,
) -> Fated:
    """Return what the measures of one request say.

    Not forgotten: the 95 % interval of a measure's difference to retraining lies beyond its margin
    on the side of remembering. Forgotten: those of all measures lie within. Anything else is
    inconclusive, a single seed always, with one exception: a model that never saw a class does not
    answer it, so what gets more examples of a forgotten class right than the margin allows (by an
    exact binomial test) has not forgotten it, whatever the number of seeds.

    Parameters
    ----------
    ours, theirs : mapping of str to mapping of int to float or None
        Measures of :data:`FORGET_MEASURES` by name and seed, of the model and of the retrained
        one; ``theirs`` may be empty.
    unseen : mapping of int to int, optional
        Where whole classes are forgotten everywhere: the number of examples by seed.

    Examples
    --------
    >>> kept = {"forget_accuracy": {0: 1.0}}
    >>> str(fate(kept, {}, unseen={0: 178}).fate)
    'not forgotten'
    >>> str(fate(kept, {}).fate)
    'not measured'
    """
    if unseen and (found := _answers_unseen(ours, theirs, unseen)):
        return found
    where: dict[Closeness, list[str]] = {}
    beyond: list[str] = []
    single = False
    for name in FORGET_MEASURES:
        differences = paired_differences(ours.get(name, {}), theirs.get(name, {}))
        found_at = closeness(differences, MARGINS[name])
        if found_at is None:
            continue
        single |= len(differences) == 1
        where.setdefault(found_at, []).append(_WORDS[name])
        if found_at is Closeness.BEYOND and sum(differences) > 0:
            beyond.append(_WORDS[name])
    if not where:
        return Fated(Fate.NOT_MEASURED, _unmeasured(ours))
    if beyond:
        return Fated(Fate.NOT_FORGOTTEN, f"{_listed(beyond)} above retraining, beyond the margin")
    if where.keys() == {Closeness.WITHIN}:
        words = _listed(where[Closeness.WITHIN])
        return Fated(Fate.FORGOTTEN, f"{words} within the margin of retraining")
    if single:
        return Fated(Fate.INCONCLUSIVE, "one seed has no interval; repeat with more seeds")
    if Closeness.BEYOND in where:
        words = _listed(where[Closeness.BEYOND])
        return Fated(
            Fate.INCONCLUSIVE,
            f"{words} below retraining, beyond the margin: the data look less familiar than data "
            "never seen",
        )
    words = _listed(where[Closeness.OPEN])
    return Fated(Fate.INCONCLUSIVE, f"{words} across the margin of retraining; more seeds may tell")


def _answers_unseen(
    ours: Mapping[str, BySeed], theirs: Mapping[str, BySeed], unseen: Mapping[int, int]
) -> Fated | None:
    """Return the verdict on a model that still answers a class that it must not know."""
    from scipy.special import bdtrc  # the binomial's upper tail; scipy.stats costs a second

    margin = MARGINS["forget_accuracy"]
    shares = {s: v for s, v in ours.get("forget_accuracy", {}).items() if v is not None}
    shares = {seed: value for seed, value in shares.items() if unseen.get(seed)}
    base = theirs.get("forget_accuracy", {})
    for seed, share in shares.items():
        allowed = min((base.get(seed) or 0.0) + margin, 1.0)
        right = round(share * unseen[seed])
        if bdtrc(right - 1, unseen[seed], allowed) >= _ALPHA:
            return None
    if not shares:
        return None
    mean = sum(shares.values()) / len(shares)
    return Fated(
        Fate.NOT_FORGOTTEN,
        f"forget accuracy {mean:.3f}: a model that never saw the class would not answer it",
    )


def _unmeasured(ours: Mapping[str, BySeed]) -> str:
    seen = any(v is not None for found in ours.values() for v in found.values())
    return (
        "no retrained model to compare with; `fedunlearn compare` makes one"
        if seen
        else "nothing of it was measured"
    )


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
