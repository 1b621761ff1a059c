"""What was promised, and what of it was checked: the guarantee in words (M18).

No measured number ever lifts a method into a higher tier: an attack that fails proves nothing
about the next one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from unlearning.evaluation.entry import Metric
from unlearning.request import Guarantee

__all__ = ["METRICS", "Standing", "Tier", "tier"]

METRICS = (
    Metric(
        "M18",
        "guarantee",
        "Guarantee, and what of it was checked",
        "words",
        "exact, checked",
        None,
        "Thudi et al. 2022, arXiv:2110.11891",
    ),
)


class Standing(StrEnum):
    """What may be said of a guarantee."""

    CHECKED = "checked"
    UNCHECKED = "claimed, not checked"
    BROKEN = "claimed, but a condition does not hold"
    NONE = "no guarantee"


@dataclass(frozen=True)
class Tier:
    """A guarantee in words.

    Parameters
    ----------
    guarantee : Guarantee
        As the strategy declares it; approximate where a condition of more does not hold.
    standing : Standing
        Whether its conditions were checked.
    text : str
        One or two sentences for a reader.
    """

    guarantee: Guarantee
    standing: Standing
    text: str


_MEANS = {
    Guarantee.EXACT: "Distributed as a model retrained without the forget set.",
    Guarantee.CERTIFIED: "Within stated (epsilon, delta) of retraining, under its assumptions.",
    Guarantee.APPROXIMATE: "No proof; only what is measured here.",
    Guarantee.SUPPRESSED: "Hidden from the answers; the base still holds the data.",
}
_PROVABLE = (Guarantee.EXACT, Guarantee.CERTIFIED)


def _listed(names: list[str]) -> str:
    return ", ".join(sorted(names))


def tier(guarantee: Guarantee | str, conditions: Mapping[str, bool | None] | None = None) -> Tier:
    """Return what may be said of a declared guarantee (M18).

    Parameters
    ----------
    guarantee : Guarantee or str
        "exact", "certified", "approximate" or "suppressed".
    conditions : mapping of str to bool or None
        What the guarantee rests on, in words ("equal to retraining bit for bit", "the loss is
        convex", "the noise was drawn"): True or False where a machine checked it, None where
        nobody did.

    Raises
    ------
    ValueError
        If the guarantee is unknown.
    """
    declared = Guarantee(guarantee)
    meaning, known = _MEANS[declared], dict(conditions or {})
    if declared not in _PROVABLE:
        return Tier(declared, Standing.NONE, meaning)
    broken = [name for name, holds in known.items() if holds is False]
    open_ones = [name for name, holds in known.items() if holds is None]
    if broken:
        text = f"Declared {declared}, but this does not hold: {_listed(broken)}. "
        return Tier(Guarantee.APPROXIMATE, Standing.BROKEN, text + _MEANS[Guarantee.APPROXIMATE])
    if open_ones or not known:
        text = f"{meaning} Not checked: {_listed(open_ones) or 'its conditions'}."
        return Tier(declared, Standing.UNCHECKED, text)
    return Tier(declared, Standing.CHECKED, f"{meaning} Checked: {_listed(list(known))}.")
