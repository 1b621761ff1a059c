"""Boosting replay: boost again without the forgotten, splits that still hold re-used. Exact.

References
----------
Wu, Zhu, Li, He, "DeltaBoost: Gradient Boosting Decision Trees with Efficient Machine Unlearning",
SIGMOD 2023: deletion from boosted trees. The replay is retraining itself, in fewer rounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from strategies.afresh import record_afresh
from strategies.base import UnlearningStrategy
from unlearning.arrays import Arrays
from unlearning.errors import ConfigError
from unlearning.models.boosting import Boosting, before, rests_on
from unlearning.models.boosting_replay import replayed
from unlearning.models.tree_sums import Sums
from unlearning.models.trees import OPEN, closed_by_depth
from unlearning.protocol import Instruction, Reply
from unlearning.records.history import History
from unlearning.request import Guarantee, Request, Scope

__all__ = ["BoostingReplay"]


class BoostingReplay(UnlearningStrategy):
    """The remaining clients sum new gradients at all nodes of an old iteration in one round.

    One example's absence changes the gradients of all others from the second tree on, so every
    iteration has to be visited. Where the best split is still the old one, the next level is known
    without another round; subtrees below a changed split are grown level by level. The result is
    that of retraining, bit for bit; what is saved is rounds, not gradients.

    Notes
    -----
    A request that comes while the trees grow is answered by growing them again as far. A client
    that is lost in the first round is left out of the new trees; one that is lost later is left out
    of the nodes decided in that round.
    """

    scopes = frozenset({Scope.CLIENT, Scope.SAMPLE, Scope.CLASS, Scope.FEATURE})
    guarantee = Guarantee.EXACT
    models = frozenset({Boosting.name})

    _tolerance = 0.0  # how far an old split may lag behind the best and still hold

    def __init__(self) -> None:
        super().__init__()
        self._old: Arrays | None = None
        self._history = History()
        self._rounds = 0

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        """Begin anew, with the old trees at hand."""
        model, self._history = self._model, history
        complete = model.is_complete(arrays)
        self._old = arrays if complete else None
        self._rounds = model.rounds if complete else self.federation.completed
        return model.initial(), self._rounds

    def instruct(self, server_round: int) -> Mapping[int, Instruction]:
        """Ask for the sums at a whole old iteration, or at the open nodes where none fits."""
        if self._model.is_complete(self._arrays):
            return {}
        found = self._mixed(self._arrays)
        if found is None:
            return self.teach(self.federation.completed + server_round)
        instruction = self._model.asked_at(*found)
        members = self._arrays["clients"].tolist() or self.remaining
        return {client: instruction for client in self.remaining if client in members}

    def combine(self, server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Decide as in learning, a whole iteration at once as far as the old splits hold."""
        model, after = self._model, arrays
        if not model.is_complete(arrays):
            found = self._mixed(arrays)
            if found is None:
                after = model.learn(arrays, replies)
            else:
                sums, examples = model.summed({**arrays, **found[0]}, found[1], replies)
                if examples:  # else nobody holds any, and nothing is learned from nobody
                    self._watch(*found, sums)
                    after = replayed(model, arrays, *found, sums, self._tolerance)
                    after = {**after, **rests_on(self._resting(arrays, examples))}
        if server_round == self._rounds:
            pairs = zip(after["clients"].tolist(), after["examples"].tolist(), strict=True)
            record_afresh(self, self._history, dict(pairs))
        return after

    def _resting(self, arrays: Arrays, examples: dict[int, int]) -> dict[int, int]:
        """Return the clients that the trees rest on after a round, with numbers of examples."""
        return before(arrays) | examples

    def _watch(self, old: Arrays, rows: np.ndarray, sums: Sums) -> None:
        """Take note of how an old iteration fares; here: of nothing."""

    def _mixed(self, arrays: Arrays) -> tuple[Arrays, np.ndarray] | None:
        """Return the new iterations with the next one as it was, and its nodes to look at.

        None where the next iteration has begun, or the old trees are of no use.
        """
        opened = arrays["feature"] == OPEN
        if self._old is None or (arrays["path"][opened] != 1).any():
            return None
        trees = arrays["tree"][opened]
        again = np.isin(self._old["tree"], trees)
        if not again.any():
            return None
        mixed = {
            name: np.concatenate([arrays[name][~opened], self._old[name][again]])
            for name in ("tree", "path", "feature", "threshold", "value")
        }
        mine = np.isin(mixed["tree"], trees)
        rows = np.flatnonzero(mine & ~closed_by_depth(self._model.plan, mixed["path"]))
        return mixed, rows

    @property
    def _model(self) -> Boosting:
        model = self.federation.model
        if not isinstance(model, Boosting):
            raise ConfigError(
                f"{type(self).__name__} works on model.name = 'boosting' alone; set it"
            )
        return model
