"""Can one tell an unlearned model from a retrained one? U-LiRA and what is read off it.

References
----------
J. Hayes, I. Shumailov, E. Triantafillou, A. Khalifa, N. Papernot: Inexact Unlearning Needs More
Careful Evaluations to Avoid a False Sense of Privacy. 2024. arXiv:2403.01218. (U-LiRA)
N. Carlini, S. Chien, M. Nasr, S. Song, A. Terzis, F. Tramer: Membership Inference Attacks From
First Principles. IEEE S&P 2022. arXiv:2112.03570. (LiRA; the true-positive rate at low rates)
A. Airola, T. Pahikkala, W. Waegeman, B. De Baets, T. Salakoski: A comparison of AUC estimators in
small-sample studies. JMLR W&CP 8, 2010. (Leaving out pairs.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unlearning.evaluation.entry import Metric
from unlearning.evaluation.ranks import mid_ranks, roc_points
from unlearning.evaluation.signals import checked_sides

__all__ = [
    "METRICS",
    "MIN_MODELS",
    "SD_FLOOR",
    "WORST_SHARE",
    "Change",
    "Lira",
    "by_stratum",
    "retain_change",
    "smallest_rate",
    "tpr_at_fpr",
    "u_lira",
    "vulnerability",
    "worst_share",
]

SD_FLOOR = 1e-3  # a side on which all models agree exactly would otherwise have infinite density
MIN_MODELS = 16  # fewer models per side: exploratory
WORST_SHARE = 0.1
_FEWEST = 3  # models a side: one left out, two for a standard deviation
_HITS = 10  # non-members that a rate must let through to be more than an accident

_HAYES = "Hayes et al. 2024, arXiv:2403.01218"
METRICS = (
    Metric("M3", "u-lira-auc", "U-LiRA AUC", "AUC", "0.5", "higher", _HAYES),
    Metric(
        "M9",
        "tpr-at-fpr",
        "True-positive rate at a fixed false-positive rate",
        "fraction",
        "the retrained model's",
        "higher",
        "Carlini et al. 2022, arXiv:2112.03570",
    ),
    Metric(
        "M14",
        "retain-change",
        "Exposure of the retain set, worst client",
        "advantage",
        "the retrained model's; 0 where nothing was done",
        None,
        "Carlini et al., The Privacy Onion Effect, 2022, arXiv:2206.10469",
    ),
)


@dataclass(frozen=True)
class Lira:
    """What the attack found.

    Parameters
    ----------
    auc : float
        0.5: an unlearned model cannot be told from a retrained one; mean of ``left_out``.
    advantage : float
        ``2 auc - 1``.
    left_out : ndarray of shape (K,)
        AUC over the examples within each left-out seed. They share the fits: for the spread over
        seeds take ``per_model``.
    per_example : ndarray of shape (n,)
        AUC over the models, per example; ties count half.
    scores : ndarray of shape (2 K n,)
        Log-likelihood ratios, the unlearned models' first, model by model.
    truths : ndarray of shape (2 K n,)
        1 for scores of unlearned models, 0 for retrained: what ``roc_points`` takes.
    exploratory : bool
        Fewer than :data:`MIN_MODELS` models per side.
    phi_u, phi_r : ndarray of shape (K, n)
        What was attacked.
    """

    auc: float
    advantage: float
    left_out: NDArray[np.float64]
    per_example: NDArray[np.float64]
    scores: NDArray[np.float64]
    truths: NDArray[np.int64]
    exploratory: bool
    phi_u: NDArray[np.float64]
    phi_r: NDArray[np.float64]

    @cached_property
    def per_model(self) -> NDArray[np.float64]:
        """One value per training seed, shape (K,), with mean ``auc``, for intervals and tests.

        Jackknife values: seed i counts for as much as the AUC changes without it, as a judged
        model and in all the fits. Their standard error is that of the AUC; at an AUC of 0.5 it is
        up to sqrt(2) too large, so an interval may be too wide there. That of ``left_out``, which
        ignores the fits, is too small everywhere: equal sides are then told apart in 13 to 21 %
        of the cases instead of 5 %. With K = 3 no model can be spared, and it is
        ``left_out``.
        """
        models = len(self.left_out)
        if models <= _FEWEST:
            return self.left_out
        without = np.array(
            [
                _left_out_aucs(np.delete(self.phi_u, i, axis=0), np.delete(self.phi_r, i, axis=0))
                for i in range(models)
            ]
        ).mean(axis=1)
        return np.asarray(self.auc - (models - 1) * (without - without.mean()))

    @property
    def unlearned(self) -> NDArray[np.float64]:
        """Scores of the unlearned models, (K, n)."""
        return self.scores[: len(self.scores) // 2].reshape(len(self.left_out), -1)

    @property
    def retrained(self) -> NDArray[np.float64]:
        """Scores of the retrained models, (K, n)."""
        return self.scores[len(self.scores) // 2 :].reshape(len(self.left_out), -1)


def _auc_rows(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the AUC of every row, by ranks (Mann-Whitney); ties count half."""
    count, other = positive.shape[1], negative.shape[1]
    ranks = mid_ranks(np.concatenate([positive, negative], axis=1))
    wins = ranks[:, :count].sum(axis=1) - count * (count + 1) / 2
    return np.asarray(wins / (count * other), dtype=np.float64)


