"""PruningClient (FedUP by pruning): cut the weights in which the leavers differ most from the rest.

References
----------
Romandini, Borcea, Montanari, Foschini, "FedUP: Efficient Pruning-based Federated Unlearning for
Model Poisoning Attacks", 2025 (arXiv 2508.13853). The paper could not be read: the rule is that of
a review and a re-implementation. Two other methods are called FedUP.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from strategies.base import UnlearningStrategy, in_range
from strategies.shares import Span, check_rounds, rounds_of
from unlearning import arrays as named
from unlearning.arrays import Array, Arrays
from unlearning.models.selection import kernels, largest_of_each
from unlearning.records.history import History
from unlearning.request import Request, Scope

__all__ = ["PruningClient", "agreement", "pruned_share", "ranks"]

log = logging.getLogger("fedunlearn")


def agreement(updates: Sequence[Array]) -> float:
    """Return the mean cosine of all pairs of updates, mapped from [0.5, 1] to [0, 1].

    Below 0.5, and with fewer than two updates that moved, it is 0.

    >>> agreement([np.array([1.0, 0.0]), np.array([3.0, 0.0])])
    1.0
    """
    rows = [np.asarray(update, np.float64).ravel() for update in updates]
    rows = [row / length for row in rows if (length := float(np.linalg.norm(row))) > 0]
    cosines = [float(a @ b) for a, b in itertools.combinations(rows, 2)]
    return float(np.clip((np.mean(cosines) - 0.5) / 0.5, 0, 1)) if cosines else 0.0


def pruned_share(agreed: float, least: float, most: float, power: float) -> float:
    """Return ``(most - least) z^power + least``."""
    return (most - least) * float(agreed**power) + least


def ranks(model: Mapping[str, Array], benign: Arrays, leaving: Arrays) -> Arrays:
    """Return ``(w_u - w_b)^2 |w|`` of the matrices and kernels, from mean updates of one model.

    >>> one = {"w": np.array([[2.0, -1.0]])}
    >>> ranks(one, {"w": np.zeros((1, 2))}, {"w": np.array([[1.0, 3.0]])})["w"].tolist()
    [[2.0, 9.0]]
    """
    return {
        name: np.square(leaving[name].astype(np.float64) - benign[name]) * np.abs(array)
        for name, array in kernels(model).items()
    }


class PruningClient(UnlearningStrategy):
    """The mean of the others' last local models, cut where the leavers' stands out; then recovery.

    Parameters
    ----------
    most : float, default 0.05
        Part of every matrix or kernel that is cut where the remaining clients agree (P_max). The
        review has 0.15, which destroyed a small model before recovery: our choice.
    least : float, default 0.05
        Part that is cut where they do not (P_min). The review has 0.01: our choice, with which
        their agreement counts only once ``most`` is raised.
    power : float, default 5.0
        How late agreement counts (gamma).
    fine_tune_rounds : float, default 0.25
        Rounds of those who stay after the cut, before the recovery rounds that every strategy has;
        below 1, the share of the rounds learned so far. Our choice.

    Attributes
    ----------
    cut : int
        Entries that the last request set to zero.

    Notes
    -----
    Agreement is the mean cosine of the remaining clients' *updates* of the last layer: that of
    their weights is near 1 in every federation. Where the leavers took part in the last round, the
    answer is cut out of the mean of the others in that round; else out of the current model, by the
    newest updates there are. Biases, norms and buffers stay.

    Where it fails: on digits and CIFAR-10, by the backdoor. Of any earlier round nothing is undone
    but what the cut takes, and whether that is what tells a trigger is much a matter of chance:
    seeds differ far more than with other strategies. Made against poisoned updates, it shows little
    of membership.
    """

    scopes = frozenset({Scope.CLIENT})
    needs = frozenset({"updates"})
    tunable: ClassVar[Mapping[str, Span]] = {
        "least": Span(0.01, 0.2),
        "fine_tune_rounds": Span(0.0, 0.3),
    }

    def __init__(
        self,
        *,
        most: float = 0.05,
        least: float = 0.05,
        power: float = 5.0,
        fine_tune_rounds: float = 0.25,
    ) -> None:
        super().__init__()
        in_range("least", least, 0, 1)
        in_range("most", most, least, 1)
        in_range("power", power, 0)
        check_rounds("fine_tune_rounds", fine_tune_rounds)
        self.most = most
        self.least = least
        self.power = power
        self.fine_tune_rounds = fine_tune_rounds
        self.cut = 0

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        """Compare the newest updates of both sides, and cut."""
        self.cut = 0
        seen = frozenset[int]().union(*(history.participants(t) for t in history.rounds))
        if seen <= request.leavers:
            return history.initial, 0
        gone, stayed = _newest(history, request.leavers)
        if not gone or not stayed:
            self.idle = "no updates of both sides were kept"
            return arrays, 0
        benign, leaving = _mean(history, *stayed), _mean(history, *gone)
        last = gone[0] == stayed[0] == self.federation.completed > self.federation.edited
        start = _without(history, arrays, gone[0], benign) if last else arrays
        names = list(kernels(arrays))
        updates = [history.update(stayed[0], k)[names[-1]] for k in stayed[1]] if names else []
        share = pruned_share(agreement(updates), self.least, self.most, self.power)
        masks = largest_of_each(ranks(arrays, benign, leaving), share)
        self.cut = sum(int(mask.sum()) for mask in masks.values())
        return {
            n: np.where(masks[n], np.zeros_like(a), a) if n in masks else a
            for n, a in start.items()
        }, rounds_of(self.fine_tune_rounds, self.federation.completed)


_Side = tuple[int, tuple[int, ...]] | None  # a round, and whose updates of it are meant


def _newest(history: History, leavers: frozenset[int]) -> tuple[_Side, _Side]:
    """Return the newest round with both sides; failing that, the newest round of either."""
    gone: _Side = None
    stayed: _Side = None
    for t in reversed(history.stored_rounds):
        there = history.weights(t)
        mine = tuple(k for k, share in there.items() if k in leavers and share)
        others = tuple(k for k, share in there.items() if k not in leavers and share)
        if mine and others:
            return (t, mine), (t, others)
        gone = gone or ((t, mine) if mine else None)
        stayed = stayed or ((t, others) if others else None)
    return gone, stayed


def _mean(history: History, server_round: int, clients: tuple[int, ...]) -> Arrays:
    """Return the mean update of some clients in a round, by their examples."""
    counts = history.participants(server_round)
    return named.weighted_mean((counts[k], history.update(server_round, k)) for k in clients)


def _without(history: History, arrays: Arrays, server_round: int, benign: Arrays) -> Arrays:
    """Return the mean of the others in the last round: ``w - D + D_b`` on parameters."""
    everyone = _mean(history, server_round, tuple(history.participants(server_round)))
    return {
        name: (array - everyone[name] + benign[name]).astype(array.dtype)
        if named.is_parameter(name, array)
        else array
        for name, array in arrays.items()
    }
