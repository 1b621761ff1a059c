"""From model outputs to comparable numbers: one scorecard per model, spread over seeds, gaps.

The judge knows outputs only: no strategy, no arrays, no data. What cannot be measured is None.

References
----------
C. Fan, J. Liu, Y. Zhang, E. Wong, D. Wei, S. Liu: SalUn: Empowering Machine Unlearning via
Gradient-based Weight Saliency. ICLR 2024. arXiv:2310.12508. (The average gap to retraining.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlearning.evaluation import metrics
from unlearning.told import Told

__all__ = [
    "ACCURACY_MARGIN",
    "AUC_MARGIN",
    "MARGINS",
    "MARKER_MARGIN",
    "MARKER_POWER",
    "METRICS",
    "RANGES",
    "Closeness",
    "Outputs",
    "Predictions",
    "Scorecard",
    "Spread",
    "Triggered",
    "Verdict",
    "average_gap",
    "bounded",
    "closeness",
    "improves",
    "judge_marker",
    "membership_null_se",
    "paired_differences",
    "score",
    "summarise",
]

MARKER_POWER = 0.7  # backdoor success on the original model below which the marker tells nothing
MARKER_MARGIN = 0.1  # backdoor success above the retrained model's that still counts as its equal
ACCURACY_MARGIN = 0.01  # one percentage point
AUC_MARGIN = 0.05
_CONFIDENCE = 0.95
_ROUNDING = 1e-9  # relative; differences of fractions are off by the last bits


@dataclass(frozen=True)
class Predictions:
    """What a model says about a set of examples.

    Parameters
    ----------
    probabilities : ndarray of shape (n, C)
        Softmax outputs; n may be 0.
    labels : ndarray of shape (n,)
        True labels, integers 0 to C-1.
    each : int
        Labels per example, one after the other; more than 1 where examples are sequences, whose
        members are told from others by the mean loss over their positions.
    """

    probabilities: NDArray[np.floating]
    labels: NDArray[np.integer]
    each: int = field(default=1, kw_only=True)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_examples(self) -> int:
        """The number of examples: of labels over that of each."""
        return len(self.labels) // self.each

    def losses(self) -> NDArray[np.float64]:
        """Return the cross-entropy of every example, shape (num_examples,)."""
        found = metrics.example_losses(self.probabilities, self.labels)
        return found if self.each == 1 else found.reshape(-1, self.each).mean(axis=1)


@dataclass(frozen=True)
class Triggered(Predictions):
    """What a model says about test examples that carry the trigger.

    Parameters
    ----------
    target : int or array of int
        The label that the trigger should bring about, or one for every example; ``labels`` stay
        the true ones.
    """

    target: int | NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Outputs:
    """What one model says about every set it is judged on.

    Parameters
    ----------
    test, retain, forget : Predictions
        The test split, all training data that stay, the data that the request names.
    held_out : Predictions
        Never trained on, from the same source as the forget set: the attack's non-members.
    triggered : Triggered or None
        None where no backdoor was planted.
    told : mapping of str to Told
        Where the clients' data are their own: what they told of ``retain``, ``forget`` and
        ``held_out``, which are empty then.
    """

    test: Predictions
    retain: Predictions
    forget: Predictions
    held_out: Predictions
    triggered: Triggered | None = None
    told: Mapping[str, Told] = field(default_factory=dict)

    @property
    def num_forgotten(self) -> int:
        """The number of examples of the forget set, seen here or told of."""
        told = self.told.get("forget")
        return self.forget.num_examples if told is None else told.examples


@dataclass(frozen=True)
class Scorecard:
    """The numbers of one model; None where a number could not be measured.

    Parameters
    ----------
    retain_accuracy, forget_accuracy, test_accuracy : float or None
        Fractions, 0 to 1; None for an empty set.
    mia_auc : float or None
        Loss-threshold attack, forget against held-out set; 0.5 = indistinguishable.
    backdoor_success : float or None
        Fraction, 0 to 1; None without a planted trigger.
    prediction_distance : float or None
        Mean L2 distance of the softmax rows on the forget set to the reference model's, 0 to
        sqrt(2); None without a reference model.
    """

    retain_accuracy: float | None
    forget_accuracy: float | None
    test_accuracy: float | None
    mia_auc: float | None
    backdoor_success: float | None
    prediction_distance: float | None

    def to_json(self) -> dict[str, float | None]:
        """Return the numbers by name, for ``results.json``."""
        return asdict(self)


METRICS: tuple[str, ...] = tuple(entry.name for entry in fields(Scorecard))
_COMPARED = tuple(name for name in METRICS if name != "prediction_distance")
# Declared before any run: a difference to the retrained model within the margin counts as none.
MARGINS: dict[str, float] = {
    "retain_accuracy": ACCURACY_MARGIN,
    "forget_accuracy": ACCURACY_MARGIN,
    "test_accuracy": ACCURACY_MARGIN,
    "mia_auc": AUC_MARGIN,
    "backdoor_success": MARKER_MARGIN,
}


# What a number can be; an interval of its mean ends there, too. The L2 distance of two softmax rows
# is sqrt(2) at most.
RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(_COMPARED, (0.0, 1.0)),
    "prediction_distance": (0.0, float(np.sqrt(2))),
    "average_gap": (0.0, 1.0),
}


class Closeness(StrEnum):
    """Where the 95 % interval of a difference lies beside the margin that was declared for it."""

    WITHIN = "within the margin"
    BEYOND = "beyond the margin"
    OPEN = "undecided"


class Verdict(StrEnum):
    """What may be said of the planted marker after one strategy; of no other data."""

    FORGOTTEN = "forgotten"
    NOT_FORGOTTEN = "not forgotten"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Spread:
    """Mean and spread of one number over seeds.

    Parameters
    ----------
    mean : float
        Arithmetic mean.
    sd : float or None
        Sample standard deviation (n-1); None for a single value.
    n : int
        Number of values.
    low, high : float or None
        95 % interval of the mean by Student's t; None for a single value.
    """

    mean: float
    sd: float | None
    n: int
    low: float | None
    high: float | None


def _accuracy(found: Predictions, told: Told | None = None) -> float | None:
    if told is not None:
        return told.accuracy
    return metrics.accuracy(found.probabilities, found.labels) if len(found) else None


def _membership(outputs: Outputs) -> float | None:
    members, others = outputs.forget, outputs.held_out
    if not len(members) or not len(others):
        return None
    return metrics.membership_auc(members.losses(), others.losses())


def _backdoor(found: Triggered | None) -> float | None:
    if found is None or not np.any(found.labels != found.target):
        return None
    guesses = found.probabilities.argmax(axis=1)
    return metrics.backdoor_success(guesses, found.labels, found.target)


def score(outputs: Outputs, reference: Outputs | None = None) -> Scorecard:
    """Return the scorecard of one model.

    Parameters
    ----------
    outputs : Outputs
        What the model says.
    reference : Outputs or None
        What the reference model (retrained without the forget set) says about the same examples;
        None: there is no such model, and numbers that need one stay None.

    Raises
    ------
    ValueError
        If probabilities and labels do not fit each other or the reference's examples differ.
    """
    distance = None
    if reference is not None and len(outputs.forget):
        distance = metrics.prediction_distance(
            outputs.forget.probabilities, reference.forget.probabilities
        )
    return Scorecard(
        retain_accuracy=_accuracy(outputs.retain, outputs.told.get("retain")),
        forget_accuracy=_accuracy(outputs.forget, outputs.told.get("forget")),
        test_accuracy=_accuracy(outputs.test),
        mia_auc=_membership(outputs),
        backdoor_success=_backdoor(outputs.triggered),
        prediction_distance=distance,
    )


def membership_null_se(outputs: Outputs) -> float | None:
    """Return the standard error of the membership AUC if nothing can be told, or None."""
    members, others = outputs.forget.num_examples, outputs.held_out.num_examples
    return metrics.auc_null_se(members, others) if members and others else None


def summarise(values: Sequence[float], confidence: float = _CONFIDENCE) -> Spread:
    """Return mean, standard deviation and t interval (95 % unless told) of a number over seeds.

    Raises
    ------
    ValueError
        If there is no value.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if not numbers.size:
        raise ValueError("no value to summarise")
    mean = float(numbers.mean())
    if numbers.size < 2:
        return Spread(mean, None, 1, None, None)
    sd = float(numbers.std(ddof=1))
    from scipy.special import stdtrit  # Student's quantile; scipy.stats costs a second to import

    half = float(stdtrit(numbers.size - 1, (1 + confidence) / 2)) * sd / numbers.size**0.5
    return Spread(mean, sd, numbers.size, mean - half, mean + half)


