"""Validity cards: may this metric be believed in this scenario? Controls answer.

Three questions: does it raise an alarm for retrained models (null), does it tell them from models
that forgot nothing (positive), does it grow with the share of the forget set still trained on
(dose)? A metric that fails one is shown greyed out, with the reason.

References
----------
C. J. Clopper, E. S. Pearson: The Use of Confidence or Fiducial Limits Illustrated in the Case of
the Binomial. Biometrika 26, 1934.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unlearning.evaluation.entry import Remembered
from unlearning.evaluation.ranks import auc

__all__ = [
    "MAX_FALSE_ALARMS",
    "MIN_DOSE_RANK",
    "MIN_SEPARATION",
    "MIN_VALUES",
    "Alarm",
    "Card",
    "clopper_pearson",
    "leave_one_out_alarms",
    "validity_card",
]

MAX_FALSE_ALARMS = 0.05
MIN_SEPARATION = 0.99  # AUC between null and positive values
MIN_DOSE_RANK = 0.95  # Spearman between dose and mean value
MIN_VALUES = 5  # fewer null or positive values make no card
_MIN_DOSES = 3


@dataclass(frozen=True)
class Alarm:
    """Says "not forgotten" for values beyond a limit.

    Parameters
    ----------
    above, below : float or None
        An alarm is raised above the one or below the other; None: that side raises none.
    """

    above: float | None = None
    below: float | None = None

    def __call__(self, value: float) -> bool:
        """Return whether the value raises an alarm."""
        high = self.above is not None and value > self.above
        return high or (self.below is not None and value < self.below)


@dataclass(frozen=True)
class Card:
    """Whether a metric may be believed in one scenario.

    Parameters
    ----------
    metric : str
        Id, as "M3".
    passes : bool
        All three questions answered well.
    reason : str
        Why not, in words; empty where it passes.
    false_alarm_rate : float or None
        Share of null values that raise the alarm, 0 to 1.
    false_alarm_low, false_alarm_high : float or None
        95 % interval of that rate (Clopper-Pearson).
    separation_auc : float or None
        AUC between positive and null values, 1: no overlap.
    dose_spearman : float or None
        Rank correlation of dose and mean value, 1: it grows with every step; turned so that 1 is
        good also for metrics that fall.
    dose : tuple of (float, float)
        Percent of the forget set still trained on, and the mean value.
    null_count, positive_count : int
        Values behind it.
    """

    metric: str
    passes: bool
    reason: str
    false_alarm_rate: float | None
    false_alarm_low: float | None
    false_alarm_high: float | None
    separation_auc: float | None
    dose_spearman: float | None
    dose: tuple[tuple[float, float], ...]
    null_count: int
    positive_count: int


def clopper_pearson(hits: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the exact interval of a binomial rate.

    Raises
    ------
    ValueError
        If not ``0 <= hits <= trials`` with 1 or more trials.
    """
    from scipy import stats  # a second to import, which only its users pay

    if not 0 <= hits <= trials or trials < 1:
        raise ValueError(f"{hits} of {trials}; need 0 <= hits <= trials and a trial")
    tail = (1 - confidence) / 2
    low = stats.beta.ppf(tail, hits, trials - hits + 1) if hits else 0.0
    high = stats.beta.ppf(1 - tail, hits + 1, trials - hits) if hits < trials else 1.0
    return float(low), float(high)


def leave_one_out_alarms(values: Sequence[float], remembered: Remembered) -> list[bool]:
    """Return which null values would raise an alarm at a limit made from all the others.

    The limit is the one-sided 95 % prediction limit for one more normal value,
    ``mean + t_{.95, n-1} sd sqrt(1 + 1/n)``; judging a value by a limit that it helped to make
    would hide alarms.

    Parameters
    ----------
    values : sequence of float
        Three or more.
    remembered : "higher" or "lower"
        On which side an alarm lies.

    Raises
    ------
    ValueError
        If there are fewer than three values.
    """
    from scipy import stats  # a second to import, which only its users pay

    numbers = np.asarray(values, dtype=np.float64) * (1 if remembered == "higher" else -1)
    if numbers.size < 3:
        raise ValueError(f"{numbers.size} values; need three or more")
    others = numbers.size - 1
    mean = (numbers.sum() - numbers) / others
    squares = (numbers - numbers.mean()) ** 2
    sd = np.sqrt(np.maximum(squares.sum() - squares * numbers.size / others, 0) / (others - 1))
    limit = mean + stats.t.ppf(1 - MAX_FALSE_ALARMS, others - 1) * sd * math.sqrt(1 + 1 / others)
    slack = 1e-12 * max(1.0, float(np.abs(numbers).max()))  # equal values are no alarm
    return [bool(raised) for raised in numbers > limit + slack]


