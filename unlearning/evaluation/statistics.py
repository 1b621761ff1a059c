"""What may be concluded from a few training seeds: intervals, equality, and how many more.

The unit of replication is the training seed. "No difference found" is never "equal": equality is
shown by two one-sided tests within a margin declared beforehand.

References
----------
B. Efron: Better Bootstrap Confidence Intervals. JASA 82, 1987. (BCa)
S. Holm: A Simple Sequentially Rejective Multiple Test Procedure. Scand. J. Statistics 6, 1979.
D. J. Schuirmann: A comparison of the two one-sided tests procedure and the power approach for
assessing the equivalence of average bioavailability. J. Pharmacokin. Biopharm. 15, 1987. (TOST)
D. B. Owen: A special case of a bivariate non-central t-distribution. Biometrika 52, 1965. (The
power of TOST.)
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unlearning.evaluation.scorecard import Verdict, summarise

__all__ = [
    "MOST_SEEDS",
    "Equivalence",
    "Judgement",
    "Paired",
    "equivalence_power",
    "holm",
    "paired",
    "seeds_needed",
    "summarise_differences",
    "tost",
    "verdict",
    "wilcoxon",
]

MOST_SEEDS = 1000  # a need for more than this is told as "cannot be settled"
_ALPHA = 0.05
_RESAMPLES = 4999
_BCA_MIN = 6  # at n = 3 the bootstrap's "95 %" covers about 73 %: too few values to resample
_WILCOXON_MIN = 6  # with 5 differences the smallest two-sided p is 2/32 > 0.05


@dataclass(frozen=True)
class Paired:
    """Paired differences over seeds.

    Parameters
    ----------
    mean : float
        Mean difference, ours minus theirs.
    sd : float or None
        Standard deviation of the differences (n-1); None for one seed, as all that follows.
    n : int
        Seeds.
    low, high : float or None
        95 % interval by Student's t.
    bca_low, bca_high : float or None
        95 % interval by the BCa bootstrap; None below six seeds, where it covers far less.
    cohen_d : float or None
        ``mean / sd``, the paired effect size; None where all differences are equal.
    p : float or None
        Two-sided, of the paired t test against 0.
    """

    mean: float
    sd: float | None
    n: int
    low: float | None
    high: float | None
    bca_low: float | None
    bca_high: float | None
    cohen_d: float | None
    p: float | None


def _finite(values: Sequence[float]) -> NDArray[np.float64]:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not numbers.size or not np.isfinite(numbers).all():
        raise ValueError(f"{values!r}: expected one or more finite numbers")
    return numbers


def _one_sided(numbers: NDArray[np.float64], bound: float) -> float:
    """Return the p of "the mean is not above the bound", by Student's t.

    Not scipy's, which warns of lost precision where the differences are nearly equal.
    """
    from scipy import stats  # a second to import, which only its users pay

    error = float(numbers.std(ddof=1)) / math.sqrt(numbers.size)
    return float(stats.t.sf((float(numbers.mean()) - bound) / error, numbers.size - 1))


def _all_equal(numbers: NDArray[np.float64]) -> bool:
    """Return whether values differ by no more than rounding, or too little to be cubed."""
    return bool(np.ptp(numbers) <= max(1e-12 * np.abs(numbers).max(), 1e-100))


def _bca(numbers: NDArray[np.float64]) -> tuple[float, float]:
    """Return the BCa interval of the mean of numbers that are not all equal."""
    from scipy import stats  # a second to import, which only its users pay

    with warnings.catch_warnings():
        # Two or three nearly equal values make the acceleration 0/0; scipy then answers NaN.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        interval = stats.bootstrap(
            (numbers,),
            np.mean,
            n_resamples=_RESAMPLES,
            method="BCa",
            random_state=np.random.default_rng(0),  # "rng" only since SciPy 1.15
        ).confidence_interval
    return float(interval.low), float(interval.high)


def summarise_differences(differences: Sequence[float]) -> Paired:
    """Return mean, intervals, effect size and p of paired differences over seeds.

    Where all differences are equal, the intervals are that point and p is 1 (all 0) or 0.

    Raises
    ------
    ValueError
        If there is no difference or one is not finite.
    """
    numbers = _finite(differences)
    spread = summarise(numbers.tolist())
    if spread.sd is None:
        return Paired(spread.mean, None, 1, None, None, None, None, None, None)
    if _all_equal(numbers):
        point = float(numbers[0])
        p = 1.0 if point == 0 else 0.0
        return Paired(point, 0.0, spread.n, point, point, point, point, None, p)
    low, high = _bca(numbers) if spread.n >= _BCA_MIN else (math.nan, math.nan)
    return Paired(
        mean=spread.mean,
        sd=spread.sd,
        n=spread.n,
        low=spread.low,
        high=spread.high,
        bca_low=low if math.isfinite(low) else None,
        bca_high=high if math.isfinite(high) else None,
        cohen_d=spread.mean / spread.sd,
        p=2 * min(_one_sided(numbers, 0.0), _one_sided(-numbers, 0.0)),
    )


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Paired:
    """Return the paired comparison of two methods over the same seeds in the same order.

    Raises
    ------
    ValueError
        If the counts differ, there is no seed, or a value is not finite.

    Examples
    --------
    Three seeds; the differences 1, 2 and 3 have mean 2 and standard deviation 1:

    >>> found = paired([5, 7, 9], [4, 5, 6])
    >>> found.mean, found.sd, found.n, found.cohen_d
    (2.0, 1.0, 3, 2.0)
    >>> round(found.low, 3), round(found.high, 3)  # 2 -+ 4.303 / sqrt(3)
    (-0.484, 4.484)
    """
    left, right = _finite(ours), _finite(theirs)
    if left.shape != right.shape:
        raise ValueError(f"{left.size} and {right.size} values; pairs need the same seeds")
    return summarise_differences((left - right).tolist())


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for their number (Holm 1979), in the order given.

    Rejecting where the adjusted value is below 0.05 keeps the chance of *any* false rejection
    among them below 5 %, whatever their dependence.

    Raises
    ------
    ValueError
        If a value is not a probability.

    Examples
    --------
    The smallest counts threefold, the next twice, and none less than one before it:

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    values = np.asarray(p_values, dtype=np.float64)
    if values.size and not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"{list(p_values)!r}: expected probabilities")
    order = np.argsort(values, kind="stable")
    stepped = values[order] * np.arange(values.size, 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return [float(value) for value in adjusted]


@dataclass(frozen=True)
class Equivalence:
    """Result of two one-sided tests.

    Parameters
    ----------
    p : float or None
        The larger of both p values; None for a single seed.
    equivalent : bool
        ``p < 0.05``: the mean difference lies within the margin.
    margin : float
        Declared beforehand.
    """

    p: float | None
    equivalent: bool
    margin: float


def tost(differences: Sequence[float], margin: float) -> Equivalence:
    """Return whether the mean difference lies within ``(-margin, margin)`` (TOST).

    Raises
    ------
    ValueError
        If there is no difference, one is not finite, or ``margin`` is not above 0.

    Examples
    --------
    Equal differences have no spread, so the margin alone decides:

    >>> tost([0.01, 0.01], margin=0.05).equivalent, tost([0.06, 0.06], margin=0.05).equivalent
    (True, False)
    >>> tost([0.01], margin=0.05).p is None  # one seed shows nothing
    True
    """
    numbers = _finite(differences)
    if not margin > 0:
        raise ValueError(f"margin {margin}; need more than 0")
    if numbers.size < 2:
        return Equivalence(None, False, margin)
    if _all_equal(numbers):
        p = 0.0 if abs(numbers[0]) < margin else 1.0
    else:
        p = max(_one_sided(numbers, -margin), _one_sided(-numbers, -margin))
    return Equivalence(p, p < _ALPHA, margin)


def wilcoxon(differences: Sequence[float]) -> float | None:
    """Return the two-sided p of the signed-rank test, or None with five differences or fewer.

    With five the smallest p is 0.0625: the test cannot reject, so a p above 0.05 says nothing.
    Differences of 0 are left out before counting.

    Raises
    ------
    ValueError
        If there is no difference or one is not finite.

    Examples
    --------
    Six differences of one sign: the smallest p there is, 2 / 2**6.

    >>> wilcoxon([1, 2, 3, 4, 5, 6])
    0.03125
    >>> wilcoxon([1, 2, 3, 4, 5]) is None
    True
    """
    from scipy import stats  # a second to import, which only its users pay

    numbers = _finite(differences)
    numbers = numbers[numbers != 0]
    if numbers.size < _WILCOXON_MIN:
        return None
    return float(stats.wilcoxon(numbers).pvalue)


def equivalence_power(n: int, sd: float, margin: float, difference: float = 0.0) -> float:
    """Return the chance that TOST shows equality with ``n`` seeds.

    Exact for normal differences: over the distribution of the sample's standard deviation, the
    probability that the mean falls between the two critical lines.

    Parameters
    ----------
    n : int
        Seeds, 2 or more.
    sd : float
        Standard deviation of a paired difference.
    margin : float
        Of equality, in the same unit.
    difference : float
        True mean difference.

    Returns
    -------
    float
        0 to 1.

    Raises
    ------
    ValueError
        If ``n`` is below 2 or ``sd`` or ``margin`` not above 0.
    """
    from scipy import stats  # a second to import, which only its users pay

    if n < 2 or not sd > 0 or not margin > 0:
        raise ValueError(f"n={n}, sd={sd}, margin={margin}; need n >= 2 and both above 0")
    error = sd / math.sqrt(n)
    critical = float(stats.t.ppf(1 - _ALPHA, n - 1))
    # Equal steps of probability of the sample's variance; mid-points leave out the infinite ends.
    steps = (np.arange(2000) + 0.5) / 2000
    sampled = error * np.sqrt(stats.chi2.ppf(steps, n - 1) / (n - 1))
    half = margin - critical * sampled
    inside = stats.norm.cdf((half - difference) / error)
    inside -= stats.norm.cdf((-half - difference) / error)
    return float(np.mean(np.where(half > 0, inside, 0.0)))


def _power_beyond(n: int, sd: float, margin: float, difference: float) -> float:
    """Return the chance that the 95 % interval lies beyond the margin."""
    from scipy import stats  # a second to import, which only its users pay

    noncentral = (abs(difference) - margin) / (sd / math.sqrt(n))
    critical = float(stats.t.ppf(1 - _ALPHA / 2, n - 1))
    return float(stats.nct.sf(critical, n - 1, noncentral))


def seeds_needed(
    sd: float, margin: float, power: float = 0.8, *, difference: float = 0.0
) -> int | None:
    """Return with how many seeds the question is settled with the given power.

    Parameters
    ----------
    sd : float
        Standard deviation of a paired difference.
    margin : float
        Of equality.
    power : float
        Chance to reach a conclusion, 0 to 1.
    difference : float
        True mean difference: within the margin the seeds that show equality, beyond it those
        that show the difference to exceed the margin.

    Returns
    -------
    int or None
        2 or more; None where :data:`MOST_SEEDS` would not do.

    Raises
    ------
    ValueError
        If ``margin`` is not above 0, ``sd`` is negative or ``power`` is not within (0, 1).
    """
    if sd < 0 or not margin > 0 or not 0 < power < 1:
        raise ValueError(f"sd={sd}, margin={margin}, power={power}; out of range")
    if sd == 0:
        return 2 if abs(difference) != margin else None
    within = abs(difference) < margin
    chance = equivalence_power if within else _power_beyond
    low, high = 1, 2
    while chance(high, sd, margin, difference) < power:  # power grows with n
        low, high = high, 2 * high
        if low >= MOST_SEEDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (
            (low, middle) if chance(middle, sd, margin, difference) >= power else (middle, high)
        )
    return high if high <= MOST_SEEDS else None


@dataclass(frozen=True)
class Judgement:
    """One of three verdicts, and what a fourth would cost.

    Parameters
    ----------
    verdict : Verdict
        Forgotten, not forgotten or inconclusive.
    more_seeds : int or None
        How many more seeds an inconclusive comparison needs to be settled with power 0.8, if
        mean and spread stay as seen; None where it is settled, where there is a single seed, or
        where :data:`MOST_SEEDS` would not do.
    p : float or None
        Of the equivalence test.
    """

    verdict: Verdict
    more_seeds: int | None
    p: float | None


def verdict(differences: Sequence[float], margin: float) -> Judgement:
    """Return what paired differences to the retrained model say.

    Forgotten: equivalent to retraining within the margin (TOST, 5 %). Not forgotten: the 95 %
    interval lies beyond the margin, on either side: a model that over-forgets differs from a
    retrained one as well. Otherwise inconclusive.

    Parameters
    ----------
    differences : sequence of float
        Metric of the strategy minus that of the retrained model, paired by seed.
    margin : float
        Declared beforehand.

    Raises
    ------
    ValueError
        As :func:`tost`.

    Examples
    --------
    >>> verdict([0.001, -0.001, 0.002, 0.0], margin=0.02).verdict.value
    'forgotten'
    >>> verdict([0.30, 0.31, 0.29, 0.30], margin=0.02).verdict.value
    'not forgotten'
    >>> verdict([0.30], margin=0.02).verdict.value
    'inconclusive'
    """
    equal = tost(differences, margin)
    found = summarise(list(differences))
    if equal.equivalent:
        return Judgement(Verdict.FORGOTTEN, None, equal.p)
    if found.low is None or found.high is None or found.sd is None:
        return Judgement(Verdict.INCONCLUSIVE, None, equal.p)
    if found.low > margin or found.high < -margin:
        return Judgement(Verdict.NOT_FORGOTTEN, None, equal.p)
    needed = seeds_needed(found.sd, margin, difference=found.mean)
    more = None if needed is None else max(1, needed - found.n)
    return Judgement(Verdict.INCONCLUSIVE, more, equal.p)