def bounded(spread: Spread, low: float, high: float) -> Spread:
    """Return a spread whose interval stays within what the number can be.

    Examples
    --------
    >>> bounded(summarise([0.0, 0.0, 0.1]), 0.0, 1.0).low
    0.0
    """
    if spread.low is None or spread.high is None:
        return spread
    return replace(spread, low=max(spread.low, low), high=min(spread.high, high))


def average_gap(
    card: Mapping[str, float | None], reference: Mapping[str, float | None]
) -> float | None:
    """Return the mean absolute difference of two scorecards (SalUn's Avg Gap), as a fraction.

    Over retain, forget and test accuracy, membership AUC and, beyond SalUn, backdoor success; a
    number that either card lacks is left out.

    Parameters
    ----------
    card, reference : mapping of str to float or None
        Scorecards as :meth:`Scorecard.to_json` gives them; the reference of the same seed.

    Returns
    -------
    float or None
        0 for the reference itself; None if the two have no number in common.
    """
    gaps = []
    for name in _COMPARED:
        ours, theirs = card.get(name), reference.get(name)
        if ours is not None and theirs is not None:
            gaps.append(abs(ours - theirs))
    return float(np.mean(gaps)) if gaps else None


def paired_differences(
    ours: Mapping[int, float | None], theirs: Mapping[int, float | None]
) -> list[float]:
    """Return ``ours - theirs`` for every seed at which both were measured, in order of seeds."""
    pairs = [(ours[seed], theirs[seed]) for seed in sorted(ours.keys() & theirs.keys())]
    return [left - right for left, right in pairs if left is not None and right is not None]


