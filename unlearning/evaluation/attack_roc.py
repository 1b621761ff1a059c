"""The membership attack's whole curve, and where it would lie if there were nothing to find.

The curve is read at shares of false alarms that the number of non-members allows, so that every
point is a count over a count and curves of several seeds can be averaged point by point.

References
----------
S. Yeom, I. Giacomelli, M. Fredrikson, S. Jha: Privacy Risk in Machine Learning: Analyzing the
Connection to Overfitting. CSF 2018. arXiv:1709.01604.
N. L. Johnson, A. W. Kemp, S. Kotz: Univariate Discrete Distributions, 3rd edition, Wiley 2005,
section 6.2.2. (The negative hypergeometric distribution of the null band.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unlearning.evaluation.ranks import roc_points
from unlearning.evaluation.scorecard import Outputs

__all__ = ["AttackRoc", "attack_roc", "mean_found", "membership_roc", "null_band"]

Floats = NDArray[np.float64]

_MOST_POINTS = 101
_CONFIDENCE = 0.95
_ROUNDING = 1e-9  # shares that differ by less are the same count


@dataclass(frozen=True)
class AttackRoc:
    """Share of members found (``tpr``) at no more than a share of false alarms (``fpr``).

    Parameters
    ----------
    fpr, tpr : tuple of float
        Of equal length, both rising to 1; fractions, 0 to 1.
    members, non_members : int
        Sizes of the two sets.
    """

    fpr: tuple[float, ...]
    tpr: tuple[float, ...]
    members: int
    non_members: int


def membership_roc(
    member_losses: ArrayLike, non_member_losses: ArrayLike, most: int = _MOST_POINTS
) -> AttackRoc:
    """Return the curve of the loss-threshold attack, of which the membership AUC is the area.

    Parameters
    ----------
    member_losses : array_like of shape (n,)
        Losses of the forget set.
    non_member_losses : array_like of shape (m,)
        Losses of the held-out set, from the same source.
    most : int
        At most so many points, spread evenly over the shares 0/m, 1/m, ..., m/m; default 101.

    Raises
    ------
    ValueError
        If a set is empty, a loss is not finite or ``most`` is below 2.
    """
    members, others = np.ravel(member_losses), np.ravel(non_member_losses)
    if not members.size or not others.size:
        raise ValueError(f"{members.size} member and {others.size} non-member losses; need both")
    if most < 2:
        raise ValueError(f"most is {most}, a curve has at least 2 points")
    truth = np.concatenate([np.ones(members.size), np.zeros(others.size)])
    # Every threshold: a step read between two far ones would miss what lies on the line.
    scores = -np.concatenate([members, others])
    alarms, found = roc_points(truth, scores)
    shares = _counts(others.size, most) / others.size
    at = np.searchsorted(alarms, shares + _ROUNDING, side="right") - 1
    return AttackRoc(
        tuple(shares.tolist()), tuple(found[at].tolist()), int(members.size), int(others.size)
    )


def attack_roc(outputs: Outputs) -> AttackRoc | None:
    """Return the curve for what a model says about forget and held-out set; None without both."""
    members, others = outputs.forget, outputs.held_out
    if not len(members) or not len(others):
        return None
    return membership_roc(members.losses(), others.losses())


def mean_found(curves: Sequence[AttackRoc]) -> tuple[Floats, Floats, Floats, Floats]:
    """Return shares of false alarms, and mean, lowest and highest share found over the curves.

    Curves are steps: between two of its points a curve stays at the earlier one.

    Raises
    ------
    ValueError
        If there is no curve.
    """
    if not curves:
        raise ValueError("no curve to average")
    shares = np.unique(np.round(np.concatenate([curve.fpr for curve in curves]), 12))
    found = np.stack(
        [
            np.asarray(curve.tpr)[np.searchsorted(curve.fpr, shares + _ROUNDING, side="right") - 1]
            for curve in curves
        ]
    )
    return shares, found.mean(axis=0), found.min(axis=0), found.max(axis=0)


def null_band(members: int, non_members: int, most: int = _MOST_POINTS) -> tuple[Floats, ...]:
    """Return shares of false alarms and the 95 % band of one curve if there is nothing to find.

    If members and non-members are told apart by chance alone, every order of their scores is
    equally likely. How many members stand above the non-member of rank k + 1 then follows the
    negative hypergeometric distribution; its 2.5 % and 97.5 % points are exact for any sizes. The
    band holds point by point: 95 % of curves lie within it at one share, fewer at all shares.

    Parameters
    ----------
    members, non_members : int
        Sizes of the two sets, at least 1 each.
    most : int
        As in :func:`membership_roc`.

    Returns
    -------
    tuple of three arrays
        Shares of false alarms, lower and upper end.

    Raises
    ------
    ValueError
        If a size is below 1.
    """
    if min(members, non_members) < 1:
        raise ValueError(f"{members} members and {non_members} non-members; need both")
    ranks = _counts(non_members, most)
    inner = ranks[:-1]  # at the last, every example is an alarm
    tail = (1 - _CONFIDENCE) / 2
    low, high = (_quantile(members, non_members, inner, share) for share in (tail, 1 - tail))
    one = np.ones(1)
    return (
        ranks / non_members,
        np.concatenate([low / members, one]),
        np.concatenate([high / members, one]),
    )


def _counts(non_members: int, most: int) -> NDArray[np.int64]:
    """Return at most ``most`` of the counts 0 to m, the ends among them."""
    chosen = np.linspace(0, non_members, min(non_members + 1, most))
    return np.unique(np.round(chosen).astype(np.int64))


def _quantile(n: int, m: int, ranks: NDArray[np.int64], share: float) -> Floats:
    """Return the least x with P(X <= x) >= share, X members above the non-member of rank + 1.

    ``P(X = x) = C(x + r, r) C(n - x + m - r - 1, m - r - 1) / C(n + m, m)``: of all orders, those
    with x members and r others in front, then that non-member, then the rest.
    """
    logs = np.concatenate([np.zeros(1), np.cumsum(np.log(np.arange(1, n + m + 1)))])
    x = np.arange(n + 1)
    whole = logs[n + m] - logs[m] - logs[n]
    found = np.empty(len(ranks))
    for place, r in enumerate(ranks):
        front = logs[x + r] - logs[r] - logs[x]
        rest = logs[n - x + m - r - 1] - logs[m - r - 1] - logs[n - x]
        reached = np.cumsum(np.exp(front + rest - whole))
        found[place] = np.searchsorted(reached, share - _ROUNDING)
    return found
