"""Leaf refresh: keep the splits of boosted trees, compute their leaves again. Approximate.

References
----------
Chen, Guestrin, "XGBoost: A Scalable Tree Boosting System", KDD 2016 (arXiv 1603.02754): the gain of
a split, the weight of a leaf. Wu, Zhu, Li, He, "DeltaBoost: Gradient Boosting Decision Trees with
Efficient Machine Unlearning", SIGMOD 2023: splits that outlast a deletion. Keeping splits of which
the forgotten had a say is our choice; it has no proof.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

import numpy as np

from strategies.afresh import record_afresh
from strategies.base import in_range
from strategies.structure.boosting_replay import BoostingReplay
from unlearning.arrays import Arrays
from unlearning.models.boosting import before, rests_on
from unlearning.models.boosting_replay import idle_splits
from unlearning.models.tree_sums import Sums
from unlearning.models.trees import LEAF
from unlearning.protocol import Instruction, Reply
from unlearning.records.history import History
from unlearning.request import Guarantee, Request, Scope

__all__ = ["LeafRefresh"]

log = logging.getLogger("fedunlearn")


class LeafRefresh(BoostingReplay):
    """An iteration per round: the remaining clients sum gradients at its leaves, no candidates.

    Splits stay as the forgotten helped to choose them, so something of them may remain. A client
    that is lost in a round is left out of the leaves that are computed in it.

    Parameters
    ----------
    tolerance : float or None, default None
        The robustness check. None: splits are not compared; those that gain nothing any more are
        counted, and the log says so. From 0 to 1: clients send the sums of all candidates, as for
        a replay, and a split that lags behind the best by more than this share of the best's gain
        is decided again, its subtree grown anew. 0 is the replay itself, at its cost.

    Attributes
    ----------
    splits, lost : int
        Of the last request: splits looked at, and how many of them gain nothing any more (without
        ``tolerance``) or lagged too far behind and were decided again (with it). What hung below
        such a split is in vain and not counted.
    """

    scopes = frozenset({Scope.CLIENT, Scope.SAMPLE, Scope.CLASS})
    guarantee = Guarantee.APPROXIMATE

    def __init__(self, *, tolerance: float | None = None) -> None:
        super().__init__()
        if tolerance is not None:
            in_range("tolerance", tolerance, 0, 1)
        self.tolerance = tolerance
        self.splits = self.lost = 0
        self._chose: dict[int, int] = {}  # who helped to choose the splits, and stays

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        """Plan one round per iteration, or a replay in which splits may hold out."""
        self.splits = self.lost = 0
        self._chose = {c: n for c, n in before(arrays).items() if c in self.remaining}
        if self.tolerance is not None:
            self._tolerance = self.tolerance
            planned = super().prepare(request, history, arrays)
            if self._old is None:
                self._chose = {}  # no split is taken over
            return planned
        self._history = history
        self._rounds = int(arrays["tree"].max()) // self._model.width + 1
        return {**arrays, **rests_on(self._chose)}, self._rounds

    def instruct(self, server_round: int) -> Mapping[int, Instruction]:
        """Ask for the sums at the leaves of an iteration."""
        if self.tolerance is not None:
            return super().instruct(server_round)
        rows = self._leaves(self._arrays, server_round)
        instruction = self._model.asked_at(self._arrays, rows, of="total")
        members = self._arrays["clients"].tolist() or self.remaining
        return {client: instruction for client in self.remaining if client in members}

    def combine(self, server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Give the leaves of the iteration their new weights."""
        if self.tolerance is not None:
            after = super().combine(server_round, arrays, replies)
        else:
            after = self._refreshed(server_round, arrays, replies)
        if server_round == self._rounds and self.lost:
            log.warning("LeafRefresh: %s", self._verdict())
        return after

    def _refreshed(self, server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        rows = self._leaves(arrays, server_round)
        sums, examples = self._model.summed(arrays, rows, replies, candidates=False)
        value = arrays["value"].copy()
        value[rows] = self._model.weights(sums.total)
        examples = self._resting(arrays, examples)
        lost, splits = idle_splits(self._model, arrays, rows, sums)
        self.lost, self.splits = self.lost + lost, self.splits + splits
        if server_round == self._rounds:
            record_afresh(self, self._history, examples)
        return {**arrays, "value": value, **rests_on(examples)}

    def _resting(self, arrays: Arrays, examples: dict[int, int]) -> dict[int, int]:
        """Count those in, too, who helped to choose the splits and were lost in this round."""
        lost = {c: n for c, n in self._chose.items() if c in self.unanswered}
        known = lost if self.tolerance is None else before(arrays) | lost
        return known | examples

    def _watch(self, old: Arrays, rows: np.ndarray, sums: Sums) -> None:
        """Count the splits of an old iteration that lag behind; below one that does none counts."""
        chosen = self._model.kept(old, rows, sums, self._tolerance)
        changed = rows[self._model.changed(old, rows, chosen)]
        lagging = {(int(old["tree"][row]), int(old["path"][row])) for row in changed}
        inner = rows[old["feature"][rows] >= 0]
        for tree, path in zip(
            old["tree"][inner].tolist(), old["path"][inner].tolist(), strict=True
        ):
            above = {(tree, path >> up) for up in range(1, path.bit_length())}
            if not above & lagging:
                self.splits += 1
                self.lost += (tree, path) in lagging

    def _verdict(self) -> str:
        if self.tolerance is None:
            return (
                f"{self.lost} of {self.splits} splits gain nothing on the remaining data; option "
                "'tolerance' has them decided again"
            )
        return (
            f"{self.lost} of {self.splits} splits lagged more than {self.tolerance:g} of the "
            "largest gain behind and were decided again"
        )

    def _leaves(self, arrays: Arrays, server_round: int) -> np.ndarray:
        iteration = arrays["tree"] // self._model.width
        return np.flatnonzero((arrays["feature"] == LEAF) & (iteration == server_round - 1))