def _without_each(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation (n-1) per example without model i, both (K, n)."""
    models = len(values)
    centred = values - values.mean(axis=0)
    mean = values.mean(axis=0) - centred / (models - 1)
    squares = (centred**2).sum(axis=0) - centred**2 * models / (models - 1)
    deviation = np.sqrt(np.maximum(squares, 0) / (models - 2))
    return mean, np.maximum(deviation, SD_FLOOR)


def _log_density(
    values: NDArray[np.float64], fit: tuple[NDArray[np.float64], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Return the log density of a normal, without the constant that cancels in a ratio."""
    mean, deviation = fit
    return np.asarray(-0.5 * ((values - mean) / deviation) ** 2 - np.log(deviation))


def _scores(
    unlearned: NDArray[np.float64], retrained: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the log-likelihood ratios of both sides, each (K, n), their own seed left out."""
    fit_u, fit_r = _without_each(unlearned), _without_each(retrained)
    score_u = _log_density(unlearned, fit_u) - _log_density(unlearned, fit_r)
    score_r = _log_density(retrained, fit_u) - _log_density(retrained, fit_r)
    return score_u, score_r


def _left_out_aucs(
    unlearned: NDArray[np.float64], retrained: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the AUC over the examples within each left-out seed, (K,)."""
    return _auc_rows(*_scores(unlearned, retrained))


def u_lira(phi_u: ArrayLike, phi_r: ArrayLike) -> Lira:
    """Attack with one pair of Gaussians per example, leaving out the judged seed (U-LiRA, M3).

    For example x and seed i fit ``N(mu_u, s_u)`` to the unlearned and ``N(mu_r, s_r)`` to the
    retrained models of all other seeds; a model's score is ``log N(phi; u) - log N(phi; r)``.
    Seed i is left out of *both* sides. Leaving it out of its own side alone, as is usual, fits
    the other side better, which pulls the AUC of equal sides below 0.5 (0.48 to 0.49 for K = 8
    to 16 correlated models); and models i of the two sides share their seed.

    Parameters
    ----------
    phi_u, phi_r : array_like of shape (K, n)
        Logit-scaled confidences; row i of both sides has the same seed, or all are independent.
        K >= 3.

    Returns
    -------
    Lira
        AUC, advantage, and what they are made of. The standard deviations have a floor of
        :data:`SD_FLOOR`.

    Raises
    ------
    ValueError
        If the sides differ in shape, a value is not finite or K < 3.
    """
    unlearned, retrained = checked_sides(phi_u, phi_r)
    if unlearned.shape != retrained.shape or len(unlearned) < _FEWEST:
        raise ValueError(
            f"{len(unlearned)} unlearned and {len(retrained)} retrained models; "
            "need as many of both, three or more"
        )
    score_u, score_r = _scores(unlearned, retrained)
    left_out = _auc_rows(score_u, score_r)
    auc = float(left_out.mean())
    return Lira(
        auc=auc,
        advantage=2 * auc - 1,
        left_out=left_out,
        per_example=_auc_rows(score_u.T, score_r.T),
        scores=np.concatenate([score_u.ravel(), score_r.ravel()]),
        truths=np.repeat(np.array([1, 0]), score_u.size),
        exploratory=len(unlearned) < MIN_MODELS,
        phi_u=unlearned,
        phi_r=retrained,
    )


def vulnerability(phi_o: ArrayLike, phi_r: ArrayLike) -> NDArray[np.float64]:
    """Return how far training on an example moved its confidence, in standard deviations.

    ``|mean phi_o - mean phi_r| / sqrt((s_o^2 + s_r^2) / 2)`` over models, the order by which
    examples are put into strata. Take models of other seeds than the attack's: an order made
    from the judged models picks their noise.

    Parameters
    ----------
    phi_o, phi_r : array_like of shape (K, n)
        Confidences under original and retrained models; K >= 2, not necessarily equal.

    Returns
    -------
    ndarray of shape (n,)
        0 or more.
    """
    original, retrained = checked_sides(phi_o, phi_r)
    pooled = np.sqrt((original.var(axis=0, ddof=1) + retrained.var(axis=0, ddof=1)) / 2)
    gap = np.abs(original.mean(axis=0) - retrained.mean(axis=0))
    return np.asarray(gap / np.maximum(pooled, SD_FLOOR), dtype=np.float64)


def _chosen_auc(found: Lira, chosen: NDArray[np.integer]) -> float:
    """Return the AUC over some of the examples."""
    return float(_auc_rows(found.unlearned[:, chosen], found.retrained[:, chosen]).mean())


def _ordered(found: Lira, order_by: ArrayLike) -> NDArray[np.integer]:
    """Return the examples, least vulnerable first."""
    keys = np.asarray(order_by, dtype=np.float64)
    if keys.shape != found.per_example.shape:
        raise ValueError(f"{keys.shape} vulnerabilities for {found.per_example.size} examples")
    return np.argsort(keys, kind="stable")


def by_stratum(found: Lira, vulnerabilities: ArrayLike, strata: int = 3) -> list[float]:
    """Return the AUC within strata of equal size, the least vulnerable examples first.

    Parameters
    ----------
    found : Lira
        The attack over all examples.
    vulnerabilities : array_like of shape (n,)
        As :func:`vulnerability` gives them.
    strata : int
        How many; empty ones (more strata than examples) are left out.

    Raises
    ------
    ValueError
        If there is not one vulnerability per example or ``strata`` is below 1.
    """
    if strata < 1:
        raise ValueError(f"{strata} strata; need 1 or more")
    parts = np.array_split(_ordered(found, vulnerabilities), strata)
    return [_chosen_auc(found, part) for part in parts if part.size]


def worst_share(found: Lira, vulnerabilities: ArrayLike, share: float = WORST_SHARE) -> float:
    """Return the AUC over the most vulnerable share of the examples, at least one of them.

    Raises
    ------
    ValueError
        If there is not one vulnerability per example or ``share`` is not within (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"share {share}; need 0 < share <= 1")
    order = _ordered(found, vulnerabilities)
    return _chosen_auc(found, order[-max(1, round(share * order.size)) :])


def smallest_rate(num_non_members: int) -> float:
    """Return the smallest false-positive rate worth reporting: ten non-members get through."""
    return _HITS / num_non_members


def tpr_at_fpr(scores: ArrayLike, truths: ArrayLike, rate: float) -> float:
    """Return the share of members found where at most ``rate`` of the non-members are (M9).

    The largest true-positive rate of any threshold whose false-positive rate does not exceed
    ``rate``; nothing is interpolated (Carlini et al. 2022).

    Parameters
    ----------
    scores : array_like of shape (m,)
        Higher means member.
    truths : array_like of shape (m,)
        1 for members, 0 for non-members.
    rate : float
        False-positive rate, 0 to 1.

    Returns
    -------
    float
        Fraction, 0 to 1; about ``rate`` where there is nothing to find.

    Raises
    ------
    ValueError
        If ``rate`` lets fewer than ten non-members through (:func:`smallest_rate`), or a side is
        missing.
    """
    truth, values = np.asarray(truths), np.asarray(scores, dtype=np.float64)
    negatives = int(np.sum(truth == 0))
    if not negatives or negatives == truth.size or truth.shape != values.shape:
        raise ValueError(f"{negatives} non-members among {truth.size} examples; need both")
    if not smallest_rate(negatives) <= rate <= 1:
        raise ValueError(
            f"a false-positive rate of {rate:g} cannot be measured with {negatives} non-members; "
            f"the smallest is {smallest_rate(negatives):.3g}"
        )
    false_rates, true_rates = roc_points(truth, values)
    return float(true_rates[false_rates <= rate + 1e-12].max())


@dataclass(frozen=True)
class Change:
    """How far one client's retained examples came under attack by unlearning others.

    Parameters
    ----------
    largest, high : float
        Largest and 95th percentile of the per-example advantage, -1 to 1.
    """

    largest: float
    high: float


def retain_change(
    phi_before: ArrayLike, phi_after: ArrayLike, clients: ArrayLike
) -> Mapping[int, Change]:
    """Return, per client, how far retained examples betray which model is after unlearning (M14).

    U-LiRA between the models before and after, on examples of the retain set; the average hides
    that removing some examples exposes others (privacy onion), hence maximum and 95th percentile.
    Over n examples the maximum of pure noise is far above 0: read it beside the same number of
    a retrained model.

    Parameters
    ----------
    phi_before, phi_after : array_like of shape (K, n)
        Confidences on retained examples; row i of both has the same seed.
    clients : array_like of shape (n,)
        The owner of each example.

    Returns
    -------
    mapping of int to Change
        In order of clients.

    Raises
    ------
    ValueError
        As :func:`u_lira`; or if there is not one client per example.
    """
    advantages = 2 * u_lira(phi_after, phi_before).per_example - 1
    owners = np.asarray(clients)
    if owners.shape != advantages.shape:
        raise ValueError(f"{owners.shape} owners for {advantages.size} examples")
    return {
        int(client): Change(
            largest=float(advantages[owners == client].max()),
            high=float(np.quantile(advantages[owners == client], 0.95)),
        )
        for client in np.unique(owners)
    }
