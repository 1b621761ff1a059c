"""Leaf refresh: keep the splits of boosted trees, compute their leaves again. Approximate.

References
----------
Chen, Guestrin, "XGBoost: A Scalable Tree Boosting System", KDD 2016 (arXiv 1603.02754): the weight
of a leaf. Keeping splits of which the forgotten had a say is our choice; it has no proof.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from strategies.base import UnlearningStrategy
from strategies.structure.afresh import record_afresh
from unlearning.arrays import Arrays
from unlearning.boosting import Boosting, rests_on
from unlearning.errors import ConfigError
from unlearning.history import History
from unlearning.protocol import Instruction, Reply
from unlearning.request import Request, Scope
from unlearning.trees import LEAF

__all__ = ["LeafRefresh"]


class LeafRefresh(UnlearningStrategy):
    """An iteration per round: the remaining clients sum gradients at its leaves, no candidates.

    Splits stay as the forgotten helped to choose them, so something of them may remain.
    """

    scopes = frozenset({Scope.CLIENT, Scope.SAMPLE, Scope.CLASS})
    models = frozenset({Boosting.name})

    def __init__(self) -> None:
        super().__init__()
        self._history = History()
        self._rounds = 0

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        """Plan one round per iteration; the first one says whom the leaves rest on now."""
        self._history = history
        self._rounds = int(arrays["tree"].max()) // self._model.width + 1
        nobody = rests_on({})
        return {**arrays, **nobody}, self._rounds

    def instruct(self, server_round: int) -> Mapping[int, Instruction]:
        """Ask for the sums at the leaves of an iteration."""
        rows = self._leaves(self._arrays, server_round)
        instruction = self._model.asked_at(self._arrays, rows, of="total")
        members = self._arrays["clients"].tolist() or self.remaining
        return {client: instruction for client in self.remaining if client in members}

    def combine(self, server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Give the leaves of the iteration their new weights."""
        rows = self._leaves(arrays, server_round)
        sums, examples = self._model.summed(arrays, rows, replies, candidates=False)
        value = arrays["value"].copy()
        value[rows] = self._model.weights(sums.total)
        if server_round == self._rounds:
            record_afresh(self, self._history, examples)
        return {**arrays, "value": value, **rests_on(examples)}

    def _leaves(self, arrays: Arrays, server_round: int) -> np.ndarray:
        iteration = arrays["tree"] // self._model.width
        return np.flatnonzero((arrays["feature"] == LEAF) & (iteration == server_round - 1))

    @property
    def _model(self) -> Boosting:
        model = self.federation.model
        if not isinstance(model, Boosting):
            raise ConfigError("LeafRefresh works on model.name = 'boosting' alone; set it")
        return model