def _dose_rank(means: Sequence[tuple[float, float]], sign: int) -> float | None:
    """Return Spearman's correlation of dose and mean; 0 where the metric never moves."""
    from scipy import stats  # a second to import, which only its users pay

    if len(means) < _MIN_DOSES:
        return None
    doses, values = (np.array(column) for column in zip(*means, strict=True))
    if np.ptp(values) == 0:
        return 0.0
    return sign * float(stats.spearmanr(doses, values).statistic)


def _reasons(
    low: float, rate: float, separation: float, rank: float | None, alarms: str
) -> list[str]:
    """Return every reason why a card fails."""
    found = []
    if low > MAX_FALSE_ALARMS:
        found.append(f"raises an alarm for {rate:.0%} of the retrained models ({alarms})")
    if separation < MIN_SEPARATION:
        found.append(
            f"cannot tell original from retrained models (AUC {separation:.2f}, "
            f"need {MIN_SEPARATION})"
        )
    if rank is None:
        found.append(f"dose not measured at {_MIN_DOSES} levels")
    elif rank < MIN_DOSE_RANK:
        found.append(
            f"does not grow with the share still trained on (Spearman {rank:.2f}, "
            f"need {MIN_DOSE_RANK})"
        )
    return found


def validity_card(
    metric: str,
    null: Sequence[float],
    positive: Sequence[float],
    doses: Mapping[float, Sequence[float]],
    *,
    remembered: Remembered = "higher",
    alarm: Alarm | None = None,
) -> Card:
    """Return whether a metric may be believed, from its values on controls.

    A card passes unless the rate of false alarms is shown to exceed 5 % (the lower end of its
    interval does: twenty null runs cannot show more), the separation AUC is below 0.99 or the
    rank correlation with the dose below 0.95.

    Parameters
    ----------
    metric : str
        Its id.
    null : sequence of float
        Values of retrained models measured like a strategy's, one per independent run.
    positive : sequence of float
        Values of original models.
    doses : mapping of float to sequence of float
        Values where that percent of the forget set is still trained on; 0 and 100 are taken from
        ``null`` and ``positive`` where they are missing.
    remembered : "higher" or "lower"
        Where a model that remembers lies.
    alarm : Alarm or None
        When the metric says "not forgotten"; None: beyond a prediction limit made from the other
        null values (:func:`leave_one_out_alarms`).

    Raises
    ------
    ValueError
        If a value is not finite.
    """
    nulls = _finite(null, "null")
    positives = _finite(positive, "positive")
    sign = 1 if remembered == "higher" else -1
    means = _by_dose({0.0: nulls, 100.0: positives}, doses)
    rank = _dose_rank(means, sign)
    if min(nulls.size, positives.size) < MIN_VALUES:
        reason = (
            f"{nulls.size} null and {positives.size} positive values; need {MIN_VALUES} of each"
        )
        return Card(
            metric, False, reason, None, None, None, None, rank, means, nulls.size, positives.size
        )
    hits = sum(_alarms(nulls.tolist(), remembered, alarm))
    rate = hits / nulls.size
    low, high = clopper_pearson(hits, nulls.size)
    truth = np.repeat([0, 1], [nulls.size, positives.size])
    separation = auc(truth, sign * np.concatenate([nulls, positives]))
    reasons = _reasons(low, rate, separation, rank, f"{hits} of {nulls.size}")
    return Card(
        metric=metric,
        passes=not reasons,
        reason="; ".join(reasons),
        false_alarm_rate=rate,
        false_alarm_low=low,
        false_alarm_high=high,
        separation_auc=separation,
        dose_spearman=rank,
        dose=means,
        null_count=nulls.size,
        positive_count=positives.size,
    )


def _alarms(nulls: list[float], remembered: Remembered, alarm: Alarm | None) -> list[bool]:
    """Return for each null run whether the metric says "not forgotten"."""
    if alarm is None:
        return leave_one_out_alarms(nulls, remembered)
    return [alarm(value) for value in nulls]


def _by_dose(
    ends: Mapping[float, NDArray[np.float64]], doses: Mapping[float, Sequence[float]]
) -> tuple[tuple[float, float], ...]:
    """Return the mean at every dose that has values, in order; a dose given replaces an end."""
    levels = {**ends, **{float(k): _finite(v, f"dose {k}") for k, v in doses.items()}}
    return tuple((k, float(levels[k].mean())) for k in sorted(levels) if levels[k].size)


def _finite(values: Sequence[float], what: str) -> NDArray[np.float64]:
    numbers = np.asarray(values, dtype=np.float64).ravel()
    if not np.isfinite(numbers).all():
        raise ValueError(f"{what} values hold NaN or infinity")
    return numbers