def judge_marker(original: Sequence[float], differences: Sequence[float]) -> Verdict | None:
    """Return what the backdoor marker says about one strategy.

    The whole 95 % interval of the difference must lie on one side of :data:`MARKER_MARGIN`; a
    single seed has no interval and is inconclusive.

    Parameters
    ----------
    original : sequence of float
        Backdoor success of the original model, one value per seed.
    differences : sequence of float
        Backdoor success of the strategy minus the retrained model's, paired by seed.

    Returns
    -------
    Verdict or None
        None if the marker has no power (mean success on the original below
        :data:`MARKER_POWER`) or nothing was measured: then no verdict may be given.
    """
    if not original or not differences or summarise(original).mean < MARKER_POWER:
        return None
    spread = summarise(differences)
    if spread.low is None or spread.high is None:
        return Verdict.INCONCLUSIVE
    if spread.high < MARKER_MARGIN:
        return Verdict.FORGOTTEN
    if spread.low > MARKER_MARGIN:
        return Verdict.NOT_FORGOTTEN
    return Verdict.INCONCLUSIVE


def closeness(differences: Sequence[float], margin: float) -> Closeness | None:
    """Return whether differences to the retrained model lie within a declared margin.

    Within: the whole 95 % interval lies between ``-margin`` and ``margin`` (equivalence, by two
    one-sided tests at 2.5 % each). Beyond: it lies wholly outside. Anything else, and a single
    seed always, is undecided.

    Parameters
    ----------
    differences : sequence of float
        Ours less the retrained model's, paired by seed.
    margin : float
        Above 0, in the unit of the differences.

    Returns
    -------
    Closeness or None
        None if nothing was measured.
    """
    if not differences:
        return None
    spread = summarise(differences)
    if spread.low is None or spread.high is None:
        return Closeness.OPEN
    edge = margin * (1 + _ROUNDING)  # a difference of the margin itself lies within it
    if -edge <= spread.low and spread.high <= edge:
        return Closeness.WITHIN
    if spread.low > edge or spread.high < -edge:
        return Closeness.BEYOND
    return Closeness.OPEN


def improves(differences: Sequence[float]) -> bool | None:
    """Return whether a strategy comes closer to retraining than its control does.

    Parameters
    ----------
    differences : sequence of float
        Average gap of the strategy minus the control's, paired by seed.

    Returns
    -------
    bool or None
        True: closer, with the whole 95 % interval below 0 (or, for a single seed, the value).
        False: no closer on average. None: closer on average, but within the spread over seeds, or
        nothing was measured.
    """
    if not differences:
        return None
    spread = summarise(differences)
    if spread.mean >= 0:
        return False
    return True if spread.high is None or spread.high < 0 else None
