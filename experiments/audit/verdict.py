"""What may be said of one strategy: forgotten, not forgotten, inconclusive, or nothing at all.

Only metrics that passed their validity card are heard.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from unlearning.evaluation.scorecard import MARKER_MARGIN, Verdict

__all__ = ["DECIDING", "MARGINS", "Opinion", "decide"]

# Differences to retrained models that count as none, declared before any model is trained. The
# forget set of an audit is small and its accuracy moves by percents from seed to seed, so M1 gets
# more than the percent that is usual for a test set.
MARGINS: Mapping[str, float] = {"M1": 0.03, "M3": 0.05, "M6": MARKER_MARGIN, "M8": 0.05}
DECIDING = ("M1", "M3", "M5", "M6", "M8")  # M5 brings its own verdict


@dataclass(frozen=True)
class Opinion:
    """What one metric says.

    Parameters
    ----------
    verdict : Verdict
        Of this metric alone.
    more_seeds : int or None
        With how many further seeds it would know, if it does not and that can be told.
    """

    verdict: Verdict
    more_seeds: int | None


def decide(
    opinions: Mapping[str, Opinion], silenced: Mapping[str, str]
) -> tuple[Verdict | None, str, int | None]:
    """Return the verdict, what it rests on, and how many more seeds an inconclusive one needs.

    Not forgotten if any metric says so, forgotten if all do, otherwise inconclusive.

    Parameters
    ----------
    opinions : mapping of str to Opinion
        By metric, of those that passed their card.
    silenced : mapping of str to str
        Why each metric failed its card; empty for those that passed.
    """
    if not opinions:
        reasons = "; ".join(f"{m}: {why}" for m, why in silenced.items() if why)
        return None, f"no metric that decides passed its card ({reasons})", None
    by: dict[Verdict, list[str]] = {}
    for metric, opinion in opinions.items():
        by.setdefault(opinion.verdict, []).append(metric)
    if against := by.get(Verdict.NOT_FORGOTTEN):
        return Verdict.NOT_FORGOTTEN, f"differs from retraining by {', '.join(against)}", None
    if unsure := by.get(Verdict.INCONCLUSIVE):
        needed = [opinions[metric].more_seeds for metric in unsure]
        known = [count for count in needed if count is not None]
        more = max(known) if len(known) == len(needed) else None
        return Verdict.INCONCLUSIVE, f"undecided by {', '.join(unsure)}", more
    return Verdict.FORGOTTEN, f"equal to retraining by {', '.join(opinions)}", None
