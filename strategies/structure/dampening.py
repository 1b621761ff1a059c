"""Dampening (ConDa): shrink the weights that the leavers moved more than clients do on average.

References
----------
Chundawat, Niroula, Dhungana, Schoepf, Mandal, Brintrup, "ConDa: Fast Federated Unlearning with
Contribution Dampening", 2024 (arXiv 2410.04144). The authors' code divides the other way round and
dampens what the leaver moved least; here it is what the text says.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from strategies.base import UnlearningStrategy, in_range
from unlearning import arrays as named
from unlearning.arrays import Array, Arrays
from unlearning.records.history import History
from unlearning.request import Request, Scope

__all__ = ["Dampening", "dampened", "mean_movement", "relative_movement"]


def mean_movement(history: History, client: int) -> Arrays | None:
    """Return how far a client moved each parameter, ``|D|``, mean over its own recorded rounds.

    Float64; None if none of its updates was kept.
    """
    mine = [t for t in history.stored_rounds if client in history.participants(t)]
    if not mine:
        return None
    total: Arrays = {}
    for t in mine:
        for name, step in named.parameters(history.update(t, client)).items():
            total[name] = total.get(name, 0.0) + np.abs(step.astype(np.float64))
    return {name: array / len(mine) for name, array in total.items()}


def relative_movement(movements: Mapping[int, Arrays], leavers: frozenset[int]) -> Arrays:
    """Return the mean movement of all clients over that of the leavers; infinite where they rest.

    >>> moves = {0: {"w": np.array([1.0, 1.0])}, 1: {"w": np.array([9.0, 0.0])}}
    >>> relative_movement(moves, frozenset({1}))["w"].round(2).tolist()
    [0.56, inf]
    """
    found: Arrays = {}
    for name in next(iter(movements.values())):
        everyone = np.mean([m[name] for m in movements.values()], axis=0)
        theirs = np.mean([m[name] for k, m in movements.items() if k in leavers], axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            found[name] = np.where(theirs > 0, everyone / theirs, np.inf)
    return found


def dampened(
    arrays: Arrays, ratios: Mapping[str, Array], threshold: float, factor: float, most: float
) -> Arrays:
    """Return the model with ``w <- min(factor r, most) w`` where ``r < threshold``.

    Parameters
    ----------
    arrays : Arrays
        The model; what has no ratio is returned as it is.
    ratios : mapping
        r, entry by entry, 0 or more.
    threshold, factor, most : float
        alpha, lambda and U_b.
    """
    after = dict(arrays)
    for name, ratio in ratios.items():
        array = arrays[name]
        beta = np.minimum(factor * ratio, most)
        shrunk = (array * beta.astype(array.dtype)).astype(array.dtype)
        after[name] = np.where(ratio < threshold, shrunk, array)
    return after


class Dampening(UnlearningStrategy):
    """Weights that the leavers moved most are shrunk, in proportion; nobody works for it.

    Parameters
    ----------
    threshold : float, default 0.5
        A parameter is shrunk where the mean movement of all clients is below this multiple of the
        leavers' (alpha); [0, 1]. The default of the authors' code.
    factor : float, default 0.5
        What it is multiplied with is this times that ratio (lambda), as in the authors' code.
    most : float, default 0.5
        Upper end of what it is multiplied with (U_b); [0, 1], as above it weights would grow.

    Attributes
    ----------
    shrunk : int
        Parameters that the last request shrank.

    Notes
    -----
    The ratio is never below the leavers' share of the clients, and near 1 where clients are alike.
    A request for which the threshold selects no weight fails and says from where on one would. The
    model is damaged first, and rounds of recovery are part of the method. Buffers stay. Movements
    are those of local updates before aggregation, over the rounds whose updates were kept. Clients
    that left before are not counted.

    Where it fails: with one local epoch where clients' data differ, on digits and CIFAR-10. What
    the leavers moved most is then not all that tells the trigger, some of which stays (Dirichlet
    .3), or is much of what the others need, and accuracy does not come back (two classes a client).
    """

    scopes = frozenset({Scope.CLIENT})
    needs = frozenset({"updates"})

    def __init__(self, *, threshold: float = 0.5, factor: float = 0.5, most: float = 0.5) -> None:
        super().__init__()
        in_range("threshold", threshold, 0, 1)
        in_range("factor", factor, 0)
        in_range("most", most, 0, 1)
        self.threshold = threshold
        self.factor = factor
        self.most = most
        self.shrunk = 0

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        """Measure how far everyone moved each parameter, and shrink."""
        self.shrunk = 0
        seen = frozenset[int]().union(*(history.participants(t) for t in history.rounds))
        if seen <= request.leavers:
            return history.initial, 0
        found = {client: mean_movement(history, client) for client in sorted(seen)}
        movements = {client: moved for client, moved in found.items() if moved is not None}
        leavers = request.leavers & movements.keys()
        if not leavers or len(leavers) >= self.threshold * len(movements):
            self.idle = (
                f"{len(leavers)} of {len(movements)} clients with recorded updates leave, and "
                f"threshold = {self.threshold:g} selects no weight there"
            )
            return arrays, 0
        ratios = relative_movement(movements, frozenset(leavers))
        self.shrunk = sum(int((ratio < self.threshold).sum()) for ratio in ratios.values())
        if not self.shrunk:
            least = min(float(ratio.min()) for ratio in ratios.values() if ratio.size)
            self.idle = (
                f"threshold = {self.threshold:g} selects no weight, one above {least:.3g} would"
            )
        return dampened(arrays, ratios, self.threshold, self.factor, self.most), 0
