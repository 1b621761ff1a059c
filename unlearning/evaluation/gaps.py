"""How far from the retrained model: signed gaps, tug of war, fairness, the marker (M1 M2 M6 M15).

References
----------
C. Fan, J. Liu, Y. Zhang, E. Wong, D. Wei, S. Liu: SalUn: Empowering Machine Unlearning via
Gradient-based Weight Saliency. ICLR 2024. arXiv:2310.12508. (The average gap.)
K. Zhao, M. Kurmanji, G.-O. Barbulescu, E. Triantafillou, P. Triantafillou: What makes unlearning
hard and what to do about it. NeurIPS 2024. arXiv:2406.01257. (ToW)
A. Halimi, S. Kadhe, A. Rawat, N. Baracaldo: Federated Unlearning: How to Efficiently Erase a
Client in FL? 2022. arXiv:2207.05521. (Backdoor success.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from unlearning.evaluation.entry import Metric
from unlearning.evaluation.statistics import Paired, paired

__all__ = [
    "CLIENT_MARGIN",
    "METRICS",
    "Fairness",
    "Gap",
    "average_gap",
    "fairness",
    "fairness_of_gaps",
    "gap_vector",
    "marker_difference",
    "tow",
]

CLIENT_MARGIN = 0.01  # accuracy that a remaining client may lose against retraining

METRICS = (
    Metric(
        "M1",
        "gap-to-retrain",
        "Accuracy on the forget set minus the retrained models'",
        "accuracy (fraction)",
        "0",
        "higher",
        "Fan et al. 2024, arXiv:2310.12508",
    ),
    Metric(
        "M2",
        "tow",
        "Tug of war, ToW",
        "score",
        "1; two retrained models score less",
        "lower",
        "Zhao et al. 2024, arXiv:2406.01257",
    ),
    Metric(
        "M6",
        "marker-difference",
        "Success of the planted marker minus the retrained models'",
        "fraction",
        "0",
        "higher",
        "Halimi et al. 2022, arXiv:2207.05521",
    ),
    Metric(
        "M15",
        "fairness",
        "Accuracy that the worst remaining client lost against retraining",
        "accuracy (fraction)",
        "the retrained model's",
        None,
        "Practice of the field's surveys, for example arXiv:2401.05146",
    ),
)


@dataclass(frozen=True)
class Gap:
    """Distance to the retrained models in one number.

    Parameters
    ----------
    value : float
        Signed: the model's minus the mean of the retrained models'.
    noise : float or None
        Standard deviation (n-1) over the retrained models; a gap below it tells nothing. None
        for a single one.
    n : int
        Retrained models.
    """

    value: float
    noise: float | None
    n: int


def gap_vector(
    card: Mapping[str, float | None], references: Sequence[Mapping[str, float | None]]
) -> dict[str, Gap]:
    """Return the signed gap of every number to its mean over retrained models (M1).

    Parameters
    ----------
    card : mapping of str to float or None
        Accuracies by set (forget, retain, test, each remaining client); None: not measured.
    references : sequence of such mappings
        The same of retrained models, one per seed, the judged model not among them.

    Returns
    -------
    dict of str to Gap
        In the order of ``card``; a set that it or all references lack is left out.

    Raises
    ------
    ValueError
        If there is no reference.
    """
    if not references:
        raise ValueError("no retrained model to measure a gap to")
    found = {}
    for name, ours in card.items():
        theirs = [value for other in references if (value := other.get(name)) is not None]
        if ours is None or not theirs:
            continue
        noise = float(np.std(theirs, ddof=1)) if len(theirs) > 1 else None
        found[name] = Gap(float(ours - np.mean(theirs)), noise, len(theirs))
    return found


def average_gap(gaps: Mapping[str, Gap]) -> float | None:
    """Return the mean absolute gap (SalUn's Avg Gap), or None where there is no gap.

    The sign, over- or under-forgetting, is lost; show the gaps beside it.
    """
    return float(np.mean([abs(gap.value) for gap in gaps.values()])) if gaps else None


def tow(forget: Sequence[float], retain: Sequence[float], test: Sequence[float]) -> float:
    """Return ToW, ``prod over three sets of (1 - |a_u - a_r|)`` (M2).

    Parameters
    ----------
    forget, retain, test : two floats each
        The number of the unlearned and of the retrained model on that set, fractions. With
        membership AUCs in place of the accuracies on the forget set it is ToW-MIA.

    Returns
    -------
    float
        1: equal on all three; 0: as far as can be on one.

    Raises
    ------
    ValueError
        If a pair is no pair of fractions.
    """
    pairs = np.array([forget, retain, test], dtype=np.float64)
    if pairs.shape != (3, 2) or not ((pairs >= 0) & (pairs <= 1)).all():
        raise ValueError(f"{pairs.tolist()}: expected three pairs of fractions")
    return float(np.prod(1 - np.abs(pairs[:, 0] - pairs[:, 1])))


@dataclass(frozen=True)
class Fairness:
    """What unlearning did to the clients that stay, against retraining.

    Parameters
    ----------
    worst : float
        Smallest signed gap, negative: that client lost accuracy.
    worst_client : int
        Whose it is; of equals the lowest id.
    sd : float or None
        Standard deviation (n-1) of the gaps over clients; None for one client.
    share : float
        Share of clients that lost more than the margin.
    """

    worst: float
    worst_client: int
    sd: float | None
    share: float


def fairness(
    accuracies: Mapping[int, float],
    references: Mapping[int, float],
    margin: float = CLIENT_MARGIN,
) -> Fairness:
    """Return how evenly the remaining clients fare against retraining (M15).

    Against retraining, not against before: a client that shared rare classes with the leaver
    *should* lose some accuracy.

    Parameters
    ----------
    accuracies, references : mapping of int to float
        Accuracy per remaining client, of the model and averaged over retrained models.
    margin : float
        Loss that counts as none, as a fraction.

    Raises
    ------
    ValueError
        If there is no client or the clients differ.
    """
    if not accuracies or accuracies.keys() != references.keys():
        raise ValueError(f"clients {sorted(accuracies)} and {sorted(references)}; need the same")
    gaps = {client: accuracies[client] - references[client] for client in accuracies}
    return fairness_of_gaps(gaps, margin)


def fairness_of_gaps(differences: Mapping[int, float], margin: float = CLIENT_MARGIN) -> Fairness:
    """Return the same of gaps that are known already.

    Parameters
    ----------
    differences : mapping of int to float
        Accuracy minus that of retraining, per remaining client; at least one.
    margin : float
        As for :func:`fairness`.
    """
    clients = sorted(differences)
    gaps = np.array([differences[client] for client in clients])
    return Fairness(
        worst=float(gaps.min()),
        worst_client=clients[int(gaps.argmin())],
        sd=float(gaps.std(ddof=1)) if gaps.size > 1 else None,
        share=float(np.mean(gaps < -margin)),
    )


def marker_difference(ours: Sequence[float], theirs: Sequence[float]) -> Paired:
    """Return marker success minus that of the retrained model, paired by seed (M6).

    The retrained model's success is a base rate, not 0. A marker that is gone does not prove
    that ordinary data were forgotten.

    Parameters
    ----------
    ours, theirs : sequence of float
        :func:`unlearning.evaluation.metrics.backdoor_success` per seed, of the strategy and of
        retraining.
    """
    return paired(ours, theirs)
